"""A write that is refused for a while is said again when the platform listens, not later."""

from __future__ import annotations

from itertools import pairwise

from kiki.outbound.outcome import Outcome, refused
from tests.flow.test_lane import DAY, Case


def test_a_pause_that_is_throttled_for_seconds_is_said_again_after_seconds() -> None:
    case = Case()
    platform, asked = case.platform, list[int]()
    pause = platform.pause

    async def throttled_once(campaign: str, key: str) -> Outcome:
        asked.append(case.time.now())
        if len(asked) == 1:
            return refused("throttled", retry_at=case.time.now() + 30_000_000)
        return await pause(campaign, key)

    platform.pause = throttled_once  # type: ignore[method-assign]
    result = case.run()

    case.check(result)
    assert 2 == len(asked)
    assert 30_000_000 == asked[1] - asked[0]


def test_a_platform_that_always_says_soon_is_not_asked_without_pause() -> None:
    case = Case()
    platform, asked = case.platform, list[int]()
    resume = platform.resume

    async def always_soon(campaign: str, key: str) -> Outcome:
        asked.append(case.time.now())
        if len(asked) < 50:
            return refused("throttled", retry_at=case.time.now())
        return await resume(campaign, key)

    platform.resume = always_soon  # type: ignore[method-assign]
    result = case.run()

    case.check(result)
    assert all(later - earlier >= DAY * 0.005 / 24 - 1 for earlier, later in pairwise(asked))
