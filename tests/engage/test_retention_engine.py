"""A shop's weeks with a real guard, consents, money and an outbox in memory."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import Random
from unittest.mock import patch

import pytest

from kiki.engage.action_log import State
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.decision import Verdict
from kiki.engage.event import Delivery, DeliveryState, Order, Touch, TouchKind
from kiki.engage.holdout import Holdout
from kiki.engage.keyring import Keyring
from kiki.engage.playbook_report import report
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.program_report import program_report
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.shield_line import GuardLine
from kiki.errors import InvalidInput, ShieldUnreachable
from kiki.outbound.outcome import done, unknown
from kiki.shield.budget_guard import BudgetGuard
from tests.engage.conftest import DAY, MovedClock

NOON = round(datetime(2026, 6, 1, 10, tzinfo=UTC).timestamp() * 1e6)
TEXT = """
playbook: book
currency: USD
zone: Europe/Vienna
holdout: 20%
explore: 0%
segments:
  lapsed: {days_since_purchase: {over: 60}}
messages:
  mail: {channel: email, subject: Hello, text: Hello}
  second: {channel: email, subject: Still there?, text: Still there?}
offers:
  ten: {message: mail, cost: 4.00, gain: 6.00}
  again: {message: second}
journeys:
  win-back:
    enter: {segment: lapsed}
    again_after: 90d
    exit: {event: order}
    steps:
      - {send: ten, name: first}
      - {wait_for: clicked, within: 3d, otherwise: go_on}
      - {send: again, name: second}
