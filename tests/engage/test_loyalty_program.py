from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.loyalty_account import Entry, Kind
from kiki.engage.loyalty_program import DAY, Program, ProgramError, Standing, Tier, read_program, standing

TIERS = (Tier("bronze", 100), Tier("silver", 200), Tier("gold", 400))
PROGRAM = Program(tiers=TIERS, period=100 * DAY, keep=50 * DAY)


def earned(*given: tuple[int, int]) -> list[Entry]:
    return [Entry(place, Kind.EARN, points, day * DAY) for place, (day, points) in enumerate(given, start=1)]


def test_a_tier_is_reached_at_once_and_says_what_is_missing_to_the_next():
    assert standing(PROGRAM, earned((1, 150)), DAY) == Standing("bronze", 150, 51 * DAY, "bronze", "silver", 50)
    assert standing(PROGRAM, [], DAY) == Standing(None, 0, None, None, "bronze", 100)
    assert standing(PROGRAM, earned((1, 500)), DAY)[-2:] == (None, None)


def test_a_tier_that_is_not_earned_again_falls_at_its_review():
    """Gold is earned on day 1 and, with what came then, again on day 90: it is looked at on day 140, and 120 are left."""
    history = earned((1, 450), (90, 120))
    assert standing(PROGRAM, history, 139 * DAY).tier == "gold"
    assert standing(PROGRAM, history, 139 * DAY).projected == "bronze"
    assert standing(PROGRAM, history, 140 * DAY).tier == "bronze"
    assert standing(PROGRAM, history, 190 * DAY).tier is None
    steps = PROGRAM._replace(steps=True)
    assert [standing(steps, history, day * DAY).tier for day in (139, 140, 190, 240)] == [
        "gold",
        "silver",
        "bronze",
        None,
    ]


def test_to_earn_a_tier_again_keeps_it_longer():
    assert standing(PROGRAM, earned((1, 100), (40, 100)), 41 * DAY).until == 90 * DAY


def test_what_was_taken_back_does_not_count_and_what_was_spent_does():
    history = earned((1, 150), (2, 100))
    history += [Entry(3, Kind.SPEND, -250, 3 * DAY), Entry(4, Kind.REFUND, -100, 3 * DAY, about=2)]
    found = standing(PROGRAM, history, 4 * DAY)
    assert (found.tier, found.earned) == ("bronze", 150)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), max_size=12), st.integers(0, 400))
def test_a_standing_is_plausible_whatever_was_earned(moves: list[tuple[int, int]], day: int):
    history = earned(*sorted(moves))
    found = standing(PROGRAM, history, day * DAY)
    names = [None, *(tier.name for tier in TIERS)]
    counted = sum(points for at, points in moves if day - 100 < at <= day)
    assert found.earned == counted
    reached = max((place for place, tier in enumerate(TIERS, start=1) if counted >= tier.points), default=0)
    if any(at == day for at, _ in moves):
        assert names.index(found.tier) >= reached
    assert found.until is None or found.until > day * DAY
    assert (found.tier is None) == (found.until is None)
    assert names.index(found.projected) <= names.index(found.tier)


def test_a_program_is_read_as_people_write_it():
    assert read_program("") == Program()
    text = """
points_per_unit: 0.5
pending_days: 14
expiry_days: never
grace_days: 0
hold_minutes: 5
tiers:
  - {name: silver, points: 500}
  - {name: gold, points: 2000, multiplier: 1.5}
tier_rules: {period_days: 365, keep_days: 90, downgrade: step}
"""
    found = read_program(text)
    assert found.tiers == (Tier("silver", 500), Tier("gold", 2000, Fraction(3, 2)))
    assert (found.expiry, found.pending, found.grace, found.steps) == (None, 14 * DAY, 0, True)
    assert (found.points_for(19_990_000), found.points_for(19_990_000, "gold")) == (9, 14)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("points_per_unit: -1", "line 1: 'points_per_unit' is '-1'"),
        ("points_per_unit: 1/2", "above 0"),
        ("expiry_days: 0", "from 1 to 36500 or never"),
        ("expiry: 5", "expiry_days"),
        ("tiers: [{name: a}]", "no points"),
        ("tiers:\n- {name: a, points: 5}\n- {name: b, points: 5}", "line 3: the tier 'b' needs no more points"),
        ("tiers:\n- {name: a, points: 5}\n- {name: a, points: 6}", "two tiers 'a'"),
        ("tier_rules: {downgrade: never}", "drop .*or step"),
        ("tier_rules: 5", "tier_rules"),
        ("- 1", "loyalty program is a list"),
        ("a: [", "not YAML"),
    ],
)
def test_every_mistake_is_named_by_its_line(text: str, why: str):
    with pytest.raises(ProgramError, match=why):
        read_program(text)


@given(st.text(max_size=200))
def test_whatever_is_written_is_read_or_refused(text: str):
    with contextlib.suppress(ProgramError):
        read_program(text)
