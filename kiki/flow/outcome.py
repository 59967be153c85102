"""Moved to `kiki.outbound.outcome`, which engage needs as well; what still says the old name finds it here."""

from kiki.outbound.outcome import (
    Fate,
    Outcome,
    done,
    refused,
    unknown,
)

__all__ = [
    "Fate",
    "Outcome",
    "done",
    "refused",
    "unknown",
]