"""


class Mails:
    name = "email"

    def __init__(self):
        self.sent = []
        self.outcome = done(provider_id="P")

    def send(self, message):
        self.sent.append(message)
        return self.outcome


class Shop:
    def __init__(self, text=TEXT, *, customers=60, limit="1000", holdout=0, shield=None):
        self.clock = MovedClock(NOON)
        # Known keys: who is held out, who explores and which way is taken are the same in every run.
        with patch("kiki.ledger.subjects.os.urandom", Random(1).randbytes):
            self.guard = BudgetGuard.open(limit=limit, window="30d", clock=self.clock)
        self.store = CustomerStore(open_database(None), Keyring.of_guard(self.guard.decider), self.clock)
        self.mails = Mails()
        self.playbook = parse_playbook(text)
        self.engine = RetentionEngine(
            self.store,
            (shield or GuardLine)(self.guard),
            {"email": self.mails},
            "https://shop.example/u/{}".format,
            holdout=holdout,
            workers=2,
            clock=self.clock,
        )
        profiles = [
            Profile(customer=f"c-{n:03}", email=f"{n}@example.com", last_purchase=NOON - (70 + n % 3) * DAY)
            for n in range(customers)
        ]
        self.store.keep("shop", profiles)
        for profile in profiles:
            self.guard.consents.grant(profile.customer, "marketing")

    def run(self, days=0):
        self.clock.advance(days * DAY)
        return self.engine.run(self.playbook)

    def reached(self):
        return [message.customer for message in self.mails.sent]

    def held_out(self):
        return {f"c-{n:03}" for n in range(60) if self.engine.is_held_out(self.playbook, f"c-{n:03}")}

    def close(self):
        self.store.close()
        self.guard.close()


@pytest.fixture
def shop():
    made = Shop()
    yield made
    made.close()


def test_a_plan_writes_nothing_and_a_run_does_what_it_says(shop):
    plan = shop.engine.plan(shop.playbook)
    assert shop.mails.sent == []
    assert shop.engine.log.counts() == {}
    held = shop.held_out()
    assert 4 <= len(held) <= 25
    assert plan.counts() == {"chosen": 60 - len(held), "held_out": len(held)}
    run = shop.run()
    assert (run.entered, run.held_out) == (60, len(held))
    assert sorted(shop.reached()) == [line.customer for line in plan.lines if line.verdict is Verdict.CHOSEN]
    assert run.messages == {"done": 60 - len(held)}
    (meter,) = shop.guard.status()
    assert (meter.spent, meter.held) == ((60 - len(held)) * 4_000_000, 0)


def test_a_second_run_sends_nothing_twice(shop):
    shop.run()
    sent = list(shop.reached())
    again = shop.run()
    assert (again.entered, again.messages) == (0, {})
    assert shop.reached() == sent


def test_the_held_out_are_never_written_to_and_stay_held_out(shop):
    for _ in range(6):
        shop.run(days=2)
    assert not shop.held_out() & set(shop.reached())


def test_all_playbooks_together_are_measured_against_those_whom_none_reaches():
    """Everybody once, however many journeys they enter: 900 people, of whom all the reached buy, and half of the others."""
    text = TEXT.replace("holdout: 20%", "holdout: 0%").replace("cost: 4.00, ", "")
    shop = Shop(text, customers=900, holdout=300_000)
    other = parse_playbook(
        text.replace("playbook: book", "playbook: second-book").replace(
            "days_since_purchase: {over: 60}", "days_since_purchase: {over: 71}"
        )
    )
    shop.run()
    shop.engine.run(other)
    held = {
        customer for customer in (f"c-{n:03}" for n in range(900)) if shop.engine.is_held_out(shop.playbook, customer)
    }
    assert held == {c for c in (f"c-{n:03}" for n in range(900)) if shop.engine.sides.everywhere.holds(c)}
    bought = Random(1)
    orders = [
        Order(id=f"o-{n}", customer=f"c-{n:03}", at=shop.clock() + DAY, amount=(20 + bought.randrange(5)) * 1_000_000)
        for n in range(900)
        if f"c-{n:03}" not in held or n % 2
    ]
    shop.store.keep("shop", orders)
    shop.clock.advance(31 * DAY)
    [found] = program_report(shop.playbook, shop.store, shop.engine.sides.everywhere).journeys
    assert (found.assigned, found.held_out, found.open_windows, found.violations) == (900, len(held), 0, 0)
    rate = shop.playbook.margin_rate / 1e6
    truth = sum(o.amount for o in orders if o.customer not in held) / (900 - len(held)) * rate
    assert found.treated_mean == pytest.approx(truth, rel=1e-6)
    assert found.effect.low < found.treated_mean - found.held_out_mean < found.effect.high
    assert found.effect.low > 0
    with pytest.raises(InvalidInput, match="nobody is held out of all"):
        program_report(shop.playbook, shop.store, Holdout(b"k", 0))
    shop.close()


def test_the_second_step_comes_after_its_wait_unless_the_person_clicked(shop):
    shop.run()
    first = len(shop.mails.sent)
    keen = shop.mails.sent[0].customer
    shop.store.keep("s", [Touch(id="t", at=shop.clock() + 1, kind=TouchKind.CLICKED, customer=keen)])
    shop.run(days=2)
    assert len(shop.mails.sent) == first
    shop.run(days=1)
    second = [message for message in shop.mails.sent if message.step == "win-back/second"]
    assert len(second) == first - 1
    assert keen not in {message.customer for message in second}


def test_who_buys_leaves_the_journey(shop):
    shop.run()
    buyer = shop.mails.sent[0].customer
    shop.store.keep("s", [Order(id="o", customer=buyer, at=shop.clock() + 1, amount=5)])
    shop.run(days=4)
    assert shop.reached().count(buyer) == 1


def test_who_left_may_come_again_later_but_not_before(shop):
    shop.run()
    shop.run(days=4)
    count = len(shop.mails.sent)
    shop.run(days=80)
    assert len(shop.mails.sent) == count
    run = shop.run(days=10)
    assert run.entered == 60
    assert run.held_out == len(shop.held_out())


def test_without_consent_nobody_takes_part_and_the_reason_is_told_once(shop):
    shop.guard.consents.revoke("c-000", "marketing")
    shop.store.suppressions.add("c-001")
    run = shop.run()
    assert (run.verdicts["no_consent"], run.verdicts["suppressed"]) == (1, 1)
    assert not {"c-000", "c-001"} & set(shop.reached())
    notes = shop.guard.decider.ledger.next_seq
    shop.run()
    assert shop.guard.decider.ledger.next_seq == notes


def test_the_budget_is_never_exceeded_and_who_is_left_out_is_told():
    shop = Shop(limit="41")
    run = shop.run()
    assert run.messages == {"done": 10}
    assert run.verdicts["no_budget"] == 60 - len(shop.held_out()) - 10
    (meter,) = shop.guard.status()
    assert meter.spent == 40_000_000
    shop.close()


class _Down(GuardLine):
    failing = True

    def reserve(self, *given):
        if _Down.failing:
            raise ShieldUnreachable("no answer")
        return super().reserve(*given)


def test_a_shield_that_goes_down_in_the_middle_stops_everything_and_later_it_goes_on():
    _Down.failing = True
    shop = Shop(shield=_Down)
    with pytest.raises(ShieldUnreachable):
        shop.run()
    assert shop.mails.sent == []
    _Down.failing = False
    shop.run()
    assert sorted(shop.reached()) == sorted({f"c-{n:03}" for n in range(60)} - shop.held_out())
    shop.close()


def test_unknown_messages_are_closed_by_the_provider_s_word(shop):
    shop.mails.outcome = unknown("timeout")
    run = shop.run()
    count = run.messages["unknown"]
    (meter,) = shop.guard.status()
    assert (meter.spent, meter.held) == (0, count * 4_000_000)
    shop.run()
    assert len(shop.mails.sent) == count
    words = [
        Delivery(
            id=f"e{n}", action=action.action, at=1, state=DeliveryState.DELIVERED if n % 2 else DeliveryState.FAILED
        )
        for n, action in enumerate(shop.engine.log.in_state(State.UNKNOWN))
    ]
    assert shop.engine.told(words + words) == count
    (meter,) = shop.guard.status()
    assert (meter.spent, meter.held) == (count // 2 * 4_000_000, 0)


def test_an_event_lets_people_in_once_each_time():
    text = TEXT.replace("{segment: lapsed}", "{event: cart_abandoned}").replace("    again_after: 90d\n", "")
    shop = Shop(text)
    someone = next(f"c-{n:03}" for n in range(60) if f"c-{n:03}" not in shop.held_out())
    left = Touch(id="cart-1", at=NOON - 5, kind=TouchKind.CART_ABANDONED, customer=someone)
    shop.store.keep("s", [left])
    assert shop.run().entered == 1
    assert shop.run().entered == 0
    assert shop.reached() == [someone]
    shop.run(days=4)
    again = Touch(id="cart-2", at=shop.clock() - 5, kind=TouchKind.CART_ABANDONED, customer=someone)
    shop.store.keep("s", [again])
    assert shop.run().entered == 1
    assert shop.reached().count(someone) == 3
    shop.close()


def test_at_night_people_wait_until_the_morning():
    shop = Shop(TEXT.replace("segments:", 'channels: {email: {quiet_hours: "21:00-08:00"}}\nsegments:'))
    shop.clock.advance(12 * 3600 * 1_000_000)
    run = shop.run()
    assert set(run.verdicts) == {"quiet"}
    shop.clock.advance(7 * 3600 * 1_000_000)
    assert shop.run().verdicts == {}
    shop.clock.advance(3 * 3600 * 1_000_000)
    assert set(shop.run().messages) == {"done"}
    shop.close()


def test_a_split_is_the_same_for_the_same_person():
    steps = """
      - split:
          - {share: 50%, steps: [{send: ten}]}
          - {share: 50%, steps: [{send: again}]}
