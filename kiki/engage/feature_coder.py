"""Features as columns of numbers that one prior fits: centred, of about the same spread, missing ones told. Pure."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from kiki.engage.outcomes import Features, Floats
from kiki.errors import InvalidInput

_BINS: Final = 4
_SHARE_LEAST: Final = 0.005
"""A category that is rarer goes with the other rare ones."""
_LEVELS_MAX: Final = 40


class Coded(NamedTuple):
    """How one feature becomes columns."""

    name: str
    levels: tuple[str, ...] = ()
    """Of words: those that have a column."""
    cuts: tuple[float, ...] = ()
    """Of numbers: where one step ends and the next begins."""
    middle: float = 0.0
    scale: float = 1.0
    is_number: bool = True
    has_missing: bool = False

    def columns(self, values: npt.NDArray[Any]) -> list[Floats]:
        """The columns of these values, not yet centred."""
        if not self.is_number:
            words = values.astype(str)
            return [(words == level).astype(float) for level in self.levels]
        numbers = values.astype(float)
        missing = ~np.isfinite(numbers)
        known = np.where(missing, self.middle, numbers)
        # Squeezed, so that one customer with a huge history does not turn the whole line.
        made = [np.arcsinh((known - self.middle) / self.scale)]
        made += [(known > cut).astype(float) for cut in self.cuts]
        return [*made, missing.astype(float)] if self.has_missing else made


class FeatureCoder(NamedTuple):
    """How features become a matrix; made from those that were learned from, used on others."""

    coded: tuple[Coded, ...]
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()

    @classmethod
    def of(cls, features: Features) -> Self:
        """The code that fits these features; what is the same for everybody has no column."""
        coded = tuple(_coded(name, features[name]) for name in sorted(features))
        raw = cls(coded).uncentred(features)
        spread = raw.std(axis=0) if len(raw) else np.ones(raw.shape[1])
        spread = np.where(spread > 1e-9, spread, np.inf)
        return cls(coded, tuple(raw.mean(axis=0).tolist()) if len(raw) else (), tuple(spread.tolist()))

    def uncentred(self, features: Features) -> Floats:
        """Persons by columns, as they come."""
        rows = len(next(iter(features.values()))) if features else 0
        columns: list[Floats] = []
        for each in self.coded:
            if each.name not in features:
                raise InvalidInput(f"the feature {each.name!r} is missing")
            columns += each.columns(np.asarray(features[each.name]))
        return np.column_stack(columns) if columns else np.zeros((rows, 0))

    def matrix(self, features: Features) -> Floats:
        """Persons by columns."""
        raw = self.uncentred(features)
        return (raw - np.array(self.centre)) / np.array(self.spread) if raw.shape[1] else raw


def _coded(name: str, values: npt.NDArray[Any]) -> Coded:
    if values.dtype.kind in "biuf":
        numbers = values.astype(float)
        known = numbers[np.isfinite(numbers)]
        if not known.size:
            return Coded(name)
        middle = float(np.median(known))
        scale = float(np.median(np.abs(known - middle))) or float(known.std()) or 1.0
        few = np.unique(known)
        cuts = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS)) if few.size > 2 else np.zeros(0)
        cuts = cuts[cuts < known.max()]
        return Coded(name, (), tuple(cuts.tolist()), middle, scale, has_missing=known.size < numbers.size)
    words, counts = np.unique(values.astype(str), return_counts=True)
    often = [(-count, word) for word, count in zip(words.tolist(), counts.tolist(), strict=True)]
    kept = [word for count, word in sorted(often)[:_LEVELS_MAX] if -count >= _SHARE_LEAST * values.size]
    return Coded(name, tuple(kept), is_number=False)
