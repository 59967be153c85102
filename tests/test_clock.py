"""A guard's clock only moves forward, whatever happens to the wall clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.clock import SECOND, steady_clock, to_datetime, to_iso, wall_micros

YEAR_2100 = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * SECOND


class Machine:
    """Stands for the machine's two clocks: one that can be set, one that only counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.since_boot = 1_700_000_000 * 10**9, 5 * 10**9
        monkeypatch.setattr(time, "time_ns", lambda: self.wall)
        monkeypatch.setattr(time, "clock_gettime_ns", lambda _: self.since_boot)

    def passes(self, nanos: int) -> None:
        self.wall += nanos
        self.since_boot += nanos


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_the_wall_clock_counts_microseconds():
    before = time.time_ns() // 1000
    assert before <= wall_micros() <= time.time_ns() // 1000


def test_it_starts_at_the_wall_time(machine: Machine):
    assert steady_clock()() == 1_700_000_000 * SECOND
    assert steady_clock(not_before=1)() == 1_700_000_000 * SECOND


def test_it_starts_at_not_before_when_the_wall_is_behind(machine: Machine):
    now = steady_clock(not_before=YEAR_2100)
    assert now() == YEAR_2100
    machine.passes(3 * 10**9)
    assert now() == YEAR_2100 + 3 * SECOND


@pytest.mark.parametrize("step", [-(10**18), -(10**9), -1, 10**9, 10**18])
def test_a_step_of_the_wall_does_not_reach_it(machine: Machine, step: int):
    now = steady_clock()
    before = now()
    machine.wall += step
    assert now() == before
    machine.passes(2 * 10**9)
    assert now() == before + 2 * SECOND


def test_less_than_a_microsecond_is_kept_until_it_is_one(machine: Machine):
    now = steady_clock()
    before = now()
    for _ in range(2000):
        machine.passes(1)
    assert now() == before + 2


def test_the_real_one_never_goes_backwards():
    now = steady_clock()
    moments = [now() for _ in range(20_000)]
    assert moments == sorted(moments)
    assert abs(now() - wall_micros()) < 10 * SECOND


def test_two_clocks_in_a_row_do_not_go_back():
    first = steady_clock(YEAR_2100)
    last = first()
    assert steady_clock(last)() >= last


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (999_999, "1970-01-01T00:00:00.999999Z"),
        (1_795_341_600_000_001, "2026-11-22T10:00:00.000001Z"),
        (951_782_400 * SECOND, "2000-02-29T00:00:00.000000Z"),
    ],
)
def test_a_moment_is_written_in_utc_with_microseconds(micros: int, text: str):
    assert to_iso(micros) == text


@given(st.integers(0, YEAR_2100))
def test_a_moment_comes_back_from_its_text(micros: int):
    moment = datetime.fromisoformat(to_iso(micros))
    assert moment == to_datetime(micros)
    assert moment.tzinfo == UTC
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert (since.days * 86_400 + since.seconds) * SECOND + since.microseconds == micros


@given(st.lists(st.integers(0, YEAR_2100), min_size=2))
def test_texts_sort_as_moments_do(moments: list[int]):
    assert [to_iso(moment) for moment in sorted(moments)] == sorted(to_iso(moment) for moment in moments)
