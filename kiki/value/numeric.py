"""Arithmetic that the models share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from scipy.special import betainc, hyp2f1

from kiki.value.groups import Floats, Groups

_BLOCK: Final = 4096
"""So many rows at a time: what a model keeps of them between two lines then fits into a processor's cache."""

_NUMBERS: Final = 32_768
"""So many chances at a time, for the same reason."""

_LOG_NONE: Final = -1e300
"""The logarithm of a chance of nothing, which may be multiplied by 0."""

_CONCENTRATED: Final = 12.0
"""A Beta distribution with a larger a than this is narrow: a few nodes give its means, where 2F1 overflows."""

_NEAR: Final = 1e-4
"""So close to a = 1 the formula of BG/NBD loses too many digits."""


class Rows(Protocol):
    """What a likelihood adds up over: a tuple of columns, one of which is the weight."""

    @property
    def weight(self) -> Floats:
        """How many customers a row stands for."""
        ...


R = TypeVar("R", bound=Rows)

Derivatives = tuple[Floats, Floats, Floats]
"""Values (rows,), gradient (parameters, rows), and the Hessian's weighted sum over the rows (parameters, parameters)."""


class Total(NamedTuple):
    """A logarithm of a likelihood over all customers, with its derivatives in the logarithms of the parameters."""

    value: float
    gradient: Floats
    """Shape (parameters,)."""
    hessian: Floats
    """Shape (parameters, parameters)."""


def in_logs(derivatives: Callable[[Floats, R], Derivatives], theta: Floats, rows: R) -> tuple[Floats, Floats]:
    """Value and gradient of each row at the parameters exp(`theta`), the gradient in `theta`."""
    p = np.exp(theta)
    parts = [derivatives(p, block)[:2] for block in blocks(rows)]
    return np.concatenate([value for value, _ in parts]), np.hstack([gradient for _, gradient in parts]) * p[:, None]


def total_in_logs(derivatives: Callable[[Floats, R], Derivatives], theta: Floats, rows: R) -> Total:
    """The sum over all customers at the parameters exp(`theta`), its derivatives in `theta`."""
    p = np.exp(theta)
    value, gradient, hessian = 0.0, np.zeros(p.size), np.zeros((p.size, p.size))
    for block in blocks(rows):
        values, slopes, curvature = derivatives(p, block)
        value += float(block.weight @ values)
        gradient += slopes @ block.weight
        hessian += curvature
    return Total(value, gradient * p, hessian * np.outer(p, p) + np.diag(gradient * p))


def blocks(rows: R) -> Iterator[R]:
    """The rows in pieces of a bounded size; columns are views, nothing is copied."""
    if rows.weight.size <= _BLOCK:
        yield rows
        return
    again: Callable[..., R] = type(rows)
    columns = cast("tuple[Floats, ...]", rows)
    for first in range(0, rows.weight.size, _BLOCK):
        yield again(*(column[first : first + _BLOCK] for column in columns))


