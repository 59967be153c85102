"""A creation that is delivered twice, on a platform that takes two campaigns of one name: one stays, the other is archived."""

from __future__ import annotations

import pytest

from kiki.flow.platform import CampaignState, Status
from tests.flow.test_lane import Case


def told(case: Case, event: str) -> list[dict[str, object]]:
    return [{**note.detail} for note in case.guard.notes.values() if note.event == event]


@pytest.mark.parametrize("kind", ["twice", "twice-first"])
def test_the_second_campaign_is_archived_before_anything_is_active(kind: str) -> None:
    case = Case(platform_faults=["ok", kind])
    result = case.run()

    case.check(result)
    assert "completed" == result["how"]
    [archived] = told(case, "flow.twin_archived")
    assert ("c-2", "done") == (archived["twin"], archived["fate"])
    assert "c-1" == result["campaign"]
    assert {str(day): 100_000_000 for day in case.days} == result["spent"]


@pytest.mark.parametrize("fault", ["throttled", "lost-before", "lost-after", "late"])
@pytest.mark.parametrize("kind", ["twice", "twice-first"])
@pytest.mark.parametrize("look", ["ok", "lost-before"])
def test_what_could_not_be_seen_or_archived_at_once_is_archived_later(kind: str, look: str, fault: str) -> None:
    case = Case(platform_faults=["ok", kind, look, fault, fault, fault])
    result = case.run()

    case.check(result)
    assert "completed" == result["how"]
    assert told(case, "flow.twin_archived")


@pytest.mark.parametrize("crash", range(0, 60, 2))
def test_a_death_in_between_leaves_no_second_campaign(crash: int) -> None:
    case = Case(platform_faults=["ok", "twice"], crashes=[crash, crash + 2])
    result = case.run()

    case.check(result)
    assert "completed" == result["how"]


@pytest.mark.parametrize("first_look", ["ok", "throttled"])
def test_campaigns_that_were_there_before_are_left_as_they_are(first_look: str) -> None:
    case = Case(platform_faults=[first_look])
    case.platform.state = CampaignState(
        id="c-1", name="kiki/spring/social", status=Status.PAUSED, daily_budget=100_000_000
    )
    theirs = CampaignState(id="c-7", name="kiki/spring/social", status=Status.PAUSED, daily_budget=70_000_000)
    case.platform.twin = theirs
    result = case.run()

    assert "completed" == result["how"]
    assert theirs == case.platform.twin
    assert [] == told(case, "flow.twin_archived")
    assert {str(day): 100_000_000 for day in case.days} == result["spent"]


def test_a_second_campaign_that_spends_is_told_and_left_to_people() -> None:
    case = Case()
    case.platform.state = CampaignState(
        id="c-1", name="kiki/spring/social", status=Status.PAUSED, daily_budget=100_000_000
    )
    case.platform.twin = CampaignState(id="c-7", name="kiki/spring/social", status=Status.ACTIVE)
    case.run()

    assert {"twin"} <= {each.get("found") for each in told(case, "flow.drift")}
    assert Status.ACTIVE is case.platform.twin.status
