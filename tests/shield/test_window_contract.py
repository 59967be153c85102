"""The window contract, for each window, and the two side by side."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.clock import SECOND
from kiki.errors import HoldUnknown
from kiki.shield.local_window import LocalWindow
from kiki.shield.redis_window import RedisWindow
from kiki.shield.window import Ask, Verb
from tests.shield.test_redis_window import At
from tests.shield.window_contract import (
    SHARED_FIXTURE,
    FakeClock,
    MakeWindow,
    WindowContract,
    budget,
    comparable,
    policy,
)

_prefixes = count(1)


@pytest.fixture
def redis_windows(redis):
    """Makes Redis windows on fresh state, each with its own keys."""
    made: list[RedisWindow] = []

    def make(rules, clock, **options) -> RedisWindow:
        options.setdefault("prefix", f"contract{next(_prefixes)}")
        window = RedisWindow.connect(
            rules, At.of(redis), chain="test", clock=clock, local_clock=clock, timeout=5.0, **options
        )
        made.append(window)
        return window

    yield make
    for window in made:
        window.close()


class TestLocalWindow(WindowContract):
    @pytest.fixture
    def make_window(self, clock: FakeClock) -> MakeWindow:
        def make(rules, clock: FakeClock = clock, **options):
            return LocalWindow(rules, clock, **options)

        return make


class TestRedisWindow(WindowContract):
    @pytest.fixture
    def make_window(self, clock: FakeClock, redis_windows) -> MakeWindow:
        def make(rules, clock: FakeClock = clock, **options):
            return redis_windows(rules, clock, **options)

        return make


_RULES = policy(
    budget("all", "*", (300, 6), (500, 60)),
    budget("meta", "platform:meta", (200, 6)),
    budget("campaigns", "campaign:*", (120, 3), (200, 30)),
)
_SCOPES = st.sampled_from(
    [(), ("platform:meta",), ("campaign:a",), ("campaign:a", "platform:meta"), ("campaign:b", "platform:meta")]
)
_ASKS = st.lists(
    st.tuples(
        st.sampled_from([*Verb, Verb.SPEND, Verb.SPEND, Verb.RESERVE]),
        st.lists(st.integers(1, 150), min_size=1, max_size=3),
        st.lists(_SCOPES, min_size=3, max_size=3),
        st.sampled_from([None, SECOND // 2, 5 * SECOND]),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=6,
)
_STEPS = st.lists(
    st.tuples(st.sampled_from([0, 1, 4_999, 50_000, 777_777, 3_000_001, 61 * SECOND]), _ASKS), min_size=3, max_size=25
)


@settings(max_examples=60, suppress_health_check=SHARED_FIXTURE)
@given(steps=_STEPS)
def test_both_windows_decide_alike(redis_windows, steps):
    """Every verb, in batches, over overlapping budgets: the same answers, refusals and moments to the micro."""
    clock = FakeClock()
    local, shared = LocalWindow(_RULES, clock), redis_windows(_RULES, clock)
    holds: list[str] = []
    number = 0
    for wait, asks in steps:
        clock.now += wait
        batch = []
        for verb, amounts, scopes, hold_span, pick in asks:
            number += 1
            if verb in (Verb.SPEND, Verb.CHECK):
                each = tuple(scopes[: len(amounts)]) if pick % 2 else (scopes[0],)
                batch.append(Ask(verb, amounts, each))
            elif verb is Verb.RESERVE:
                batch.append(Ask(verb, amounts[:1], (scopes[0],), hold=f"{number:032x}", hold_span=hold_span))
                holds.append(f"{number:032x}")
            elif verb is Verb.RECORD:
                batch.append(Ask(verb, amounts[:1], (scopes[0],)))
            elif holds:
                amount = amounts[0] if verb is Verb.COMMIT else 0
                batch.append(Ask(verb, [amount], hold=holds[-1 - pick % len(holds)]))
        expected, answered = local.take(batch), shared.take(batch)
        for answer, reference in zip(answered, expected, strict=True):
            if answer.repeated:
                # Only a shared window remembers how it settled a hold: its answer may have been lost on the way.
                assert isinstance(reference.error, HoldUnknown)
            else:
                assert comparable(answer) == comparable(reference)
        assert list(shared.holds()) == list(local.holds())
    counted = {(each.budget, each.scope, each.span): each for each in shared.status() if each.spent or each.held}
    assert counted == {(each.budget, each.scope, each.span): each for each in local.status() if each.spent or each.held}
