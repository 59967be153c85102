"""An S3 to write to, and a proxy before it that breaks requests on purpose."""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from moto.server import ThreadedMotoServer

LOCKED = """<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>{mode}</Mode><Days>2557</Days>
</DefaultRetention></Rule></ObjectLockConfiguration>"""


class FaultyProxy:
    """Passes requests on, except that each PUT first takes one fault from `faults`, if there is one.

    500: the server answers an error and did nothing. late-500: it did it, and answers an error. lost: it did it, and
    the connection ends without an answer. slow: the answer takes `slow_seconds`. twice: the network delivers the
    request twice and the second answer arrives.
    """

    def __init__(self, upstream: str) -> None:
        self.faults: deque[str] = deque()
        self.puts: list[tuple[str, dict[str, str]]] = []
        self.slow_seconds = 0.3
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_any(self):
                proxy.handle(self, upstream)

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.do_any)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, request: BaseHTTPRequestHandler, upstream: str) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in request.headers.items() if name.lower() != "connection"}
        fault = ""
        if request.command == "PUT":
            self.puts.append((request.path, {name.lower(): value for name, value in headers.items()}))
            fault = self.faults.popleft() if self.faults else ""
            if "x-amz-checksum-sha256" in self.puts[-1][1]:
                # S3 demands Content-MD5 or any x-amz-checksum- header where objects get locked; moto knows this one only.
                headers["x-amz-sdk-checksum-algorithm"] = "SHA256"
        if fault == "500":
            return self._answer(request, 500, {}, b"<Error><Code>InternalError</Code></Error>")
        if fault == "slow":
            time.sleep(self.slow_seconds)
        for _ in range(2 if fault == "twice" else 1):
            status, answer_headers, answer = self._pass_on(request, upstream, headers, body)
        if fault == "late-500":
            return self._answer(request, 500, {}, b"<Error><Code>InternalError</Code></Error>")
        if fault == "lost":
            request.close_connection = True
            return None
        return self._answer(request, status, answer_headers, answer)

    @staticmethod
    def _pass_on(request, upstream, headers, body):
        connection = http.client.HTTPConnection(upstream.removeprefix("http://"), timeout=60)
        try:
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    @staticmethod
    def _answer(request, status, headers, body):
        request.send_response(status)
        length = len(body)
        for name, value in headers.items():
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() not in {"connection", "transfer-encoding", "server", "date"}:
                request.send_header(name, value)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        request.wfile.write(body)


class ObjectStore:
    """moto's S3 behind a proxy that breaks requests."""

    def __init__(self, upstream: str, proxy: FaultyProxy) -> None:
        self.upstream = upstream
        self.proxy = proxy

    @property
    def environment(self) -> dict[str, str]:
        """What makes an S3 client use it."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIACANARYKEYID",
            "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def make_bucket(self, name: str, mode: str | None = None) -> None:
        """A bucket; with a `mode`, one whose objects are all locked in it."""
        headers = {} if mode is None else {"x-amz-bucket-object-lock-enabled": "true"}
        httpx.put(f"{self.upstream}/{name}", headers=headers).raise_for_status()
        if mode is not None:
            configuration = LOCKED.format(mode=mode)
            httpx.put(f"{self.upstream}/{name}?object-lock", content=configuration).raise_for_status()


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """A started store, gone when the block ends."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        proxy = FaultyProxy(f"http://{host}:{port}")
        try:
            yield ObjectStore(f"http://{host}:{port}", proxy)
        finally:
            proxy.close()
    finally:
        server.stop()
