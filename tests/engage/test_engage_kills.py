"""A real process killed at random moments while it sends: nothing twice, nobody forgotten, what is unknown is closed by webhook."""

from __future__ import annotations

from bench.engage_kills import AT_ONCE, rounds
from bench.engage_optouts import rounds as opt_outs


def test_nothing_goes_out_twice_and_nobody_is_forgotten():
    found = rounds(2_000, 6)
    assert found.kills == 6
    assert (found.duplicates, found.lost, found.wrong, found.open_after_words) == (0, 0, 0, 0)
    # Unknown is what the provider left open, and beside it only what a worker was sending when it was killed.
    unknown = found.states["unknown"]
    assert 0 < found.unanswered <= unknown <= found.unanswered + found.kills * AT_ONCE
    assert found.states["done"] >= found.accepted - found.unanswered - found.kills * AT_ONCE


def test_an_acknowledged_opt_out_stops_everything_that_is_not_claimed_yet():
    found = opt_outs(500, 4, 60)
    assert found.messages > 5
    assert found.opted_out > 10
    assert found.wrong == 0
