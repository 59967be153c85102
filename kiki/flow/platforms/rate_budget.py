"""Moved to `kiki.outbound.rate_budget`, which engage needs as well; what still says the old name finds it here."""

from kiki.outbound.rate_budget import (
    ASKED_MAX,
    MINUTE,
    RateBudget,
    reset_at,
    retry_after,
)

__all__ = [
    "ASKED_MAX",
    "MINUTE",
    "RateBudget",
    "reset_at",
    "retry_after",
]
