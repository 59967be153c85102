"""How a client of SyncShield talks: what it sends, how patiently, and which error a reply stands for.

Each conversation is written once, as a generator that yields what to send and receives what came back; the lines in
`http_line` only drive it. What may be sent again is, with growing and jittered waits, after connections that
fail, timeouts, and 502, 503, 504. `Retry-After` is honoured up to `RETRY_AFTER_MAX`; a service that asks for longer is not
kept waiting for, its error is raised. Every other status is an answer. All tries and waits together end at `deadline`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeVar

import msgspec

from kiki import __version__
from kiki.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    KikiError,
    ShieldUnreachable,
    SpendDenied,
    Unauthenticated,
    Unavailable,
)
from kiki.settings import checked_token, parse_url
from kiki.shield import wire, wire_problem
from kiki.shield.client_settings import default_token, default_url
from kiki.shield.wire import OutcomeReply

TIMEOUT = 5.0
"""Seconds for one try."""
RETRIES = 3
"""Further tries after the first."""
DEADLINE = 20.0
"""Seconds for a call with all its tries and waits."""
RETRY_AFTER_MAX = 5.0
"""Seconds that a service may ask to be left alone for before its refusal is raised instead."""
DOWNLOAD_SECONDS = 3600.0
"""Seconds for what is made for the caller and then sent, a bundle or a copy."""
WAIT_FIRST = 0.1
WAIT_MAX = 2.0

_PASSING = frozenset({502, 503, 504})
DETAIL_LENGTH = 200

Value = TypeVar("Value")


class Send(NamedTuple):
    """What a flow wants sent."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...]
    content: bytes | None
    headers: dict[str, str]
    timeout: float
    sink: BinaryIO | None = None
    """Where the content of a good reply goes, if it is too long for memory."""


class Wait(NamedTuple):
    """How long a flow wants to pause."""

    seconds: float


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Failure(NamedTuple):
    """That nothing came back, and why."""

    why: str


Heard = Reply | Failure | None
Flow = Generator[Send | Wait, Heard, Value]


