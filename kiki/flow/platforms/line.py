"""Moved to `kiki.outbound.line`, which engage needs as well; what still says the old name finds it here."""

from kiki.outbound.line import (
    CONNECT_SECONDS,
    PATIENCE,
    READ,
    REPLY_BYTES_MAX,
    THROTTLED_FOR,
    TIMEOUT_SECONDS,
    WRITE,
    Line,
    Reply,
    Request,
)

__all__ = [
    "CONNECT_SECONDS",
    "PATIENCE",
    "READ",
    "REPLY_BYTES_MAX",
    "THROTTLED_FOR",
    "TIMEOUT_SECONDS",
    "WRITE",
    "Line",
    "Reply",
    "Request",
]
