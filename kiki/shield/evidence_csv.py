"""Decisions as lines of `shield_audit_gdpr.csv`.

The CSV has the thirteen columns of the system before this one, and exactly one line for each decision, each turn of
the kill switch and each note of another service. Everything in it is a closed vocabulary, an amount, a scope, or a
reference: a person appears in `customer_id_hash` and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from kiki.clock import SECOND
from kiki.ledger.entry import Entry
from kiki.money import MICROS
from kiki.shield.evidence_row import Row, least_shown, rows
from kiki.shield.evidence_words import HALT, NOTE, PRIVACY, RESUME, words
from kiki.shield.fact import Decided, decode_fact
from kiki.shield.scope import PERSONAL_PREFIXES, is_reference

COLUMNS = (
    *("timestamp", "event_id", "level", "event_type", "user_id_hash", "customer_id_hash", "action", "resource"),
    *("outcome", "reason", "ip_address", "data_accessed", "retention_days"),
)
CSV_HEADER = ",".join(COLUMNS) + "\n"

_SAID_BY_THE_ROW = frozenset({HALT, RESUME, NOTE, *PRIVACY})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_line(row: Row, retention_days: int) -> str:
    """One row as a line, its line feed included."""
    verb = row.verb
    if not row.is_decision:
        raise ValueError(f"a {verb} is evidence but no decision: it has no row in the CSV")
    head, middle = _around(verb, row.reason_code)
    customer, named = _told(row.scopes)
    if verb in _SAID_BY_THE_ROW:
        customer, middle, data = _said_by(row, customer, named[1:])
    else:
        data = _data(customer, row.ltv, row.amount, named)
    user = _hashed(row.actor, row.chain) if row.actor else ""
    time_text = _local(row.at // SECOND)
    return f"{time_text},{row.event_id}{head}{user},{customer}{middle}{row.network},{data},{retention_days}\n"


def _said_by(row: Row, customer: str, named: str) -> tuple[str, str, str]:
    """Of a halt, a privacy fact or a note: whom it is about, the middle of the line, and what was looked at."""
    said = words(row.verb, row.reason_code)
    if row.verb == NOTE:
        data = "[detail]" if row.detail else "[]"
        return row.customer, _fields(row.resource, named, said.outcome, said.reason), data
    if row.verb in PRIVACY:
        data = "[customer_id]" if row.customer else "[]"
        return row.customer, _fields(said.action, row.resource, row.outcome, said.reason), data
    # A person's pattern is said by its kind: who it is stands in customer_id_hash.
    return customer, _fields(said.action, named or _kinds(row.scopes), said.outcome, said.reason), "[scopes]"


def csv_lines(entry: Entry, chain: str, retention_days: int) -> list[str]:
    """The lines of an entry in the CSV: what `csv_line` says of each of its decisions, without the rows."""
    fact = decode_fact(entry)
    if not isinstance(fact, Decided):
        return [csv_line(row, retention_days) for row in rows(entry, chain) if row.is_decision]
    verb, ltv, given, tail = fact.verb, fact.ltv, fact.scopes, f",{retention_days}\n"
    many = len(given) > 1
    customer, named = _told(given[0]) if given else ("", "")
    head, middle = _around(verb, "")
    refused = {each.index: each.reason for each in fact.refused} if fact.refused else None
    user = _hashed(fact.actor, chain) if fact.actor else ""
    start, network = f"{_local(fact.at // SECOND)},{entry.seq:012x}", fact.network
    least = least_shown(verb)
    found: list[str] = []
    for index, amount in enumerate(fact.amounts):
        if many:
            customer, named = _told(given[index])
        data = _data(customer, ltv, amount if amount >= least else None, named)
        if refused and index in refused:
            why_head, why = _around(verb, refused[index])
            found.append(f"{start}{index:04x}{why_head}{user},{customer}{why}{network},{data}{tail}")
        else:
            found.append(f"{start}{index:04x}{head}{user},{customer}{middle}{network},{data}{tail}")
    return found


@lru_cache(maxsize=256)
def _around(verb: str, code: str) -> tuple[str, str]:
    """What stands before and after who asked and who it is about, where a verb and a reason code say it all."""
    outcome, reason, level, event_type, action, resource = words(verb, code)
    return f",{level},{event_type},", _fields(action, resource, outcome, reason)


def _fields(*texts: str) -> str:
    return f",{','.join(map(_field, texts))},"


def _told(scopes: Sequence[str]) -> tuple[str, str]:
    """The person's reference, and the scopes that are nobody's, each after a space."""
    customer = named = ""
    for scope in scopes:
        if not scope.startswith(PERSONAL_PREFIXES):
            named += f" {scope}"
        elif is_reference(value := scope.partition(":")[2]):
            customer = value
    return customer, named


def _kinds(scopes: Sequence[str]) -> str:
    return " ".join(scope.partition(":")[0] for scope in scopes)


def _data(customer: str, ltv: int | None, amount: int | None, named: str) -> str:
    """What was looked at, in the brackets of the original."""
    text = f" amount={_text(amount)}{named}" if amount is not None else named
    if ltv is not None:
        text = f" predicted_ltv={_text(ltv)}{text}"
    if customer:
        text = f" customer_id{text}"
    if named and ("," in named or '"' in named or not named.isprintable()):
        return _field(f"[{text[1:]}]")
    return f"[{text[1:]}]"


def _text(micros: int) -> str:
    """`format_micros` of what is not negative, sooner."""
    cents, rest = divmod(micros, 10_000)
    if rest:
        return f"{micros // MICROS}.{micros % MICROS:06d}".rstrip("0")
    return f"{cents // 100}.{cents % 100:02d}"


def _field(text: str) -> str:
    """A field that is one field in every reader, and a text in every spreadsheet."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    if text.startswith(_FORMULA):
        text = f"'{text}"
    if '"' in text or "," in text:
        escaped = text.replace('"', '""')
        return f'"{escaped}"'
    return text


@lru_cache(maxsize=256)
def _hashed(actor: str, chain: str) -> str:
    """Who asked, the same in all rows of a chain. Keyed with the chain's random id, which the CSV does not hold."""
    return blake2b(actor.encode(), key=chain.encode()[:64], digest_size=16).hexdigest()


@lru_cache(maxsize=1024)
def _local(second: int) -> str:
    """RFC 3339 in seconds with the local offset, `Z` for none."""
    moment = time.localtime(second)
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", moment)
    return f"{text[:-5]}Z" if text.endswith("0000") else f"{text[:-2]}:{text[-2:]}"
