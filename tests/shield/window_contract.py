"""What every budget window must do, local or shared: one suite, run against each of them.

A concrete class provides the fixture `make_window(policy, **options)`; time is moved with `tick`, never waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki.clock import SECOND
from kiki.errors import CapacityReached, CommitExceedsHold, HoldUnknown
from kiki.shield.budget import SLOTS, Reason, Refusal
from kiki.shield.policy import Budget, Limit, Policy, single_budget
from kiki.shield.scope import Pattern, Scopes
from kiki.shield.window import Answer, Ask, Verb, Window

START = 1_800_000_000 * SECOND
_ids = count(1)

# Each example makes a window of its own, and each subclass runs the same function.
SHARED_FIXTURE = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors, HealthCheck.too_slow]


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def budget(name: str, pattern: str, *limits: tuple[int, float]) -> Budget:
    return Budget(name, Pattern.parse(pattern), tuple(Limit(micros, round(span * SECOND)) for micros, span in limits))


def policy(*budgets: Budget) -> Policy:
    return Policy(budgets)


def hold_id() -> str:
    return f"{next(_ids):032x}"


def ask_spend(amount: int, *scopes: str) -> Ask:
    return Ask(Verb.SPEND, [amount], (tuple(scopes),))


def one(window: Window, ask: Ask) -> Answer:
    (answer,) = window.take([ask])
    return answer


def spend(window: Window, amount: int, *scopes: str) -> Refusal | None:
    answer = one(window, ask_spend(amount, *scopes))
    assert answer.error is None
    return answer.refusals.get(0)


def check(window: Window, amount: int, *scopes: str) -> Refusal | None:
    return one(window, Ask(Verb.CHECK, [amount], (tuple(scopes),))).refusals.get(0)


def reserve(window: Window, amount: int, *scopes: str, seconds: float | None = None) -> Answer:
    span = None if seconds is None else round(seconds * SECOND)
    return one(window, Ask(Verb.RESERVE, [amount], (tuple(scopes),), hold=hold_id(), hold_span=span))


def commit(window: Window, hold: str, amount: int) -> Answer:
    return one(window, Ask(Verb.COMMIT, [amount], hold=hold))


def release(window: Window, hold: str) -> Answer:
    return one(window, Ask(Verb.RELEASE, [0], hold=hold))


def record(window: Window, amount: int, *scopes: str) -> Answer:
    return one(window, Ask(Verb.RECORD, [amount], (tuple(scopes),)))


def spent(window: Window, name: str = "default", scope: str = "*") -> tuple[int, int]:
    (status,) = window.status(budget=name, scope=scope)
    return status.spent, status.held


MakeWindow = Callable[..., Window]


class WindowContract:
    """The suite."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def tick(self, clock: FakeClock) -> Callable[[float], None]:
        def move(seconds: float) -> None:
            clock.now += round(seconds * SECOND)

        return move

    # -- the defects of the original, one by one -----------------------------------------------------

    def test_six_equal_spends_do_not_merge(self, make_window: MakeWindow):
        window = make_window(single_budget(500))
        assert [spend(window, 100) for _ in range(5)] == [None] * 5
        refused = spend(window, 100)
        assert refused is not None
        assert refused.reason is Reason.BUDGET_EXHAUSTED

    def test_a_check_considers_the_amount_and_takes_nothing(self, make_window: MakeWindow):
        window = make_window(single_budget(500))
        spend(window, 499)
        assert check(window, 1) is None
        assert check(window, 2) is not None
        assert check(window, 1) is None
        assert spent(window) == (499, 0)

    def test_what_equals_the_limit_fits_and_one_micro_more_does_not(self, make_window: MakeWindow):
        window = make_window(single_budget(500))
        refused = spend(window, 501)
        assert refused is not None
        assert (refused.reason, refused.retry_at, refused.remaining) == (Reason.ABOVE_LIMIT, None, 500)
        assert spend(window, 500) is None
        assert spend(window, 1) is not None

    # -- the probes that peers fail ------------------------------------------------------------------

    def test_filling_just_before_a_boundary_never_doubles_the_limit(self, make_window: MakeWindow, clock, tick):
        window, span, limit = make_window(single_budget(300, 3 * SECOND)), 3 * SECOND, 300
        tick(2.9)
        log: list[tuple[int, int]] = []
        for _ in range(40):
            answers = window.take([ask_spend(10)] * 30)
            log += [(answer.at, 10) for answer in answers if not answer.refusals]
            tick(0.1)
        assert _worst(log, span) <= limit
        assert sum(amount for _, amount in log) >= 2 * limit  # and it is not safe by refusing

    def test_a_first_request_that_is_too_large_is_not_charged(self, make_window: MakeWindow):
        window = make_window(single_budget(500))
        assert spend(window, 501) is not None
        assert spend(window, 500) is None

    def test_more_scopes_than_the_cap_are_refused_and_live_ones_go_on(self, make_window: MakeWindow, tick):
        window = make_window(policy(budget("each", "campaign:*", (100, 60))), scopes_max=3)
        for name in "abc":
            assert spend(window, 60, f"campaign:{name}") is None
        answer = one(window, ask_spend(60, "campaign:d"))
        assert isinstance(answer.error, CapacityReached)
        assert spend(window, 40, "campaign:a") is None
        assert spend(window, 1, "campaign:a") is not None
        tick(61)
        assert spend(window, 60, "campaign:d") is None

    # -- several budgets at once ---------------------------------------------------------------------

    def test_all_budgets_take_or_none_does(self, make_window: MakeWindow):
        window = make_window(
            policy(budget("all", "*", (1000, 60)), budget("meta", "platform:meta", (100, 60), (150, 600)))
        )
        assert spend(window, 100, "platform:meta") is None
        refused = spend(window, 60, "platform:meta")
        assert refused is not None
        assert (refused.budget, refused.scope) == ("meta", "platform:meta")
        assert spent(window, "all") == (100, 0)
        assert spend(window, 900, "platform:tiktok") is None
        assert spend(window, 1) is not None

    def test_each_value_of_a_kind_has_a_budget_of_its_own(self, make_window: MakeWindow):
        window = make_window(policy(budget("each", "campaign:*", (100, 60))))
        assert spend(window, 100, "campaign:a") is None
        assert spend(window, 100, "campaign:b", "platform:meta") is None
        assert spend(window, 1, "campaign:a") is not None
        assert spend(window, 10**12) is None  # no campaign, no budget

    def test_every_amount_of_a_call_is_decided_on_its_own_and_in_order(self, make_window: MakeWindow):
        window = make_window(policy(budget("all", "*", (100, 60)), budget("each", "campaign:*", (50, 60))))
        scopes: tuple[Scopes, ...] = (("campaign:a",), ("campaign:a",), ("campaign:b",), (), ())
        answer = one(window, Ask(Verb.SPEND, [40, 20, 50, 20, 10], scopes))
        assert {index: refusal.budget for index, refusal in answer.refusals.items()} == {1: "each", 3: "all"}
        assert spent(window, "all") == (100, 0)
        shared = one(window, Ask(Verb.CHECK, [1, 2], (("campaign:a",),)))
        assert sorted(shared.refusals) == [0, 1]

    def test_a_batch_sees_what_the_ones_before_took(self, make_window: MakeWindow):
        window = make_window(policy(budget("all", "*", (100, 60)), budget("each", "campaign:*", (60, 60))))
        asks = [ask_spend(50, f"campaign:{name}") for name in "aabbc"]
        assert [bool(answer.refusals) for answer in window.take(asks)] == [False, True, False, True, True]

    def test_an_idle_scope_that_is_charged_beside_a_new_one_is_not_forgotten(self, make_window: MakeWindow, tick):
        window = make_window(policy(budget("meta", "platform:meta", (100, 6)), budget("each", "campaign:*", (200, 6))))
        assert spend(window, 10, "platform:meta") is None
        tick(60)  # idle: its turn to be dropped comes when a new scope does
        assert spend(window, 100, "campaign:new", "platform:meta") is None
        assert spend(window, 1, "platform:meta") is not None
        tick(60)
        assert record(window, 100, "campaign:newer", "platform:meta").error is None
        assert spend(window, 1, "platform:meta") is not None

    # -- refusals ------------------------------------------------------------------------------------

    def test_a_refusal_names_the_binding_budget_and_the_exact_moment(self, make_window: MakeWindow, clock, tick):
        window = make_window(policy(budget("short", "*", (100, 10)), budget("long", "*", (150, 100))))
        for amount in (40, 30, 30):
            assert spend(window, amount) is None
            tick(1.234567)
        refused = spend(window, 60)
        assert refused is not None
        assert (refused.budget, refused.span, refused.limit, refused.remaining) == ("long", 100 * SECOND, 150, 50)
        assert refused.retry_at is not None
        assert refused.retry_at > clock.now
        clock.now = refused.retry_at - 1
        assert check(window, 60) is not None
        clock.now += 1
        assert check(window, 60) is None
        assert spend(window, 60) is None

    def test_what_never_fits_binds_before_what_fits_later(self, make_window: MakeWindow):
        window = make_window(policy(budget("late", "*", (100, 600)), budget("small", "*", (50, 1))))
        spend(window, 50)
        refused = spend(window, 60)
        assert refused is not None
        assert (refused.budget, refused.reason) == ("small", Reason.ABOVE_LIMIT)

    def test_the_moment_counts_deadlines_and_is_unknown_without(self, make_window: MakeWindow, clock, tick):
        window = make_window(single_budget(100, 10 * SECOND))
        open_ended = reserve(window, 50)
        reserve(window, 30, seconds=5)
        refused = spend(window, 50)
        assert refused is not None
        assert refused.retry_at is not None
        assert refused.retry_at >= clock.now + 15 * SECOND
        unknown = spend(window, 60)
        assert unknown is not None
        assert unknown.retry_at is None
        clock.now = refused.retry_at - 1
        assert spend(window, 50) is not None
        tick(0.000001)
        assert spend(window, 50) is None
        assert release(window, open_ended.hold).error is None

    # -- holds ---------------------------------------------------------------------------------------

    def test_a_hold_counts_in_full_whatever_the_window(self, make_window: MakeWindow, tick):
        window = make_window(single_budget(100, 10 * SECOND))
        answer = reserve(window, 80)
        assert answer.deadline is None
        tick(1000)
        assert spent(window) == (0, 80)
        assert spend(window, 21) is not None
        assert [(hold.id, hold.amount) for hold in window.holds()] == [(answer.hold, 80)]

    def test_a_commit_counts_at_its_moment_and_frees_the_rest(self, make_window: MakeWindow, clock, tick):
        window = make_window(single_budget(100, 10 * SECOND))
        held = reserve(window, 80)
        tick(1000)
        answer = commit(window, held.hold, 64)
        assert (answer.error, answer.charged, answer.reserved, answer.at) == (None, 64, 80, clock.now)
        assert spent(window) == (64, 0)
        assert spend(window, 36) is None
        tick(9.9)
        assert spend(window, 1) is not None
        assert isinstance(release(window, held.hold).error, HoldUnknown)

    def test_a_release_frees_all(self, make_window: MakeWindow):
        window = make_window(policy(budget("all", "*", (100, 60)), budget("each", "campaign:*", (100, 60))))
        held = reserve(window, 100, "campaign:a")
        answer = release(window, held.hold)
        assert (answer.charged, answer.reserved) == (0, 100)
        assert spend(window, 100, "campaign:a") is None
        assert list(window.holds()) == []

    def test_a_commit_above_the_hold_is_refused_and_the_hold_stays(self, make_window: MakeWindow):
        window = make_window(single_budget(100))
        held = reserve(window, 50)
        assert isinstance(commit(window, held.hold, 51).error, CommitExceedsHold)
        assert spent(window) == (0, 50)
        assert commit(window, held.hold, 0).error is None
        assert spent(window) == (0, 0)
        assert isinstance(commit(window, "0" * 32, 1).error, HoldUnknown)

    def test_a_hold_past_its_deadline_is_a_spend_of_that_moment(self, make_window: MakeWindow, clock, tick):
        window = make_window(single_budget(100, 10 * SECOND))
        held = reserve(window, 100, seconds=5)
        assert held.deadline == clock.now + 5 * SECOND
        tick(4.9)
        assert spent(window) == (0, 100)
        tick(3.1)
        assert list(window.holds()) == []
        assert spent(window) == (100, 0)
        assert isinstance(commit(window, held.hold, 10).error, HoldUnknown)
        tick(6.9)  # 14.9 s after it was made, 9.9 s after the deadline
        assert spend(window, 1) is not None
        tick(0.2)
        assert spend(window, 100) is None

    def test_a_refused_reservation_makes_no_hold(self, make_window: MakeWindow):
        window = make_window(single_budget(100))
        answer = reserve(window, 101)
        assert answer.refusals[0].reason is Reason.ABOVE_LIMIT
        assert answer.hold == ""
        assert list(window.holds()) == []

    # -- record --------------------------------------------------------------------------------------

    def test_a_record_counts_even_over_the_limit(self, make_window: MakeWindow, tick):
        window = make_window(single_budget(100, 10 * SECOND))
        spend(window, 50)
        assert record(window, 500).error is None
        assert spent(window) == (550, 0)
        refused = spend(window, 1)
        assert refused is not None
        assert refused.remaining == -450
        assert refused.retry_at is not None
        tick(10.1)
        assert spend(window, 100) is None

    # -- halts ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("pattern", "scope"),
        [("*", "*"), ("platform:meta", "platform:meta"), ("platform:*", "platform:meta")],
    )
    def test_a_halt_refuses_before_any_budget_and_can_be_taken_back(self, make_window: MakeWindow, pattern, scope):
        window = make_window(single_budget(100))
        held = reserve(window, 10, "platform:meta")
        window.halt(pattern, on=True)
        assert window.halts() == [pattern]
        halted = Refusal(Reason.HALTED, scope=scope)
        assert spend(window, 1000, "platform:meta") == halted
        assert check(window, 1, "platform:meta") == halted
        assert reserve(window, 1, "platform:meta").refusals == {0: halted}
        assert (spend(window, 1, "campaign:a") is None) == (pattern != "*")
        assert commit(window, held.hold, 5).error is None
        assert record(window, 5, "platform:meta").error is None
        window.halt(pattern, on=False)
        assert window.halts() == []
        assert spend(window, 1, "platform:meta") is None

    # -- status --------------------------------------------------------------------------------------

    def test_the_status_adds_up(self, make_window: MakeWindow, clock):
        window = make_window(
            policy(budget("all", "*", (1000, 60)), budget("each", "campaign:*", (100, 60), (300, 3600)))
        )
        spend(window, 60, "campaign:a")
        spend(window, 70, "campaign:b")
        reserve(window, 30, "campaign:b")
        shown = {(each.budget, each.scope, each.span // SECOND): each for each in window.status()}
        assert {key: (each.spent, each.held, each.remaining) for key, each in shown.items()} == {
            ("all", "*", 60): (130, 30, 840),
            ("each", "campaign:a", 60): (60, 0, 40),
            ("each", "campaign:a", 3600): (60, 0, 240),
            ("each", "campaign:b", 60): (70, 30, 0),
            ("each", "campaign:b", 3600): (70, 30, 200),
        }
        room_at = shown["all", "*", 60].room_at
        assert room_at is not None
        assert 60 * SECOND < room_at - clock.now <= 60 * SECOND + 60 * SECOND // SLOTS
        assert len(window.status(limit=2)) == 2
        assert {each.scope for each in window.status(scope="campaign:b")} == {"campaign:b"}
        assert [each.budget for each in window.status(budget="all")] == ["all"]

    def test_money_comes_back_at_most_one_slot_late(self, make_window: MakeWindow, clock):
        window = make_window(single_budget(100, 60 * SECOND))
        clock.now += 12_345
        spend(window, 100)
        made = clock.now
        clock.now = made + 60 * SECOND
        assert spend(window, 1) is not None
        clock.now = made + 60 * SECOND + 60 * SECOND // SLOTS
        assert spend(window, 100) is None

    # -- against a plain model -----------------------------------------------------------------------

    @settings(max_examples=30, suppress_health_check=SHARED_FIXTURE)
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from([0, 1, 5_000, 99_999, 100_000, 700_000, 3_000_000]),
                st.lists(st.integers(1, 80), min_size=1, max_size=6),
                st.sampled_from(["spend", "reserve", "commit", "release"]),
            ),
            min_size=5,
            max_size=40,
        )
    )
    def test_no_window_ever_exceeds_its_limit(self, make_window: MakeWindow, steps):
        clock, limit, span = FakeClock(), 100, 6 * SECOND
        window = make_window(single_budget(limit, span), clock=clock)
        log: list[tuple[int, int]] = []
        holds: dict[str, int] = {}
        for wait, amounts, verb in steps:
            clock.now += wait
            if verb == "spend":
                answer = one(window, Ask(Verb.SPEND, list(amounts)))
                for index, amount in enumerate(amounts):
                    fits_exactly = _in_window(log, clock.now, span) + sum(holds.values()) + amount <= limit
                    admitted = index not in answer.refusals
                    assert fits_exactly or not admitted
                    # One slot earlier an exact log would have to be as full, or it was refused for nothing.
                    slack = -(-span // SLOTS)
                    crowded = _in_window(log, clock.now, span + slack) + sum(holds.values()) + amount > limit
                    assert admitted or crowded
                    if admitted:
                        log.append((clock.now, amount))
            elif verb == "reserve":
                answer = reserve(window, amounts[0])
                if not answer.refusals:
                    holds[answer.hold] = amounts[0]
            elif holds:
                hold, amount = holds.popitem()
                charged = min(amount, amounts[0]) if verb == "commit" else 0
                ended = commit(window, hold, charged) if verb == "commit" else release(window, hold)
                assert ended.error is None
                log.append((clock.now, charged))
            assert _worst(log, span) <= limit
            assert _in_window(log, clock.now, span) + sum(holds.values()) <= limit


def _in_window(log: list[tuple[int, int]], now: int, span: int) -> int:
    return sum(amount for at, amount in log if now - span < at <= now)


def _worst(log: list[tuple[int, int]], span: int) -> int:
    return max((_in_window(log, at, span) for at, _ in log), default=0)


def comparable(answer: Answer) -> dict[str, Any]:
    """What two windows must agree on, whatever they are."""
    return {
        "at": answer.at,
        "refusals": answer.refusals,
        "charged": answer.charged,
        "reserved": answer.reserved,
        "deadline": answer.deadline,
        "hold": answer.hold,
        "error": answer.error and (type(answer.error), str(answer.error)),
    }
