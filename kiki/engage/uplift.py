"""Learning whom to treat how from randomised outcomes, and staying with the best constant arm otherwise. Pure.

The incumbent is the arm that earns most when everybody gets it. What other arms add over it is modelled by shrunk lines
over doubly robust scores (Kennedy 2023), on an early outcome's index where there is one. A person is given another arm
only where the model's gain is positive, and anybody at all only if such policies, learned without the persons whom they
are judged on, gained over the incumbent with a lower bound above zero.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.special import ndtri

from kiki.engage.doubly_robust import FOLDS, crossfit_scores, folds_of, outcome_lines, scores
from kiki.engage.early_index import EarlyIndex
from kiki.engage.feature_coder import FeatureCoder
from kiki.engage.outcomes import Floats, Ints, Outcomes
from kiki.engage.policy import Evidence, Policy
from kiki.engage.shrunk_line import ShrunkLine

CAUTIONS: Final = (0.0, 1.0)
"""How many standard deviations a person's gain must be above zero; the policies that are tried."""
_PERSONS_LEAST: Final = 100
"""An arm with fewer persons is too little known to be an incumbent or to deviate to."""
_REPEATS: Final = 3


def learn_policy(outcomes: Outcomes, *, incumbent: str | None = None, alpha: float = 0.1, seed: int = 0) -> Policy:
    """The policy that the outcomes carry.

    `incumbent` stays when nothing is known yet (by default the control). `alpha` is the chance at most with which a
    policy that gains nothing replaces the incumbent. Raises `InvalidInput`.
    """
    start = outcomes.arms[0] if incumbent is None else incumbent
    counts = np.bincount(outcomes.arm, minlength=len(outcomes.arms))
    known = [place for place, count in enumerate(counts.tolist()) if count >= _PERSONS_LEAST]
    costs = tuple(outcomes.costs.tolist())
    if len(known) < 2 or known[0] != 0:  # nothing to compare with, or no control
        return Policy.constant(start, outcomes.arms if start in outcomes.arms else (*outcomes.arms, start), costs)
    if len(known) < len(outcomes.arms):
        return _padded(learn_policy(_only(outcomes, known), alpha=alpha, seed=seed), outcomes)
    coder = FeatureCoder.of(outcomes.features)
    columns = coder.matrix(outcomes.features) if outcomes.features else np.zeros((len(outcomes), 0))
    constants, best = _incumbent(outcomes, columns, seed)
    trials = [_Trial(outcomes, columns, best, folds_of(outcomes, seed + each)) for each in range(_REPEATS)]
    level = float(ndtri(1 - alpha / len(CAUTIONS)))
    evidences = [_evidence(trials, caution, level, constants, len(outcomes)) for caution in CAUTIONS]
    found = max(evidences, key=lambda each: each.low)
    everybody = np.arange(len(outcomes))
    lines = _gain_lines(_Learned.fit(outcomes, columns, everybody), outcomes, columns, everybody, best)
    return Policy(
        arms=outcomes.arms,
        costs=costs,
        incumbent=outcomes.arms[best],
        deviates=found.low > 0 and found.margin_high > 0,
        coder=coder,
        lines={outcomes.arms[place]: line for place, line in lines.items()},
        evidence=found,
    )


def _only(data: Outcomes, known: list[int]) -> Outcomes:
    """The outcomes of the arms that are known well enough."""
    kept = data.take(np.isin(data.arm, known))
    chances = kept.propensity[:, known]
    return Outcomes(
        features=kept.features,
        arms=tuple(data.arms[place] for place in known),
        arm=np.searchsorted(known, kept.arm),
        margin=kept.margin,
        costs=data.costs[known],
        # Given that it is one of these.
        propensity=chances / chances.sum(axis=1, keepdims=True),
        early=kept.early,
    )


def _padded(policy: Policy, data: Outcomes) -> Policy:
    """The policy over all arms; those that are hardly known are given to nobody."""
    return policy._replace(arms=data.arms, costs=tuple(data.costs.tolist()))


def _incumbent(data: Outcomes, columns: Floats, seed: int) -> tuple[dict[str, float], int]:
    """What each arm earns when everybody gets it, and the place of the best; the control where nothing is better."""
    everybody = np.arange(len(data))
    fold = folds_of(data, seed)
    values = crossfit_scores(data, columns, data.margin, fold).mean(axis=0) - data.costs
    index = EarlyIndex.fit(data, columns, everybody)
    exact = values
    if index is not None:
        exact = crossfit_scores(data, columns, index.of(data, columns), fold).mean(axis=0) - data.costs
    return dict(zip(data.arms, values.tolist(), strict=True)), int(np.argmax(_shrunk(exact, data)))


