"""A fitted model of customer lifetime value: what predicts, explains, tells how it was made, and goes into a file.

It holds parameters and measurements only, nobody's history: a model file is no personal data. The file is described in
`kiki.value.model_file`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
import numpy as np

from kiki.errors import InvalidInput, ModelInvalid
from kiki.value.card import HonestyCard
from kiki.value.cohorts import Cohorts
from kiki.value.conformal import Recalibration
from kiki.value.count_models import count_model
from kiki.value.fitting import CountFit
from kiki.value.groups import DAYS_PER_UNIT
from kiki.value.history import History, purchases_of
from kiki.value.mixture import Mixture
from kiki.value.model_file import content_hash, read_model_file, write_model_file
from kiki.value.prediction import Prediction, Predictions, predict
from kiki.value.predictive import Level, Predictive
from kiki.value.purchases import Purchases
from kiki.value.reasons import Usual, reasons
from kiki.value.seasonality import DAYS_PER_YEAR, LevelPath, doubted
from kiki.value.shape import Shape
from kiki.value.spend import SpendModel

T = TypeVar("T")

HORIZON_DAYS_MAX: Final = 3_652.5
"""Ten years: further ahead, nobody is the customer that the log describes."""


def require_horizon(horizon: float | None, unit: str) -> None:
    """Raise `InvalidInput` for a unit that there is not, and for a horizon that is not above 0 or further than ten years."""
    if unit not in DAYS_PER_UNIT:
        raise InvalidInput(f"{unit!r} is not a unit of time: take {', '.join(DAYS_PER_UNIT)}")
    if horizon is not None and not 0 < horizon * DAYS_PER_UNIT[unit] <= HORIZON_DAYS_MAX:  # NaN too
        raise InvalidInput(
            f"a horizon of {horizon:g} {unit}s is out of range: above 0, and ten years at most, "
            f"which is {HORIZON_DAYS_MAX / DAYS_PER_UNIT[unit]:.0f} {unit}s"
        )


def require_discount_rate(rate: float | None) -> None:
    """Raise `InvalidInput` for a rate a year that is not above 0, or above 10."""
    if rate is not None and not 0 < rate <= 10:  # NaN too
        raise InvalidInput(f"a discount rate is a year's, above 0 and at most 10 (0.1 for 10 %), not {rate:g}")


@dataclass(frozen=True)
class FittedPart:
    """One model of counts, as it was fitted on the whole calibration."""

    model: str
    """A key of `COUNT_MODELS`."""
    weight: float
    """In the mixture; 1 for a model that stands alone."""
    parameters: dict[str, float]
    """Under the literature's names."""
    standard_errors: dict[str, float] | None
    """None where they would mislead."""
    log_likelihood: float
    gradient_max: float
    """Of the mean over customers, in log parameters; nearly 0 where the fit converged."""
    at_boundary: tuple[str, ...] = ()
    """Parameters that the data do not tell."""
    notes: tuple[str, ...] = ()
    fell_back_from: str | None = None
    """The model that was asked for, where its dropout is not identified."""

    @classmethod
    def of(cls, found: CountFit, weight: float = 1.0) -> Self:
        """The part that a fit makes."""
        fit = found.fit
        return cls(
            model=found.name,
            weight=weight,
            parameters=fit.parameters,
            standard_errors=fit.standard_errors,
            log_likelihood=fit.log_likelihood,
            gradient_max=fit.gradient_max,
            at_boundary=tuple(fit.at_boundary),
            notes=tuple(fit.notes),
            fell_back_from=found.fell_back_from,
        )

    @property
    def k(self) -> int | None:
        """How regular purchases are: the k of MBG/CNBD-k; None for another model."""
        return getattr(count_model(self.model), "k", None)

    @property
    def aic(self) -> float:
        """Akaike's information criterion: smaller is better, on the same data only."""
        return 2 * len(self.parameters) - 2 * self.log_likelihood


