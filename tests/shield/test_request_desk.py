"""RequestDesk: from receipt to proof, over a real ledger in memory and in files."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from kiki.errors import (
    Conflict,
    IdentityDenied,
    InvalidInput,
    KeyReused,
    KikiError,
    NotFound,
    SystemsError,
)
from kiki.ledger.ledger import read_entries
from kiki.shield.consent import State as Said
from kiki.shield.dsr import Kind, State
from kiki.shield.fact import RequestChanged, decode_fact
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import PACKAGE_AGE, RequestDesk
from kiki.shield.request_proof import verify_request_proof
from kiki.shield.subject_request import REQUEST, Kept, read_request, writes_of
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Channel, Shop

DAY = 24 * 3600


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.records["c-1"] = ["order 1", "order 2"]
    return shop


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def desk(clock: FakeClock, shop: Shop, channel: Channel) -> Iterator[RequestDesk]:
    decider = open_decider(None, None, clock=clock)
    desk = RequestDesk(decider, [shop], channel=channel)
    yield desk
    desk.close()
    decider.close()


def verified(desk: RequestDesk, customer: str, kind: str, **given):
    record = desk.create(customer, kind, **given)
    return desk.verify_identity(record.id, method="operator", actor="anna")


def facts(desk: RequestDesk) -> list[RequestChanged]:
    found = (decode_fact(entry) for entry in read_entries(desk.decider.ledger.store))
    return [fact for fact in found if isinstance(fact, RequestChanged)]


def package_of(desk: RequestDesk, request: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(b"".join(desk.package(request))))


# -- coming in ---------------------------------------------------------------------------------------


def test_a_request_gets_an_id_a_state_and_its_clocks(desk: RequestDesk):
    record = desk.create("c-1", "access", details="what do you know?", requested_by="Jo", ip_address="203.0.113.7")
    assert record.id.startswith("DSR-1700000000-")
    assert (Kind.ACCESS, State.RECEIVED, True) == (record.kind, record.state, record.is_new)
    assert ("PENDING", "203.0.113.0/24") == (record.state.outward, record.request.network)
    plain = desk.get(record.id).as_dict()
    assert ("what do you know?", "Jo", "c-1") == (plain["details"], plain["requested_by"], plain["customer_id"])
    assert {"gdpr", "ccpa"} == {deadline["regime"] for deadline in plain["deadlines"]}


@pytest.mark.parametrize("customer", ["c-1", "x", "a" * 256, "Zoë ☕"])
def test_ids_of_any_length_work(desk: RequestDesk, customer: str):
    assert customer == desk.create(customer, "DELETION").customer


@pytest.mark.parametrize("customer", ["", "a" * 1024, "a\nb", "*", 7, None])
def test_ids_that_are_none_are_refused_and_nothing_is_written(desk: RequestDesk, customer: object):
    with pytest.raises(InvalidInput):
        desk.create(customer, "DELETION")
    assert [] == facts(desk)


@pytest.mark.parametrize("kind", ["", "ERASURE", None, 3, "ACCESS;"])
def test_an_unknown_type_is_refused_with_the_list(desk: RequestDesk, kind: object):
    with pytest.raises(InvalidInput, match="ACCESS, DELETION, PORTABILITY, RECTIFICATION, OBJECTION, OPT_OUT"):
        desk.create("c-1", kind)


@pytest.mark.parametrize(
    "given",
    [
        {"corrections": {"name": "Jo"}},
        {"purposes": ["marketing"]},
        {"regimes": ["lgpd"]},
        {"received_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"received_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"details": "x" * 5000},
        {"actor": "x" * 65},
    ],
)
def test_what_does_not_belong_to_a_request_is_refused(desk: RequestDesk, given: dict):
    with pytest.raises(InvalidInput):
        desk.create("c-1", "ACCESS", **given)


def test_a_letter_counts_from_the_day_it_came(desk: RequestDesk, clock: FakeClock):
    late = desk.create("c-1", "ACCESS", received_at=clock.now - 10 * DAY * 1_000_000)
    now = desk.create("c-2", "ACCESS")
    assert late.due_at < now.due_at
    assert clock.now - 10 * DAY * 1_000_000 == late.request.received_at


def test_the_same_person_and_type_get_the_open_request_and_never_a_second_one(desk: RequestDesk):
    first = desk.create("c-1", "ACCESS")
    again = desk.create("c-1", "access", details="hello?")
    assert (first.id, False) == (again.id, again.is_new)
    assert first.id != desk.create("c-1", "DELETION").id
    assert first.id != desk.create("c-2", "ACCESS").id
    desk.cancel(first.id)
    assert first.id != desk.create("c-1", "ACCESS").id


def test_many_threads_that_ask_for_the_same_get_one_request(desk: RequestDesk):
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(desk.create("c-1", "ACCESS").id)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (16, 1) == (len(found), len(set(found)))
    assert 1 == sum(fact.step == "received" for fact in facts(desk))


def test_an_idempotency_key_is_one_request_also_after_it_is_closed(desk: RequestDesk):
    first = desk.create("c-1", "ACCESS", key="letter 7")
    desk.cancel(first.id)
    assert first.id == desk.create("c-1", "ACCESS", key="letter 7").id
    for customer, kind in (("c-2", "ACCESS"), ("c-1", "DELETION")):
        with pytest.raises(KeyReused):
            desk.create(customer, kind, key="letter 7")


def test_repeating_a_finished_deletion_under_its_key_does_not_make_the_person_known_again(desk: RequestDesk):
    record = desk.create("c-1", "DELETION", key="k")
    desk.verify_identity(record.id, method="operator", actor="anna")
    desk.run(record.id)
    assert (record.id, State.COMPLETED) == (desk.create("c-1", "DELETION", key="k").id, desk.get(record.id).state)
    assert desk.decider.subjects.find("customer:c-1") is None


# -- objections and opt-outs -------------------------------------------------------------------------


def test_an_opt_out_holds_at_once_and_needs_no_identity(desk: RequestDesk, shop: Shop):
    desk.consents.grant("c-1", "data_sharing")
    desk.consents.grant("c-1", "marketing")
    record = desk.create("c-1", "OPT_OUT")
    assert (State.VERIFIED, "none") == (record.state, record.request.verified_by)
    assert not desk.consents.check("c-1", "data_sharing")
    assert desk.consents.check("c-1", "marketing")
    status = desk.consents.status("c-1")
    assert (Said.DENIED, "request") == (status["data_sharing"].state, status["data_sharing"].method)
    assert (Said.DENIED, Said.GRANTED) == (status["targeting"].state, status["marketing"].state)
    done = desk.run(record.id)
    assert (State.COMPLETED, {"c-1"}) == (done.state, shop.restricted)


def test_an_objection_stops_the_purposes_it_names(desk: RequestDesk):
    desk.consents.grant("c-1", "analytics")
    record = desk.create("c-1", "objection", purposes=["analytics"])
    assert not desk.consents.check("c-1", "analytics")
    assert ("analytics",) == record.request.purposes
    assert ("marketing", "targeting", "profiling") == desk.create("c-2", "OBJECTION").request.purposes


def test_an_opt_out_under_ccpa_has_15_business_days(desk: RequestDesk):
    record = desk.create("c-1", "OPT_OUT", regimes=["ccpa"])
    assert ["2023-12-05"] == [deadline.day for deadline in record.deadlines]


# -- identity ----------------------------------------------------------------------------------------


def test_nothing_runs_before_the_identity_is_verified(desk: RequestDesk, shop: Shop):
    for kind in ("ACCESS", "DELETION", "PORTABILITY"):
        with pytest.raises(Conflict, match="received"):
            desk.run(desk.create("c-1", kind).id)
    assert [] == shop.calls


def test_the_code_that_was_sent_verifies(desk: RequestDesk, channel: Channel):
    record = desk.create("c-1", "ACCESS")
    assert State.IDENTITY_PENDING is desk.send_code(record.id).state
    ((customer, code, request),) = channel.sent
    assert ("c-1", record.id, 8) == (customer, request, len(code))
    done = desk.verify_identity(record.id, code=f"{code[:4]} {code[4:]}")
    assert (State.VERIFIED, "code") == (done.state, done.request.verified_by)


def test_only_a_keyed_hash_of_the_code_is_kept(desk: RequestDesk, channel: Channel):
    record = desk.create("c-1", "ACCESS")
    desk.send_code(record.id)
    code = channel.sent[0][1].encode()
    stored = [data for _, data in desk.decider.ledger.store.entries()]
    stored += [
        value for space in desk.decider.ledger.store.spaces() for _, value in desk.decider.ledger.store.scan(space)
    ]
    assert not any(code in data for data in stored)


def test_a_code_dies_of_five_wrong_answers(desk: RequestDesk, channel: Channel):
    record = desk.create("c-1", "ACCESS")
    desk.send_code(record.id)
    right = channel.sent[0][1]
    wrong = f"{(int(right) + 1) % 10**8:08d}"
    for _ in range(5):
        with pytest.raises(IdentityDenied, match="wrong"):
            desk.verify_identity(record.id, code=wrong)
    with pytest.raises(IdentityDenied, match="no code is waiting"):
        desk.verify_identity(record.id, code=right)
    desk.send_code(record.id)
    assert State.VERIFIED is desk.verify_identity(record.id, code=channel.sent[1][1]).state


def test_a_code_is_too_old_after_half_an_hour(desk: RequestDesk, channel: Channel, clock: FakeClock):
    record = desk.create("c-1", "ACCESS")
    desk.send_code(record.id)
    clock.advance(1801)
    with pytest.raises(IdentityDenied, match="too old"):
        desk.verify_identity(record.id, code=channel.sent[0][1])


def test_an_earlier_code_and_that_of_another_request_are_wrong(desk: RequestDesk, channel: Channel):
    one, other = desk.create("c-1", "ACCESS"), desk.create("c-1", "DELETION")
    for request in (one, one, other):
        desk.send_code(request.id)
    for code in (channel.sent[0][1], channel.sent[2][1]):
        with pytest.raises(IdentityDenied):
            desk.verify_identity(one.id, code=code)


def test_five_codes_are_sent_and_no_more(desk: RequestDesk):
    record = desk.create("c-1", "ACCESS")
    for _ in range(5):
        desk.send_code(record.id)
    with pytest.raises(Conflict, match="5 codes were sent"):
        desk.send_code(record.id)


@pytest.mark.parametrize("code", ["", "1234567", "123456789", "abcdefgh", "１２３４５６７８", None, "1" * 100])
def test_what_is_no_code_does_not_count_as_an_answer(desk: RequestDesk, code: object):
    record = desk.create("c-1", "ACCESS")
    desk.send_code(record.id)
    with pytest.raises(InvalidInput):
        desk.verify_identity(record.id, code=code)
    assert 0 == desk.get(record.id).request.code_failures


def test_the_answers_are_the_same_for_who_is_known_and_who_is_not(desk: RequestDesk):
    desk.consents.grant("known", "marketing")
    told = []
    for customer in ("known", "unknown"):
        record = desk.create(customer, "ACCESS")
        sent = desk.send_code(record.id)
        plain = sent.as_dict()
        told.append(
            {name: value for name, value in plain.items() if name not in {"request_id", "customer_id", "event_ids"}}
        )
    assert told[0] == told[1]


def test_an_operator_vouches_by_name(desk: RequestDesk):
    record = desk.create("c-1", "ACCESS")
    with pytest.raises(InvalidInput, match="by name"):
        desk.verify_identity(record.id, method="operator")
    with pytest.raises(InvalidInput, match="code or operator"):
        desk.verify_identity(record.id, method="magic", actor="anna")
    assert "operator" == desk.verify_identity(record.id, method="operator", actor="anna").request.verified_by


def test_an_agent_has_to_show_the_permission(desk: RequestDesk, channel: Channel):
    record = desk.create("c-1", "ACCESS", agent="Law & Co")
    desk.send_code(record.id)
    with pytest.raises(Conflict, match="agent"):
        desk.verify_identity(record.id, code=channel.sent[0][1])
    with pytest.raises(Conflict, match="agent"):
        desk.verify_identity(record.id, method="operator", actor="anna")
    done = desk.verify_identity(record.id, method="operator", actor="anna", agent_proof="file 77")
    assert State.VERIFIED is done.state


def test_without_a_channel_no_code_is_sent():
    decider = open_decider(None, None, clock=FakeClock())
    desk = RequestDesk(decider)
    record = desk.create("c-1", "ACCESS")
    with pytest.raises(Conflict, match="no channel"):
        desk.send_code(record.id)
    desk.close()
    decider.close()


# -- clocks ------------------------------------------------------------------------------------------


def test_a_pause_stops_the_clock_of_gdpr_and_not_that_of_ccpa(desk: RequestDesk, clock: FakeClock):
    record = desk.create("c-1", "ACCESS")
    paused = desk.pause(record.id, actor="anna")
    assert State.PAUSED is paused.state
    clock.advance(10 * DAY)
    resumed = desk.resume(record.id, actor="anna")
    assert State.IDENTITY_PENDING is resumed.state
    answers = {deadline.regime: deadline.day for deadline in resumed.deadlines if deadline.due == "answer"}
    assert {"gdpr": "2023-12-25", "ccpa": "2023-12-29"} == answers


def test_verification_ends_a_pause(desk: RequestDesk, clock: FakeClock):
    record = desk.create("c-1", "ACCESS")
    desk.pause(record.id)
    clock.advance(5 * DAY)
    done = desk.verify_identity(record.id, method="operator", actor="anna")
    clock.advance(5 * DAY)
    assert done.due_at == desk.get(record.id).due_at
    assert not any(deadline.is_paused for deadline in done.deadlines)


def test_an_extension_is_told_in_time_with_reasons_and_once(desk: RequestDesk, clock: FakeClock):
    record = desk.create("c-1", "ACCESS", regimes=["gdpr"])
    with pytest.raises(InvalidInput, match="reasons"):
        desk.extend(record.id, " ")
    longer = desk.extend(record.id, "four archives to search", actor="anna")
    assert "2024-02-14" == next(one.day for one in longer.deadlines if one.due == "answer")
    with pytest.raises(Conflict, match="once"):
        desk.extend(record.id, "still not done")
    late = desk.create("c-2", "ACCESS", regimes=["gdpr"])
    clock.advance(40 * DAY)
    with pytest.raises(Conflict, match="too late"):
        desk.extend(late.id, "we forgot")


def test_an_extension_may_be_for_one_law_alone(desk: RequestDesk):
    record = desk.create("c-1", "ACCESS")
    longer = desk.extend(record.id, "many systems", regimes=["ccpa"])
    assert {"gdpr": False, "ccpa": True} == {
        one.regime: one.is_extended for one in longer.deadlines if one.due == "answer"
    }
    with pytest.raises(Conflict, match="GDPR"):
        desk.extend(desk.create("c-2", "ACCESS", regimes=["ccpa"]).id, "why not", regimes=["gdpr"])
    with pytest.raises(Conflict, match="cannot be extended"):
        desk.extend(desk.create("c-1", "OPT_OUT", regimes=["ccpa"]).id, "an opt-out cannot wait")


def test_the_list_has_what_is_most_urgent_first_and_the_closed_last(desk: RequestDesk, clock: FakeClock):
    slow = desk.create("c-1", "ACCESS")
    clock.advance(DAY)
    fast = desk.create("c-2", "OPT_OUT")
    closed = desk.create("c-3", "ACCESS")
    desk.cancel(closed.id)
    assert [fast.id, slow.id, closed.id] == [record.id for record in desk.list()]
    assert [slow.id] == [record.id for record in desk.list(kind="ACCESS", is_open=True)]
    assert [closed.id] == [record.id for record in desk.list(state="cancelled")]
    assert [slow.id] == [record.id for record in desk.list(customer="c-1")]
    assert [] == desk.list(customer="nobody")
    assert [fast.id] == [record.id for record in desk.list(due_before=clock.now + 25 * DAY * 1_000_000)]
    assert desk.decider.subjects.find("customer:nobody") is None


def test_what_was_not_done_in_time_is_overdue(desk: RequestDesk, clock: FakeClock):
    record = desk.create("c-1", "ACCESS")
    clock.advance(31 * DAY)
    assert not record.is_overdue(record.due_at)
    assert desk.get(record.id).is_overdue(clock.now)


# -- working on it -----------------------------------------------------------------------------------


def test_a_refusal_names_the_provision_and_the_reasons(desk: RequestDesk):
    record = desk.create("c-1", "ACCESS")
    with pytest.raises(InvalidInput, match="provision"):
        desk.refuse(record.id, "", "no")
    with pytest.raises(InvalidInput, match="reasons"):
        desk.refuse(record.id, "GDPR 12(5)", "")
    done = desk.refuse(record.id, "GDPR 12(5)", "the tenth time this week", actor="anna")
    assert (State.REFUSED, "GDPR 12(5)", "REJECTED") == (done.state, done.request.article, done.state.outward)
    for act in (lambda: desk.run(record.id), lambda: desk.cancel(record.id), lambda: desk.pause(record.id)):
        with pytest.raises(Conflict, match="refused"):
            act()


def test_assignment_and_acknowledgement_are_remembered(desk: RequestDesk, clock: FakeClock):
    record = desk.create("c-1", "ACCESS")
    desk.assign(record.id, "anna", actor="boss")
    desk.acknowledge(record.id)
    found = desk.get(record.id).request
    assert ("anna", clock.now) == (found.assignee, found.acknowledged_at)


@pytest.mark.parametrize("number", ["DSR-1-00000000", "DSR-1700000000-ffffffff"])
def test_what_is_not_there_is_not_found(desk: RequestDesk, number: str):
    for act in (desk.get, desk.run, desk.cancel, desk.proof, desk.send_code):
        with pytest.raises(NotFound):
            act(number)


@pytest.mark.parametrize("number", ["", "DSR-", "DSR-1-0000000g", "../../etc/passwd", None, "DSR-1-00000000\n"])
def test_what_is_no_id_is_refused(desk: RequestDesk, number: object):
    with pytest.raises(InvalidInput):
        desk.get(number)


# -- access, portability, rectification --------------------------------------------------------------


def test_access_hands_over_what_every_system_has(desk: RequestDesk, shop: Shop):
    desk.consents.grant("c-1", "marketing", ip_address="203.0.113.7", user_agent="Firefox")
    record = verified(desk, "c-1", "ACCESS")
    done = desk.run(record.id)
    assert State.COMPLETED is done.state
    package = package_of(desk, record.id)
    assert package.testzip() is None
    assert b"order 1\norder 2\n" == package.read("shop/orders.txt")
    assert b"203.0.113.7" in package.read("consents/consents.json")
    assert b"203.0.113.7" in package.read("evidence/evidence.jsonl")
    assert "c-1" in package.read("summary.html").decode()
    manifest = json.loads(package.read("manifest.json"))
    assert {file["name"] for file in manifest["files"]} == set(package.namelist()) - {"summary.html", "manifest.json"}
    assert {"outcome": "done", "located": 2, "exported": 2} == done.as_dict()["systems"]["shop"]


def test_access_tells_nothing_about_others(desk: RequestDesk):
    desk.consents.grant("c-1", "marketing")
    desk.consents.grant("c-2", "marketing", note="a secret of c-2")
    other = desk.decider.subjects.find("customer:c-2").reference.encode()
    record = verified(desk, "c-1", "ACCESS")
    desk.run(record.id)
    package = package_of(desk, record.id)
    for name in package.namelist():
        assert not any(needle in package.read(name) for needle in (b"c-2", other)), name


def test_a_package_is_not_finished_while_a_system_fails_and_is_made_whole_later(
    desk: RequestDesk, shop: Shop, clock: FakeClock
):
    record = verified(desk, "c-1", "PORTABILITY")
    shop.broken = {"export"}
    waits = desk.run(record.id)
    assert (State.WAITING, "system_unavailable") == (waits.state, waits.request.systems["shop"].failure)
    assert all(outcome.exported is None for outcome in waits.request.systems.values())
    with pytest.raises(NotFound, match="no package"):
        desk.package(record.id)
    assert [] == list(desk.packages.iterdir())
    shop.broken = set()
    clock.advance(61)
    (done,) = desk.run_due()
    assert State.COMPLETED is done.state
    assert b"order 1\norder 2\n" == package_of(desk, record.id).read("shop/orders.txt")


def test_a_package_is_sealed_on_disk_and_removed_after_its_time(desk: RequestDesk, clock: FakeClock):
    desk.consents.grant("c-1", "marketing", note="a very private note")
    record = verified(desk, "c-1", "ACCESS")
    desk.run(record.id)
    (file,) = desk.packages.iterdir()
    assert 0o600 == file.stat().st_mode & 0o777
    assert not any(needle in file.read_bytes() for needle in (b"c-1", b"private", b"PK\x03\x04"))
    assert 0 == desk.tidy()
    clock.advance(PACKAGE_AGE // 1_000_000 + 1)
    assert (1, []) == (desk.tidy(), list(desk.packages.iterdir()))


def test_rectification_hands_the_right_values_to_every_system(desk: RequestDesk, shop: Shop):
    record = verified(desk, "c-1", "RECTIFICATION", corrections={"name": "Zoë"})
    done = desk.run(record.id)
    assert (State.COMPLETED, 1, ["name=Zoë"]) == (
        done.state,
        done.request.systems["shop"].rectified,
        shop.records["c-1"],
    )


def test_a_rectification_that_says_nothing_is_received_and_cannot_be_run(desk: RequestDesk, shop: Shop):
    record = verified(desk, "c-1", "RECTIFICATION")
    with pytest.raises(Conflict, match="no fields and values"):
        desk.run(record.id)
    assert (State.VERIFIED, []) == (desk.get(record.id).state, shop.calls)


# -- deletion ----------------------------------------------------------------------------------------


def test_a_deletion_goes_through_every_system_in_order_and_the_keys_last(clock: FakeClock):
    calls: list[tuple[str, str]] = []
    orders, crm = Shop("orders", calls=calls), Shop("crm", depends_on=["orders"], calls=calls)
    decider = open_decider(None, None, clock=clock)
    desk = RequestDesk(decider, [orders, crm])
    orders.records["c-1"], crm.records["c-1"] = ["o"], ["a", "b"]
    desk.consents.grant("c-1", "marketing")
    steps: list[tuple[str, str]] = []
    record = verified(desk, "c-1", "DELETION")
    done = desk.run(record.id, lambda system, step, _: steps.append((system, str(step))))
    assert State.COMPLETED is done.state
    assert [
        *(("crm", "restrict"), ("orders", "restrict"), ("crm", "locate"), ("orders", "locate")),
        *(("crm", "erase"), ("orders", "erase"), ("crm", "verify"), ("orders", "verify")),
    ] == calls
    assert ("keys", "checked") == steps[-1]
    assert {"outcome": "done", "located": 2, "restricted": True, "erased": 2, "read_back": True} == done.as_dict()[
        "systems"
    ]["crm"]
    assert decider.subjects.find("customer:c-1") is None
    assert decider.subjects.erased_at("customer:c-1") is not None
    assert "" == desk.get(record.id).customer
    desk.close()
    decider.close()


def test_what_every_store_keeps_is_stated_and_names_nobody(desk: RequestDesk):
    desk.consents.grant("c-1", "marketing")
    done = desk.run(verified(desk, "c-1", "DELETION").id)
    kept = {name: [each.reason for each in outcome.kept] for name, outcome in done.request.systems.items()}
    assert {
        "shop": [],
        "consents": ["evidence_unreadable"],
        "evidence": ["evidence_unreadable"],
        "packages": [],
        "keys": ["suppression"],
    } == kept
    assert not any(each.readable for outcome in done.request.systems.values() for each in outcome.kept)


def test_a_failing_system_leaves_the_request_waiting_with_the_reason_and_the_keys_in_place(
    desk: RequestDesk, shop: Shop, clock: FakeClock
):
    record = verified(desk, "c-1", "DELETION")
    shop.broken = {"erase"}
    waits = desk.run(record.id)
    assert (State.WAITING, "failed") == (waits.state, waits.as_dict()["systems"]["shop"]["outcome"])
    assert clock.now + 60_000_000 == waits.request.next_attempt_at
    assert desk.decider.subjects.find("customer:c-1") is not None
    with pytest.raises(Conflict, match="closed"):
        desk.proof(record.id)
    assert [] == desk.run_due()
    clock.advance(61)
    (again,) = desk.run_due()
    assert clock.now + 120_000_000 == again.request.next_attempt_at
    shop.broken = set()
    assert State.COMPLETED is desk.run(record.id).state
    assert 1 == shop.calls.count(("shop", "restrict"))


def test_what_is_found_again_is_erased_again_and_never_called_done(desk: RequestDesk, shop: Shop):
    record = verified(desk, "c-1", "DELETION")
    shop.leaves = 1
    waits = desk.run(record.id)
    outcome = waits.request.systems["shop"]
    assert (State.WAITING, 1, "still_found", 1) == (waits.state, outcome.left, outcome.failure, outcome.erased)
    done = desk.run(record.id)
    assert (State.COMPLETED, 2, 0) == (
        done.state,
        done.request.systems["shop"].erased,
        done.request.systems["shop"].left,
    )


def test_a_parent_is_not_erased_before_what_depends_on_it(clock: FakeClock):
    orders, crm = Shop("orders"), Shop("crm", depends_on=["orders"])
    orders.records["c-1"] = crm.records["c-1"] = ["x"]
    crm.broken = {"erase"}
    decider = open_decider(None, None, clock=clock)
    desk = RequestDesk(decider, [orders, crm])
    waits = desk.run(verified(desk, "c-1", "DELETION").id)
    assert State.WAITING is waits.state
    assert ("orders", "erase") not in orders.calls
    assert "pending" == waits.as_dict()["systems"]["orders"]["outcome"]
    crm.broken = set()
    assert State.COMPLETED is desk.run(waits.id).state
    desk.close()
    decider.close()


def test_an_error_that_nobody_planned_for_fails_the_system_and_not_the_run(desk: RequestDesk, shop: Shop, caplog):
    def burst(_task):
        raise RuntimeError("customer c-1 exploded")

    shop.erase = burst
    waits = desk.run(verified(desk, "c-1", "DELETION").id)
    assert (State.WAITING, "error") == (waits.state, waits.request.systems["shop"].failure)
    assert "c-1" not in caplog.text


def test_what_a_system_keeps_by_right_is_an_exception_of_the_outcome(desk: RequestDesk, shop: Shop, clock: FakeClock):
    shop.keep = [Kept("tax_records", "GDPR 17(3)(b)", clock.now + 1, 2)]
    done = desk.run(verified(desk, "c-1", "DELETION").id)
    assert (State.COMPLETED_WITH_EXCEPTIONS, "COMPLETED") == (done.state, done.state.outward)
    assert "exception" == done.as_dict()["systems"]["shop"]["outcome"]
    assert desk.decider.subjects.find("customer:c-1") is None


def test_deleting_somebody_who_was_never_known_or_is_erased_already_succeeds(desk: RequestDesk):
    for _ in range(2):
        assert State.COMPLETED is desk.run(verified(desk, "stranger", "DELETION").id).state


def test_copies_made_for_the_person_go_with_the_person(desk: RequestDesk):
    access = verified(desk, "c-1", "ACCESS")
    desk.run(access.id)
    other = verified(desk, "c-2", "ACCESS")
    desk.run(other.id)
    desk.run(verified(desk, "c-1", "DELETION").id)
    assert [f"{other.id}.package"] == [path.name for path in desk.packages.iterdir()]
    with pytest.raises(NotFound):
        desk.package(access.id)


def test_consent_given_while_it_runs_is_taken_back_by_the_next_attempt(desk: RequestDesk, shop: Shop):
    erase = shop.erase

    def meanwhile(task):
        desk.consents.grant("c-1", "marketing")
        return erase(task)

    shop.erase = meanwhile
    request = verified(desk, "c-1", "DELETION").id
    # Depending on the order of the systems it is erased at once, or found again and erased then.
    desk.run(request)
    shop.erase = erase
    done = desk.run(request)
    assert (State.COMPLETED, 0) == (done.state, done.request.systems["consents"].left)


def test_an_open_request_of_somebody_who_was_erased_is_closed_and_not_called_done(desk: RequestDesk):
    access = verified(desk, "c-1", "ACCESS")
    desk.run(verified(desk, "c-1", "DELETION").id)
    done = desk.run(access.id)
    assert (State.CANCELLED, "subject_erased") == (done.state, done.request.events[-1].fact.outcome)


def test_an_import_does_not_bring_an_erased_person_back(desk: RequestDesk):
    desk.run(verified(desk, "c-1", "DELETION").id)
    assert desk.decider.subjects.erased_at("customer:c-1") is not None


# -- legal holds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["c-1", None])
def test_a_deletion_under_hold_erases_nothing_and_says_why(desk: RequestDesk, shop: Shop, whom: str | None):
    desk.hold("matter 7", whom, actor="legal")
    done = desk.run(verified(desk, "c-1", "DELETION").id)
    assert (State.COMPLETED_WITH_EXCEPTIONS, ("matter 7",)) == (done.state, done.request.held)
    for outcome in done.request.systems.values():
        assert ["legal_hold"] == [kept.reason for kept in outcome.kept]
    assert ["order 1", "order 2"] == shop.records["c-1"]
    assert {"c-1"} == shop.restricted
    assert desk.decider.subjects.find("customer:c-1") is not None
    assert {"GDPR 17(3)(e)"} == {kept.article for outcome in done.request.systems.values() for kept in outcome.kept}


def test_lifting_the_hold_makes_the_deletion_runnable_again(desk: RequestDesk, shop: Shop):
    desk.hold("matter 7", "c-1")
    desk.hold("matter 8", "c-1")
    record = verified(desk, "c-1", "DELETION")
    desk.run(record.id)
    assert [] == desk.lift("matter 8", "c-1")
    (reopened,) = desk.lift("matter 7", "c-1")
    assert (record.id, State.VERIFIED) == (reopened.id, reopened.state)
    done = desk.run(record.id)
    assert (State.COMPLETED, (), []) == (done.state, done.request.held, shop.records["c-1"])


def test_a_hold_that_stands_beside_the_lifted_one_keeps_the_request_closed(desk: RequestDesk):
    desk.hold("matter 7", "c-1")
    desk.hold("matter 8")
    record = verified(desk, "c-1", "DELETION")
    desk.run(record.id)
    assert [] == desk.lift("matter 7", "c-1")
    assert [record.id] == [each.id for each in desk.lift("matter 8")]


def test_a_hold_on_one_person_holds_nobody_else(desk: RequestDesk):
    desk.hold("matter 7", "c-2")
    assert State.COMPLETED is desk.run(verified(desk, "c-1", "DELETION").id).state


def test_a_hold_that_comes_in_the_middle_of_a_run_still_saves_the_keys(desk: RequestDesk, shop: Shop):
    verify = shop.verify

    def late(task):
        desk.hold("matter 7", "c-1")
        return verify(task)

    shop.verify = late
    done = desk.run(verified(desk, "c-1", "DELETION").id)
    assert State.COMPLETED_WITH_EXCEPTIONS is done.state
    assert desk.decider.subjects.find("customer:c-1") is not None
    assert ["legal_hold"] == [kept.reason for kept in done.request.systems["keys"].kept]


def test_holds_are_listed_put_on_once_and_lifted_by_name(desk: RequestDesk):
    first = desk.hold("matter 7", "c-1", actor="legal")
    assert first == desk.hold("matter 7", "c-1", actor="somebody else")
    desk.hold("matter 8")
    assert [("matter 8", ""), ("matter 7", "c-1")] == [
        (hold.reference, desk.holds.customer_of(hold)) for hold in desk.holds.all()
    ]
    for reference, customer in (("matter 9", "c-1"), ("matter 7", None), ("matter 7", "nobody")):
        with pytest.raises(NotFound):
            desk.lift(reference, customer)
    desk.lift("matter 7", "c-1")
    assert ["matter 8"] == [hold.reference for hold in desk.holds.all()]


@pytest.mark.parametrize("reference", ["", " ", "x" * 65, "a\nb", None])
def test_a_matter_has_a_name(desk: RequestDesk, reference: object):
    with pytest.raises(InvalidInput):
        desk.hold(reference)


# -- proof -------------------------------------------------------------------------------------------


def test_the_proof_names_nobody_and_stays_the_same(desk: RequestDesk, clock: FakeClock):
    desk.consents.grant("c-1", "marketing", note="a private note")
    record = verified(desk, "c-1", "DELETION", details="forget me", requested_by="Jo Doe")
    desk.assign(record.id, "anna")
    desk.run(record.id, actor="anna")
    proof = desk.proof(record.id)
    key = desk.decider.ledger.signer.verifier_key
    found = verify_request_proof(proof, key)
    assert (record.id, "DELETION", "completed") == (found.request, found.kind, found.state)
    assert record.request.subject == found.subject
    assert {"shop", "consents", "evidence", "packages", "keys"} == set(found.document["systems"])
    for needle in ("c-1", "Jo", "forget me", "private", "anna"):
        assert needle not in proof
    clock.advance(10 * DAY)
    desk.create("c-9", "ACCESS")
    assert proof == desk.proof(record.id)


# -- many at once, and what the projection is worth --------------------------------------------------


def test_two_runs_of_one_request_do_not_meet(desk: RequestDesk, shop: Shop):
    record = verified(desk, "c-1", "DELETION")
    refused: list[KikiError] = []
    locate = shop.locate

    def again(task):
        with pytest.raises(Conflict, match="running already") as caught:
            desk.run(record.id)
        refused.append(caught.value)
        with pytest.raises(Conflict, match="running"):
            desk.cancel(record.id)
        return locate(task)

    shop.locate = again
    assert State.COMPLETED is desk.run(record.id).state
    assert 1 == len(refused)


def test_the_projection_is_what_its_facts_add_up_to_in_any_order(desk: RequestDesk, shop: Shop):
    shop.broken = {"erase"}
    record = verified(desk, "c-1", "DELETION")
    desk.run(record.id)
    shop.broken = set()
    done = desk.run(record.id).request
    stored = desk.decider.ledger.store.get(REQUEST, record.id.encode())
    for order in (done.events, done.events[::-1], [*done.events[::2], *done.events[1::2], *done.events]):
        value = None
        for event in order:
            value = next(w.value for w in writes_of(event.fact, event.chain, event.seq, value) if w.space == REQUEST)
        assert stored == value
        assert done == read_request(value)


def test_systems_that_do_not_fit_together_are_refused():
    decider = open_decider(None, None, clock=FakeClock())
    for systems in ([Shop("keys")], [Shop(), Shop()], [Shop(depends_on=["nowhere"])]):
        with pytest.raises(SystemsError):
            RequestDesk(decider, systems)
    with pytest.raises(SystemsError, match="depend on each other"):
        RequestDesk(decider, [Shop("a", depends_on=["b"]), Shop("b", depends_on=["a"])])
    decider.close()


def test_expiring_consent_and_open_requests_do_not_mind_each_other(desk: RequestDesk, clock: FakeClock):
    desk.consents.grant("c-1", "marketing", expires_at=timedelta(days=1))
    clock.advance(2 * DAY)
    assert State.COMPLETED is desk.run(verified(desk, "c-1", "DELETION").id).state
