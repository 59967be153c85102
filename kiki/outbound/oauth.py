"""How requests show who sends them: a token as it is, or OAuth 2 access tokens that are renewed with a refresh token.

Nothing here prints a token: `repr` shows none, and messages carry only what the token endpoint names as its error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

import httpx
import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.outbound.exchange import UNAUTHORIZED, UNAVAILABLE
from kiki.outbound.outcome import Outcome, refused
from kiki.outbound.tls import trusted
from kiki.settings import Secret

MARGIN: Final = 60 * SECOND
"""An access token is renewed so long before it ends."""
LIFETIME: Final = 3600 * SECOND
"""Of a token whose endpoint does not say."""
REFUSED_FOR: Final = 30 * SECOND
"""A refresh token that was refused is not tried again for so long."""
TIMEOUT_SECONDS: Final = 15.0


class Authorization(Protocol):
    """Signs requests of one account."""

    @property
    def secrets(self) -> Collection[Secret]:
        """What must appear in no message."""
        ...

    async def apply(self, request: httpx.Request) -> Outcome | None:
        """Add to a request what shows who sends it; an outcome instead when that cannot be had: nothing is sent then."""
        ...

    async def renew(self, refused_one: httpx.Request) -> bool:
        """After a 401 to that request: whether there is something newer to show, so that it is worth one more try."""
        ...

    async def close(self) -> None:
        """Give connections free."""
        ...


class Anonymous:
    """For what asks nobody's name."""

    secrets: Collection[Secret] = ()

    async def apply(self, request: httpx.Request) -> Outcome | None:
        """See `Authorization`."""
        return None

    async def renew(self, refused_one: httpx.Request) -> bool:
        """See `Authorization`."""
        return False

    async def close(self) -> None:
        """See `Authorization`."""


class FixedToken:
    """A token that somebody else renews, in a header: `Authorization: Bearer …` unless told otherwise."""

    def __init__(self, token: Secret, *, header: str = "Authorization", scheme: str = "Bearer ") -> None:
        self._token = token
        self._header = header
        self._scheme = scheme

    def __repr__(self) -> str:
        return f"FixedToken({self._header})"

    @property
    def secrets(self) -> Collection[Secret]:
        """See `Authorization`."""
        return (self._token,)

    async def apply(self, request: httpx.Request) -> Outcome | None:
        """See `Authorization`."""
        request.headers[self._header] = self._scheme + self._token.reveal()
        return None

    async def renew(self, refused_one: httpx.Request) -> bool:
        """See `Authorization`."""
        return False

    async def close(self) -> None:
        """See `Authorization`."""


class _Token(msgspec.Struct):
    """What a token endpoint answers (RFC 6749, 5.1)."""

    access_token: str
    expires_in: int | float | str | None = None
    refresh_token: str | None = None


class OAuth2:
    """Access tokens by the refresh token grant (RFC 6749, 6), or without one by the client's credentials (4.4).

    One renewal at a time, whoever asks.

    A refresh token that the endpoint replaces is replaced here for as long as this object lives; it is not written down.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: Secret,
        refresh_token: Secret | None,
        *,
        fields: Mapping[str, str] | None = None,
        header: str = "Authorization",
        scheme: str = "Bearer ",
        clock: Clock = wall_micros,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`fields` are further fields of the renewal, such as a scope."""
        self._url = token_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._refresh_token = refresh_token
        self._fields = dict(fields or {})
        self._header = header
        self._scheme = scheme
        self._clock = clock
        self._http = httpx.AsyncClient(
            transport=transport, verify=trusted(), timeout=TIMEOUT_SECONDS, follow_redirects=False
        )
        self._lock = asyncio.Lock()
        self._access: Secret | None = None
        self._ends = 0
        self._refusal: Outcome | None = None
        self._refused_until = 0

    def __repr__(self) -> str:
        return f"OAuth2({self._client_id!r})"

    @property
    def secrets(self) -> Collection[Secret]:
        """See `Authorization`."""
        return tuple(one for one in (self._client_secret, self._refresh_token, self._access) if one is not None)

    async def apply(self, request: httpx.Request) -> Outcome | None:
        """See `Authorization`."""
        if self._access is None or self._clock() >= self._ends - MARGIN:
            async with self._lock:
                if self._access is None or self._clock() >= self._ends - MARGIN:
                    failure = await self._renew()
                    # What is still valid is shown while its successor cannot be had.
                    if failure is not None and (self._access is None or self._clock() >= self._ends):
                        return failure
        assert self._access is not None
        request.headers[self._header] = self._shown(self._access)
        return None

    async def renew(self, refused_one: httpx.Request) -> bool:
        """See `Authorization`."""
        async with self._lock:
            if self._access is not None and refused_one.headers.get(self._header) != self._shown(self._access):
                return True  # another call has renewed it meanwhile
            return await self._renew() is None

    async def close(self) -> None:
        """See `Authorization`."""
        await self._http.aclose()

    def _shown(self, token: Secret) -> str:
        return self._scheme + token.reveal()

    async def _renew(self) -> Outcome | None:
        if self._refusal is not None and self._clock() < self._refused_until:
            return self._refusal
        granted = {"grant_type": "client_credentials"}
        if self._refresh_token is not None:
            granted = {"grant_type": "refresh_token", "refresh_token": self._refresh_token.reveal()}
        form = {
            **granted,
            "client_id": self._client_id,
            "client_secret": self._client_secret.reveal(),
            **self._fields,
        }
        try:
            response = await self._http.post(self._url, data=form)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return refused(UNAVAILABLE, f"the access token cannot be renewed: {type(error).__name__}")
        if response.status_code == 429 or response.status_code >= 500:
            return refused(UNAVAILABLE, f"the access token cannot be renewed: answered {response.status_code}")
        if not response.is_success:
            # The body is not quoted: some endpoints repeat the token that they refuse.
            what = "the client" if self._refresh_token is None else "the refresh token"
            message = f"{what} was refused: {_error_of(response)}"
            self._refusal, self._refused_until = refused(UNAUTHORIZED, message), self._clock() + REFUSED_FOR
            return self._refusal
        try:
            token = msgspec.json.decode(response.content, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return refused(UNAVAILABLE, "the access token cannot be renewed: the answer holds none")
        self._refusal = None
        self._access = Secret(token.access_token)
        self._ends = self._clock() + _lifetime(token.expires_in)
        if token.refresh_token and self._refresh_token is not None:
            self._refresh_token = Secret(token.refresh_token)
        return None


def _error_of(response: httpx.Response) -> str:
    """The error word of RFC 6749, 5.2, as far as it is one."""
    try:
        said: Any = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    word = said.get("error") if isinstance(said, dict) else None
    plain = isinstance(word, str) and len(word) <= 40 and word.replace("_", "").isalpha()
    return f"{response.status_code} {word}" if plain else str(response.status_code)


def _lifetime(given: float | str | None) -> int:
    try:
        seconds = float(given) if given is not None else LIFETIME / SECOND
    except ValueError:
        return LIFETIME
    return round(min(max(seconds, 0.0), 365 * 86400.0) * SECOND) if seconds == seconds else LIFETIME  # noqa: PLR0124  # not NaN
