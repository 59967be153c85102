"""Between scores and the messages of kiki.value.v1: what is asked, and the bytes that answer it. Pure.

A message may be written in pieces, one after the other: that is how protobuf is read. So what all answers of one model
share is written once (`shared_bytes`), and the columns of a batch are laid in as the memory of an array holds them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from kiki.errors import InvalidInput
from kiki.money import MICROS
from kiki.value.groups import DAYS_PER_UNIT, Floats, Ints
from kiki.value.history import History
from kiki.value.pb import value_pb2 as pb
from kiki.value.score_table import (
    ALIVE,
    DISCOUNTED_VALUE,
    NO_PURCHASE,
    ORDER_AMOUNT,
    PURCHASES,
    QUANTITY_WIDTH,
    REVENUE,
)

ORDERS_MAX: Final = 10_000
"""Most orders in one history."""

ID_LENGTH_MAX: Final = 1024

Asked = TypeVar("Asked", bound=Message)


def read(kind: type[Asked], data: bytes) -> Asked:
    """The message in these bytes; raises `InvalidInput` when they are none of that kind."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidInput(f"these bytes are no {kind.DESCRIPTOR.full_name}") from None


def checked_id(customer_id: str) -> str:
    """The id; raises `InvalidInput` for one that nobody has."""
    if not customer_id:
        raise InvalidInput("customer_id is empty")
    if len(customer_id) > ID_LENGTH_MAX:
        raise InvalidInput(f"customer_id has {len(customer_id):,} characters, more than {ID_LENGTH_MAX:,}")
    return customer_id


def history_of(summary: pb.Summary, unit: str) -> History:
    """A summary in the model's unit; raises `InvalidInput` for one that cannot be."""
    if summary.HasField("mean_order_micros") and summary.mean_order_micros < 0:
        raise InvalidInput("mean_order_micros is below 0: refunds belong off the orders they refund")
    days = DAYS_PER_UNIT[unit]
    amount = summary.mean_order_micros / MICROS if summary.HasField("mean_order_micros") else None
    return History(summary.frequency, summary.recency_days / days, summary.age_days / days, amount)


def orders_of(history: pb.History) -> list[tuple[date, float]]:
    """Dated amounts; raises `InvalidInput` for days that are none, and for more than `ORDERS_MAX`."""
    if len(history.orders) > ORDERS_MAX:
        raise InvalidInput(f"a history has at most {ORDERS_MAX:,} orders, this one {len(history.orders):,}")
    return [(day_of_text(order.date, "the date of an order"), order.amount_micros / MICROS) for order in history.orders]


def day_of_text(text: str, name: str) -> date:
    """The day; raises `InvalidInput`."""
    try:
        # Not every form that ISO 8601 knows: 2026W14 or 20260331 would be a typing mistake here.
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidInput(f"{name} is {text[:40]!r}: expected a day, for example 2026-03-31")


def cohort_of_text(text: str) -> str | None:
    """The month of a first purchase, None for an empty text; raises `InvalidInput`."""
    if not text or re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", text):
        return text or None
    raise InvalidInput(f"cohort is {text[:40]!r}: expected a month, for example 2026-03")


def shared_bytes(
    *, horizon: float, unit: str, model_version: str, currency: str | None, coverage_claimed: bool
) -> bytes:
    """What all answers of one model share, of a `PredictResponse` and of a `PredictBatchResponse` alike."""
    return pb.PredictResponse(
        horizon=horizon,
        unit=unit,
        model_version=model_version,
        currency=currency or "",
        coverage_claimed=coverage_claimed,
    ).SerializeToString()


def response_bytes(
    row: Sequence[float], source: pb.Source, shared: bytes, *, as_of: str = "", reasons: Sequence[str] = ()
) -> bytes:
    """A `PredictResponse` from one row of scores."""
    value = row[DISCOUNTED_VALUE]
    own = pb.PredictResponse(
        purchases=pb.Quantity(**dict(zip(_QUANTITY, row[PURCHASES], strict=True))),
        revenue=pb.Quantity(**dict(zip(_QUANTITY, row[REVENUE], strict=True))),
        probability_alive=row[ALIVE],
        probability_no_purchase=row[NO_PURCHASE],
        expected_order_amount=row[ORDER_AMOUNT],
        discounted_value=value if value == value else None,  # noqa: PLR0124  # NaN: there is none
        source=source,
        as_of=as_of,
        reasons=reasons,
    )
    return own.SerializeToString() + shared


def batch_bytes(
    scores: Floats, sources: Ints, shared: bytes, *, as_of: str, means_only: bool, discounted: bool
) -> bytes:
    """A `PredictBatchResponse` from rows of scores; `discounted` says whether the model gives that value."""
    fields = pb.PredictBatchResponse.DESCRIPTOR.fields_by_name
    columns = np.ascontiguousarray(scores.T, dtype="<f8")
    width = 1 if means_only else QUANTITY_WIDTH
    parts = []
    for name, place in (("purchases", PURCHASES), ("revenue", REVENUE)):
        quantities = b"".join(_packed(number, columns[place.start + number - 1]) for number in range(1, width + 1))
        parts.append(_delimited(fields[name].number, quantities))
    singles = [
        ("probability_alive", ALIVE),
        ("probability_no_purchase", NO_PURCHASE),
        ("expected_order_amount", ORDER_AMOUNT),
    ]
    if discounted:
        singles.append(("discounted_value", DISCOUNTED_VALUE))
    parts += [_packed(fields[name].number, columns[column]) for name, column in singles]
    # Numbers of an enum below 128 are one byte each.
    parts.append(_packed(fields["source"].number, sources.astype(np.uint8)))
    parts += [_delimited(fields["as_of"].number, as_of.encode()), shared]
    return b"".join(parts)


_QUANTITY: Final = tuple(field.name for field in pb.Quantity.DESCRIPTOR.fields)


def _packed(field: int, column: npt.NDArray[np.float64] | npt.NDArray[np.uint8]) -> bytes:
    return _delimited(field, column.tobytes())


def _delimited(field: int, content: bytes) -> bytes:
    """A field of wire type 2: the key, the length, the content."""
    return bytes((field << 3 | 2,)) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
