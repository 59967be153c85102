"""The original's matrix, as a table, and the playbook `legacy` against it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.people import people_of
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.retention import Risk, Trigger, fallback_value, risk_of, trigger_of
from kiki.engage.segment import members
from tests.engage.conftest import DAY, NOW
from tests.engage.test_playbook_text import LEGACY

PLAYBOOK = parse_playbook(LEGACY.read_text())


@pytest.mark.parametrize(
    ("purchase_days", "engagement_days", "risk"),
    [
        (91, 0, Risk.HIGH),
        (0, 61, Risk.HIGH),
        (90, 60, Risk.MEDIUM),
        (46, 0, Risk.MEDIUM),
        (0, 31, Risk.MEDIUM),
        (45, 30, Risk.LOW),
        (None, None, Risk.LOW),
        (None, 61, Risk.HIGH),
    ],
)
def test_risk(purchase_days, engagement_days, risk):
    purchase, engagement = (None if days is None else NOW - days * DAY for days in (purchase_days, engagement_days))
    assert risk_of(NOW, purchase, engagement) is risk


@pytest.mark.parametrize(
    ("risk", "value", "kind", "action", "discount"),
    [
        (Risk.HIGH, 200.01, "churn_risk_high_value", "offer", 20),
        (Risk.HIGH, 200, "churn_risk_standard", "email", 10),
        (Risk.MEDIUM, 300.01, "high_value_check", "survey", 0),
        (Risk.MEDIUM, 300, "dormant", "email", 0),
        (Risk.LOW, 500.01, "high_value_check", "offer", 15),
        (Risk.LOW, 500, "", "", 0),
    ],
)
def test_matrix(risk, value, kind, action, discount):
    trigger = trigger_of(risk, value)
    assert (trigger.trigger_type, trigger.action, trigger.discount_pct) == (kind, action, discount)
    assert "LTV" not in trigger.message


def test_the_fallback_is_the_code_s_formula_and_not_its_readme_s():
    assert fallback_value(450, 8.5) == 625


days = st.one_of(st.none(), st.integers(0, 200))


@given(days, days, st.sampled_from([0, 199.99, 200, 200.01, 300, 300.01, 500, 500.01, 9000]))
def test_the_legacy_playbook_is_the_matrix(purchase_days, engagement_days, value):
    purchase, engagement = (None if each is None else NOW - each * DAY for each in (purchase_days, engagement_days))
    people = people_of([Profile(customer="c", last_purchase=purchase, last_engagement=engagement)], NOW)
    people.value = np.array([value * 1e6])
    entered = [
        journey
        for journey in PLAYBOOK.journeys
        if members(PLAYBOOK.segments[journey.segment], people, PLAYBOOK.segments)[0]
    ]
    expected = trigger_of(risk_of(NOW, purchase, engagement), value)
    if expected == Trigger():
        assert entered == []
        return
    (journey,) = entered
    (offer,) = journey.steps[0].offers
    assert PLAYBOOK.offers[offer].discount == expected.discount_pct
    assert PLAYBOOK.messages[PLAYBOOK.offers[offer].message].text == expected.message
    assert journey.name in {expected.trigger_type, "vip"}
