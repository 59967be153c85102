from __future__ import annotations

import numpy as np
import pytest

from kiki.engage.power import detectable, money_deviation, power, rate_deviation
from kiki.errors import InvalidInput


def test_the_fixed_number_is_the_textbooks():
    """5 % against 6.5 %, half each, 80 %: z 1.96 and 0.8416, twice the variance of one person."""
    found = power(0.015, rate_deviation(0.05), held_out_share=0.5)
    assert found.fixed == pytest.approx(4 * (1.95996 + 0.84162) ** 2 * 0.05 * 0.95 / 0.015**2, rel=0.001)
    assert found.always > found.fixed


def test_so_many_persons_show_the_effect_as_often_as_was_asked():
    """Only the last look counts here, so that real power lies above."""
    from kiki.engage.effect import effect
    from kiki.engage.moments import Moments

    need = power(1.0, 5.0, held_out_share=0.3, power=0.8)
    chance = np.random.default_rng(1)
    shown = 0
    for _ in range(200):
        held = chance.random(need.always) < 0.3
        outcome = chance.normal(0, 5, need.always) + ~held
        found = effect(
            Moments.of(outcome[~held]), Moments.of(outcome[held]), held_out_share=0.3, planned=need.always, fixed=False
        )
        shown += found.low > 0
    assert 0.70 <= shown / 200 <= 0.9


def test_need_and_reach_are_one_rule_read_in_two_directions():
    need = power(2.0, 30.0, held_out_share=0.1)
    assert detectable(need.always, 30.0, held_out_share=0.1) == pytest.approx(2.0, rel=0.001)
    assert need.held_out == -(-need.always // 10)


def test_a_small_holdout_costs_people_and_a_known_past_saves_them():
    half = power(1.0, 10.0, held_out_share=0.5)
    assert power(1.0, 10.0, held_out_share=0.05).always > 5 * half.always
    assert power(1.0, 10.0, held_out_share=0.5, kept=0.5).always == pytest.approx(half.always / 2, rel=0.01)


def test_days_follow_from_how_many_come():
    found = power(1.0, 10.0, held_out_share=0.5, a_day=100)
    assert found.days == -(-found.always // 100)
    assert power(1.0, 10.0, held_out_share=0.5).days is None


def test_the_spread_of_money_is_mostly_that_most_buy_nothing():
    chance = np.random.default_rng(1)
    spend = np.where(chance.random(400_000) < 0.05, chance.normal(40, 10, 400_000), 0)
    assert money_deviation(0.05, 40, 10) == pytest.approx(spend.std(), rel=0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        {"difference": 0.0},
        {"difference": float("nan")},
        {"deviation": 0.0},
        {"held_out_share": 0.0},
        {"alpha": 1.0},
        {"power": 0.0},
        {"kept": 0.0},
        {"a_day": 0.0},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]):
    given = {"difference": 1.0, "deviation": 1.0, "held_out_share": 0.5} | wrong
    with pytest.raises(InvalidInput):
        power(**given)


@pytest.mark.parametrize("difference", [30.0, 60.0, 1e6])
def test_a_large_effect_is_shown_by_a_few(difference):
    need = power(difference, money_deviation(0.05, 60, 40), held_out_share=0.1)
    assert 2 <= need.fixed <= need.always < 100
    assert 1 <= need.held_out < need.always


@pytest.mark.parametrize("size", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("wanted", [0.06, 0.5, 0.8, 0.999])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_the_fixed_number_is_that_of_statsmodels_at_every_size_it_solves(size, wanted, share):
    from statsmodels.stats.power import NormalIndPower

    ratio = (1 - share) / share
    found = power(size, 1.0, held_out_share=share, power=wanted).fixed
    reached = NormalIndPower().power(effect_size=size, nobs1=found / (1 + ratio), alpha=0.05, ratio=ratio)
    before = NormalIndPower().power(effect_size=size, nobs1=(found - 1) / (1 + ratio), alpha=0.05, ratio=ratio)
    assert reached >= wanted - 1e-6
    assert before < wanted + 1e-6 or found == 2


@pytest.mark.parametrize(
    ("difference", "mean"), [(1e-300, 60), (1e-9, 1e9), (1, 1e308), (1, float("inf")), (1, float("nan"))]
)
def test_what_no_number_of_people_shows_is_refused(difference, mean):
    with pytest.raises(InvalidInput):
        power(difference, money_deviation(0.05, mean, 40), held_out_share=0.1)
