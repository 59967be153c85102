"""Statutory clocks: the vectors that an auditor would check by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.shield.deadline import (
    DAY,
    Due,
    Pause,
    Regime,
    WorkCalendar,
    answer_due,
    deadlines,
    extension_until,
    months_on,
    parse_regimes,
    stops_the_clock,
)
from kiki.shield.holiday_calendar import calendars_of

GDPR, CCPA = Regime.GDPR, Regime.CCPA
GERMANY = calendars_of("DE", "Europe/Berlin")
CALIFORNIA = calendars_of("US-CA", "America/Los_Angeles")


def at(text: str, zone: str = "UTC") -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def day_of(found, regime: Regime, due: Due = Due.ANSWER) -> str:
    return next(one.day for one in found if one.regime is regime and one.due is due)


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-01-31T12:00", "2026-03-02"),  # 28 February is a Saturday
        ("2028-01-31T12:00", "2028-02-29"),  # a leap year, a Tuesday
        ("2027-01-31T12:00", "2027-03-01"),  # 28 February is a Sunday
        ("2028-02-29T00:00", "2028-03-29"),
        ("2026-03-31T23:59", "2026-04-30"),
        ("2026-04-22T09:00", "2026-05-22"),
        ("2026-12-15T09:00", "2027-01-15"),
    ],
)
def test_gdpr_is_one_calendar_month(received: str, expected: str):
    assert expected == day_of(deadlines([GDPR], at(received), at(received)), GDPR)


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-11-25T12:00", "2026-12-28"),  # Christmas on Friday and Saturday, then a Sunday
        ("2026-03-03T12:00", "2026-04-07"),  # Good Friday to Easter Monday
        ("2025-12-01T12:00", "2026-01-02"),  # New Year
    ],
)
def test_a_last_day_that_is_a_holiday_moves_to_the_next_working_day(received: str, expected: str):
    found = deadlines([GDPR], at(received, "Europe/Berlin"), at(received, "Europe/Berlin"), calendars=GERMANY)
    assert expected == day_of(found, GDPR)
    assert any("1182/71" in one.rule for one in found)


def test_the_day_is_that_of_the_time_zone_and_ends_with_its_last_microsecond():
    # 23:30 in UTC is the next day in Berlin.
    received = at("2026-06-09T23:30")
    (extend, answer) = deadlines([GDPR], received, received, calendars=GERMANY)
    assert ("2026-07-10", "Europe/Berlin", "DE") == (answer.day, answer.zone, answer.country)
    assert at("2026-07-11T00:00", "Europe/Berlin") - 1 == answer.at
    assert {Due.EXTEND, Due.ANSWER} == {extend.due, answer.due}


def test_a_month_that_loses_an_hour_ends_at_midnight_all_the_same():
    received = at("2026-03-10T12:00", "Europe/Berlin")
    assert at("2026-04-11T00:00", "Europe/Berlin") - 1 == answer_due(
        deadlines([GDPR], received, received, calendars=GERMANY)
    )


def test_an_extension_makes_it_three_months_from_receipt():
    received = at("2026-01-31T12:00")
    found = deadlines([GDPR], received, received, extended=[GDPR])
    assert "2026-04-30" == day_of(found, GDPR)
    assert extension_until(found, GDPR) is None


def test_a_pause_moves_the_day_by_whole_days():
    received = at("2026-06-01T12:00")
    paused = Pause(received + DAY, received + 6 * DAY + DAY // 2)
    assert "2026-07-06" == day_of(deadlines([GDPR], received, received + 20 * DAY, pauses=[paused]), GDPR)


def test_a_pause_that_lasts_moves_the_day_on_and_says_so():
    received = at("2026-06-01T12:00")
    for days, expected in ((2, "2026-07-01"), (3, "2026-07-02"), (10, "2026-07-09")):
        found = deadlines([GDPR], received, received + days * DAY, pauses=[Pause(received + 2 * DAY)])
        assert all(one.is_paused for one in found)
        assert expected == day_of(found, GDPR)


def test_identity_asked_for_late_stops_no_clock():
    received = at("2026-06-01T12:00")  # a Monday: Thursday is the third working day after it
    assert stops_the_clock(received, Pause(at("2026-06-04T23:59")))
    late = Pause(at("2026-06-05T00:00"), at("2026-06-20T00:00"))
    assert not stops_the_clock(received, late)
    assert "2026-07-01" == day_of(deadlines([GDPR], received, received + 30 * DAY, pauses=[late]), GDPR)


def test_overlapping_pauses_count_once():
    received = at("2026-06-01T12:00")
    pauses = [Pause(received, received + 4 * DAY), Pause(received + DAY, received + 5 * DAY)]
    assert "2026-07-06" == day_of(deadlines([GDPR], received, received + 9 * DAY, pauses=pauses), GDPR)


def test_ccpa_answers_within_45_days_however_long_verification_takes():
    received = at("2026-06-01T12:00")
    found = deadlines([CCPA], received, received, pauses=[Pause(received, received + 30 * DAY)])
    assert ("2026-06-15", "2026-07-16") == (day_of(found, CCPA, Due.CONFIRM), day_of(found, CCPA))
    longer = deadlines([CCPA], received, received, extended=[CCPA])
    assert "2026-08-30" == day_of(longer, CCPA)  # 90 days, a Sunday: calendar days do not move


def test_ccpa_business_days_leave_out_holidays():
    received = at("2026-06-25T12:00", "America/Los_Angeles")
    found = deadlines([CCPA], received, received, calendars=CALIFORNIA)
    # 3 July 2026 is observed for the Saturday after it.
    assert "2026-07-10" == day_of(found, CCPA, Due.CONFIRM)


def test_an_opt_out_has_15_business_days():
    received = at("2026-06-01T12:00")
    (only,) = deadlines([CCPA], received, received, opts_out=True)
    assert ("2026-06-22", Due.ANSWER) == (only.day, only.due)


def test_both_regimes_on_one_request_each_keep_their_clock_and_the_earliest_counts():
    received = at("2026-06-01T12:00")
    pauses = [Pause(received, received + 20 * DAY)]
    found = deadlines([GDPR, CCPA], received, received + 21 * DAY, pauses=pauses)
    assert ("2026-07-21", "2026-07-16") == (day_of(found, GDPR), day_of(found, CCPA))
    assert at("2026-07-17T00:00") - 1 == answer_due(found)


def test_holidays_of_one_country_move_only_its_own_law():
    assert GERMANY[GDPR].is_holiday(date(2026, 12, 25))
    assert not GERMANY[CCPA].is_holiday(date(2026, 12, 25))
    assert CALIFORNIA[CCPA].is_holiday(date(2026, 12, 25))
    assert not CALIFORNIA[GDPR].is_holiday(date(2026, 12, 25))


@pytest.mark.parametrize(("country", "zone"), [("XX", "UTC"), ("DE-ZZ", "UTC"), ("DE", "Mars/Olympus")])
def test_an_unknown_country_or_zone_is_refused(country: str, zone: str):
    with pytest.raises(InvalidInput):
        calendars_of(country, zone)


@pytest.mark.parametrize("given", [[], ["lgpd"], [7], ["gdpr", None]])
def test_regimes_that_are_none_are_refused_with_the_list(given: list[object]):
    with pytest.raises(InvalidInput, match="gdpr, ccpa"):
        parse_regimes(given)


def test_cpra_is_ccpa():
    assert (CCPA, GDPR) == parse_regimes(["CPRA", "gdpr", "ccpa"])


MOMENTS = st.integers(at("2000-01-01T00:00"), at("2090-01-01T00:00"))


@given(received=MOMENTS, zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Kiritimati"]))
def test_every_clock_ends_on_a_working_day_later_than_27_days_and_never_before_an_unextended_one(received, zone):
    days = WorkCalendar(ZoneInfo(zone), zone)
    calendars = {GDPR: days, CCPA: days}
    plain = deadlines([GDPR, CCPA], received, received, calendars=calendars)
    longer = deadlines([GDPR, CCPA], received, received, calendars=calendars, extended=[GDPR, CCPA])
    answer = next(one for one in plain if one.regime is GDPR and one.due is Due.ANSWER)
    assert date.fromisoformat(answer.day).weekday() < 5
    assert 27 * DAY < answer.at - received <= 34 * DAY + DAY // 24  # a month may hold the night of 25 hours
    assert answer_due(plain) < answer_due(longer)


@given(received=MOMENTS, since=st.integers(0, 5 * DAY), span=st.integers(0, 60 * DAY), later=st.integers(0, 90 * DAY))
def test_a_pause_never_brings_a_day_forward_and_never_gives_more_than_it_lasted(received, since, span, later):
    pause = Pause(received + since, received + since + span)
    plain = answer_due(deadlines([GDPR], received, received))
    moved = answer_due(deadlines([GDPR], received, received + later, pauses=[pause]))
    # At most the weekend on top of what stood still.
    assert plain - 3 * DAY < moved <= plain + span + 3 * DAY


@given(st.dates(date(2000, 1, 1), date(2090, 1, 1)), st.integers(0, 40))
def test_months_on_keeps_the_number_of_the_day_or_the_months_end(day: date, months: int):
    later = months_on(day, months)
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == months
    assert later.day == day.day or (later + timedelta(days=1)).day == 1
