"""The order of a send: what is looked at last, what is durable first, and what is never done twice."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from kiki.engage.action_log import ActionLog, Limit, State
from kiki.engage.channels.outbox import OutboxChannel, letters
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.event import Delivery, DeliveryState
from kiki.engage.keyring import Keyring
from kiki.engage.message_maker import MessageMaker
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.sender import Post, Sender
from kiki.engage.shield_line import GuardLine
from kiki.errors import PlaybookError, ShieldUnreachable
from kiki.outbound.outcome import done, refused, unknown
from kiki.shield.budget_guard import BudgetGuard
from tests.engage.conftest import DAY, MovedClock

PLAYBOOK = """
playbook: book
currency: USD
zone: Europe/Vienna
channels:
  email: {quiet_hours: "21:00-08:00"}
messages:
  mail: {channel: email, subject: "Hello {{ first_name }}", text: "Dear {{ first_name }}, {{ discount }} % off"}
  plain: {channel: email, subject: Hello, text: Hello}
offers:
  ten: {message: mail, cost: 4.00, discount: 10}
  free: {message: plain}
journeys:
  j:
    enter: {event: order}
    steps: [{send: [ten, free]}]
"""
MAKER = MessageMaker(parse_playbook(PLAYBOOK))
NOON = round(datetime(2026, 6, 1, 10, tzinfo=UTC).timestamp() * 1e6)


class ToldChannel:
    """Says what it is told to, and remembers what it was given."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.sent = []
        self.before = lambda: None

    name = "email"

    def send(self, message):
        self.before()
        self.sent.append(message)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def sent(sender, post):
    found = sender.send(MAKER, post)
    if found.failure is not None:
        raise found.failure
    return found.actions[post.dedup]


class Desk:
    def __init__(self, *outcomes, limit="100"):
        self.clock = MovedClock(NOON)
        self.guard = BudgetGuard.open(limit=limit, window="1h", clock=self.clock)
        self.store = CustomerStore(open_database(None), Keyring.of_guard(self.guard.decider), self.clock)
        self.log = ActionLog(self.store.database, self.clock)
        self.channel = ToldChannel(*(outcomes or (done(provider_id="P"),)))
        self.shield = GuardLine(self.guard)
        self.sender = self.made()
        ann = Profile(customer="c-1", email="ann@example.com", first_name="Ann", zone="Europe/Vienna")
        self.store.keep("shop", [ann, Profile(customer="c-2", email="bob@example.com")])
        self.guard.consents.grant("c-1", "marketing")
        self.guard.consents.grant("c-2", "marketing")

    def made(self, shield=None):
        links = "https://shop.example/u/{}".format
        return Sender(
            self.store, self.log, shield or self.shield, {"email": self.channel}, links, worker="w", clock=self.clock
        )

    def send(self, customer="c-1", offer="ten", dedup="d", limits=()):
        return sent(self.sender, Post(self.store.person(customer), offer, "j/send-1", dedup, limits))

    @property
    def money(self):
        (meter,) = self.guard.status()
        return meter.spent, meter.held

    def close(self):
        self.store.close()
        self.guard.close()


@pytest.fixture
def desk():
    made = Desk()
    yield made
    made.close()


def test_a_message_is_reserved_sent_and_paid(desk):
    action = desk.send()
    assert (action.state, action.provider_id) == (State.DONE, "P")
    (message,) = desk.channel.sent
    assert (message.to, message.action) == ("ann@example.com", action.action)
    assert message.content.text == "Dear Ann, 10 % off"
    assert message.unsubscribe_url == f"https://shop.example/u/{action.action}"
    assert desk.money == (0, 4_000_000)
    assert desk.sender.settle() == 1
    assert desk.money == (4_000_000, 0)


def test_the_same_step_is_sent_once(desk):
    first = desk.send()
    assert desk.send() == first
    assert len(desk.channel.sent) == 1


def test_before_the_channel_is_called_the_log_says_that_it_may_have_been(desk):
    found = []
    desk.channel.before = lambda: found.append(desk.log.find("d").state)
    desk.send()
    assert found == [State.SENDING]


def test_an_offer_without_cost_asks_for_consent_and_holds_no_money(desk):
    assert desk.send(offer="free").state is State.DONE
    assert desk.money == (0, 0)
    desk.guard.consents.revoke("c-1", "marketing")
    dropped = desk.send(offer="free", dedup="e")
    assert (dropped.state, dropped.reason) == (State.DROPPED, "consent_missing")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.guard.consents.revoke("c-1", "marketing"), "consent_missing"),
        (lambda d: d.store.suppressions.add("c-1"), "suppressed"),
        (lambda d: d.store.suppressions.add("c-1", "email"), "suppressed"),
        (lambda d: d.clock.advance(12 * 3600 * 1_000_000), "quiet"),
        (
            lambda d: d.store.keep("shop", [Profile(customer="c-1", email="ann@example.com", email_marketing=False)]),
            "source_forbids",
        ),
        (lambda d: d.store.keep("shop", [Profile(customer="c-1", first_name="Ann")]), "no_address"),
        (
            lambda d: d.store.keep("shop", [Profile(customer="c-1", email="ann@example.com", is_test=True)]),
            "test_customer",
        ),
        (lambda d: d.store.keep("shop", [Profile(customer="c-1", email="ann@example.com")]), "template"),
        (lambda d: d.store.keep("shop", [], gone=["c-1"]), "unknown_customer"),
        (lambda d: d.guard.halt("campaign:book"), "halted"),
    ],
)
def test_what_changed_since_the_decision_stops_the_message(desk, change, reason):
    person = desk.store.person("c-1")
    change(desk)
    action = sent(desk.sender, Post(person, "ten", "j/send-1", "d"))
    assert (action.state, action.reason) == (State.DROPPED, reason)
    assert desk.channel.sent == []
    desk.sender.settle()
    assert desk.money == (0, 0)


