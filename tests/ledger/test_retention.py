"""When evidence may leave: by days, by the calendar, and never under a hold or before the archive has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.ledger.retention import SEVEN_YEARS_DAYS, kept_until, prunable
from kiki.ledger.segment import Segment

DAY = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(text):
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def moment(number):
    return EPOCH + timedelta(microseconds=number)


@pytest.mark.parametrize(
    ("recorded", "until", "days"),
    [
        ("2025-01-01T00:00:00", "2032-01-01T00:00:00", 2556),  # one leap day on the way: 2028
        ("2021-11-23T10:00:00.000001", "2028-11-23T10:00:00.000001", 2557),  # two: 2024 and 2028
        ("2022-03-01T00:00:00", "2029-03-01T00:00:00", 2557),
        ("2025-02-28T12:00:00", "2032-02-28T12:00:00", 2556),
        ("2025-03-01T12:00:00", "2032-03-01T12:00:00", 2557),
        ("2024-02-28T00:00:00", "2031-02-28T00:00:00", 2557),
        ("2024-02-29T00:00:00", "2031-03-01T00:00:00", 2557),  # no 29 February there: the day after, not before
        ("2024-02-29T23:59:59.999999", "2031-03-01T23:59:59.999999", 2557),
        ("2096-02-29T00:00:00", "2103-03-01T00:00:00", 2556),  # 2100 has no leap day
        ("2097-01-01T00:00:00", "2104-01-01T00:00:00", 2555),  # the one stretch without any
    ],
)
def test_seven_years_are_counted_by_the_calendar(recorded, until, days):
    at = micros(recorded)
    assert micros(until) == kept_until(at, SEVEN_YEARS_DAYS, seven_years=True)
    assert days * DAY == micros(until) - at


@pytest.mark.parametrize("days", [1, 30, 2554, 2555, 2556, 3650])
def test_without_the_seven_years_only_days_count(days):
    at = micros("2024-02-29T12:00:00")
    assert at + days * DAY == kept_until(at, days, seven_years=False)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)),
    st.integers(2555, 36_500),
)
def test_neither_the_days_nor_the_years_are_cut_short(recorded, days):
    """The later of the two rules: against dates, which a person would compare."""
    recorded = recorded.replace(tzinfo=UTC)
    until = moment(kept_until(micros(recorded.replace(tzinfo=None).isoformat()), days, seven_years=True))
    assert until - recorded >= timedelta(days=days)
    assert (until.year - 7, until.month, until.day) >= (recorded.year, recorded.month, recorded.day)
    assert until - recorded <= max(timedelta(days=days), timedelta(days=2557))


@given(st.integers(0, 7_000_000_000_000_000), st.integers(0, 10 * DAY), st.integers(1, 4000), st.booleans())
def test_what_came_later_is_kept_at_least_as_long(recorded, later, days, seven_years):
    assert kept_until(recorded, days, seven_years=seven_years) <= kept_until(
        recorded + later, days, seven_years=seven_years
    )


def chain(*stretches, shipped=True):
    """Segments of (first, last, age in days at `NOW`)."""
    return [
        Segment(chain="c", first=first, last=last, at=NOW - age * DAY, note=b"", shipped_at=int(shipped))
        for first, last, age in stretches
    ]


NOW = micros("2033-06-15T00:00:00")


def before(segments, days=30, *, first=0, hold=False, archived=True):
    return prunable(segments, NOW, days, first=first, hold=hold, archived=archived)


def test_nothing_leaves_before_its_time():
    assert before([]) is None
    assert before(chain((0, 999, 29))) is None
    assert 768 == before(chain((0, 999, 30)))


def test_what_leaves_are_whole_tiles_below_the_end_of_a_segment():
    assert before(chain((0, 254, 99))) is None
    assert 256 == before(chain((0, 255, 99)))
    assert 1024 == before(chain((0, 511, 99), (512, 1100, 99), (1101, 5000, 1)))
    assert before(chain((0, 300, 99)), first=256) is None


def test_under_a_legal_hold_nothing_leaves():
    assert before(chain((0, 999, 9999)), hold=True) is None


def test_nothing_leaves_that_the_archive_has_not_confirmed_nor_what_came_after():
    segments = [*chain((0, 511, 99)), *chain((512, 1023, 99), shipped=False), *chain((1024, 2047, 99))]
    assert 512 == before(segments)
    assert 2048 == before(segments, archived=False)


def test_a_gap_between_segments_stops_it():
    """What no segment holds was never archived."""
    assert 256 == before(chain((0, 255, 99), (512, 1023, 99)))
    assert before(chain((256, 1023, 99))) is None
    assert 1024 == before(chain((256, 1023, 99)), first=256)


def test_segments_that_left_already_do_not_matter():
    assert 1024 == before(chain((0, 511, 99), (512, 1023, 99)), first=512)
    assert 1024 == before(chain((0, 511, 99), (512, 1023, 99)), first=700)


def test_seven_years_hold_where_the_retention_is_as_long():
    """2,555 days are over one or two days before seven years are."""
    assert before(chain((0, 999, 2555)), 2555) is None
    assert before(chain((0, 999, 2556)), 2555) is None
    assert 768 == before(chain((0, 999, 2557)), 2555)
    assert 768 == before(chain((0, 999, 2554)), 2554)


@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(0, 5000), st.booleans()), max_size=12),
    st.integers(1, 4000),
    st.integers(0, 2000),
)
def test_what_leaves_is_past_its_retention_and_archived(stretches, days, first):
    start, age, segments = 0, 10_000, []
    for length, younger, shipped in stretches:
        age = max(age - younger, 0)
        segments += chain((start, start + length - 1, age), shipped=shipped)
        start += length
    end = before(segments, days, first=first)
    if end is None:
        return
    assert first < end <= start
    assert 0 == end % 256
    for segment in segments:
        if segment.first < end and segment.last >= first:
            assert segment.is_shipped
            assert kept_until(segment.at, days, seven_years=days >= 2555) <= NOW
