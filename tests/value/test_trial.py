from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from kiki.value.orders import Orders
from kiki.value.origins import rolling_origins
from kiki.value.predictive import Level
from kiki.value.purchases import summarise
from kiki.value.shape import no_correction
from kiki.value.trial import CANDIDATES, JUDGED_MAX, Candidates, Trial
from tests.value import buyers

END = date(2021, 6, 28)
EVEN = np.full(len(CANDIDATES), 1 / len(CANDIDATES))


@pytest.fixture(scope="module")
def orders() -> Orders:
    return buyers.log(1200)


@pytest.fixture(scope="module")
def trial(orders) -> Trial:
    return Trial.of(rolling_origins(orders, END, "week", 26.0)[-1])


def test_every_candidate_is_scored_on_outcomes_it_has_not_seen(trial):
    scores = trial.log_scores()
    assert (len(trial.origin.purchases), len(CANDIDATES)) == scores.shape
    assert (scores <= 0).all()


def test_a_mixture_has_the_sum_of_its_anchor(trial):
    said = trial.predictive(EVEN, no_correction())
    assert trial.anchored() == pytest.approx(float(said.mean("purchases").sum()))
    higher = trial.predictive(EVEN, no_correction(), Level(1.5))
    assert 1.5 * trial.anchored() == pytest.approx(float(higher.mean("purchases").sum()))


def test_candidates_without_visible_dropout_are_one_part(orders):
    still = buyers.log(800, dropout=False, seed=3)
    candidates = Candidates.of(summarise(still, END).grouped()[0])
    ((only, weight),) = candidates.weighed(EVEN)
    assert ("nbd", 1.0) == (only.name, pytest.approx(weight))
    # It is the anchor that came to this, and says so.
    assert CANDIDATES[0] == only.fell_back_from
    assert 1 == len(candidates.mixture(EVEN).parts)


def test_the_weightiest_part_comes_first_and_one_without_weight_not_at_all(trial):
    found = trial.candidates.weighed(np.array([0.2, 0.7, 0.1, 0.0]))
    assert ["mbg-nbd", "pareto-nbd", "bg-nbd"] == [fit.name for fit, _ in found]


def test_what_somebody_knew_is_less_than_what_came_later(orders, trial):
    early = Trial.of(rolling_origins(orders, END, "week", 40.0)[0])
    known = early.lesson_known(EVEN, orders, trial.origin.end)
    whole = early.lesson(EVEN)
    assert (known.came <= whole.came).all()
    assert known.came.sum() < whole.came.sum()
    assert known.forecast.sum() < whole.forecast.sum()


def test_nothing_was_known_within_two_weeks(orders, trial):
    assert trial.lesson_known(EVEN, orders, trial.origin.end) is None


def test_distributions_are_judged_on_a_bounded_number_of_customers(trial):
    assert len(trial.judged().origin.purchases) == min(len(trial.origin.purchases), JUDGED_MAX)


def test_the_transforms_are_those_of_the_outcomes(trial):
    small = trial.judged()
    pits = small.pits(small.predictive(EVEN, no_correction()))
    for pit in pits.values():
        assert ((pit.before >= 0) & (pit.before <= pit.at + 1e-12) & (pit.at <= 1 + 1e-12)).all()
    stayed_away = small.origin.outcomes.purchases == 0
    assert np.zeros(int(stayed_away.sum())).tolist() == pits["revenue"].before[stayed_away].tolist()
