"""The window of one process: all budgets or none, holds in order of time, live scopes never forgotten."""

from __future__ import annotations

import tracemalloc

import pytest

from kiki.errors import CapacityReached, CommitExceedsHold, Conflict, HoldUnknown
from kiki.money import MICROS_MAX
from kiki.shield.budget import Reason
from kiki.shield.local_window import LocalWindow
from kiki.shield.policy import Budget, Limit, Policy
from kiki.shield.scope import Pattern
from kiki.shield.window import Ask, Verb
from tests.ledger.doubles import SECOND, FakeClock

SPAN = 60 * SECOND
LATER = 61  # seconds after which a spend has certainly left its window


def policy(*budgets):
    """A policy of (name, pattern, limit) or (name, pattern, limit, span)."""
    return Policy(
        tuple(
            Budget(name, Pattern.parse(text), (Limit(limit, *(span or [SPAN])),))
            for name, text, limit, *span in budgets
        )
    )


class Local:
    """A window, its clock, and short words for what it is asked."""

    def __init__(self, *budgets, **options):
        self.clock = FakeClock()
        self.window = LocalWindow(policy(*budgets), self.clock, **options)
        self.made = 0

    def ask(self, verb, amounts, *scopes, **more):
        (answer,) = self.window.take([Ask(verb, amounts, scopes or ((),), **more)])
        return answer

    def spend(self, amount, *scopes):
        """True when it was taken, else the refusal."""
        answer = self.ask(Verb.SPEND, [amount], tuple(scopes))
        if answer.error is not None:
            raise answer.error
        return answer.refusals.get(0, True)

    def reserve(self, amount, *scopes, seconds=None):
        self.made += 1
        hold = f"{self.made:032x}"
        span = None if seconds is None else round(seconds * SECOND)
        answer = self.ask(Verb.RESERVE, [amount], tuple(scopes), hold=hold, hold_span=span)
        if answer.error is not None:
            raise answer.error
        return hold if not answer.refusals else answer.refusals[0]

    def commit(self, hold, amount):
        answer = self.ask(Verb.COMMIT, [amount], hold=hold)
        if answer.error is not None:
            raise answer.error
        return answer

    def state(self):
        """(budget, scope) → (spent, held) of all that counts anything."""
        return {(s.budget, s.scope): (s.spent, s.held) for s in self.window.status() if s.spent or s.held}


TWO = (("all", "*", 100), ("each", "campaign:*", 60))


def test_a_spend_is_taken_from_every_budget_that_concerns_it():
    """All spends count on `*`, and each campaign on its own meter."""
    local = Local(*TWO, ("meta", "platform:meta", 1000))
    assert local.spend(10) is True
    assert local.spend(20, "campaign:a", "platform:meta") is True
    assert local.spend(30, "campaign:b", "platform:tiktok") is True
    assert local.state() == {
        ("all", "*"): (60, 0),
        ("each", "campaign:a"): (20, 0),
        ("each", "campaign:b"): (30, 0),
        ("meta", "platform:meta"): (20, 0),
    }


@pytest.mark.parametrize(
    ("before", "amount", "scopes", "budget", "scope", "remaining"),
    [
        ([(60, "campaign:a")], 1, ["campaign:a"], "each", "campaign:a", 0),
        ([(60, "campaign:a"), (39, "campaign:b")], 2, ["campaign:b"], "all", "*", 1),
        ([(60, "campaign:a")], 61, ["campaign:b"], "each", "campaign:b", 60),
        ([], 101, [], "all", "*", 100),
    ],
)
def test_a_refusal_charges_nothing_and_names_what_bound_it(before, amount, scopes, budget, scope, remaining):
    """When one budget refuses no other is charged, and the answer names that one."""
    local = Local(*TWO)
    for earlier, where in before:
        assert local.spend(earlier, where) is True
    state = local.state()
    refusal = local.spend(amount, *scopes)
    assert (budget, scope, remaining) == (refusal.budget, refusal.scope, refusal.remaining)
    assert state == local.state()


