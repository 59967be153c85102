from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.bandit import best_chances, thompson_shares
from kiki.engage.holdout import PARTS
from kiki.engage.moments import Moments
from kiki.errors import InvalidInput

sides = st.builds(
    lambda persons, mean, spread: Moments.of(np.random.default_rng(persons).normal(mean, spread, persons)),
    st.integers(0, 200),
    st.floats(-100, 100),
    st.floats(0, 50),
)


@given(st.dictionaries(st.text(max_size=5), sides, min_size=1, max_size=5), st.integers(0, PARTS // 5))
def test_shares_are_the_whole_and_nobody_falls_below_the_floor(arms: dict[str, Moments], floor: int):
    shares = thompson_shares(arms, floor=floor)
    assert list(shares) == list(arms)
    assert sum(shares.values()) == PARTS
    assert min(shares.values()) >= floor


def test_chances_are_those_of_drawing_from_what_is_known():
    chance = np.random.default_rng(1)
    known = [Moments.of(chance.normal(mean, 10, 400)) for mean in (0.0, 0.5, 1.0)]
    errors = np.array([np.sqrt((side.variance + np.mean([s.variance for s in known])) / 2 / 400) for side in known])
    draws = chance.normal([side.mean for side in known], errors, (400_000, 3)).argmax(axis=1)
    assert best_chances(known) == pytest.approx(np.bincount(draws) / 400_000, abs=0.004)


def test_the_better_arm_gets_nearly_everybody_in_the_end_and_the_worse_one_stays_measured():
    chance = np.random.default_rng(2)
    known = {"ten": Moments(), "twenty": Moments()}
    for _ in range(30):
        shares = thompson_shares(known, floor=50_000)
        for arm, mean in (("ten", 3.0), ("twenty", 2.0)):
            known[arm] = known[arm].plus(Moments.of(chance.normal(mean, 8, round(300 * shares[arm] / PARTS))))
    assert thompson_shares(known, floor=50_000)["ten"] >= 900_000
    assert known["twenty"].persons >= 30 * 14


def test_an_arm_in_which_nobody_bought_yet_is_not_given_up():
    arms = {"a": Moments.of([0.0] * 40), "b": Moments.of([0.0] * 35 + [20.0] * 5)}
    assert thompson_shares(arms, floor=0)["a"] > 0


@pytest.mark.parametrize(
    ("arms", "floor"), [({}, 0), ({"a": Moments(), "b": Moments()}, 600_000), ({"a": Moments()}, -1)]
)
def test_what_cannot_be_is_refused(arms: dict[str, Moments], floor: int):
    with pytest.raises(InvalidInput):
        thompson_shares(arms, floor=floor)
