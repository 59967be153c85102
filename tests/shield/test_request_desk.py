"""RequestDesk: from receipt to proof, over a real ledger in memory and in files."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from datetime import UTC, datetime

import pytest

from kiki.errors import Conflict, InvalidInput, KeyReused, NotFound
from kiki.ledger.ledger import read_entries
from kiki.shield.consent import State as Said
from kiki.shield.dsr import Kind, State
from kiki.shield.fact import RequestChanged, decode_fact
from kiki.shield.request_desk import PACKAGE_AGE, RequestDesk
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Shop, verified

DAY = 24 * 3600


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
