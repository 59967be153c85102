"""A linear regression whose slopes are shrunk as much as the data ask for: empirical Bayes. Pure.

The slopes have the prior N(0, s²), and s² is where the data are most likely: slopes that noise explains become zero, so
that everybody gets the average. The noise is taken as it is (a sandwich covariance), because the spread of money grows
with the customer. Efron and Morris 1975; the sandwich is White 1980.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np

from kiki.engage.outcomes import Floats

_GRID: Final = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 60)])


class ShrunkLine(NamedTuple):
    """Intercept and slopes with what is still unknown about them."""

    intercept: float
    slopes: Floats
    centre: Floats
    intercept_variance: float
    covariance: Floats
    """Of the slopes, given the data."""
    spread: float
    """The prior's s: 0 says that nothing but the average was found."""

    @classmethod
    def fit(cls, columns: Floats, values: Floats) -> Self:
        """The line through these values."""
        rows, count = columns.shape
        mean = float(values.mean()) if rows else 0.0
        variance = float(values.var()) / rows if rows else 0.0
        centre = columns.mean(axis=0) if rows else np.zeros(count)
        none = cls(mean, np.zeros(count), centre, variance, np.zeros((count, count)), 0.0)
        if rows < 3 * count + 10 or not count or variance <= 0:
            return none
        moved = columns - centre
        eigenvalues, turn = np.linalg.eigh(moved.T @ moved)
        kept = eigenvalues > 1e-8 * eigenvalues.max(initial=1e-300)
        eigenvalues, turn = eigenvalues[kept], turn[:, kept]
        turned = moved @ turn
        found = turned.T @ (values - mean) / eigenvalues
        left = values - mean - turned @ found
        meat = (turned * (left * left)[:, None]).T @ turned
        noise = meat / np.outer(eigenvalues, eigenvalues) * rows / max(rows - count - 1, 1)
        # In the noise's own directions the likelihood of s² is a sum over slopes.
        sizes, axes = np.linalg.eigh(noise)
        sizes = np.maximum(sizes, 1e-300)
        along = axes.T @ found
        unit = float(values.var())
        likelihood = [
            -0.5 * float(np.sum(np.log(step**2 * unit + sizes) + along**2 / (step**2 * unit + sizes))) for step in _GRID
        ]
        squared = float(_GRID[int(np.argmax(likelihood))]) ** 2 * unit
        if squared == 0:
            return none
        keep = squared / (squared + sizes)
        back = turn @ axes
        return cls(
            mean, back @ (keep * along), centre, variance, (back * (squared * (1 - keep))) @ back.T, squared**0.5
        )

    def at(self, columns: Floats) -> Floats:
        """The expected value of each row."""
        return np.asarray(self.intercept + (columns - self.centre) @ self.slopes)

    def deviation(self, columns: Floats) -> Floats:
        """The standard deviation of what is unknown about each row's expected value."""
        moved = columns - self.centre
        return np.asarray(np.sqrt(self.intercept_variance + ((moved @ self.covariance) * moved).sum(axis=1)))
