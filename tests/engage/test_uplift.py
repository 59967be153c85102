from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from kiki.engage.outcomes import Outcomes
from kiki.engage.policy import Policy
from kiki.engage.policy_value import over_splits, policy_value
from kiki.engage.shrunk_line import ShrunkLine
from kiki.engage.uplift import learn_policy
from kiki.errors import InvalidInput
from tests.engage.mailing import mailing

ROWS = 20_000


@cache
def learned(seed: int, **world: float) -> Policy:
    return learn_policy(mailing(ROWS, seed, **world)[0])


def true_value(policy: Policy, data: Outcomes, expected: np.ndarray) -> float:
    places = policy.places(data.features)
    return float((expected[np.arange(len(data)), places] - data.costs[places]).mean())


def test_a_cheap_contact_that_helps_everybody_alike_goes_to_everybody():
    policy = learned(1, uneven=0)
    test, expected = mailing(2000, 2, uneven=0)
    assert set(policy.choose(test.features)) == {"a"}
    assert true_value(policy, test, expected) == pytest.approx(expected[:, 1].mean())


def test_a_dear_contact_that_pays_for_nobody_goes_to_nobody():
    policy = learned(1, uneven=0, costs=0.6)
    assert (policy.incumbent, policy.deviates) == ("none", False)
    assert set(policy.choose(mailing(500, 2)[0].features)) == {"none"}


def test_a_dear_contact_that_pays_for_some_goes_to_them_and_beats_everybody_and_nobody():
    policy = learned(1, lift=0.06, costs=0.4)
    test, expected = mailing(ROWS, 2, lift=0.06, costs=0.4)
    assert policy.deviates
    assert policy.evidence is not None
    assert policy.evidence.low > 0
    constants = (expected - test.costs).mean(axis=0)
    assert true_value(policy, test, expected) > constants.max() + 0.02


def test_whoever_bought_most_lately_is_not_taken_for_whoever_gains_most():
    """The baseline that retention tools are built on, and the original's rule: the most dormant first."""
    data, expected = mailing(ROWS, 3, costs=0.35)
    policy = learn_policy(data)
    dormant = np.where(data.features["recency"] > 6, 1, 0)
    by_dormancy = (expected[np.arange(ROWS), dormant] - data.costs[dormant]).mean()
    assert true_value(policy, data, expected) > by_dormancy + 0.02


def test_without_an_effect_the_incumbent_stays_but_for_the_chance_that_was_allowed():
    left = sum(learn_policy(mailing(1500, seed, lift=0.0, costs=0.02)[0], alpha=0.05).deviates for seed in range(12))
    assert left <= 3  # at 5 % each, four or more come twice in a thousand such series; bench/engage_policy.py runs many


def test_an_early_outcome_carries_what_the_margin_alone_cannot():
    data, _ = mailing(ROWS, 1, lift=0.06, costs=0.4)
    late = Outcomes(data.features, data.arms, data.arm, data.margin, data.costs, data.propensity)
    with_early, without = learned(1, lift=0.06, costs=0.4), learn_policy(late)
    assert with_early.evidence is not None
    assert without.evidence is not None
    assert (with_early.evidence.used_early, without.evidence.used_early) == (True, False)
    assert (with_early.deviates, without.deviates) == (True, False)


def test_an_early_outcome_that_says_nothing_about_the_margin_is_not_used():
    data, _ = mailing(4000, 1)
    chance = np.random.default_rng(0)
    noise = Outcomes(
        data.features,
        data.arms,
        data.arm,
        np.where(chance.random(len(data)) < 0.002, 50.0, 0.0),
        data.costs,
        data.propensity,
        (chance.random(len(data)) < 0.02).astype(float),
    )
    found = learn_policy(noise).evidence
    assert found is not None
    assert not found.used_early


def test_where_nothing_is_known_the_incumbent_that_was_named_stays():
    data, _ = mailing(150, 1)
    assert learn_policy(data).incumbent == "none"
    assert learn_policy(data, incumbent="a").choose(data.features) == ["a"] * 150


def test_an_arm_that_is_hardly_known_is_given_to_nobody():
    data, _ = mailing(6000, 1)
    rare = data.take((data.arm != 2) | (np.arange(6000) < 60))
    policy = learn_policy(rare)
    assert policy.arms == ("none", "a", "b")
    assert "b" not in policy.choose(rare.features)
    assert np.all(policy.incremental(rare.features)[:, 2] == -1)


def test_what_an_arm_adds_is_shrunk_and_keeps_the_incumbent_on_top_unless_the_evidence_carries_more():
    data, _ = mailing(10_000, 1, uneven=0)
    policy = learn_policy(_in_micros(data))
    assert not policy.deviates
    added = policy.incremental(data.features)
    assert np.all(added[:, 0] == 0)
    assert np.all(np.argmax(added, axis=1) == policy.arms.index(policy.incumbent))
    assert added[:, 1].mean() == pytest.approx(0.35e6, rel=0.35)


def _in_micros(data: Outcomes) -> Outcomes:
    return Outcomes(data.features, data.arms, data.arm, data.margin * 1e6, data.costs, data.propensity, data.early)


def test_a_policy_survives_its_json():
    data, _ = mailing(6000, 1, costs=0.3)
    policy = learn_policy(data)
    again = Policy.load(policy.dump())
    assert again.choose(data.features) == policy.choose(data.features)
    assert np.array_equal(again.incremental(data.features), policy.incremental(data.features))
    assert again.evidence == policy.evidence


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": 2}', b"nonsense"])
def test_what_is_no_policy_is_refused(data: bytes):
    with pytest.raises(InvalidInput, match="policy"):
        Policy.load(data)


