"""A system of yours that takes part in requests of persons: the protocol of docs/requests.md, served with aiohttp.

    ORDERS_PRIVACY_SECRET=... python examples/subject_receiver.py

The orders lie in a dictionary here; put your database in its place. What matters: check the signature first, answer
`locate` and `verify` by looking, and let a call that comes a second time do only what is left to do.
"""

import os
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from kiki.errors import Unauthenticated
from kiki.shield.signed_call import check

orders: dict[str, list[str]] = {"customer-7": ["2 lamps", "1 chair"]}
blocked: set[str] = set()


def locate(call: dict) -> dict:
    return {"records": len(orders.get(call["customer_id"], [])), "classes": ["orders"]}


def restrict(call: dict) -> dict:
    blocked.add(call["customer_id"])
    return {"records": len(orders.get(call["customer_id"], []))}


def rectify(call: dict) -> dict:
    return {"records": 0}  # nothing here describes the person


def erase(call: dict) -> dict:
    # A second time there is nothing left: the answer is 0, and that is no error.
    return {"records": len(orders.pop(call["customer_id"], [])), "kept": []}


def verify(call: dict) -> dict:
    return {"left": len(orders.get(call["customer_id"], [])), "checked": 1}


async def export(request: web.Request, call: dict) -> web.StreamResponse:
    """Lines of JSON, so that more than memory holds may be handed over; the last line says that it was all."""
    answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await answer.prepare(request)
    for order in orders.get(call["customer_id"], []):
        await answer.write(web.json_response({"name": "orders.txt", "text": f"{order}\n"}).body + b"\n")
    await answer.write(b'{"end": true}\n')
    return answer


METHODS = {"locate": locate, "restrict": restrict, "rectify": rectify, "erase": erase, "verify": verify}


def application(secret: bytes) -> web.Application:
    seen: dict[str, int] = {}

    @web.middleware
    async def signed(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            body = await request.read()
            check(secret, request.method, request.path_qs, request.headers, body, now=int(time.time()), seen=seen)
        except Unauthenticated as error:
            return web.Response(status=401, text=f"{error}\n")
        return await handler(request)

    async def answer(request: web.Request) -> web.StreamResponse:
        call, method = await request.json(), request.match_info["method"]
        if method == "export":
            return await export(request, call)
        if method not in METHODS:
            return web.Response(status=404)
        return web.json_response(METHODS[method](call))

    app = web.Application(middlewares=[signed])
    app.router.add_post("/privacy/{method}", answer)
    return app


if __name__ == "__main__":
    web.run_app(application(os.environ["ORDERS_PRIVACY_SECRET"].encode()), host="127.0.0.1", port=8099)
