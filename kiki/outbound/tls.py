"""What the certificates of other people's services must lead to."""

from __future__ import annotations

import functools
import ssl

import httpx


@functools.cache
def trusted() -> ssl.SSLContext:
    """The authorities that this machine trusts, read once: reading them takes longer than many a call."""
    return httpx.create_ssl_context()
