"""Real runners killed, frozen and taken over in the middle of a plan: the platforms' own books say that nothing was lost or doubled.

`python -m bench flow_kills` does two thousand of the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.flow.killed_flows import Verdict, killed, zombies
from tests.servers import PostgresServer

AT_ONCE = 4
FAULTS, STEPS = 20, 200
"""What has to have happened in a plan, on average, or little was tried."""


def tried(plan: Callable[[int], Verdict], deaths: int, at_once: int = 1) -> Verdict:
    """One plan after the other, or several at once, until so many runners were killed or frozen and enough went on meanwhile.

    How much goes on in one plan's time is up to the machine.
    """
    sum_ = Verdict()
    with ThreadPoolExecutor(at_once) as pool:
        for seed in range(7, 7 + 3 * at_once, at_once):
            for verdict in pool.map(plan, range(seed, seed + at_once)):
                sum_ += verdict
            enough = sum_.faults > FAULTS * at_once and sum_.steps > STEPS * at_once
            if enough and sum_.kills + sum_.stops > deaths:
                return sum_
    raise AssertionError(f"too little happened: {sum_}")


def clean(verdict: Verdict) -> None:
    found = (verdict.double_effects, verdict.lost, verdict.leaked, verdict.over)
    assert (0, 0, 0, 0) == found, verdict.problems


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_plans_on_eight_platforms_whose_runner_is_killed_again_and_again(tmp_path: Path):
    """Two hundred kills, over four plans at once: each mostly waits for its simulated days."""

    def plan(seed: int) -> Verdict:
        folder = tmp_path / str(seed)
        folder.mkdir()
        return killed(folder, seed, 50)

    clean(tried(plan, 120, AT_ONCE))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_runner_that_wakes_up_after_a_takeover_changes_nothing(tmp_path: Path, postgres_server: PostgresServer):
    def plan(seed: int) -> Verdict:
        folder = tmp_path / str(seed)
        folder.mkdir()
        return zombies(folder, seed, 2, store=postgres_server.new_database(), day_seconds=4.0)

    clean(tried(plan, 0))
