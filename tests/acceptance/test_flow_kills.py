"""Real runners killed, frozen and taken over in the middle of a plan: the platforms' own books say that nothing was lost or doubled.

`python -m bench flow_kills` does two thousand of the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.flow.killed_flows import Verdict, killed, zombies


def clean(verdict: Verdict) -> None:
    found = (verdict.double_effects, verdict.lost, verdict.leaked, verdict.over)
    assert (0, 0, 0, 0) == found, verdict.problems
    assert verdict.faults > 20
    assert verdict.steps > 200


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_plans_on_eight_platforms_whose_runner_is_killed_again_and_again(tmp_path: Path):
    """Two hundred kills, over four plans at once: each mostly waits for its simulated days."""

    def one(seed: int) -> Verdict:
        folder = tmp_path / str(seed)
        folder.mkdir()
        return killed(folder, seed, 50)

    with ThreadPoolExecutor(4) as pool:
        verdicts = [*pool.map(one, range(7, 11))]
    for verdict in verdicts:
        clean(verdict)
    assert sum(verdict.kills for verdict in verdicts) > 120


@pytest.mark.slow
def test_a_runner_that_wakes_up_after_a_takeover_changes_nothing(tmp_path: Path, postgres: str):
    verdict = zombies(tmp_path, 11, 2, store=postgres, day_seconds=4.0)
    clean(verdict)
    assert verdict.stops > 0
