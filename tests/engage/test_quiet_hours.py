from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.playbook import QuietHours
from kiki.engage.quiet_hours import (
    EVERYWHERE,
    STEP,
    calendar_start,
    is_quiet,
    minute_of_day,
    next_loud,
    plausible_zones,
    zone_named,
)
from kiki.engage.zones import zones_by_country

NIGHT = QuietHours(21 * 60, 8 * 60)


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("moment", "zone", "quiet"),
    [
        ("2026-06-01T20:59+02:00", "Europe/Vienna", False),
        ("2026-06-01T21:00+02:00", "Europe/Vienna", True),
        ("2026-06-02T07:59+02:00", "Europe/Vienna", True),
        ("2026-06-02T08:00+02:00", "Europe/Vienna", False),
        # The clocks went from 2:00 to 3:00 that night, and back from 3:00 to 2:00 in the autumn.
        ("2026-03-29T06:00+00:00", "Europe/Vienna", False),
        ("2026-03-29T05:59+00:00", "Europe/Vienna", True),
        ("2026-10-25T07:00+00:00", "Europe/Vienna", False),
        ("2026-10-25T06:59+00:00", "Europe/Vienna", True),
    ],
)
def test_it_is_quiet_by_the_clock_on_the_person_s_wall(moment, zone, quiet):
    assert is_quiet(NIGHT, micros(moment), [zone]) is quiet


def test_quiet_hours_inside_the_hour_that_is_missing_end_after_it():
    """02:00 to 02:30 does not exist on that day: nobody waits for a time that never comes."""
    quiet = QuietHours(60, 150)
    at = micros("2026-03-29T00:30+00:00")  # 1:30 in Vienna; the clock jumps from 1:59 to 3:00
    assert is_quiet(quiet, at, ["Europe/Vienna"])
    assert next_loud(quiet, at, ["Europe/Vienna"]) == micros("2026-03-29T01:00+00:00")


def test_an_hour_that_comes_twice_is_quiet_both_times():
    quiet = QuietHours(120, 180)
    begins, ends = micros("2026-10-25T00:00+00:00"), micros("2026-10-25T02:00+00:00")
    assert next_loud(quiet, begins, ["Europe/Vienna"]) == ends


def test_who_has_no_zone_is_disturbed_only_when_it_is_loud_wherever_they_may_be():
    american = plausible_zones("", "US", "", zones_by_country())
    assert "America/New_York" in american
    assert "Pacific/Honolulu" in american
    noon_in_new_york = micros("2026-06-01T16:00+00:00")
    assert is_quiet(NIGHT, noon_in_new_york, american)
    loud = next_loud(NIGHT, noon_in_new_york, american)
    assert loud is not None
    assert all(not NIGHT.holds(minute_of_day(loud, zone)) for zone in american)


def test_a_playbook_s_zone_does_not_move_people_into_another_country():
    by_country = zones_by_country()
    assert plausible_zones("", "AT", "America/New_York", by_country) == ("Europe/Vienna",)
    assert plausible_zones("", "US", "America/New_York", by_country) == ("America/New_York",)
    assert plausible_zones("", "", "America/New_York", by_country) == ("America/New_York",)
    assert plausible_zones("", "US", "US/Eastern", by_country) == ("US/Eastern",)
    assert plausible_zones("", "AT", "Europe/Berlin", by_country) == ("Europe/Berlin",)
    assert plausible_zones("", "AT", "Africa/Algiers", by_country) == ("Europe/Vienna",)
    seven_in_new_york = micros("2026-11-29T23:00+00:00")
    assert is_quiet(NIGHT, seven_in_new_york, plausible_zones("", "AT", "America/New_York", by_country))


def test_somewhere_on_earth_it_is_always_night():
    assert next_loud(NIGHT, micros("2026-06-01T12:00+00:00"), EVERYWHERE) is None


@pytest.mark.parametrize(
    "zone", ["Mars/Phobos", "", "../../etc/passwd", "Europe/Vienna\n", "x" * 500, "/etc/localtime"]
)
def test_a_zone_that_is_none_is_unknown(zone):
    assert zone_named(zone) is None
    assert plausible_zones(zone, "", "Europe/Vienna", {}) == ("Europe/Vienna",)
    assert plausible_zones(zone, "AT", "", {"AT": ("Europe/Vienna",)}) == ("Europe/Vienna",)
    assert plausible_zones(zone, "", "", {}) == EVERYWHERE


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["Europe/Vienna", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago"]),
    st.integers(0, 1439),
    st.integers(0, 1439),
)
def test_the_next_loud_moment_is_loud_and_none_before_it_is(moment, zone, begins, ends):
    quiet, at = QuietHours(begins, ends), round(moment.timestamp() * 1e6)
    loud = next_loud(quiet, at, [zone])
    if loud is None:
        # Somebody is loud for some minutes a day that no quarter of an hour begins in: then they are left alone.
        assert 0 < (begins - ends) % 1440 < 15
        return
    assert not is_quiet(quiet, loud, [zone])
    if loud != at:
        before = loud - loud % STEP - STEP
        assert before <= at or is_quiet(quiet, before, [zone])


@pytest.mark.parametrize(
    ("calendar", "expected"), [("day", "2026-06-03"), ("week", "2026-06-01"), ("month", "2026-06-01")]
)
def test_a_calendar_span_begins_where_the_person_is(calendar, expected):
    zone = ZoneInfo("Pacific/Auckland")
    at = micros("2026-06-03T00:30+12:00")
    begin = datetime.fromtimestamp(calendar_start(at, calendar, "Pacific/Auckland") / 1e6, zone)
    assert begin.isoformat() == f"{expected}T00:00:00+12:00"
