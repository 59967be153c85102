"""A service of somebody else's, on loopback, in a thread: so that its own kit, which blocks, can drive it.

A fake keeps what it took in plain attributes. `faults` are met one by one by the calls to come: a status to answer
without doing anything, or what `Fault` names.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from kiki.outbound.outcome import Fate, Outcome

SHORT_SECONDS = 0.5
"""The patience of a caller who is to see silence; all others wait until a busy machine has answered."""


class Fault(StrEnum):
    SILENCE_AFTER_TAKING = "the call is taken, and no answer ever comes"
    CUT_AFTER_TAKING = "the call is taken, and the connection ends"
    SERVER_ERROR_AFTER_TAKING = "the call is taken, and the answer is 500"
    GARBAGE_AFTER_TAKING = "the call is taken, and nobody understands the answer"


class Call(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True))


class Answer(NamedTuple):
    status: int
    body: Any = None
    headers: Mapping[str, str] = {}


class FakeService:
    """Subclasses say what a call means in `handle`, which runs under a lock."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.faults: deque[Fault | Answer] = deque()
        self.lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._closing = threading.Event()
        self._callers: list[Any] = []
        self.broken: Exception | None = None

    def handle(self, call: Call) -> Answer:
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def closing(self, caller):
        """The caller, which is closed before the fake is."""
        self._callers.append(caller)
        return caller

    def __exit__(self, *_: object) -> None:
        for caller in self._callers:
            caller.close()
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        if self.broken is not None:
            raise AssertionError("the fake itself is broken") from self.broken

    def meet(self, call: Call) -> Answer | Fault:
        with self.lock:
            self.calls.append(call)
            fault = self.faults.popleft() if self.faults else None
            if isinstance(fault, Answer):
                return fault
            try:
                answer = self.handle(call)
            except Exception as error:
                self.broken = error
                return Answer(418, {"broken": repr(error)})
            return fault or answer

    def wait_for_end(self) -> None:
        self._closing.wait(20)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeService

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Tests are silent."""

    def _meet(self) -> None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = bytearray()
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            is_whole = bool(self.rfile.readline())
        else:
            length = int(self.headers.get("Content-Length") or 0)
            body = bytearray(self.rfile.read(length))
            is_whole = len(body) == length
        if not is_whole:  # the caller was killed in the middle of its call
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        answer = self.server.fake.meet(Call(self.command, parts.path, query, headers, bytes(body)))
        match answer:
            case Fault.SILENCE_AFTER_TAKING:
                self.server.fake.wait_for_end()
                self.close_connection = True
                return
            case Fault.CUT_AFTER_TAKING:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            case Fault.SERVER_ERROR_AFTER_TAKING:
                answer = Answer(500, {"error": "internal"})
            case Fault.GARBAGE_AFTER_TAKING:
                answer = Answer(200, b"<html>garbage</html>")
        assert isinstance(answer, Answer)
        content = answer.body
        if not isinstance(content, bytes):
            content = b"" if content is None else json.dumps(content).encode()
        self.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | dict(answer.headers)).items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if answer.status != 204:
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _meet  # noqa: N815  # the names that http.server asks for


def once_taken(fake: FakeService, attempt: Callable[[], Outcome]) -> Outcome:
    """What a call comes to that has come here.

    A machine that stands still for a moment runs out of time before anything is sent, and says so: then it is tried again,
    on a line of its own, which knows nothing of that.
    """
    while True:
        outcome = attempt()
        if outcome.fate is Fate.UNKNOWN:
            until(lambda: fake.calls)
        if fake.calls or outcome.code != "unavailable":
            return outcome


def until(check, seconds: float = 60.0) -> None:
    """Wait until that holds."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
