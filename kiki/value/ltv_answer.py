"""What a client is told: of a customer the value, how sure it is, and where it comes from; of the model its file.

Pure, and light: no numpy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from google.protobuf.json_format import MessageToDict

from kiki.errors import InvalidInput, ValueUnreachable
from kiki.value.pb import value_pb2 as pb

Source = Literal["scored", "history", "new_customer", "unknown_customer", "not_found", "fallback", "other"]

LEVELS: Final = (80, 90, 95)


class Outcome(NamedTuple):
    """Purchases or revenue within the horizon; all but the mean is None when only means were asked for."""

    mean: float
    """The expected value: the one number that may be added up over customers."""
    median: float | None = None
    """Half the customers like this one do less."""
    interval_80: tuple[float, float] | None = None
    """Lower and upper end: the outcome is in between with a chance of 80 per cent, and as often below as above."""
    interval_90: tuple[float, float] | None = None
    interval_95: tuple[float, float] | None = None

    def interval(self, level: int) -> tuple[float, float] | None:
        """The interval of 80, 90 or 95 per cent; raises `InvalidInput` for another level."""
        if level not in LEVELS:
            raise InvalidInput(f"the intervals are those of {', '.join(map(str, LEVELS))} per cent, not {level}")
        return (self.interval_80, self.interval_90, self.interval_95)[LEVELS.index(level)]


@dataclass(frozen=True, slots=True)
class LtvAnswer:
    """One customer's lifetime value; everything but `expected` and `source` is None in a fallback."""

    expected: float
    """Expected revenue within `horizon` units from now, in units of `currency`; NaN for a customer who was not found."""
    source: Source
    """`scored` from all that is known; `history`: from the history given; `new_customer`, as asked; `unknown_customer`: the id
    is unknown, and this is what is expected of a new customer; `not_found`: in batches only; `fallback`: the service was away, and this is no forecast;
    `other`: one that this client is too old to know."""
    customer_id: str | None = None
    purchases: Outcome | None = None
    revenue: Outcome | None = None
    probability_alive: float | None = None
    probability_no_purchase: float | None = None
    """Of no purchase within the horizon: churn."""
    expected_order_amount: float | None = None
    discounted_value: float | None = None
    """None, too, when the model has no discount rate."""
    horizon: float | None = None
    unit: str | None = None
    currency: str | None = None
    as_of: str | None = None
    """The last day that is known of the customer; None where the horizon counts from somewhere else."""
    model_version: str | None = None
    coverage_claimed: bool = False
    """Whether the intervals were measured to hold as often as they say."""
    reasons: tuple[str, ...] = ()

    @property
    def is_fallback(self) -> bool:
        """True when the service was away and this is the caller's own fallback value."""
        return self.source == "fallback"

    def interval(self, level: int = 90) -> tuple[float, float] | None:
        """Where revenue will be with a chance of `level` per cent; None in a fallback and where only means were asked for."""
        return (self.revenue or Outcome(self.expected)).interval(level)


def answer_of(response: pb.PredictResponse, customer_id: str | None) -> LtvAnswer:
    """The answer in this response."""
    return LtvAnswer(
        expected=response.revenue.mean,
        source=_source(response.source),
        customer_id=customer_id,
        purchases=_outcome(response.purchases),
        revenue=_outcome(response.revenue),
        probability_alive=response.probability_alive,
        probability_no_purchase=response.probability_no_purchase,
        expected_order_amount=response.expected_order_amount,
        discounted_value=response.discounted_value if response.HasField("discounted_value") else None,
        horizon=response.horizon,
        unit=response.unit,
        currency=response.currency or None,
        as_of=response.as_of or None,
        model_version=response.model_version,
        coverage_claimed=response.coverage_claimed,
        reasons=tuple(response.reasons),
    )


def answers_of(response: pb.PredictBatchResponse, customer_ids: Sequence[str]) -> list[LtvAnswer]:
    """The answers in this response, in the order of the ids that were asked; raises `ValueUnreachable` when one is missing."""
    try:
        return list(_answers(response, customer_ids))
    except (IndexError, ValueError):
        raise ValueUnreachable(f"the service answered, but not for all {len(customer_ids):,} customers") from None


def model_info_of(response: pb.ModelInfoResponse) -> dict[str, Any]:
    """What is served, as `ModelInfoResponse` names it; `details` is the model's own file."""
    found: dict[str, Any] = MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    # JSON has no 64-bit integers, so protobuf writes them as text.
    found["customers"] = response.customers
    found["details"] = json.loads(found.pop("details_json") or "{}")
    return found


def _answers(response: pb.PredictBatchResponse, customer_ids: Sequence[str]) -> Iterator[LtvAnswer]:
    discounted = response.discounted_value
    purchases, revenue = (_outcomes(each) for each in (response.purchases, response.revenue))
    for place, customer_id in enumerate(customer_ids):
        source = _source(response.source[place])
        yield LtvAnswer(
            expected=revenue[place].mean,
            source=source,
            customer_id=customer_id,
            purchases=purchases[place],
            revenue=revenue[place],
            probability_alive=response.probability_alive[place],
            probability_no_purchase=response.probability_no_purchase[place],
            expected_order_amount=response.expected_order_amount[place],
            discounted_value=discounted[place] if discounted else None,
            horizon=response.horizon,
            unit=response.unit,
            currency=response.currency or None,
            as_of=(response.as_of or None) if source == "scored" else None,
            model_version=response.model_version,
            coverage_claimed=response.coverage_claimed and source == "scored",
        )


_SOURCES: Final[dict[int, Source]] = {
    pb.SOURCE_SCORED: "scored",
    pb.SOURCE_HISTORY: "history",
    pb.SOURCE_NEW_CUSTOMER: "new_customer",
    pb.SOURCE_UNKNOWN_CUSTOMER: "unknown_customer",
    pb.SOURCE_NOT_FOUND: "not_found",
}


def _source(number: int) -> Source:
    return _SOURCES.get(number, "other")


def _outcome(quantity: pb.Quantity) -> Outcome:
    return Outcome(
        quantity.mean,
        quantity.median,
        (quantity.lower_80, quantity.upper_80),
        (quantity.lower_90, quantity.upper_90),
        (quantity.lower_95, quantity.upper_95),
    )


def _outcomes(columns: pb.Quantities) -> list[Outcome]:
    if not columns.median:
        return [Outcome(mean) for mean in columns.mean]
    ends = (
        zip(lower, upper, strict=True)
        for lower, upper in (
            (columns.lower_80, columns.upper_80),
            (columns.lower_90, columns.upper_90),
            (columns.lower_95, columns.upper_95),
        )
    )
    return list(map(Outcome, columns.mean, columns.median, *ends))
