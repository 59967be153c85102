"""A message that lies in the outbox. Pure."""

from __future__ import annotations

import msgspec

from kiki.engage.channel import Message


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One message, as it would have gone out."""

    at: int
    message: Message
    headers: dict[str, str] = {}
    """What mail would carry beside it."""
