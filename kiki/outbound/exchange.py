"""One request to a platform and its reply, and what a reply means when nothing more is known than its status. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from kiki.outbound.outcome import Outcome, refused, unknown
from kiki.outbound.rate_budget import retry_after

Kind = TypeVar("Kind")

MESSAGE_LENGTH: Final = 300

UNREADABLE: Final = "unreadable"
"""The platform answered with something that it does not say."""
SERVER_ERROR: Final = "server_error"
TIMEOUT: Final = "timeout"
CONNECTION_LOST: Final = "connection_lost"
UNAVAILABLE: Final = "unavailable"
THROTTLED: Final = "throttled"
UNAUTHORIZED: Final = "unauthorized"
INVALID: Final = "invalid"
NOT_FOUND: Final = "not_found"
CONFLICT: Final = "conflict"
NOT_READY: Final = "not_ready"
"""A report that the other side is still making: never the same as an empty one."""
UNSUPPORTED: Final = "unsupported"
"""The other side has no such thing."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent. At most one of `json`, `form` and `content`."""

    method: str
    path: str
    """After the line's base, or a whole URL."""
    write: bool
    """Whether it may change something: then no answer means that nobody knows."""
    params: Mapping[str, str] = {}
    """The query. Logs show no query, but proxies may: nothing secret belongs here that can go elsewhere."""
    json: Any = None
    form: Mapping[str, str] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = {}


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes
    write: bool
    """Whether the request might have changed something."""
    now: int
    """When it came, in microseconds since the epoch."""

    @property
    def json(self) -> Any:
        """The content; None where it is empty or no JSON."""
        try:
            return msgspec.json.decode(self.content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def read(self, kind: type[Kind]) -> Kind | Outcome:
        """The content as that type; the outcome of a reply that nobody understands when it is none."""
        try:
            return msgspec.json.decode(self.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self.nonsense(str(error))

    def nonsense(self, why: str) -> Outcome:
        """The outcome of a reply that makes no sense: a write may have had its effect all the same."""
        return _not_known(self.write, UNREADABLE, f"answered {self.status} and nobody understands it: {why}")


Judge = Callable[[Reply], Outcome | None]
"""What a platform's own words in a reply mean, whatever its status; None: they say no more than the status does."""
Rates = Callable[[Reply], int | None]
"""Until when a platform wants to hear nothing, by what a reply says beside its answer."""


def by_status(reply: Reply) -> Outcome | None:
    """What a status means by itself; None: the request was taken.

    A refusal proves that nothing happened. After 5xx, a redirect or 408 nobody knows whether a write did.
    """
    status, said = reply.status, _said(reply)
    if 200 <= status < 300:
        return None
    if status == 429:
        return refused(THROTTLED, said, retry_at=retry_after(reply.headers, reply.now))
    if status in {401, 403}:
        return refused(UNAUTHORIZED, said)
    if status in {404, 410}:
        return refused(NOT_FOUND, said)
    if status == 409:
        return refused(CONFLICT, said)
    if status == 408:
        return _not_known(reply.write, TIMEOUT, said)
    if 400 <= status < 500:
        return refused(INVALID, said)
    if status >= 500 and not reply.write:
        return refused(UNAVAILABLE, said, retry_at=retry_after(reply.headers, reply.now))
    return _not_known(reply.write, SERVER_ERROR if status >= 500 else UNREADABLE, said)


def unanswered(code: str, why: str, *, write: bool, sent: bool) -> Outcome:
    """The outcome of a request that got no reply; what reads or was never sent has changed nothing."""
    return unknown(code, why) if write and sent else refused(UNAVAILABLE, why)


def _not_known(write: bool, code: str, said: str) -> Outcome:
    return unknown(code, said) if write else refused(code if code == UNREADABLE else UNAVAILABLE, said)


def _said(reply: Reply) -> str:
    text = " ".join(reply.content[: 4 * MESSAGE_LENGTH].decode("utf-8", "replace").split())
    return f"{reply.status}: {text}" if text else str(reply.status)
