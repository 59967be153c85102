"""The decisions of a ledger, for whoever asks: found, paged, exported, followed. Reads only, from any `Reader`.

`since` and `until` are microseconds since the epoch, [since, until), and go by when the ledger took a decision in.
`scope` is `kind:value`; a person is found by reference only (`customer:` and 32 hexadecimal digits). Memory does
not grow with the number of rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from operator import itemgetter
from typing import Literal

import msgspec

from kiki.errors import InvalidInput, InvalidScope
from kiki.ledger.entry import Entry, decode_entry
from kiki.ledger.ledger import META, first_recorded_since
from kiki.ledger.store import Reader
from kiki.shield.evidence_csv import CSV_HEADER, csv_line, csv_lines
from kiki.shield.evidence_row import Row, rows
from kiki.shield.evidence_words import APPROVED, OUTCOMES
from kiki.shield.fact import Decided, decode_fact
from kiki.shield.scope import PERSONAL_KINDS, is_reference, parse_scopes

__all__ = [
    "CSV_HEADER",
    "OUTCOMES",
    "Page",
    "Row",
    "Wanted",
    "chain_of",
    "export",
    "find_event",
    "find_rows",
    "page",
    "parse_event_id",
    "read_in_chunks",
    "rows",
    "tail",
]

POLL_SECONDS = 0.2
PAGE_MAX = 1000
SCAN_MAX = 200_000
_CHUNK_ENTRIES = 128
_CHUNK_BYTES = 1_000_000
_TEXT_ROWS = 500
_PROGRESS_EVERY = 10_000
_INDEX_MAX = 0xFFFF


class Wanted(msgspec.Struct, frozen=True):
    """Which rows somebody wants. Made by `Wanted.of`, which checks."""

    since: int | None = None
    until: int | None = None
    outcome: str | None = None
    scope: str | None = None
    decisions: bool = False
    """Only what the CSV holds: not `policy` and `open`."""

    @classmethod
    def of(
        cls,
        since: int | None = None,
        until: int | None = None,
        outcome: str | None = None,
        scope: str | None = None,
        *,
        decisions: bool = False,
    ) -> Wanted:
        """The filter; raises `InvalidInput` for an unknown outcome, `InvalidScope` for a bad scope."""
        if outcome is not None and outcome.upper() not in OUTCOMES:
            raise InvalidInput(f"{outcome[:40]!r} is not an outcome: write one of {', '.join(OUTCOMES)}")
        if scope is not None:
            (scope,) = parse_scopes([scope])
            kind, _, value = scope.partition(":")
            if kind in PERSONAL_KINDS and not is_reference(value):
                raise InvalidScope(
                    f"evidence knows a {kind} by reference only: write {kind}: and the 32 hexadecimal digits "
                    "of customer_id_hash"
                )
        return cls(since, until, None if outcome is None else outcome.upper(), scope, decisions)

    def rows(self, entry: Entry, chain: str) -> list[Row]:
        """The rows of an entry that are wanted; moments are the caller's to check."""
        outcome, scope = self.outcome, self.scope
        if outcome is not None and outcome != APPROVED and not _has_refusals(entry):
            return []
        found = rows(entry, chain)
        if outcome is not None:
            found = [row for row in found if row.outcome == outcome]
        if scope is not None:
            found = [row for row in found if scope in row.scopes]
        if self.decisions:
            found = [row for row in found if row.is_decision]
        return found


class Page(msgspec.Struct):
    """Some rows, and where to go on."""

    rows: list[Row]
    after: str | None
    """What to ask for next, None when there is nothing more now. Rows may be few, or none, while this is
    set: one page looks at a bounded number of decisions."""


def chain_of(reader: Reader) -> str:
    """The id of a ledger's chain, empty before it has one."""
    return (reader.get(META, b"chain") or b"").decode()


def parse_event_id(text: object) -> tuple[int, int]:
    """The entry's sequence and the place in it; raises `InvalidInput`."""
    if isinstance(text, str) and len(text) == 16 and set(text) <= set("0123456789abcdef"):
        return int(text[:12], 16), int(text[12:], 16)
    raise InvalidInput("an event id is 16 hexadecimal digits in lower case")


