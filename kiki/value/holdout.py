"""How good a fitted model was, once what it forecast has come: the days after its calibration, up to the end of a holdout."""

from __future__ import annotations

from datetime import date
from typing import Any, NamedTuple

from kiki.value import baselines
from kiki.value.evaluation import Metrics, judge, report
from kiki.value.fitted_model import FittedModel
from kiki.value.groups import DAYS_PER_UNIT
from kiki.value.orders import Orders, day_of
from kiki.value.purchases import Outcomes, Purchases, outcomes, summarise


class Holdout(NamedTuple):
    """Customers as they were known when the calibration ended, and what they did until the holdout did."""

    purchases: Purchases
    outcomes: Outcomes
    end: date

    @classmethod
    def of(cls, orders: Orders, calibration_end: date, end: date | None, unit: str) -> Holdout:
        """The holdout after `calibration_end`, up to and on `end` (the last day of the log); raises `InvalidInput` for no day."""
        last = day_of(orders.last_day) if end is None else end
        purchases = summarise(orders, calibration_end, unit)
        return cls(purchases, outcomes(orders, purchases, last), last)

    @property
    def horizon(self) -> float:
        """How long it is, in the unit of the purchases."""
        return (self.end - self.purchases.calibration_end).days / DAYS_PER_UNIT[self.purchases.unit]

    def as_dict(self) -> dict[str, Any]:
        """Which days and how many customers it is about, as JSON values."""
        return {
            "calibration_end": self.purchases.calibration_end.isoformat(),
            "holdout_end": self.end.isoformat(),
            "horizon": self.horizon,
            "unit": self.purchases.unit,
            "customers": len(self.purchases),
        }

    def judge(self, model: FittedModel) -> dict[str, Metrics]:
        """The metrics of the model's forecast of "purchases" and "revenue"."""
        return judge(model.predictive(self.purchases, self.horizon), self.outcomes, model.recalibration)

    def baselines(self) -> dict[str, dict[str, Metrics]]:
        """The metrics of what a model has to beat, by name."""
        return baselines.judged(self.purchases, self.horizon, self.outcomes)


def evaluated(model: FittedModel, holdout: Holdout) -> dict[str, Any]:
    """What `kiki ltv evaluate --json` prints, with what it was measured on beside it."""
    found = report(holdout.judge(model), holdout.baselines(), fit_seconds=model.fit_seconds, refusal=model.refusal)
    return {**found, "model": model.model, "model_version": model.model_version, **holdout.as_dict()}
