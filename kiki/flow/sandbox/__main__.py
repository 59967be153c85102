"""`python -m kiki.flow.sandbox`: the sandbox as a process of its own, until it is told to stop.

It prints one line of JSON with its `url` once it listens. Its books survive being killed; started again with the same
file and port it goes on where time has come to meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from datetime import UTC, date, datetime

from kiki.flow.sandbox.books import Books
from kiki.flow.sandbox.server import HOST, sandbox_listening


def main() -> None:
    """Parse the command line and answer until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m kiki.flow.sandbox", description=__doc__)
    parser.add_argument("--books", default=":memory:", help="the SQLite file (default: nothing is kept)")
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--first-day", type=date.fromisoformat, default=None, help="such as 2026-12-01; today")
    parser.add_argument("--day-seconds", type=float, default=2.0, help="how long a day takes (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the market")
    given = parser.parse_args()
    first_day = given.first_day or datetime.now(UTC).date()
    books = Books(given.books, first_day=first_day, day_seconds=given.day_seconds, seed=given.seed)
    with contextlib.closing(books):
        asyncio.run(_until_told(books, given.host, given.port))


async def _until_told(books: Books, host: str, port: int) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with sandbox_listening(books, host=host, port=port) as url:
        sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()
        await told.wait()


if __name__ == "__main__":
    main()
