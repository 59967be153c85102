"""The floor that the service is held against: one aiohttp handler on uvloop that does nothing."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web


async def spend(_: web.Request) -> web.Response:
    """Answer without deciding."""
    return web.Response(text="Spend recorded: 10.00")


async def main(port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_get("/spend", spend)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
