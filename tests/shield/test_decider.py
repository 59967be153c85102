"""Decide, write down, answer: batches made by hand, and stores that fail, so that every race is the same each time."""

from __future__ import annotations

import pytest

from kiki.errors import (
    CommitExceedsHold,
    HoldClosed,
    HoldUnknown,
    KeyReused,
    KikiError,
    LedgerUnavailable,
    Unavailable,
)
from kiki.ledger.ledger import Ledger
from kiki.ledger.master_key import KeySource
from kiki.ledger.memory import MemoryStore
from kiki.ledger.subjects import Subjects
from kiki.settings import Secret
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import (
    check_call,
    commit_call,
    invalid_call,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    switch,
)
from kiki.shield.decider import Decider, new_hold_id
from kiki.shield.fact import Decided, Halted, Opened, PolicyUsed, Settled, decode_fact
from kiki.shield.local_window import LocalWindow
from kiki.shield.policy import Budget, Limit, Policy
from kiki.shield.scope import Pattern
from kiki.shield.window import Verb
from tests.ledger.doubles import FakeClock

UNIT = 1_000_000
SPAN = 60 * UNIT
KEYS = KeySource(text=Secret("00" * 32))


class World:
    """A guard over stores that stay when it goes, as a disk does."""

    def __init__(self, limit=100, policy=None):
        self.stores = MemoryStore(), MemoryStore()
        self.clock = FakeClock()
        self.policy = policy or Policy((Budget("all", Pattern("*"), (Limit(limit * UNIT, SPAN),)),))
        self.guard = self.open()

    def open(self, keys_max=1000):
        decider = Decider(
            Ledger(self.stores[0], self.clock),
            Subjects(self.stores[1], KEYS, self.clock),
            LocalWindow(self.policy, self.clock),
            self.policy,
            self.clock,
            ltv_min=10 * UNIT,
            ltv_max=10_000 * UNIT,
            keys_max=keys_max,
        )
        self.guard = BudgetGuard(decider)
        return self.guard

    def batch(self, *works):
        """All works in one batch: what each was answered or failed with."""
        tickets = [self.guard.decider.group.submit(work) for work in works]
        self.guard.decider.group.drain()
        return [ticket.error if ticket.error is not None else ticket.value for ticket in tickets]

    def facts(self):
        return [decode_fact(entry) for entry in self.guard.decider.ledger.read()]

    def counted(self):
        """(spent, held) of the budget over everything, in whole units."""
        (status,) = self.guard.status(scope="*")
        return status.spent / UNIT, status.held / UNIT


@pytest.fixture
def world():
    return World()


def test_a_guard_writes_down_that_it_opened_and_by_which_policy(world):
    """The chain begins with the opening and the policy, and the policy is written again only when it changed."""
    assert [Opened, PolicyUsed] == [type(fact) for fact in world.facts()]
    world.open()
    assert [Opened, PolicyUsed, Opened] == [type(fact) for fact in world.facts()]
    world.guard.use(Policy((Budget("all", Pattern("*"), (Limit(5 * UNIT, SPAN),)),)))
    assert [PolicyUsed] == [type(fact) for fact in world.facts()[3:]]
    assert world.guard.policy == Policy.load(world.facts()[3].policy)


def test_a_batch_is_one_commit(world):
    """Whatever waits together is decided at one moment and durable in one transaction, in order."""
    before = world.stores[0].commits
    decisions = world.batch(*(spend_call(30) for _ in range(5)), switch("*", on=True))
    assert world.stores[0].commits == before + 1
    assert [each.outcome().allowed for each in decisions[:5]] == [True, True, True, False, False]
    assert list(range(2, 8)) == [each.seq for each in decisions]
    assert [Decided] * 5 + [Halted] == [type(fact) for fact in world.facts()[2:]]
    assert world.counted() == (90, 0)


def test_twins_in_one_batch_are_taken_once(world):
    """The same key twice at once: one charge, one entry, the same answer; a different request is refused."""
    first, second, other = world.batch(spend_call(30, key="k"), spend_call(30, key="k"), spend_call(31, key="k"))
    assert (first.repeated, second.repeated) == (False, True)
    assert (first.seq, first.fact) == (second.seq, second.fact)
    assert isinstance(other, KeyReused)
    assert world.counted() == (30, 0)
    assert len(world.facts()) == 3