def test_an_opt_out_between_the_reservation_and_the_send_is_seen(desk):
    """The opt-out is acknowledged after the money was reserved and before the channel is called."""

    class Late(GuardLine):
        def reserve(self, *given):
            found = super().reserve(*given)
            desk.store.suppressions.add("c-1")
            return found

    sender = desk.made(Late(desk.guard))
    action = sent(sender, Post(desk.store.person("c-1"), "ten", "s", "d"))
    assert (action.state, action.reason) == (State.DROPPED, "suppressed")
    assert desk.channel.sent == []
    sender.settle()
    assert desk.money == (0, 0)


def test_a_timeout_is_unknown_keeps_its_money_and_is_never_sent_again():
    desk = Desk(unknown("timeout"))
    assert desk.send().state is State.UNKNOWN
    assert desk.send().state is State.UNKNOWN
    desk.sender.resume(MAKER)
    desk.sender.settle()
    assert len(desk.channel.sent) == 1
    assert desk.money == (0, 4_000_000)
    action = desk.log.find("d").action
    assert desk.log.told(Delivery(id="e", action=action, at=1, state=DeliveryState.DELIVERED)).state is State.DONE
    desk.sender.settle()
    assert desk.money == (4_000_000, 0)
    desk.close()


def test_a_channel_that_breaks_its_promise_leaves_an_unknown_message():
    desk = Desk(RuntimeError("boom"))
    assert (desk.send().state, desk.send().reason) == (State.UNKNOWN, "channel_failed")
    desk.close()


def test_what_the_provider_certainly_did_not_take_is_tried_again():
    desk = Desk(refused("throttled"), done())
    assert desk.send().state is State.RESERVED
    (action,) = desk.sender.resume(MAKER)
    assert action.state is State.DONE
    desk.sender.settle()
    assert desk.money == (4_000_000, 0)
    desk.close()


def test_what_waited_for_a_day_is_not_sent_any_more():
    desk = Desk(refused("unavailable"))
    desk.send()
    desk.clock.advance(DAY + 1)
    (action,) = desk.sender.resume(MAKER)
    assert (action.state, action.reason) == (State.DROPPED, "late")
    desk.close()


@pytest.mark.parametrize(("code", "stops"), [("suppressed", True), ("invalid_address", True), ("invalid", False)])
def test_a_provider_that_knows_an_opt_out_is_believed(code, stops):
    desk = Desk(refused(code), done())
    assert desk.send().state is State.REFUSED
    assert desk.send(dedup="e").state is (State.DROPPED if stops else State.DONE)
    assert desk.send("c-2", "free", "f").state is State.DONE
    desk.close()


def test_a_shield_that_does_not_answer_lets_nothing_through(desk):
    class Down(GuardLine):
        def reserve(self, *given):
            raise ShieldUnreachable("down")

    sender = desk.made(Down(desk.guard))
    with pytest.raises(ShieldUnreachable):
        sent(sender, Post(desk.store.person("c-1"), "ten", "s", "d"))
    assert desk.channel.sent == []
    assert desk.log.find("d").state is State.RESERVED
    (action,) = desk.sender.resume(MAKER)
    assert action.state is State.DONE
    assert desk.money == (0, 4_000_000)


def test_over_the_budget_nothing_is_sent():
    desk = Desk(limit="5")
    assert desk.send().state is State.DONE
    action = desk.send("c-1", dedup="e")
    assert (action.state, action.reason) == (State.DROPPED, "budget_exhausted")
    assert len(desk.channel.sent) == 1
    desk.close()


def test_a_cap_that_was_reached_meanwhile(desk):
    limits = [Limit(1, desk.clock() - DAY)]
    assert desk.send(limits=limits) is not None
    assert desk.send(dedup="e", limits=limits) is None


def test_what_was_being_sent_when_the_process_died_is_unknown_and_found_in_the_outbox(desk, tmp_path):
    desk.channel.outcomes = [KeyboardInterrupt()]
    desk.sender.channels = {"email": OutboxChannel(tmp_path, clock=desk.clock)}
    real, desk.channel.before = desk.sender.channels["email"].send, lambda: None

    def killed(message):
        real(message)
        raise KeyboardInterrupt

    desk.sender.channels["email"].send = killed
    with pytest.raises(KeyboardInterrupt):
        desk.send()
    assert desk.log.find("d").state is State.SENDING
    assert desk.sender.recover() == 1
    assert desk.log.find("d").state is State.UNKNOWN
    (action,) = desk.sender.reconcile(MAKER)
    assert action.state is State.DONE
    assert len(list(letters(tmp_path))) == 1


def test_eight_workers_send_one_message_once(desk):
    threads = [threading.Thread(target=desk.send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.channel.sent) == 1
    assert desk.money == (0, 4_000_000)


def test_a_template_names_every_field_that_there_is_not():
    text = PLAYBOOK.replace("first_name }}, {{", "firstname }}, {{ ltv }} {{")
    with pytest.raises(PlaybookError) as caught:
        MessageMaker(parse_playbook(text))
    said = "\n".join(caught.value.problems)
    assert "did you mean 'first_name'" in said
    assert "'ltv'" in said
