"""One suite for both databases: what a ledger of points is."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kiki.engage.database import open_database
from kiki.engage.loyalty_account import Kind
from kiki.engage.loyalty_data import LoyaltyData
from kiki.engage.loyalty_ledger import LoyaltyLedger
from kiki.engage.loyalty_program import DAY, Program, read_program
from kiki.errors import Conflict, InvalidInput, KeyReused, NotFound, PointsShort
from kiki.shield.dsr import Kind as RequestKind
from kiki.shield.subject_data import Task
from tests.engage.conftest import NOW

PROGRAM = read_program("pending_days: 14\nexpiry_days: 365\ntiers: [{name: silver, points: 500, multiplier: 2}]")


@pytest.fixture
def ledger(where, clock):
    made = LoyaltyLedger.open(where, Program(expiry=100 * DAY), clock=clock)
    yield made
    assert list(made.problems()) == []
    made.close()


def test_points_are_earned_spent_returned_and_end(ledger, clock):
    assert ledger.earn("ada", 100, key="o-1", order="1001").balance.available == 100
    spent = ledger.spend("ada", 60, key="s-1", order="1002")
    assert (spent.entry.points, spent.balance.available) == (-60, 40)
    assert ledger.refund("ada", spent.entry.place, key="r-1").balance.available == 100
    clock.advance(101 * DAY)
    assert ledger.balance("ada").available == 0
    assert [(entry.kind, entry.points) for entry in ledger.history("ada")] == [
        (Kind.EARN, 100),
        (Kind.SPEND, -60),
        (Kind.REFUND, 60),
    ]
    assert ledger.expire() == 1
    assert ledger.history("ada")[-1][:4] == (4, Kind.EXPIRE, -100, NOW + 100 * DAY)
    assert ledger.expire() == 0


def test_a_key_is_one_change_whatever_happens_between(ledger, clock):
    first = ledger.earn("ada", 100, key="o-1")
    ledger.spend("ada", 30, key="s-1")
    again = ledger.earn("ada", 100, key="o-1")
    assert (again.repeated, again.entry, again.balance.available) == (True, first.entry, 70)
    with pytest.raises(KeyReused):
        ledger.earn("ada", 101, key="o-1")
    with pytest.raises(KeyReused):
        ledger.spend("ada", 100, key="o-1")
    assert not ledger.earn("bob", 100, key="o-1").repeated


def test_a_refusal_leaves_nothing_behind(ledger):
    ledger.earn("ada", 10, key="o-1")
    with pytest.raises(PointsShort):
        ledger.spend("ada", 11, key="s-1")
    assert not ledger.spend("ada", 10, key="s-1").repeated
    assert len(ledger.history("ada")) == 2


def test_debts_in_all_are_what_balances_show(where, clock):
    with LoyaltyLedger.open(where, PROGRAM, clock=clock) as ledger:
        earned = ledger.earn("ada", 100, key="o-1").entry
        clock.advance(15 * DAY)
        ledger.spend("ada", 100, key="s-1")
        ledger.refund("ada", earned.place, key="r-1")
        ledger.earn("ada", 30, key="o-2")
        assert (ledger.balance("ada").available, ledger.totals()["debt"]) == (-100, 100)
        clock.advance(15 * DAY)  # the new points open, and pay
        assert (ledger.balance("ada").available, ledger.totals()["debt"]) == (-70, 70)
        assert list(ledger.problems()) == []


def test_a_return_is_paid_once_and_may_leave_a_debt(ledger):
    earned = ledger.earn("ada", 100, key="o-1", order="1001").entry
    ledger.spend("ada", 100, key="s-1")
    assert ledger.refund("ada", earned.place, key="r-1").balance.available == -100
    assert ledger.refund("ada", earned.place, key="r-1").repeated
    with pytest.raises(Conflict, match="reversed already"):
        ledger.refund("ada", earned.place, key="r-2")
    assert ledger.totals() == {"accounts": 1, "points": -100, "debt": 100, "entries": 3}
    assert ledger.earn("ada", 130, key="o-2").balance.available == 30


def test_holds_keep_points_for_an_order(ledger, clock):
    ledger.earn("ada", 100, key="o-1")
    held = ledger.hold("ada", 70, key="h-1", order="1002")
    assert (held.balance.available, held.balance.held) == (30, 70)
    assert ledger.commit("ada", held.entry.place, key="c-1").balance.held == 0
    with pytest.raises(Conflict, match="committed"):
        ledger.release("ada", held.entry.place, key="c-2")
    ledger.hold("ada", 30, key="h-2", lasts=1000)
    clock.advance(1000)
    assert ledger.balance("ada")[:3] == (30, 0, 0)
    assert ledger.expire() == 1
    assert ledger.history("ada")[-1].kind is Kind.RELEASE


def test_a_part_of_a_spend_comes_back_to_the_lots_it_came_from(ledger, clock):
    ledger.earn("ada", 10, key="o-1")
    clock.advance(10 * DAY)
    ledger.earn("ada", 10, key="o-2")
    spent = ledger.spend("ada", 15, key="s-1").entry
    ledger.refund("ada", spent.place, key="r-1", points=5)
    ledger.refund("ada", spent.place, key="r-2", points=4)
    assert ledger.balance("ada").ends_next == (NOW + 100 * DAY, 4)


def test_a_program_says_when_points_open_what_money_earns_and_what_tier_that_is(where, clock):
    with LoyaltyLedger.open(where, PROGRAM, clock=clock) as ledger:
        first = ledger.earn("ada", amount="512.99", key="o-1")
        assert (first.entry.points, first.balance.available, first.balance.pending) == (512, 0, 512)
        assert ledger.standing("ada").tier == "silver"
        clock.advance(14 * DAY)
        assert ledger.earn("ada", amount="10.50", key="o-2").entry.points == 21
        assert ledger.balance("ada")[:2] == (512, 21)
        with pytest.raises(InvalidInput, match="no whole point"):
            ledger.earn("bob", amount="0.99", key="o-1")
        assert not ledger.knows("bob")


def test_fifty_who_spend_at_once_never_spend_more_than_there_is(ledger):
    ledger.earn("ada", 1000, key="o-1")
    done, short, wrong = [], [], []

    def spend(number: int) -> None:
        chance = random.Random(number)
        for turn in range(3):
            try:
                done.append(ledger.spend("ada", chance.randint(5, 30), key=f"s-{number}-{turn}").entry)
            except PointsShort:
                short.append(number)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert short
    assert sum(-entry.points for entry in done) == 1000 - ledger.balance("ada").available <= 1000
    assert len({entry.place for entry in done}) == len(done)


def test_the_same_return_from_fifty_at_once_is_paid_once(ledger):
    ledger.earn("ada", 100, key="o-1")
    spent = ledger.spend("ada", 100, key="s-1").entry
    outcomes = []

    def refund(number: int) -> None:
        try:
            outcomes.append(ledger.refund("ada", spent.place, key=f"r-{number % 25}").repeated)
        except Conflict:
            outcomes.append(None)

    threads = [threading.Thread(target=refund, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(False) == 1
    assert ledger.balance("ada").available == 100


_SPENDER = """
import sys
from kiki.engage.loyalty_ledger import LoyaltyLedger
from kiki.errors import PointsShort, StoreUnavailable

