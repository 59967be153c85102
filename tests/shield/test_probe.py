"""A probe passes on what it has seen, fails on what is wrong, and does neither where there is nothing to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from kiki.clock import SECOND, to_iso, wall_micros
from kiki.ledger.memory import MemoryStore
from kiki.ledger.shipper import Lag
from kiki.ledger.sqlite import SqliteReader
from kiki.shield import probe
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.compliance_report import RequestLine, Verdict
from kiki.shield.fact import Decided
from kiki.shield.probe import PROBES, Surroundings, look_around

DAY = 86_400 * SECOND


class Clock:
    def __init__(self) -> None:
        self.now = wall_micros()

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    found.mkdir(mode=0o700)
    return found


@pytest.fixture
def guard(data_dir: Path, clock: Clock) -> Iterator[BudgetGuard]:
    with BudgetGuard.open(data_dir / "shield.db", limit="500", clock=clock) as found:
        yield found


@pytest.fixture
def around(guard: BudgetGuard, data_dir: Path, clock: Clock) -> Surroundings:
    ledger = guard.decider.ledger
    return Surroundings(
        reader=ledger.store,
        now=clock(),
        wall=clock(),
        retention_days=2555,
        subjects=guard.decider.subjects,
        verifier_key=ledger.signer.verifier_key,
        data_dir=data_dir,
        master_key_file=data_dir / "master.key",
        lag=Lag(3.0, 0, 0, 0),
        has_archive=True,
    )


def test_each_probe_has_its_controls_in_both_numberings():
    assert {each.__name__ for each in PROBES} == {*probe._CONTROLS}
    for controls in probe._CONTROLS.values():
        assert "(2013)" in controls
        assert "(2022)" in controls


def test_a_ledger_in_order_passes_all_but_the_key_beside_it(guard: BudgetGuard, around: Surroundings):
    guard.spend("1", {"customer": "cust_123"})
    guard.consents.grant("cust_123", "marketing", ip_address="203.0.113.7", user_agent="Mozilla/5.0")
    guard.decider.ledger.checkpoint()
    verdicts = {each.name: each.verdict for each in look_around(around)}
    assert {"key_apart": Verdict.FAILED} == {
        name: verdict for name, verdict in verdicts.items() if verdict is not Verdict.PASSED
    }


def test_an_empty_store_that_nobody_knows_more_about_passes_nothing_but_that_no_request_is_late():
    found = look_around(Surroundings(reader=MemoryStore(), now=1, wall=1, retention_days=2555))
    assert {"requests"} == {each.name for each in found if each.verdict is not Verdict.SKIPPED}


def test_a_ledger_that_stopped_fails(around: Surroundings):
    found = probe.accepting(around._replace(failure="the disk is full"))
    assert (Verdict.FAILED, True) == (found.verdict, "the disk is full" in found.said)


def test_a_person_in_clear_is_found(guard: BudgetGuard, around: Surroundings):
    guard.decider.ledger.append(Decided("spend", 1, "", 0, [["customer:jane@example.org"]], [1])).result()
    found = probe.sealed(around)
    assert (Verdict.FAILED, False) == (found.verdict, "jane" in found.said)


def test_what_is_sealed_and_stands_in_clear_beside_it_is_found(guard: BudgetGuard, around: Surroundings):
    decider = guard.decider
    person = decider.subjects.enrol(["customer:jane"])["customer:jane"]
    part = decider.subjects.seal(person, msgspec.msgpack.encode({"note": "campaign-7"}))
    fact = Decided("spend", 1, "", 0, [["campaign:campaign-7"]], [1])
    decider.ledger.append_all([type(decider.books.kept.keep(fact))(fact, None, [part])])
    assert Verdict.FAILED is probe.sealed(around).verdict


@pytest.mark.parametrize(
    ("mode", "verdict"), [(0o600, Verdict.PASSED), (0o644, Verdict.FAILED), (0o666, Verdict.FAILED)]
)
def test_the_master_keys_file_must_be_its_owners(around: Surroundings, mode: int, verdict: Verdict):
    around.master_key_file.chmod(mode)
    found = {each.name: each for each in look_around(around)}["master_key"]
    assert verdict is found.verdict


def test_a_master_key_that_is_gone_fails(around: Surroundings):
    around.master_key_file.unlink()
    assert Verdict.FAILED is probe.master_key(around).verdict


def test_a_key_on_another_volume_lies_apart(around: Surroundings, tmp_path: Path):
    assert Verdict.PASSED is probe.key_apart(around._replace(master_key_file=tmp_path / "master.key")).verdict


def test_a_data_directory_that_others_may_look_into_fails(around: Surroundings, data_dir: Path):
    data_dir.chmod(0o755)
    assert Verdict.FAILED is probe.files(around).verdict


def test_entries_that_no_checkpoint_covers_fail_after_a_while(guard: BudgetGuard, around: Surroundings, clock: Clock):
    guard.decider.ledger.checkpoint()
    guard.spend("1")
    assert Verdict.PASSED is probe.checkpoints(around).verdict
    late = around._replace(now=clock() + probe.CHECKPOINT_AGE_MAX + 1)
    assert Verdict.FAILED is probe.checkpoints(late).verdict
    guard.decider.ledger.checkpoint()
    assert Verdict.PASSED is probe.checkpoints(late).verdict


def test_an_entry_that_was_altered_is_found_by_the_tree(guard: BudgetGuard, around: Surroundings, data_dir: Path):
    for _ in range(3):
        guard.spend("1")
    guard.decider.ledger.checkpoint()
    assert Verdict.PASSED is probe.tree(around).verdict
    connection = apsw.Connection(str(data_dir / "shield.db"))
    ((table, column),) = [
        (name, "body")
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%body%'")
    ]
    connection.execute(f"UPDATE {table} SET {column} = CAST({column} || x'00' AS BLOB) WHERE rowid = 3")
    connection.close()
    reader = SqliteReader(data_dir / "shield.db")
    assert Verdict.FAILED is {each.name: each for each in look_around(around._replace(reader=reader))}["tree"].verdict
    reader.close()


def test_a_checkpoint_that_another_key_signed_fails(guard: BudgetGuard, around: Surroundings):
    guard.decider.ledger.checkpoint()
    with BudgetGuard.open(limit="1") as other:
        key = other.decider.ledger.signer.verifier_key
    found = {each.name: each for each in look_around(around._replace(verifier_key=key))}["tree"]
    assert Verdict.FAILED is found.verdict


@pytest.mark.parametrize(
    ("lag", "verdict"),
    [
        (Lag(0.0, 0, 0, 0), Verdict.PASSED),
        (Lag(900.0, 3, 9, 0), Verdict.PASSED),
        (Lag(901.0, 3, 9, 0), Verdict.FAILED),
        (Lag(0.0, 1, 1, 1), Verdict.FAILED),
        (None, Verdict.SKIPPED),
    ],
)
def test_the_archive_may_be_a_quarter_of_an_hour_behind(around: Surroundings, lag: Lag | None, verdict: Verdict):
    assert verdict is probe.archive(around._replace(lag=lag)).verdict


def test_a_request_past_its_due_date_fails_and_a_closed_one_does_not(around: Surroundings, clock: Clock):
    late = RequestLine(
        request="DSR-1-00000000",
        kind="ACCESS",
        state="verified",
        received_at=to_iso(clock() - 40 * DAY),
        due_at=to_iso(clock() - DAY),
    )
    assert Verdict.FAILED is probe.requests(around._replace(requests=[late])).verdict
    closed = msgspec.structs.replace(late, closed_at=to_iso(clock()))
    assert Verdict.PASSED is probe.requests(around._replace(requests=[closed])).verdict


def test_what_outlived_its_retention_fails_unless_it_is_held(guard: BudgetGuard, around: Surroundings, clock: Clock):
    old = around._replace(retention_days=30, now=clock() + 62 * DAY)
    assert Verdict.FAILED is probe.retention(old).verdict
    assert Verdict.PASSED is probe.retention(old._replace(on_hold=True)).verdict
    assert Verdict.PASSED is probe.retention(old._replace(now=clock() + 60 * DAY)).verdict
    assert Verdict.PASSED is probe.retention(old._replace(retention_days=2555)).verdict


def test_a_clock_that_was_set_back_is_told(around: Surroundings, clock: Clock):
    assert Verdict.PASSED is probe.clock(around._replace(wall=clock() - 59 * SECOND)).verdict
    assert Verdict.FAILED is probe.clock(around._replace(wall=clock() - 3600 * SECOND)).verdict


def test_a_probe_that_breaks_is_a_probe_that_failed(around: Surroundings, tmp_path: Path):
    found = {each.name: each for each in look_around(around._replace(data_dir=tmp_path / "absent"))}["files"]
    assert (Verdict.FAILED, True) == (found.verdict, "could not be completed" in found.said)
