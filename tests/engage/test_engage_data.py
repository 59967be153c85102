"""A person's requests run over engage: through the shield's own desk, and with keys of engage's own."""

from __future__ import annotations

import csv
import json

import pytest

from kiki.engage.action_log import ActionLog, State, Wanted
from kiki.engage.channel import Content, Message
from kiki.engage.channels.outbox import OutboxChannel
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.engage_data import EngageData
from kiki.engage.event import OptOut, OptOutReason, Order, PrivacyKind, PrivacyRequest, Touch, TouchKind
from kiki.engage.journey_book import TREATED, Entrant, JourneyBook
from kiki.engage.keyring import Keyring
from kiki.engage.profile import Profile
from kiki.engage.retention import Risk, trigger_of
from kiki.engage.trigger import Answer
from kiki.engage.trigger_audit import TriggerAudit
from kiki.ledger.master_key import KeySource
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.subjects import Subjects
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.dsr import Kind
from kiki.shield.request_desk import RequestDesk
from kiki.shield.subject_data import Task

ANN = Profile(
    customer="shop-c-12345", email="ann@example.com", phone="+15551234567", first_name="Annabella", zone="Europe/Vienna"
)
EVENTS = [
    Order(id="shop:order:998877", customer="shop-c-12345", at=5, amount=7_000_000),
    Touch(id="visit-1", customer="shop-c-12345", at=6, kind=TouchKind.VISITED),
]


def answer(customer):
    return Answer(customer, trigger_of(Risk.HIGH, 450.0), 1_790_000_000_000_000, 450.0, True, Risk.HIGH)


def task(kind=Kind.DELETION, **given):
    return Task("DSR-1", kind, "shop-c-12345", "0" * 32, **given)


def filled(store):
    store.keep("shop", [ANN, *EVENTS])
    person = store.person("shop-c-12345")
    log = ActionLog(store.database, store.clock)
    JourneyBook(store.database, store.clock).enter("book", "j", [Entrant(person, 0, TREATED, 0.9, features=b"x")])
    log.reserve(Wanted("book", "j/first", person, "email", "ten", 1, "d"))
    return log


@pytest.fixture
def own(tmp_path, clock):
    keys = Keyring(
        Subjects(SqliteStore(tmp_path / "keys.db"), KeySource(file=tmp_path / "master.key", may_create=True))
    )
    store = CustomerStore(open_database(tmp_path / "engage.db"), keys, clock)
    yield store
    store.close()


def test_everything_is_located_and_handed_over(store):
    filled(store)
    data = EngageData(store)
    found = data.locate(task())
    assert found.records == 1 + 2 + 1 + 1 + 1
    assert found.classes[0] == "profile"
    files = {each.name: b"".join(each.parts) for each in data.export(task(Kind.ACCESS))}
    assert json.loads(files["profile.json"])["email"] == "ann@example.com"
    assert b"shop:order:998877" in files["events.jsonl"]
    assert b'"offer":"ten"' in files["messages.jsonl"]
    assert data.locate(Task("r", Kind.ACCESS, "nobody", "0" * 32)).records == 0


def test_a_correction_reaches_the_profile(store):
    filled(store)
    assert EngageData(store).rectify(task(Kind.RECTIFICATION), {"email": "new@example.com", "shoe_size": "44"}) == 1
    assert store.profile("shop-c-12345").email == "new@example.com"
    assert store.profile("shop-c-12345").zone == "Europe/Vienna"


@pytest.mark.parametrize(("purposes", "stops"), [((), True), (("marketing",), True), (("analytics",), False)])
def test_a_restriction_stops_messages_that_wait(store, purposes, stops):
    log = filled(store)
    EngageData(store).restrict(task(Kind.OBJECTION, purposes=purposes))
    assert log.find("d").state is (State.DROPPED if stops else State.RESERVED)
    with store.database.writing() as tx:
        assert store.suppressions.holds(tx, "shop-c-12345", "email", "") is stops