def again(ask):
    # On a slow disk the others may keep one from its turn for so long that it is told so: then it asks again.
    while True:
        try:
            return ask()
        except StoreUnavailable:
            pass

where, number = sys.argv[1], sys.argv[2]
with again(lambda: LoyaltyLedger.open(where)) as ledger:
    for turn in range(100000):
        try:
            entry = again(lambda: ledger.spend("ada", 1, key=f"{number}-{turn}")).entry
        except PointsShort:
            break
        print(turn, entry.place, flush=True)
"""


def test_what_processes_that_are_killed_were_told_is_kept_and_nothing_is_taken_twice(where, tmp_path: Path):
    with LoyaltyLedger.open(where) as ledger:
        ledger.earn("ada", 100_000, key="o-1")
    files = [(tmp_path / f"told-{number}").open("w+") for number in range(3)]
    processes = [
        subprocess.Popen([sys.executable, "-c", _SPENDER, str(where), str(number)], stdout=file)
        for number, file in enumerate(files)
    ]
    for number, process in enumerate(processes):
        # Each has spent for a while: some are stopped in the middle of a change.
        while (tmp_path / f"told-{number}").stat().st_size < 100 and process.poll() is None:
            threading.Event().wait(0.01)
    for process in processes:
        process.kill()
        process.wait()
    with LoyaltyLedger.open(where) as ledger:
        history = ledger.history("ada")
        kept = {entry.place for entry in history if entry.kind is Kind.SPEND}
        told = 0
        for number, file in enumerate(files):
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    turn, place = map(int, line.split())
                    told += 1
                    assert place in kept
                    assert ledger.spend("ada", 1, key=f"{number}-{turn}").repeated
            file.close()
        assert told >= 3 * 10
        assert ledger.balance("ada").available == 100_000 - len(kept)
        assert told <= len(kept) <= told + len(files)
        assert list(ledger.problems()) == []


def test_nobody_is_found_in_the_tables(ledger, where):
    ledger.earn("ada@example.org", 100, key="o-1")
    for table in ("people", "accounts", "entries", "lots"):
        assert "ada" not in str(ledger.database.read(f"SELECT * FROM loyalty_{table}"))


def test_an_erased_person_leaves_sums_and_no_trace(ledger):
    ledger.earn("ada", 100, key="o-1", order="1001")
    ledger.spend("ada", 40, key="s-1", order="1002")
    ledger.earn("bob", 10, key="o-1")
    data, task = LoyaltyData(ledger), Task("r-1", RequestKind.DELETION, "ada", "0" * 32)
    assert data.locate(task).records == 2
    [document] = data.export(task)
    assert b'"available":60' in b"".join(document.parts)
    erased = data.erase(task)
    assert (erased.records, [kept.readable for kept in erased.kept]) == (3, [False])
    assert data.erase(task).records == 0
    assert data.verify(task).left == 0
    assert list(data.export(task)) == []
    assert ledger.history("ada") == []
    assert "1001" not in str(ledger.database.read("SELECT * FROM loyalty_entries"))
    assert ledger.totals()["points"] == 10
    assert ledger.earn("ada", 5, key="o-1").balance.available == 5


def test_requests_find_a_ledger_that_was_made_after_the_service_started(where):
    data, task = LoyaltyData(where), Task("r-1", RequestKind.DELETION, "ada", "0" * 32)
    assert (data.locate(task).records, data.erase(task).records, data.verify(task).left) == (0, 0, 0)
    assert list(data.export(task)) == []
    if isinstance(where, Path):
        assert not where.exists()
    with LoyaltyLedger.open(where) as ledger:
        ledger.earn("ada", 5, key="o-1")
    assert (data.locate(task).records, data.verify(task).left, data.erase(task).records) == (1, 1, 2)
    assert data.verify(task).left == 0


def test_a_ledger_is_opened_with_the_keys_it_was_written_with(where, keys):
    first = LoyaltyLedger(open_database(where), hashed=lambda text: keys.hash("loyalty", text))
    first.earn("ada", 5, key="o-1")
    first.close()
    with pytest.raises(InvalidInput, match=r"other keys|is missing"):
        LoyaltyLedger.open(where)


def test_the_secret_lies_beside_the_file_and_not_in_it(tmp_path):
    file, key = tmp_path / "loyalty.db", tmp_path / "loyalty.key"
    with LoyaltyLedger.open(file) as ledger:
        ledger.earn("ada", 5, key="o-1")
    secret = key.read_text().strip()
    assert 0o600 == key.stat().st_mode & 0o777
    assert secret.encode() not in b"".join(each.read_bytes() for each in tmp_path.glob("loyalty.db*"))
    with LoyaltyLedger.open(file) as ledger:
        assert ledger.balance("ada").available == 5
    key.rename(tmp_path / "away")
    with pytest.raises(InvalidInput, match="is missing"):
        LoyaltyLedger.open(file)
    key.write_text("0" * 64)
    key.chmod(0o640)
    with pytest.raises(InvalidInput, match="other keys"):
        LoyaltyLedger.open(file)
    key.chmod(0o644)
    with pytest.raises(InvalidInput, match="mode 0644"):
        LoyaltyLedger.open(file)


def test_a_ledger_that_kept_its_own_secret_hands_it_over(tmp_path):
    file = tmp_path / "loyalty.db"
    with LoyaltyLedger(open_database(file)) as ledger:
        ledger.earn("ada", 5, key="o-1")
    with LoyaltyLedger.open(file) as ledger:
        assert ledger.balance("ada").available == 5
        assert ledger.database.read("SELECT value FROM loyalty_meta WHERE name = 'secret'") == []


def test_of_many_who_make_a_ledger_at_once_all_have_one_secret(tmp_path):
    def earn(number):
        with LoyaltyLedger.open(tmp_path / "loyalty.db") as ledger:
            ledger.earn("ada", 1, key=f"o-{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(earn, range(8)))
    with LoyaltyLedger.open(tmp_path / "loyalty.db") as ledger:
        assert ledger.balance("ada").available == 8


@pytest.mark.parametrize(
    "call",
    [
        lambda ledger: ledger.earn("ada", 5, key=""),
        lambda ledger: ledger.earn("ada", 5, amount="5", key="k"),
        lambda ledger: ledger.earn("ada", key="k"),
        lambda ledger: ledger.earn("", 5, key="k"),
        lambda ledger: ledger.earn("ada", -5, key="k"),
        lambda ledger: ledger.earn("ada", 5, key="k", order="x" * 201),
        lambda ledger: ledger.earn("ada", 5, key="k\n"),
        lambda ledger: ledger.earn("ada", amount="-5", key="k"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(call):
    with LoyaltyLedger.open(None) as ledger:
        with pytest.raises(InvalidInput):
            call(ledger)
        assert ledger.totals()["entries"] == 0


def test_who_is_not_known_has_nothing():
    with LoyaltyLedger.open(None) as ledger:
        assert ledger.balance("ada")[:3] == (0, 0, 0)
        assert ledger.history("ada") == []
        assert ledger.standing("ada").tier is None
        with pytest.raises(NotFound, match="never had"):
            ledger.spend("ada", 5, key="k")
