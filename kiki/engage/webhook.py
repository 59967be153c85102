"""A provider's call to us, and what every reader of such calls must do. Pure.

A reader first proves the call (signature over the raw bytes, compared in constant time; time within the provider's
window in both directions), then translates. It holds secrets and nothing else: keeping, and knowing what came before,
is the store's work, by the ids of the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from kiki.engage.event import Event, PrivacyRequest
from kiki.engage.profile import Profile

BODY_BYTES_MAX: Final = 2 * 2**20
"""A larger call is refused before it is read."""

Received = Profile | Event | PrivacyRequest


class WebhookCall(NamedTuple):
    """One HTTP request as it came."""

    method: str
    url: str
    """As the provider calls it, with scheme, public host and query: signatures cover it."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def __repr__(self) -> str:
        return f"WebhookCall({self.method}, {len(self.body)} bytes)"


class WebhookReader(Protocol):
    """Proves and translates the calls of one provider."""

    @property
    def name(self) -> str:
        """`shopify`, `hubspot`, `sendgrid`, `twilio`: the last part of its path."""
        ...

    def read(self, call: WebhookCall, now: int) -> tuple[Received, ...]:
        """What the call tells; empty for a topic that does not concern us.

        Raises `Unauthenticated` when the signature or the time is wrong, `InvalidInput` when the body makes no sense.
        """
        ...
