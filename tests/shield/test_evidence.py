"""Finding, paging, exporting and following the decisions of a ledger, also while it is being written."""

from __future__ import annotations

import csv
import io
import json
import threading
import tracemalloc

import apsw
import pytest

from kiki import BudgetGuard, SpendDenied
from kiki.errors import InvalidInput, InvalidScope
from kiki.ledger.ledger import Ledger
from kiki.ledger.memory import MemoryStore
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.shield.evidence import export, find_event, find_rows, page, read_in_chunks, tail
from kiki.shield.evidence_csv import CSV_HEADER, csv_lines
from kiki.shield.fact import Decided, Halted, Opened, PolicyUsed, Refused

START = 1_795_341_600_000_000
PERSON = "0123456789abcdef0123456789abcdef"


def spend(at: int, amounts: int, *refused: int, scope: str = "", reason: str = "budget_exhausted") -> Decided:
    scopes = [[scope]] if scope else [[]]
    return Decided("spend", at, "", at, scopes, [5] * amounts, [Refused(index, reason) for index in refused])


def ledger_with(facts, store=None) -> MemoryStore:
    """One entry a second, from START on."""
    store = store or MemoryStore()
    now = [START]
    ledger = Ledger(store, lambda: now[0])
    for fact in facts:
        ledger.append(fact)
        ledger.flush()
        now[0] += 1_000_000
    return store


@pytest.fixture
def store() -> MemoryStore:
    return ledger_with(
        [
            Opened(START, "1.0", "local"),
            PolicyUsed(START, b"{}"),
            spend(START, 1, scope="platform:meta"),
            spend(START, 3, 1, scope="platform:google"),
            Halted(START, "platform:meta", on=True),
            spend(START, 1, 0, scope="platform:meta", reason="halted"),
            spend(START, 1, 0, reason="outcome_unknown"),
            spend(START, 1, scope=f"customer:{PERSON}"),
        ]
    )


def ids(rows) -> list[str]:
    return [f"{int(row.event_id[:12], 16)}.{int(row.event_id[12:], 16)}" for row in rows]


ALL = ["0.0", "1.0", "2.0", "3.0", "3.1", "3.2", "4.0", "5.0", "6.0", "7.0"]
FILTERS = [
    ({}, ALL),
    ({"decisions": True}, ALL[2:]),
    ({"outcome": "APPROVED"}, ["2.0", "3.0", "3.2", "4.0", "7.0"]),
    ({"outcome": "denied"}, ["3.1", "5.0"]),
    ({"outcome": "UNKNOWN"}, ["6.0"]),
    ({"scope": "platform:meta"}, ["2.0", "4.0", "5.0"]),
    ({"scope": "platform:meta", "outcome": "DENIED"}, ["5.0"]),
    ({"scope": f"customer:{PERSON}"}, ["7.0"]),
    ({"scope": "platform:nobody"}, []),
    ({"since": START + 3_000_000}, ALL[3:]),
    ({"since": START + 3_000_001}, ALL[6:]),
    ({"until": START + 3_000_000}, ALL[:3]),
    ({"since": START + 2_000_000, "until": START + 4_000_000}, ALL[2:6]),
    ({"since": START + 99_000_000}, []),
    ({"first_seq": 6}, ["6.0", "7.0"]),
]
EVERYWHERE = [case for case in FILTERS if not {"first_seq", "decisions"} & set(case[0])]


@pytest.mark.parametrize(("wanted", "found"), FILTERS)
def test_rows_are_found_by_time_outcome_and_scope(store, wanted, found):
    assert ids(find_rows(store, **wanted)) == found


@pytest.mark.parametrize(("wanted", "found"), EVERYWHERE)
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("scan_max", [1, 4, 1000])
@pytest.mark.parametrize("newest", [False, True])
def test_pages_put_together_are_all_that_matches(store, wanted, found, limit, scan_max, newest):
    decisions = [each for each in found if each not in {"0.0", "1.0"}]
    got: list[str] = []
    after = None
    for _ in range(50):
        piece = page(store, after, limit, newest=newest, scan_max=scan_max, **wanted)
        assert len(piece.rows) <= limit
        got += ids(piece.rows)
        after = piece.after
        if after is None:
            break
    assert got == (decisions[::-1] if newest else decisions)


def test_a_page_goes_on_where_new_decisions_come():
    store = ledger_with([spend(START, 1)])
    ledger = Ledger(store)
    first = page(store, limit=1)
    ledger.append(spend(START, 2))
    ledger.flush()
    assert ids(page(store, first.after, 1).rows) == ["1.0"]
    assert ids(page(store, first.rows[-1].event_id, 5).rows) == ["1.0", "1.1"]