def test_a_key_is_one_request_of_one_verb(world):
    """Amount, verb, scopes and time of a hold belong to the request; anything else under the key is a conflict."""
    hold = new_hold_id()
    assert not isinstance(world.batch(reserve_call(10, hold, 60 * UNIT, {"a": "1"}, "k"))[0], KikiError)
    others = [
        reserve_call(11, new_hold_id(), 60 * UNIT, {"a": "1"}, "k"),
        reserve_call(10, new_hold_id(), 60 * UNIT, {"a": "2"}, "k"),
        reserve_call(10, new_hold_id(), None, {"a": "1"}, "k"),
        reserve_call(10, new_hold_id(), 61 * UNIT, {"a": "1"}, "k"),
        spend_call(10, {"a": "1"}, "k"),
        record_call(10, {"a": "1"}, "k"),
    ]
    assert [KeyReused] * 6 == [type(world.batch(other)[0]) for other in others]
    (again,) = world.batch(reserve_call(10, new_hold_id(), 60 * UNIT, {"a": "1"}, "k"))
    assert hold == again.fact.hold
    assert world.counted() == (0, 10)


def test_a_refused_reservation_stays_refused_under_its_key(world):
    """Its repeat gets the refusal again, with or without a deadline, also when there is room by then."""
    world.guard.spend(95)
    for span in (None, 60 * UNIT):
        call = lambda span=span: reserve_call(10, new_hold_id(), span, key=f"k{span}")
        (first,) = world.batch(call())
        assert not first.outcome().allowed
        world.clock.advance(300)
        (again,) = world.batch(call())
        assert not isinstance(again, KikiError)
        assert (first.seq, first.fact, True) == (again.seq, again.fact, again.repeated)
        world.guard.spend(95)


# -- settling, alone and at once -----------------------------------------------------------------------


@pytest.mark.parametrize("span", [None, 600 * UNIT], ids=["endless", "deadline"])
def test_the_same_commit_twice_in_one_batch_counts_once(world, span):
    """Two threads commit one hold with one amount: both get the one answer."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, span))
    first, second = world.batch(commit_call(hold, 30), commit_call(hold, 30))
    assert not isinstance(second, KikiError)
    assert (first.seq, first.fact) == (second.seq, second.fact)
    assert [fact.charged for fact in world.facts() if isinstance(fact, Settled)] == [30 * UNIT]
    assert world.counted() == (30, 0)


@pytest.mark.parametrize("span", [None, 600 * UNIT], ids=["endless", "deadline"])
@pytest.mark.parametrize("first", ["release", "commit"])
def test_two_ways_to_settle_in_one_batch_are_a_conflict(world, span, first):
    """Only one of them happens; the other is told so, and nothing is written for it."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, span))
    one = release_call(hold) if first == "release" else commit_call(hold, 30)
    done, other = world.batch(one, commit_call(hold, 70))
    assert not isinstance(done, KikiError)
    assert isinstance(other, HoldClosed)
    assert len([fact for fact in world.facts() if isinstance(fact, Settled)]) == 1
    assert world.counted() == (0 if first == "release" else 30, 0)


def test_settling_again_in_a_later_batch(world):
    """The same settlement gets the first answer, another is a conflict, an unknown hold is unknown."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, None))
    (first,) = world.batch(commit_call(hold, 30))
    for _ in range(2):
        (again,) = world.batch(commit_call(hold, 30))
        assert (first.seq, first.fact, True) == (again.seq, again.fact, again.repeated)
        assert [HoldClosed, HoldClosed] == [
            type(each) for each in world.batch(commit_call(hold, 31), release_call(hold))
        ]
        world.open()
    assert [HoldUnknown] == [type(each) for each in world.batch(commit_call("f" * 32, 1))]
    assert world.counted() == (30, 0)


def test_a_late_commit_is_written_down_and_charges_nothing_more(world):
    """After the deadline the whole hold was spent: what is said then is evidence, at most what was held."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, 10 * UNIT))
    world.clock.advance(11)
    (late,) = world.batch(commit_call(hold, 30))
    assert (late.fact.late, late.fact.charged, late.fact.reserved, late.fact.actual) == (True, 0, 80 * UNIT, 30 * UNIT)
    assert [fact.verb for fact in world.facts() if isinstance(fact, Settled)] == ["expire", "commit"]
    (again,) = world.batch(commit_call(hold, 30))
    assert (late.seq, True) == (again.seq, again.repeated)
    assert world.counted() == (80, 0)


