"""Who calls a route of the shield, and under which idempotency key."""

from __future__ import annotations

from kiki.errors import InvalidKey
from kiki.shield.wire import KEY_HEADER
from kiki.web import Request


def actor_of(request: Request) -> str:
    """The name of the token that calls, as it stands in the audit; empty when nobody had to say."""
    return request.principal.name if request.principal else ""


def key_of(request: Request) -> str | None:
    """The idempotency key in the header, None without one; raises `InvalidKey` for two of them."""
    given = request.headers.getall(KEY_HEADER, ())
    if len(given) > 1:
        raise InvalidKey(f"the header {KEY_HEADER} is given {len(given)} times; send one key")
    return given[0] if given else None
