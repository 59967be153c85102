"""A service for tests that need a real process: it works a moment on each request and writes down what it did."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from kiki.errors import ConfigurationError, InvalidInput
from kiki.settings import parse_listen
from kiki.telemetry import configure_logging
from kiki.web import Route, Service, load_tokens, plain, run

DONE = Path(sys.argv[1])


def note(what):
    with DONE.open("a") as file:
        file.write(f"{what}\n")


async def work(request):
    await asyncio.sleep(0.02)
    note("done")
    return plain("done")


async def slow(request):
    await asyncio.sleep(3600)
    return plain("never")


async def note_close():
    note("closed")


async def refuse_reload():
    raise InvalidInput("the new policy is wrong")


def main():
    configure_logging()
    settings = parse_listen(os.environ)
    tokens = load_tokens(settings.tokens_file) if settings.tokens_file else None
    routes = [Route("/work", work, plain=True, role="spend"), Route("/slow", slow)]
    return run(Service("tiny", routes, on_close=note_close, on_reload=refuse_reload), settings, tokens)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
