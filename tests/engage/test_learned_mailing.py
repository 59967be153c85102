"""A mailing of two letters and a control group, from the assignment through visits and orders to the next plan."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec

from kiki.engage.estimate import Drawn, learned, pack
from kiki.engage.event import Order, Touch, TouchKind
from kiki.engage.playbook_report import export_rows
from kiki.engage.policy import Policy
from kiki.engage.policy_value import policy_value
from kiki.engage.profile import Profile
from tests.engage.conftest import DAY
from tests.engage.mailing import mailing
from tests.engage.test_retention_engine import TEXT, Shop

MAILING = (
    TEXT.replace("holdout: 20%\nexplore: 0%", "holdout: 33%\nexplore: 100%")
    .replace("ten: {message: mail, cost: 4.00, gain: 6.00}", "ten: {message: mail}")
    .replace("{send: ten, name: first}", "{send: [ten, again], name: first}")
)
MAILING = MAILING[: MAILING.index("      - {wait_for")]
CUSTOMERS = 2400


def test_visits_carry_what_orders_alone_cannot_and_everybody_new_gets_the_best_constant():
    """`again` brings twice the visits of `ten`; one visitor in four buys, so that money alone is noisy."""
    shop = Shop(MAILING, customers=CUSTOMERS, limit="1000000")
    shop.run()
    chance = Random(2)
    offers = {action.person: action.offer for action in shop.engine.log.of_playbook("book")}
    events, visitors = [], 0
    for number in range(CUSTOMERS):
        customer = f"c-{number:03}"
        offer = offers.get(shop.store.person(customer), "")
        if chance.random() < {"again": 0.5, "ten": 0.25}.get(offer, 0.15):
            visitors += 1
            at = shop.clock() + DAY
            events.append(Touch(id=f"v-{number}", customer=customer, at=at, kind=TouchKind.VISITED))
            if chance.random() < 0.25:
                amount = round(chance.gammavariate(2, 20) * 1e6)
                events.append(Order(id=f"o-{number}", customer=customer, at=at + 1, amount=amount))
    shop.store.keep("s", events)
    shop.clock.advance(31 * DAY)
    assert sum(row.early for row in export_rows(shop.playbook, shop.store)) == visitors
    later = [
        Profile(customer=f"later-{n:03}", email=f"l{n}@example.com", last_purchase=shop.clock() - 70 * DAY)
        for n in range(100)
    ]
    shop.store.keep("shop", later)
    for profile in later:
        shop.guard.consents.grant(profile.customer, "marketing")
    following = without_exploring(shop)
    plan = shop.engine.plan(following)
    chosen = Counter(line.offer for line in plan.lines if line.customer.startswith("later") and line.offer)
    assert chosen.keys() == {"again"}
    shop.engine.run(following)
    kept = shop.engine.book.recall("policy:book/win-back")
    assert kept is not None
    policy = Policy.load(kept[8:])
    assert policy.incumbent == "again"
    assert policy.evidence is not None
    assert policy.evidence.used_early
    shop.close()


def without_exploring(shop: Shop):
    return msgspec.structs.replace(shop.playbook, explore=0)


def test_on_a_mailing_in_which_few_buy_what_a_playbook_learns_is_as_good_as_the_best_constant_and_beats_the_dormant():
    """The same three arms, 20,000 people; the truth is known, because it was made."""
    rows = 20_000
    data, expected = mailing(rows, 4)
    arm_of = {"none": "held_out", "a": "ten", "b": "again"}
    shop = Shop(MAILING, customers=0)
    features = {
        "days_since_purchase": data.features["recency"] * 30.0,
        "spend": data.features["history"],
        "purchases": data.features["newbie"],
    }
    features |= dict.fromkeys(
        ("days_since_engagement", "engagement_score", "value", "churn"), data.margin * float("nan")
    )
    drawn = [
        Drawn(
            arm_of[data.arms[data.arm[row]]],
            dict.fromkeys(arm_of.values(), 1 / 3),
            round(data.margin[row] * 1e6),
            pack(features, row),
            bool(data.early[row]),
        )
        for row in range(rows)
    ]
    policy = learned(shop.playbook, ("ten", "again"), drawn)
    back = {name: arm for arm, name in arm_of.items()}
    given = [back[arm] for arm in policy.choose(features)]
    places = [data.arms.index(arm) for arm in given]
    truth = expected[range(rows), places].mean()
    dormant = expected[range(rows), [1 if months > 6 else 0 for months in data.features["recency"]]].mean()
    assert truth >= expected.mean(axis=0).max() - 0.01
    assert truth > dormant
    assert policy_value(given, data).doubly_robust.low < truth < policy_value(given, data).doubly_robust.high
    assert policy.evidence.used_early
    shop.close()
