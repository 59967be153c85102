"""Intervals that are true about as often as they say: nominal probabilities mapped to those that held on an inner origin. Pure.

Split conformal prediction with the distribution's own transform as score (Chernozhukov, Wüthrich and Zhu 2021, "Distributional conformal
prediction", PNAS 118), by strata of frequency and shrunk to the identity where a stratum has few customers. The map is monotone, so that
quantiles stay in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.evaluation import KINDS, Pit
from kiki.value.groups import Floats, Ints

STRATA: Final = (0, 1, 2, 6)
"""The least number of repeat purchases of each stratum: 0, 1, 2-5, 6 and more."""

STRATUM_NAMES: Final = ("0", "1", "2-5", "6+")

PRIOR_CUSTOMERS: Final = 200.0
"""So many customers' outcomes move a stratum half of the way from nominal to measured."""

SPARED: Final = 0.1
"""A correction that narrows intervals stops short of this share of a tail: an origin looks less far ahead than the forecast, and
levels and rates wander on, so that what was a little too wide there may be just right here. One that widens is made in full."""

_TAIL: Final = (0.0, 0.005, 0.01, 0.025, 0.05, 0.075)

PROBABILITIES: Final = np.concatenate([_TAIL, np.arange(10, 91, 5) / 100, 1 - np.array(_TAIL[::-1])])
"""Where the map is known; straight lines in between."""

_FINE: Final = np.linspace(0.0, 1.0, 1001)


def stratum(x: Ints) -> Ints:
    """The place in `STRATA` of each number of repeat purchases."""
    return (np.searchsorted(STRATA, x, side="right") - 1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Recalibration:
    """Which nominal probability to read off so that the answer is true."""

    tables: dict[str, Floats]
    """For "purchases" and "revenue": shape (strata, probabilities), growing along each row from 0 to 1."""
    customers: Ints
    """How many outcomes each stratum was measured on."""

    def levels(self, kind: str, p: float, x: Ints) -> Floats:
        """The probability to read off so that `p` is true, for customers with `x` repeat purchases."""
        rows = np.array([np.interp(p, PROBABILITIES, row) for row in self.tables[kind]])
        return rows[stratum(x)]

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, for a model file."""
        return {
            "strata": list(STRATUM_NAMES),
            "probabilities": PROBABILITIES.tolist(),
            "tables": {kind: table.tolist() for kind, table in self.tables.items()},
            "customers": self.customers.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The recalibration that `as_dict` wrote; raises `InvalidInput` for anything else."""
        try:
            tables = {kind: np.asarray(data["tables"][kind], dtype=np.float64) for kind in KINDS}
            customers = np.asarray(data["customers"], dtype=np.int64)
            same = list(data["strata"]) == list(STRATUM_NAMES) and data["probabilities"] == PROBABILITIES.tolist()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"this is no recalibration: {error!r}") from error
        shape = (len(STRATA), PROBABILITIES.size)
        if not same or customers.shape != shape[:1] or not all(_monotone(table, shape) for table in tables.values()):
            raise InvalidInput(
                "a recalibration maps probabilities to probabilities, growing, for each stratum of frequency"
            )
        return cls(tables, customers)


def recalibrate(pits: Mapping[str, Pit], x: Ints) -> Recalibration:
    """The map that makes these transforms uniform in each stratum, as far as there are customers to tell.

    `pits` are those of outcomes after one origin, by kind; `x` are the customers' repeat purchases before it.
    """
    places = stratum(x)
    customers = np.bincount(places, minlength=len(STRATA)).astype(np.int64)
    tables = {}
    for kind in KINDS:
        rows = []
        for place, count in enumerate(customers):
            measured = _inverse(pits[kind].take(places == place)) if count else PROBABILITIES
            share = count / (count + PRIOR_CUSTOMERS)
            rows.append(_careful(share * measured + (1 - share) * PROBABILITIES))
        tables[kind] = np.array(rows)
    return Recalibration(tables, customers)


def _careful(levels: Floats) -> Floats:
    """The same map with less of a correction that narrows."""
    moved = levels - PROBABILITIES
    spared = SPARED * np.minimum(PROBABILITIES, 1 - PROBABILITIES)
    inward = moved * (PROBABILITIES - 0.5) < 0
    kept = np.where(inward, np.sign(moved) * np.maximum(np.abs(moved) - spared, 0.0), moved)
    return np.maximum.accumulate(PROBABILITIES + kept)


def _inverse(pit: Pit) -> Floats:
    """For each probability, the level that this share of the transforms is below."""
    reached = np.maximum.accumulate(np.clip(pit.reached(_FINE), 0.0, 1.0))
    reached += 1e-9 * _FINE  # where no transform lies, any level of the stretch would do
    found = np.interp(PROBABILITIES, reached / reached[-1], _FINE)
    found[0], found[-1] = 0.0, 1.0
    return found


def _monotone(table: Floats, shape: tuple[int, int]) -> bool:
    return (
        table.shape == shape
        and bool(np.isfinite(table).all())
        and bool((np.diff(table, axis=1) >= 0).all())
        and bool((table[:, 0] == 0).all() and (table[:, -1] == 1).all())
    )