def test_the_binding_budget_is_the_last_to_have_room():
    """Of two budgets that refuse, the one that keeps the spend out longer is named, with its moment."""
    local = Local(("minute", "*", 10), ("hour", "*", 10, 3600 * SECOND))
    local.spend(10)
    refusal = local.spend(5)
    assert (refusal.budget, refusal.span) == ("hour", 3600 * SECOND)
    local.clock.now = refusal.retry_at - 1
    assert local.spend(5) is not True
    local.clock.now = refusal.retry_at
    assert local.spend(5) is True


def test_each_amount_of_a_batch_is_decided_on_its_own():
    """A refused amount does not keep smaller ones after it out."""
    local = Local(*TWO)
    answer = local.ask(Verb.SPEND, [60, 60, 40, 1])
    assert sorted(answer.refusals) == [1, 3]
    assert local.state() == {("all", "*"): (100, 0)}


def test_asks_of_one_take_see_each_other():
    """Asks are decided in order at one moment, each against what the earlier ones left."""
    local = Local(*TWO)
    asks = [Ask(Verb.SPEND, [60]), Ask(Verb.SPEND, [60]), Ask(Verb.CHECK, [41]), Ask(Verb.CHECK, [40])]
    answers = local.window.take(asks)
    assert [{}, {0}, {0}, {}] == [set(answer.refusals) or {} for answer in answers]
    assert len({answer.at for answer in answers}) == 1


def test_a_check_takes_nothing_and_makes_no_scope():
    """Checking is free, whatever the answer."""
    local = Local(*TWO)
    for amount in (1, 60, 61, 1000):
        local.ask(Verb.CHECK, [amount], ("campaign:a",))
    assert local.state() == {}
    assert local.window.scope_count() == 0


# -- scopes come and go --------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [Verb.SPEND, Verb.RESERVE, Verb.RECORD])
def test_an_idle_scope_is_charged_together_with_a_new_one(verb):
    """A scope whose window has passed still counts what is charged on it beside a scope never seen before."""
    local = Local(("campaign", "campaign:*", 100), ("platform", "platform:*", 1000))
    assert local.spend(1, "campaign:a") is True
    local.clock.advance(LATER)
    answer = local.ask(verb, [100], ("campaign:a", "platform:new"), hold="a" * 32)
    assert answer.refusals == {}
    assert {each.budget: each.spent + each.held for each in local.window.status() if each.spent or each.held} == {
        "campaign": 100,
        "platform": 100,
    }
    assert local.spend(1, "campaign:a") is not True


def test_at_the_cap_an_idle_scope_of_the_same_spend_is_not_forgotten():
    """Making room for a new scope never takes the meter of a scope that is being charged."""
    local = Local(("campaign", "campaign:*", 100), ("platform", "platform:*", 1000), scopes_max=2)
    assert local.spend(1, "campaign:a") is True
    assert local.spend(1, "campaign:b") is True
    local.clock.advance(LATER)
    assert local.spend(100, "campaign:a", "platform:new") is True
    assert local.spend(1, "campaign:a") is not True


def test_live_scopes_are_never_forgotten_and_new_ones_are_refused_at_the_cap():
    """At the cap known scopes go on, a new one raises and charges nothing anywhere."""
    local = Local(("all", "*", 10_000), ("each", "campaign:*", 60), scopes_max=5)
    for number in range(5):
        assert local.spend(50, f"campaign:{number}") is True
    state = local.state()
    for number in range(5, 20):
        with pytest.raises(CapacityReached, match="KIKI_SCOPES_MAX"):
            local.spend(1, f"campaign:{number}")
        with pytest.raises(CapacityReached):
            local.reserve(1, f"campaign:{number}")
    assert state == local.state()
    assert [local.spend(10, f"campaign:{number}") for number in range(5)] == [True] * 5
    assert local.spend(1, "campaign:0") is not True


def test_a_batch_that_meets_the_cap_half_way_is_answered_as_it_was_charged():
    """Of a batch over many scopes, what was charged is admitted and what was not is not: never an error for all."""
    local = Local(("all", "*", 10_000), ("each", "campaign:*", 60), scopes_max=2)
    answer = local.ask(Verb.SPEND, [10, 10, 10], ("campaign:a",), ("campaign:b",), ("campaign:c",))
    charged = sum(spent for (budget, _), (spent, _) in local.state().items() if budget == "all")
    admitted = 0 if answer.error is not None else 10 * (3 - len(answer.refusals))
    assert admitted == charged