def test_people_who_were_never_seen_get_an_arm_too():
    data, _ = mailing(6000, 1, costs=0.3)
    policy = learn_policy(data)
    strange = {
        "recency": np.array([np.nan, 1e12]),
        "history": np.array([-5.0, np.inf]),
        "channel": np.array(["pigeon", ""]),
        "newbie": np.array([0.0, 1.0]),
    }
    assert set(policy.choose(strange)) <= set(data.arms)
    with pytest.raises(InvalidInput, match="'channel' is missing"):
        policy._replace(deviates=True).choose({"recency": np.array([1.0])})


def test_the_value_of_a_policy_is_found_by_replay():
    data, expected = mailing(ROWS, 5, costs=0.2)
    dormant = np.array(["none", "a"])[(data.features["recency"] > 6).astype(int)]
    places = (data.features["recency"] > 6).astype(int)
    truth = float((expected[np.arange(ROWS), places] - data.costs[places]).mean())
    found = policy_value(dormant.tolist(), data)
    for estimate in (found.doubly_robust, found.inverse_propensity):
        assert abs(estimate.value - truth) < 4 * estimate.error
        assert estimate.low < estimate.value < estimate.high
    assert found.doubly_robust.error <= 1.01 * found.inverse_propensity.error
    assert set(found.versus) == {"none", "a", "b"}
    assert found.versus["a"].value == pytest.approx(
        found.doubly_robust.value - policy_value("a", data).doubly_robust.value
    )


def test_the_intervals_of_a_policys_value_hold_it():
    held = 0
    for seed in range(60):
        data, expected = mailing(1500, seed, worth=3.0)
        found = policy_value("a", data).doubly_robust
        held += found.low <= expected[:, 1].mean() <= found.high
    assert held >= 50  # 57 are expected


def test_policies_are_compared_over_many_splits():
    data, _ = mailing(6000, 1, lift=0.08, costs=0.05)
    found = over_splits(data, learn_policy, {"nobody": "none", "everybody": "a"}, splits=3)
    assert found["nobody"].value > 0
    assert found["nobody"].error > 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"margin": [1.0]}, "shape"),
        ({"margin": [float("nan")] * 4}, "finite"),
        ({"margin": ["x"] * 4}, "numbers"),
        ({"costs": {"z": 1.0}}, "nobody was given"),
        ({"propensity": {"none": 1.0}}, "says nothing about"),
        ({"propensity": {"none": 0.0, "a": 1.0}}, "above 0"),
        ({"features": {"x": [1, 2]}}, "feature 'x'"),
    ],
)
def test_outcomes_that_make_no_sense_are_refused(change: dict[str, object], why: str):
    given = {"features": {"x": [1, 2, 3, 4]}, "arm": ["none", "a", "a", "none"], "margin": [0.0, 1, 2, 3]} | change
    with pytest.raises(InvalidInput, match=why):
        Outcomes.of(**given, control="none")


def test_slopes_that_noise_explains_are_shrunk_to_nothing_and_real_ones_are_kept():
    chance = np.random.default_rng(1)
    columns = chance.normal(size=(5000, 10))
    noise = ShrunkLine.fit(columns, chance.normal(size=5000))
    real = ShrunkLine.fit(columns, columns[:, 0] + chance.normal(size=5000))
    assert np.abs(noise.slopes).max() < 0.02
    assert real.slopes[0] == pytest.approx(1, abs=0.05)
    assert real.deviation(columns).max() < 0.2


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_log_looks_like_there_is_a_policy_and_it_survives_its_json(seed: int):
    chance = np.random.default_rng(seed)
    rows, count = int(chance.choice([0, 1, 5, 150, 300, 1200])), int(chance.integers(1, 5))
    arms = np.array(["control", "a", "b", "c"])[chance.choice(count, rows, p=chance.dirichlet(np.ones(count)))]
    if rows:
        arms[0] = "control"
    features = {
        "wide": chance.normal(size=rows) * 10.0 ** chance.integers(-6, 9),
        "constant": np.zeros(rows),
        "absent": np.full(rows, np.nan),
        "word": chance.choice(np.array(["u", "v", ""]), rows),
        "id": np.array([f"customer-{number}" for number in range(rows)]),
    }
    kept = {name: column for name, column in features.items() if chance.random() < 0.6}
    margin = np.where(chance.random(rows) < 0.1, chance.pareto(1.2, rows) * 10.0 ** chance.integers(0, 9), 0.0)
    early = [None, chance.poisson(0.3, rows), np.zeros(rows)][int(chance.integers(0, 3))]
    costs = {arm: float(chance.choice([0, 1e6])) for arm in set(arms.tolist()) - {"control"}}
    outcomes = Outcomes.of(kept, arms, margin, control="control", early=early, costs=costs)
    policy = learn_policy(outcomes)
    again = Policy.load(policy.dump())
    assert again.choose(outcomes.features) == policy.choose(outcomes.features)
    if kept:
        assert policy.incremental(outcomes.features).shape == (rows, len(policy.arms))


def test_without_a_control_that_is_known_the_incumbent_stays():
    data, _ = mailing(6000, 1)
    policy = learn_policy(data.take((data.arm != 0) | (np.arange(6000) < 60)), incumbent="b")
    assert (policy.incumbent, policy.deviates) == ("b", False)
