"""The contract syncvalue.v1.SyncValueService: its answers are the served model's.

A customer who is known by id is answered from all that is known of him. For somebody else the events in the request
are the history, purchases and refunds alone; without any, the answer is what is expected of a new customer and its
status FALLBACK. What is wrong with one request is said in its answer, by its status, as its clients expect.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Final

from kiki.errors import InvalidInput
from kiki.value.contributions import Contributions
from kiki.value.history import AMOUNT_MAX
from kiki.value.pb import syncvalue_pb2 as pb
from kiki.value.score_table import ORDER_AMOUNT, PURCHASES, QUANTITY_WIDTH, REVENUE
from kiki.value.served_model import ServedModel
from kiki.value.wire import ORDERS_MAX, checked_id

PURCHASE_TYPES: Final = frozenset({"purchase", "order", "transaction", "sale"})
REFUND_TYPES: Final = frozenset({"refund", "return"})

_FUTURE_MS: Final = 24 * 3600 * 1000
"""Clocks differ and time zones too: an event may be this much later than now."""

_SCORED_AT_ONCE: Final = 250
"""Histories between two looks at the deadline."""

_RESERVE_SECONDS: Final = 0.02
"""Of a deadline this much is kept for writing and sending what was found."""


def is_quick(served: ServedModel, request: pb.LTVPredictionRequest) -> bool:
    """True when `predict` only looks up; else it computes for some milliseconds."""
    return not request.event_history or served.table.find(request.customer_id) is not None


def predict(served: ServedModel, request: pb.LTVPredictionRequest, now_ms: int) -> pb.LTVPredictionResponse:
    """The answer, whatever is wrong with the request; `now_ms` are milliseconds since 1970."""
    began = time.perf_counter()
    asked = _Asked.of(served, request, now_ms)
    if asked.orders:
        asked.score(served)
    asked.response.inference_time_us = _micros_since(began)
    return asked.response


def predict_batch(
    served: ServedModel, batch: pb.LTVBatchRequest, now_ms: int, seconds_left: Callable[[], float | None]
) -> pb.LTVBatchResponse:
    """An answer each, in order; those that the deadline leaves no time for get the status TIMEOUT.

    Raises `InvalidInput` for more requests than the served model's `batch_max`, and for none.
    """
    if not 0 < len(batch.requests) <= served.batch_max:
        raise InvalidInput(
            f"a batch has 1 to {served.batch_max:,} requests, this one {len(batch.requests):,}",
            hint="send several batches, or a stream",
        )
    began = time.perf_counter()
    all_asked = [_Asked.of(served, request, now_ms) for request in batch.requests]
    waiting: dict[date, list[_Asked]] = {}
    for asked in all_asked:
        if asked.orders:
            waiting.setdefault(asked.as_of, []).append(asked)
    for as_of, group in waiting.items():
        # Histories are scored together: many take little more time than one.
        for begin in range(0, len(group), _SCORED_AT_ONCE):
            some = group[begin : begin + _SCORED_AT_ONCE]
            left = seconds_left()
            if left is not None and left < _RESERVE_SECONDS:
                for asked in some:
                    asked.refuse(pb.TIMEOUT, "the call's deadline left no time for this one")
            else:
                _score_together(served, some, as_of)
    each_us = _micros_since(began) // len(all_asked)
    response = pb.LTVBatchResponse(total_processed=len(all_asked))
    for asked in all_asked:
        asked.response.inference_time_us = each_us
        response.successful += asked.response.status in {pb.SUCCESS, pb.FALLBACK}
        response.responses.append(asked.response)
    response.failed = response.total_processed - response.successful
    return response


def _score_together(served: ServedModel, group: Sequence[_Asked], as_of: date) -> None:
    try:
        scores = served.score_histories([asked.orders for asked in group], as_of)
    except InvalidInput:
        # One of them spoils it for all: each is asked for itself, and told what is wrong with it.
        scores = [None] * len(group)
    for asked, found in zip(group, scores, strict=True):
        if found is None:
            asked.score(served)
        else:
            asked.fill(served, *found)


class _Asked:
    """One request with its response, which is ready unless there are `orders` to score."""

    def __init__(self, response: pb.LTVPredictionResponse) -> None:
        self.response = response
        self.orders: list[tuple[date, float]] = []
        self.as_of = date.min

    @classmethod
    def of(cls, served: ServedModel, request: pb.LTVPredictionRequest, now_ms: int) -> _Asked:
        """What is asked, answered as far as no computing is needed."""
        asked = cls(
            pb.LTVPredictionResponse(
                request_id=request.request_id, timestamp_ms=now_ms, model_version=served.model.model_version
            )
        )
        try:
            asked._begin(served, request, now_ms)
        except InvalidInput as error:
            asked.refuse(pb.INVALID_INPUT, str(error))
        return asked

    def _begin(self, served: ServedModel, request: pb.LTVPredictionRequest, now_ms: int) -> None:
        customer_id = checked_id(request.customer_id)
        if not (math.isfinite(request.current_cac) and request.current_cac >= 0):
            raise InvalidInput(f"current_cac is {request.current_cac:g}: expected a number, 0 or more")
        place = served.table.find(customer_id)
        if place is not None:
            assert served.table.purchases is not None
            self.fill(served, served.table.row(place), int(served.table.purchases.x[place]))
        elif orders := _orders(request.event_history, now_ms):
            self.as_of = _day(request.timestamp_ms or now_ms)
            self.orders = orders
        elif served.answers_unknown:
            self.fill(served, served.table.row(None), None)
            self.response.status = pb.FALLBACK
            self.response.error_message = "the customer is unknown: this is what is expected of a new one"
        else:
            self.refuse(pb.INSUFFICIENT_DATA, "the customer is unknown, and the request holds no purchase")

    def refuse(self, status: pb.PredictionStatus, words: str) -> None:
        """Answer with this status and no value."""
        self.response.status, self.response.error_message = status, words

    def score(self, served: ServedModel) -> None:
        """Answer from the orders."""
        try:
            self.fill(served, *served.score_orders(self.orders, self.as_of))
        except InvalidInput as error:
            self.refuse(pb.INVALID_INPUT, str(error))

    def fill(self, served: ServedModel, row: list[float], x: int | None) -> None:
        """Answer with one row of scores of somebody with `x` repeat purchases; None when nothing is known of him."""
        response = self.response
        response.predicted_ltv = row[REVENUE][0]
        response.ltv_lower_bound, response.ltv_upper_bound = row[REVENUE][QUANTITY_WIDTH - 2 : QUANTITY_WIDTH]
        if x is not None:
            response.confidence = served.coverage.of_customer(x)
        by_spend, by_purchases = Contributions.of(row, served.average).shares()
        features = [
            pb.Feature(name="expected_purchases", importance=by_purchases, value=row[PURCHASES][0]),
            pb.Feature(name="expected_order_amount", importance=by_spend, value=row[ORDER_AMOUNT]),
        ]
        features.sort(key=lambda feature: -feature.importance)
        response.top_features.extend(features)


def _micros_since(began: float) -> int:
    return round((time.perf_counter() - began) * 1e6)


def _orders(events: Sequence[pb.CustomerEvent], now_ms: int) -> list[tuple[date, float]]:
    """Purchases, and refunds below zero; raises `InvalidInput` for amounts and moments that cannot be."""
    if len(events) > ORDERS_MAX:
        raise InvalidInput(f"a history has at most {ORDERS_MAX:,} events, this one {len(events):,}")
    orders = []
    for place, event in enumerate(events):
        kind = event.event_type.lower()
        if kind not in PURCHASE_TYPES and kind not in REFUND_TYPES:
            continue
        if not 0 <= event.event_value <= AMOUNT_MAX:  # NaN too
            raise InvalidInput(f"event {place}: event_value is {event.event_value:g}: expected an amount, 0 or more")
        if not 0 < event.timestamp_ms <= now_ms + _FUTURE_MS:
            raise InvalidInput(
                f"event {place}: timestamp_ms is {event.timestamp_ms}: expected a moment since 1970, not in the future"
            )
        orders.append((_day(event.timestamp_ms), event.event_value if kind in PURCHASE_TYPES else -event.event_value))
    return orders


def _day(milliseconds: int) -> date:
    """The day in UTC; raises `InvalidInput` for one that no calendar has."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).date()
    except (OverflowError, ValueError, OSError):
        raise InvalidInput(f"timestamp_ms is {milliseconds}: no moment that a calendar has") from None