@dataclass(frozen=True)
class FittedOn:
    """What a model was fitted on, without anybody's name."""

    fingerprint: str
    """SHA-256 in hex over every history (`Purchases.fingerprint`)."""
    customers: int
    purchases: int
    """Days with a purchase, the first ones included."""
    revenue: str
    """Of all of them after refunds, as decimal text."""
    first_day: date
    calibration_end: date
    """The last day that the model has seen."""
    notes: tuple[str, ...] = ()
    """What reading the log said: columns that were guessed, refunds without an order."""


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A model as `kiki.value.training.fit` makes it."""

    model: str
    """"auto", or the name of the model that was fitted."""
    estimator: str
    """"mle" or "map"."""
    parts: tuple[FittedPart, ...]
    spend: SpendModel
    fitted_on: FittedOn
    unit: str
    """Of every time in it: day, week or month."""
    horizon: float
    """How far forecasts reach unless told otherwise, in the unit."""
    currency: str | None = None
    shape: Shape | None = None
    """The correction of who buys more and who less, and of the mixture's level; None for a named model."""
    recalibration: Recalibration | None = None
    """Which probabilities to read medians and intervals off at; None where nothing was measured."""
    level: LevelPath | None = None
    """The season of the level; None where the log does not tell."""
    drift: float = 0.0
    """The variance, a unit of time, by which the logarithm of a customer's rate wanders."""
    level_doubt: float = 0.0
    """How far the level of everybody is not known, as the standard deviation of its logarithm."""
    cohorts: Cohorts | None = None
    """By how much customers of one month buy more than those of another; None for a named model."""
    card: HonestyCard | None = None
    """What was measured of it on rolling origins; None when it was not."""
    usual: Usual | None = None
    """The average customer of the calibration within `horizon`, whom others are compared with in words."""
    discount_rate: float | None = None
    """A year, 0.1 for 10 %; None when nothing is discounted."""
    fit_seconds: float | None = None
    """How long fitting took; None for a model from a file, because equal models have equal files."""

    def __post_init__(self) -> None:
        require_horizon(self.horizon, self.unit)
        require_discount_rate(self.discount_rate)
        if not 0 <= self.drift < math.inf:  # NaN too
            raise InvalidInput(f"a drift is a variance, 0 or more, not {self.drift}")
        if not 0 <= self.level_doubt < math.inf:
            raise InvalidInput(f"a doubt about the level is a standard deviation, 0 or more, not {self.level_doubt}")
        self.mixture  # noqa: B018 - its parameters are checked now, not at the first forecast

    @property
    def calibration_end(self) -> date:
        """The last day that the model has seen."""
        return self.fitted_on.calibration_end

    @cached_property
    def mixture(self) -> Mixture:
        """The parts as one distribution over counts."""
        return Mixture(
            tuple((part.model, np.array(list(part.parameters.values())), part.weight) for part in self.parts)
        )

    @cached_property
    def model_version(self) -> str:
        """The model's name and the first 12 digits of its content's hash: equal data and settings give the same."""
        return f"{self.model}-{content_hash(self.as_dict())[:12]}"

    def predictive(self, purchases: Purchases, horizon: float | None = None, *, dated: bool = True) -> Predictive:
        """The joint predictive distribution of these customers, for quantities that `predict` does not give.

        `dated` False leaves out the shape correction, which looks at recent weeks, for histories that do not tell them. Raises
        `InvalidInput` for another currency than the model's, and for a horizon that `require_horizon` refuses.
        """
        if self.currency and purchases.currency and purchases.currency != self.currency:
            raise InvalidInput(f"the model was fitted in {self.currency}, the histories are in {purchases.currency}")
        require_horizon(horizon, self.unit)
        reach = self.horizon if horizon is None else float(horizon)
        known = purchases if purchases.unit == self.unit else replace(purchases, unit=self.unit)
        factor = None if self.shape is None else self.shape.factors(self.mixture, known, reach, dated=dated)
        level = doubted(self._season(known.calibration_end, reach), self.level_doubt)
        return Predictive(self.mixture, self.spend, known, reach, factor=factor, level=level, drift=self.drift)

    def _season(self, as_of: date, reach: float) -> Level | None:
        """The level within `reach` units after that day: the path begins after the model's own, and goes round the year."""
        if self.level is None:
            return None
        passed = ((as_of - self.calibration_end).days % DAYS_PER_YEAR) / DAYS_PER_UNIT[self.unit]
        whole = self.level.level(passed + reach, self.unit)
        if passed == 0:
            return whole
        before = self.level.level(passed, self.unit)
        return Level((whole.mean * (passed + reach) - before.mean * passed) / reach, whole.log_sd)

    def predict(
        self,
        purchases: Purchases,
        horizon: float | None = None,
        *,
        discount_rate: float | None = None,
        dated: bool = True,
    ) -> Predictions:
        """What these customers will do in the next `horizon` units, in their order; the model's own horizon by default.

        `discount_rate` is a year's, the model's own by default. Raises as `predictive` does.
        """
        require_discount_rate(discount_rate)
        rate = self.discount_rate if discount_rate is None else discount_rate
        found = self.predictive(purchases, horizon, dated=dated)
        return predict(found, recalibration=self.recalibration, discount_rate=rate)

    def predict_history(self, history: History, horizon: float | None = None) -> Prediction:
        """The same for one customer who stands in no log."""
        known = purchases_of([history], self.calibration_end, self.unit, currency=self.currency)
        return self.predict(known, horizon, dated=False).row(0)

    def new_customer(self, cohort: str | None = None, horizon: float | None = None) -> Predictions:
        """One row: what somebody will do in the `horizon` units after the first purchase, which is not counted.

        `cohort` is the month of that purchase, as 2024-01: customers of a month buy as often as those of that month did, as far as
        the log tells; one that the log does not hold is as different as months are. None is the average customer.
        """
        nobody = purchases_of(
            [History(0, 0.0, 0.0)], self.calibration_end, self.unit, ids=["new"], currency=self.currency
        )
        if cohort is None or self.cohorts is None:
            return self.predict(nobody, horizon, dated=False)
        own = Level(*self.cohorts.level(cohort))
        found = self.predictive(nobody, horizon, dated=False)
        level = Level(found.level.mean * own.mean, math.hypot(found.level.log_sd, own.log_sd))
        found = Predictive(
            found.mixture, found.spend, nobody, found.horizon, factor=found.factor, level=level, drift=self.drift
        )
        return predict(found, recalibration=self.recalibration, discount_rate=self.discount_rate)

    def explain(self, purchases: Purchases, predictions: Predictions, row: int) -> list[str]:
        """Why the customer in this row is expected to do what is predicted, in sentences.

        Compared with the average customer and the weightiest first, where the predictions are for the model's own horizon.
        """
        usual = self.usual if predictions.horizon == self.horizon else None
        return list(reasons(purchases, predictions, row, usual=usual))

    def info(self) -> dict[str, Any]:
        """Everything that is known of the model, as JSON values: how it was made, on what, and how good it was measured to be."""
        return {"model_version": self.model_version, **self.as_dict()}

    def summary(self) -> dict[str, Any]:
        """The fit in short, as `kiki ltv fit --json` prints it; of several parts the weightiest, and all of them in `parts`."""
        main = max(self.parts, key=lambda part: part.weight)
        spend = self.spend
        return {
            "model": self.model,
            "parameters": main.parameters if main.k is None else {**main.parameters, "k": main.k},
            "standard_errors": main.standard_errors,
            "log_likelihood": main.log_likelihood,
            "spend": {
                "model": "gamma-gamma" if spend.constant is None else "constant",
                "parameters": {
                    name: value for name in ("p", "q", "v", "constant") if (value := getattr(spend, name)) is not None
                },
                **spend.as_dict(),
            },
            "parts": msgspec.to_builtins(self.parts),
            "estimator": self.estimator,
            "at_boundary": list(main.at_boundary),
            "fell_back_from": main.fell_back_from,
            "unit": self.unit,
            "horizon": self.horizon,
            "currency": self.currency,
            "calibration_end": self.calibration_end.isoformat(),
            "customers": self.fitted_on.customers,
            "fingerprint": self.fitted_on.fingerprint,
            "model_version": self.model_version,
            "notes": self.notes,
            "fit_seconds": self.fit_seconds,
        }

    @property
    def refusal(self) -> str | None:
        """Why the intervals are not claimed to be true about as often as they say; None where they are."""
        if self.card is not None:
            return self.card.refusal
        return (
            f"{self.model} was fitted as it was published: how often its intervals are true was not measured on this log; "
            "auto measures it"
        )

    @property
    def notes(self) -> list[str]:
        """What a reader of the parameters has to know, in words, each thing once."""
        said = [f"{part.model}: {note}" for part in self.parts for note in part.notes]
        said += [f"spend: {note}" for note in self.spend.notes]
        if self.drift:
            said.append(
                f"rates wander: the variance of a customer's, in logarithms, grows by {self.drift:.2g} a {self.unit}"
            )
        return list(dict.fromkeys([*said, *self.fitted_on.notes]))

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, of JSON values: the content of a model file."""
        return {
            "model": self.model,
            "estimator": self.estimator,
            "parts": msgspec.to_builtins(self.parts),
            "spend": self.spend.as_dict(),
            "fitted_on": msgspec.to_builtins(self.fitted_on),
            "unit": self.unit,
            "horizon": self.horizon,
            "currency": self.currency,
            "shape": None if self.shape is None else self.shape.as_dict(),
            "recalibration": None if self.recalibration is None else self.recalibration.as_dict(),
            "level": None if self.level is None else self.level.as_dict(),
            "drift": self.drift,
            "level_doubt": self.level_doubt,
            "cohorts": None if self.cohorts is None else self.cohorts.as_dict(),
            "card": None if self.card is None else self.card.as_dict(),
            "usual": None if self.usual is None else self.usual._asdict(),
            "discount_rate": self.discount_rate,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The model that `as_dict` wrote; raises `ModelInvalid` for anything else."""
        try:
            return cls(
                model=msgspec.convert(content["model"], str),
                estimator=msgspec.convert(content["estimator"], str),
                parts=msgspec.convert(content["parts"], tuple[FittedPart, ...]),
                spend=SpendModel.from_dict(content["spend"]),
                fitted_on=msgspec.convert(content["fitted_on"], FittedOn),
                unit=msgspec.convert(content["unit"], str),
                horizon=msgspec.convert(content["horizon"], float),
                currency=msgspec.convert(content["currency"], str | None),
                shape=_read(content["shape"], Shape.from_dict),
                recalibration=_read(content["recalibration"], Recalibration.from_dict),
                level=_read(content["level"], LevelPath.from_dict),
                drift=msgspec.convert(content.get("drift", 0.0), float),
                level_doubt=msgspec.convert(content.get("level_doubt", 0.0), float),
                cohorts=_read(content["cohorts"], Cohorts.from_dict),
                card=_read(content["card"], HonestyCard.from_dict),
                usual=_read(content["usual"], _usual),
                discount_rate=msgspec.convert(content["discount_rate"], float | None),
            )
        except KeyError as error:
            raise ModelInvalid(f"the content of the model lacks {error}") from error
        except (msgspec.ValidationError, InvalidInput, TypeError, ValueError, OverflowError) as error:
            raise ModelInvalid(f"the content of the model makes no sense: {error}") from error

    def save(self, path: str | Path) -> str:
        """Write the model file, whole or not at all; the SHA-256 of its content. Raises `KikiError` when that cannot be done."""
        return write_model_file(path, self.as_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The model in a file that `save` wrote. Raises `ModelInvalid` for one that was edited, cut off, or is newer than this kiki."""
        return cls.from_dict(read_model_file(path).content)


def _read(content: Any, reader: Callable[[Any], T]) -> T | None:
    return None if content is None else reader(content)


def _usual(content: Any) -> Usual:
    return Usual(**msgspec.convert(content, dict[str, float]))
