"""A runner whose lanes do nothing but steps, each of which leaves a line behind: to be killed, stopped and watched.

`python -m tests.flow.toy_runner STORE EXECUTOR EFFECTS STEPS [PAUSE [MOST]]`; after `MOST` effects of its own it makes no more
before there is a file EFFECTS.go, so that it has not come to its end when somebody stops it, however late that is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kiki.flow.journal_engine import Runner
from kiki.flow.plan import Plan
from kiki.flow.port import Json, Port
from kiki.flow.run_store import RunStore

LEASE_SECONDS, GRACE_SECONDS = 1.5, 0.5


def lane(effects: str, steps: int, pause: float, most: int) -> Callable[..., Awaitable[Json]]:
    left = [most]

    async def live(
        run: str, _plan: Plan, _settings: Json, campaign: str, port: Port, fence: Callable[[], Awaitable[None]]
    ) -> Json:
        taken = []
        for step in range(steps):

            async def act(step: int = step) -> Json:
                await fence()
                while most and left[0] <= 0 and not Path(f"{effects}.go").exists():  # noqa: ASYNC110, ASYNC240
                    await asyncio.sleep(0.02)
                left[0] -= 1
                leave(effects, f"{run} {campaign} {step}")
                await asyncio.sleep(pause)
                return {"step": step}

            await port.step(f"step/{step}", act)
            began = await port.now(f"now/{step}")
            given = await port.signal(f"signal/{step}", began)
            if given is not None:
                taken.append(given["word"])
        return {"how": "completed", "taken": taken}

    return live


def leave(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


async def main(arguments: list[str]) -> None:
    where, executor, effects, steps, pause, most = [*arguments, "0", "0"][:6]
    store = RunStore.open(where)
    runner = Runner(
        store,
        executor,
        lane(effects, int(steps), float(pause), int(most)),
        lease_seconds=LEASE_SECONDS,
        grace_seconds=GRACE_SECONDS,
        poll_seconds=0.05,
    )
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[Any]] = []
    loop.add_signal_handler(signal.SIGTERM, lambda: draining.append(asyncio.create_task(runner.drain())))
    print("ready", flush=True)
    await runner.run()
    await asyncio.gather(*draining)
    store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
