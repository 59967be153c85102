"""Every constant arm, the most dormant first, and what is learned, side by side on one randomised log. Pure.

What is learned is judged on persons whom it was not learned from. A constant is recommended unless the evidence carries
leaving it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from kiki.engage.doubly_robust import folds_of
from kiki.engage.outcomes import Floats, Outcomes
from kiki.engage.policy import Policy
from kiki.engage.policy_value import Interval, Replay
from kiki.engage.uplift import learn_policy

FOLDS: Final = 3


class Constant(NamedTuple):
    """Everybody gets the same arm."""

    persons: int
    active: int
    """How many of those who were given it have an outcome that is not zero."""
    value: Interval


class PolicyTrial(NamedTuple):
    """Values are per person, in units of the outcome, after the cost of the contact."""

    constants: dict[str, Constant]
    best: str
    """The best constant arm; effects are shrunk before they are compared, so that noise does not choose a dear one."""
    dormant: Interval | None
    """The half that has been away longest gets the best arm that is not the control, the others the control."""
    dormant_arm: str
    learned: Interval
    gain: Interval
    """What is learned over the best constant arm, paired: the same persons under both."""
    over_dormant: Interval | None
    shares: dict[str, float]
    """By arm how many would get it by what is learned."""
    policy: Policy
    """Learned from everybody."""
    takes_learned: bool
    """Whether to follow it; otherwise everybody gets the best constant arm."""


def try_policies(
    data: Outcomes, away: Floats | None = None, *, alpha: float = 0.05, folds: int = FOLDS, seed: int = 0
) -> PolicyTrial:
    """All of them on one log; `away` tells how long each person has been away."""
    policy = learn_policy(data, seed=seed)
    replay = Replay(data, seed=seed)
    fold = folds_of(data, seed + 1_000, folds)
    places = np.empty(len(data), dtype=np.int64)
    for each in range(folds):
        own = np.flatnonzero(fold == each)
        found = learn_policy(data.take(np.flatnonzero(fold != each)), seed=seed)
        places[own] = found.places(data.take(own).features) if data.features else data.place_of(found.incumbent)
    rule = np.array(data.arms)[places].tolist()
    best = policy.incumbent
    constants = {
        arm: Constant(
            int(np.count_nonzero(data.arm == place)),
            int(np.count_nonzero(data.margin[data.arm == place])),
            replay.value(arm, versus={}, alpha=alpha).doubly_robust,
        )
        for place, arm in enumerate(data.arms)
    }
    others = [arm for arm in data.arms[1:] if constants[arm].persons] or list(data.arms)
    dormant_arm = max(others, key=lambda arm: constants[arm].value.value)
    versus: dict[str, str | list[str]] = {"best": best}
    dormant = None
    if away is not None and np.isfinite(away).any():
        long_ago = np.nan_to_num(away, nan=-np.inf) > float(np.nanmedian(away))
        most_dormant = np.where(long_ago, dormant_arm, data.arms[0]).tolist()
        dormant = replay.value(most_dormant, versus={}, alpha=alpha).doubly_robust
        versus["dormant"] = most_dormant
    learned = replay.value(rule, versus=versus, alpha=alpha)
    chosen = policy.places(data.features) if data.features else places
    return PolicyTrial(
        constants=constants,
        best=best,
        dormant=dormant,
        dormant_arm=dormant_arm,
        learned=learned.doubly_robust,
        gain=learned.versus["best"],
        over_dormant=learned.versus.get("dormant"),
        shares={arm: float(np.mean(chosen == place)) for place, arm in enumerate(data.arms)},
        policy=policy,
        takes_learned=policy.deviates and learned.versus["best"].value > 0,
    )
