"""A rolling origin with the models that could be fitted on it: what they would have said, and what came."""

from __future__ import annotations

from datetime import date
from typing import Final, NamedTuple, Self

import numpy as np

from kiki.value.evaluation import KINDS, Pit, actual
from kiki.value.fitting import CountFit, fit_count
from kiki.value.groups import DAYS_PER_UNIT, Floats, Groups, Ints
from kiki.value.mixture import Mixture
from kiki.value.orders import Orders
from kiki.value.origins import DAYS_MIN, Origin
from kiki.value.predictive import Level, Predictive
from kiki.value.purchases import Outcomes, outcomes
from kiki.value.seasonality import LevelPath, level_series, season
from kiki.value.shape import Lesson, Shape, features
from kiki.value.spend import SpendModel, fit_spend

CANDIDATES: Final = ("pareto-nbd", "mbg-nbd", "bg-nbd", "nbd")
"""What is stacked; the first one is the anchor, whose sum of forecasts the mixture keeps."""

SCORED_MAX: Final = 4_000
"""So many customers of an origin are scored: weights of models are no better known with more."""


JUDGED_MAX: Final = 3_000
"""On so many customers of an origin whole distributions are judged: coverage is known to half a point then."""


class Candidates(NamedTuple):
    """The models that are stacked, fitted to the same histories, in the order of `CANDIDATES`."""

    fits: tuple[CountFit, ...]

    @classmethod
    def of(cls, groups: Groups) -> Self:
        """At the mode under weak priors; those without dropout that can be seen are the NBD, and say so."""
        return cls(tuple(fit_count(name, groups, "map") for name in CANDIDATES))

    @property
    def anchor(self) -> Mixture:
        """The one model that a mixture keeps the sum of."""
        return Mixture.of(self.fits[0].name, self.fits[0].fit.values)

    def weighed(self, weights: Floats) -> tuple[tuple[CountFit, float], ...]:
        """Those with a weight, the weightiest first; several that fell back to one model are one."""
        shares: dict[str, float] = {}
        for found, weight in zip(self.fits, weights.tolist(), strict=True):
            shares[found.name] = shares.get(found.name, 0.0) + weight
        # Of several that came to one model, the anchor tells what became of it; else the one that was asked for under its name.
        anchor, *others = self.fits
        first = {
            found.name: found for found in (*sorted(others, key=lambda found: found.fell_back_from is None), anchor)
        }
        order = sorted(shares, key=lambda name: -shares[name])
        return tuple((first[name], shares[name]) for name in order if shares[name] > 0)

    def mixture(self, weights: Floats) -> Mixture:
        """The same as a distribution of counts."""
        return Mixture(tuple((found.name, found.fit.values, share) for found, share in self.weighed(weights)))


class Trial(NamedTuple):
    """One origin."""

    origin: Origin
    candidates: Candidates
    spend: SpendModel

    @classmethod
    def of(cls, origin: Origin) -> Self:
        """The models fitted on what was known at the origin."""
        return cls(origin, Candidates.of(origin.purchases.grouped()[0]), fit_spend(origin.purchases, "map"))

    def log_scores(self) -> Floats:
        """Of each candidate, how well it foretold the purchases of some customers: shape (customers, candidates)."""
        purchases, counts = self.origin.purchases, self.origin.outcomes.purchases
        rows = _some(len(purchases), SCORED_MAX)
        chosen, came = purchases.take(rows), counts[rows].astype(np.float64)
        found: dict[str, Floats] = {}
        for fit in self.candidates.fits:
            if fit.name not in found:
                one = Mixture.of(fit.name, fit.fit.values)
                found[fit.name] = Predictive(one, self.spend, chosen, self.origin.horizon).log_score(came)
        return np.stack([found[fit.name] for fit in self.candidates.fits], axis=1)

    def lesson(self, weights: Floats) -> Lesson:
        """What the shape is learnt from."""
        return self._lesson(weights, self.origin.outcomes.purchases, self.origin.horizon)

    def lesson_known(self, weights: Floats, orders: Orders, until: date) -> Lesson | None:
        """What somebody knew of it on the day `until`; None when that was too early."""
        days = (until - self.origin.end).days
        if days < DAYS_MIN:
            return None
        if until >= self.origin.until:
            return self.lesson(weights)
        came = outcomes(orders, self.origin.purchases, until).purchases
        return self._lesson(weights, came, days / DAYS_PER_UNIT[self.origin.purchases.unit])

    def _lesson(self, weights: Floats, came: Ints, horizon: float) -> Lesson:
        purchases, mixture = self.origin.purchases, self.candidates.mixture(weights)
        groups, index = purchases.grouped()
        forecast = mixture.expected(horizon, groups)[index]
        return Lesson(features(purchases, forecast, mixture.alive(groups)[index]), forecast, came.astype(np.float64))

    def judged(self, most: int = JUDGED_MAX) -> Trial:
        """The same with no more customers than distributions are judged on."""
        purchases, done = self.origin.purchases, self.origin.outcomes
        rows = _some(len(purchases), most)
        small = self.origin._replace(
            purchases=purchases.take(rows), outcomes=Outcomes(done.purchases[rows], done.micros[rows])
        )
        return self._replace(origin=small)

    def anchored(self) -> float:
        """The sum of the forecasts, which is the anchor's."""
        groups, _ = self.origin.purchases.grouped()
        return float(self.candidates.anchor.expected(self.origin.horizon, groups) @ groups.weight)

    def season(self, orders: Orders) -> LevelPath | None:
        """The season as it was known at the origin."""
        purchases = self.origin.purchases
        return season(level_series(orders, purchases, self.candidates.anchor.expected_new))

    def predictive(self, weights: Floats, shape: Shape, level: Level | None = None, drift: float = 0.0) -> Predictive:
        """What the mixture with this correction, at this level and with this drift a unit, would have said."""
        purchases, horizon = self.origin.purchases, self.origin.horizon
        mixture = self.candidates.mixture(weights)
        kept = shape.keeping(mixture, self.candidates.anchor, purchases, [horizon])
        factor = kept.factors(mixture, purchases, horizon)
        return Predictive(mixture, self.spend, purchases, horizon, factor=factor, level=level, drift=drift)

    def pits(self, said: Predictive) -> dict[str, Pit]:
        """The transforms of what came, by kind."""
        return {kind: Pit(*said.cdf(kind, actual(kind, self.origin.outcomes))) for kind in KINDS}


def _some(size: int, most: int) -> Ints:
    """Places of `most` rows, evenly spread and growing; of all, when they are no more."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))