@pytest.mark.parametrize(
    "wanted",
    [{"limit": 0}, {"limit": 1001}, {"after": "7"}, {"after": "000000000000000G"}, {"outcome": "MAYBE"}],
)
def test_a_bad_page_is_refused(store, wanted):
    with pytest.raises(InvalidInput):
        page(store, **wanted)


@pytest.mark.parametrize("scope", ["meta", "customer:alice", f"customer:{PERSON.upper()}", "customer:*", "a:b\n"])
def test_a_bad_scope_is_refused_and_a_person_is_found_by_reference_only(store, scope):
    with pytest.raises(InvalidScope):
        find_rows(store, scope=scope)


def test_one_event_is_found_by_its_id(store):
    found = find_event(store, "0000000000030001")
    assert found is not None
    assert (found.outcome, found.reason_code, found.amount) == ("DENIED", "budget_exhausted", 5)
    assert find_event(store, "0000000000030003") is None
    assert find_event(store, "ffffffffffffffff") is None
    with pytest.raises(InvalidInput):
        find_event(store, "3.1")


def exported(store, **options) -> str:
    parts: list[str] = []
    count = export(store, parts.append, **options)
    assert all(part.endswith("\n") for part in parts)
    text = "".join(parts)
    assert count == text.count("\n") - (options.get("format", "csv") == "csv")
    return text


@pytest.mark.parametrize(("wanted", "found"), EVERYWHERE)
def test_both_formats_hold_what_was_filtered(store, wanted, found):
    lines = exported(store, retention_days=30, **wanted)
    assert lines.startswith(CSV_HEADER)
    event_ids = [f"{int(row['event_id'][:12], 16)}.{int(row['event_id'][12:], 16)}" for row in parsed(lines)]
    assert event_ids == [each for each in found if each not in {"0.0", "1.0"}]
    assert {row["retention_days"] for row in parsed(lines)} <= {"30"}
    objects = [json.loads(line) for line in exported(store, format="jsonl", **wanted).splitlines()]
    assert [f"{int(row['event_id'][:12], 16)}.{int(row['event_id'][12:], 16)}" for row in objects] == found


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), strict=True))


def test_an_unknown_format_is_refused(store):
    with pytest.raises(InvalidInput, match="csv or jsonl"):
        export(store, [].append, format="xml")


def test_an_empty_ledger_is_a_header():
    assert exported(MemoryStore()) == CSV_HEADER
    assert list(find_rows(MemoryStore())) == []
    assert page(MemoryStore()).rows == []
    assert list(tail(MemoryStore(), 5)) == []
    assert list(find_rows(MemoryStore(), since=1, until=2)) == []


def test_a_large_export_streams(tmp_path):
    """200,000 rows in batches of 500 and a few of 10,000 pass through a few megabytes."""
    store = SqliteStore(tmp_path / "l.db")
    ledger = Ledger(store)
    for index in range(360):
        ledger.append(spend(START, 500, index, scope=f"customer:{index:032x}"))
    ledger.append(spend(START, 10_000))
    ledger.append(spend(START, 10_000))
    ledger.flush()
    progress: list[tuple[int, int]] = []
    size = 0

    def write(text: str) -> None:
        nonlocal size
        size += len(text)

    tracemalloc.start()
    try:
        assert export(store, write, progress=lambda *each: progress.append(each)) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()
    assert size > 20_000_000
    assert progress[-1] == (362, 362)
    ledger.close()


def test_entries_that_are_gone_at_the_front_are_passed_over(tmp_path):
    ledger_with([spend(START, 1) for _ in range(300)], store := SqliteStore(tmp_path / "l.db"))
    store.close()
    with apsw.Connection(str(tmp_path / "l.db")) as connection:
        connection.execute("DELETE FROM entry WHERE seq < 200")
    reader = SqliteReader(tmp_path / "l.db")
    assert [entry.seq for entry in read_in_chunks(reader, 0, 299)] == list(range(200, 300))
    assert len(list(tail(reader, 1000))) == 100
    reader.close()


def test_tail_is_the_last_rows_that_match(store):
    assert ids(tail(store, 3)) == ["5.0", "6.0", "7.0"]
    assert ids(tail(store, 2, outcome="DENIED")) == ["3.1", "5.0"]
    assert ids(tail(store, 2, until=START + 4_000_000)) == ["3.1", "3.2"]
    assert ids(tail(store, 9, since=START + 6_000_000)) == ["6.0", "7.0"]
    assert ids(tail(store, 100, decisions=True)) == ALL[2:]
    assert ids(tail(store, 0)) == []


