"""What a client asks about customers, in the words of the service: by id, by what is known of them, or as somebody new. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal

from kiki.errors import InvalidInput
from kiki.money import parse_micros
from kiki.value.pb import value_pb2 as pb

Amount = Decimal | int | str
"""Money as text or decimal; a float is not exact."""


def by_id(customer_id: str, horizon: float | None, *, reasons: bool) -> pb.PredictRequest:
    """About somebody who is known by id."""
    known = _text(customer_id)
    if not known:
        raise InvalidInput("customer_id is empty")
    return pb.PredictRequest(customer_id=known, horizon=horizon, reasons=reasons)


def by_summary(
    frequency: int, recency_days: int, age_days: int, mean_order: Amount | None, horizon: float | None
) -> pb.PredictRequest:
    """About somebody with this summary."""
    summary = pb.Summary(
        frequency=frequency,
        recency_days=recency_days,
        age_days=age_days,
        mean_order_micros=None if mean_order is None else _micros(mean_order),
    )
    return pb.PredictRequest(history=pb.History(summary=summary), horizon=horizon)


def by_orders(
    orders: Iterable[tuple[date, Amount]], as_of: date, horizon: float | None, *, reasons: bool
) -> pb.PredictRequest:
    """About somebody with these orders."""
    lines = [pb.Order(date=_day(day), amount_micros=_micros(amount)) for day, amount in orders]
    history = pb.History(orders=lines, as_of=_day(as_of))
    return pb.PredictRequest(history=history, horizon=horizon, reasons=reasons)


def by_cohort(cohort: str | None, horizon: float | None) -> pb.PredictRequest:
    """About a new customer."""
    return pb.PredictRequest(new_customer=pb.NewCustomer(cohort=cohort or ""), horizon=horizon)


def in_batches(customer_ids: Iterable[str], batch: int, *, means_only: bool) -> Iterator[pb.PredictBatchRequest]:
    """About many, at most `batch` at once."""
    if isinstance(customer_ids, str):
        raise InvalidInput("customer_ids is one text, whose letters are nobody's ids: give a list")
    ids = [_text(each) for each in customer_ids]
    if not all(ids):
        raise InvalidInput("a customer_id is empty")
    for begin in range(0, len(ids), batch):
        yield pb.PredictBatchRequest(customer_ids=ids[begin : begin + batch], means_only=means_only)


def _micros(amount: Amount) -> int:
    """The amount in micros, below zero for a refund; raises `InvalidMoney`."""
    if isinstance(amount, str):
        return -parse_micros(amount[1:], zero=True) if amount.startswith("-") else parse_micros(amount, zero=True)
    return parse_micros(amount, zero=True) if amount >= 0 else -parse_micros(-amount, zero=True)


def _day(day: object) -> str:
    """The day as the service reads it; raises `InvalidInput` for text and for a moment, whose day is for its zone to say."""
    if not isinstance(day, date) or isinstance(day, datetime):
        raise InvalidInput(f"a day is a datetime.date, not {day!r}")
    return day.isoformat()


def _text(customer_id: object) -> str:
    """The id; raises `InvalidInput` for one that is no text, or has no UTF-8."""
    if not isinstance(customer_id, str):
        raise InvalidInput(f"a customer_id is text, not {customer_id!r}")
    try:
        customer_id.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a customer_id is not Unicode: it holds half of a surrogate pair") from None
    return customer_id