"""
    shop = Shop(TEXT[: TEXT.index("      - {send: ten")] + steps)
    shop.run()
    offers = {message.customer: message.step for message in shop.mails.sent}
    assert len(set(offers.values())) == 2
    assert len(offers) == len(shop.mails.sent)
    shop.close()


@pytest.mark.parametrize("shared", ["sqlite", "postgres"])
def test_two_replicas_that_run_the_same_playbook_at_once_write_to_nobody_twice(shared, request, tmp_path):
    where = request.getfixturevalue("postgres") if shared == "postgres" else tmp_path / "engage.db"
    clock = MovedClock(NOON)
    guard = BudgetGuard.open(limit="1000", window="30d", clock=clock)
    keys, mails, playbook = Keyring.of_guard(guard.decider), Mails(), parse_playbook(TEXT)
    stores = [CustomerStore(open_database(where), keys, clock) for _ in range(2)]
    engines = [
        RetentionEngine(
            store,
            GuardLine(guard),
            {"email": mails},
            "https://shop.example/u/{}".format,
            holdout=0,
            worker=f"w{number}",
            workers=3,
            clock=clock,
        )
        for number, store in enumerate(stores)
    ]
    profiles = [
        Profile(customer=f"c-{n:03}", email=f"{n}@example.com", last_purchase=NOON - 70 * DAY) for n in range(40)
    ]
    stores[0].keep("shop", profiles)
    for profile in profiles:
        guard.consents.grant(profile.customer, "marketing")
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            runs = [each.result() for each in [pool.submit(engine.run, playbook) for engine in engines]]
        clock.advance(4 * DAY)
    reached = [(message.customer, message.step) for message in mails.sent]
    assert len(reached) == len(set(reached))
    held = {p.customer for p in profiles if engines[0].is_held_out(playbook, p.customer)}
    assert {customer for customer, _ in reached} == {p.customer for p in profiles} - held
    assert all(run.playbook == "book" for run in runs)
    (meter,) = guard.status()
    assert (meter.spent, meter.held) == ((40 - len(held)) * 4_000_000, 0)
    for store in stores:
        store.close()
    guard.close()


def test_what_was_measured_decides_about_those_who_come_later():
    """Two offers, of which the one named first earns nothing: it stays the rule until outcomes say otherwise."""
    text = (
        TEXT.replace("holdout: 20%\nexplore: 0%", "holdout: 30%\nexplore: 60%")
        .replace("ten: {message: mail, cost: 4.00, gain: 6.00}", "ten: {message: mail}")
        .replace("{send: ten, name: first}", "{send: [ten, again], name: first}")
    )
    text = text[: text.index("      - {wait_for")]
    shop = Shop(text, customers=1200, limit="1000000")
    shop.run()
    chance = Random(1)
    offers = {action.person: action.offer for action in shop.engine.log.of_playbook("book")}
    orders = []
    for number in range(1200):
        customer = f"c-{number:03}"
        offer = offers.get(shop.store.person(customer), "")
        if chance.random() < {"again": 0.5}.get(offer, 0.1):
            orders.append(Order(id=f"o-{number}", customer=customer, at=shop.clock() + DAY, amount=50_000_000))
    shop.store.keep("s", orders)
    shop.clock.advance(31 * DAY)
    later = [
        Profile(customer=f"later-{n:03}", email=f"l{n}@example.com", last_purchase=shop.clock() - 70 * DAY)
        for n in range(200)
    ]
    shop.store.keep("shop", later)
    for profile in later:
        shop.guard.consents.grant(profile.customer, "marketing")
    plan = shop.engine.plan(shop.playbook)
    chosen = Counter(line.offer for line in plan.lines if line.customer.startswith("later") and line.offer)
    # Six in ten explore, half of them each offer; all others get the one that earns.
    assert chosen["again"] / sum(chosen.values()) == pytest.approx(0.7, abs=0.12)
    rest = [line for line in plan.lines if line.customer.startswith("later") and line.offer and line.propensity > 0.5]
    assert {line.offer for line in rest} == {"again"}
    assert all(line.gain > 10_000_000 for line in rest)
    found = report(shop.playbook, shop.store, shop.engine.held_out_share(shop.playbook)).journeys[0]
    assert found.violations == 0
    assert found.effect.is_balanced
    shop.close()