def test_room_for_scopes_comes_back_when_the_old_are_idle():
    """After their windows have passed, as many new scopes find room, and memory does not grow."""
    local = Local(("each", "campaign:*", 60), scopes_max=50)
    for round_ in range(6):
        for number in range(50):
            assert local.spend(10, f"campaign:{round_}/{number}") is True
        assert local.window.scope_count() <= 50
        local.clock.advance(LATER)
    assert len(local.window._order) <= 50


def test_idle_scopes_leave_before_the_cap_is_near():
    """New scopes push idle ones out, so a stream of scopes keeps about as many as are live."""
    local = Local(("each", "campaign:*", 60), scopes_max=1_000_000)
    for number in range(5_000):
        local.clock.advance(1)
        assert local.spend(10, f"campaign:{number}") is True
    assert local.window.scope_count() <= 200


def test_a_scope_with_an_open_hold_is_live():
    """Held money keeps its scope however long it takes."""
    local = Local(("each", "campaign:*", 60), scopes_max=1)
    hold = local.reserve(50, "campaign:a")
    local.clock.advance(3600)
    with pytest.raises(CapacityReached):
        local.spend(1, "campaign:b")
    assert local.spend(11, "campaign:a") is not True
    local.commit(hold, 0)
    local.clock.advance(1)
    assert local.spend(1, "campaign:b") is True


def test_a_hundred_thousand_scopes_take_little_memory():
    """A live scope with one spend costs less than a thousand bytes, so a million are under 1 GB."""
    local = Local(("all", "*", 10**15), ("each", "customer:*", 60))
    admit, now = local.window.admit, local.clock()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100_000):
            assert admit(1, (f"customer:{number:032x}",), now) is None
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert local.window.scope_count() == 100_000
    assert used / 100_000 < 1_000


# -- holds ---------------------------------------------------------------------------------------------


def test_a_hold_counts_in_full_until_it_is_resolved():
    """Reserved money is gone for others, whatever the window; a commit frees the rest at once."""
    local = Local(("all", "*", 100))
    hold = local.reserve(80)
    local.clock.advance(3600)
    assert local.spend(21) is not True
    answer = local.commit(hold, 30)
    assert (answer.charged, answer.reserved, answer.late) == (30, 80, False)
    assert local.state() == {("all", "*"): (30, 0)}
    assert local.spend(70) is True


def test_a_commit_counts_from_its_own_moment():
    """The spend of a commit stays in the window for a whole span after the commit, not after the reservation."""
    local = Local(("all", "*", 100))
    hold = local.reserve(80)
    local.clock.advance(59)
    local.commit(hold, 80)
    local.clock.advance(59)
    assert local.state() == {("all", "*"): (80, 0)}
    local.clock.advance(2)
    assert local.state() == {}


def test_holds_expire_in_order_of_their_deadlines():
    """Whoever looks first, each hold became a spend at its own deadline, and leaves a window after that."""
    local = Local(("all", "*", 100))
    late = local.reserve(20, seconds=50)
    soon = local.reserve(30, seconds=10)
    never = local.reserve(5)
    assert {late, soon, never} == {hold.id for hold in local.window.holds()}
    local.clock.advance(10)
    assert {late, never} == {hold.id for hold in local.window.holds()}
    local.clock.advance(90)  # both have ended, nobody looked
    assert local.state() == {("all", "*"): (20, 5)}
    local.clock.advance(11)
    assert local.state() == {("all", "*"): (0, 5)}
    assert [never] == [hold.id for hold in local.window.holds()]


def test_a_settled_hold_does_not_expire():
    """A hold that was committed or released is not charged again at its deadline."""
    local = Local(("all", "*", 100))
    local.commit(local.reserve(50, seconds=10), 20)
    local.ask(Verb.RELEASE, [0], hold=local.reserve(50, seconds=10))
    local.clock.advance(20)
    assert local.state() == {("all", "*"): (20, 0)}


def test_settling_what_is_not_open_is_an_error_and_changes_nothing():
    """An unknown hold, and one that was settled already, raise `HoldUnknown`; too much raises and keeps it open."""
    local = Local(("all", "*", 100))
    with pytest.raises(HoldUnknown):
        local.commit("f" * 32, 1)
    hold = local.reserve(50)
    with pytest.raises(CommitExceedsHold, match="more than the"):
        local.commit(hold, 51)
    assert local.state() == {("all", "*"): (0, 50)}
    local.commit(hold, 50)
    with pytest.raises(HoldUnknown):
        local.commit(hold, 50)
    assert local.state() == {("all", "*"): (50, 0)}


