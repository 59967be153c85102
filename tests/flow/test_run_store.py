"""The store of runs: the same promises in SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import psycopg.sql
import pytest

from kiki.errors import LedgerUnavailable, NotFound, RunTaken
from kiki.flow.plan import Plan
from kiki.flow.plan_text import parse_plan
from kiki.flow.run_rows import Entry
from kiki.flow.run_store import RunStore
from tests.flow.plans import SPRING

PLAN = parse_plan(SPRING)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "flow.db") if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def store(where: str) -> Iterator[RunStore]:
    found = RunStore.open(where)
    yield found
    found.close()


def made(store: RunStore, *names: str, plan: Plan = PLAN) -> None:
    for name in names:
        store.create(name, plan)


def test_a_database_that_is_away_or_is_none_is_said_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "flow.db").write_text("these are notes, and no database " * 100)
    for where in (str(tmp_path / "flow.db"), "postgresql://me:hush@127.0.0.1:1/x"):
        with pytest.raises(LedgerUnavailable, match="the store of runs cannot be opened") as told:
            RunStore.open(where)
        assert "hush" not in str(told.value)


def test_a_run_is_made_once_with_a_lane_for_each_campaign(store: RunStore) -> None:
    made(store, "run-1", "run-1")

    (row,) = store.runs()
    assert ("run-1", "spring-sale", PLAN.version, "running") == row[:4]
    assert ["search-brand", "social"] == [lane.campaign for lane in store.lanes("run-1")]
    assert (PLAN, {}) == store.plan("run-1")
    with pytest.raises(NotFound):
        store.run("run-2")


def test_a_run_has_one_owner_until_the_lease_and_the_grace_are_over(store: RunStore) -> None:
    made(store, "run-1")
    assert {"run-1": 1} == store.take("a", 3600, grace=3600)
    assert {} == store.take("b", 3600, grace=0)
    store.fence("run-1", 1)
    # As if it had ended half an hour ago.
    assert set() == store.renew("a", -1800, {"run-1": 1})
    assert {} == store.take("b", 3600, grace=3600)
    assert {"run-1": 2} == store.take("b", 3600, grace=1700)
    assert {"run-1"} == store.renew("a", 3600, {"run-1": 1})
    with pytest.raises(RunTaken):
        store.fence("run-1", 1)
    store.fence("run-1", 2)


def test_an_old_lease_is_no_fence_even_before_somebody_else_takes_over(store: RunStore) -> None:
    made(store, "run-1")
    store.take("a", 0.0, grace=100)

    with pytest.raises(RunTaken):
        store.fence("run-1", 1)


def test_a_run_that_is_given_back_is_free_at_once(store: RunStore) -> None:
    made(store, "run-1", "run-2")
    held = store.take("a", 60, grace=60)
    store.give_back("a", {"run-1": held["run-1"]})

    assert {"run-1": 2} == store.take("b", 60, grace=60)
    assert ["run-2"] == store.release_owner("a")
    assert {"run-2": 2} == store.take("b", 60, grace=60, but=["run-1"])


def test_what_is_journaled_under_an_old_epoch_is_refused(store: RunStore) -> None:
    made(store, "run-1", "run-2")
    store.take("a", 60, grace=60)
    lane = "run-1/social"
    store.journal.append("run-1", 1, lane, 0, Entry("first", b"{}")).result(60)
    store.release_owner("a")
    store.take("b", 60, grace=60)

    late = store.journal.append("run-1", 1, lane, 1, Entry("late", b"{}"))
    ours = store.journal.append("run-1", 2, lane, 1, Entry("second", b'{"x":1}'))

    with pytest.raises(RunTaken):
        late.result(60)
    ours.result(60)
    assert [Entry("first", b"{}"), Entry("second", b'{"x":1}')] == store.open_work(["run-1"])["run-1"].journals[lane]


def test_one_place_of_a_journal_is_written_once(store: RunStore) -> None:
    made(store, "run-1")
    store.take("a", 60, grace=60)
    appends = [store.journal.append("run-1", 1, "run-1/social", 0, Entry(f"{n}", b"{}")) for n in range(3)]

    results = [each.exception(60) for each in appends]
    assert 1 == sum(each is None for each in results)
    assert all(isinstance(each, RunTaken) for each in results if each is not None)


def test_a_signal_is_taken_with_the_answer_that_takes_it(store: RunStore) -> None:
    made(store, "run-1")
    store.take("a", 60, grace=60)
    assert 2 == store.send("run-1", {"kind": "pause"})
    assert 1 == store.send("run-1", {"kind": "resume"}, "social")
    first, second, third = store.waiting()
    assert ("run-1/search-brand", {"kind": "pause"}) == (first.lane, first.body)

    store.journal.append("run-1", 1, second.lane, 0, Entry("heard", b"{}"), second.number).result(60)

    assert [first, third] == store.waiting()
    with pytest.raises(RunTaken):
        store.journal.append("run-1", 0, third.lane, 1, Entry("heard", b"{}"), third.number).result(60)
    assert [first, third] == store.waiting()


def test_a_run_ends_with_its_last_lane_and_the_worst_word(store: RunStore) -> None:
    made(store, "run-1")
    store.take("a", 60, grace=60)
    store.end_lane("run-1", 1, "run-1/social", "cancelled", {"how": "cancelled"})
    assert "running" == store.run("run-1").state
    with pytest.raises(RunTaken):
        store.end_lane("run-1", 0, "run-1/search-brand", "completed", {})
    store.end_lane("run-1", 1, "run-1/search-brand", "completed", {})

    assert "cancelled" == store.run("run-1").state
    assert {} == store.take("b", 60, grace=0)
    assert 0 == store.send("run-1", {"kind": "pause"})


def test_a_plan_s_total_is_never_taken_twice_nor_exceeded(store: RunStore) -> None:
    made(store, "run-1")
    half = 10_000_000_000
    assert store.allow("run-1", "a", half).is_done
    assert store.allow("run-1", "a", half).is_done
    assert store.allow("run-1", "b", half).is_done
    assert "plan_budget_exhausted" == store.allow("run-1", "c", 1).code
    store.settle_allowance("run-1", "a", half - 1)
    assert store.allow("run-1", "c", 1).is_done
    assert "plan_budget_exhausted" == store.allow("run-1", "d", 1).code


def test_what_is_written_is_json(store: RunStore, where: str, tmp_path: Path) -> None:
    """Nobody who can write the store can make its readers execute anything."""
    made(store, "run-1")
    store.take("a", 60, grace=60)
    store.journal.append("run-1", 1, "run-1/social", 0, Entry("k", b'{"a":"b"}')).result(60)
    if not where.startswith("postgresql"):
        data = b"".join(each.read_bytes() for each in tmp_path.glob("flow.db*"))
        assert b"\x80\x04\x95" not in data
        assert b"gASV" not in data


def test_an_executor_is_one_process_at_a_time(store: RunStore, where: str) -> None:
    let_go = store.claim("syncflow-0")
    other = RunStore.open(where)
    with pytest.raises(RunTaken, match="syncflow-0"):
        other.claim("syncflow-0")
    other.claim("syncflow-1")()
    let_go()
    for each in [other, store] * 20:  # whoever asks next has it, however soon
        each.claim("syncflow-0")()
    other.close()


def test_an_executor_whose_session_is_lost_lets_go_as_well(postgres: str) -> None:
    with closing(RunStore.open(postgres)) as store:
        let_go = store.claim("syncflow-0")
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks WHERE locktype = 'advisory' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        let_go()
        store.claim("syncflow-0")()


def test_a_lane_that_is_cancelled_while_it_waits_does_not_stop_the_writer(store: RunStore) -> None:
    made(store, "run-1")
    store.take("a", 60, grace=1)
    for place in range(50):
        store.journal.append("run-1", 1, "run-1/social", place, Entry(f"k{place}", b"{}")).cancel()
    store.journal.append("run-1", 1, "run-1/social", 50, Entry("k50", b"{}")).result(60)
    assert [f"k{place}" for place in range(51)] == [key for _, _, _, key, _ in store.steps("run-1")]


def test_the_story_of_a_run_is_told_in_order_and_in_parts(store: RunStore) -> None:
    made(store, "run-1", "run-2")
    store.take("a", 60, grace=1)
    for place, run in enumerate(["run-1", "run-2"] * 3):
        told = Entry(f"t{place}", b'{"event":"flow.x","detail":{"n":%d}}' % place, told=True)
        store.journal.append(run, 1, f"{run}/social", 2 * place, told)
        store.journal.append(run, 1, f"{run}/social", 2 * place + 1, Entry(f"s{place}", b"{}")).result(60)
    story = store.story("run-1")
    assert [0, 2, 4] == [each.detail["n"] for each in story]
    assert story[1:] == store.story("run-1", story[0].number)
    assert story[:2] == store.story("run-1", most=2)


def test_runs_stay_visible_when_a_schema_of_the_user_s_name_appears(postgres: str) -> None:
    """The ledger's schema is called as its user usually is: PostgreSQL looks there first for names without a schema."""
    with closing(RunStore.open(postgres)) as store:
        made(store, "r-1")
    with psycopg.connect(postgres, autocommit=True) as connection:
        (user,) = connection.execute("SELECT current_user").fetchone() or ("",)
        connection.execute(psycopg.sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(psycopg.sql.Identifier(user)))
    with closing(RunStore.open(postgres)) as store:
        assert [run.run for run in store.runs()] == ["r-1"]
