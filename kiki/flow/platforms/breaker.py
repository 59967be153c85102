"""Moved to `kiki.outbound.breaker`, which engage needs as well; what still says the old name finds it here."""

from kiki.outbound.breaker import (
    PROBE_WAIT,
    Breaker,
    BreakerRule,
    BreakerState,
)

__all__ = [
    "PROBE_WAIT",
    "Breaker",
    "BreakerRule",
    "BreakerState",
]
