"""A platform that makes a campaign in two steps, and whose answer is lost between them."""

from __future__ import annotations

import msgspec

from kiki.flow.platform import CampaignSpec
from kiki.outbound.outcome import Outcome, done, unknown
from tests.flow.test_lane import Case


def test_a_campaign_that_lacks_its_ad_set_is_completed_under_the_same_key() -> None:
    case = Case()
    platform, keys = case.platform, list[str]()
    make = platform.ensure_campaign

    async def in_two_steps(spec: CampaignSpec, key: str) -> Outcome:
        keys.append(key)
        if platform.state is None:
            await make(spec, key)
            assert platform.state is not None
            platform.state = msgspec.structs.replace(platform.state, whole=False)
            return unknown("timeout")
        platform.state = msgspec.structs.replace(platform.state, whole=True)
        return done(campaign=msgspec.to_builtins(platform.state))

    platform.ensure_campaign = in_two_steps  # type: ignore[method-assign]
    result = case.run()

    case.check(result)
    assert "completed" == result["how"]
    assert 2 == len(keys)
    assert 1 == len({*keys})
    assert platform.state is not None
    assert platform.state.whole