def read_in_chunks(reader: Reader, first: int, last: int) -> Iterator[Entry]:
    """Entries `first` to `last`, read a few at a time: an entry may hold ten thousand decisions."""
    span = 16
    while first <= last:
        found = list(reader.entries(first, min(last, first + span - 1)))
        if not found:
            # Older entries may be gone at the end of their retention.
            later = next(reader.entries(first, last), None)
            if later is None:
                return
            first = later[0]
            continue
        for _, body in found:
            yield decode_entry(body)
        first = found[-1][0] + 1
        size = sum(len(body) for _, body in found)
        span = min(_CHUNK_ENTRIES, span * 2) if size * 2 <= _CHUNK_BYTES else max(1, span * _CHUNK_BYTES // (2 * size))


def find_rows(
    reader: Reader,
    *,
    since: int | None = None,
    until: int | None = None,
    outcome: str | None = None,
    scope: str | None = None,
    first_seq: int = 0,
    decisions: bool = False,
) -> Iterator[Row]:
    """The rows that match, oldest first, up to what is durable at the call."""
    wanted = Wanted.of(since, until, outcome, scope, decisions=decisions)
    return _forward(reader, wanted, first_seq, reader.next_seq() - 1)


def _entries(reader: Reader, wanted: Wanted, first: int, last: int) -> Iterator[Entry]:
    """The entries of the wanted time."""
    since, until = wanted.since, wanted.until
    if since is not None and first <= last:
        first = max(first, first_recorded_since(reader, since))
    for entry in read_in_chunks(reader, first, last):
        if until is not None and entry.recorded_at >= until:
            return
        yield entry


def _forward(
    reader: Reader, wanted: Wanted, first: int, last: int, passed: Callable[[int], None] | None = None
) -> Iterator[Row]:
    chain = chain_of(reader)
    for entry in _entries(reader, wanted, first, last):
        yield from wanted.rows(entry, chain)
        if passed is not None:
            passed(entry.seq)


def _backward(reader: Reader, last: int) -> Iterator[Entry]:
    """Entries from `last` down."""
    span = 4
    while last >= 0:
        first = max(0, last - span + 1)
        found = list(reader.entries(first, last))
        if not found:
            return
        for _, body in reversed(found):
            yield decode_entry(body)
        last = first - 1
        size = sum(len(body) for _, body in found)
        span = min(_CHUNK_ENTRIES, span * 2) if size * 2 <= _CHUNK_BYTES else max(1, span * _CHUNK_BYTES // (2 * size))


def find_event(reader: Reader, event_id: str) -> Row | None:
    """The row with this id, None when the ledger has none; raises `InvalidInput` for what is no id."""
    seq, index = parse_event_id(event_id)
    for _, body in reader.entries(seq, seq):
        found = rows(decode_entry(body), chain_of(reader))
        return found[index] if index < len(found) else None
    return None


def page(
    reader: Reader,
    after: str | None = None,
    limit: int = 100,
    *,
    newest: bool = False,
    since: int | None = None,
    until: int | None = None,
    outcome: str | None = None,
    scope: str | None = None,
    scan_max: int = SCAN_MAX,
) -> Page:
    """At most `limit` decisions after (with `newest`, before) the event id `after`, oldest (newest) first."""
    wanted = Wanted.of(since, until, outcome, scope, decisions=True)
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput(f"a page has 1 to {PAGE_MAX} decisions")
    place = None if after is None else parse_event_id(after)
    chain, end = chain_of(reader), reader.next_seq()
    entries = _newest_entries(reader, wanted, place, end) if newest else _oldest_entries(reader, wanted, place, end)
    found: list[Row] = []
    scanned = 0
    for entry in entries:
        if wanted.since is not None and entry.recorded_at < wanted.since:
            break
        if wanted.until is not None and entry.recorded_at >= wanted.until:
            break
        matching = wanted.rows(entry, chain)
        if newest:
            matching.reverse()
        if place is not None and entry.seq == place[0]:
            matching = [row for row in matching if (row.event_id < str(after)) == newest and row.event_id != after]
        room = limit - len(found)
        found += matching[:room]
        # A page that is just full may be followed by an empty one: the cheap way not to look ahead.
        if len(found) == limit:
            return Page(found, found[-1].event_id)
        if place is None or entry.seq != place[0]:
            # The entry that the last page ended in is not news: a page always gets further.
            scanned += _count(entry)
        if scanned >= scan_max:
            return Page(found, f"{entry.seq:012x}{0 if newest else _INDEX_MAX:04x}")
    return Page(found, None)


def _oldest_entries(reader: Reader, wanted: Wanted, place: tuple[int, int] | None, end: int) -> Iterator[Entry]:
    first = 0 if place is None else place[0]
    if wanted.since is not None and end:
        first = max(first, first_recorded_since(reader, wanted.since))
    return read_in_chunks(reader, first, end - 1)


def _newest_entries(reader: Reader, wanted: Wanted, place: tuple[int, int] | None, end: int) -> Iterator[Entry]:
    last = end - 1 if place is None else min(end - 1, place[0])
    if wanted.until is not None and end:
        last = min(last, first_recorded_since(reader, wanted.until) - 1)
    return _backward(reader, last)


def _count(entry: Entry) -> int:
    fact = decode_fact(entry)
    return len(fact.amounts) if isinstance(fact, Decided) else 1


def _has_refusals(entry: Entry) -> bool:
    fact = decode_fact(entry)
    return isinstance(fact, Decided) and bool(fact.refused)


def export(
    reader: Reader | Sequence[Reader],
    write: Callable[[str], object],
    *,
    format: Literal["csv", "jsonl"] = "csv",  # noqa: A002  # what it is called everywhere else
    retention_days: int = 2555,
    since: int | None = None,
    until: int | None = None,
    outcome: str | None = None,
    scope: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write all that match, up to what is durable at the call, as text of whole lines; how many rows it were.

    The rows of several chains are told in the order of their time. JSON lines hold policies and openings too, which are evidence but no decisions. `progress` is told
    (done, total) entries.
    """
    if format not in ("csv", "jsonl"):
        raise InvalidInput(f"{format!r} is not a format: write csv or jsonl")
    wanted = Wanted.of(since, until, outcome, scope, decisions=format == "csv")
    readers = list(reader) if isinstance(reader, Sequence) else [reader]
    ends = [one.next_seq() for one in readers]
    total, done = sum(ends), 0

    def passed(_: int) -> None:
        nonlocal done
        done += 1
        if progress is not None and done % _PROGRESS_EVERY == 0:
            progress(done, total)

    def lines_of(one: Reader, end: int) -> Iterator[tuple[int, list[str]]]:
        if format == "csv" and wanted.outcome is None and wanted.scope is None:
            return _all_lines(one, wanted, end - 1, retention_days, passed)
        found = _forward(one, wanted, 0, end - 1, passed)
        if format == "csv":
            return ((row.at, [csv_line(row, retention_days)]) for row in found)
        encode = msgspec.json.Encoder().encode
        return ((row.at, [f"{encode(row.as_dict()).decode()}\n"]) for row in found)

    lines = merge(*map(lines_of, readers, ends), key=itemgetter(0))
    if format == "csv":
        write(CSV_HEADER)
    count = 0
    waiting: list[str] = []
    for _, some in lines:
        waiting += some
        if len(waiting) >= _TEXT_ROWS:
            write("".join(waiting))
            count += len(waiting)
            waiting.clear()
    if waiting:
        write("".join(waiting))
    if progress is not None:
        progress(total, total)
    return count + len(waiting)


def _all_lines(
    reader: Reader, wanted: Wanted, last: int, retention_days: int, passed: Callable[[int], None]
) -> Iterator[tuple[int, list[str]]]:
    chain = chain_of(reader)
    for entry in _entries(reader, wanted, 0, last):
        yield entry.recorded_at, csv_lines(entry, chain, retention_days)
        passed(entry.seq)


def tail(
    reader: Reader | Sequence[Reader],
    n: int = 10,
    *,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
    outcome: str | None = None,
    scope: str | None = None,
    decisions: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Row]:
    """The last `n` rows that match, oldest first; with `follow` then every new one, for ever."""
    wanted = Wanted.of(since, until, outcome, scope, decisions=decisions)
    readers = list(reader) if isinstance(reader, Sequence) else [reader]
    return _tail(readers, n, wanted, sleep if follow else None)


def _tail(readers: list[Reader], n: int, wanted: Wanted, sleep: Callable[[float], None] | None) -> Iterator[Row]:
    ends = [reader.next_seq() for reader in readers]
    if n > 0:
        found = merge(*(_last(reader, n, wanted, end) for reader, end in zip(readers, ends, strict=True)), key=_moment)
        yield from list(found)[-n:]
    while sleep is not None:
        news = False
        for place, reader in enumerate(readers):
            first, ends[place] = ends[place], reader.next_seq()
            if first != ends[place]:
                news = True
                yield from _forward(reader, wanted, first, ends[place] - 1)
        if not news:
            sleep(POLL_SECONDS)


def _moment(row: Row) -> int:
    return row.at


def _last(reader: Reader, n: int, wanted: Wanted, end: int) -> list[Row]:
    """The last `n` that match of one chain, oldest first."""
    chain = chain_of(reader)
    last: list[Row] = []
    for entry in _newest_entries(reader, wanted, None, end):
        if wanted.since is not None and entry.recorded_at < wanted.since:
            break
        last += reversed(wanted.rows(entry, chain))
        if len(last) >= n:
            break
    return last[:n][::-1]
