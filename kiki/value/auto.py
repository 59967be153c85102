"""`auto`: models of purchases stacked, their shape corrected, their intervals recalibrated, all of it chosen on rolling origins.

Nothing is chosen by looking at days after the calibration, and nothing is tuned to one log: the same few settings serve all. Where the
log is too short to choose, or a choice does not prove itself on days that it has not seen, what is left is one model as published, at
the mode under weak priors; the card says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from typing import Final, NamedTuple

import numpy as np

from kiki.value.card import HonestyCard, OriginScore, PartScore, histogram, strata
from kiki.value.claim import SPREAD_MOST, refusal
from kiki.value.conformal import Recalibration, recalibrate, stratum
from kiki.value.drift import DRIFTS, per_unit
from kiki.value.drift import chosen as chosen_drift
from kiki.value.evaluation import KINDS, Pit, actual, coverage, covered, measure
from kiki.value.fitting import CountFit
from kiki.value.groups import Floats, Ints
from kiki.value.mixture import Mixture
from kiki.value.orders import Orders, day_of
from kiki.value.origins import rolling_origins, sampled
from kiki.value.predictive import Level, Predictive
from kiki.value.purchases import Purchases, summarise
from kiki.value.seasonality import LevelPath, doubted, level_series, season
from kiki.value.shape import Shape, chosen, learnt, no_correction
from kiki.value.spend import SpendModel, fit_spend
from kiki.value.stacking import stack
from kiki.value.trial import CANDIDATES, Candidates, Trial

ANCHOR_PRIOR: Final = 100.0
"""The anchor counts as if it alone had foretold so many outcomes: models that do equally well leave it the weight."""

ORIGINS_MIN: Final = 2
"""With fewer usable origins nothing is chosen."""

DRIFT_CUSTOMERS: Final = 1_000
"""On so many customers of an origin drifts are compared."""

_SAME_LEVEL: Final = 0.05
"""A level nearer to 1 than this changes no distribution by as much as chance does."""

_SAID: Final = 0.1
"""A season that moves a forecast by less than this, as a logarithm, is neither right nor wrong about it."""

_LEVEL_HORIZONS: Final = (0.25, 0.5, 1.0, 2.0)
"""The horizons that the mixture's level is kept at, in those fitted for."""

_LEVEL_CUSTOMERS: Final = 200_000
"""The level is kept over so many of the customers: its ratio is known to a thousandth then."""

Progress = Callable[[str, float, float], None]
"""Is told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, eq=False)
class AutoFit:
    """What `auto` found; `predictive` puts it together."""

    parts: tuple[tuple[CountFit, float], ...]
    """The models of the mixture with their weights, the weightiest first."""
    mixture: Mixture
    spend: SpendModel
    shape: Shape | None
    """The correction of the shape, and what keeps the mixture at its anchor's level; None for one model alone."""
    recalibration: Recalibration | None
    """None where nothing could be measured."""
    level: LevelPath | None
    """The season of the level; None where the log is shorter than two years, or shows none."""
    drift: float
    """The variance a unit by which rates wander; 0 where distributions without it foretold as well."""
    level_doubt: float
    """How far the level of everybody is not known, as the standard deviation of its logarithm: how wrong the origins were about it, and
    where no season is known at least how far it swings."""
    card: HonestyCard

    def predictive(self, purchases: Purchases, horizon: float, *, dated: bool = True) -> Predictive:
        """What these customers will do within `horizon` units; `dated` False for histories that do not tell recent weeks."""
        factor = None if self.shape is None else self.shape.factors(self.mixture, purchases, horizon, dated=dated)
        known = None if self.level is None else self.level.level(horizon, purchases.unit)
        level = doubted(known, self.level_doubt)
        return Predictive(self.mixture, self.spend, purchases, horizon, factor=factor, level=level, drift=self.drift)


class _Choice(NamedTuple):
    weights: Floats
    honest: Shape
    """Learnt without the last origin, which may be judged there."""
    whole: Shape
    """The same correction learnt from all of them."""


class _Said(NamedTuple):
    """One origin: what was forecast there, and the transforms of what came."""

    trial: Trial
    forecast: Predictive
    pits: dict[str, Pit]
    levelled: dict[str, Pit]
    """With the sum of the purchases that came, so that only the spread is judged."""
    x: Ints


