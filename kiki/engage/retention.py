"""The original's decision matrix, to the letter: risk by days, then an action by risk and lifetime value. Pure.

Every comparison is strictly greater. It is here because existing callers rely on it, and as a baseline in reports: a rule
that aims at those who have been away longest can be worse than writing to everybody or to nobody.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

DAY: Final = 24 * 3600 * 1_000_000


class Risk(StrEnum):
    """How likely somebody is to leave, by the original's rule."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Trigger(NamedTuple):
    """What the original answered; without a type and an action there is nothing to do."""

    trigger_type: str = ""
    action: str = ""
    discount_pct: float = 0.0
    message: str = ""


MATRIX: Final[dict[tuple[Risk, bool], Trigger]] = {
    (Risk.HIGH, True): Trigger("churn_risk_high_value", "offer", 20.0, "We miss you! Here's 20% off your next order"),
    (Risk.HIGH, False): Trigger(
        "churn_risk_standard",
        "email",
        10.0,
        "We haven't seen you in a while. Here's 10% off to welcome you back!",
    ),
    (Risk.MEDIUM, True): Trigger("high_value_check", "survey", 0.0, "How's everything going? We value your feedback."),
    (Risk.MEDIUM, False): Trigger("dormant", "email", 0.0, "Check out what's new! Exclusive updates just for you."),
    (Risk.LOW, True): Trigger("high_value_check", "offer", 15.0, "Thank you for being a VIP! Exclusive 15% off"),
    (Risk.LOW, False): Trigger(),
}
"""By risk and whether the value is over the threshold of that risk. The original told customers their own value in two
of the messages; that is left out."""

VALUE_OVER: Final = {Risk.HIGH: 200, Risk.MEDIUM: 300, Risk.LOW: 500}
PURCHASE_DAYS_OVER: Final = {Risk.HIGH: 90, Risk.MEDIUM: 45}
ENGAGEMENT_DAYS_OVER: Final = {Risk.HIGH: 60, Risk.MEDIUM: 30}


def risk_of(now: int, last_purchase: int | None, last_engagement: int | None) -> Risk:
    """The risk of somebody who last bought and last did something at these moments; what is absent says nothing."""
    for risk in (Risk.HIGH, Risk.MEDIUM):
        bought = last_purchase is not None and now - last_purchase > PURCHASE_DAYS_OVER[risk] * DAY
        idle = last_engagement is not None and now - last_engagement > ENGAGEMENT_DAYS_OVER[risk] * DAY
        if bought or idle:
            return risk
    return Risk.LOW


def trigger_of(risk: Risk, value: float) -> Trigger:
    """What to do about somebody of this risk and lifetime value, in units of the currency."""
    return MATRIX[risk, value > VALUE_OVER[risk]]


def fallback_value(total_spend: float, engagement_score: float) -> float:
    """The original's formula for when SyncValue does not answer. A rule of thumb; nothing was measured about it."""
    return max(total_spend * 1.2 + engagement_score * 10, 0.0)
