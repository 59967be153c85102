"""Each gate stops who it is for, in the fixed order; the budget is kept; the chances are told."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.decision import ORDER, Contacts, Explorers, Standing, Verdict, decide
from kiki.engage.people import people_of
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from tests.engage.conftest import DAY

NOON = round(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp() * 1e6)
PLAYBOOK = parse_playbook("""
playbook: p
currency: USD
cooldown: 2d
caps:
  - {messages: 2, per: 7d}
  - {messages: 1, per: day, channel: sms}
channels:
  email: {quiet_hours: "21:00-08:00"}
messages:
  mail: {channel: email, subject: s, text: t}
  text: {channel: sms, text: t}
offers:
  free: {message: mail}
  dear: {message: mail, cost: 4.00}
  text: {message: text, cost: 0.10}
journeys:
  j: {enter: {event: order}, steps: [{send: [free, dear, text]}]}
""")
GOOD = {"email": "a@example.com", "phone": "+15551234567", "zone": "Europe/Vienna"}


def standing_of(count, **given):
    found = {
        "consent": np.ones(count, dtype=bool),
        "suppressed": {},
        "held_out": np.zeros(count, dtype=bool),
    }
    return Standing(**(found | given))


def contacts(*rows):
    return Contacts(
        np.array([row[0] for row in rows], dtype=np.int64),
        [row[1] for row in rows],
        np.array([NOON - row[2] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=bool),
    )


def verdict(offers=("free",), profile=None, now=NOON, margin=1, room=None, **given):
    people = people_of([Profile(customer="c", **(GOOD | (profile or {})))], now)
    found = decide(
        PLAYBOOK, offers, people, standing_of(1, **given), np.full((1, len(offers)), margin, dtype=np.int64), room=room
    )
    return found.verdict(0)


YES, NO = np.ones(1, dtype=bool), np.zeros(1, dtype=bool)
CASES = [
    (Verdict.CHOSEN, {}),
    (Verdict.TEST_CUSTOMER, {"profile": {"is_test": True}, "consent": NO}),
    (Verdict.NO_CONSENT, {"consent": NO, "suppressed": {"email": YES}}),
    (Verdict.SUPPRESSED, {"suppressed": {"email": YES}, "profile": {"email_marketing": False}}),
    (Verdict.SOURCE_FORBIDS, {"profile": {"email_marketing": False, "email": ""}}),
    (Verdict.NO_ADDRESS, {"profile": {"email": ""}, "held_out": YES}),
    (Verdict.HELD_OUT, {"held_out": YES, "contacts": contacts((0, "email", 1, False), (0, "email", 2, False))}),
    (Verdict.CAPPED, {"contacts": contacts((0, "sms", 3 * DAY, True), (0, "email", DAY, True))}),
    (Verdict.COOLING, {"contacts": contacts((0, "email", DAY, True)), "now": NOON + 12 * 3600 * 1_000_000 - 1}),
    (Verdict.ZONE_UNKNOWN, {"profile": {"zone": "Mars/Phobos"}}),
    (Verdict.QUIET, {"now": NOON + 9 * 3600 * 1_000_000}),
    (Verdict.NO_GAIN, {"margin": 0}),
    (Verdict.NO_BUDGET, {"offers": ("dear",), "room": 3_999_999}),
]


@pytest.mark.parametrize(("expected", "given_"), CASES, ids=[str(case[0]) for case in CASES])
def test_each_gate(expected, given_):
    assert verdict(**given_) is expected


def test_every_verdict_has_a_row():
    assert {case[0] for case in CASES} == set(Verdict)


def test_another_playbook_s_message_does_not_cool_and_an_old_one_neither():
    assert verdict(contacts=contacts((0, "email", DAY, False))) is Verdict.CHOSEN
    assert verdict(contacts=contacts((0, "email", 2 * DAY, True))) is Verdict.CHOSEN


def test_a_cap_of_one_channel_leaves_the_others():
    sms = contacts((0, "sms", 3600 * 1_000_000, False))
    assert verdict(("text",), contacts=sms) is Verdict.CAPPED
    assert verdict(("free",), contacts=sms) is Verdict.CHOSEN
    assert verdict(("free", "text"), contacts=sms) is Verdict.CHOSEN


def test_a_calendar_day_begins_at_the_person_s_midnight():
    # At noon UTC it is 14:00 in Vienna: the day began 14 hours ago.
    hour = 3600 * 1_000_000
    assert verdict(("text",), contacts=contacts((0, "sms", 13 * hour, False))) is Verdict.CAPPED
    assert verdict(("text",), contacts=contacts((0, "sms", 15 * hour, False))) is Verdict.CHOSEN


def test_who_is_stopped_on_every_channel_hears_of_the_last_gate():
    stopped = {"suppressed": {"email": YES}, "profile": {"phone": ""}}
    assert verdict(("free", "text"), **stopped) is Verdict.NO_ADDRESS


def test_quiet_ends_when_it_is_told():
    people = people_of([Profile(customer="c", **GOOD)], NOON + 9 * 3600 * 1_000_000)
    found = decide(PLAYBOOK, ("free",), people, standing_of(1), np.ones((1, 1), dtype=np.int64))
    assert found.quiet_until[0] == round(datetime(2026, 6, 2, 6, tzinfo=UTC).timestamp() * 1e6)


def test_the_budget_goes_where_most_is_gained():
    people = people_of([Profile(customer=f"c-{n}", **GOOD) for n in range(4)], NOON)
    gain = np.array([[10], [40], [30], [20]], dtype=np.int64) * 1_000_000
    found = decide(PLAYBOOK, ("dear",), people, standing_of(4), gain, room=8_000_000)
    assert [found.verdict(row) for row in range(4)] == [
        Verdict.NO_BUDGET,
        Verdict.CHOSEN,
        Verdict.CHOSEN,
        Verdict.NO_BUDGET,
    ]
    assert found.cost == 8_000_000


@given(
    st.integers(0, 60),
    st.floats(0, 1, allow_subnormal=False),
    st.integers(0, 200_000_000),
    st.randoms(use_true_random=False),
)
def test_never_over_the_budget_and_nobody_who_is_stopped(count, share, room, random):
    people = people_of([Profile(customer=f"c-{n:03}", **GOOD) for n in range(count)], NOON)
    consent = np.array([random.random() < 0.7 for _ in range(count)], dtype=bool)
    gain = np.array([[random.randint(-5, 9_000_000) for _ in range(3)] for _ in range(count)], dtype=np.int64).reshape(
        count, 3
    )
    explorers = Explorers(share, lambda _: (random.random(), random.randint(0, 2047)))
    found = decide(
        PLAYBOOK,
        ("free", "dear", "text"),
        people,
        standing_of(count, consent=consent),
        gain,
        room=room,
        explorers=explorers,
    )
    chosen = found.codes == 0
    assert (found.offer[chosen] >= 0).all()
    assert (found.offer[~chosen] == -1).all()
    assert not (chosen & ~consent).any()
    assert found.cost <= room
    assert ((found.propensity > 0) & (found.propensity <= 1)).all()
    assert all(ORDER[code] in Verdict for code in found.codes.tolist())


def test_explorers_get_every_offer_and_the_chance_is_what_is_told():
    count = 20_000
    people = people_of([Profile(customer=f"c-{n:05}", **GOOD) for n in range(count)], NOON)
    random = np.random.default_rng(1)
    explorers = Explorers(0.3, lambda _: (float(random.random()), int(random.integers(2048))))
    gain = np.tile(np.array([5, 1, 1], dtype=np.int64), (count, 1))
    found = decide(PLAYBOOK, ("free", "dear", "text"), people, standing_of(count), gain, explorers=explorers)
    shares = np.bincount(found.offer, minlength=3) / count
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    for offer, chance in enumerate([0.8, 0.1, 0.1]):
        assert found.propensity[found.offer == offer] == pytest.approx(chance)