def test_a_refused_reservation_holds_nothing():
    """A reservation that does not fit leaves no trace."""
    local = Local(*TWO)
    assert local.reserve(61, "campaign:a").budget == "each"
    assert list(local.window.holds()) == []
    assert local.state() == {}


def test_the_moment_when_it_fits_knows_of_deadlines():
    """A refusal behind a hold with a deadline names the moment its spend leaves; one without a deadline, none."""
    local = Local(("all", "*", 100))
    local.reserve(80, seconds=30)
    refusal = local.spend(50)
    local.clock.now = refusal.retry_at - 1
    assert local.spend(50) is not True
    local.clock.now = refusal.retry_at
    assert local.spend(50) is True
    local = Local(("all", "*", 100))
    local.reserve(80)
    assert local.spend(50).retry_at is None


# -- records and halts ---------------------------------------------------------------------------------


def test_a_record_counts_even_over_the_limit():
    """What was spent elsewhere is counted in full, and keeps others out until it has left."""
    local = Local(*TWO)
    answer = local.ask(Verb.RECORD, [250], ("campaign:a",))
    assert answer.error is None
    assert local.state() == {("all", "*"): (250, 0), ("each", "campaign:a"): (250, 0)}
    assert local.spend(1).remaining == -150
    local.clock.advance(LATER)
    assert local.spend(100) is True


def test_a_record_beyond_what_can_be_counted_is_refused_and_charges_nothing():
    """Sums stay within 64 bits on every meter."""
    local = Local(*TWO)
    assert local.ask(Verb.RECORD, [MICROS_MAX]).error is None
    state = local.state()
    for amount in (1, MICROS_MAX):
        assert isinstance(local.ask(Verb.RECORD, [amount], ("campaign:a",)).error, Conflict)
    assert state == local.state()


@pytest.mark.parametrize(
    ("pattern", "refused", "admitted"),
    [
        ("*", [(), ("campaign:a",)], []),
        ("campaign:a", [("campaign:a",), ("campaign:a", "platform:meta")], [(), ("campaign:b",)]),
        ("campaign:*", [("campaign:a",), ("campaign:b",)], [(), ("platform:meta",)]),
    ],
)
def test_a_halt_refuses_what_its_pattern_concerns(pattern, refused, admitted):
    """The kill switch stops spends, reservations and checks of its scopes, and nothing else, until it is off."""
    local = Local(*TWO)
    local.window.halt(pattern, on=True)
    assert [pattern] == local.window.halts()
    for scopes in refused:
        assert local.spend(1, *scopes).reason is Reason.HALTED
        assert local.reserve(1, *scopes).reason is Reason.HALTED
        assert local.ask(Verb.CHECK, [1], scopes).refusals[0].reason is Reason.HALTED
    for scopes in admitted:
        assert local.spend(1, *scopes) is True
    local.window.halt(pattern, on=False)
    assert local.window.halts() == []
    for scopes in refused:
        assert local.spend(1, *scopes) is True


def test_a_halt_lets_holds_end_and_records_pass():
    """Halting stops what is new; what was reserved is settled, and what was spent is written down."""
    local = Local(*TWO)
    hold = local.reserve(10)
    local.window.halt("*", on=True)
    assert local.commit(hold, 5).charged == 5
    assert local.ask(Verb.RECORD, [5]).error is None
    assert local.state() == {("all", "*"): (10, 0)}


def test_status_can_be_narrowed():
    """By budget, by scope, and to a number of rows."""
    local = Local(*TWO)
    for name in "abc":
        local.spend(10, f"campaign:{name}")
    assert len(local.window.status()) == 4
    assert [each.budget for each in local.window.status(budget="all")] == ["all"]
    assert [each.spent for each in local.window.status(scope="campaign:b")] == [10]
    assert len(local.window.status(limit=2)) == 2
    (status,) = local.window.status(budget="all")
    assert (status.spent, status.held, status.remaining) == (30, 0, 70)
    assert local.window.status(budget="nothing") == []