def test_a_late_commit_of_too_much_is_the_same_error_as_an_early_one(world):
    """More than was reserved is `CommitExceedsHold`, before the deadline and after it."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, 10 * UNIT))
    assert isinstance(world.batch(commit_call(hold, 81))[0], CommitExceedsHold)
    world.clock.advance(11)
    assert isinstance(world.batch(commit_call(hold, 81))[0], CommitExceedsHold)
    assert world.counted() == (80, 0)


def test_a_deadline_that_passes_inside_a_batch_is_charged_after_a_restart_too(world):
    """The clock moves between the steps of a batch: what expired in between is in the ledger like any other."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, 90 * UNIT))
    # One microsecond before the deadline when the batch begins, past it when the window looks.
    world.clock.now += 90 * UNIT - 2
    world.clock.step = 1
    (late,) = world.batch(commit_call(hold, 30))
    world.clock.step = 0
    world.clock.advance(1)
    assert late.fact.late
    counted = world.counted()
    assert counted == (80, 0)
    world.open()
    assert counted == world.counted()


# -- what may not be lost when the store fails ---------------------------------------------------------


def test_nothing_is_acknowledged_that_was_not_durable(world):
    """A failing ledger answers every caller with `LedgerUnavailable`, and goes on doing so."""
    world.stores[0].fail = "disk full"
    assert [LedgerUnavailable] * 2 == [type(each) for each in world.batch(spend_call(30), spend_call(200))]
    world.stores[0].fail = None
    assert [LedgerUnavailable] == [type(each) for each in world.batch(spend_call(1))]
    assert len(world.facts()) == 2


def recovered(world, *works):
    """Let these works fail on a full disk, then give the disk room and recover."""
    world.stores[0].fail = "disk full"
    assert all(isinstance(each, LedgerUnavailable) for each in world.batch(*works))
    world.stores[0].fail = None
    world.guard.decider.ledger.failure.recoverable = True
    world.guard.decider.tick()


def over_the_limit(world, limit=100):
    """How much the ledger says was spent and held too much, in the window that ends now."""
    world.open()
    return max(0, sum(world.counted()) - limit)


