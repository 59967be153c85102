"""Acquisition cohorts: levels are found where there are any, pooled where they are doubtful, and absent where there are none."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, pareto_nbd
from kiki.value.cohorts import Cohorts, fit_cohorts
from kiki.value.fitting import maximise
from kiki.value.purchases import Purchases


def log_of_cohorts(spread, n=4000, cohorts=10, seed=5):
    """Purchases, and the cohorts' true levels: first purchases over a year, in `cohorts` periods of four weeks."""
    chance = np.random.default_rng(seed)
    levels = chance.normal(0, spread, cohorts)
    cohort = chance.integers(0, cohorts, n)
    t = 364 - cohort * 28 - chance.integers(0, 28, n)
    rate = chance.gamma(0.8, 1 / 6, n) * np.exp(levels[cohort]) / 7
    life = np.minimum(chance.exponential(7 / chance.gamma(1.2, 1 / 20, n)), t)
    x = chance.poisson(rate * life)
    tx = np.where(x > 0, np.ceil(life * chance.random(n) ** (1 / np.maximum(x, 1))), 0)
    none = np.zeros(n, dtype=np.int64)
    purchases = Purchases(
        ids=np.array([f"{place:05}" for place in range(n)], dtype=object),
        x=x.astype(np.int64), tx=np.minimum(tx, t).astype(np.int64), T=t,
        first_micros=none, repeat_micros=none, positive_repeats=none, zero_orders=none,
        last_4_weeks=none, last_13_weeks=none, last_26_weeks=none, log_gaps=none,
        calibration_end=dt.date(2024, 12, 31),
    )  # fmt: skip
    return purchases, np.array([f"c{number}" for number in cohort]), levels


@pytest.fixture(scope="module")
def found():
    purchases, cohort, levels = log_of_cohorts(0.4)
    return fit_cohorts("pareto-nbd", purchases, cohort), levels, purchases


def test_the_levels_of_a_simulated_log_are_recovered(found):
    cohorts, levels, _ = found
    assert 0.2 < cohorts.between_sd < 0.7
    # Only differences count: a common level is the same as another alpha.
    apart = np.array(cohorts.levels) - np.mean(cohorts.levels) - (levels - levels.mean())
    assert (np.abs(apart) < 4 * np.array(cohorts.level_sds)).all()
    assert np.corrcoef(cohorts.levels, levels)[0, 1] > 0.9


def test_cohorts_that_do_not_differ_are_nearly_one():
    purchases, cohort, _ = log_of_cohorts(0.0)
    cohorts = fit_cohorts("pareto-nbd", purchases, cohort)
    assert cohorts.between_sd < 0.06
    assert np.abs(cohorts.levels).max() < 0.05


def test_a_small_cohort_is_pulled_towards_the_others():
    purchases, cohort, _ = log_of_cohorts(0.4)
    rows = np.flatnonzero(cohort == "c3")
    kept = (cohort != "c3") | np.isin(np.arange(cohort.size), rows[:4])
    few = fit_cohorts("pareto-nbd", purchases.take(kept), cohort[kept])
    place = few.cohorts.index("c3")
    assert few.customers[place] == 4
    assert few.level_sds[place] > 2 * np.median(few.level_sds)
    assert few.level_sds[place] <= few.between_sd


def test_a_cohort_that_is_still_to_come_differs_as_cohorts_do(found):
    cohorts, _, _ = found
    mean, log_sd = cohorts.level("2030-01")
    assert (mean, log_sd) == cohorts.level()
    assert log_sd == cohorts.between_sd
    assert mean == pytest.approx(np.exp(log_sd**2 / 2))
    assert list(cohorts.parameters.values()) == cohorts.parameters_of().tolist()


def test_a_new_customer_of_a_better_cohort_is_expected_to_buy_more(found):
    cohorts, _, _ = found
    order = np.argsort(cohorts.levels)
    worst, best = cohorts.cohorts[order[0]], cohorts.cohorts[order[-1]]
    expected = [float(pareto_nbd.expected_new(cohorts.parameters_of(name), 52.0)) for name in (worst, None, best)]
    assert expected == sorted(expected)
    assert expected[2] / expected[0] == pytest.approx(np.exp(np.ptp(cohorts.levels)), rel=1e-9)
    assert cohorts.level(worst)[0] < cohorts.level(best)[0]


def test_one_cohort_is_the_plain_fit():
    purchases, _, _ = log_of_cohorts(0.4, n=500)
    alone = fit_cohorts("bg-nbd", purchases, np.full(500, "all"))
    assert alone.between_sd == 0
    assert alone.customers == [500]
    groups, _ = purchases.grouped()
    assert list(maximise(bg_nbd, groups).parameters.values()) == pytest.approx(
        list(alone.parameters.values()), rel=1e-5
    )


def test_months_of_the_first_purchase_are_the_cohorts_by_default():
    purchases, _, _ = log_of_cohorts(0.2, n=600)
    cohorts = fit_cohorts("nbd", purchases)
    assert cohorts.cohorts == sorted({str(month) for month in purchases.cohort})
    assert cohorts.cohorts[0].startswith("2024-0")
    assert sum(cohorts.customers) == 600


def test_they_survive_json(found):
    cohorts, _, _ = found
    assert cohorts == Cohorts.from_dict(json.loads(json.dumps(cohorts.as_dict())))
    assert {field.name for field in dataclasses.fields(Cohorts)} == set(cohorts.as_dict())


def test_names_that_are_not_one_for_each_customer_and_unknown_models_are_refused():
    purchases, cohort, _ = log_of_cohorts(0.2, n=50)
    with pytest.raises(InvalidInput, match="50 customers and 49 names"):
        fit_cohorts("pareto-nbd", purchases, cohort[:-1])
    with pytest.raises(InvalidInput, match="takes no covariates"):
        fit_cohorts("sbg", purchases, cohort)
