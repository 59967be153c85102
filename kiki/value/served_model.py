"""One model with everybody's scores, as a service or a client in the same process answers from it: never changed, only replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from kiki.errors import InvalidInput, NotFound
from kiki.value import wire
from kiki.value.fitted_model import HORIZON_DAYS_MAX, FittedModel
from kiki.value.groups import DAYS_PER_UNIT, Floats
from kiki.value.history import History, purchases_of, purchases_of_many, purchases_of_orders
from kiki.value.measured_coverage import MeasuredCoverage
from kiki.value.pb import value_pb2 as pb
from kiki.value.purchases import Purchases, summarise
from kiki.value.score_table import WIDTH, ScoreTable, scores_of

BATCH_MAX: Final = 10_000
"""Most customers in one batch, unless told otherwise: about 1.6 MB of answer, where gRPC takes 4 MB by default."""


class ServedModel:
    """Answers the messages of kiki.value.v1. Safe to ask from several threads."""

    def __init__(
        self,
        model: FittedModel,
        purchases: Purchases | None = None,
        *,
        answer_unknown: bool = True,
        batch_max: int = BATCH_MAX,
    ) -> None:
        """`purchases` are the customers who are known by id; all of them are scored here.

        `answer_unknown`: another id gets what is expected of a new customer, and is told so; else it is not found.
        """
        self.model = model
        self.batch_max = batch_max
        self.coverage = MeasuredCoverage.of(model.card)
        self.prior: Floats = scores_of(model.new_customer())[0]
        self.answers_unknown = answer_unknown
        scores = np.empty((0, WIDTH)) if purchases is None else scores_of(model.predict(purchases))
        self.table = ScoreTable(purchases, scores, self.prior if answer_unknown else None)
        self.average: list[float] = (scores.mean(axis=0) if scores.size else self.prior).tolist()
        """What the average of the known customers is expected to do; a new customer's where none is known."""
        self.as_of = "" if purchases is None else purchases.calibration_end.isoformat()
        self._discounted = model.discount_rate is not None
        self._shared = self._shared_bytes(model.horizon)
        self._unmeasured = self._shared_bytes(model.horizon, measured=False)
        self._elsewhere = pb.SOURCE_UNKNOWN_CUSTOMER if answer_unknown else pb.SOURCE_NOT_FOUND

    @classmethod
    def load(
        cls,
        model_file: Path,
        customers_file: Path | None = None,
        *,
        answer_unknown: bool = True,
        batch_max: int = BATCH_MAX,
    ) -> ServedModel:
        """The model in this file, and the customers in that one: an order log, or a summary as Parquet.

        A log is taken up to its last day, a summary is of the day that the model's calibration ended. Raises
        `ModelInvalid` and `InvalidInput` for files that cannot be used.
        """
        model = FittedModel.load(model_file)
        purchases = None if customers_file is None else _customers(customers_file, model)
        return cls(model, purchases, answer_unknown=answer_unknown, batch_max=batch_max)

    def is_quick(self, request: pb.PredictRequest) -> bool:
        """True when `predict` only has to look up what is known already; all else computes for some milliseconds."""
        return (
            request.WhichOneof("customer") == "customer_id" and not request.reasons and not request.HasField("horizon")
        )

    def predict(self, request: pb.PredictRequest) -> bytes:
        """The `PredictResponse`. Raises `InvalidInput` for a request that cannot be answered, `NotFound` for an unknown id."""
        asked = request.WhichOneof("customer")
        if asked is None:
            raise InvalidInput("name a customer: customer_id, history or new_customer")
        horizon = self._horizon(request)
        if asked == "customer_id":
            return self._of_id(wire.checked_id(request.customer_id), horizon, reasons=request.reasons)
        if asked == "history":
            return self._of_history(request.history, horizon, reasons=request.reasons)
        cohort = wire.cohort_of_text(request.new_customer.cohort)
        return self._of_new(cohort, horizon, pb.SOURCE_NEW_CUSTOMER)

    def predict_batch(self, request: pb.PredictBatchRequest) -> bytes:
        """The `PredictBatchResponse`. Raises `InvalidInput` for more than `batch_max` customers, and for none."""
        count = len(request.customer_ids)
        if not 0 < count <= self.batch_max:
            raise InvalidInput(
                f"a batch has 1 to {self.batch_max:,} customers, this one {count:,}",
                hint="send several batches; PredictStream takes any number of them",
            )
        places = self.table.rows(request.customer_ids, count)
        sources = np.where(places < 0, self._elsewhere, pb.SOURCE_SCORED)
        return wire.batch_bytes(
            self.table.scores[places],
            sources,
            self._shared,
            as_of=self.as_of,
            means_only=request.means_only,
            discounted=self._discounted,
        )

    def info(self) -> pb.ModelInfoResponse:
        """What is served, and how good it was measured to be."""
        model, coverage = self.model, self.coverage
        return pb.ModelInfoResponse(
            model_version=model.model_version,
            model=model.model,
            unit=model.unit,
            horizon=model.horizon,
            calibration_end=model.calibration_end.isoformat(),
            currency=model.currency or "",
            data_fingerprint=model.fitted_on.fingerprint,
            customers=len(self.table),
            customers_as_of=self.as_of,
            batch_max=self.batch_max,
            coverage_claimed=coverage.claimed,
            coverage_reason=coverage.reason,
            coverage=[
                pb.Coverage(of=kind, nominal=level / 100, measured=measured)
                for (kind, level), measured in coverage.overall.items()
            ],
            details_json=json.dumps(model.info(), allow_nan=False),
        )

    def score_orders(self, orders: Sequence[tuple[date, float]], as_of: date) -> tuple[list[float], int]:
        """Scores of somebody with these orders, and how many repeat purchases they are.

        Raises `InvalidInput` when none is left on `as_of`.
        """
        found = purchases_of_orders(orders, as_of, self.model.unit, currency=self.model.currency)
        return scores_of(self.model.predict(found))[0].tolist(), int(found.x[0])

    def score_histories(
        self, histories: Sequence[Sequence[tuple[date, float]]], as_of: date
    ) -> list[tuple[list[float], int] | None]:
        """The same for many, in their order; None for those who have no order left. Raises when nobody has."""
        found = purchases_of_many(histories, as_of, self.model.unit, currency=self.model.currency)
        scores = scores_of(self.model.predict(found))
        rows: list[tuple[list[float], int] | None] = [None] * len(histories)
        for row, (name, x) in enumerate(zip(found.ids, found.x, strict=True)):
            rows[int(name)] = scores[row].tolist(), int(x)
        return rows

    def score_first_order(self, amount: float) -> list[float]:
        """Scores of somebody who has just bought for the first time, and spent `amount`."""
        model = self.model
        one = purchases_of([History(0, 0.0, 0.0, amount)], model.calibration_end, model.unit, currency=model.currency)
        row: list[float] = scores_of(model.predict(one, dated=False))[0].tolist()
        return row

    def freshness(self, today: date) -> float:
        """How much of the horizon is still to come: 1 on the last day that is known of the customers, 0 when it is over."""
        model = self.model
        known = model.calibration_end if self.table.purchases is None else self.table.purchases.calibration_end
        horizon = model.horizon * DAYS_PER_UNIT[model.unit]
        return min(max(1 - (today - known).days / horizon, 0.0), 1.0)

    def _of_id(self, customer_id: str, horizon: float | None, *, reasons: bool) -> bytes:
        place = self.table.find(customer_id)
        if place is None:
            if not self.answers_unknown:
                raise NotFound("there is no customer with this id")
            if horizon is not None:
                return self._of_new(None, horizon, pb.SOURCE_UNKNOWN_CUSTOMER)
            return wire.response_bytes(self.table.row(None), pb.SOURCE_UNKNOWN_CUSTOMER, self._unmeasured)
        if horizon is None and not reasons:
            return wire.response_bytes(self.table.row(place), pb.SOURCE_SCORED, self._shared, as_of=self.as_of)
        assert self.table.purchases is not None
        one = self.table.purchases.take(np.array([place]))
        return self._of_purchases(one, horizon, pb.SOURCE_SCORED, self.as_of, reasons=reasons)

    def _of_history(self, history: pb.History, horizon: float | None, *, reasons: bool) -> bytes:
        unit, currency = self.model.unit, self.model.currency
        if history.HasField("summary") == bool(history.orders):
            raise InvalidInput("a history is orders or a summary: one of the two")
        if history.orders:
            as_of = wire.day_of_text(history.as_of, "as_of")
            found = purchases_of_orders(wire.orders_of(history), as_of, unit, currency=currency)
            return self._of_purchases(found, horizon, pb.SOURCE_HISTORY, as_of.isoformat(), reasons=reasons)
        if history.as_of:
            raise InvalidInput("as_of is for orders; a summary has its age")
        summary = wire.history_of(history.summary, unit)
        found = purchases_of([summary], self.model.calibration_end, unit, currency=currency)
        return self._of_purchases(found, horizon, pb.SOURCE_HISTORY, "", reasons=reasons, dated=False)

    def _of_purchases(
        self,
        purchases: Purchases,
        horizon: float | None,
        source: pb.Source,
        as_of: str,
        *,
        reasons: bool,
        dated: bool = True,
    ) -> bytes:
        predictions = self.model.predict(purchases, horizon, dated=dated)
        words = self.model.explain(purchases, predictions, 0) if reasons else ()
        shared = self._shared if horizon is None else self._shared_bytes(horizon, measured=False)
        return wire.response_bytes(scores_of(predictions)[0].tolist(), source, shared, as_of=as_of, reasons=words)

    def _of_new(self, cohort: str | None, horizon: float | None, source: pb.Source) -> bytes:
        if horizon is None and cohort is None:
            return wire.response_bytes(self.prior.tolist(), source, self._unmeasured)
        row = scores_of(self.model.new_customer(cohort, horizon))[0].tolist()
        shared = self._unmeasured if horizon is None else self._shared_bytes(horizon, measured=False)
        return wire.response_bytes(row, source, shared)

    def _horizon(self, request: pb.PredictRequest) -> float | None:
        if not request.HasField("horizon"):
            return None
        most = HORIZON_DAYS_MAX / DAYS_PER_UNIT[self.model.unit]
        if not 0 < request.horizon <= most:  # NaN too
            raise InvalidInput(
                f"a horizon is above 0 and at most {most:.0f} {self.model.unit}s, not {request.horizon:g}"
            )
        return request.horizon

    def _shared_bytes(self, horizon: float, *, measured: bool = True) -> bytes:
        # Measured were customers with a history, for the model's own horizon: nothing is claimed of others.
        model = self.model
        return wire.shared_bytes(
            horizon=horizon,
            unit=model.unit,
            model_version=model.model_version,
            currency=model.currency,
            coverage_claimed=measured and self.coverage.claimed,
        )


def _customers(path: Path, model: FittedModel) -> Purchases:
    if path.suffix == ".parquet":
        from kiki.value.score_stream import is_summary, read_summary

        if is_summary(path):
            return read_summary(path, calibration_end=model.calibration_end, unit=model.unit, currency=model.currency)
    from kiki.value.order_log import read_orders  # and pandas with it

    return summarise(read_orders(path, currency=model.currency), None, model.unit)