def _shrunk(values: Floats, data: Outcomes) -> Floats:
    """What the arms earn, their effects shrunk towards none: noise makes a dear arm look worth its price.

    The prior's deviation is what the control earns: a contact that doubles it is large, and nothing is ruled out. Where
    the control earns next to nothing, half of what the arms earn on average.
    """
    gross = values + data.costs
    counts = np.bincount(data.arm, minlength=len(data.arms))
    spread = np.array([data.margin[data.arm == arm].var() for arm in range(len(data.arms))]) / counts
    noise = spread + spread[0]
    prior = max(abs(gross[0]), abs(float(gross.mean())) / 2) ** 2
    keep = np.where(noise > 0, prior / np.maximum(prior + noise, 1e-300), 1.0)
    return np.asarray(gross[0] + keep * (gross - gross[0]) - data.costs)


class _Learned(NamedTuple):
    """What some persons teach about the outcome: the target they are scored by, and its models."""

    early: EarlyIndex | None
    target: Floats
    """By person, of everybody."""
    lines: list[ShrunkLine]

    @classmethod
    def fit(cls, data: Outcomes, columns: Floats, rows: Ints) -> _Learned:
        """Learned from these rows alone."""
        index = EarlyIndex.fit(data, columns, rows)
        target = data.margin if index is None else index.of(data, columns)
        return cls(index, target, outcome_lines(data, columns, target, rows))


def _gain_lines(learned: _Learned, data: Outcomes, columns: Floats, rows: Ints, best: int) -> dict[int, ShrunkLine]:
    """By arm what it adds over the incumbent, from these rows."""
    # The models' slopes are shrunk and each weighs little in its own row: scoring in sample moves a line by little,
    # and what a policy is worth is measured on persons whom none of its models has seen.
    found = scores(data, columns, learned.target, rows, learned.lines)
    return {
        arm: ShrunkLine.fit(columns[rows], found[:, arm] - found[:, best])
        for arm in range(len(data.arms))
        if arm != best
    }


class _Trial:
    """One division into folds: what policies that were learned on the others did on each."""

    def __init__(self, data: Outcomes, columns: Floats, best: int, fold: Ints) -> None:
        self.parts = [self._part(data, columns, best, fold, each) for each in range(FOLDS)]
        self._costs = data.costs
        self._best = best

    @staticmethod
    def _part(data: Outcomes, columns: Floats, best: int, fold: Ints, each: int) -> tuple[Floats, ...]:
        others, own = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        learned = _Learned.fit(data, columns, others)
        lines = _gain_lines(learned, data, columns, others, best)
        count = len(data.arms)
        mean, unsure = np.zeros((own.size, count)), np.zeros((own.size, count))
        for arm, line in lines.items():
            mean[:, arm] = line.at(columns[own]) - (data.costs[arm] - data.costs[best])
            unsure[:, arm] = line.deviation(columns[own])
        by_target = scores(data, columns, learned.target, own, learned.lines)
        if learned.early is None:
            return mean, unsure, by_target, by_target, np.zeros(count), np.zeros(0)
        by_margin = scores(data, columns, data.margin, own, outcome_lines(data, columns, data.margin, others))
        known = np.concatenate([[learned.early.common_variance], learned.early.own_variance])
        return mean, unsure, by_target, by_margin, learned.early.worth, known

    def gain(self, caution: float) -> tuple[float, float, float, float, float, bool]:
        """The gain over the incumbent with its variance, the same by margin, and the share that deviates."""
        gains, by_margin, moved, extra, used = [], [], 0, 0.0, False
        total = sum(part[0].shape[0] for part in self.parts)
        for mean, unsure, target, margin, worth, known in self.parts:
            rows = np.arange(mean.shape[0])
            careful = mean - caution * unsure
            careful[:, self._best] = 0.0
            chosen = np.argmax(careful, axis=1)
            chosen = np.where(careful[rows, chosen] > 0, chosen, self._best)
            cost = self._costs[chosen] - self._costs[self._best]
            gains.append(target[rows, chosen] - target[rows, self._best] - cost)
            by_margin.append(margin[rows, chosen] - margin[rows, self._best] - cost)
            moved += int(np.count_nonzero(chosen != self._best))
            if known.size:
                used = True
                away = chosen != self._best
                mass = np.array([target[away & (chosen == arm), arm].sum() for arm in range(worth.size)])
                mass[self._best] -= target[away, self._best].sum()
                mass = mass / np.maximum(worth, 1e-300) / total
                # The worth is learned from nearly the same persons in every fold: its errors do not average out.
                extra += float(mass.sum() ** 2 * known[0] + (mass**2 * known[1:]).sum()) * len(self.parts)
        gain, own = np.concatenate(gains), np.concatenate(by_margin)
        return (
            float(gain.mean()),
            float(gain.var()) / total + extra,
            float(own.mean()),
            float(own.var()) / total,
            moved / total,
            used,
        )


def _evidence(trials: list[_Trial], caution: float, level: float, constants: dict[str, float], rows: int) -> Evidence:
    found = np.array([trial.gain(caution) for trial in trials], dtype=float)
    gain, variance, by_margin, margin_variance, moved, used = found.mean(axis=0).tolist()
    return Evidence(
        persons=rows,
        gain=gain,
        low=gain - level * variance**0.5,
        margin_gain=by_margin,
        margin_high=by_margin + level * margin_variance**0.5,
        deviating=moved,
        caution=caution,
        used_early=bool(used),
        constants=constants,
    )
