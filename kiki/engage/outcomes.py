"""What happened to people who were given an arm by chance: what effects and policies are learned and judged from. Pure.

Amounts are micros; here they are measurements to be averaged, so that floats are as good as whole numbers. The margin is
before the cost of the contact, which stands beside it: the same outcomes can be asked at several costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Features = Mapping[str, npt.NDArray[Any]]
"""By name a column: numbers, or words for categories."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Randomised persons: who they were before, what they were given, what came of it."""

    features: Features
    """Known when the arm was drawn, never later."""
    arms: tuple[str, ...]
    """The first is the control."""
    arm: Ints
    """By person the place of the arm in `arms`."""
    margin: Floats
    """By person what was earned from the draw on, whether the arm reached them or not."""
    costs: Floats
    """By arm what giving it costs each time."""
    propensity: Floats
    """Persons by arms: the chance that each arm had."""
    early: Floats | None = None
    """By person a denser outcome that comes before the margin (a visit): more can be learned from it."""

    @classmethod
    def of(
        cls,
        features: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
        arm: Sequence[str] | npt.NDArray[Any],
        margin: Sequence[float] | npt.NDArray[Any],
        *,
        control: str,
        costs: Mapping[str, float] | None = None,
        early: Sequence[float] | npt.NDArray[Any] | None = None,
        propensity: Mapping[str, float] | npt.NDArray[Any] | None = None,
    ) -> Self:
        """Outcomes from columns; raises `InvalidInput`.

        `propensity` is by arm, or persons by arms (the control first, then the others by name); without it the arms
        count as drawn with the shares that they have.
        """
        names = np.asarray(arm).astype(str)
        found = [control, *sorted(set(names.tolist()) - {control})]
        place = {name: number for number, name in enumerate(found)}
        drawn = np.array([place[name] for name in names.tolist()], dtype=np.int64)
        rows = drawn.size
        unknown = set(costs or ()) - set(found)
        if unknown:
            raise InvalidInput(f"costs name arms that nobody was given: {', '.join(sorted(unknown))}")
        if propensity is None:
            chances = np.bincount(drawn, minlength=len(found)) / max(rows, 1)
        elif isinstance(propensity, Mapping):
            if missing := set(found) - set(propensity):
                raise InvalidInput(f"propensity says nothing about {', '.join(sorted(missing))}")
            chances = np.array([propensity[name] for name in found], dtype=float)
        else:
            chances = np.asarray(propensity, dtype=float)
        made = cls(
            features={name: _column(name, column, rows) for name, column in features.items()},
            arms=tuple(found),
            arm=drawn,
            margin=_numbers("margin", margin, rows),
            costs=np.array([(costs or {}).get(name, 0.0) for name in found], dtype=float),
            propensity=np.broadcast_to(chances, (rows, len(found))),
            early=None if early is None else _numbers("early", early, rows),
        )
        chance = made.propensity[np.arange(rows), drawn] if made.propensity.shape == (rows, len(found)) else None
        if chance is None or bool(np.any((chance <= 0) | (chance > 1))):
            raise InvalidInput("a propensity is the chance of an arm that was given: above 0, at most 1")
        return made

    def __len__(self) -> int:
        return int(self.arm.size)

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """Only these persons: numbers, or a mask."""
        return replace(
            self,
            features={name: column[rows] for name, column in self.features.items()},
            arm=self.arm[rows],
            margin=self.margin[rows],
            propensity=self.propensity[rows],
            early=None if self.early is None else self.early[rows],
        )

    def place_of(self, arm: str) -> int:
        """The place of an arm; raises `InvalidInput`."""
        if arm not in self.arms:
            raise InvalidInput(f"{arm!r} is none of the arms: {', '.join(self.arms)}")
        return self.arms.index(arm)


def _column(name: str, given: Sequence[Any] | npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    column = np.asarray(given)
    if column.shape != (rows,):
        raise InvalidInput(f"the feature {name!r} has the shape {column.shape}, and there are {rows} persons")
    return column.astype(float) if column.dtype.kind in "biuf" else column.astype(str)


def _numbers(name: str, given: Sequence[float] | npt.NDArray[Any], rows: int) -> Floats:
    try:
        column = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} are numbers") from None
    if column.shape != (rows,):
        raise InvalidInput(f"{name} has the shape {column.shape}, and there are {rows} persons")
    if not np.all(np.isfinite(column)):
        raise InvalidInput(f"{name} are finite numbers: who bought nothing has 0")
    return column
