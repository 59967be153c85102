"""Splits that learn, in a shop with a real guard and books on both databases' tables."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.engage.event import Order, Touch, TouchKind
from kiki.engage.holdout import PARTS
from kiki.engage.learning_split import learning
from kiki.engage.playbook_schema import playbook_schema
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.shield_line import GuardLine
from kiki.errors import PlaybookError
from tests.engage.conftest import DAY
from tests.engage.test_retention_engine import NOON, TEXT, Shop

STEPS = """
      - name: tone
        learn: thompson
        floor: 10%
        split:
          - {steps: [{send: ten, name: warm}]}
          - {steps: [{send: again, name: brisk}]}
"""


def text(steps: str = STEPS, goal: str = "{event: order, within: 7d}") -> str:
    head = TEXT[: TEXT.index("      - {send: ten")].replace("    exit:", f"    goal: {goal}\n    exit:")
    return head + steps


class Telling(GuardLine):
    """Remembers which notes were written."""

    def __init__(self, guard) -> None:
        super().__init__(guard)
        self.told = []

    def note(self, notes):
        super().note(notes)
        self.told += notes


def shop_of(shield=None, **options) -> Shop:
    return Shop(text(**options), customers=0, limit="1000000", holdout=0, shield=shield)


def arrive(shop: Shop, first: int, count: int) -> None:
    profiles = [
        Profile(customer=f"n-{number:05}", email=f"{number}@example.com", last_purchase=shop.clock() - 70 * DAY)
        for number in range(first, first + count)
    ]
    shop.store.keep("shop", profiles)
    for profile in profiles:
        shop.guard.consents.grant(profile.customer, "marketing")


def ways(shop: Shop) -> dict[str, tuple[int, int, int]]:
    journey = shop.playbook.journeys[0]
    (step,) = learning(journey)
    return {p: (way, share, at) for p, way, share, at in shop.engine.book.ways(f"book/win-back/{step.name}")}


def shares(shop: Shop) -> tuple[int, ...]:
    journey = shop.playbook.journeys[0]
    return shop.engine._splits.today(shop.playbook, journey, learning(journey)[0]).shares


@pytest.mark.parametrize("reward", ["margin", "goal"])
def test_the_better_way_gets_most_the_other_keeps_its_floor_and_nobody_changes(reward):
    goal = "{event: clicked, within: 7d}" if reward == "goal" else "{event: order, within: 7d}"
    shop = shop_of(steps=STEPS.replace("floor: 10%", f"floor: 10%\n        reward: {reward}"), goal=goal)
    chance, drawn, seen = Random(1), {}, []
    for week in range(4):
        arrive(shop, week * 150, 150)
        shop.run()
        seen.append(shares(shop))
        now = ways(shop)
        assert drawn.items() <= now.items()  # sticky
        for person in now.keys() - drawn.keys():
            way, share, _ = now[person]
            assert share == seen[-1][way]  # the chance that was kept is the one of that day
            if chance.random() < (0.15, 0.45)[way]:
                customer = shop.store.profile_of(person).customer
                at = shop.clock() + DAY
                told = (
                    Touch(id=f"t-{person}", customer=customer, at=at, kind=TouchKind.CLICKED)
                    if reward == "goal"
                    else Order(id=f"o-{person}", customer=customer, at=at, amount=40_000_000)
                )
                shop.store.keep("s", [told])
        drawn = now
        shop.clock.advance(8 * DAY)
    assert seen[0] == (500_000, 500_000)
    assert seen[-1][1] > 850_000
    assert all(min(each) >= 100_000 and sum(each) == PARTS for each in seen)
    held = {shop.store.person(f"n-{n:05}") for n in range(600) if shop.engine.is_held_out(shop.playbook, f"n-{n:05}")}
    assert held
    assert not held & ways(shop).keys()
    sent = Counter(message.customer for message in shop.mails.sent)
    assert max(sent.values()) == 1
    shop.close()


def test_shares_stand_for_a_day_and_are_told_once_with_the_sums_they_came_from():
    shop = shop_of(shield=Telling)
    arrive(shop, 0, 100)
    shop.run()
    first, first_day = ways(shop), shop.clock() // DAY
    orders = [
        Order(id=f"o-{p}", customer=shop.store.profile_of(p).customer, at=shop.clock() + DAY, amount=10_000_000)
        for p, (way, _, _) in first.items()
        if way == 0
    ]
    shop.clock.advance(8 * DAY)
    shop.store.keep("s", orders)
    planned, last_day = shares(shop), shop.clock() // DAY
    shop.run()
    assert shares(shop) == planned  # the same outcomes make the same shares
    # What is told later on the same day changes nothing today, nor does a restart.
    shop.store.keep("s", [Order(id="x", customer="n-00001", at=shop.clock() - 7 * DAY, amount=9_000_000_000)])
    shop.engine._splits._told.clear()
    shop.run()
    assert shares(shop) == planned
    told = [note for note in shop.engine.shield.told if note.event == "engage.shares"]
    assert [note.key for note in told] == [
        f"shares:book/win-back/tone:{day}" for day in (first_day, last_day, last_day)
    ]
    share, persons, active, total, _ = json.loads(told[1].detail["way_0"])
    assert (share, persons, active, total) == (planned[0], len(orders), len(orders), len(orders) * 10_000_000)
    assert told[1] == told[2]  # a process that starts again says it again, and the ledger keeps it once
    shop.close()


def test_a_plan_draws_and_keeps_nothing():
    shop = shop_of()
    arrive(shop, 0, 50)
    planned = {line.customer: line.step for line in shop.engine.plan(shop.playbook).lines if line.offer}
    assert ways(shop) == {}
    shop.run()
    assert {message.customer for message in shop.mails.sent} == planned.keys()
    assert {way for way, _, _ in ways(shop).values()} == {0, 1}
    shop.close()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 200)), max_size=60), st.sampled_from((20_000, 333_333)))
def test_whatever_came_of_it_every_way_keeps_its_floor_and_the_same_outcomes_make_the_same_shares(outcomes, floor):
    steps = STEPS.replace("10%", str(floor / PARTS)) + "          - {steps: []}\n"
    made = []
    for _ in range(2):
        shop = shop_of(steps=steps)
        arrive(shop, 0, len(outcomes))
        book, people = shop.engine.book, [shop.store.person(f"n-{n:05}") for n in range(len(outcomes))]
        book.keep_ways("book/win-back/tone", [(p, w, 1, NOON) for p, (w, _) in zip(people, outcomes, strict=True)])
        shop.store.keep(
            "s",
            [
                Order(id=str(n), customer=f"n-{n:05}", at=NOON + DAY, amount=amount * 1_000_000)
                for n, (_, amount) in enumerate(outcomes)
                if amount > 0
            ],
        )
        shop.clock.advance(9 * DAY)
        made.append(shares(shop))
        shop.close()
    assert made[0] == made[1]
    assert sum(made[0]) == PARTS
    assert min(made[0]) >= floor


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("learn: thompson", "learn: magic"), "did you mean|'learn'"),
        (("        learn: thompson\n", ""), "goes with 'learn: thompson'"),
        (("floor: 10%", "floor: 60%"), "at most 50%"),
        (("floor: 10%", "floor: 0%"), "above 0"),
        (("floor: 10%", "reward: opens"), "'reward'"),
        (("          - {steps: [{send: again, name: brisk}]}\n", ""), "at least two ways"),
        (("{steps: [{send: ten", "{share: 40%, steps: [{send: ten"), "add up to 40%"),
    ],
)
def test_a_split_that_cannot_learn_is_told_with_its_line(change, why):
    with pytest.raises(PlaybookError, match=why):
        parse_playbook(text(STEPS.replace(*change)))


def test_the_schema_knows_it():
    schema = jsonschema_rs.validator_for(playbook_schema())
    assert schema.is_valid(yaml.safe_load(text().replace("?", "")))
    assert not schema.is_valid(yaml.safe_load(text(STEPS.replace("thompson", "magic")).replace("?", "")))
    assert not schema.is_valid(yaml.safe_load(text(STEPS.replace("        learn: thompson\n", "")).replace("?", "")))
    step = parse_playbook(text()).journeys[0].steps[0]
    assert (step.learns, step.floor, step.reward, step.shares) == (True, 100_000, "margin", (500_000, 500_000))
