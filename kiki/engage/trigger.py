"""`POST /trigger`: what the original was sent and what it answered. Pure.

A customer comes as JSON; what is answered is a trigger, `null` when the shield denies, or a trigger without type and action
when there is nothing to do. Unlike the original, a missing last purchase is an error, and no message tells a customer
what they are worth.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from kiki.clock import to_iso
from kiki.engage.retention import Risk, Trigger
from kiki.errors import InvalidInput
from kiki.shield.consent_csv import guarded
from kiki.shield.consent_words import parse_customer_id

INVALID: Final = "Invalid request body"
COLUMNS: Final = ("timestamp", "customer_id", "trigger_type", "action", "message", "discount_pct", "predicted_ltv")
_AMOUNT_MAX: Final = 9_000_000_000_000.0
_YEAR_MIN: Final = 1970


class _Body(msgspec.Struct):
    customer_id: str
    last_purchase: str | None = None
    total_spend: float = 0.0
    purchase_count: int = 0
    engagement_score: float = 0.0
    last_engagement: str | None = None


class Customer(NamedTuple):
    """Somebody whom the caller asks about."""

    customer_id: str
    last_purchase: int
    """Microseconds since the epoch."""
    last_engagement: int | None
    total_spend: float
    engagement_score: float


class Answer(NamedTuple):
    """A trigger, as it goes out and into the audit."""

    customer_id: str
    trigger: Trigger
    executed_at: int
    """When it was decided: nothing is sent here."""
    predicted_ltv: float
    is_fallback: bool
    risk: Risk

    def as_json(self) -> dict[str, Any]:
        """With the original's members; a value that is no forecast says so in one more."""
        told: dict[str, Any] = {
            "customer_id": self.customer_id,
            "trigger_type": self.trigger.trigger_type,
            "action": self.trigger.action,
            "message": self.trigger.message,
            "discount_pct": self.trigger.discount_pct,
            "executed_at": to_iso(self.executed_at),
            "predicted_ltv": self.predicted_ltv,
        }
        return told | ({"ltv_source": "fallback"} if self.is_fallback else {})


def read_customer(body: bytes) -> Customer:
    """The customer in a request's body; raises `InvalidInput` with the original's words in front."""
    try:
        found = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(INVALID) from error
    for name in ("total_spend", "engagement_score"):
        number = getattr(found, name)
        if not (math.isfinite(number) and 0 <= number <= _AMOUNT_MAX):
            raise InvalidInput(f"{INVALID}: {name} is a number from 0 on")
    try:
        customer = parse_customer_id(found.customer_id)
    except InvalidInput as error:
        raise InvalidInput(f"{INVALID}: {error}") from None
    if not found.last_purchase:
        raise InvalidInput(
            f"{INVALID}: last_purchase is missing; without it nobody knows how long the customer was away"
        )
    return Customer(
        customer,
        _moment(found.last_purchase, "last_purchase"),
        _moment(found.last_engagement, "last_engagement") if found.last_engagement else None,
        found.total_spend,
        found.engagement_score,
    )


def _moment(text: str, name: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    # The zero time of Go, year 1, is how a program says that it does not know.
    if moment is None or moment.tzinfo is None or moment.year < _YEAR_MIN:
        raise InvalidInput(f"{INVALID}: {name} is a moment such as 2026-11-22T10:00:00Z")
    return round(moment.astimezone(UTC).timestamp() * 1_000_000)


def audit_row(answer: Answer, local: datetime) -> list[str]:
    """The line of the audit; `local` is the moment with the offset of this machine. No spreadsheet computes an id in it."""
    return [
        local.isoformat(timespec="seconds"),
        guarded(answer.customer_id),
        answer.trigger.trigger_type,
        answer.trigger.action,
        answer.trigger.message,
        f"{answer.trigger.discount_pct:.2f}",
        f"{answer.predicted_ltv:.2f}",
    ]
