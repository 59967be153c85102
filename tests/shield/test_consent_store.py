"""ConsentStore: what a script uses, over a real ledger in a file and in memory."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from kiki.clock import SECOND
from kiki.errors import ConsentConflict, ConsentDenied, InvalidInput, LedgerUnavailable
from kiki.ledger.ledger import read_entries
from kiki.shield import consent_lease
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.consent import CONSENT, LEASE_HELD, State, read_state, writes_of
from kiki.shield.consent_store import ConsentStore
from kiki.shield.fact import ConsentChanged, Decided, decode_fact
from tests.ledger.doubles import FakeClock

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock):
    with ConsentStore.open(clock=clock) as opened:
        yield opened


def facts(store: ConsentStore) -> list[ConsentChanged]:
    found = (decode_fact(entry) for entry in read_entries(store.decider.ledger.store))
    return [fact for fact in found if isinstance(fact, ConsentChanged)]


# -- saying ------------------------------------------------------------------------------------------


def test_grant_check_revoke(store: ConsentStore):
    assert not store.check("c-1", "marketing")
    granted = store.grant("c-1", "marketing", version="3")
    assert (State.GRANTED, True, True) == (granted.state, granted.in_force, granted.changed)
    assert store.check("c-1", "marketing")
    assert not store.check("c-1", "analytics")
    assert not store.check("c-2", "marketing")
    revoked = store.revoke("c-1", "marketing")
    assert (State.REVOKED, False, granted.at) == (revoked.state, revoked.in_force, revoked.granted_at)
    assert not store.check("c-1", "marketing")


def test_revoking_what_was_never_granted_is_recorded(store: ConsentStore):
    record = store.revoke("c-1", "marketing", note="wrote to us")
    assert (State.REVOKED, None) == (record.state, record.granted_at)
    assert ["revoked"] == [fact.state for fact in facts(store)]


def test_granting_again_what_holds_answers_the_first_record(store: ConsentStore, clock: FakeClock):
    first = store.grant("c-1", "marketing", version="3", ip_address="203.0.113.7")
    clock.advance(60)
    again = store.grant("c-1", "marketing", version="3", ip_address="198.51.100.1")
    assert (first.event_id, first.at, False) == (again.event_id, again.at, again.changed)
    assert len(facts(store)) == 1
    assert store.grant("c-1", "marketing", version="4").changed


def test_require_answers_the_record_or_says_why_not(store: ConsentStore, clock: FakeClock):
    record = store.grant("c-1", "marketing", expires_at=DAY)
    assert record.event_id == store.require("c-1", "marketing").event_id
    clock.advance(86400)
    store.deny("c-1", "analytics")
    store.revoke("c-1", "targeting")
    told = {}
    for purpose in ("marketing", "analytics", "targeting", "profiling"):
        with pytest.raises(ConsentDenied) as caught:
            store.require("c-1", purpose)
        assert purpose == caught.value.purpose
        told[caught.value.state] = str(caught.value)
    assert {
        "expired": "the customer's consent to marketing has run out",
        "denied": "the customer said no to analytics",
        "revoked": "the customer took back the consent to targeting",
        "none": "nothing is known of the customer's consent to profiling",
    } == told


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda store: store.grant("", "marketing"), "empty"),
        (lambda store: store.grant("x" * 1024, "marketing"), "too long"),
        (lambda store: store.grant("c-1", "spam"), "is not a purpose"),
        (lambda store: store.require("c-1", "spam"), "is not a purpose"),
        (lambda store: store.check("", "marketing"), "empty"),
        (lambda store: store.status("a\0b"), "printable"),
        (lambda store: store.grant("c-1", "marketing", expires_at=datetime(2020, 1, 1, tzinfo=UTC)), "in the past"),
        (lambda store: store.grant("c-1", "marketing", expires_at=timedelta(0)), "in the past"),
        (lambda store: store.grant("c-1", "marketing", expires_at=datetime(2030, 1, 1)), "time zone"),
        (lambda store: store.grant("c-1", "marketing", expires_at=10**30), "9999"),
        (lambda store: store.grant("c-1", "marketing", expires_at=timedelta(days=4_000_000)), "9999"),
        (lambda store: store.grant("c-1", "marketing", expires_at=timedelta.max), "9999"),
        (lambda store: store.grant("c-1", "marketing", expires_at="2030-01-01"), "aware datetime"),
        (lambda store: store.grant("c-1", "marketing", said_at="2020-01-01"), "aware datetime"),
        (lambda store: store.grant("c-1", "marketing", method="gpc"), "say how the person"),
        (lambda store: store.revoke("c-1", "marketing", method="gpc"), "say how the person"),
        (lambda store: store.deny("c-1", "marketing", method="import"), "say how the person"),
        (lambda store: store.grant("c-1", "marketing", said_at=datetime(2099, 1, 1, tzinfo=UTC)), "in the future"),
        (lambda store: store.grant("c-1", "marketing", basis="because"), "legal basis"),
        (lambda store: store.grant("c-1", "marketing", method="magic"), "method"),
        (lambda store: store.grant("c-1", "marketing", version="x" * 65), "version"),
        (lambda store: store.grant("c-1", "marketing", notice_sha256="zz"), "64 hexadecimal"),
        (lambda store: store.grant("c-1", "marketing", notice="a", notice_sha256="00" * 32), "not that of its text"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(store: ConsentStore, call, words):
    with pytest.raises(InvalidInput, match=words):
        call(store)
    assert [] == facts(store)


def test_the_opt_out_signal_of_a_browser(store: ConsentStore):
    store.grant("c-1", "data_sharing")
    store.grant("c-1", "marketing")
    assert {} == store.signal("c-1", "0")
    assert {} == store.signal("c-1", ["true", "01"])
    records = store.signal("c-1", ["0", "1"])
    assert {"data_sharing": "denied", "targeting": "denied"} == {name: each.state for name, each in records.items()}
    assert [False, True] == store.check_many([("c-1", "data_sharing"), ("c-1", "marketing")])
    assert not any(record.changed for record in store.signal("c-1").values())
    with pytest.raises(ConsentConflict):
        store.grant("c-1", "targeting")
    assert store.grant("c-1", "targeting", overrides=True).in_force
    assert store.signal("c-1")["targeting"].in_force


# -- looking -----------------------------------------------------------------------------------------


def test_status_tells_every_purpose_with_what_was_sealed(store: ConsentStore):
    store.grant(
        "c-1",
        "marketing",
        version="3",
        notice="We write to you on Fridays.",
        ip_address="203.0.113.77",
        user_agent="Mozilla/5.0\x00\x1b (X11)",
        guardian="Ada Müller",
        note="two\nlines",
        jurisdiction="EU",
        basis="Consent",
    )
    store.deny("c-1", "analytics")
    status = store.status("c-1")
    assert ["analytics", "marketing"] == sorted(status)
    found = status["marketing"]
    assert ("203.0.113.0/24", "EU", "guardian", True) == (
        found.network,
        found.jurisdiction,
        found.method,
        found.guardian,
    )
    assert sha256(b"We write to you on Fridays.").hexdigest() == found.notice
    assert {
        "customer": "c-1",
        "ip": "203.0.113.77",
        "agent": "Mozilla/5.0 (X11)",
        "note": "two\nlines",
        "notice": "We write to you on Fridays.",
        "guardian": "Ada Müller",
    } == msgspec.to_builtins(found.details)
    assert {} == store.status("c-2")


def test_history_is_everything_that_was_said_in_order(store: ConsentStore, clock: FakeClock):
    store.grant("c-1", "marketing", version="1", note="first")
    clock.advance(1)
    store.grant("c-1", "analytics")
    clock.advance(1)
    store.grant("c-1", "marketing", version="2")
    clock.advance(1)
    store.revoke("c-1", "marketing")
    assert [
        ("marketing", "granted", "1"),
        ("analytics", "granted", ""),
        ("marketing", "granted", "2"),
        ("marketing", "revoked", "2"),
    ] == [(record.purpose, record.state, record.version) for record in store.history("c-1")]
    assert ["first", "", ""] == [record.details.note for record in store.history("c-1", "marketing")]
    assert [] == store.history("c-2")


def test_consent_that_is_about_to_run_out_is_found(store: ConsentStore, clock: FakeClock):
    store.grant("c-1", "marketing", expires_at=10 * DAY)
    store.grant("c-2", "marketing", expires_at=40 * DAY)
    store.grant("c-3", "marketing")
    store.grant("c-4", "marketing", expires_at=DAY)
    clock.advance(2 * 86400)
    assert ["c-1"] == [record.customer for record in store.expiring(30 * DAY)]


def test_purposes_of_ones_own(tmp_path: Path):
    with ConsentStore.open(tmp_path / "shield.db", purposes=["newsletter"]) as store:
        store.grant("c-1", "newsletter")
    with ConsentStore.open(tmp_path / "shield.db") as store:
        with pytest.raises(InvalidInput, match="is not a purpose"):
            store.check("c-1", "newsletter")
        assert ["newsletter"] == list(store.status("c-1"))


# -- durable, private, provable ----------------------------------------------------------------------


def test_consent_survives_a_restart_and_nothing_personal_is_on_disk(tmp_path: Path):
    canaries = ["canary-id-4711", "203.0.113.77", "CanaryAgent", "canary note", "Canary Guardian", "canary notice text"]
    with ConsentStore.open(tmp_path / "shield.db") as store:
        store.grant(
            canaries[0],
            "marketing",
            ip_address=canaries[1],
            user_agent=canaries[2],
            note=canaries[3],
            guardian=canaries[4],
            notice=canaries[5],
        )
    with ConsentStore.open(tmp_path / "shield.db") as store:
        assert store.check(canaries[0], "marketing")
        assert canaries[3] == store.status(canaries[0])["marketing"].details.note
        everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"marketing" in everything
    assert [] == [canary for canary in canaries if canary.encode() in everything]


def test_an_erased_person_is_unknown_and_the_entries_stay(tmp_path: Path):
    with ConsentStore.open(tmp_path / "shield.db") as store:
        subject = store.grant("c-1", "marketing", note="secret").subject
        store.grant("c-2", "marketing")
        store.decider.forget("customer:c-1")
        assert not store.check("c-1", "marketing")
        assert ({}, []) == (store.status("c-1"), store.history("c-1"))
        assert ["c-2"] == [record.customer for record in store.records()]
        assert subject in {fact.subject for fact in facts(store)}
        again = store.grant("c-1", "analytics")
        assert again.subject != subject
        assert ["analytics"] == list(store.status("c-1"))


def test_the_projection_is_what_the_facts_say(tmp_path: Path):
    with ConsentStore.open(tmp_path / "shield.db") as store:
        for number in range(40):
            store.grant(f"c-{number % 7}", "marketing", version=str(number))
            if number % 3 == 0:
                store.revoke(f"c-{number % 7}", "marketing")
        ledger = store.decider.ledger
        rebuilt = {}
        for entry in read_entries(ledger.store):
            fact = decode_fact(entry)
            if isinstance(fact, ConsentChanged):
                for write in writes_of(fact, ledger.chain, entry.seq):
                    rebuilt[write.key] = write.value
        assert dict(ledger.store.scan(CONSENT)) == rebuilt


def test_a_full_disk_acknowledges_nothing_and_is_got_over(clock: FakeClock):
    with ConsentStore.open(clock=clock) as store:
        disk = store.decider.ledger.store
        store.grant("c-1", "marketing")
        disk.fail, disk.recoverable = "no space left", True
        with pytest.raises(LedgerUnavailable):
            store.revoke("c-1", "marketing")
        disk.fail = None
        clock.advance(5)
        assert State.REVOKED is store.revoke("c-1", "marketing").state
        assert not store.check("c-1", "marketing")


def test_a_decision_rests_on_the_consent_of_its_moment():
    """A spend for a purpose is refused without consent, and its entry names the consent that it looked at."""
    with BudgetGuard.open(limit="100") as guard:
        scopes = {"customer": "c-1"}
        granted = guard.consents.grant("c-1", "marketing")
        outcome = guard.spend("1", scopes, purpose="marketing")
        guard.consents.revoke("c-1", "marketing")
        assert not guard.check("1", scopes, purpose="marketing").allowed
        (fact,) = [
            fact
            for entry in read_entries(guard.decider.ledger.store, outcome.seq, outcome.seq)
            if isinstance(fact := decode_fact(entry), Decided)
        ]
        assert [(granted.subject, granted.seq, True)] == [
            (each.subject, each.seq, each.given) for each in fact.consents
        ]


# -- many at once ------------------------------------------------------------------------------------


def test_a_storm_of_grants_and_revocations_keeps_one_history_for_each_person(tmp_path: Path):
    """Sixteen threads at four customers: every acknowledged word is in the one chain of its person and purpose."""
    with ConsentStore.open(tmp_path / "shield.db") as store:
        written: list[str] = []

        def shout(number: int) -> None:
            chance = random.Random(number)
            for turn in range(25):
                customer = f"c-{chance.randrange(4)}"
                verb = store.grant if chance.random() < 0.5 else store.revoke
                record = verb(customer, "marketing", version=f"{number}.{turn}")
                if record.changed:
                    written.append(record.event_id)

        threads = [threading.Thread(target=shout, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        histories = [store.history(f"c-{number}", "marketing") for number in range(4)]
        assert sorted(written) == sorted(record.event_id for history in histories for record in history)
        for number, history in enumerate(histories):
            assert [record.seq for record in history] == sorted(record.seq for record in history)
            assert (history[-1].state is State.GRANTED) == store.check(f"c-{number}", "marketing")
        states = [read_state(value) for _, value in store.decider.ledger.store.scan(CONSENT)]
        assert sorted(history[-1].seq for history in histories) == sorted(state.seq for state in states)


def test_many_are_checked_at_once_in_order(store: ConsentStore):
    for number in range(0, 100, 2):
        store.grant(f"c-{number}", "marketing")
    asked = [(f"c-{number}", "marketing") for number in range(100)]
    assert [number % 2 == 0 for number in range(100)] == store.check_many(asked)
    assert [] == store.check_many([])


def test_a_list_of_words_is_durable_together_and_each_has_its_answer(store: ConsentStore):
    store.signal("c-2")
    commits = store.decider.ledger.store.commits
    said = [store.said(f"c-{number}", "targeting", State.GRANTED) for number in range(1, 4)]
    first, second, third = store.say_all(said)
    assert (True, True) == (first.in_force, third.in_force)
    assert isinstance(second, ConsentConflict)
    assert commits + 1 == store.decider.ledger.store.commits


# -- leases ------------------------------------------------------------------------------------------


def test_a_lease_is_no_longer_than_the_consent(store: ConsentStore, clock: FakeClock):
    store.grant("c-1", "marketing", expires_at=timedelta(seconds=1))
    leased = store.lease("c-1", "marketing", "worker-1")
    assert (True, 1_000_000) == (leased.allowed, leased.span)
    store.grant("c-1", "marketing", version="2")
    assert LEASE_HELD == store.lease("c-1", "marketing", "worker-1").span
    assert not store.lease("c-9", "marketing", "worker-1").allowed


def test_a_revocation_is_acknowledged_when_the_holder_has_confirmed(store: ConsentStore, monkeypatch):
    monkeypatch.setattr(consent_lease, "LEASE", 3600 * SECOND)  # nothing but the confirmation ends the wait
    store.grant("c-1", "marketing")
    leased = store.lease("c-1", "marketing", "worker-1")
    done = threading.Event()

    def revoke() -> None:
        store.revoke("c-1", "marketing")
        done.set()

    revoking = threading.Thread(target=revoke)
    revoking.start()
    while not (recalls := store.leases.recalls("worker-1")):
        time.sleep(0.001)
    assert not store.check("c-1", "marketing")
    assert not done.is_set()
    store.leases.confirm(recalls[0].subject, "marketing", "worker-1", leased.end)
    assert done.wait(60)
    revoking.join()


def test_a_killed_grantor_leaves_its_leases_to_be_waited_for(tmp_path: Path):
    with ConsentStore.open(tmp_path / "shield.db") as store:
        store.grant("c-1", "marketing")
    with ConsentStore.open(tmp_path / "shield.db") as store:
        assert store.leases.wait("00" * 16, "marketing", 0)
        store.lease("c-1", "marketing", "worker-1")
    with ConsentStore.open(tmp_path / "shield.db") as store:
        assert not store.leases.wait("00" * 16, "marketing", 0)
