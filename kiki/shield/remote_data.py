"""A system of yours as `SubjectData`, over HTTP with signed calls. The protocol is written down in docs/requests.md.

Each method is a POST of JSON to `<url>/<method>`. A call is repeated a few times when the system did not answer or
answered 429 or 5xx, under the same idempotency key, and within a time that a run can wait; what it still did not do then
is left to the next attempt of the request. `202` with a `Location` means that it works on it: the place is asked until
the answer is there, for a short while now, and again at the next attempt.
"""

from __future__ import annotations

import binascii
import itertools
import random
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx
import msgspec

from kiki.clock import wall_micros
from kiki.errors import InvalidInput, StillWorking, SystemUnavailable
from kiki.shield.dsr import parse_article, parse_word
from kiki.shield.signed_call import signed_headers
from kiki.shield.subject_data import Document, Erased, Found, Task, Verification
from kiki.shield.subject_request import Kept
from kiki.shield.subject_systems import SystemConfig
from kiki.shield.wire_moment import moment_micros

ATTEMPTS: Final = 3
PATIENCE_SECONDS: Final = 20.0
"""For how long a run waits for a system that works on it."""
REPLY_BYTES_MAX: Final = 1 << 20
LINE_BYTES_MAX: Final = 4 << 20
RETRY_SECONDS_MAX: Final = 10.0
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Call(msgspec.Struct, omit_defaults=True):
    request: str
    method: str
    type: str
    customer_id: str
    purposes: list[str] = []
    values: dict[str, str] = {}


class _Located(msgspec.Struct):
    records: int
    classes: list[str] = []


class _Changed(msgspec.Struct):
    records: int = 0


class _KeptReply(msgspec.Struct):
    reason: str
    article: str
    until: str | None = None
    records: int = 0


class _ErasedReply(msgspec.Struct):
    records: int
    kept: list[_KeptReply] = []


class _Verified(msgspec.Struct):
    left: int
    checked: int = 0


class _Line(msgspec.Struct):
    """One line of an export: a piece of a document, or the end."""

    name: str = ""
    text: str | None = None
    base64: str | None = None
    records: int = 0
    end: bool = False


Reply = TypeVar("Reply", _Located, _Changed, _ErasedReply, _Verified)


