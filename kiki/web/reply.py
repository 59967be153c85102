"""Answers. `Reply` writes itself in one piece; `plain`, `json_reply`, `page` and `problem` make one.

aiohttp's own `Response` builds a multidict per answer and serialises it: about 8 µs of the 20 that a small request
costs. Every answer of ours has the same headers but a few, so they are kept as text that is made once a second.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, Final, cast

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from kiki.errors import KikiError
from kiki.web.refusals import Headers, headers_of, status_of, title_of
from kiki.web.request import Request, wants_json

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
HTML: Final = "text/html; charset=utf-8"

SECURITY_HEADERS: Final[Headers] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    # Says nothing about versions; without it aiohttp names its own and Python's.
    ("Server", "kiki"),
)
# A page for people may be styled by itself and post to where it came from; it still runs and loads nothing.
_PAGE_POLICY: Final = (
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'\r\n"
)
_POLICY: Final = f"Content-Security-Policy: {dict(SECURITY_HEADERS)['Content-Security-Policy']}\r\n"
_SECURITY: Final = "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS)

_encode: Final = msgspec.json.Encoder().encode

_heads: dict[tuple[int, str], str] = {}  # status line and content type by status and type
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")


class _Dated:
    """The headers of every answer, made again when the second changes."""

    __slots__ = ("second", "text")

    def __init__(self) -> None:
        self.second = -1
        self.text = ""


_dated = _Dated()


def _common(now: float) -> str:
    second = int(now)
    if second != _dated.second:
        _dated.text = f"Date: {formatdate(second, usegmt=True)}\r\n{_SECURITY}"
        _dated.second = second
    return _dated.text


class Reply(web.StreamResponse):
    """A whole answer: status, body, content type, and extra headers if need be. It is sent once."""

    def __init__(self, body: bytes, content_type: str = TEXT, status: int = 200, headers: Headers = ()) -> None:
        # The parent's constructor only fills the multidict that this class does without; every property of the
        # parent that aiohttp's server reads is given below.
        self.payload = body
        self.media_type = content_type
        self.code = status
        self.extra = headers
        self._close = False
        self._sent = False
        self._writer: AbstractStreamWriter | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.code

    @property
    def reason(self) -> str:
        """The status in words."""
        return title_of(self.code)

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.payload

    @property
    def headers(self) -> CIMultiDict[str]:
        """A copy of the headers that are this answer's own; changing it changes nothing."""
        return CIMultiDict([("Content-Type", self.media_type), *self.extra])

    @property
    def prepared(self) -> bool:
        """True once it was sent."""
        return self._sent

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection stays open after it; known once it was sent."""
        return not self._close

    @property
    def body_length(self) -> int:
        """How many bytes the body has."""
        return len(self.payload)

    def force_close(self) -> None:
        """Close the connection after this answer."""
        self._close = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it all, in one write; called by aiohttp's server."""
        writer = self._writer = request.writer
        if self._sent:
            return writer
        self._sent = True
        body = self.payload
        head = _heads.get((self.code, self.media_type)) or _head(self.code, self.media_type)
        extra = "".join([_line(name, value) for name, value in self.extra]) if self.extra else ""
        if not request.keep_alive:
            self._close = True
        if self._close:
            extra += "Connection: close\r\n"
        elif request.version < (1, 1):
            extra += "Connection: keep-alive\r\n"
        common = _common(time.time())
        if self.media_type == HTML:
            common = common.replace(_POLICY, _PAGE_POLICY)
        text = (
            f"{head}Content-Length: {len(body)}\r\n"
            f"X-Request-Id: {cast('Request', request).request_id}\r\n{common}{extra}\r\n"
        )
        if request.method == "HEAD":
            body = b""
        await writer.write(text.encode("ascii") + body)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait while the peer does not read: one that only sends must not fill our memory with answers."""
        if self._writer is not None:
            await self._writer.drain()

    def __repr__(self) -> str:
        return f"<Reply {self.code} {self.media_type} {len(self.payload)} bytes>"


def _head(status: int, content_type: str) -> str:
    if not _VALUE.fullmatch(content_type):
        raise ValueError("a content type holds printable ASCII only")
    head = f"HTTP/1.1 {status} {title_of(status)}\r\nContent-Type: {content_type}\r\n"
    if len(_heads) < 256:  # a handful in practice; a bound all the same
        _heads[status, content_type] = head
    return head


def _line(name: str, value: str) -> str:
    # A value that came from a caller must not be able to begin a header of its own.
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"the header {name[:40]!r} would hold something other than printable ASCII")
    return f"{name}: {value}\r\n"


def plain(text: str, status: int = 200, headers: Headers = ()) -> Reply:
    """A plain-text answer; `text` gets the trailing newline that a terminal wants unless it has one."""
    if text[-1:] != "\n":
        text += "\n"
    return Reply(text.encode("utf-8", "backslashreplace"), TEXT, status, headers)


def json_reply(value: Any, status: int = 200, headers: Headers = ()) -> Reply:
    """A JSON answer from dicts, lists, texts, numbers, msgspec structs and dataclasses; `Decimal` becomes a string."""
    return Reply(_encode(value), JSON, status, headers)


def page(html: str, status: int = 200, headers: Headers = ()) -> Reply:
    """A page for people: it may have styles and forms of its own, and runs and loads nothing."""
    return Reply(html.encode("utf-8", "backslashreplace"), HTML, status, headers)


def describe(
    status: int,
    code: str,
    detail: str,
    *,
    title: str | None = None,
    hint: str | None = None,
    instance: str = "",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """RFC 9457 problem details as members. `code` is the stable word that programs rely on, `extra` are more members."""
    members: dict[str, Any] = {
        "type": f"urn:kiki:error:{code}",
        "title": title or title_of(status),
        "status": status,
        # A message may quote what no encoding can hold; the answer to a mistake must not be another one.
        "detail": detail.encode("utf-8", "backslashreplace").decode(),
        "code": code,
    }
    if hint is not None:
        members["hint"] = hint
    if instance:
        members["instance"] = instance
    if extra:
        members |= {name: value for name, value in extra.items() if name not in members}
    return members


def describe_error(error: KikiError, status: int, instance: str = "") -> dict[str, Any]:
    """An error of kiki as problem details: its kind is the title, and the facts that it carries are members."""
    facts = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(error).items()
        if name not in ("hint", "headers") and value is not None
    }
    title = (type(error).__doc__ or type(error).__name__).strip().partition("\n")[0]
    return describe(status, error.code, str(error), title=title, hint=error.hint, instance=instance, extra=facts)


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    headers: Headers = (),
    extra: Mapping[str, Any] | None = None,
) -> Reply:
    """An RFC 9457 answer about something that is no error of kiki."""
    members = describe(status, code, detail, hint=hint, instance=request.request_id, extra=extra)
    return Reply(_encode(members), PROBLEM, status, headers)


def refusal(request: Request, error: KikiError) -> Reply:
    """The answer to an error that kiki raised on purpose: a problem, or plain text where the route speaks that."""
    status, headers = status_of(error), headers_of(error)
    if request.always_json or wants_json(request):
        return Reply(_encode(describe_error(error, status, request.request_id)), PROBLEM, status, headers)
    return plain(f"{error} ({error.hint})" if error.hint else str(error), status, headers)
