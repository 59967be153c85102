"""A deletion: through every system, in order, with nothing called done that is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kiki.errors import Conflict, KikiError, NotFound, SystemsError
from kiki.shield.dsr import State
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_proof import verify_request_proof
from kiki.shield.subject_request import REQUEST, Kept, read_request, writes_of
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Shop, verified

DAY = 24 * 3600


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


def test_the_proof_names_nobody_and_stays_the_same(desk: RequestDesk, clock: FakeClock):
    desk.consents.grant("customer-canary", "marketing", note="a private note")
    record = verified(desk, "customer-canary", "DELETION", details="forget me", requested_by="Jolanda Doe")
    desk.assign(record.id, "anna-the-operator")
    desk.run(record.id, actor="anna-the-operator")
    proof = desk.proof(record.id)
    key = desk.decider.ledger.signer.verifier_key
    found = verify_request_proof(proof, key)
    assert (record.id, "DELETION", "completed") == (found.request, found.kind, found.state)
    assert record.request.subject == found.subject
    assert {"shop", "consents", "evidence", "packages", "keys"} == set(found.document["systems"])
    for needle in ("customer-canary", "Jolanda", "forget me", "private note", "anna-the-operator"):
        assert needle not in proof
    clock.advance(10 * DAY)
    desk.create("c-9", "ACCESS")
    assert proof == desk.proof(record.id)


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