class RemoteData:
    """One system. Thread-safe; no connection is kept between calls, which are rare."""

    def __init__(
        self,
        config: SystemConfig,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._patience = patience_seconds
        self._sleep = sleep

    @property
    def name(self) -> str:
        """As the file calls it."""
        return self._config.name

    @property
    def depends_on(self) -> Collection[str]:
        """The systems that it needs in order to find its data."""
        return self._config.depends_on

    def locate(self, task: Task) -> Found:
        """What there is."""
        found = self._asked(task, "locate", _Located)
        return Found(_natural(found.records), [parse_word(one, "class of data") for one in found.classes[:100]])

    def restrict(self, task: Task) -> None:
        """Stop using the data, for the task's purposes."""
        self._asked(task, "restrict", _Changed)

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        """Set these fields to these values where the system has them."""
        return _natural(self._asked(task, "rectify", _Changed, values).records)

    def erase(self, task: Task) -> Erased:
        """Erase everything that need not be kept."""
        found = self._asked(task, "erase", _ErasedReply)
        kept = [
            Kept(
                parse_word(one.reason, "reason to keep something"),
                parse_article(one.article),
                None if one.until is None else moment_micros(one.until),
                _natural(one.records),
            )
            for one in found.kept[:100]
        ]
        return Erased(_natural(found.records), kept)

    def verify(self, task: Task) -> Verification:
        """Look again."""
        found = self._asked(task, "verify", _Verified)
        return Verification(_natural(found.left), _natural(found.checked))

    def export(self, task: Task) -> Iterator[Document]:
        """What the system hands over, as it comes; raises `SystemUnavailable` when it breaks off."""
        with self._answered(task, "export", {}) as answer:
            pieces = self._pieces(answer)
            for name, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
                yield _document(name, group)

    # -- calls ---------------------------------------------------------------------------------------

    def _asked(self, task: Task, method: str, reply: type[Reply], values: Mapping[str, str] | None = None) -> Reply:
        with self._answered(task, method, values or {}) as answer:
            body = bytearray()
            for part in self._parts(answer):
                body += part
                if len(body) > REPLY_BYTES_MAX:
                    raise self._trouble(f"answered {method} with more than {REPLY_BYTES_MAX} bytes")
        try:
            return msgspec.json.decode(bytes(body) or b"{}", type=reply)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # What is wrong is said by type and member; the answer itself may name the person.
            raise self._trouble(f"answered {method} with something else than the protocol has: {error}") from None

    @contextmanager
    def _answered(self, task: Task, method: str, values: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer, 200, with its body still to be read."""
        call = _Call(task.request, method, task.kind.value, task.customer, list(task.purposes), dict(values))
        key = f"{task.request}:{method}" + (f":{task.round}" if task.round else "")
        url, body = f"{self._config.url}/{method}", msgspec.json.encode(call)
        until = time.monotonic() + self._patience
        seconds = self._config.timeout_seconds
        with httpx.Client(timeout=httpx.Timeout(seconds, connect=min(10, seconds)), follow_redirects=False) as client:
            answer = self._sent(client, "POST", url, body, key)
            while answer.status_code == 202:
                url, wait = self._place(answer), _retry_after(answer, 1.0)
                answer.close()
                if time.monotonic() + wait > until:
                    raise StillWorking(f"{self.name} is still working on {method}", retry_after=max(wait, 30.0))
                self._sleep(wait)
                answer = self._sent(client, "GET", url, b"", key)
            try:
                if answer.status_code not in {200, 204}:
                    raise self._refused(answer, method)
                yield answer
            finally:
                answer.close()

    def _sent(self, client: httpx.Client, verb: str, url: str, body: bytes, key: str) -> httpx.Response:
        """The answer to a call, repeated while that may help."""
        for attempt in range(1, ATTEMPTS + 1):
            wait = min(RETRY_SECONDS_MAX, 0.25 * 2**attempt) * random.uniform(0.5, 1)
            request = client.build_request(verb, url, content=body)
            request.headers.update(
                # Signed anew each time: the receiver takes no nonce twice.
                signed_headers(
                    self._config.secret.reveal().encode(),
                    verb,
                    request.url.raw_path.decode("ascii"),
                    body,
                    now=wall_micros() // 1_000_000,
                    nonce=secrets.token_hex(16),
                )
            )
            request.headers["Idempotency-Key"] = key
            if body:
                request.headers["Content-Type"] = "application/json"
            try:
                answer = client.send(request, stream=True)
            except httpx.HTTPError as error:
                if attempt == ATTEMPTS:
                    raise self._trouble(f"did not answer: {type(error).__name__}") from None
            else:
                if answer.status_code not in _RETRIED or attempt == ATTEMPTS:
                    return answer
                wait = min(RETRY_SECONDS_MAX, _retry_after(answer, wait))
                answer.close()
            self._sleep(wait)
        raise AssertionError("unreachable")

    def _place(self, answer: httpx.Response) -> str:
        """Where a system that works on it wants to be asked; never anywhere else than at that system."""
        location = answer.headers.get("Location", "")
        try:
            url = answer.request.url.join(location)
        except httpx.InvalidURL:
            url = httpx.URL("")
        base = httpx.URL(self._config.url)
        if not location or (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
            raise self._trouble("answered 202 without a Location of its own")
        return str(url)

    def _refused(self, answer: httpx.Response, method: str) -> SystemUnavailable:
        hints = {
            401: "do both sides have the same secret, and clocks that agree?",
            403: "does it accept calls of this kiki?",
            404: f"it has to serve {method}, or the url is another one",
            501: f"it has to serve {method}",
        }
        return self._trouble(f"answered {method} with {answer.status_code}", hints.get(answer.status_code))

    def _trouble(self, what: str, hint: str | None = None) -> SystemUnavailable:
        return SystemUnavailable(f"{self.name} {what}", hint=hint)

    # -- bodies --------------------------------------------------------------------------------------

    def _parts(self, answer: httpx.Response) -> Iterator[bytes]:
        try:
            yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise self._trouble(f"broke off its answer: {type(error).__name__}") from None

    def _pieces(self, answer: httpx.Response) -> Iterator[tuple[str, bytes, int]]:
        """The pieces of an export: (name, bytes, records). Without its last line nothing of it counts."""
        ended = False
        for raw in self._lines(answer):
            try:
                line = msgspec.json.decode(raw, type=_Line)
                data = (line.text or "").encode() if line.base64 is None else b64decode(line.base64, validate=True)
            except (msgspec.DecodeError, RecursionError, binascii.Error, ValueError):
                raise self._trouble("sent a line of an export that cannot be read") from None
            if ended or not (line.end or line.name):
                raise self._trouble("sent an export that is not written as the protocol has it")
            ended = line.end
            if not ended:
                yield line.name, data, max(line.records, 0)
        if not ended:
            raise self._trouble("broke off its export: the last line is missing")

    def _lines(self, answer: httpx.Response) -> Iterator[bytes]:
        waiting = b""
        for part in self._parts(answer):
            *lines, waiting = (waiting + part).split(b"\n")
            yield from filter(None, lines)
            if len(waiting) > LINE_BYTES_MAX:
                raise self._trouble(f"sent a line of more than {LINE_BYTES_MAX} bytes")
        if waiting:
            yield waiting


def _document(name: str, pieces: Iterator[tuple[str, bytes, int]]) -> Document:
    _, first, records = next(pieces)
    return Document(name, itertools.chain([first], (data for _, data, _ in pieces)), records or None)


def _retry_after(answer: httpx.Response, otherwise: float) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else otherwise


def _natural(count: Any) -> int:
    if not isinstance(count, int) or not 0 <= count < 2**53:
        raise InvalidInput("a system counted less than nothing")
    return count
