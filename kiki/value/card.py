"""What was measured of a model before anybody relied on it: the card that goes into its file. Pure.

Everything on it comes from rolling origins inside of the calibration: forecasts of days that the forecaster had not seen. What cannot
be claimed is said, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final, Self

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.conformal import STRATUM_NAMES
from kiki.value.evaluation import KINDS, LEVELS, Metrics, Pit

BINS: Final = 10
"""Of the histogram of the probability integral transform."""

Coverage = dict[str, dict[int, float]]
"""By kind, by level in per cent: the share of outcomes inside of the interval."""


@dataclass(frozen=True)
class OriginScore:
    """One rolling origin: what the model forecast there, and what came."""

    end: date
    """The last day that was known."""
    until: date
    """The last day that was forecast."""
    customers: int
    purchases: int
    """How many came in all."""
    metrics: dict[str, Metrics]
    """By kind; coverage is that of intervals recalibrated on the other origins."""
    raw_coverage: Coverage
    """The same without recalibration."""
    by_stratum: dict[str, dict[str, dict[int, float]]]
    """By kind, by repeat purchases ("0", "1", "2-5", "6+"), by level; strata without a customer are left out."""
    pit: dict[str, tuple[float, ...]]
    """By kind: the shares of the transforms in ten bins of equal width; each is 0.1 where the distribution is true."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "end": self.end.isoformat(),
            "until": self.until.isoformat(),
            "customers": self.customers,
            "purchases": self.purchases,
            "metrics": {kind: metrics.as_dict() for kind, metrics in self.metrics.items()},
            "raw_coverage": {kind: _named(levels) for kind, levels in self.raw_coverage.items()},
            "by_stratum": {
                kind: {name: _named(levels) for name, levels in strata.items()}
                for kind, strata in self.by_stratum.items()
            },
            "pit": {kind: list(shares) for kind, shares in self.pit.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `as_dict` wrote."""
        return cls(
            end=date.fromisoformat(data["end"]),
            until=date.fromisoformat(data["until"]),
            customers=int(data["customers"]),
            purchases=int(data["purchases"]),
            metrics={kind: Metrics.from_dict(data["metrics"][kind]) for kind in KINDS},
            raw_coverage={kind: _numbered(data["raw_coverage"][kind]) for kind in KINDS},
            by_stratum={
                kind: {name: _numbered(levels) for name, levels in data["by_stratum"][kind].items()} for kind in KINDS
            },
            pit={kind: tuple(float(share) for share in data["pit"][kind]) for kind in KINDS},
        )


@dataclass(frozen=True)
class PartScore:
    """One model of the mixture."""

    model: str
    weight: float
    gradient_max: float
    """What was left of the gradient, a customer."""
    converged: bool
    at_boundary: tuple[str, ...] = ()
    """Parameters that the data do not tell."""


@dataclass(frozen=True)
class HonestyCard:
    """What is known of how good a model is."""

    first_day: date
    calibration_end: date
    unit: str
    horizon: float
    """What was fitted for, in the unit; forecasts of another horizon are further from what was measured."""
    customers: int
    sampled_customers: int
    """So many of them the origins were run with."""
    fingerprint: str
    """SHA-256 of the histories that the model was fitted on."""
    parts: tuple[PartScore, ...]
    shape_weight: float
    """How much of a correction of the shape there is, 0 to 1."""
    level_spread: float | None
    """The root mean square of ln(purchases that came / forecast) over the origins: how far the level swings."""
    origins: tuple[OriginScore, ...]
    """Growing; none where the log is too short."""
    refusal: str | None
    """Why the intervals are not claimed to be true about as often as they say; None when they are."""
    notes: tuple[str, ...] = ()

    @property
    def coverage_claimed(self) -> bool:
        """Whether intervals may be taken to be true about as often as they say."""
        return self.refusal is None

    @property
    def coverage(self) -> Coverage | None:
        """Measured on the last origin, with intervals recalibrated on the others; None without an origin."""
        if not self.origins:
            return None
        return {kind: dict(metrics.coverage or {}) for kind, metrics in self.origins[-1].metrics.items()}

    def sentences(self) -> list[str]:
        """The card in words."""
        said = [f"calibration is not claimed: {self.refusal}"] if self.refusal else []
        for score in self.origins[-1:]:
            for kind in KINDS:
                metrics = score.metrics[kind]
                shares = ", ".join(
                    f"{100 * share:.0f} % at {level} %" for level, share in (metrics.coverage or {}).items()
                )
                bias = (
                    ""
                    if metrics.bias_percent is None
                    else f"; the sum of the forecasts was off by {metrics.bias_percent:+.0f} %"
                )
                said.append(
                    f"{kind} from {score.end} to {score.until}, {score.customers:,} customers: intervals held {shares}{bias}"
                )
        if self.sampled_customers < self.customers:
            said.append(f"measured on a sample of {self.sampled_customers:,} of {self.customers:,} customers")
        return [*said, *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, for a model file."""
        return {
            "first_day": self.first_day.isoformat(),
            "calibration_end": self.calibration_end.isoformat(),
            "unit": self.unit,
            "horizon": self.horizon,
            "customers": self.customers,
            "sampled_customers": self.sampled_customers,
            "fingerprint": self.fingerprint,
            "parts": [asdict(part) | {"at_boundary": list(part.at_boundary)} for part in self.parts],
            "shape_weight": self.shape_weight,
            "level_spread": self.level_spread,
            "origins": [score.as_dict() for score in self.origins],
            "coverage_claimed": self.coverage_claimed,
            "refusal": self.refusal,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The card that `as_dict` wrote; raises `InvalidInput` for anything else."""
        try:
            return cls(
                first_day=date.fromisoformat(data["first_day"]),
                calibration_end=date.fromisoformat(data["calibration_end"]),
                unit=str(data["unit"]),
                horizon=float(data["horizon"]),
                customers=int(data["customers"]),
                sampled_customers=int(data["sampled_customers"]),
                fingerprint=str(data["fingerprint"]),
                parts=tuple(PartScore(**{**part, "at_boundary": tuple(part["at_boundary"])}) for part in data["parts"]),
                shape_weight=float(data["shape_weight"]),
                level_spread=None if data["level_spread"] is None else float(data["level_spread"]),
                origins=tuple(OriginScore.from_dict(score) for score in data["origins"]),
                refusal=None if data["refusal"] is None else str(data["refusal"]),
                notes=tuple(str(note) for note in data["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # InvalidInput is a ValueError
            raise InvalidInput(f"this is no honesty card: {error!r}") from error


def histogram(pit: Pit) -> tuple[float, ...]:
    """The shares of the transforms in ten bins of equal width."""
    reached = np.clip(pit.reached(np.linspace(0, 1, BINS + 1)[1:-1]), 0.0, 1.0)
    return tuple(np.diff(np.concatenate([[0.0], reached, [1.0]])).tolist())


def strata(covered: Mapping[int, np.ndarray], places: np.ndarray) -> dict[str, dict[int, float]]:
    """The means of the shares `covered`, by level, in each stratum that has customers; `places` are the customers' strata."""
    return {
        name: {level: float(covered[level][places == place].mean()) for level in LEVELS}
        for place, name in enumerate(STRATUM_NAMES)
        if (places == place).any()
    }


def _named(levels: Mapping[int, float]) -> dict[str, float]:
    return {str(level): share for level, share in levels.items()}


def _numbered(levels: Mapping[str, float]) -> dict[int, float]:
    return {int(level): float(share) for level, share in levels.items()}