def fit_auto(
    orders: Orders,
    calibration_end: date | None = None,
    unit: str = "week",
    horizon: float = 52.0,
    progress: Progress | None = None,
) -> AutoFit:
    """The best that can be made of everything up to and on `calibration_end`, for forecasts of `horizon` units.

    The same log gives the same fit, whatever comes after that day. Origins of more than 50,000 customers are run with a sample.
    Raises `InvalidInput` when nobody bought by then, or everybody bought on the last day.
    """
    told = progress or _nobody
    told("fitting", 0, 1)
    purchases = summarise(orders, calibration_end, unit)
    candidates = Candidates.of(purchases.grouped()[0])
    spend = fit_spend(purchases, "map")
    told("fitting", 1, 1)
    sample = sampled(orders, purchases.calibration_end)
    origins = rolling_origins(sample, purchases.calibration_end, unit, horizon)
    trials = []
    for place, origin in enumerate(origins):
        told("rolling origins", place, len(origins) + 2)
        trials.append(Trial.of(origin))
    if len(trials) < ORIGINS_MIN:
        return _plain(purchases, candidates, spend, horizon)
    choice = _chosen(trials, sample)
    told("rolling origins", len(trials) + 1, len(trials) + 2)
    series = level_series(orders, purchases, candidates.anchor.expected_new)
    path = season(series)
    paths = [None if path is None else trial.season(sample) for trial in trials]
    if not _seasonal(trials, paths):
        path, paths = None, [None] * len(trials)
    drift = _drift(trials, choice, paths)
    # Origins that did not know a season yet count too: they tell how wrong it goes when a season is missed.
    levels = [_missed(trial, past) for trial, past in zip(trials, paths, strict=True)]
    swing = 0.0 if path else series.swing
    doubts = [_doubt([*levels[:place], *levels[place + 1 :]], swing) for place in range(len(levels))]
    said = [_said(trial, choice, past, drift, doubt) for trial, past, doubt in zip(trials, paths, doubts, strict=True)]
    recalibration = _recalibration(said)
    mixture = candidates.mixture(choice.weights)
    shape = choice.whole.keeping(
        mixture, candidates.anchor, _some(purchases), [horizon * share for share in _LEVEL_HORIZONS]
    )
    parts = candidates.weighed(choice.weights)
    scores = tuple(_score(said, place) for place in range(len(said)))
    spread = _spread(levels)
    card = _card(purchases, parts, horizon)
    told("rolling origins", len(trials) + 2, len(trials) + 2)
    return AutoFit(
        parts=parts,
        mixture=mixture,
        spend=spend,
        shape=None if len(parts) == 1 and shape.weight == 0 else shape,
        recalibration=recalibration,
        level=path,
        drift=drift,
        level_doubt=_doubt(levels, swing),
        card=replace(
            card,
            sampled_customers=min(len(purchases), sample.ids.size),
            shape_weight=shape.weight,
            level_spread=spread,
            origins=scores,
            refusal=refusal(
                scores,
                level_spread=spread,
                series=None if path else series,
                reach=horizon / max(origin.horizon for origin in origins),
            ),
        ),
    )


def _plain(purchases: Purchases, candidates: Candidates, spend: SpendModel, horizon: float) -> AutoFit:
    """One model, where the log does not allow to choose."""
    weights = np.zeros(len(CANDIDATES))
    weights[0] = 1
    parts = candidates.weighed(weights)
    said = (
        "the log is too short, or has too few customers or purchases, for two days inside of it from which the rest could be "
        "forecast as a test"
    )
    card = replace(_card(purchases, parts, horizon), refusal=said)
    return AutoFit(parts, candidates.mixture(weights), spend, None, None, None, 0.0, 0.0, card)


def _chosen(trials: list[Trial], orders: Orders) -> _Choice:
    prior = np.zeros(len(CANDIDATES))
    prior[0] = ANCHOR_PRIOR
    weights = stack(np.concatenate([trial.log_scores() for trial in trials]), prior)
    last = trials[-1].origin.end
    # What was known on the day of the last origin: nothing that came later may have taught the correction that is tried there.
    before = [lesson for trial in trials[:-1] if (lesson := trial.lesson_known(weights, orders, last)) is not None]
    honest = chosen(before, trials[-1].lesson(weights))
    if honest.weight == 0:
        return _Choice(weights, honest, no_correction())
    (whole,) = learnt([trial.lesson(weights) for trial in trials], [honest.ridge])
    return _Choice(weights, honest, replace(whole, weight=honest.weight))


def _seasonal(trials: list[Trial], paths: list[LevelPath | None]) -> bool:
    """Whether the season brought forecasts nearer to what came, at the origins where it said anything; if it did at none, it may be."""
    without, with_it = [], []
    for trial, path in zip(trials, paths, strict=True):
        origin = trial.origin
        by = 1.0 if path is None else path.level(origin.horizon, origin.purchases.unit).mean
        if abs(np.log(by)) > _SAID:
            without.append(_level(trial))
            with_it.append(_level(trial) / by)
    return not without or _spread(with_it) < _spread(without)


def _level(trial: Trial) -> float:
    return float(trial.origin.outcomes.purchases.sum()) / max(trial.anchored(), 1e-9)


def _missed(trial: Trial, path: LevelPath | None) -> float:
    """Purchases that came at an origin to those forecast, its season included."""
    known = _known(trial, path)
    return _level(trial) / (known.mean if known else 1.0)


def _doubt(levels: list[float], swing: float) -> float:
    """How wrong the level may be, from how wrong it was, and where no season is known from how far it swings.

    Above `SPREAD_MOST` nothing is claimed any more.
    """
    return min(max(_spread(levels), swing), SPREAD_MOST)


