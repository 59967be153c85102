"""The guard as a script uses it: over a real file, with a clock that is moved."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest

from kiki import BudgetGuard, SpendDenied
from kiki.errors import (
    CommitExceedsHold,
    HoldClosed,
    HoldUnknown,
    InvalidInput,
    InvalidKey,
    InvalidMoney,
    InvalidScope,
    KeyReused,
    KikiError,
    LedgerLocked,
    Unavailable,
)
from kiki.shield.fact import Decided, decode_fact
from kiki.shield.opening import subjects_path
from kiki.shield.policy import Budget, Limit, Policy
from kiki.shield.scope import Pattern
from tests.ledger.doubles import SECOND, FakeClock

UNIT = 1_000_000


class Place:
    """A file, a clock, and the guard on them, which may be started anew."""

    def __init__(self, path):
        self.path = path / "shield.db"
        self.clock = FakeClock()
        self.guard = None
        self.options = {"limit": "500", "window": "60s"}

    def open(self, **options):
        self.close()
        self.guard = BudgetGuard.open(self.path, clock=self.clock, **(options or self.options))
        return self.guard

    def close(self):
        guard, self.guard = self.guard, None
        if guard is not None:
            guard.close()

    def counted(self):
        (status,) = self.guard.status(scope="*")
        return status.spent / UNIT, status.held / UNIT


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def guard(place):
    return place.open()


def test_the_script_of_the_readme(tmp_path):
    """Three lines and no server: check, spend, reserve and commit, and many in one commit."""
    with BudgetGuard.open(tmp_path / "shield.db", limit="500", window="60s") as guard:
        assert guard.check("100").allowed is True
        guard.spend("100", scopes={"platform": "meta"}, key="order-1")
        hold = guard.reserve("80")
        hold.commit("64.20")
        outcomes = guard.spend_many(["0.01", "0.02"])
        assert [outcome.allowed for outcome in outcomes] == [True, True]
        (status,) = guard.status()
        assert status.spent == 164_230_000
        with pytest.raises(SpendDenied) as denied:
            guard.spend("400")
    error = denied.value
    assert (error.reason, error.budget, error.remaining) == ("budget_exhausted", "default", "335.77")
    assert 0 < error.retry_after <= 60.2
    assert "335.77 left" in str(error)


def test_the_demo_of_the_guide(place, guard):
    """Of six spends of 100 under a limit of 500, five are taken, and then nothing fits."""
    for _ in range(5):
        guard.spend("100")
    with pytest.raises(SpendDenied) as denied:
        guard.spend("100")
    assert denied.value.remaining == "0.00"
    assert guard.check(ltv="600").allowed is False
    place.clock.advance(60.2)
    assert guard.check(ltv="600").allowed is True


def test_everything_may_be_in_memory():
    """Without a path nothing is written to a disk, and all verbs work."""
    with BudgetGuard.open(limit=10, window="60s") as guard:
        guard.spend(10)
        assert not guard.check().allowed


def test_a_second_guard_on_the_same_file_is_refused(place, guard):
    """One owner at a time; the file is free again after `close`."""
    with pytest.raises(LedgerLocked):
        BudgetGuard.open(place.path, limit=1)
    place.close()
    BudgetGuard.open(place.path, limit=1).close()


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"limit": "1", "policy": "x.yaml"}, {"limit": "0"}, {"limit": 1.5}, {"limit": "1", "window": "0s"}),
        *({"limit": "1", "currency": "usd"}, {"limit": "1", "currency": ""}, {"limit": "1", "currency": 5}),
    ],
)
def test_a_guard_that_cannot_be_configured_leaves_the_file_free(place, options):
    """A wrong option raises one of our errors, and the next try finds no lock."""
    with pytest.raises(KikiError):
        BudgetGuard.open(place.path, **options)
    place.open()


# -- the verbs -----------------------------------------------------------------------------------------


def test_an_outcome_says_what_was_decided(place, guard):
    """Amount, moment and the id of its record in the audit."""
    outcome = guard.spend("12.5")
    assert (
        *(outcome.amount, outcome.allowed, outcome.reason),
        *(outcome.budget, outcome.retry_after),
    ) == ("12.50", True, None, None, None)
    assert outcome.decided_at == "2023-11-14T22:13:20.000000Z"
    seq, index = int(outcome.event_id[:12], 16), int(outcome.event_id[12:], 16)
    (entry,) = guard.decider.ledger.read(seq, seq)
    assert decode_fact(entry).amounts[index] == 12_500_000


def test_a_check_takes_and_writes_nothing(guard):
    """Looking leaves no trace and promises nothing."""
    before = guard.decider.ledger.next_seq
    assert guard.check("500").allowed
    refused = guard.check("500.000001")
    assert (refused.reason, refused.event_id, refused.retry_at) == ("above_limit", "", None)
    assert before == guard.decider.ledger.next_seq


def test_the_value_rule_of_a_check(guard):
    """A predicted value outside its bounds refuses before any budget is looked at."""
    expected = {"9.99": "ltv_below_minimum", "10": None, "10000": None, "10000.01": "ltv_above_maximum"}
    assert expected == {ltv: guard.check(ltv=ltv).reason for ltv in expected}
    guard.halt("*")
    assert guard.check(ltv="9").reason == "ltv_below_minimum"
    assert guard.check(ltv="600").reason == "halted"


def test_the_refused_amount_fits_exactly_when_it_says(place, guard):
    """`retry_after` is to the microsecond."""
    guard.spend("300")
    place.clock.advance(13.377)
    guard.spend("200")
    with pytest.raises(SpendDenied) as denied:
        guard.spend("250")
    moment = place.clock.now + round(denied.value.retry_after * SECOND)
    place.clock.now = moment - 1
    assert not guard.check("250").allowed
    place.clock.now = moment
    guard.spend("250")


def test_many_spends_have_one_outcome_each(place, guard):
    """One entry and one commit; refused ones are not raised, and have ids of their own."""
    before = guard.decider.ledger.next_seq
    outcomes = guard.spend_many(["400", "200", ("100", {"platform": "meta"}), 1])
    assert [each.allowed for each in outcomes] == [True, False, True, False]
    assert guard.decider.ledger.next_seq == before + 1
    assert len({each.event_id for each in outcomes}) == 4
    assert place.counted() == (500, 0)


def test_a_hold_is_committed_released_or_left_to_its_deadline(place, guard):
    """Each ending counts what it should."""
    guard.reserve("100").commit("60")
    guard.reserve("100").release()
    guard.reserve("100", seconds=30)
    with guard.reserve("100"):
        assert place.counted() == (60, 200)
    assert place.counted() == (60, 100)
    place.clock.advance(30)
    assert place.counted() == (160, 0)


def test_a_with_block_that_committed_is_not_released(place, guard):
    """Leaving the block releases only what is still open, also when the body raises."""
    with guard.reserve("100") as hold:
        hold.commit("70")
    with pytest.raises(RuntimeError), guard.reserve("100"):
        raise RuntimeError
    assert place.counted() == (70, 0)
    assert "closed" in repr(hold)


def test_settling_twice_too_much_or_the_unknown(place, guard):
    """Repeats are answered, contradictions refused, and none of it changes what counts."""
    hold = guard.reserve("100")
    with pytest.raises(CommitExceedsHold):
        hold.commit("100.000001")
    assert hold.is_open
    first = hold.commit("100")
    assert first.event_id == guard.commit(hold.id, "100.00").event_id
    with pytest.raises(HoldClosed, match=r"committed with 100\.00"):
        guard.commit(hold.id, "99")
    with pytest.raises(HoldClosed):
        hold.release()
    other = guard.reserve("50")
    other.release()
    guard.release(other.id)
    with pytest.raises(HoldClosed, match="released"):
        other.commit("50")
    with pytest.raises(HoldUnknown):
        guard.release("0" * 32)
    assert place.counted() == (100, 0)


def test_a_record_goes_over_the_limit_and_is_counted(place, guard):
    """Money spent elsewhere is counted whatever the limit."""
    assert guard.record("700").allowed
    assert place.counted() == (700, 0)
    with pytest.raises(SpendDenied) as denied:
        guard.spend("0.01")
    assert denied.value.remaining == "0.00"


def test_a_halt_stops_at_once_and_survives_a_restart(place, guard):
    """The kill switch is durable, and so is its end."""
    guard.halt("platform:meta", note="runaway")
    guard = place.open()
    assert guard.halts() == ["platform:meta"]
    with pytest.raises(SpendDenied) as denied:
        guard.spend("1", {"platform": "meta"})
    assert (denied.value.reason, denied.value.budget, denied.value.retry_after) == ("halted", None, None)
    guard.spend("1", {"platform": "tiktok"})
    guard.resume("platform:meta")
    guard = place.open()
    assert guard.halts() == []
    guard.spend("1", {"platform": "meta"})


# -- keys ----------------------------------------------------------------------------------------------


def test_a_key_is_answered_once_and_for_all(place, guard):
    """The repeat is the first answer, in this process and the next, and nothing is charged again."""
    first = guard.spend("100", {"platform": "meta"}, key="order-1")
    place.clock.advance(7)
    for _ in range(2):
        again = guard.spend("100.00", ["platform:meta"], key="order-1")
        assert first == again
        guard = place.open()
    assert place.counted() == (100, 0)


def test_a_refused_key_stays_refused(place, guard):
    """A refusal is an answer too: the repeat gets it, also when there is room by then."""
    guard.spend("500")
    with pytest.raises(SpendDenied) as first:
        guard.spend("100", key="k")
    place.clock.advance(100)
    guard = place.open()
    with pytest.raises(SpendDenied) as again:
        guard.spend("100", key="k")
    assert (first.value.event_id, str(first.value)) == (again.value.event_id, str(again.value))
    guard.spend("100", key="other")


def test_a_key_with_another_request_is_a_conflict(place, guard):
    """Another amount, other scopes or another verb: refused, nothing charged, the first stays."""
    guard.spend("100", key="k")
    for act in (
        lambda: guard.spend("100.000001", key="k"),
        lambda: guard.spend("100", {"a": "b"}, key="k"),
        lambda: guard.reserve("100", key="k"),
        lambda: guard.record("100", key="k"),
        lambda: guard.spend_many(["100", "1"], key="k"),
    ):
        with pytest.raises(KeyReused):
            act()
    assert place.counted() == (100, 0)


def test_a_batch_and_a_hold_are_repeated_whole(place, guard):
    """A keyed batch is taken once with all its outcomes; a keyed reservation gives the same hold again."""
    first = guard.spend_many(["100", "450", "1"], key="batch")
    assert first == guard.spend_many(["100", "450", "1"], key="batch")
    hold = guard.reserve("10", key="hold")
    assert hold.id == place.open().reserve("10", key="hold").id
    assert place.counted() == (101, 10)


def test_a_key_lives_a_day_and_then_leaves(place, guard):
    """It is found for at least 24 hours, and some time after that it is new."""
    guard.spend("1", key="k")
    place.clock.advance(24 * 3600 - 1)
    guard.spend("1", key="k")
    assert place.counted() == (0, 0)
    place.clock.advance(2 * 24 * 3600)
    guard.spend("0.5", key="other")
    place.clock.advance(24 * 3600)
    guard.spend("1", key="k")
    assert place.counted() == (1, 0)


def test_concurrent_twins_are_one_spend(guard, place):
    """Fifty threads with one key: one charge, and the same event for all."""
    found = spend_in_threads(50, lambda _: guard.spend("7", key="one").event_id)
    assert len(set(found)) == 1
    assert place.counted() == (7, 0)


def test_nothing_in_clear_of_keys_and_customers_is_on_the_disk(place, guard, tmp_path):
    """Neither a key nor a customer is in any file, however it was used."""
    secret = {"customer": "alice.liddell@example.com"}
    guard.spend("1", secret, key="order-of-alice-4711")
    guard.reserve("1", secret, key="hold-of-alice-4711").commit("1")
    guard.record("1", secret)
    guard.halt("customer:alice.liddell@example.com")
    place.close()
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert {place.path, subjects_path(place.path)} <= set(files)
    for part in (b"alice", b"liddell", b"4711"):
        assert [each.name for each in files if part in each.read_bytes()] == []


# -- restarts ------------------------------------------------------------------------------------------


def by_name(guard):
    """What the guard counts, without the meters that count nothing."""
    return {(each.budget, each.scope, each.span): each for each in guard.status() if each.spent or each.held}


def test_a_restart_finds_the_window_as_it_was(place):
    """Spends, open holds, expired holds and commits: status is equal before and after, at any moment."""
    policy = Policy(
        (
            Budget("all", Pattern("*"), (Limit(500 * UNIT, 60 * SECOND), Limit(2000 * UNIT, 3600 * SECOND))),
            Budget("each", Pattern("campaign:*"), (Limit(200 * UNIT, 600 * SECOND),)),
        )
    )
    guard = place.open(policy=policy)
    guard.spend("10.000001", {"campaign": "a"})
    early = guard.reserve("20", {"campaign": "b"}, seconds=50)
    endless = guard.reserve("5")
    place.clock.advance(13.37)
    guard.reserve("30", {"campaign": "a"}, seconds=20)
    early.commit("7.5")
    guard.record("600", {"campaign": "c"})
    for seconds in (0, 1, 19.2, 5, 13.1, 8.27, 30, 500, 3000, 40):
        place.clock.advance(seconds)
        before = by_name(guard)
        guard = place.open(policy=policy)
        assert before == by_name(guard)
    assert [endless.id] == [hold.id for hold in guard.holds()]
    guard.commit(endless.id, "5")


def test_a_slot_that_is_half_out_counts_after_a_restart_too(place, guard):
    """The window rounds against the spender before a restart, and must not forget that by restarting."""
    place.clock.now += SECOND // 10 - place.clock.now % (SECOND // 10)  # the first microsecond of a slot
    guard.spend("500")
    place.clock.now += 60 * SECOND + 1
    before = by_name(guard)
    assert before
    assert before == by_name(place.open())


@pytest.mark.parametrize("seconds", [None, 30, 600])
def test_an_open_hold_survives_any_time(place, guard, seconds):
    """A hold made long ago is found again, counts, and can be settled."""
    hold = guard.reserve("100", seconds=seconds)
    place.clock.advance(25)
    guard = place.open()
    assert place.counted() == (0, 100)
    place.clock.advance(400)
    guard = place.open()
    assert place.counted() == ((0, 0) if seconds == 30 else (0, 100))
    decision = guard.commit(hold.id, "40")
    assert (seconds == 30) == decision.fact.late
    place.open()
    assert place.counted() == ((0, 0) if seconds == 30 else (40, 0))


def test_a_hold_that_ran_out_while_nothing_ran_counts_from_its_deadline(place, guard):
    """A process that was down when the deadline passed finds the spend where it belongs."""
    guard.reserve("100", seconds=30)
    place.close()
    place.clock.advance(60)
    guard = place.open()
    assert place.counted() == (100, 0)
    guard.decider.tick()
    assert [hold.id for hold in guard.holds()] == []
    place.clock.advance(30.2)
    assert place.counted() == (0, 0)


def test_a_policy_change_counts_what_was_spent_before(place, guard):
    """Under a longer window the past counts as far back as that window reaches."""
    guard.spend("400")
    place.clock.advance(120)
    guard.spend("100")
    guard.use(Policy((Budget("hour", Pattern("*"), (Limit(1000 * UNIT, 3600 * SECOND),)),)))
    assert place.counted() == (500, 0)
    guard.use(Policy((Budget("tiny", Pattern("*"), (Limit(50 * UNIT, 60 * SECOND),)),)))
    assert place.counted() == (100, 0)
    assert not guard.check("0.01").allowed


def test_recorded_sums_of_many_windows_fit_any_policy(place, guard):
    """Records near the largest amount, in windows of their own, are restored under a longer window too."""
    for _ in range(3):
        guard.record("9000000000000")
        place.clock.advance(61)
    guard.use(Policy((Budget("year", Pattern("*"), (Limit(UNIT, 365 * 86_400 * SECOND),)),)))
    place.clock.advance(86_400 * 2)
    assert not guard.check("0.01").allowed


# -- bad input -----------------------------------------------------------------------------------------

BAD = [
    *[(InvalidMoney, {"amount": amount}) for amount in ("NaN", "Inf", "1e400", "-1", "0", "0.0000001", "", "abc")],
    *[(InvalidMoney, {"amount": amount}) for amount in (1.0, float("nan"), float("inf"), None, True, 10**30)],
    *[(InvalidMoney, {"amount": amount}) for amount in (Decimal("NaN"), Decimal("1E+999999"), "9223372036854.775808")],
    *[(InvalidKey, {"key": key}) for key in ("", "x" * 65_536, "a\nb", 5)],
    *[(InvalidScope, {"scopes": scopes}) for scopes in (["nonsense"], {"Platform": "x"}, {"a": "*"}, "a:b", {"a": ""})],
]


@pytest.mark.parametrize(("error", "given"), BAD, ids=lambda each: repr(each)[:40])
def test_bad_input_charges_and_writes_nothing(place, guard, error, given):
    """A clear error from every verb that takes it, and neither the window nor the ledger moves."""
    before = guard.decider.ledger.next_seq, by_name(guard)
    arguments = {"amount": "1", **given}
    amount = arguments.pop("amount")
    for verb in (guard.spend, guard.reserve, guard.record, lambda amount, **more: guard.spend_many([amount], **more)):
        with pytest.raises(error):
            verb(amount, **arguments)
    assert before == (guard.decider.ledger.next_seq, by_name(guard))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e12, True, "60", 1e-9])
def test_a_reservation_for_a_senseless_time_is_refused(place, guard, seconds):
    """Its time is positive and at most 366 days."""
    with pytest.raises(InvalidInput):
        guard.reserve("1", seconds=seconds)
    assert place.counted() == (0, 0)


# -- many threads --------------------------------------------------------------------------------------


def spend_in_threads(count, act):
    """What `act(index)` gave in each of `count` threads that start together; a refusal gives None."""
    found = [None] * count
    ready = threading.Barrier(count)

    def run(index):
        ready.wait()
        try:
            found[index] = act(index)
        except SpendDenied:
            found[index] = None
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert [each for each in found if isinstance(each, BaseException)] == []
    return found


def test_two_hundred_threads_take_exactly_the_limit(place, guard):
    """When more is wanted than there is, what is admitted is the limit to the micro, in memory and in the ledger."""
    smallest = "0.000001"

    def spend(index):
        taken = 0
        for amount, micros in (("3.5", 3_500_000), ("0.75", 750_000), ("1.000001", 1_000_001)):
            try:
                guard.spend(amount, {"campaign": str(index % 7)})
            except SpendDenied:
                continue
            taken += micros
        return taken

    taken = sum(spend_in_threads(200, spend))
    assert taken <= 500 * UNIT
    assert taken == guard.status()[0].spent
    while guard.check("0.5").allowed:
        taken += guard.spend("0.5").micros
    rest = 500 * UNIT - taken
    if rest:
        taken += guard.spend(Decimal(rest) / UNIT).micros
    assert taken == 500 * UNIT
    with pytest.raises(SpendDenied):
        guard.spend(smallest)
    facts = [decode_fact(entry) for entry in guard.decider.ledger.read()]
    admitted = sum(fact.amounts[0] for fact in facts if isinstance(fact, Decided) and not fact.refused)
    assert admitted == 500 * UNIT
    before = by_name(guard)
    assert before == by_name(place.open())


def test_two_hundred_threads_of_one_size_fill_the_limit(place, guard):
    """500 in pieces of 2.5 is exactly 200 admissions of 600 tries."""
    found = spend_in_threads(200, lambda _: sum(each.allowed for each in guard.spend_many(["2.5"] * 3)))
    assert sum(found) == 200
    assert place.counted() == (500, 0)


def test_threads_with_all_verbs_lose_nothing(place, guard):
    """Holds settled in all ways by many threads: what is counted is what was said."""

    def act(index):
        hold = guard.reserve("2", key=f"hold-{index}")
        if index % 3 == 0:
            hold.release()
            return 0
        if index % 3 == 1:
            hold.commit("1.25")
            return 1_250_000
        return 0

    spent = sum(spend_in_threads(90, act))
    assert place.counted() == (spent / UNIT, 30 * 2)
    place.open()
    assert place.counted() == (spent / UNIT, 30 * 2)


def test_closing_while_others_spend_answers_everybody(place, guard):
    """Each caller gets a durable decision or `Unavailable`; what was acknowledged is in the ledger."""
    acknowledged, strange = [], []

    def spend(_):
        while True:
            try:
                acknowledged.append(guard.spend("0.01").event_id)
            except Unavailable:
                return
            except SpendDenied:
                return
            except BaseException as error:
                strange.append(error)
                return

    threads = [threading.Thread(target=spend, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 50:
        pass
    place.close()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert strange == []
    guard = place.open()
    assert set(acknowledged) <= {f"{entry.seq:012x}0000" for entry in guard.decider.ledger.read()}


def test_closing_twice_is_no_mistake(place, guard):
    """The second close finds nothing to do, and a verb after it is refused as unavailable."""
    guard.close()
    guard.close()
    with pytest.raises(Unavailable):
        guard.spend("1")
