"""Customers ranked by forecast and cut into ten groups of equal size: who was promised what, and who brought it. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.groups import Floats

PARTS: Final = 10


class Deciles(NamedTuple):
    """Ten columns (fewer with fewer customers), the group with the highest forecasts first; means a customer."""

    forecast: Floats
    actual: Floats
    share: Floats
    """Of all that customers did, the part that this group did; NaN when nobody did anything."""


def deciles(forecast: npt.ArrayLike, actual: npt.ArrayLike) -> Deciles:
    """Mean forecast and mean outcome of each tenth of the customers; ties in the forecast share what they brought.

    Raises `InvalidInput` for columns of different length, without a row, or with a value that is not finite.
    """
    said, done = np.asarray(forecast, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if said.shape != done.shape or said.ndim != 1 or not said.size:
        raise InvalidInput("forecast and outcome are two columns of one length, of one customer at least")
    if not (np.isfinite(said).all() and np.isfinite(done).all()):
        raise InvalidInput("forecasts and outcomes are finite numbers")
    # Customers with one forecast cannot be told apart: each gets their mean, so that the order of rows decides nothing.
    values, index, counts = np.unique(-said, return_inverse=True, return_counts=True)
    shared = (np.bincount(index, weights=done, minlength=values.size) / counts)[index]
    order = np.argsort(index, kind="stable")
    parts = np.array_split(order, min(PARTS, said.size))
    total = float(done.sum())
    brought = np.array([shared[part].sum() for part in parts])
    return Deciles(
        forecast=np.array([said[part].mean() for part in parts]),
        actual=np.array([shared[part].mean() for part in parts]),
        share=brought / total if total > 0 else np.full(len(parts), np.nan),
    )
