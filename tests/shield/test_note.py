"""Notes: what another service did, in one record with what it cost."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki import BudgetGuard
from kiki.errors import InvalidInput, KeyReused, Unreadable
from kiki.shield.evidence_csv import csv_line
from kiki.shield.evidence_row import rows
from kiki.shield.fact import Noted, decode_fact
from kiki.shield.note import DETAILS_MAX, NOTES_MAX, TEXT_LENGTH_MAX, Note, parse_note


def entries(guard: BudgetGuard) -> list:
    return [entry for entry in guard.decider.ledger.read() if isinstance(decode_fact(entry), Noted)]


def test_a_note_stands_in_the_ledger_as_it_was_said(tmp_path: Path) -> None:
    with BudgetGuard.open(tmp_path / "ledger.db", limit=100) as guard:
        kept = guard.note("flow.step_done", {"campaign": "spring"}, {"platform": "meta", "attempt": 2})
        (entry,) = entries(guard)
        (row,) = rows(entry)

    assert kept.event_id == row.event_id
    found = row.as_dict()
    assert found["resource"] == "flow.step_done"
    assert found["scopes"] == ["campaign:spring"]
    assert found["detail"] == {"platform": "meta", "attempt": 2}
    assert csv_line(row, 2555).endswith(
        ",INFO,service_note,,,flow.step_done,campaign:spring,NOTED,Said by another service,,[detail],2555\n"
    )


def test_the_same_key_is_written_once_even_after_a_restart(tmp_path: Path) -> None:
    with BudgetGuard.open(tmp_path / "ledger.db", limit=100) as guard:
        first = guard.note("flow.step_done", detail={"step": "a"}, key="k")
    with BudgetGuard.open(tmp_path / "ledger.db", limit=100) as guard:
        again = guard.note("flow.step_done", detail={"step": "a"}, key="k")

        assert (first.seq, True) == (again.seq, again.repeated)
        assert len(entries(guard)) == 1
        with pytest.raises(KeyReused):
            guard.note("flow.step_done", detail={"step": "b"}, key="k")


def test_a_key_twice_in_one_batch_is_one_note() -> None:
    with BudgetGuard.open(limit=100) as guard:
        one = parse_note("flow.step_done", key="k")
        kept = guard.note_many([one, one])

        assert [False, True] == [each.repeated for each in kept]
        assert len(entries(guard)) == 1


def test_a_batch_with_a_wrong_note_writes_nothing() -> None:
    with BudgetGuard.open(limit=100) as guard:
        guard.note("flow.a", key="k")
        with pytest.raises(KeyReused):
            guard.note_many([parse_note("flow.fresh"), parse_note("flow.b", key="k")])

        assert len(entries(guard)) == 1


def test_what_is_told_about_a_person_is_sealed_and_goes_with_the_person(tmp_path: Path) -> None:
    with BudgetGuard.open(tmp_path / "ledger.db", limit=100) as guard:
        guard.note("engage.sent", {"customer": "ada@example.com", "campaign": "win-back"}, {"template": "we-miss-you"})
        (entry,) = entries(guard)

        assert b"we-miss-you" not in bytes(entry.fact)
        assert b"ada@" not in bytes(entry.fact)
        (sealed,) = entry.sealed
        subjects = guard.decider.subjects
        assert {"template": "we-miss-you"} == msgspec.msgpack.decode(subjects.open(sealed))
        guard.decider.forget("customer:ada@example.com")
        with pytest.raises(Unreadable):
            subjects.open(sealed)


@pytest.mark.parametrize(
    "event", ["", "flow", "Flow.x", "flow.", "flow.X", "flow..x", 7, None, "a.b.c.d.e", "flow.x" + "y" * 64]
)
def test_an_event_names_its_service_and_what_happened(event: object) -> None:
    with pytest.raises(InvalidInput, match="no event"):
        parse_note(event)


@pytest.mark.parametrize(
    "detail",
    [
        {"Name": 1},
        {"": 1},
        {"a": 1.5},
        {"a": None},
        {"a": ["x"]},
        {"a": 2**63},
        {"a": "x" * (TEXT_LENGTH_MAX + 1)},
        {f"a{n}": n for n in range(DETAILS_MAX + 1)},
    ],
)
def test_details_are_few_and_plain(detail: dict) -> None:
    with pytest.raises(InvalidInput):
        parse_note("flow.x", detail=detail)


@pytest.mark.parametrize("count", [0, NOTES_MAX + 1])
def test_a_batch_has_its_limits(count: int) -> None:
    with BudgetGuard.open(limit=100) as guard, pytest.raises(InvalidInput, match=str(NOTES_MAX)):
        guard.note_many([Note("flow.x")] * count)


@given(
    detail=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
        st.text(max_size=40) | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1),
        max_size=8,
    )
)
def test_any_plain_detail_reads_back(detail: dict) -> None:
    with BudgetGuard.open(limit=100) as guard:
        guard.note("flow.x", detail=detail)
        (entry,) = entries(guard)

        assert detail == decode_fact(entry).detail