def test_tail_follows_what_is_written_while_it_waits(store):
    ledger = Ledger(store)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) % 2 == 0:
            ledger.append(spend(START, 2, 1))
            ledger.flush()

    rows = tail(store, 1, follow=True, sleep=sleep)
    assert ids(next(rows) for _ in range(5)) == ["7.0", "8.0", "8.1", "9.0", "9.1"]
    assert set(slept) == {0.2}


def test_tail_and_export_while_a_guard_writes(tmp_path):
    path = tmp_path / "shield.db"
    with BudgetGuard.open(path, limit=10_000, window="60s") as guard:
        guard.spend(1)
        reader = SqliteReader(path)
        done = threading.Event()

        def write() -> None:
            for _ in range(200):
                guard.spend_many(["1", "1", "99999"])
            done.set()

        writer = threading.Thread(target=write)
        rows = tail(reader, 1, follow=True, decisions=True, sleep=lambda _: done.wait(0.01))
        first = next(rows)
        writer.start()
        counts = []
        while not done.is_set():
            # An export ends, although the ledger grows on.
            counts.append(len(parsed(exported(reader))))
        followed = [first, *(next(rows) for _ in range(600))]
        writer.join()
        assert counts == sorted(counts)
        everything = parsed(exported(reader))
        assert [row.event_id for row in followed] == [row["event_id"] for row in everything]
        assert sum(row["outcome"] == "DENIED" for row in everything) == 200
        reader.close()


def test_what_a_guard_did_is_there_and_who_it_concerned_is_not(tmp_path):
    path = tmp_path / "shield.db"
    with BudgetGuard.open(path, limit=100) as guard:
        guard.spend(10, {"customer": "alice@example.com", "platform": "meta"}, key="order-alice")
        with pytest.raises(SpendDenied) as refused:
            guard.spend(1000, {"customer": "alice@example.com"})
        with guard.reserve(20) as hold:
            hold.commit("12.50")
        guard.reserve(5).release()
        guard.record(200)
        guard.halt("customer:alice@example.com")
        store = guard.decider.ledger.store
        verbs = [row.verb for row in find_rows(store, decisions=True)]
        assert verbs == ["spend", "spend", "reserve", "commit", "reserve", "release", "record", "halt"]
        both = exported(store) + exported(store, format="jsonl")
        assert "alice" not in both
        row = find_event(store, refused.value.event_id)
        assert row is not None
        assert row.as_dict()["remaining"] == "90.00"
        mine = list(find_rows(store, scope=f"customer:{row.customer}"))
        assert [each.verb for each in mine] == ["spend", "spend", "halt"]
        assert exported(store).splitlines(keepends=True)[1:] == [
            line for entry in guard.decider.ledger.read() for line in csv_lines(entry, row.chain, 2555)
        ]


class TestSeveralChains:
    """A database holds one for each replica; they are told as one, by time."""

    @pytest.fixture
    def chains(self) -> list[MemoryStore]:
        one, other = MemoryStore(), MemoryStore()
        now = [START]
        ledgers = [Ledger(store, lambda: now[0]) for store in (one, other)]
        for number in range(6):
            now[0] = START + number * 1_000_000
            ledgers[number % 2].append(spend(now[0], 1))
            ledgers[number % 2].flush()
        return [one, other]

    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    @pytest.mark.parametrize("outcome", [None, "approved"])
    def test_export_tells_them_in_order(self, chains, form, outcome):
        lines: list[str] = []
        told: list[tuple[int, int]] = []
        export(chains, lines.append, format=form, outcome=outcome, progress=lambda *done: told.append(done))
        text = "".join(lines)
        if form == "csv":
            moments = [row["timestamp"] for row in csv.DictReader(io.StringIO(text))]
        else:
            moments = [json.loads(line)["recorded_at"] for line in text.splitlines()]
        assert len(moments) == 6
        assert moments == sorted(moments)
        assert told == [(6, 6)]

    def test_tail_takes_the_last_of_all_and_follows_all(self, chains):
        last = list(tail(chains, 3, decisions=True))
        assert [row.at for row in last] == [START + number * 1_000_000 for number in (3, 4, 5)]

        def write(_: float) -> None:
            ledger_with([spend(START + 9_000_000, 1)], chains[0])

        followed = tail(chains, 0, follow=True, decisions=True, sleep=write)
        assert next(followed).chain == last[1].chain
