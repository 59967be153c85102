"""Which columns of an experiment came of the arm, or of the outcome itself: learned from, they would tell it beforehand. Pure.

What was known before the draw is alike in all arms, and does not coincide with the outcome. Both are tested where the
log is large enough to say so; where a column is named as a feature, nobody asks this file.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, chi2_contingency

from kiki.engage.outcomes import Floats

FORERUNNER: Final = "there is no outcome without it: it comes after the arm"
FOLLOWER: Final = "it is there only with an outcome: it comes after the arm"
UNEVEN: Final = (
    "it differs between the arms more than chance allows: it comes after the arm, or they were not drawn by chance"
)

_SURE: Final = 1e-9
_SEEN_LEAST: Final = 20
_SHARE_MOST: Final = 0.8
_LEVELS_MAX: Final = 50


def consequence(column: npt.NDArray[Any], outcome: Floats, arm: npt.NDArray[Any]) -> str:
    """Why this is no feature; empty where nothing speaks against it."""
    active = outcome != 0
    there = _there(column)
    if there is not None:
        if _only_within(active, there):
            return FORERUNNER
        if _only_within(there, active):
            return FOLLOWER
    return UNEVEN if _unevenness(column, arm) < _SURE else ""


def _there(column: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where something that can be zero is not; None for words that are not yes and no."""
    if column.dtype.kind == "f":
        return np.asarray(np.nan_to_num(column) != 0)
    words = np.char.lower(column)
    for yes, no in (("yes", "no"), ("true", "false"), ("y", "n"), ("t", "f")):
        if set(np.unique(words).tolist()) <= {yes, no, ""}:
            return np.asarray(words == yes)
    return None


def _only_within(inner: npt.NDArray[np.bool_], outer: npt.NDArray[np.bool_]) -> bool:
    """Whether one happens only where the other does, and hardly by chance."""
    count, share = int(np.count_nonzero(inner)), float(outer.mean())
    if count < _SEEN_LEAST or share > _SHARE_MOST or bool(np.any(inner & ~outer)):
        return False
    return share == 0 or count * np.log(share) < np.log(_SURE)


def _unevenness(column: npt.NDArray[Any], arm: npt.NDArray[Any]) -> float:
    """The chance that arms which were drawn by chance differ as much as this."""
    names, place = np.unique(arm, return_inverse=True)
    if column.dtype.kind == "f":
        known = np.isfinite(column)
        values, groups = column[known], place[known]
        counts = np.bincount(groups, minlength=names.size)
        if counts.min() < 2 * _SEEN_LEAST:
            return 1.0
        # Squeezed: one huge value must not hide that the rest differs.
        middle = float(np.median(values))
        scale = float(np.median(np.abs(values - middle))) or float(values.std()) or 1.0
        values = np.arcsinh((values - middle) / scale)
        means = np.bincount(groups, values) / counts
        errors = np.array([values[groups == each].var() for each in range(names.size)]) / counts
        if errors.min() <= 0:
            return 0.0 if float(np.ptp(means)) > 0 and counts.min() > 10 * _SEEN_LEAST else 1.0
        common = float(np.average(means, weights=1 / errors))
        return float(chi2.sf(float(((means - common) ** 2 / errors).sum()), names.size - 1))
    levels, level = np.unique(column, return_inverse=True)
    if levels.size > _LEVELS_MAX:
        return 1.0
    table = np.zeros((names.size, levels.size))
    np.add.at(table, (place, level), 1)
    table = table[:, table.sum(axis=0) >= 5 * names.size]
    if table.shape[1] < 2 or bool(np.any(table.sum(axis=1) == 0)):
        return 1.0
    return float(chi2_contingency(table).pvalue)
