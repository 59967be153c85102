"""What happens to a request before and after its handler, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import re

import pytest
from aiohttp import web as aioweb

from kiki import errors
from kiki.web import Check, Reply, Route, build_server, json_reply, pairs, plain, problem, read_json, stream
from kiki.web.refusals import _STATUS, headers_of, status_of


async def hello(request):
    return plain("hello")


async def echo(request):
    return json_reply({"got": {name: str(value) for name, value in (await read_json(request)).items()}})


async def show(request):
    return json_reply(
        {"params": dict(request.params), "query": dict(pairs(request)), "as": getattr(request.principal, "name", None)}
    )


def fails_with(error):
    async def handler(request):
        raise error

    return handler


HELLO = Route("/hello", hello, plain=True)


async def raw(running, request: bytes, port: int | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the first answer to these very bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port or running.port)
    try:
        writer.write(request)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body
    finally:
        writer.close()
        await writer.wait_closed()


class TestEveryAnswer:
    async def test_has_its_headers_and_nothing_about_versions(self, serve):
        served = await serve(HELLO)
        status, headers, body = await raw(served.running, b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (status, body) == (200, b"hello\n")
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["referrer-policy"] == "no-referrer"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])
        assert headers["server"] == "kiki"
        assert "connection" not in headers

    @pytest.mark.parametrize(
        ("sent", "echoed"), [("abc-1.2_3", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("ü", False), ("", False)]
    )  # fmt: skip
    async def test_a_good_request_id_is_echoed_and_a_bad_one_replaced(self, serve, sent, echoed):
        served = await serve(HELLO)
        async with served.inside.get("/hello", headers={"X-Request-Id": sent}) as response:
            given = response.headers["X-Request-Id"]
        assert (given == sent) is echoed
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given)

    async def test_made_request_ids_differ(self, serve):
        served = await serve(HELLO)
        ids = set()
        for _ in range(5):
            async with served.inside.get("/hello") as response:
                ids.add(response.headers["X-Request-Id"])
        assert len(ids) == 5

    async def test_a_service_may_answer_with_aiohttps_own_and_streams(self, serve):
        async def own(request):
            return aioweb.Response(text="own")

        async def streamed(request):
            response = await stream(request, "text/csv")
            for number in range(3):
                await response.write(b"%d\n" % number)
            return response

        async def nothing(request):
            return None

        served = await serve(Route("/own", own), Route("/stream", streamed), Route("/nothing", nothing))
        for path, status, body in (("/own", 200, "own"), ("/stream", 200, "0\n1\n2\n")):
            async with served.inside.get(path) as response:
                assert (response.status, await response.text()) == (status, body)
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Server"] == "kiki"
                assert response.headers["X-Request-Id"]
        async with served.inside.get("/nothing") as response:
            assert response.status == 500

    async def test_head_has_the_length_and_no_body_where_it_is_listed(self, serve):
        served = await serve(Route("/both", hello, ("GET", "HEAD"), plain=True), HELLO)
        async with served.inside.head("/both") as response:
            assert (response.status, response.headers["Content-Length"], await response.read()) == (200, "6", b"")
        async with served.inside.head("/hello") as response:
            assert response.status == 405, "a GET that spends must not be repeated by a HEAD"

    async def test_http_1_0_is_answered_and_closed(self, serve):
        served = await serve(HELLO)
        status, headers, _ = await raw(served.running, b"GET /hello HTTP/1.0\r\n\r\n")
        assert (status, headers["connection"]) == (200, "close")
        status, headers, _ = await raw(served.running, b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (status, headers["connection"]) == (200, "keep-alive")

    async def test_pipelined_requests_are_answered_in_order(self, serve):
        served = await serve(Route("/v1/items/{item}", show))
        reader, writer = await asyncio.open_connection("127.0.0.1", served.running.port)
        writer.write(b"".join(b"GET /v1/items/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(50)))
        text = b""
        while text.count(b"HTTP/1.1 200") < 50 or not text.endswith(b"}"):
            text += await asyncio.wait_for(reader.read(65536), 60)
        assert re.findall(rb'"item":"(\d+)"', text) == [b"%d" % number for number in range(50)]
        writer.close()
        await writer.wait_closed()

    def test_a_header_cannot_begin_another_one(self):
        from kiki.web.reply import _line

        for name, value in (("X", "a\r\nSet-Cookie: b"), ("X\r\nY", "a"), ("X", "ü"), ("X", "\x00"), ("", "a")):
            with pytest.raises(ValueError, match="header"):
                _line(name, value)


class TestRoutes:
    async def test_parameters_are_whole_segments_decoded_once(self, serve):
        served = await serve(Route("/v1/items/{item}", show), Route("/v1/items/{item}/parts/{part}", show))
        cases = {
            "/v1/items/a%2Fb": {"item": "a/b"},
            "/v1/items/a%252Fb/parts/%C3%A9": {"item": "a%2Fb", "part": "é"},
            "/v1/items/a+b": {"item": "a+b"},
            "/v1/%69tems/x": {"item": "x"},
        }
        for path, expected in cases.items():
            status, _, body = await raw(served.running, f"GET {path}?q=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert (status, json.loads(body)["params"]) == (200, expected)
        for path in (
            "/v1/items/",
            "/v1/items//",
            "/v1/items",
            "/v1/items/a/parts",
            "/v1%2Fitems%2Fa",
            "/hello/../v1/items/a/b/c",
        ):
            status, _, _ = await raw(served.running, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert (path, status) == (path, 404)
        status, _, _ = await raw(served.running, b"GET /v1/items/%ff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status == 400

    async def test_the_absolute_form_means_the_same_path(self, serve):
        served = await serve(HELLO)
        status, _, body = await raw(
            served.running, b"GET http://localhost/hello?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        assert (status, body) == (200, b"hello\n")

    async def test_unknown_paths_and_wrong_methods(self, serve):
        served = await serve(HELLO, Route("/v1/things", echo, ("POST",)), Route("/v1/things", hello, ("GET",)))
        async with served.inside.get("/nowhere") as response:
            assert (response.status, response.content_type) == (404, "text/plain")
            assert (await response.text()).endswith("\n")
        for path, headers in (("/nowhere", {"Accept": "application/json"}), ("/v1/nowhere", {})):
            async with served.inside.get(path, headers=headers) as response:
                assert (response.status, response.content_type) == (404, "application/problem+json")
                assert (await response.json(content_type=None))["code"] == "route_unknown"
        async with served.inside.delete("/v1/things") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, POST")
            assert response.content_type == "application/problem+json"
        async with served.inside.post("/hello") as response:
            assert (response.status, response.headers["Allow"], response.content_type) == (405, "GET", "text/plain")
        async with served.inside.options("/hello") as response:
            assert response.status == 405

    def test_mistakes_in_routes_are_told_when_they_are_made(self):
        for path in ("hello", "/a//b", "/a b", "/{Name}", "/a/{b}c", ""):
            with pytest.raises(ValueError, match="route"):
                Route(path, hello)
        with pytest.raises(ValueError, match="methods"):
            Route("/a", hello, ("get",))
        with pytest.raises(ValueError, match="role"):
            Route("/a", hello, role="boss")

    async def test_a_path_and_method_is_routed_once(self, serve):
        with pytest.raises(ValueError, match="twice"):
            await serve(HELLO, HELLO)


ERRORS = [
    (errors.InvalidMoney("no money"), 400, "invalid_money"),
    (errors.Denied(), 403, "denied"),
    (errors.SpendDenied("over", reason="limit", retry_after=1.2), 403, "spend_denied"),
    (errors.Unauthenticated(), 401, "unauthenticated"),
    (errors.Forbidden(), 403, "forbidden"),
    (errors.HoldUnknown(), 404, "hold_unknown"),
    (errors.KeyReused(), 409, "key_reused"),
    (errors.LedgerUnavailable("disk full", retry_after=0.1, hint="make room"), 503, "ledger_unavailable"),
    (errors.LedgerCorrupt("row 7 of /secret"), 500, "internal"),
    (RuntimeError("customer:c-17"), 500, "internal"),
    (aioweb.HTTPGone(text="gone"), 410, "http_410"),
]


class TestErrors:
    @pytest.mark.parametrize(("error", "status", "code"), ERRORS, ids=[code for *_, code in ERRORS])
    async def test_the_table(self, serve, error, status, code):
        served = await serve(Route("/v1/it", fails_with(error)), Route("/it", fails_with(error), plain=True))
        async with served.inside.get("/v1/it", headers={"X-Request-Id": "rid-7"}) as response:
            found = await response.json(content_type=None)
            assert (response.status, response.content_type) == (status, "application/problem+json")
            assert (found["type"], found["status"], found["code"]) == (f"urn:kiki:error:{code}", status, code)
            assert (found["instance"], bool(found["title"])) == ("rid-7", True)
            assert response.headers["X-Request-Id"] == "rid-7"
            assert found.get("hint") == getattr(error, "hint", None)
        async with served.inside.get("/it") as response:
            text = await response.text()
            assert (response.status, response.content_type, text[-1]) == (status, "text/plain", "\n")
            if status == 500:
                assert "secret" not in text
                assert "c-17" not in text

    async def test_headers_that_belong_to_an_error(self, serve):
        served = await serve(*(Route(f"/e{number}", fails_with(error)) for number, (error, *_) in enumerate(ERRORS)))

        async def header(number, name):
            async with served.inside.get(f"/e{number}") as response:
                return response.headers.get(name)

        assert await header(2, "Retry-After") == "2", "rounded up"
        assert await header(3, "WWW-Authenticate") == 'Bearer realm="kiki"'
        assert await header(7, "Retry-After") == "1"

    def test_every_branch_of_the_tree_is_in_the_table(self):
        """A new kind of error is translated on purpose or is a 500 on purpose."""
        meant = {errors.ConfigurationError, errors.LedgerCorrupt, errors.LedgerLocked, errors.MissingExtra}
        # Keys and evidence of our own that do not hold: the caller can do nothing about them.
        meant |= {errors.MasterKeyError, errors.Unreadable, errors.ProofInvalid, errors.CheckpointInvalid}
        meant |= {errors.EvidenceInvalid, errors.TimestampInvalid, errors.ModelInvalid, errors.ChartError}
        ours = {kind for kind in errors.KikiError.__subclasses__() if kind.__module__ == "kiki.errors"}
        assert {kind for kind in ours if kind not in _STATUS} == meant

    @pytest.mark.parametrize("seconds", [float("inf"), float("nan"), None])
    def test_a_time_that_cannot_be_told_is_left_out(self, seconds):
        error = errors.SpendDenied("x", reason="x", retry_after=seconds)
        assert (headers_of(error), status_of(error)) == ((), 403)

    async def test_an_unexpected_error_is_logged_with_the_request_id(self, serve, caplog):
        served = await serve(Route("/it", fails_with(RuntimeError("boom"))))
        with caplog.at_level(logging.ERROR):
            async with served.inside.get("/it", headers={"X-Request-Id": "rid-8"}):
                pass
        (record,) = [record for record in caplog.records if record.name == "kiki.web.edge"]
        assert record.exc_info[1].args == ("boom",)

    async def test_a_message_that_no_encoding_holds_is_still_answered(self, serve):
        served = await serve(
            Route("/it", fails_with(errors.InvalidInput("\ud800"))),
            Route("/p", fails_with(errors.InvalidInput("\ud800")), plain=True),
        )
        for path in ("/it", "/p"):
            async with served.inside.get(path) as response:
                assert response.status == 400
                assert "\\ud800" in (await response.text())

    async def test_problem_takes_members_of_its_own_but_not_the_standard_ones(self, serve):
        async def handler(request):
            return problem(request, 403, "spend_denied", "no", extra={"remaining": "1.00", "status": 200})

        served = await serve(Route("/it", handler))
        async with served.inside.get("/it") as response:
            found = await response.json(content_type=None)
        assert (found["remaining"], found["status"]) == ("1.00", 403)


class TestBodies:
    POST = Route("/v1/it", echo, ("POST",))

    async def test_json_in_json_out(self, serve):
        served = await serve(self.POST)
        for kind in ("application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'):
            async with served.inside.post("/v1/it", data=b'{"a": 0.10}', headers={"Content-Type": kind}) as response:
                assert (response.status, await response.json()) == (200, {"got": {"a": "0.10"}})

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/json; charset=latin-1"},
            {"Content-Type": "application/jsonx"},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        ],
    )
    async def test_other_types_are_415(self, serve, headers):
        served = await serve(self.POST)
        body = gzip.compress(b"{}") if "Content-Encoding" in headers else b"{}"
        async with served.inside.post("/v1/it", data=body, headers=headers) as response:
            assert response.status == 415

    async def test_too_large_is_413_however_it_comes(self, serve):
        """By its declared length, in chunks without one, and 10 MB of it."""
        served = await serve(self.POST, KIKI_BODY_BYTES_MAX="4096")
        kind = {"Content-Type": "application/json"}

        async def chunks(size):
            for _ in range(size // 1000):
                yield b" " * 1000

        for data in (b" " * 4097, io.BytesIO(b" " * 10_000_000), chunks(5000)):
            async with served.inside.post("/v1/it", data=data, headers=kind) as response:
                assert (response.status, response.headers["Connection"]) == (413, "close")
        async with served.inside.post("/v1/it", data=b'{"a":1}' + b" " * 4089, headers=kind) as response:
            assert response.status == 200

    async def test_a_length_that_lies_is_not_believed(self, serve):
        served = await serve(self.POST, KIKI_BODY_BYTES_MAX="4096")
        hurried = await serve(self.POST, KIKI_BODY_BYTES_MAX="4096", KIKI_REQUEST_SECONDS_MAX="0.2")
        head = "POST /v1/it HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        status, _, _ = await raw(served.running, (head + "Content-Length: 99999999999\r\n\r\n{}").encode())
        assert status == 413
        status, _, _ = await raw(hurried.running, (head + "Content-Length: 100\r\n\r\n{}").encode())
        assert status == 408, "the rest never came"
        for wrong in ("Content-Length: x", "Content-Length: -1", "Content-Length: 1\r\nTransfer-Encoding: chunked"):
            status, _, _ = await raw(served.running, f"{head}{wrong}\r\n\r\n".encode())
            assert status == 400
        status, _, _ = await raw(served.running, (head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n").encode())
        assert status == 400

    async def test_a_client_that_asks_first_is_told_to_go_on_or_not(self, serve):
        served = await serve(self.POST, KIKI_BODY_BYTES_MAX="4096")
        head = b"POST /v1/it HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", served.running.port)
        writer.write(head + b"Content-Length: 7\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"a":1}')
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        status, _, _ = await raw(served.running, head + b"Content-Length: 9999\r\nExpect: 100-continue\r\n\r\n")
        assert status == 413
        status, _, _ = await raw(served.running, head + b"Content-Length: 7\r\nExpect: tea\r\n\r\n")
        assert status == 417

    async def test_a_caller_that_hangs_up_early_harms_nobody(self, serve, caplog):
        served = await serve(self.POST, HELLO)
        _, writer = await asyncio.open_connection("127.0.0.1", served.running.port)
        writer.write(
            b"POST /v1/it HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
        async with served.inside.get("/hello") as response:
            assert response.status == 200

    @pytest.mark.parametrize(
        "request_",
        [b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET /hello HTTP/1.1\r\nA b: c\r\n\r\n",
         b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"],
    )  # fmt: skip
    async def test_what_is_no_http_is_400_and_no_noise(self, serve, caplog, request_):
        served = await serve(HELLO)
        with caplog.at_level(logging.INFO):
            status, headers, _ = await raw(served.running, request_)
        assert status in {400, 431}
        assert ("kiki", "nosniff") == (headers["server"], headers["x-content-type-options"])
        assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == []


class TestBrowsers:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "Cross-Site"}, 403),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Sec-Fetch-Site": "none"}, 200),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "http://localhost:1"}, 403),
            ({"Origin": ""}, 403),
            ({"Origin": "http://HOST"}, 200),
            ({"Origin": "https://HOST"}, 200),
            ({"Origin": "http://HOST", "Sec-Fetch-Site": "cross-site"}, 403),
        ],
    )
    async def test_requests_of_other_sites_are_refused(self, serve, headers, status):
        served = await serve(HELLO, Route("/hook", hello, ("POST",), self_proving=True))
        sent = {name: value.replace("HOST", f"127.0.0.1:{served.running.port}") for name, value in headers.items()}
        async with served.inside.get("/hello", headers=sent) as response:
            assert response.status == status
        async with served.inside.post("/hook", headers=sent) as response:
            assert response.status == 200, "a route that proves itself is asked from anywhere"

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("localhost", 200), ("localhost:1", 200), ("LOCALHOST:8081", 200), ("127.9.9.9:80", 200), ("[::1]:8081", 200),
            ("localhost.", 200), ("evil.example", 421), ("localhost.evil.example", 421), ("10.0.0.1", 421),
            ("127.0.0.1.evil.example", 421), ("", 421), ("localhost:x", 421), ("[::1", 421), ("[::2]", 421),
        ],
    )  # fmt: skip
    async def test_on_the_loopback_only_its_names_are_answered(self, serve, host, status):
        """A foreign name that points at this machine is DNS rebinding."""
        served = await serve(HELLO)
        for _ in range(2):
            found, _, _ = await raw(served.running, f"GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert found == status

    async def test_http_1_1_without_host_is_refused(self, serve):
        served = await serve(HELLO)
        status, _, _ = await raw(served.running, b"GET /hello HTTP/1.1\r\n\r\n")
        assert status in {400, 421}, "newer aiohttp refuses it itself"

    async def test_listed_hosts_are_the_only_ones(self, serve):
        served = await serve(HELLO, KIKI_ALLOWED_HOSTS="shield.example.com,10.0.0.5")
        for host, status in (("Shield.Example.com:443", 200), ("10.0.0.5", 200), ("localhost", 421), ("other", 421)):
            found, _, _ = await raw(served.running, f"GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (host, found) == (host, status)

    async def test_elsewhere_any_host_is_answered_and_probes_always(self, serve):
        served = await serve(HELLO, KIKI_HOST="0.0.0.0")
        assert (await raw(served.running, b"GET /hello HTTP/1.1\r\nHost: whatever\r\n\r\n"))[0] == 200
        served = await serve(HELLO, KIKI_HOST="0.0.0.0", KIKI_ALLOWED_HOSTS="shield.example.com")
        assert (await raw(served.running, b"GET /hello HTTP/1.1\r\nHost: 10.1.2.3:8081\r\n\r\n"))[0] == 421
        for path in ("livez", "readyz", "metrics"):
            assert (await raw(served.running, f"GET /{path} HTTP/1.1\r\nHost: 10.1.2.3\r\n\r\n".encode()))[0] == 200


READ = Route("/v1/read", show, role="read")
SPEND = Route("/v1/spend", show, role="spend")
GUIDE = Route("/spend", show, role="spend", anonymous_inside=True)
ANY = Route("/any", show)
HOOK = Route("/hook/{proof}", show, self_proving=True, role="admin")


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-token-0123456789"}


class TestCallers:
    async def status(self, session, path, headers=None):
        async with session.get(path, headers=headers) as response:
            if response.status == 401:
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
            return response.status

    async def test_without_a_token_file_everything_is_open_inside(self, serve):
        served = await serve(READ, SPEND, GUIDE, ANY, HOOK)
        for path in ("/v1/read", "/v1/spend", "/spend", "/any", "/hook/x", "/metrics"):
            assert await self.status(served.inside, path) == 200
            assert await self.status(served.inside, path, {"Authorization": "Bearer whatever"}) == 200

    async def test_with_one_the_internal_port_asks_but_for_the_guides_routes(self, serve, tokens):
        served = await serve(READ, SPEND, GUIDE, ANY, HOOK, tokens=tokens)
        statuses = {
            path: [
                await self.status(served.inside, path, headers)
                for headers in (None, bearer("nobody"), bearer("reader"), bearer("spender"))
            ]
            for path in ("/v1/read", "/v1/spend", "/spend", "/any", "/hook/x", "/livez", "/metrics")
        }
        assert statuses == {
            "/v1/read": [401, 401, 200, 200],
            "/v1/spend": [401, 401, 403, 200],
            "/spend": [200, 401, 200, 200],
            "/any": [200, 401, 200, 200],
            "/hook/x": [200, 200, 200, 200],
            "/livez": [200, 401, 200, 200],
            "/metrics": [200, 401, 200, 200],
        }

    async def test_the_public_port_always_asks(self, serve, tokens):
        served = await serve(READ, SPEND, GUIDE, ANY, HOOK, tokens=tokens, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="t")
        statuses = {
            path: [
                await self.status(served.outside, path, headers)
                for headers in (None, bearer("nobody"), bearer("reader"), bearer("spender"))
            ]
            for path in ("/v1/read", "/v1/spend", "/spend", "/any", "/hook/x", "/livez", "/metrics", "/nowhere")
        }
        assert statuses == {
            "/v1/read": [401, 401, 200, 200],
            "/v1/spend": [401, 401, 403, 200],
            "/spend": [401, 401, 403, 200],
            "/any": [401, 401, 200, 200],
            "/hook/x": [200, 200, 200, 200],
            "/livez": [401, 401, 200, 200],
            "/metrics": [401, 401, 200, 200],
            "/nowhere": [401, 401, 404, 404],
        }
        assert await self.status(served.inside, "/spend") == 200

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ("bearer reader-token-0123456789", 200),
            ("Bearer  reader-token-0123456789 ", 200),
            ("Basic cmVhZGVyOng=", 401),
            ("reader-token-0123456789", 401),
            ("Bearer", 401),
            ("Bearer ", 401),
            ("Bearer reader-token-0123456789x", 401),
        ],
    )
    async def test_how_a_token_is_presented(self, serve, tokens, header, status):
        served = await serve(READ, tokens=tokens)
        assert await self.status(served.inside, "/v1/read", {"Authorization": header}) == status

    async def test_handlers_know_who_asks(self, serve, tokens):
        served = await serve(READ, tokens=tokens)
        async with served.inside.get("/v1/read", headers=bearer("reader")) as response:
            assert (await response.json())["as"] == "reader"

    async def test_new_tokens_count_from_the_next_request_on(self, serve, tokens):
        from kiki.web import parse_tokens

        served = await serve(READ, tokens=tokens)
        assert await self.status(served.inside, "/v1/read", bearer("reader")) == 200
        served.running.use_tokens(parse_tokens(tokens.replace("reader-token", "changed-token"), "t"))
        assert await self.status(served.inside, "/v1/read", bearer("reader")) == 401

    def test_a_public_port_without_tokens_is_never_made(self):
        from kiki.settings import parse_listen
        from kiki.web import Service

        with pytest.raises(ValueError, match="tokens"):
            build_server(Service("x", [HELLO]), parse_listen({}), None, public=True)

    async def test_a_caller_over_its_rate_waits_and_probes_do_not(self, serve):
        served = await serve(HELLO, KIKI_RATE="2")
        assert [await self.status(served.inside, "/hello") for _ in range(3)] == [200, 200, 429]
        async with served.inside.get("/hello") as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert [await self.status(served.inside, "/livez") for _ in range(5)] == [200] * 5

    async def test_the_public_rate_is_each_callers_own_and_slows_down_guessing(self, serve, tokens):
        served = await serve(
            READ, tokens=tokens, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="t", KIKI_PUBLIC_RATE="2"
        )  # fmt: skip
        ways = [bearer("reader"), bearer("spender"), bearer("guess-1"), bearer("guess-2")]
        got = {
            way["Authorization"]: [await self.status(served.outside, "/v1/read", way) for _ in range(3)] for way in ways
        }
        assert list(got.values()) == [[200, 200, 429], [200, 200, 429], [401, 401, 429], [429, 429, 429]]
        assert [await self.status(served.inside, "/v1/read", bearer("reader")) for _ in range(4)] == [200] * 4


class TestOwnRoutes:
    async def test_livez(self, serve):
        served = await serve()
        async with served.inside.get("/livez") as response:
            assert (response.status, await response.text()) == (200, "alive\n")

    async def test_readyz_names_every_part(self, serve):
        parts = [Check("ledger", ok=True), Check("window", ok=True, detail="local")]

        async def checks():
            return parts

        served = await serve(checks=checks)
        async with served.inside.get("/readyz") as response:
            assert (response.status, (await response.json())["ready"]) == (200, True)
        parts[1] = Check("window", ok=False, detail="Redis does not answer")
        async with served.inside.get("/readyz") as response:
            found = await response.json()
            assert (response.status, found["ready"]) == (503, False)
            assert found["checks"] == [
                {"name": "ledger", "ok": True, "detail": ""},
                {"name": "window", "ok": False, "detail": "Redis does not answer"},
            ]

    @pytest.mark.parametrize(
        ("error", "detail"), [(errors.LedgerUnavailable("disk full"), "disk full"), (OSError("x"), "OSError")]
    )
    async def test_checks_that_raise_mean_not_ready(self, serve, error, detail):
        async def checks():
            raise error

        served = await serve(checks=checks)
        async with served.inside.get("/readyz") as response:
            assert (response.status, (await response.json())["checks"][0]["detail"]) == (503, detail)

    async def test_metrics_count_by_pattern_and_never_by_path(self, serve):
        served = await serve(Route("/v1/items/{item}", show))
        for path in ("/v1/items/customer-17", "/v1/items/customer-18", "/nowhere/customer-19"):
            async with served.inside.get(path):
                pass
        async with served.inside.get("/metrics") as response:
            text = await response.text()
        assert 'kiki_http_requests_total{method="GET",route="/v1/items/{item}",service="test",status="200"} 2.0' in text
        assert 'route="unknown",service="test",status="404"} 1.0' in text
        assert "customer" not in text

    async def test_openapi_is_what_the_service_gave(self, serve):
        served = await serve(openapi={"openapi": "3.1.0", "paths": {}})
        async with served.inside.get("/openapi.json") as response:
            assert await response.json() == {"openapi": "3.1.0", "paths": {}}
        without = await serve()
        async with without.inside.get("/openapi.json") as response:
            assert response.status == 404

    async def test_a_service_may_bring_its_own(self, serve):
        served = await serve(Route("/livez", hello, plain=True))
        async with served.inside.get("/livez") as response:
            assert await response.text() == "hello\n"

    async def test_the_access_log_holds_the_pattern_and_no_more(self, serve, caplog):
        served = await serve(Route("/v1/items/{item}", show), KIKI_ACCESS_LOG="true")
        with caplog.at_level(logging.INFO):
            async with served.inside.get("/v1/items/customer-17?customer_id=c-18"):
                pass
        (record,) = [record for record in caplog.records if record.name == "kiki.access"]
        assert (record.fields["route"], record.fields["status"]) == ("/v1/items/{item}", 200)
        assert "customer-17" not in str(record.fields)
        quiet = await serve(HELLO)
        caplog.clear()
        async with quiet.inside.get("/hello"):
            pass
        assert [record for record in caplog.records if record.name == "kiki.access"] == []


async def test_a_peer_that_does_not_read_is_not_answered_into_memory(serve):
    """Answers wait in its connection, and its next requests with them."""
    done = 0

    async def large(request):
        nonlocal done
        done += 1
        return Reply(b"x" * 1_000_000)

    served = await serve(Route("/large", large), KIKI_DRAIN_SECONDS="0")
    _, writer = await asyncio.open_connection("127.0.0.1", served.running.port)
    # More than the buffers of any kernel hold.
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
    await asyncio.sleep(0.3)
    assert done < 500
    writer.transport.abort()
