"""A system that serves the protocol of docs/requests.md, written from that page alone: it shares no code with kiki.

`mood` makes it misbehave, by the method's name: see `SubjectReceiver`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

SECRET = "a secret of both sides"


class SubjectReceiver:
    """Keeps records of customers in memory. `mood[method]` is an answer to give instead of the right one:

    a status, `slow` (never answers), `garbage`, `huge`, `cut` (an export without its end), `works` (202 until `release`),
    `elsewhere` (202 with somebody else's Location), `once` (503 the first time), `lost` (does it, then drops the connection
    the first time).
    """

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.restricted: dict[str, list[str]] = {}
        self.kept: list[dict[str, Any]] = []
        self.mood: dict[str, object] = {}
        self.seen: set[str] = set()
        self.done: dict[str, dict[str, Any]] = {}
        """The answers to what changes something, by idempotency key: a repeat gets the first answer."""
        self.calls: list[tuple[str, str]] = []
        self.erasures = 0
        self.release = False
        self.skew = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/privacy/{method}", self.answer)
        app.router.add_get("/privacy/jobs/{method}", self.job)
        return app

    def is_signed(self, request: web.Request, body: bytes) -> bool:
        stamp, nonce = request.headers.get("Kiki-Timestamp", ""), request.headers.get("Kiki-Nonce", "")
        text = f"{stamp}\n{nonce}\n{request.method}\n{request.path_qs}\n".encode() + body
        expected = "v1=" + hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
        fresh = stamp.isdigit() and abs(time.time() + self.skew - int(stamp)) <= 300 and nonce not in self.seen
        self.seen.add(nonce)
        return fresh and hmac.compare_digest(expected, request.headers.get("Kiki-Signature", ""))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body, method = await request.read(), request.match_info["method"]
        key = request.headers.get("Idempotency-Key", "")
        self.calls.append((method, key))
        if not self.is_signed(request, body):
            return web.Response(status=401)
        mood = self.mood.get(method)
        if mood == "once":
            del self.mood[method]
            return web.Response(status=503, headers={"Retry-After": "0"})
        if isinstance(mood, int):
            return web.Response(status=mood, headers={"Retry-After": "0"})
        if mood == "slow":
            await asyncio.sleep(30)
        if mood == "garbage":
            return web.Response(text="<html>welcome</html>")
        if mood == "negative":
            return web.json_response({"records": -1, "left": -1})
        if mood == "huge":
            return web.Response(body=b'{"records": 1, "x": "' + b"x" * (2 << 20) + b'"}')
        if mood == "elsewhere":
            return web.Response(status=202, headers={"Location": "http://127.0.0.1:1/steal"})
        if mood == "works" and not self.release:
            place = f"/privacy/jobs/{method}"
            return web.Response(status=202, headers={"Location": place, "Retry-After": "0"})
        call = json.loads(body)
        if method == "export":
            return await self.export(request, call, cut=mood == "cut")
        found = self.act(method, call, key)
        if mood == "lost":
            del self.mood[method]
            assert request.transport is not None
            request.transport.close()
        return web.json_response(found)

    async def job(self, request: web.Request) -> web.Response:
        self.calls.append(("job", request.headers.get("Idempotency-Key", "")))
        if not self.is_signed(request, b""):
            return web.Response(status=401)
        if not self.release:
            return web.Response(status=202, headers={"Location": request.path, "Retry-After": "0"})
        return web.json_response({"records": 7})

    def act(self, method: str, call: dict[str, Any], key: str) -> dict[str, Any]:
        who = call["customer_id"]
        records = self.records.setdefault(who, [])
        if method == "locate":
            return {"records": len(records), "classes": ["orders"]}
        if method == "verify":
            return {"left": len(records), "checked": 1}
        if key in self.done:
            return self.done[key]
        answer: dict[str, Any] = {"records": len(records)}
        if method == "erase":
            self.erasures += 1
            records.clear()
            answer["kept"] = self.kept
        elif method == "rectify":
            records[:] = [f"{name}={value}" for name, value in call["values"].items()]
        elif method == "restrict":
            self.restricted[who] = call.get("purposes", [])
        self.done[key] = answer
        return answer

    async def export(self, request: web.Request, call: dict[str, Any], *, cut: bool) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        records = self.records.get(call["customer_id"], [])
        for record in records:
            line = {"name": "orders.txt", "text": f"{record}\n", "records": len(records)}
            await answer.write(json.dumps(line).encode() + b"\n")
        await answer.write(
            json.dumps({"name": "photo.png", "base64": base64.b64encode(b"\x89PNG").decode()}).encode() + b"\n"
        )
        if not cut:
            await answer.write(b'{"end": true}\n')
        await answer.write_eof()
        return answer


@contextmanager
def serving(receiver: SubjectReceiver) -> Iterator[str]:
    """The receiver's URL while it is served, on a thread of its own."""
    loop = asyncio.new_event_loop()
    ready: list[int] = []
    started = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(receiver.app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    started.wait(60)
    try:
        yield f"http://127.0.0.1:{ready[0]}/privacy"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()
