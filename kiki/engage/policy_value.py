"""What a policy is worth on randomised persons it was not learned from: replay, never a model's word alone. Pure.

Two estimates with intervals: weighted by the inverse of the propensity (Horvitz and Thompson 1952), and doubly robust
with cross-fitted models, which is the more exact. Gains over other policies are paired: the same persons under both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.special import ndtri

from kiki.engage.doubly_robust import crossfit_scores, folds_of
from kiki.engage.feature_coder import FeatureCoder
from kiki.engage.outcomes import Floats, Ints, Outcomes
from kiki.engage.policy import Policy
from kiki.errors import InvalidInput

Rule = Policy | str | Sequence[str]
"""A policy, an arm that everybody gets, or by person the arm."""

_SPLITS: Final = 20


class Interval(NamedTuple):
    """An estimate and what it lies between."""

    value: float
    low: float
    high: float
    error: float
    """Its standard error."""


class PolicyValue(NamedTuple):
    """Micros of margin after costs, per person."""

    persons: int
    matched: int
    """How many were given the arm that the policy would have given."""
    doubly_robust: Interval
    inverse_propensity: Interval
    versus: dict[str, Interval]
    """By name of another rule the paired gain over it."""


class Replay:
    """Randomised persons, scored once, for any number of rules."""

    def __init__(self, data: Outcomes, *, seed: int = 0) -> None:
        if not len(data):
            raise InvalidInput("there is nobody to judge a policy on")
        self._data = data
        coder = FeatureCoder.of(data.features)
        columns = coder.matrix(data.features) if data.features else np.zeros((len(data), 0))
        self._scores = crossfit_scores(data, columns, data.margin, folds_of(data, seed)) - data.costs

    def places(self, rule: Rule) -> Ints:
        """By person the place of the arm that a rule gives."""
        rows = len(self._data)
        if isinstance(rule, str):
            return np.full(rows, self._data.place_of(rule), dtype=np.int64)
        if isinstance(rule, Policy):
            by_place = np.array([self._data.place_of(arm) if arm in self._data.arms else -1 for arm in rule.arms])
            found = by_place[rule.places(self._data.features)] if self._data.features else self.places(rule.incumbent)
            if bool(np.any(found < 0)):
                raise InvalidInput("the policy gives an arm that nobody here was given")
            return found
        arms = [str(arm) for arm in rule]
        if len(arms) != rows:
            raise InvalidInput(f"the rule gives {len(arms)} arms to {rows} persons")
        return np.array([self._data.place_of(arm) for arm in arms], dtype=np.int64)

    def of(self, rule: Rule) -> Floats:
        """By person the doubly robust score under the rule."""
        return self._scores[np.arange(len(self._data)), self.places(rule)]

    def value(self, rule: Rule, *, versus: Mapping[str, Rule] | None = None, alpha: float = 0.05) -> PolicyValue:
        """What the rule is worth; `versus` are rules to be beaten, every constant arm by default."""
        data, places = self._data, self.places(rule)
        own = self.of(rule)
        match = data.arm == places
        seen = data.margin - data.costs[data.arm]
        weighted = np.where(match, seen / data.propensity[np.arange(len(data)), data.arm], 0.0)
        others = {arm: arm for arm in data.arms} if versus is None else versus
        return PolicyValue(
            persons=len(data),
            matched=int(np.count_nonzero(match)),
            doubly_robust=interval(own, alpha),
            inverse_propensity=interval(weighted, alpha),
            versus={name: interval(own - self.of(other), alpha) for name, other in others.items()},
        )


def interval(values: Floats, alpha: float = 0.05) -> Interval:
    """The mean with its normal interval."""
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / values.size**0.5 if values.size > 1 else float("inf")
    reach = float(ndtri(1 - alpha / 2)) * error
    return Interval(mean, mean - reach, mean + reach, error)


def policy_value(
    policy: Rule, data: Outcomes, *, versus: Mapping[str, Rule] | None = None, alpha: float = 0.05, seed: int = 0
) -> PolicyValue:
    """What a policy is worth on randomised persons; raises `InvalidInput` where it gives arms that nobody was given."""
    return Replay(data, seed=seed).value(policy, versus=versus, alpha=alpha)


Learner = Callable[[Outcomes], Rule]


def over_splits(
    data: Outcomes, learner: Learner, versus: Mapping[str, Rule | Learner], *, splits: int = _SPLITS, seed: int = 0
) -> dict[str, Interval]:
    """The paired gain of what a learner learns on one half, judged on the other, over other rules; over many splits.

    The halves overlap from split to split, so the error is not that of independent rounds (Nadeau and Bengio 2003).
    """
    gains: dict[str, list[float]] = {name: [] for name in versus}
    for each in range(splits):
        half = folds_of(data, seed + each, 2)
        learn, test = data.take(half == 0), data.take(half == 1)
        replay = Replay(test, seed=seed + each)
        own = replay.of(learner(learn))
        for name, other in versus.items():
            rule = other(learn) if callable(other) and not isinstance(other, Policy) else other
            gains[name].append(float((own - replay.of(rule)).mean()))
    found = {}
    for name, values in gains.items():
        spread = float(np.var(values, ddof=1)) if splits > 1 else float("inf")
        error = (spread * (1 / splits + 1.0)) ** 0.5  # test and training halves are as large as one another
        mean = float(np.mean(values))
        found[name] = Interval(mean, mean - 1.96 * error, mean + 1.96 * error, error)
    return found
