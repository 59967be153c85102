"""Arithmetic that the models share. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kiki.value.groups import Floats


def log_add(first: Floats, second: Floats) -> Floats:
    """ln(exp(first) + exp(second)) without overflow; minus infinity stands for nothing."""
    return np.logaddexp(first, second)


def per_value(column: Floats, function: Callable[[Floats], Floats]) -> Floats:
    """`function` of a column of small whole numbers, evaluated once for each different one.

    `function` takes values of shape (k,) and answers (..., k); the result has shape (..., len(column)).
    """
    most = int(column.max(initial=0))
    if most < 4 * column.size + 64:
        places = column.astype(np.int64)
        used = np.zeros(most + 1, dtype=bool)
        used[places] = True
        distinct = np.flatnonzero(used)
        found = function(distinct.astype(np.float64))
        table = np.zeros((*found.shape[:-1], most + 1))
        table[..., distinct] = found
        return table[..., places]
    distinct_values, index = np.unique(column, return_inverse=True)
    return function(distinct_values)[..., index]
