from __future__ import annotations

import numpy as np
import pytest

from kiki.engage.people import people_of
from kiki.engage.playbook_reader import PlaybookReader
from kiki.engage.profile import Profile
from kiki.engage.roster import tell_values
from kiki.engage.segment import All, AnyOf, InSegment, Not, members, needs
from kiki.errors import ValueUnreachable
from kiki.value.ltv_answer import LtvAnswer
from kiki.yaml_document import PROBLEMS_MAX, compose
from tests.engage.conftest import DAY, NOW

PEOPLE = people_of(
    [
        Profile(
            customer="a",
            last_purchase=NOW - 61 * DAY,
            purchase_count=3,
            total_spend=450_000_000,
            engagement_score=8.5,
            tags=("vip",),
        ),
        Profile(customer="b", last_purchase=NOW - 60 * DAY, country="US", segment="gold", locale="en-US"),
        Profile(customer="c"),
    ],
    NOW,
)
PEOPLE.events[("clicked", 14 * DAY)] = np.array([2, 1, 0])


def who(text: str) -> str:
    reader = PlaybookReader()
    condition = reader.condition(compose(text, "condition", ""), ())
    assert reader.problems == []
    return "".join(np.array(PEOPLE.customers)[members(condition, PEOPLE, {})])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("days_since_purchase: {over: 60}", "a"),
        ("days_since_purchase: {at_least: 60}", "ab"),
        ("days_since_purchase: {under: 61, over: 59}", "b"),
        ("days_since_purchase: {at_most: 9999}", "ab"),
        ("days_since_purchase: {absent: true}", "c"),
        ("days_since_purchase: {absent: false}", "ab"),
        ("not: {days_since_purchase: {over: 60}}", "bc"),
        ("spend: {over: 449.99}", "a"),
        ("purchases: {at_least: 1}", "a"),
        ("tag: vip", "a"),
        ("tag: [vip, b2b]", "a"),
        ("country: US", "b"),
        ("segment: gold", "b"),
        ("locale: [en-US, de-CH]", "b"),
        ("value: {over: 0}", ""),
        ("{event: clicked, within: 14d}", "ab"),
        ("{event: clicked, within: 14d, at_least: 2}", "a"),
        ("{event: order, within: 14d}", ""),
        ("any: [{tag: vip}, {country: US}]", "ab"),
        ("all: [{tag: vip}, {country: US}]", ""),
    ],
)
def test_conditions(text, expected):
    assert who(text) == expected


def test_what_conditions_need_is_known_before_anybody_is_looked_at():
    reader = PlaybookReader()
    condition = reader.condition(
        compose("all: [{event: clicked, within: 14d}, {not: {value: {over: 5}}}]", "c", ""), ()
    )
    assert needs({"x": condition}) == ({("clicked", 14 * DAY)}, {"value"})


class Values:
    def __init__(self, answers):
        self.answers = answers

    def predict_many(self, customer_ids, **given):
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


def test_values_are_told_and_what_is_no_forecast_is_counted():
    answers = [
        LtvAnswer(120.5, "scored", "a", probability_no_purchase=0.25),
        LtvAnswer(float("nan"), "not_found", "b"),
        LtvAnswer(1.0, "scored", "c"),
    ]
    assert tell_values(PEOPLE, Values(answers)) == 1
    assert PEOPLE.number("value").tolist() == [120.5, 0.0, 1.0]
    assert PEOPLE.churn[0] == 0.25
    assert np.isnan(PEOPLE.churn[1])
    assert tell_values(PEOPLE, Values(ValueUnreachable("down"))) == 3
    assert PEOPLE.number("value")[0] == 625
    assert tell_values(PEOPLE, None) == 3
    PEOPLE.value = np.full(3, np.nan)


def test_segments_of_segments_are_looked_at_once_each():
    """Each names the one before it three times: sixty of them would be 3 ** 60 looks."""
    reader = PlaybookReader()
    segments = {"s0": reader.condition(compose("tag: vip", "condition", ""), ())}
    for number in range(1, 61):
        before = InSegment(f"s{number - 1}")
        segments[f"s{number}"] = AnyOf((All((before, before)), Not(Not(before))))
    assert [True, False, False] == members(InSegment("s60"), PEOPLE, segments).tolist()


def test_what_was_meant_is_looked_for_only_while_somebody_reads_it():
    """Comparing 20,000 unknown names with 500 known ones takes minutes, and the first hundred mistakes are told."""
    reader = PlaybookReader()
    names = {"lapsed", "loyal"}
    for number in range(PROBLEMS_MAX + 1):
        assert reader.condition(compose(f"in: lapsd{number}", "condition", ""), names) is None
    told = [problem for _, problem in reader.problems]
    assert [True] * PROBLEMS_MAX + [False] == ["did you mean 'lapsed'?" in problem for problem in told]