def either(
    weight: Floats, alive: tuple[Floats, Floats], gone: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """The logarithm of a sum of two likelihoods, each given as logarithm (rows,) and gradient (parameters, rows).

    Answers value, gradient, the share of each of the two, and of the Hessian's weighted sum what comes from the mixing; the
    Hessians of the two, weighted by the shares, are to be added.
    """
    total = log_add(alive[0], gone[0])
    p_alive, p_gone = np.exp(alive[0] - total), np.exp(gone[0] - total)
    apart = alive[1] - gone[1]
    mixing = np.einsum("pg,qg,g->pq", apart, apart, weight * p_alive * p_gone)
    return total, p_alive * alive[1] + p_gone * gone[1], p_alive, p_gone, mixing


def beta_dropout(p: Floats, groups: Groups, chances: Floats) -> Derivatives:
    """The likelihood of the BG/NBD family, where each of so many `chances` to drop out was one of Beta(a, b).

    Fader, Hardie and Lee 2005, equation 6, with x chances; with x + 1, the MBG/NBD of Batislam et al. 2007.
    """
    r, alpha, a, b = p
    n, w = groups.x, groups.weight
    gammas, alone, together = rising(r, n), rising(b, chances), rising(a + b, chances)
    possible = chances > 0
    # Nobody who never had a chance is gone; the 1 keeps logarithms of what is then not used finite.
    kept = np.where(possible, b + chances - 1, 1.0)
    # With times as multiples of alpha: where r and alpha are large every term then stays small.
    log_age, log_last = np.log1p(groups.t / alpha), np.log1p(groups.tx / alpha)
    age, last = groups.t / (alpha * (alpha + groups.t)), groups.tx / (alpha * (alpha + groups.tx))
    none = np.zeros_like(n)
    alive = -(r + n) * log_age, np.stack([-log_age, (r + n) * age, none, none])
    gone_value = np.where(possible, np.log(a / kept) - (r + n) * log_last, -np.inf)
    gone = gone_value, np.stack([-log_last, (r + n) * last, none + 1 / a, -1 / kept])
    value, gradient, p_alive, p_gone, hessian = either(w, alive, gone)
    value += gammas[0] + alone[0] - together[0] - n * np.log(alpha)
    gradient += np.stack([gammas[1], -n / alpha, -together[1], alone[1] - together[1]])
    hessian[0, 0] += w @ gammas[2]
    hessian[0, 1] += w @ (p_alive * age + p_gone * last)
    hessian[1, 0] = hessian[0, 1]
    bent = p_alive * age * (age - 2 / alpha) + p_gone * last * (last - 2 / alpha)
    hessian[1, 1] += w @ ((r + n) * bent + n / alpha**2)
    hessian[2:, 2:] -= w @ together[2]
    hessian[2, 2] -= w @ p_gone / a**2
    hessian[3, 3] += w @ (alone[2] + p_gone / kept**2)
    return value, gradient, hessian


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


def rising(first: float, count: Floats) -> Floats:
    """The logarithm of `first` (`first` + 1) ... over `count` factors, and its first two derivatives in `first`: (3, rows).

    The difference of two log gamma functions, without their loss of digits where `first` is large. Counts are whole.
    """
    factors = first + np.arange(int(count.max(initial=0)), dtype=np.float64)
    table = np.zeros((3, factors.size + 1))
    np.cumsum([np.log(factors), 1 / factors, -1 / factors**2], axis=1, out=table[:, 1:])
    return table[:, count.astype(np.int64)]


def nbd_pmf(shape: Floats, rate: Floats, h: Floats | float, n_max: int) -> Floats:
    """P(N = n), n = 0 ... `n_max`, of Poisson purchases during `h` when the rate is Gamma(`shape`, `rate`): (G, n_max + 1)."""
    return nbd_pmf_mixed(shape, rate, [(np.broadcast_to(h, shape.shape), np.ones_like(shape))], n_max)


def nbd_pmf_mixed(shape: Floats, rate: Floats, periods: Sequence[tuple[Floats, Floats]], n_max: int) -> Floats:
    """The sum of `nbd_pmf` over `periods`, each a column of h and one of weights."""
    n = np.arange(n_max + 1, dtype=np.float64)
    found = np.zeros((shape.size, n_max + 1))
    step = max(_NUMBERS // n.size, 1)
    for first in range(0, shape.size, step):
        rows = slice(first, first + step)
        mine, total = shape[rows], found[rows]
        # Sums of logarithms are a tenth of the work of log gamma functions, and the same for every period.
        ways, logs = np.zeros_like(total), np.empty_like(total)
        np.cumsum(np.log((mine[:, None] + n[:-1]) / n[1:]), axis=1, out=ways[:, 1:])
        for h, weight in periods:
            ratio = h[rows] / rate[rows]
            log_age = np.log1p(ratio)
            with np.errstate(divide="ignore"):
                grown = np.maximum(np.log(ratio) - log_age, _LOG_NONE)
                start = np.log(weight[rows]) - mine * log_age
            np.multiply(grown[:, None], n, out=logs)
            logs += ways
            logs += start[:, None]
            total += np.exp(logs, out=logs)
    return found


def bg_pmf(shape: Floats, rate: Floats, a: float, b: Floats, h: float, n_max: int) -> Floats:
    """The same for one who is alive and drops out after each purchase by a chance that is Beta(`a`, `b`).

    Fader, Hardie and Lee 2005, equation 8; the regularised incomplete beta function in it is the chance of n purchases or more.
    """
    n = np.arange(n_max, dtype=np.float64)
    b = b[:, None]
    pmf = nbd_pmf(shape, rate, h, n_max)
    beyond = betainc(n_max + 1.0, shape, h / (rate + h))
    # Added up from the end, so that small chances keep their digits.
    reached = np.cumsum(pmf[:, :0:-1], axis=1)[:, ::-1] + beyond[:, None]
    # B(a, b + n) / B(a, b), the chance to stay n times, and B(a + 1, b + n - 1) / B(a, b), to stay n - 1 times and to go.
    stays = np.exp(np.cumsum(np.log((b + n) / (a + b + n)), axis=1))
    pmf[:, 1:] *= stays
    pmf[:, 1:] += stays * (a / (b + n)) * reached
    return pmf


def bg_expected(shape: Floats, rate: Floats, a: float, b: Floats, h: Floats | float) -> Floats:
    """The mean of `bg_pmf`: equation 10 of Fader, Hardie and Lee 2005 for one who is alive, all columns (G,)."""
    h = np.broadcast_to(h, rate.shape)
    if a > _CONCENTRATED:
        return _bg_expected_at_nodes(shape, h / rate, a, b, nodes=16)
    if abs(a - 1) < _NEAR:
        # 0 / 0 at 1, and few digits beside it: a line between two places far enough off is right to 1e-8.
        low, high = (bg_expected(shape, rate, 1 + sign * 2 * _NEAR, b, h) for sign in (-1, 1))
        return low + (high - low) * ((a - 1 + 2 * _NEAR) / (4 * _NEAR))
    # Euler's transformation of the paper's 2F1, which overflows for frequent buyers.
    left = rate / (rate + h)
    with np.errstate(over="ignore", invalid="ignore"):
        head = 1 - left ** (a - 1) * hyp2f1(a + b - 1 - shape, a - 1, a + b - 1, 1 - left)
    found = np.maximum((a + b - 1) / (a - 1) * head, 0.0)
    # When h is hundreds of times the age and b is in the hundreds, 2F1 gives up; nodes are then right to about 1 %.
    lost = ~np.isfinite(found)
    if lost.any():
        found[lost] = _bg_expected_at_nodes(shape[lost], h[lost] / rate[lost], a, b[lost], nodes=64)
    return found


def _bg_expected_at_nodes(shape: Floats, grown: Floats, a: float, b: Floats, nodes: int) -> Floats:
    """The same as a mean over the chance of dropping out, (1 - (1 + chance * grown)^-shape) / chance."""
    values, index = np.unique(b, return_inverse=True)
    chance, share = _beta_nodes(a, values, nodes)
    chance, share = chance[index], share[index]
    gone = -np.expm1(-shape[:, None] * np.log1p(chance * grown[:, None]))
    return np.asarray((share * gone / chance).sum(axis=1))


def _beta_nodes(a: float, b: Floats, nodes: int) -> tuple[Floats, Floats]:
    """Nodes and weights of a mean over Beta(`a`, `b`), both (len(b), nodes): Gauss-Jacobi by Golub and Welsch 1969."""
    upper, lower = a - 1, b[:, None] - 1
    n = np.arange(nodes)
    twice = 2 * n + upper + lower
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (upper - lower) * (upper + lower) / (twice * (twice + 2))
    middle[:, :1] = (upper - lower) / (upper + lower + 2)
    later, twice = n[1:], twice[:, 1:]
    beside = 4 * later * (later + upper) * (later + lower) / (twice**2 * (twice + 1))
    # At n = 1 the two factors are equal, and may both be 0.
    beside[:, 1:] *= (later[1:] + upper + lower) / (twice[:, 1:] - 1)
    matrix = np.zeros((b.size, nodes, nodes))
    matrix[:, n, n] = middle
    matrix[:, later, later - 1] = np.sqrt(beside)
    places, vectors = np.linalg.eigh(matrix)
    return np.clip((1 + places) / 2, 1e-300, 1.0), vectors[:, 0, :] ** 2


def with_the_gone(pmf: Floats, alive: Floats) -> Floats:
    """The mixture of `pmf` for those who are alive and no purchase for those who are not."""
    mixed = pmf * alive[:, None]
    mixed[:, 0] += 1 - alive
    return mixed