def test_after_an_erasure_no_byte_of_the_person_is_left_and_the_figures_stay(own, tmp_path):
    log = filled(own)
    own.keep("mail", [OptOut(id="o", at=7, reason=OptOutReason.UNSUBSCRIBED, channel="email", customer="shop-c-12345")])
    demand = PrivacyRequest(id="shop:redact:shop-c-12345", at=1, kind=PrivacyKind.DELETION, customer="shop-c-12345")
    own.demands.keep(demand)
    own.demands.became(own.demands.waiting()[0][0], "DSR-1")
    audit = TriggerAudit(tmp_path / "syncengage_audit.csv")
    for customer in ("shop-c-12345", "another"):
        audit.write(answer(customer))
    [action] = log.of_person(own.person("shop-c-12345"))
    content = Content(subject="Hello", text="Dear Annabella", html="<p>Dear Annabella</p>")
    message = Message(
        action=action.action, channel="email", to="ann@example.com", content=content, customer="shop-c-12345"
    )
    assert OutboxChannel(tmp_path / "outbox").send(message).is_done
    data = EngageData(own, tmp_path / "outbox", audit)
    assert {"outbox", "triggers"} <= {*data.locate(task()).classes}
    assert {"letters.jsonl", "triggers.csv"} <= {each.name for each in data.export(task(Kind.ACCESS))}
    person = own.person("shop-c-12345")
    erased = data.erase(task())
    assert {kept.reason for kept in erased.kept} == {"suppression", "figures"}
    assert data.verify(task()).left == 0
    assert data.erase(task()).records == 0  # again: nothing is left to do
    assert data.verify(task()).left == 0
    there = [each for each in tmp_path.rglob("*") if each.is_file() and each.name != "master.key"]
    files = b"".join(each.read_bytes() for each in there)
    lines = (tmp_path / "syncengage_audit.csv").read_text().splitlines()
    assert ["another", "erased"] == sorted(row["customer_id"] for row in csv.DictReader(lines))
    for text in (b"ann@example.com", b"15551234567", b"Annabella", b"shop-c-12345", b"998877"):
        assert text not in files
    assert JourneyBook(own.database).earnings(1_000_000, 0, 10) == {person: [(5, 7_000_000)]}
    assert log.find("d").state is State.DROPPED
    # An import does not bring them back, and their opt-out holds under another id.
    assert own.keep("shop", [ANN]).erased == 1
    with own.database.writing() as tx:
        assert own.suppressions.holds(tx, "another-id", "email", "ann@example.com")
        assert not own.suppressions.holds(tx, "another-id", "sms", "ann@example.com")


def test_no_spreadsheet_computes_an_id_in_the_audit_and_who_has_it_is_erased_alone(tmp_path):
    audit = TriggerAudit(tmp_path / "syncengage_audit.csv")
    for customer in ("=HYPERLINK(1)", "'=HYPERLINK(1)", "@x", "c-1"):
        audit.write(answer(customer))
    lines = (tmp_path / "syncengage_audit.csv").read_text().splitlines()
    told = [row["customer_id"] for row in csv.DictReader(lines)]
    assert ["'=HYPERLINK(1)", "''=HYPERLINK(1)", "'@x", "c-1"] == told
    assert 1 == len(audit.lines_about("=HYPERLINK(1)")) == audit.forget("=HYPERLINK(1)")
    assert ([], 1) == (audit.lines_about("=HYPERLINK(1)"), len(audit.lines_about("'=HYPERLINK(1)")))


def test_the_shield_s_desk_runs_a_deletion_over_it(tmp_path, clock):
    guard = BudgetGuard.open(tmp_path / "shield.db", limit=10)
    store = CustomerStore(open_database(tmp_path / "engage.db"), Keyring.of_guard(guard.decider), clock)
    filled(store)
    guard.consents.grant("shop-c-12345", "marketing")
    desk = RequestDesk(guard.decider, [EngageData(store)], consents=guard.consents, packages=tmp_path / "requests")
    request = desk.create("shop-c-12345", Kind.DELETION)
    desk.verify_identity(request.id, method="operator", actor="alice")
    done = desk.run(request.id)
    assert done.state.startswith("completed")
    assert store.profile("shop-c-12345") is None
    assert store.keep("shop", [ANN]).erased == 1
    store.close()
    guard.close()
    files = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file() and each.name != "master.key")
    for text in (b"ann@example.com", b"Annabella", b"shop-c-12345"):
        assert text not in files
