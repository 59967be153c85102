"""Moved to `kiki.outbound.oauth`, which engage needs as well; what still says the old name finds it here."""

from kiki.outbound.oauth import (
    LIFETIME,
    MARGIN,
    REFUSED_FOR,
    TIMEOUT_SECONDS,
    Anonymous,
    Authorization,
    FixedToken,
    OAuth2,
)

__all__ = [
    "LIFETIME",
    "MARGIN",
    "REFUSED_FOR",
    "TIMEOUT_SECONDS",
    "Anonymous",
    "Authorization",
    "FixedToken",
    "OAuth2",
]
