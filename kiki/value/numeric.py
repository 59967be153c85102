"""Arithmetic that the models share. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import betainc, betaln, gammaln

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


def nbd_pmf(shape: Floats, rate: Floats, h: Floats | float, n_max: int) -> Floats:
    """P(N = n), n = 0 ... `n_max`, of Poisson purchases during `h` when the rate is Gamma(`shape`, `rate`): (G, n_max + 1)."""
    n = np.arange(n_max + 1, dtype=np.float64)
    ratio = np.asarray(h / rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.where(n > 0, n * (np.log(ratio) - np.log1p(ratio))[:, None], 0.0)
    logs = gammaln(shape[:, None] + n) - gammaln(shape)[:, None] - gammaln(n + 1)
    return np.exp(logs - (shape * np.log1p(ratio))[:, None] + grown)


def bg_pmf(shape: Floats, rate: Floats, a: float, b: Floats, h: float, n_max: int) -> Floats:
    """The same for one who is alive and drops out after each purchase by a chance that is Beta(`a`, `b`).

    Fader, Hardie and Lee 2005, equation 8; the sum in it is a regularised incomplete beta function.
    """
    n = np.arange(1, n_max + 1, dtype=np.float64)
    b = b[:, None]
    pmf = nbd_pmf(shape, rate, h, n_max)
    pmf[:, 1:] *= np.exp(betaln(a, b + n) - betaln(a, b))
    reached = betainc(n, shape[:, None], (h / (rate + h))[:, None])
    pmf[:, 1:] += np.exp(betaln(a + 1, b + n - 1) - betaln(a, b)) * reached
    return pmf


def with_the_gone(pmf: Floats, alive: Floats) -> Floats:
    """The mixture of `pmf` for those who are alive and no purchase for those who are not."""
    mixed = pmf * alive[:, None]
    mixed[:, 0] += 1 - alive
    return mixed
