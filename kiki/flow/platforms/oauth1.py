"""OAuth 1.0a (RFC 5849, HMAC-SHA1): every request of X is signed with two secrets, which never travel."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from urllib.parse import parse_qsl, quote, urlsplit

import httpx

from kiki.clock import SECOND, Clock, wall_micros
from kiki.outbound.outcome import Outcome
from kiki.settings import Secret

FORM = "application/x-www-form-urlencoded"


def _nonce() -> str:
    return secrets.token_hex(16)


class OAuth1:
    """Signs the requests of one user of one application."""

    def __init__(
        self,
        consumer_key: str,
        consumer_secret: Secret,
        token: str,
        token_secret: Secret,
        *,
        clock: Clock = wall_micros,
        nonce: Callable[[], str] = _nonce,
    ) -> None:
        self._consumer_key = consumer_key
        self._consumer_secret = consumer_secret
        self._token = token
        self._token_secret = token_secret
        self._clock = clock
        self._nonce = nonce

    def __repr__(self) -> str:
        return f"OAuth1({self._consumer_key!r})"

    @property
    def secrets(self) -> Collection[Secret]:
        """See `Authorization`."""
        return (self._consumer_secret, self._token_secret)

    async def apply(self, request: httpx.Request) -> Outcome | None:
        """See `Authorization`."""
        form = request.content if request.headers.get("content-type", "").partition(";")[0] == FORM else b""
        request.headers["Authorization"] = self.header(request.method, str(request.url), form.decode())
        return None

    async def renew(self, refused_one: httpx.Request) -> bool:
        """See `Authorization`. There is nothing to renew: such tokens do not end."""
        return False

    async def close(self) -> None:
        """See `Authorization`."""

    def header(self, method: str, url: str, form: str = "") -> str:
        """The `Authorization` of one request; `form` is its body where that is a form."""
        protocol = {
            "oauth_consumer_key": self._consumer_key,
            "oauth_nonce": self._nonce(),
            "oauth_signature_method": "HMAC-SHA1",
            "oauth_timestamp": str(self._clock() // SECOND),
            "oauth_token": self._token,
            "oauth_version": "1.0",
        }
        key = f"{_escaped(self._consumer_secret.reveal())}&{_escaped(self._token_secret.reveal())}"
        base = signature_base(method, url, form, protocol)
        digest = hmac.digest(key.encode(), base.encode(), hashlib.sha1)
        signed = {**protocol, "oauth_signature": base64.b64encode(digest).decode()}
        return "OAuth " + ", ".join(f'{_escaped(name)}="{_escaped(value)}"' for name, value in sorted(signed.items()))


def signature_base(method: str, url: str, form: str, protocol: Mapping[str, str]) -> str:
    """What is signed (RFC 5849, 3.4.1): the method, the address, and all parameters in the order of their bytes."""
    parts = urlsplit(url)
    given = [*_parameters(parts.query), *_parameters(form), *protocol.items()]
    pairs = sorted((_escaped(name), _escaped(value)) for name, value in given)
    port = parts.port
    usual = port is None or (parts.scheme, port) in {("https", 443), ("http", 80)}
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    address = f"{parts.scheme.lower()}://{host}{'' if usual else f':{port}'}{parts.path or '/'}"
    return "&".join((method.upper(), _escaped(address), _escaped("&".join(f"{name}={value}" for name, value in pairs))))


def _parameters(encoded: str) -> Iterable[tuple[str, str]]:
    return parse_qsl(encoded, keep_blank_values=True, max_num_fields=1000)


def _escaped(text: str) -> str:
    return quote(text, safe="~")
