"""A service's life: ports, start, reload, and an end that loses nothing. Real sockets, real signals."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest
from aiohttp import ClientSession

from kiki.errors import ConfigurationError
from kiki.settings import parse_listen
from kiki.web import Route, Service, listening, parse_tokens, plain, serving
from tests.servers import free_port

# So long nothing takes, unless it hangs: a busy machine may be many times slower than an idle one.
PATIENCE = 60.0
REPOSITORY = Path(__file__).resolve().parents[2]


async def hello(request):
    return plain("hello")


HELLO = Route("/hello", hello, plain=True)


def settings(**environ: str):
    return parse_listen({"PORT": "0", "KIKI_DRAIN_SECONDS": "30", **environ})


async def ask(port: int, path: str = "/hello") -> tuple[int, str]:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


class TestPorts:
    async def test_any_free_port_is_the_one_that_is_told(self, caplog):
        with caplog.at_level(logging.INFO):
            async with listening(Service("x", [HELLO]), settings()) as running:
                assert running.port > 0
                assert running.url == f"http://127.0.0.1:{running.port}"
                assert await ask(running.port) == (200, "hello\n")
        (record,) = [record for record in caplog.records if record.getMessage() == "listening"]
        assert (record.fields["port"], record.fields["public_port"]) == (running.port, None)

    async def test_localhost_is_one_port_on_all_its_addresses(self):
        async with listening(Service("x", [HELLO]), settings(KIKI_HOST="localhost")) as running:
            assert await ask(running.port) == (200, "hello\n")

    async def test_a_port_that_is_taken_is_named_before_anything_starts(self):
        started = []

        async def on_start():
            started.append(1)

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigurationError, match=rf"port {port} on 127.0.0.1 is taken.*PORT"):
                async with listening(Service("x", [HELLO], on_start=on_start), settings(PORT=str(port))):
                    pass
            tokens = parse_tokens("tokens: [{name: a, token: a-token-0123456789, roles: [read]}]", "t")
            environ = {"KIKI_PUBLIC_PORT": str(port), "KIKI_TOKENS_FILE": "t"}
            with pytest.raises(ConfigurationError, match=rf"port {port} .*KIKI_PUBLIC_PORT"):
                async with listening(Service("x", [HELLO], on_start=on_start), settings(**environ), tokens):
                    pass
        assert started == []

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
    async def test_a_host_that_is_not_ours_is_named(self, host):
        with pytest.raises(ConfigurationError, match=host):
            async with listening(Service("x", [HELLO]), settings(KIKI_HOST=host)):
                pass

    async def test_a_public_port_without_tokens_is_refused(self):
        environ = {"KIKI_PUBLIC_PORT": "0", "KIKI_TOKENS_FILE": "t"}
        with pytest.raises(ConfigurationError, match="tokens"):
            async with listening(Service("x", [HELLO]), settings(**environ), None):
                pass

    @pytest.mark.parametrize(("host", "loud"), [("0.0.0.0", True), ("127.0.0.1", False), ("::1", False)])
    async def test_an_open_door_is_said_loudly(self, caplog, host, loud):
        if host == "::1" and not socket.has_ipv6:
            pytest.skip("no IPv6 here")
        try:
            async with listening(Service("x", [HELLO]), settings(KIKI_HOST=host)):
                pass
        except ConfigurationError:
            pytest.skip(f"{host} cannot be bound here")
        assert any("ANYBODY" in record.getMessage() for record in caplog.records) is loud

    async def test_a_start_that_fails_leaves_the_port_free(self):
        async def on_start():
            raise OSError("no disk")

        port = free_port()
        for _ in range(2):
            with pytest.raises(OSError, match="no disk"):
                async with listening(Service("x", [HELLO], on_start=on_start), settings(PORT=str(port))):
                    pass


class TestDrain:
    async def test_what_is_in_flight_is_answered_and_then_the_service_closed(self):
        events, begun, go_on = [], asyncio.Event(), asyncio.Event()

        async def slow(request):
            begun.set()
            await go_on.wait()
            events.append("answered")
            return plain("slow")

        async def on_close():
            events.append("closed")

        service = Service("x", [Route("/slow", slow, plain=True)], on_close=on_close)
        async with listening(service, settings()) as running:
            asked = asyncio.ensure_future(ask(running.port, "/slow"))
            await begun.wait()
            draining = asyncio.ensure_future(running.drain())
            await asyncio.sleep(0.1)
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", running.port)
            assert not draining.done()
            go_on.set()
            assert await asked == (200, "slow\n")
            await draining
        assert events == ["answered", "closed"]

    async def test_open_connections_may_ask_once_more_and_are_told_to_close(self, monkeypatch):
        monkeypatch.setattr(serving, "QUIET_SECONDS", 30)  # however late this machine lets the client ask
        async with listening(Service("x", [HELLO]), settings()) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            request = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
            writer.write(request % b"hello")
            assert b"Connection" not in await reader.readuntil(b"hello\n")
            draining = asyncio.ensure_future(running.drain())
            await asyncio.sleep(0.1)
            writer.write(request % b"readyz")
            answer = await asyncio.wait_for(reader.read(), PATIENCE)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"Connection: close" in answer
            assert b"draining" in answer
            await draining
            writer.close()
            await writer.wait_closed()

    async def test_a_request_whose_body_is_still_arriving_is_waited_for(self):
        async def echo(request):
            return plain((await request.read()).decode())

        async with listening(Service("x", [Route("/echo", echo, ("POST",))]), settings()) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
            await asyncio.sleep(0.05)
            draining = asyncio.ensure_future(running.drain())
            await asyncio.sleep(0.7)
            writer.write(b"cd")
            assert (await asyncio.wait_for(reader.read(), PATIENCE)).endswith(b"abcd\n")
            await draining
            writer.close()
            await writer.wait_closed()

    async def test_connections_that_the_kernel_took_for_us_are_answered(self):
        """Closing a port resets what waits in its queue, so that is accepted first."""
        async with listening(Service("x", [HELLO]), settings()) as running:
            waiting = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(20)]
            for one in waiting:
                one.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await running.drain()  # the loop had no turn since to accept them
            answers = []
            for one in waiting:
                one.settimeout(PATIENCE)
                with one, one.makefile("rb") as file:
                    answers.append(file.read())
            assert Counter(answer.startswith(b"HTTP/1.1 200") for answer in answers) == {True: 20}

    async def test_the_wait_has_an_end(self, caplog):
        begun = asyncio.Event()

        async def forever(request):
            begun.set()
            await asyncio.sleep(3600)

        async with listening(Service("x", [Route("/f", forever)]), settings(KIKI_DRAIN_SECONDS="0.2")) as running:
            asked = asyncio.ensure_future(ask(running.port, "/f"))
            await begun.wait()
            async with asyncio.timeout(PATIENCE):
                await running.drain()
            with pytest.raises(Exception):  # noqa: B017
                await asked
        assert any("cut off" in record.getMessage() for record in caplog.records)


@asynccontextmanager
async def tiny(tmp_path, **environ: str):
    """The tiny service as a process of its own; gives the process, its port, its log and what it did."""
    done = tmp_path / "done"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(Path(__file__).with_name("tiny_service.py")), str(done)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PORT": "0", **environ},
    )
    try:
        port = 0
        while not port:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            if not line:
                raise AssertionError((await process.stderr.read()).decode())
            entry = json.loads(line)
            port = entry["port"] if entry["event"] == "listening" else 0
        yield process, port, done
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.communicate()


class TestProcess:
    async def test_sigterm_under_load_loses_no_request(self, tmp_path):
        """Every request that a connection took is answered, each answer was worked for, and the exit code is 0."""
        told = Counter()

        async def client(port: int) -> None:
            while True:
                asked = monotonic()
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    told["refused"] += 1
                    return
                try:
                    closing = False
                    while not closing:
                        before = asked
                        writer.write(b"GET /work HTTP/1.1\r\nHost: localhost\r\n\r\n")
                        asked = monotonic()
                        try:
                            head = await reader.readuntil(b"\r\n\r\n")
                            await reader.readexactly(len(b"done\n"))
                        except (OSError, asyncio.IncompleteReadError):
                            # Who was kept from asking for so long has no promise; it may only happen to a busy machine.
                            # The service counts from its answer, which was some time after the question before.
                            told["late" if asked - before > 0.9 * serving.QUIET_SECONDS else "lost"] += 1
                            break
                        told["answered"] += 1
                        closing = b"Connection: close" in head
                finally:
                    writer.close()
                    with suppress(OSError):
                        await writer.wait_closed()

        async with tiny(tmp_path) as (process, port, done):
            clients = [asyncio.ensure_future(client(port)) for _ in range(24)]
            async with asyncio.timeout(PATIENCE):
                while told["answered"] < 200:  # noqa: ASYNC110  # any of the clients
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*clients)
                assert await process.wait() == 0
        worked = Counter(done.read_text().split())
        assert (told["lost"], told["refused"]) == (0, 24)
        assert told["answered"] == worked["done"] > 100
        assert worked["closed"] == 1

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    async def test_a_second_signal_ends_it_at_once(self, tmp_path, number, code):
        async with tiny(tmp_path, KIKI_DRAIN_SECONDS="600") as (process, port, _):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.sleep(0.2)
            process.send_signal(number)
            while json.loads(await process.stdout.readline())["event"] != "stopping":
                pass
            process.send_signal(number)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == code
            writer.close()

    async def test_sigint_on_an_idle_service_ends_it_well(self, tmp_path):
        async with tiny(tmp_path) as (process, _, done):
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        assert done.read_text() == "closed\n"

    async def test_sighup_takes_new_tokens_and_survives_broken_ones_and_hooks(self, tmp_path):
        path = tmp_path / "tokens.yaml"
        entry = "tokens: [{name: a, token: %s-token-0123456789, roles: [spend]}]\n"
        path.write_text(entry % "first")
        path.chmod(0o600)
        async with tiny(tmp_path, KIKI_TOKENS_FILE=str(path)) as (process, port, _):

            async def status(token: str) -> int:
                headers = {"Authorization": f"Bearer {token}-token-0123456789"}
                async with (
                    ClientSession(headers=headers) as session,
                    session.get(f"http://127.0.0.1:{port}/work") as response,
                ):
                    return response.status

            async def reload() -> list[str]:
                process.send_signal(signal.SIGHUP)
                events = []
                while "the reload failed; nothing changed" not in events:  # the hook always fails
                    events.append(json.loads(await process.stdout.readline())["event"])
                return events

            assert [await status("first"), await status("second")] == [200, 401]
            path.write_text(entry % "second")
            await reload()
            assert [await status("first"), await status("second")] == [401, 200]
            path.write_text("tokens: [")
            assert "the token file was refused; the old one stays" in await reload()
            assert await status("second") == 200
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0

    async def test_a_taken_port_ends_the_start_with_a_sentence(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(AssertionError, match=f"port {port} on 127.0.0.1 is taken by another process"):
                async with tiny(tmp_path, PORT=str(port)):
                    pass
