"""Tokens that fetch one package once: for the person, who has no bearer token. Kept in memory, as hashes.

A restart forgets them, and a new one is made. The package lies on the disk of the process that made it, so a token is
good where it was made.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from hashlib import sha256
from typing import Final, NamedTuple

from kiki.clock import SECOND, Clock
from kiki.errors import NotFound

TOKEN_LIFE: Final = 24 * 3600 * SECOND
TOKENS_MAX: Final = 10_000
_TOKEN_BYTES: Final = 32


class PackageToken(NamedTuple):
    """A token that was made."""

    token: str
    expires_at: int
    """Microseconds since the epoch."""


class PackageTokens:
    """Makes tokens and takes them back. Thread-safe; its memory is bounded, the oldest are forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    def make(self, request: str) -> PackageToken:
        """A new token for the package of a request."""
        token, expires_at = secrets.token_urlsafe(_TOKEN_BYTES), self._clock() + TOKEN_LIFE
        with self._lock:
            self._known[_digest(token)] = request, expires_at
            while len(self._known) > TOKENS_MAX:
                self._known.popitem(last=False)
        return PackageToken(token, expires_at)

    def take(self, request: str, token: str) -> None:
        """Use a token up; raises `NotFound` when it is not good for this request (any more)."""
        with self._lock:
            found = self._known.pop(_digest(token), None)
        if found is None or found[0] != request or found[1] <= self._clock():
            raise NotFound(
                "this link is not good any more: it was used, it is too old, or it never was one",
                hint="ask for a new link",
            )


def _digest(token: str) -> bytes:
    # Looked up by its hash: how long that takes tells nothing about the token.
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
