"""The Redis window against limits' moving window, on the same real server in the same run."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvloop

from bench.measure import Row, rates, shown
from kiki.clock import SECOND
from kiki.settings import RedisAddress
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import spend_call
from kiki.shield.opening import open_decider
from kiki.shield.policy import Budget, Limit, Policy, single_budget
from kiki.shield.redis_window import RedisWindow
from kiki.shield.scope import Pattern
from kiki.shield.window import Ask, Verb

CALLERS = 64
PLENTY = 2**52
KINDS = ("account", "campaign", "channel", "country", "platform")


@contextmanager
def _server() -> Iterator[int]:
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not on PATH: run scripts/ensure_servers.sh")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [binary, "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()


def _many() -> Policy:
    spans = (60 * SECOND, 3600 * SECOND, 24 * 3600 * SECOND)
    limits = tuple(Limit(PLENTY, span) for span in spans)
    each = tuple(Budget(kind, Pattern(f"{kind}:*"), limits) for kind in KINDS)
    return Policy((Budget("all", Pattern("*"), limits), *each))


def _batches(port: int, policy: Policy, prefix: str, scopes: tuple[str, ...]) -> Callable[[int], object]:
    window = RedisWindow.connect(policy, RedisAddress((("127.0.0.1", port),)), chain="bench", prefix=prefix)
    asks = [Ask(Verb.SPEND, [10_000], (scopes,)) for _ in range(CALLERS)]

    def run(count: int) -> None:
        for _ in range(count // CALLERS):
            for answer in window.take(asks):
                if answer.error is not None or answer.refusals:
                    raise AssertionError(answer)

    return run


def _threads(work: Callable[[int], object], count: int) -> None:
    share = count // CALLERS
    threads = [threading.Thread(target=work, args=(share,)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _limits(port: int) -> Callable[[int], object]:
    from limits import RateLimitItemPerMinute, storage, strategies

    limiter = strategies.MovingWindowRateLimiter(storage.RedisStorage(f"redis://127.0.0.1:{port}"))
    item = RateLimitItemPerMinute(1_000_000_000)

    def run(count: int) -> None:
        for _ in range(count):
            limiter.hit(item, "key")

    return partial(_threads, run)


def run() -> list[Row]:
    """All rows of this part."""
    with _server() as port:
        six = tuple(f"{kind}:one" for kind in KINDS)
        subjects = {
            "limits, moving window, 64 threads": _limits(port),
            "kiki, 64 waiting spends a call": _batches(port, single_budget(PLENTY), "one", ()),
            "kiki, 6 scopes x 3 windows": _batches(port, _many(), "many", six),
        }
        found = rates(subjects, {name: 6_400 if name.startswith("limits") else 32_000 for name in subjects})
        address = RedisAddress((("127.0.0.1", port),))
        with BudgetGuard(open_decider(None, single_budget(PLENTY), redis=address)) as guard:

            def spend(count: int) -> None:
                for _ in range(count):
                    guard.spend("0.01")

            threads = rates({"guard": partial(_threads, spend)}, 12_800, rounds=5)["guard"]
        coroutines = uvloop.run(_coroutines(BudgetGuard(open_decider(None, single_budget(PLENTY), redis=address))))
    limits, one, many = found.values()
    return [
        *(Row(name, shown(rate)) for name, rate in found.items()),
        Row("window: ratio to limits", f"{one / limits:.1f}x", ">= 4x", one / limits >= 4),
        Row("price of 6 scopes x 3 windows over 1 x 1", f"{one / many:.2f}x", "< 2x", one / many < 2),
        Row("whole guard, 64 coroutines: decide, write down, answer", shown(coroutines)),
        Row("whole guard: ratio to limits", f"{coroutines / limits:.1f}x", ">= 4x", coroutines / limits >= 4),
        Row("whole guard, 64 threads (what is left is Python handing the GIL around)", shown(threads)),
        Row("whole guard with threads: ratio to limits", f"{threads / limits:.1f}x"),
    ]


async def _coroutines(guard: BudgetGuard, rounds: int = 5, count: int = 25_600) -> float:
    shell = AsyncGuard(guard)

    async def caller() -> None:
        for _ in range(count // CALLERS):
            await shell.decide(spend_call("0.01"))

    best = 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        best = max(best, count / (time.perf_counter() - start))
    await shell.close()
    return best
