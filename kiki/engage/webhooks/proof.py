"""What every proof of a webhook shares: constant time, moments within a window, one header that must be there. Pure.

A time that was signed protects from replay for as long as its window is narrow. Providers that sign none (Shopify,
Twilio) leave only the ids of what they tell: whoever keeps the records keeps each id once.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Final

from kiki.clock import SECOND
from kiki.engage.webhook import WebhookCall
from kiki.errors import Unauthenticated

FUTURE_MAX: Final = 300 * SECOND
"""No honest clock is further ahead than this."""

_DIGITS = re.compile(r"[0-9]{1,16}", re.ASCII)


def header(call: WebhookCall, name: str) -> str:
    """That header's text; raises `Unauthenticated` when it is missing. `name` as the provider writes it."""
    text = call.headers.get(name.lower(), "").strip()
    if not text:
        raise Unauthenticated(f"the call is not signed: {name} is missing")
    return text


def require_same(expected: bytes, given: str) -> None:
    """Nothing when the signature given is the expected one; else `Unauthenticated`. Takes equally long for any of a length."""
    if not hmac.compare_digest(expected, given.encode("utf-8", "surrogatepass")):
        raise Unauthenticated(
            "the signature is not that of this call and secret",
            hint="check the secret and the public URL, and that no proxy rewrites the body",
        )


def require_fresh(moment: int, now: int, *, past: int, future: int = FUTURE_MAX) -> None:
    """Nothing for a moment between `past` ago and `future` ahead; else `Unauthenticated`. All in microseconds."""
    if now - moment > past:
        raise Unauthenticated(f"the call was signed {(now - moment) // SECOND} seconds ago: at most {past // SECOND}")
    if moment - now > future:
        raise Unauthenticated(
            f"the call was signed {(moment - now) // SECOND} seconds in the future", hint="set the clock by NTP"
        )


def whole_number(text: str, name: str) -> int:
    """The header's number; raises `Unauthenticated` for what is none."""
    if not _DIGITS.fullmatch(text):
        raise Unauthenticated(f"{name} is not a whole number")
    return int(text)


def from_base64(text: str, name: str) -> bytes:
    """The decoded bytes, from standard base64 alone; raises `Unauthenticated`."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise Unauthenticated(f"{name} is not base64") from None
