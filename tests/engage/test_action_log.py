"""The contract of the log of messages, over both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kiki.engage.action_log import ActionLog, Claim, Limit, State, Wanted
from kiki.engage.event import Delivery, DeliveryState, OptOut, OptOutReason
from kiki.engage.profile import Profile
from kiki.outbound.outcome import done, refused, unknown
from tests.engage.conftest import DAY


@pytest.fixture
def log(store, clock):
    store.keep("shop", [Profile(customer=f"c-{n}", email=f"{n}@example.com") for n in range(5)])
    return ActionLog(store.database, clock)


def reserved(log, store, dedup="d", customer="c-1", limits=(), channel="email"):
    return log.reserve(Wanted("book", "step", store.person(customer), channel, "hello", 5, dedup, limits))[0]


def take(log, action, worker, may=None, *, hold=""):
    return action in log.take(worker, Claim(action, hold, may))


def test_the_same_person_playbook_and_step_is_the_same_message(log, store):
    first = reserved(log, store)
    assert first.state is State.RESERVED
    assert len(first.action) == 32
    assert reserved(log, store) == first
    assert log.find("d") == first
    assert log.counts() == {"reserved": 1}


def test_it_is_taken_by_one_worker_only(log, store):
    action = reserved(log, store).action
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: take(log, action, f"w{n}"), range(8)))
    assert taken.count(True) == 1
    assert not take(log, action, "later")


def test_nobody_takes_what_the_last_look_forbids(log, store):
    action = reserved(log, store).action
    assert not take(log, action, "w", lambda _: False)
    assert log.get(action).state is State.RESERVED
    log.drop(action, "suppressed")
    assert log.get(action).state is State.DROPPED
    assert not take(log, action, "w")


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (done(provider_id="SM1"), "done", ""),
        (refused("invalid_address"), "refused", "invalid_address"),
        (unknown("timeout"), "unknown", "timeout"),
    ],
)
def test_what_became_of_it(log, store, outcome, state, reason):
    action = reserved(log, store).action
    log.end({action: outcome})
    assert log.get(action).state is State.RESERVED  # it was never taken
    take(log, action, "w")
    log.end({action: outcome})
    found = log.get(action)
    assert (found.state, found.reason) == (state, reason)
    assert found.provider_id == ("SM1" if state == "done" else "")


def told(log, action, state, number=0, code=""):
    return log.told(Delivery(id=f"e{number}", action=action, at=1, state=state, provider_id="P", code=code))


def test_a_provider_s_word_closes_an_unknown_message(log, store):
    action = reserved(log, store).action
    take(log, action, "w")
    log.end({action: unknown("timeout")})
    assert told(log, action, DeliveryState.SENT).state is State.DONE
    assert told(log, action, DeliveryState.ACCEPTED) is None  # of a lower rank, and later
    assert told(log, action, DeliveryState.DELIVERED).provider_id == "P"
    assert told(log, action, DeliveryState.FAILED, code="30005").state is State.REFUSED
    assert log.get(action).reason == "30005"


def test_a_provider_s_word_that_comes_before_ours_stands(log, store):
    action = reserved(log, store).action
    take(log, action, "w")
    told(log, action, DeliveryState.FAILED, code="bounced")
    log.end({action: done(provider_id="x")})
    assert log.get(action).state is State.REFUSED
    assert told(log, "nobody", DeliveryState.SENT) is None


def test_a_message_that_was_never_sent_is_not_closed_by_anybody_s_word(log, store):
    action = reserved(log, store).action
    assert told(log, action, DeliveryState.DELIVERED) is None
    assert log.get(action).state is State.RESERVED


def test_what_a_lost_worker_was_sending_is_unknown_and_stays_so(log, store, clock):
    mine, others = reserved(log, store, "a").action, reserved(log, store, "b").action
    take(log, mine, "me")
    take(log, others, "you")
    assert log.give_up("me", 0) == 1
    assert (log.get(mine).state, log.get(others).state) == (State.UNKNOWN, State.SENDING)
    assert log.give_up(None, clock()) == 0
    clock.advance(DAY)
    assert log.give_up(None, clock()) == 1
    assert not take(log, mine, "me")


def test_caps_count_what_is_reserved_and_sent_in_the_same_step(log, store, clock):
    limits = [Limit(2, clock() - DAY), Limit(1, clock() - DAY, "sms")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: reserved(log, store, f"d{n}", limits=limits), range(8)))
    assert sum(each is not None for each in found) == 2
    assert reserved(log, store, "other", "c-2", limits) is not None
    assert reserved(log, store, "sms", "c-3", limits, "sms") is not None
    assert reserved(log, store, "sms-2", "c-3", limits, "sms") is None
    assert reserved(log, store, "mail", "c-3", limits, "email") is not None


def test_a_dropped_or_refused_message_does_not_count(log, store, clock):
    limits = [Limit(1, clock() - DAY)]
    first = reserved(log, store, "a", limits=limits).action
    assert reserved(log, store, "b", limits=limits) is None
    log.drop(first, "suppressed")
    second = reserved(log, store, "b", limits=limits).action
    take(log, second, "w")
    log.end({second: refused("invalid_address")})
    assert reserved(log, store, "c", limits=limits) is not None


def test_an_opt_out_that_was_acknowledged_is_seen_by_every_later_send(log, store):
    """Workers take messages while people opt out: none is taken after the opt-out of its person was answered."""
    actions = [(f"c-{n % 5}", reserved(log, store, f"d{n}", f"c-{n % 5}").action) for n in range(40)]
    acknowledged: set[str] = set()
    wrong: list[str] = []

    def worker() -> None:
        for customer, action in actions:
            gone = customer in acknowledged  # known before the send was begun
            if take(log, action, "w", lambda tx, c=customer: not store.suppressions.holds(tx, c, "email", "")) and gone:
                wrong.append(action)

    def leave() -> None:
        for number in range(5):
            store.keep("s", [OptOut(id=f"o{number}", at=1, reason=OptOutReason.MANUAL, customer=f"c-{number}")])
            acknowledged.add(f"c-{number}")

    threads = [threading.Thread(target=worker) for _ in range(2)] + [threading.Thread(target=leave)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_ended_messages_with_money_are_settled_once(log, store):
    action = reserved(log, store).action
    take(log, action, "w", hold="hold-1")
    assert log.unsettled() == []
    log.end({action: done()})
    assert [each.hold for each in log.unsettled()] == ["hold-1"]
    log.settled([action])
    assert log.unsettled() == []


def test_a_dropped_message_frees_its_money_and_one_that_was_put_back_is_taken_again(log, store):
    dropped, back = reserved(log, store, "a").action, reserved(log, store, "b").action
    log.drop(dropped, "quiet", "hold-1")
    assert [(each.action, each.hold) for each in log.unsettled()] == [(dropped, "hold-1")]
    take(log, back, "w")
    log.put_back(back)
    assert take(log, back, "w2")