def test_a_release_that_was_not_durable_frees_nothing(world):
    """After recovery the hold is still open, for the window as for the ledger."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, None))
    recovered(world, release_call(hold))
    (spent,) = world.batch(spend_call(80))
    assert over_the_limit(world) == 0
    assert not spent.outcome().allowed


def test_a_commit_that_was_not_durable_can_be_sent_again(world):
    """The caller repeats it after recovery, and it counts as it would have the first time."""
    for span in (None, 600 * UNIT):
        hold = new_hold_id()
        world.batch(reserve_call(40, hold, span))
        recovered(world, commit_call(hold, 30))
        (again,) = world.batch(commit_call(hold, 30))
        assert not isinstance(again, KikiError)
        assert (again.fact.charged, again.fact.late) == (30 * UNIT, False)
    assert world.counted() == (60, 0)
    world.open()
    assert world.counted() == (60, 0)


def test_a_reservation_that_was_not_durable_does_not_stay_for_ever(world):
    """Nobody knows its id, so after recovery it must not be held."""
    recovered(world, reserve_call(80, new_hold_id(), None))
    assert world.counted() == (0, 0)
    assert world.batch(spend_call(100))[0].outcome().allowed


def test_a_resume_that_was_not_durable_resumes_nothing(world):
    """After recovery the halt is what the ledger says."""
    world.guard.halt("*")
    recovered(world, switch("*", on=False))
    assert world.guard.halts() == ["*"]


def test_a_keyed_spend_that_was_not_durable_is_decided_anew(world):
    """Its repeat after recovery is taken once, in the window as in the ledger."""
    recovered(world, spend_call(60, key="k"))
    (again,) = world.batch(spend_call(60, key="k"))
    assert again.outcome().allowed
    assert world.counted() == (60, 0)


def test_what_is_durable_is_found_after_a_failed_answer(world):
    """An entry that became durable although its commit raised counts after recovery, and its key is known."""
    real = world.stores[0].commit

    def commit(entries, writes=()):
        real(entries, writes)
        error = LedgerUnavailable("the disk did not say")
        error.recoverable = True
        raise error

    world.stores[0].commit = commit
    assert isinstance(world.batch(spend_call(60, key="k"))[0], LedgerUnavailable)
    world.stores[0].commit = real
    world.guard.decider.tick()
    (again,) = world.batch(spend_call(60, key="k"))
    assert again.repeated
    assert world.counted() == (60, 0)


def test_a_recovery_that_fails_half_way_admits_nothing(world, monkeypatch):
    """As long as the window could not be told what is durable, nothing is decided; the next recovery may succeed."""
    hold = new_hold_id()
    world.batch(reserve_call(80, hold, None))
    world.stores[0].fail = "disk full"
    world.batch(release_call(hold))
    world.stores[0].fail = None
    world.guard.decider.ledger.failure.recoverable = True
    real = world.stores[0].entries
    with monkeypatch.context() as broken:
        # The chain can be recovered, the facts behind it cannot be read.
        broken.setattr(
            world.stores[0], "entries", lambda first=0, last=None: raising() if last is None else real(first, last)
        )
        broken.setattr(world.guard.decider.ledger, "_last_recorded_at", lambda: 0)
        with pytest.raises(Unavailable):
            world.guard.decider.tick()
    (spent,) = world.batch(spend_call(80))
    assert isinstance(spent, Unavailable) or not spent.outcome().allowed
    world.guard.decider.tick()
    assert world.counted() == (0, 80)
    assert world.batch(spend_call(20))[0].outcome().allowed


def raising():
    """An iteration that cannot begin."""
    raise LedgerUnavailable("cannot be read")
    yield


def test_after_a_recovery_the_ledger_names_the_policy_in_force(world):
    """A change of policy whose commit was durable and raised: decisions follow what the ledger says last."""
    real = world.stores[0].commit

    def commit(entries, writes=()):
        real(entries, writes)
        error = LedgerUnavailable("the disk did not say")
        error.recoverable = True
        raise error

    world.stores[0].commit = commit
    with pytest.raises(Unavailable):
        world.guard.use(Policy((Budget("other", Pattern("*"), (Limit(5 * UNIT, SPAN),)),)))
    world.stores[0].commit = real
    world.guard.decider.tick()
    last = [fact for fact in world.facts() if isinstance(fact, PolicyUsed)][-1]
    assert world.guard.policy == Policy.load(last.policy)


def test_a_policy_that_cannot_be_restored_changes_nothing(world, monkeypatch):
    """When the ledger cannot be read, `use` raises, and the old policy goes on with all that it had counted."""
    world.guard.spend(100)
    looser = Policy((Budget("all", Pattern("*"), (Limit(100 * UNIT, 2 * SPAN),)),))
    with monkeypatch.context() as broken:

        def entries(first=0, last=None):
            raise LedgerUnavailable("cannot be read")

        broken.setattr(world.stores[0], "entries", entries)
        with pytest.raises(Unavailable):
            world.guard.use(looser)
    (refused,) = world.batch(spend_call(100))
    assert isinstance(refused, KikiError) or not refused.outcome().allowed


def test_references_are_durable_before_any_entry_that_names_them(world):
    """Also when the amount was refused before the window was asked."""
    (decision,) = world.batch(check_call(1, {"customer": "alice"}, ltv="1"))
    assert not decision.outcome().allowed
    ((scope,),) = decision.fact.scopes
    world.open()
    (again,) = world.batch(check_call(1, {"customer": "alice"}, ltv="1"))
    assert [[scope]] == again.fact.scopes


def test_a_directory_that_fails_refuses_and_charges_nothing(world):
    """Without a durable reference there is no decision."""
    world.stores[1].fail = "disk full"
    assert isinstance(world.batch(spend_call(10, {"customer": "alice"}))[0], LedgerUnavailable)
    assert world.counted() == (0, 0)
    assert len(world.facts()) == 2


# -- the rest ------------------------------------------------------------------------------------------


def test_an_unreadable_call_leaves_a_row_and_takes_nothing(world):
    """What could not be read is refused with its reason, durable like any decision."""
    (decision,) = world.batch(invalid_call(Verb.SPEND))
    assert decision.outcome().reason == "invalid_input"
    assert world.facts()[-1] == decision.fact
    assert world.counted() == (0, 0)


def test_a_customer_is_a_reference_everywhere(world):
    """Neither the ledger nor the directory holds who it is, and the same person is the same reference."""
    world.batch(spend_call(1, {"customer": "alice@example.com"}), switch("customer:alice@example.com", on=True))
    stored = b"".join(data for store in world.stores for _, data in store.entries())
    for store in world.stores:
        stored += b"".join(key + value for space in store.spaces() for key, value in store.scan(space))
    assert b"alice" not in stored
    refused = world.batch(spend_call(1, {"customer": "alice@example.com"}), spend_call(1, {"customer": "bob"}))
    assert [each.outcome().reason for each in refused] == ["halted", None]
    world.open()
    assert world.batch(spend_call(1, {"customer": "alice@example.com"}))[0].outcome().reason == "halted"


def test_a_budget_of_one_customer_limits_that_customer():
    """A policy may name a person: the budget concerns that person, or the policy is refused; never nothing."""
    try:
        policy = Policy((Budget("vip", Pattern.parse("customer:alice"), (Limit(10 * UNIT, SPAN),)),))
        world = World(policy=policy)
    except KikiError:
        return
    assert world.batch(spend_call(10, {"customer": "alice"}))[0].outcome().allowed
    assert not world.batch(spend_call(1, {"customer": "alice"}))[0].outcome().allowed
    assert world.batch(spend_call(10, {"customer": "bob"}))[0].outcome().allowed


def test_at_the_key_cap_new_keys_are_refused_and_the_rest_goes_on(world):
    """Known keys are answered, keyless calls are decided, holds are settled."""
    world.open(keys_max=3)
    hold = new_hold_id()
    world.batch(spend_call(1, key="a"), reserve_call(10, hold, None, key="b"))
    refused = world.batch(spend_call(1, key="c"), reserve_call(1, new_hold_id(), None), record_call(1, key="d"))
    assert [each.code for each in refused] == ["capacity_reached"] * 3
    known, keyless, settled = world.batch(spend_call(1, key="a"), spend_call(1), commit_call(hold, 5))
    assert known.repeated
    assert keyless.outcome().allowed
    assert settled.fact.charged == 5 * UNIT
    assert world.counted() == (7, 0)


def test_expired_holds_are_written_down_by_the_tick(world):
    """Without any call, `tick` makes the ledger say what the window counts."""
    for seconds in (10, 20):
        world.batch(reserve_call(10, new_hold_id(), seconds * UNIT))
    before = len(world.facts())
    world.guard.decider.tick()
    assert len(world.facts()) == before
    world.clock.advance(30)
    commits = world.stores[0].commits
    world.guard.decider.tick()
    start = world.clock.now - 30 * UNIT
    assert [("expire", start + 10 * UNIT), ("expire", start + 20 * UNIT)] == [
        (fact.verb, fact.at) for fact in world.facts()[before:]
    ]
    assert world.stores[0].commits == commits + 1
    world.guard.decider.tick()
    assert len(world.facts()) == before + 2


def test_settled_holds_are_not_remembered_until_their_deadline(world):
    """A thousand reservations with far deadlines, each committed at once, leave nothing behind in memory."""
    for _ in range(1000):
        hold = new_hold_id()
        world.batch(reserve_call("0.01", hold, 300 * 24 * 3600 * UNIT))
        world.batch(commit_call(hold, "0.01"))
    assert len(world.guard.decider.books.kept._deadlines) < 500
    assert len(world.guard.decider.books.window._deadlines) < 500


def test_a_sum_past_what_a_fact_can_hold_poisons_nobody():
    """Records under a short window may add up past 64 bits under a longer one: calls beside it are still decided."""

    def policy(span):
        budgets = (("a", "campaign:a", SPAN), ("b", "campaign:b", span))
        return Policy(tuple(Budget(n, Pattern(s), (Limit(100 * UNIT, each),)) for n, s, each in budgets))

    world = World(policy=policy(SPAN))
    hold = new_hold_id()
    world.batch(reserve_call(60, hold, None, {"campaign": "a"}))
    for _ in range(2):
        world.batch(record_call("9223372036854.775807", {"campaign": "b"}))
        world.clock.advance(61)
    world.guard.use(policy(5 * SPAN))
    done, refused = world.batch(commit_call(hold, 60), spend_call(1, {"campaign": "b"}))
    assert done.fact.charged == 60 * UNIT
    assert not refused.outcome().allowed
