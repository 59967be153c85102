from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.holdout import PARTS, Holdout, Split, draw, parse_share
from kiki.errors import InvalidInput

KEY = b"a key of at least sixteen bytes"
FIRST_DRAW = 17059326346477508199
FIRST_HELD = ["customer-0", "customer-20", "customer-41"]
PERSONS = [f"customer-{number}" for number in range(40_000)]


@pytest.mark.parametrize(
    ("given_", "parts"),
    [("0.05", 50_000), ("5%", 50_000), (" 5 % ", 50_000), (0.05, 50_000), (1, PARTS), ("0", 0), ("0.000001", 1)],
)
def test_a_share_is_read_as_people_write_it(given_: object, parts: int):
    assert parse_share(given_) == parts


@pytest.mark.parametrize(
    "given_", ["", "five", "-0.1", "1.1", "101%", "0.0000001", None, True, "NaN", "1e400", "9" * 99]
)
def test_what_is_no_share_is_refused(given_: object):
    with pytest.raises(InvalidInput, match="write a share"):
        parse_share(given_)


@pytest.mark.parametrize("parts", [0, 10_000, 50_000, 500_000, PARTS])
def test_as_many_are_held_out_as_was_said(parts: int):
    held = sum(Holdout(KEY, parts).holds(person) for person in PERSONS)
    share = parts / PARTS
    deviation = (len(PERSONS) * share * (1 - share)) ** 0.5
    assert abs(held - len(PERSONS) * share) <= 4 * deviation


@given(person=st.text(max_size=40), less=st.integers(0, PARTS), more=st.integers(0, PARTS))
def test_a_larger_share_keeps_whoever_was_held_out(person: str, less: int, more: int):
    less, more = sorted((less, more))
    assert Holdout(KEY, more).holds(person) >= Holdout(KEY, less).holds(person)


def test_a_holdout_is_the_same_in_every_process_and_version():
    """Written down once: whoever changes the hash moves people out of the holdouts that run."""
    assert draw(KEY, "global", "customer-1") == FIRST_DRAW
    assert [person for person in PERSONS[:60] if Holdout(KEY, 50_000).holds(person)] == FIRST_HELD


def test_playbooks_the_world_and_other_keys_draw_independently():
    sides = [
        [holdout.holds(person) for person in PERSONS]
        for holdout in (
            Holdout(KEY, 500_000),
            Holdout.of_playbook(KEY, 500_000, "winback"),
            Holdout.of_playbook(KEY, 500_000, "welcome"),
            Holdout(KEY + b"!", 500_000),
        )
    ]
    for first in range(len(sides)):
        for second in range(first):
            same = sum(a == b for a, b in zip(sides[first], sides[second], strict=True))
            assert abs(same - len(PERSONS) / 2) <= 4 * (len(PERSONS) / 4) ** 0.5


def test_arms_get_their_shares():
    split = Split(KEY, "subject line", {"none": 200_000, "a": 500_000, "b": 300_000})
    found = Counter(split.arm_of(person) for person in PERSONS)
    for arm in split.shares:
        share = split.propensity(arm)
        assert abs(found[arm] - len(PERSONS) * share) <= 4 * (len(PERSONS) * share * (1 - share)) ** 0.5


def test_an_arm_without_a_share_gets_nobody():
    split = Split(KEY, "x", {"a": 0, "b": PARTS, "c": 0})
    assert {split.arm_of(person) for person in PERSONS[:2000]} == {"b"}


@pytest.mark.parametrize("shares", [{}, {"a": PARTS - 1}, {"a": -1, "b": PARTS + 1}])
def test_shares_that_are_not_the_whole_are_refused(shares: dict[str, int]):
    with pytest.raises(InvalidInput, match="add up"):
        Split(KEY, "x", shares)


def test_a_short_key_is_refused():
    with pytest.raises(InvalidInput, match="at least 16 bytes"):
        Holdout(b"short", 1).holds("customer-1")


def test_a_holdout_does_not_print_its_key():
    assert "key" not in repr(Holdout(KEY, 50_000))
