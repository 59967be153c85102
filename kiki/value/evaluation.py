"""How good forecasts were, once the outcomes are known: of point forecasts, of rankings, and of whole distributions. Pure.

Means are judged by RMSE, Poisson deviance and bias; medians by the mean absolute error, which they alone minimise. Distributions are
judged by the probability integral transform. An outcome y that has a probability of its own leaves the transform open
between F(y-) and F(y); the usual cure draws a number in between at random (Smith 1985). What is reported here is the expectation over
that draw (Czado, Gneiting and Held 2009, "Predictive Model Assessment for Count Data", Biometrics 65): the same figure, without its noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.money import MICROS
from kiki.value.deciles import deciles
from kiki.value.groups import Floats, Ints
from kiki.value.purchases import Outcomes, Purchases

KINDS: Final = ("purchases", "revenue")
"""What is forecast."""

LEVELS: Final = (80, 90, 95)
"""The intervals, in per cent: central ones, which leave as much out above as below."""

DEVIANCE_FLOOR: Final = 1e-6
"""A smaller mean counts as this one in the deviance, which is infinite where nothing was expected and something came."""

_NARROW: Final = 1e-6
"""A transform that is known better than this is taken to be this wide, where many are added up."""

_GOLDEN: Final = (5**0.5 - 1) / 2


class Pit(NamedTuple):
    """The probability integral transform of each outcome: anywhere between `before` and `at`."""

    before: Floats
    """F(y-): the forecast chance of less than what came."""
    at: Floats
    """F(y): of what came, or less."""

    def values(self) -> Floats:
        """One value in between for each outcome, for a histogram: spread evenly by the golden ratio, the same on each call."""
        share = np.mod((np.arange(self.at.size) + 0.5) * _GOLDEN, 1.0)
        return np.clip(self.before + share * (self.at - self.before), 0.0, 1.0)

    def chance_below(self, level: Floats | float) -> Floats:
        """The chance, over the draw in between, that the transform is `level` or less; one for each outcome."""
        width = self.at - self.before
        point = width <= 1e-12
        inside = (level - self.before) / np.where(point, 1.0, width)
        return np.where(point, self.at <= level, np.clip(inside, 0.0, 1.0))

    def reached(self, levels: Floats) -> Floats:
        """The share of the transforms that are `levels` or less, over the draws in between; shape of `levels`."""
        width = np.maximum(self.at - self.before, _NARROW)
        begun, ended = _ramps(self.before, 1 / width, levels), _ramps(self.before + width, 1 / width, levels)
        return (begun - ended) / self.at.size

    def covered(self, lower: Floats | float, upper: Floats | float) -> Floats:
        """The chance that an outcome lies between the quantiles `lower` and `upper` of its distribution."""
        return np.maximum(self.chance_below(upper) - self.chance_below(lower), 0.0)

    def take(self, rows: npt.NDArray[np.bool_] | Ints) -> Pit:
        """These outcomes only."""
        return Pit(self.before[rows], self.at[rows])


class Distribution(Protocol):
    """What `judge` asks of a forecast: `kiki.value.prediction.Predictive` answers it."""

    @property
    def purchases(self) -> Purchases:
        """The customers."""
        ...

    def mean(self, kind: str, /) -> Floats:
        """One for each customer."""
        ...

    def quantile(self, kind: str, p: Floats | float, /) -> Floats:
        """The smallest outcome whose probability of not being exceeded is `p`."""
        ...

    def cdf(self, kind: str, y: Floats, /) -> tuple[Floats, Floats]:
        """F(y-) and F(y)."""
        ...


class Levels(Protocol):
    """What reads a true probability off: `kiki.value.conformal.Recalibration` answers it."""

    def levels(self, kind: str, p: float, x: Ints, /) -> Floats:
        """Which nominal probability to read so that `p` is true, one for each customer."""
        ...


@dataclass(frozen=True)
class Metrics:
    """How good the forecast of one quantity was. None where a figure has no meaning: nobody bought, or all forecasts are equal."""

    mae_median: float
    """The mean absolute error of the medians."""
    rmse_mean: float
    """The root of the mean squared error of the means."""
    poisson_deviance_mean: float
    """The mean over customers of 2 (y ln(y / m) - y + m), m the mean forecast."""
    bias_percent: float | None
    """How much the sum of the means is above the sum of the outcomes."""
    spearman: float | None
    """The rank correlation of means and outcomes."""
    top_decile_capture: float | None
    """The share of all outcomes that the tenth with the highest means brought, between 0 and 1."""
    coverage: dict[int, float] | None = None
    """The share of outcomes inside of the 80, 90 and 95 % interval; None for a forecast without intervals."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: coverage under "80", "90", "95"."""
        found = {name: getattr(self, name) for name in _FIGURES}
        coverage = None if self.coverage is None else {str(level): share for level, share in self.coverage.items()}
        return found | {"coverage": coverage}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Metrics:
        """What `as_dict` wrote; raises `InvalidInput` for anything else."""
        try:
            coverage = data["coverage"]
            return cls(
                **{name: data[name] for name in _FIGURES},
                coverage=None if coverage is None else {int(level): float(share) for level, share in coverage.items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"these are no metrics of a forecast: {error!r}") from error


_FIGURES: Final = (
    "mae_median",
    "rmse_mean",
    "poisson_deviance_mean",
    "bias_percent",
    "spearman",
    "top_decile_capture",
)


def actual(kind: str, done: Outcomes) -> Floats:
    """What came, of "purchases" or "revenue" (in the currency), one for each customer. Raises `InvalidInput` for another kind."""
    if kind == "purchases":
        return done.purchases.astype(np.float64)
    if kind == "revenue":
        return done.micros / MICROS
    raise InvalidInput(f"{kind!r} is not forecast; the kinds are {', '.join(KINDS)}")


def judge(forecast: Distribution, done: Outcomes, recalibration: Levels | None = None) -> dict[str, Metrics]:
    """The metrics of "purchases" and "revenue" of a whole distribution, its medians and intervals recalibrated if wished."""
    found = {}
    x = forecast.purchases.x
    for kind in KINDS:
        came = actual(kind, done)
        half = 0.5 if recalibration is None else recalibration.levels(kind, 0.5, x)
        found[kind] = measure(
            came,
            forecast.mean(kind),
            forecast.quantile(kind, half),
            coverage=coverage(Pit(*forecast.cdf(kind, came)), kind, x, recalibration),
        )
    return found


def measure(
    came: npt.ArrayLike, mean: npt.ArrayLike, median: npt.ArrayLike, *, coverage: dict[int, float] | None = None
) -> Metrics:
    """The metrics of forecasts by their `mean` and `median`, given what `came`.

    Raises `InvalidInput` for columns of different length, without a row, with a value that is not finite, or below zero.
    """
    y, m, half = (np.asarray(column, dtype=np.float64) for column in (came, mean, median))
    if not (y.shape == m.shape == half.shape) or y.ndim != 1 or not y.size:
        raise InvalidInput("outcomes, means and medians are columns of one length, of one customer at least")
    if not all(np.isfinite(column).all() and (column >= 0).all() for column in (y, m, half)):
        raise InvalidInput("outcomes, means and medians are finite numbers, 0 or more")
    total = float(y.sum())
    return Metrics(
        mae_median=float(np.abs(half - y).mean()),
        rmse_mean=float(np.sqrt(((m - y) ** 2).mean())),
        poisson_deviance_mean=float(deviances(y, m).mean()),
        bias_percent=100 * (float(m.sum()) / total - 1) if total > 0 else None,
        spearman=_rank_correlation(m, y),
        top_decile_capture=float(deciles(m, y).share[0]) if total > 0 else None,
        coverage=coverage,
    )


def deviances(came: Floats, mean: Floats) -> Floats:
    """The Poisson deviance of each outcome, 2 (y ln(y / m) - y + m), with m at least `DEVIANCE_FLOOR`."""
    m = np.maximum(mean, DEVIANCE_FLOOR)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(came > 0, came * np.log(came / m), 0.0)
    return 2 * (surprise - came + m)


def covered(pit: Pit, kind: str, x: Ints, recalibration: Levels | None = None) -> dict[int, Floats]:
    """The chance of each outcome to lie inside of the central 80, 90 and 95 % intervals of its distribution, by level."""
    found = {}
    for level in LEVELS:
        out = (1 - level / 100) / 2
        lower: Floats | float = out
        upper: Floats | float = 1 - out
        if recalibration is not None:
            lower, upper = recalibration.levels(kind, out, x), recalibration.levels(kind, 1 - out, x)
        found[level] = pit.covered(lower, upper)
    return found


def coverage(pit: Pit, kind: str, x: Ints, recalibration: Levels | None = None) -> dict[int, float]:
    """The shares of all outcomes inside of those intervals."""
    return {level: float(chances.mean()) for level, chances in covered(pit, kind, x, recalibration).items()}


def report(
    found: Mapping[str, Metrics],
    baselines: Mapping[str, Mapping[str, Metrics]],
    *,
    fit_seconds: float | None,
    refusal: str | None,
) -> dict[str, Any]:
    """What `kiki ltv evaluate --json` prints; `refusal` says why no calibration is claimed, None when it is."""
    whole: dict[str, Any] = {}
    for kind in KINDS:
        claim = {"coverage_claimed": refusal is None} | ({} if refusal is None else {"reason": refusal})
        whole[kind] = found[kind].as_dict() | claim
    none = {
        "coverage_claimed": False,
        "reason": "a point has no interval: coverage is the share of outcomes that it hit",
    }
    whole["baselines"] = {
        name: {kind: metrics[kind].as_dict() | none for kind in KINDS} for name, metrics in baselines.items()
    }
    return whole | {"fit_seconds": fit_seconds}


def _ramps(begins: Floats, slopes: Floats, at: Floats) -> Floats:
    """The sum over `begins` of slope * (at - begin), of those that begin before."""
    order = np.argsort(begins)
    slope = np.concatenate([[0.0], np.cumsum(slopes[order])])
    taken = np.concatenate([[0.0], np.cumsum((slopes * begins)[order])])
    place = np.searchsorted(begins[order], at)
    return at * slope[place] - taken[place]


def _rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's, ties at their mean rank; None where all values of one are equal."""
    # It takes half a second to load, and a service that only predicts needs none of it.
    from scipy.stats import rankdata

    a, b = rankdata(first), rankdata(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else None
