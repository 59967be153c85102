"""An HTTP answer as the bytes it is sent as, and errors as answers.

aiohttp's own `Response` costs a third of a small request; ours is a head that is mostly ready-made and one
write. It stands where aiohttp expects a `StreamResponse` and uses nothing of it but that place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from kiki import __version__
from kiki.errors import (
    Conflict,
    ConfigurationError,
    Denied,
    Forbidden,
    InvalidInput,
    KikiError,
    NotFound,
    Unauthenticated,
    Unavailable,
)

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
PROBLEM = "application/problem+json"

# Larger bodies wait for the client to read.
_AT_ONCE = 64 * 1024

_SAME_FOR_ALL = (
    f"Server: kiki/{__version__}\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Cache-Control: no-store\r\n"
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    "Referrer-Policy: no-referrer\r\n"
)
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n{_SAME_FOR_ALL}" for status in HTTPStatus}


class _Date:
    """The Date header, made once a second."""

    second = 0
    line = ""

    def now(self) -> str:
        second = int(time.time())
        if second != self.second:
            self.second, self.line = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self.line


_date = _Date()


class Answer(web.StreamResponse):
    """A whole answer: status, body, content type, further headers."""

    def __init__(
        self, status: int, body: bytes, content_type: str = TEXT, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status=status)
        self.body = body
        self.type = content_type
        self.more = headers
        self.request_id = ""
        self.closing = False
        self._alive = False

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after this answer."""
        return self._alive

    async def prepare(self, request: web.BaseRequest) -> None:  # type: ignore[override]
        """Send the answer."""
        self._alive = request.keep_alive and not self.closing
        head = (
            f"{_STATUS[self.status]}{_date.now()}Content-Type: {self.type}\r\n"
            f"Content-Length: {len(self.body)}\r\nX-Request-Id: {self.request_id}\r\n"
        )
        if self.more:
            head += "".join(f"{name}: {value}\r\n" for name, value in self.more.items())
        if not self._alive:
            head += "Connection: close\r\n"
        elif request.version < (1, 1):
            head += "Connection: keep-alive\r\n"
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        body = b"" if request.method == "HEAD" else self.body
        transport.write(b"%b\r\n%b" % (head.encode("latin-1", "replace"), body))
        if len(body) > _AT_ONCE:
            await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything was sent already."""


def plain_answer(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Plain text."""
    return Answer(status, text.encode(), TEXT, headers)


_json = msgspec.json.Encoder()


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """JSON; bytes are taken as encoded already."""
    return Answer(status, value if isinstance(value, bytes) else _json.encode(value), JSON, headers)


# The first that fits counts: the more particular stand first.
_STATUS_OF: list[tuple[type[KikiError], int]] = [
    (InvalidInput, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (Denied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (ConfigurationError, 400),
    (Unavailable, 503),
]


def status_of(error: KikiError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS_OF if isinstance(error, kind)), 500)


def retry_header(seconds: float | None) -> dict[str, str]:
    """Retry-After, in whole seconds rounded up; nothing when it is not known."""
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def headers_of(error: KikiError) -> dict[str, str]:
    """What an error adds to the head of its answer."""
    headers = retry_header(getattr(error, "retry_after", None))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="kiki"'
    return headers


def problem_answer(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Answer:
    """RFC 9457 problem details."""
    document: dict[str, Any] = {
        "type": f"urn:kiki:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if hint:
        document["hint"] = hint
    if members:
        document.update(members)
    return Answer(status, _json.encode(document), PROBLEM, headers)


def error_answer(error: KikiError, *, json: bool, members: Mapping[str, Any] | None = None) -> Answer:
    """An error of kiki as an answer: problem details, or a line of plain text."""
    status = status_of(error)
    headers = headers_of(error)
    if json:
        return problem_answer(
            status, error.code, str(error), hint=error.hint, headers=headers, members=members
        )
    text = f"{error} ({error.hint})" if error.hint else str(error)
    return plain_answer(f"{text}\n", status, headers)


def refused(status: int, code: str, detail: str, *, json: bool, headers: Mapping[str, str] | None = None) -> Answer:
    """A refusal by the edge itself."""
    if json:
        return problem_answer(status, code, detail, headers=headers)
    return plain_answer(f"{detail}\n", status, headers)