class Conversation:
    """What both clients know: where to, as whom, and how patiently."""

    def __init__(
        self,
        url: str | None,
        token: str | None,
        timeout: float,
        retries: int,
        deadline: float,
    ) -> None:
        self.url = default_url() if url is None else parse_url(url.strip())
        found = checked_token(token.strip(), "the token") if token is not None else default_token()
        if not (timeout > 0 and deadline > 0 and retries >= 0):
            raise InvalidInput("timeout and deadline are positive seconds, retries is a whole number from 0")
        self.timeout = timeout
        self.retries = retries
        self.deadline = deadline
        self._headers = {"Accept": wire.JSON_TYPE, "User-Agent": f"kiki/{__version__}"}
        if found is not None:
            self._headers["Authorization"] = f"Bearer {found}"
        self._clock = time.monotonic
        self._random = random.random

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    # -- one request, patiently

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        params: Iterable[tuple[str, str | None]] = (),
        *,
        repeat: bool = True,
        seconds: float | None = None,
        sink: BinaryIO | None = None,
    ) -> Flow[Reply]:
        """The reply to one request; raises for what is no 2xx.

        `repeat`: it may be sent again, because twice is as good as once. `seconds` take the place of timeout and
        deadline, for what takes longer.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = self._headers if content is None else {**self._headers, "Content-Type": wire.JSON_TYPE}
        given = tuple((name, value) for name, value in params if value is not None)
        end = self._clock() + (self.deadline if seconds is None else seconds)
        retries = self.retries if repeat else 0
        tried = 0
        while True:
            left = max(0.001, end - self._clock())
            heard = yield Send(
                method, path, given, content, headers, min(self.timeout if seconds is None else seconds, left), sink
            )
            if isinstance(heard, Reply) and heard.status not in _PASSING:
                break
            asked = _retry_after(heard) if isinstance(heard, Reply) else None
            pause = min(WAIT_MAX, WAIT_FIRST * 2**tried) * (0.5 + self._random() / 2)
            if asked is not None:
                pause = max(pause, asked)
            tried += 1
            if tried > retries or (asked or 0) > RETRY_AFTER_MAX or self._clock() + pause >= end:
                if isinstance(heard, Reply):
                    break
                why = heard.why if heard else "nothing was heard"
                times = f" ({tried} tries)" if tried > 1 else ""
                raise ShieldUnreachable(
                    f"SyncShield at {self.url} cannot be reached: {why}{times}",
                    hint="is it running? start it with: kiki serve shield",
                )
            yield Wait(pause)
        if not 200 <= heard.status < 300:
            self._raise(heard)
        return heard

    def _raise(self, reply: Reply) -> NoReturn:
        """The error that a reply stands for."""
        found = wire_problem.parse_problem(reply.content)
        if found is not None and found["code"] == SpendDenied.code:
            try:
                outcome = wire.parse(reply.content, wire.RefusalProblem).outcome()
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
            else:
                raise denied_of(outcome)
        error = None if found is None else wire_problem.error_of(found)
        if error is not None:
            if isinstance(error, Unavailable) and error.retry_after is None:
                error.retry_after = _retry_after(reply)
            raise error
        text = "" if found is None else str(found.get("detail", ""))
        raise _by_status(reply, text, self.url)

    def read(self, reply: Reply, kind: type[Value]) -> Value:
        """A reply of that kind; raises `ShieldUnreachable` when it is none."""
        try:
            return wire.parse(reply.content, kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.nonsense(reply, str(error)) from None

    def nonsense(self, reply: Reply, why: str) -> ShieldUnreachable:
        """The error for a reply that nobody understands."""
        return ShieldUnreachable(
            f"{self.url} answered {reply.status} with something that SyncShield does not say: {why[:DETAIL_LENGTH]}",
            hint="is this really SyncShield's address?",
        )

    def get(self, path: str, kind: type[Value], params: Iterable[tuple[str, str | None]] = ()) -> Flow[Value]:
        """What there is under a path."""
        return self.read((yield from self.ask("GET", path, params=params)), kind)

    def post(self, path: str, body: dict[str, Any], kind: type[Value]) -> Flow[Value]:
        """What comes of a body that may be sent again."""
        return self.read((yield from self.ask("POST", path, body)), kind)

    def understood(self, reply: Reply, read: Callable[[], Value]) -> Value:
        """What `read` makes of a reply; raises `ShieldUnreachable` when it cannot."""
        try:
            return read()
        except (InvalidInput, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise self.nonsense(reply, str(error)) from None


def denied_of(outcome: OutcomeReply) -> SpendDenied:
    """The error of a refusal; `outcome_of` finds the whole outcome in it."""
    error = outcome.denied()
    vars(error)["outcome"] = outcome
    return error


def outcome_of(error: SpendDenied) -> OutcomeReply | None:
    """The whole outcome behind a refusal that a client raised, None when the refusal came from elsewhere."""
    found = vars(error).get("outcome")
    return found if isinstance(found, OutcomeReply) else None


def _by_status(reply: Reply, text: str, url: str) -> KikiError:
    """The error for a reply without a code that we know, from something in between or a newer service."""
    said = text or " ".join(reply.content[: 4 * DETAIL_LENGTH].decode("utf-8", "replace").split())
    said = "".join(letter for letter in said if letter.isprintable())[:DETAIL_LENGTH]
    message = f"{url} answered {reply.status}" + (f": {said}" if said else "")
    match reply.status:
        case 401:
            return Unauthenticated(
                message, hint="give a token: KIKI_SHIELD_TOKEN, KIKI_SHIELD_TOKEN_FILE or --token-file"
            )
        case 403:
            return Forbidden(message)
        case 409:
            return Conflict(message)
        case 400 | 413 | 414 | 415 | 422 | 431:
            return InvalidInput(message)
        case 429:
            return Unavailable(message, retry_after=_retry_after(reply))
    hint = "is this really SyncShield's address?" if reply.status < 500 else None
    return ShieldUnreachable(message, retry_after=_retry_after(reply), hint=hint)


def _retry_after(reply: Reply) -> float | None:
    """Seconds that a reply asks to be left alone for, written as a number or as a date."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
