"""Two campaigns of one name, where a platform lets that be: what spends is never overlooked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kiki.flow.platform import Status
from tests.flow.test_platform_contract import CASES, KEY, NAME, campaign, made, spec

SHARED = ("google_ads", "meta", "tiktok", "linkedin", "x")


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize(
    ("older", "newer", "counts", "living"),
    [
        (Status.PAUSED, Status.PAUSED, 0, 2),
        (Status.PAUSED, Status.ACTIVE, 1, 2),
        (Status.ACTIVE, Status.PAUSED, 0, 2),
        (Status.ENDED, Status.PAUSED, 1, None),
        (Status.ENDED, Status.ENDED, 0, None),
        (Status.ACTIVE, Status.ACTIVE, 0, 2),
    ],
)
async def test_what_spends_counts_then_what_may_then_the_oldest(
    name: str, older: Status, newer: Status, counts: int, living: int | None
) -> None:
    async with CASES[name]() as fake:
        platform = fake.open()
        try:
            first = await made(platform, fake)
            twin = replace(fake.campaigns[first.id], id="99999999", more=dict(fake.campaigns[first.id].more))
            fake.campaigns[twin.id] = twin
            fake.campaigns[first.id].status, twin.status = older, newer
            found = await platform.lookup(NAME)
            assert [first.id, twin.id][counts] == campaign(found).id
            twins = found.value.get("twins", [])
            other = [twin.id, first.id][counts]
            assert [other] * (living == 2) == [each["id"] for each in twins]
            assert [each["status"] for each in twins] == [fake.campaigns[each["id"]].status for each in twins]
            await platform.ensure_campaign(spec(fake), KEY)
            assert 2 == len(fake.campaigns)
        finally:
            await platform.close()