def _spread(levels: list[float]) -> float:
    """The root mean square of their logarithms."""
    return float(np.sqrt(np.mean(np.log(np.maximum(levels, 1e-9)) ** 2)))


def _drift(trials: list[Trial], choice: _Choice, paths: list[LevelPath | None]) -> float:
    """The drift a unit that foretold best, every origin at the level that came: what is judged is the spread alone."""
    scores = []
    for trial, path in zip(trials, paths, strict=True):
        small = trial.judged(DRIFT_CUSTOMERS)
        known = _known(small, path)
        said = small.predictive(choice.weights, choice.honest, known)
        at_level = small.predictive(choice.weights, choice.honest, _came(small, said, known))
        unit = small.origin.purchases.unit
        counts = actual("purchases", small.origin.outcomes)
        scores.append(at_level.drift_scores(counts, [0.0, *(per_unit(drift, unit) for drift in DRIFTS)]))
    return per_unit(chosen_drift(scores, [trial.origin.days for trial in trials]), trials[0].origin.purchases.unit)


def _known(trial: Trial, path: LevelPath | None) -> Level | None:
    """The season's level at an origin."""
    return None if path is None else path.level(trial.origin.horizon, trial.origin.purchases.unit)


def _came(trial: Trial, said: Predictive, known: Level | None) -> Level:
    """The level under which the sum of the forecasts is what came; as it was when nothing came."""
    came = float(trial.origin.outcomes.purchases.sum()) / float(said.mean("purchases").sum())
    before = Level(1.0) if known is None else known
    return before._replace(mean=before.mean * came) if came > 0 else before


def _said(trial: Trial, choice: _Choice, path: LevelPath | None, drift: float, doubt: float) -> _Said:
    small = trial.judged()
    known = _known(small, path)
    forecast = small.predictive(choice.weights, choice.honest, doubted(known, doubt), drift)
    pits = small.pits(forecast)
    came = _came(small, forecast, known)
    if doubt < _SAME_LEVEL and abs(came.mean / forecast.level.mean - 1) < _SAME_LEVEL:
        levelled = pits
    else:
        # What is left to recalibrate is the spread around a level, not the doubt about the level itself.
        levelled = small.pits(small.predictive(choice.weights, choice.honest, came, drift))
    return _Said(small, forecast, pits, levelled, small.origin.purchases.x)


def _recalibration(said: list[_Said]) -> Recalibration:
    """From the transforms of all these origins, each brought to the level that came: a level of a short horizon is no lesson."""
    pits = {
        kind: Pit(
            np.concatenate([each.levelled[kind].before for each in said]),
            np.concatenate([each.levelled[kind].at for each in said]),
        )
        for kind in KINDS
    }
    return recalibrate(pits, np.concatenate([each.x for each in said]))


def _score(said: list[_Said], place: int) -> OriginScore:
    """An origin judged with intervals that were recalibrated on the others only."""
    each = said[place]
    origin = each.trial.origin
    recalibration = _recalibration([*said[:place], *said[place + 1 :]])
    places = stratum(each.x)
    metrics, by_stratum = {}, {}
    for kind in KINDS:
        half = recalibration.levels(kind, 0.5, each.x)
        inside = covered(each.pits[kind], kind, each.x, recalibration)
        by_stratum[kind] = strata(inside, places)
        metrics[kind] = measure(
            actual(kind, origin.outcomes),
            each.forecast.mean(kind),
            each.forecast.quantile(kind, half),
            coverage={level: float(chances.mean()) for level, chances in inside.items()},
        )
    return OriginScore(
        end=origin.end,
        until=origin.until,
        customers=len(origin.purchases),
        purchases=int(origin.outcomes.purchases.sum()),
        metrics=metrics,
        raw_coverage={kind: coverage(each.pits[kind], kind, each.x) for kind in KINDS},
        by_stratum=by_stratum,
        pit={kind: histogram(each.pits[kind]) for kind in KINDS},
    )


def _card(purchases: Purchases, parts: tuple[tuple[CountFit, float], ...], horizon: float) -> HonestyCard:
    return HonestyCard(
        first_day=day_of(int(purchases.first_day.min())),
        calibration_end=purchases.calibration_end,
        unit=purchases.unit,
        horizon=float(horizon),
        customers=len(purchases),
        sampled_customers=len(purchases),
        fingerprint=purchases.fingerprint,
        parts=tuple(
            PartScore(found.name, weight, found.fit.gradient_max, found.fit.converged, tuple(found.fit.at_boundary))
            for found, weight in parts
        ),
        shape_weight=0.0,
        level_spread=None,
        origins=(),
        refusal=None,
        notes=tuple(dict.fromkeys(f"{found.name}: {note}" for found, _ in parts for note in found.fit.notes)),
    )


def _some(purchases: Purchases) -> Purchases:
    size = len(purchases)
    if size <= _LEVEL_CUSTOMERS:
        return purchases
    return purchases.take(np.linspace(0, size - 1, _LEVEL_CUSTOMERS).astype(np.int64))


def _nobody(_what: str, _done: float, _total: float) -> None:
    """Who is told when nobody wants to know."""
