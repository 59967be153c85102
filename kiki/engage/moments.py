"""What one side of an experiment came to, as sums: enough for every estimate, additive, and about nobody in particular. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np

from kiki.engage.outcomes import Floats


class Moments(NamedTuple):
    """Sums over the persons of one side whose outcome window is over."""

    persons: int = 0
    active: int = 0
    """Persons whose outcome is not zero."""
    total: float = 0.0
    squares: float = 0.0
    before: float = 0.0
    """The same of what they did in a period before they were assigned; zero where that is not known."""
    before_squares: float = 0.0
    products: float = 0.0

    @classmethod
    def of(cls, outcome: Iterable[float] | Floats, before: Iterable[float] | Floats | None = None) -> Self:
        """The sums of these outcomes, one for each person."""
        y = np.asarray(list(outcome) if not isinstance(outcome, np.ndarray) else outcome, dtype=float)
        if before is None:
            return cls(y.size, int(np.count_nonzero(y)), float(y.sum()), float(y @ y))
        x = np.asarray(list(before) if not isinstance(before, np.ndarray) else before, dtype=float)
        found = (y.sum(), y @ y, x.sum(), x @ x, x @ y)
        return cls(y.size, int(np.count_nonzero(y)), *map(float, found))

    def plus(self, other: Moments) -> Moments:
        """Both sets of persons together."""
        return Moments(
            self.persons + other.persons,
            self.active + other.active,
            self.total + other.total,
            self.squares + other.squares,
            self.before + other.before,
            self.before_squares + other.before_squares,
            self.products + other.products,
        )

    @property
    def mean(self) -> float:
        """The mean outcome."""
        return self.total / self.persons if self.persons else 0.0

    @property
    def variance(self) -> float:
        """The variance of the outcome."""
        if self.persons < 2:
            return 0.0
        return max(0.0, (self.squares - self.persons * self.mean**2) / (self.persons - 1))

    def adjusted(self, slope: float, middle: float) -> Moments:
        """The sums of the outcome less `slope` times what the past differs from `middle`."""
        shift = slope * middle
        total = self.total - slope * self.before + self.persons * shift
        squares = (
            self.squares
            + slope**2 * self.before_squares
            + self.persons * shift**2
            - 2 * slope * self.products
            + 2 * shift * self.total
            - 2 * slope * shift * self.before
        )
        return self._replace(total=total, squares=max(squares, 0.0))
