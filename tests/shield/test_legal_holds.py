"""Legal holds: what they stop, what they say, and what happens when they are lifted."""

from __future__ import annotations

import pytest

from kiki.errors import InvalidInput, NotFound
from kiki.shield.dsr import State
from kiki.shield.request_desk import RequestDesk
from tests.shield.privacy_doubles import Shop, verified


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
