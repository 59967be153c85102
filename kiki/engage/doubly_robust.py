"""What each person would have earned under each arm, estimated twice so that either estimate may be wrong. Pure.

A model of the outcome is corrected by what was seen, weighted with the inverse of the chance to see it (Robins, Rotnitzky
and Zhao 1994; for policies Dudík, Langford and Li 2011). Nobody is scored by a model that has seen them (cross-fitting,
Chernozhukov et al. 2018). In a randomised log the chance is known, so the means are right whatever the model says.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kiki.engage.outcomes import Floats, Ints, Outcomes
from kiki.engage.shrunk_line import ShrunkLine

FOLDS: Final = 5


def folds_of(data: Outcomes, seed: int, folds: int = FOLDS) -> Ints:
    """By person a fold, each with its share of every arm."""
    fold = np.empty(len(data), dtype=np.int64)
    chance = np.random.default_rng(seed)
    for arm in range(len(data.arms)):
        rows = chance.permutation(np.flatnonzero(data.arm == arm))
        fold[rows] = (np.arange(rows.size) + arm) % folds
    return fold


def outcome_lines(data: Outcomes, columns: Floats, target: Floats, rows: Ints) -> list[ShrunkLine]:
    """By arm a model of the target, from these rows."""
    arm = data.arm[rows]
    return [ShrunkLine.fit(columns[rows[arm == each]], target[rows[arm == each]]) for each in range(len(data.arms))]


def scores(data: Outcomes, columns: Floats, target: Floats, rows: Ints, lines: list[ShrunkLine]) -> Floats:
    """Persons (those of `rows`) by arms: the corrected estimates."""
    found = np.column_stack([line.at(columns[rows]) for line in lines])
    own = np.arange(rows.size), data.arm[rows]
    found[own] += (target[rows] - found[own]) / data.propensity[rows, data.arm[rows]]
    return found


def crossfit_scores(data: Outcomes, columns: Floats, target: Floats, fold: Ints) -> Floats:
    """Persons by arms: each person scored by models that were made from the other folds."""
    found = np.empty((len(data), len(data.arms)))
    for each in range(int(fold.max(initial=0)) + 1):
        others, own = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        found[own] = scores(data, columns, target, own, outcome_lines(data, columns, target, others))
    return found
