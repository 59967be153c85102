"""In process, one thread, unaudited: a decision of the local window against the three best-known libraries."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

from bench.measure import Row, rates, shown
from kiki.clock import SECOND, steady_clock
from kiki.money import parse_micros
from kiki.shield.budget import Meter, MeterRule
from kiki.shield.local_window import LocalWindow
from kiki.shield.policy import Budget, Limit, Policy, single_budget
from kiki.shield.scope import Pattern

CENT = 10_000
PLENTY = 2**62


def _ours(events: int, amount: int = CENT) -> Callable[[int], object]:
    window = LocalWindow(single_budget(PLENTY, 600 * SECOND))
    clock = window.clock
    for _ in range(events):
        window.admit(amount, (), clock())
    admit = window.admit

    def run(count: int) -> None:
        for _ in range(count):
            admit(amount, (), clock())

    return run


def _limits(events: int, strategy: str) -> Callable[[int], object]:
    from limits import RateLimitItemPerMinute, storage, strategies

    limiter = getattr(strategies, strategy)(storage.MemoryStorage())
    item = RateLimitItemPerMinute(1_000_000_000, 10)
    for _ in range(events):
        limiter.hit(item, "key")

    def run(count: int) -> None:
        for _ in range(count):
            limiter.hit(item, "key")

    return run


def _throttled(events: int) -> Callable[[int], object]:
    from datetime import timedelta

    from throttled import RateLimiterType, Throttled, rate_limiter

    throttle = Throttled(
        key="key",
        using=RateLimiterType.SLIDING_WINDOW.value,
        quota=rate_limiter.per_duration(timedelta(minutes=10), 1_000_000_000),
    )
    for _ in range(events):
        throttle.limit()

    def run(count: int) -> None:
        for _ in range(count):
            throttle.limit()

    return run


def _pyrate(events: int) -> Callable[[int], object]:
    from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate

    limiter = Limiter(InMemoryBucket([Rate(1_000_000_000, Duration.MINUTE * 10)]))
    for _ in range(events):
        limiter.try_acquire("key")

    def run(count: int) -> None:
        for _ in range(count):
            limiter.try_acquire("key")

    return run


RIVALS: dict[str, Callable[[int], Callable[[int], object]]] = {
    "limits, moving window": lambda events: _limits(events, "MovingWindowRateLimiter"),
    "limits, sliding counter": lambda events: _limits(events, "SlidingWindowCounterRateLimiter"),
    "throttled-py, sliding window": _throttled,
    "pyrate-limiter": _pyrate,
}


def _against_rivals(events: int, goal: float) -> list[Row]:
    subjects = {"kiki": _ours(events)} | {name: make(events) for name, make in RIVALS.items()}
    found = rates(subjects, {name: 100_000 if name == "kiki" else 3_000 for name in subjects})
    rows = [Row(f"decide, {events:,} events in the window: {name}", shown(rate)) for name, rate in found.items()]
    fastest = max(rate for name, rate in found.items() if name != "kiki")
    ratio = found["kiki"] / fastest
    rows.append(Row(f"ratio to the fastest rival at {events:,}", f"{ratio:.1f}x", f">= {goal:.0f}x", ratio >= goal))
    return rows


def _flat() -> list[Row]:
    events = rates({f"{count:,} events": _ours(count) for count in (10, 10_000, 1_000_000)}, 100_000, rounds=15)
    amounts = rates(
        {f"{text} a spend": _ours(10, parse_micros(text)) for text in ("0.01", "100", "1000000")}, 100_000, rounds=15
    )
    rows = []
    for name, found in (("events in the window", events), ("size of a spend", amounts)):
        spread = max(found.values()) / min(found.values()) - 1
        detail = ", ".join(f"{key} {shown(rate)}" for key, rate in found.items())
        rows.append(Row(f"cost over {name} ({detail})", f"{spread:.1%} spread", "<= 10 %", spread <= 0.10))
    return rows


def _memory() -> list[Row]:
    now = [0]
    meter = Meter(MeterRule.of("b", Limit(PLENTY, 60 * SECOND)))
    for _ in range(2_000):
        now[0] += SECOND // 10
        if now[0] >= meter.due:
            meter.advance(now[0])
        meter.charge(CENT)
    busy = sum(sys.getsizeof(part) for part in (meter, meter._ends, meter._sums, meter.room, meter.current))
    rows = [Row("memory of one busy scope (600 slots filled)", f"{busy / 1000:.1f} kB", "<= 16 kB", busy <= 16_000)]
    code = "from bench.decide import million; million()"
    million_scopes = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    rows.append(
        Row("memory of 1,000,000 live scopes", f"{million_scopes / 1e6:.0f} MB", "< 1 GB", million_scopes < 10**9)
    )
    return rows


def million() -> None:
    """Print how much this process grew for a million live scopes."""
    policy = Policy((Budget("each", Pattern("campaign:*"), (Limit(PLENTY, 3600 * SECOND),)),))
    window = LocalWindow(policy, steady_clock(), scopes_max=1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(1_000_000):
        if window.admit(CENT, (f"campaign:{number}",), window.clock()) is not None:
            raise AssertionError("a spend was refused")
    assert window.scope_count() == 1_000_000
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def run() -> list[Row]:
    """All rows of this part."""
    started = time.perf_counter()
    rows = [*_against_rivals(10, 3), *_against_rivals(100_000, 10), *_flat(), *_memory()]
    print(f"decide: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return rows
