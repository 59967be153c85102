import numpy as np
import pytest

from kiki.flow.market_simulation import BIDDERS, Dual, Greedy, Shock, auctions, bid, curves, divide, simulate


@pytest.fixture(scope="module")
def days():
    return {shock: auctions(3, shock) for shock in Shock}


@pytest.mark.parametrize("bidder", list(BIDDERS))
@pytest.mark.parametrize("shock", list(Shock))
def test_nobody_spends_more_than_the_budget_or_wins_more_than_the_best(days, bidder, shock):
    won = bid(days[shock], BIDDERS[bidder](days[shock]))
    assert won.spent <= won.budget
    assert 0 < won.share <= 1
    assert 20 == len(won.line)
    assert sorted(won.line) == list(won.line)


@pytest.mark.parametrize(("shock", "least"), [(Shock.NONE, 0.95), (Shock.DOUBLE, 0.92), (Shock.HALF, 0.92)])
def test_pacing_wins_nearly_what_knowing_all_prices_would(days, shock, least):
    day = days[shock]
    assert bid(day, Dual(day)).share > least > bid(day, Greedy(day)).share


def test_without_pacing_the_money_is_gone_before_the_day_is(days):
    line = bid(days[Shock.NONE], Greedy(days[Shock.NONE])).line
    assert line[int(0.38 * 20) - 2] < 1
    assert line[8] > 0.999


def test_adaptive_division_earns_more_than_an_equal_one():
    equal, adaptive = divide(2, adaptive=False), divide(2, adaptive=True)
    assert equal.share == pytest.approx(equal.late_share)
    assert adaptive.share > 0.96 > equal.share
    assert adaptive.late_share > adaptive.share
    assert max(adaptive.by_day) <= 1


def test_the_best_division_is_not_beaten_by_any_other():
    true = curves(5)
    best = true.best()
    chance = np.random.default_rng(1)
    for shares in chance.dirichlet(np.ones(7), 500):
        assert true.value(shares).sum() <= best


def test_the_same_seeds_tell_the_same_and_how_far_they_are():
    told = []
    found = simulate(1, first=4, told=lambda *each: told.append(each))
    assert found == simulate(1, first=4)
    assert [("pacing", 9, 9), ("allocation", 2, 2)] == [each for each in told if each[1] == each[2]]
    assert {"equal", "adaptive"} == set(found.allocation)
