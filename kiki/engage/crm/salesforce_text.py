"""What is asked of Salesforce in SOQL and CSV, and what its answers mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from kiki.engage.moment import parse_moment, write_moment
from kiki.outbound.exchange import CONFLICT, INVALID, THROTTLED, UNAUTHORIZED, UNAVAILABLE, Reply
from kiki.outbound.outcome import Outcome, done, refused

CHANGED: Final = "SystemModstamp"
DAY_LIMIT_WAIT: Final = 3_600_000_000
"""After the day's calls are used up nobody knows when the next are free: asked again in an hour."""

_OUR_CODES: Final = {
    "UNABLE_TO_LOCK_ROW": UNAVAILABLE,
    "SERVER_UNAVAILABLE": UNAVAILABLE,
    "DUPLICATES_DETECTED": CONFLICT,
    "DUPLICATE_VALUE": CONFLICT,
    "INVALID_SESSION_ID": UNAUTHORIZED,
    "INSUFFICIENT_ACCESS_OR_READONLY": UNAUTHORIZED,
}


def soql(
    columns: Sequence[str],
    *,
    until: int,
    at: int = -1,
    key: str = "",
    ordered: bool = True,
    table: str = "Contact",
    only: str = "",
) -> str:
    """Rows that changed behind that place and not after `until`, the oldest change first."""
    conditions = [f"{CHANGED} <= {_moment(until)}", *filter(None, (only,))]
    if at >= 0:
        conditions.append(f"({CHANGED} > {_moment(at)} OR ({CHANGED} = {_moment(at)} AND Id > '{escaped(key)}'))")
    order = f" ORDER BY {CHANGED}, Id" if ordered else ""
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {' AND '.join(conditions)}{order}"  # noqa: S608  # SOQL only reads; names are checked


def escaped(text: str) -> str:
    """The text as it may stand between the quotes of SOQL."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def changed_at(row: Mapping[str, Any]) -> int:
    """When Salesforce last touched the row."""
    return parse_moment(str(row.get(CHANGED) or ""))


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the fields of related records under their dotted names: `Account.Name`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found


def field_name(name: str) -> str:
    """A field of ours as Salesforce calls custom fields."""
    return name if name.endswith("__c") else f"{name}__c"


def row_outcome(result: Mapping[str, Any]) -> Outcome:
    """The outcome of one row of a collection, whose status is 200 whatever became of it."""
    if result.get("success") is True:
        return done()
    error = next((one for one in result.get("errors") or () if isinstance(one, Mapping)), {})
    return refusal(str(error.get("statusCode") or "no reason"))


def refusal(code: str) -> Outcome:
    """A refusal by Salesforce's word for it; its messages are not repeated, they quote values."""
    return refused(_OUR_CODES.get(code, INVALID), f"salesforce: {code[:80]}")


def judge(reply: Reply) -> Outcome | None:
    """Salesforce's own words beside the status."""
    if reply.status not in {400, 403, 503}:
        return None
    said = reply.json
    first = said[0] if isinstance(said, list) and said and isinstance(said[0], dict) else {}
    code = str(first.get("errorCode") or "")
    if code == "REQUEST_LIMIT_EXCEEDED":
        return refused(
            THROTTLED, f"{reply.status}: {code}: the calls of this day are used up", retry_at=reply.now + DAY_LIMIT_WAIT
        )
    return None


def csv_rows(content: bytes) -> list[dict[str, str]]:
    """The rows of a bulk result."""
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def csv_text(rows: Iterable[Mapping[str, str]], columns: Sequence[str]) -> bytes:
    """Rows for a bulk job; what a row does not name is left empty, which changes nothing there."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def bulk_outcomes(failed: Iterable[Mapping[str, str]], key: str) -> Iterator[tuple[str, Outcome]]:
    """What became of the rows that a bulk job refused: `CODE:message:fields`."""
    for row in failed:
        yield row.get(key, ""), refusal(row.get("sf__Error", "").partition(":")[0] or "no reason")


def _moment(micros: int) -> str:
    millis = micros // 1_000
    return write_moment(millis // 1_000 * 1_000_000, zone=f".{millis % 1_000:03d}Z")
