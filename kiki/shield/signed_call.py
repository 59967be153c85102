"""How kiki and a system of yours know that a call comes from the other: an HMAC over moment, nonce and body. Pure.

    Kiki-Timestamp: 1795409064                          seconds since the epoch
    Kiki-Nonce: 9f86d081884c7d659a2feaa0c55ad015        32 hexadecimal digits, new for each call
    Kiki-Signature: v1=<HMAC-SHA256 in hexadecimal>     of timestamp LF nonce LF method LF path LF body

The receiver computes the same, compares in constant time, refuses a timestamp more than five minutes off, and
remembers the nonces of those minutes, so that nothing recorded works a second time. `check` is that rule; receivers in
other languages are a dozen lines (docs/requests.md).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, MutableMapping
from hashlib import sha256
from typing import Final

from kiki.errors import Unauthenticated

TIMESTAMP: Final = "Kiki-Timestamp"
NONCE: Final = "Kiki-Nonce"
SIGNATURE: Final = "Kiki-Signature"
REPLAY_SECONDS: Final = 300
SECRET_BYTES_MIN: Final = 16

_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_VERSION: Final = "v1="


def signed_headers(secret: bytes, method: str, path: str, body: bytes, *, now: int, nonce: str) -> dict[str, str]:
    """The headers of a call; `now` in seconds since the epoch, `nonce` 32 random hexadecimal digits."""
    return {
        TIMESTAMP: str(now),
        NONCE: nonce,
        SIGNATURE: _VERSION + _digest(secret, str(now), nonce, method, path, body),
    }


def check(
    secret: bytes,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: int,
    seen: MutableMapping[str, int],
) -> None:
    """Nothing for a call that was signed with the secret, just now and once; raises `Unauthenticated` for any other.

    `seen` keeps the nonces of the last minutes, with the second until which each is remembered.
    """
    given, nonce, signature = (headers.get(name, "") for name in (TIMESTAMP, NONCE, SIGNATURE))
    if not (_SECONDS.fullmatch(given) and _NONCE.fullmatch(nonce) and signature.startswith(_VERSION)):
        raise Unauthenticated(f"the call is not signed: {TIMESTAMP}, {NONCE} and {SIGNATURE} must be there")
    expected = _digest(secret, given, nonce, method, path, body)
    if not hmac.compare_digest(expected.encode(), signature.removeprefix(_VERSION).encode("utf-8", "surrogatepass")):
        raise Unauthenticated("the signature is not that of this call and secret")
    if abs(now - int(given)) > REPLAY_SECONDS:
        raise Unauthenticated(
            f"the call was signed {abs(now - int(given))} seconds from now", hint="set both clocks by NTP"
        )
    for old in [one for one, until in seen.items() if until < now]:
        del seen[old]
    if nonce in seen:
        raise Unauthenticated("this call was made before")
    seen[nonce] = int(given) + REPLAY_SECONDS


def _digest(secret: bytes, timestamp: str, nonce: str, method: str, path: str, body: bytes) -> str:
    head = f"{timestamp}\n{nonce}\n{method}\n{path}\n".encode()
    return hmac.new(secret, head + body, sha256).hexdigest()
