from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from kiki.engage.confidence_sequence import always_p, reach, tuned
from kiki.engage.effect import balance_p, effect
from kiki.engage.moments import Moments
from kiki.errors import InvalidInput


def spends(chance: np.random.Generator, persons: int, rate: float = 0.2, past: np.ndarray | None = None) -> np.ndarray:
    buys = chance.random(persons) < (rate if past is None else np.minimum(rate * past, 1))
    return np.where(buys, np.exp(chance.normal(3, 0.7, persons)), 0.0)


numbers = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30)


@given(numbers, st.data())
def test_sums_are_all_that_is_needed(outcome: list[float], data: st.DataObject):
    before = data.draw(st.lists(st.floats(-1e3, 1e3), min_size=len(outcome), max_size=len(outcome)))
    at = data.draw(st.integers(0, len(outcome)))
    parts = Moments.of(outcome[:at], before[:at]).plus(Moments.of(outcome[at:], before[at:]))
    adjusted = np.array(outcome) - 0.7 * (np.array(before) - 3.0)
    assert parts.mean == pytest.approx(np.mean(outcome), abs=1e-3)
    assert parts.variance == pytest.approx(np.var(outcome, ddof=1), rel=1e-6, abs=1e-3)
    assert parts.adjusted(0.7, 3.0).mean == pytest.approx(adjusted.mean(), abs=1e-3)
    assert parts.adjusted(0.7, 3.0).variance == pytest.approx(adjusted.var(ddof=1), rel=1e-6, abs=1e-3)


def test_the_effect_is_the_difference_of_the_means_with_an_interval_around_it():
    chance = np.random.default_rng(1)
    treated, held = spends(chance, 9000) + 1.0, spends(chance, 1000)
    found = effect(Moments.of(treated), Moments.of(held), held_out_share=0.1)
    assert found.value == pytest.approx(treated.mean() - held.mean(), rel=0.05)
    assert found.low < 1.0 < found.high
    assert found.total == pytest.approx(found.value * 9000)
    assert found.fixed is not None
    low, high, p = found.fixed
    other = ttest_ind(treated, held, equal_var=False)
    assert (low, high) == pytest.approx(tuple(other.confidence_interval(0.95)), rel=1e-6)
    assert p == pytest.approx(other.pvalue, rel=1e-6)
    assert found.high - found.low > high - low


def test_the_scores_have_the_mean_and_spread_of_a_plain_computation():
    chance = np.random.default_rng(2)
    treated, held, share = spends(chance, 700, 0.5), spends(chance, 300, 0.5), 0.7
    middle = (1 - share) * treated.mean() + share * held.mean()
    scores = np.concatenate([(treated - middle) / share, -(held - middle) / (1 - share)])
    found = effect(Moments.of(treated), Moments.of(held), held_out_share=0.3, planned=1000)
    assert found.value == pytest.approx(scores.mean())
    assert found.high - found.value == pytest.approx(reach(float(scores.std()), 1000, tuned(1000, 0.05), 0.05))


def test_what_was_spent_before_is_taken_out_where_it_helps_and_its_gain_is_reported():
    chance = np.random.default_rng(3)
    past = chance.gamma(0.5, 2.0, 20_000)
    steady = past * 10 + chance.normal(0, 2, 20_000)
    treated = np.arange(20_000) % 2 == 0
    sides = [Moments.of(steady[who] + who[0], past[who]) for who in (treated, ~treated)]
    plain = effect(sides[0]._replace(before_squares=0.0), sides[1]._replace(before_squares=0.0), held_out_share=0.5)
    found = effect(*sides, held_out_share=0.5)
    assert found.variance_kept < 0.1
    assert found.high - found.low < (plain.high - plain.low) / 2
    useless = [Moments.of(steady[who], chance.normal(size=int(who.sum()))) for who in (treated, ~treated)]
    assert effect(*useless, held_out_share=0.5).variance_kept == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sides", [(0, 0), (99, 5000), (5000, 99)])
def test_with_few_people_nothing_is_claimed(sides: tuple[int, int]):
    found = effect(*(Moments.of([1.0] * count) for count in sides), held_out_share=0.5)
    assert (found.value, found.is_known, found.is_shown, found.p) == (None, False, False, 1.0)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_with_few_buyers_nothing_is_claimed():
    side = Moments.of([10.0] * 99 + [0.0] * 9901)
    assert not effect(side, side, held_out_share=0.5).is_known


def test_looking_every_day_finds_nothing_where_nothing_is():
    """Few runs and looks here; bench/engage_peeking.py makes thousands."""
    chance = np.random.default_rng(4)
    wrong = naive = 0
    for _ in range(100):
        held = chance.random((20, 400)) < 0.3
        money = spends(chance, 8000).reshape(20, 400)
        sides, always, daily = [Moments(), Moments()], False, False
        for day in range(20):
            sides = [
                side.plus(Moments.of(money[day][who])) for side, who in zip(sides, (~held[day], held[day]), strict=True)
            ]
            found = effect(*sides, held_out_share=0.3, planned=8000, fixed=False)
            if found.is_known:
                always |= not found.low <= 0 <= found.high
                error = sum(side.variance / side.persons for side in sides) ** 0.5
                daily |= abs(sides[0].mean - sides[1].mean) > 1.96 * error
        wrong += always
        naive += daily
    assert wrong <= 9
    assert naive > 12


@given(st.integers(1, 10**6), st.floats(-5, 5), st.floats(0.1, 10), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_p_value_and_the_interval_say_the_same(persons: int, mean: float, deviation: float, alpha: float):
    squared = tuned(1000, 0.05)
    outside = abs(mean) > reach(deviation, persons, squared, alpha)
    p = always_p(mean, deviation, persons, squared)
    assert outside == (p < alpha) or p == pytest.approx(alpha)


def test_the_interval_is_narrowest_where_it_was_planned():
    at = {planned: reach(1.0, 5000, tuned(planned, 0.05), 0.05) for planned in (50, 500, 5000, 50_000, 500_000)}
    assert min(at, key=at.__getitem__) == 5000


def test_sides_that_were_not_drawn_as_said_raise_the_alarm_and_show_nothing():
    chance = np.random.default_rng(5)
    treated, held = Moments.of(spends(chance, 9000) + 3), Moments.of(spends(chance, 1300))
    found = effect(treated, held, held_out_share=0.1)
    assert not found.is_balanced
    assert not found.is_shown
    assert effect(treated, held, held_out_share=0.1, assigned=(90_000, 10_000)).is_balanced


def test_a_balanced_draw_that_is_looked_at_every_day_raises_no_alarm():
    chance = np.random.default_rng(6)
    counts = chance.multinomial(200, [0.9, 0.1], (300, 50)).cumsum(axis=1)
    lowest = [min(balance_p(day, (0.9, 0.1)) for day in run) for run in counts]
    assert np.mean(np.array(lowest) < 0.05) <= 0.06


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_without_a_control_group_nothing_can_be_shown(share: float):
    with pytest.raises(InvalidInput, match="control group"):
        effect(Moments(), Moments(), held_out_share=share)
