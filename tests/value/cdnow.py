"""CDNOW's tenth, 39 weeks: the log that the papers print their numbers for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kiki.value.groups import Groups

_ROWS = np.loadtxt(Path(__file__).with_name("cdnow_sample_summary_39w_spend.csv"), delimiter=",", skiprows=1)


def groups() -> Groups:
    # The file rounds weeks to two decimals; whole days are what was rounded.
    return Groups.collapse(_ROWS[:, 1], np.rint(_ROWS[:, 2] * 7), np.rint(_ROWS[:, 3] * 7))[0]


def repeat_orders() -> np.ndarray:
    return _ROWS[:, 1]


def mean_amounts() -> np.ndarray:
    return _ROWS[:, 4]
