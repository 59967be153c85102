"""The projection of requests: made again from the ledger it is the same, whatever was written in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiki.ledger.sqlite import SqliteStore
from kiki.shield.legal_hold import LEGAL_HOLD
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RequestDesk
from kiki.shield.subject_request import REQUEST, REQUEST_KEY, REQUEST_OPEN, SubjectRequest, read_events, writes_of
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Shop

SPACES = (REQUEST, REQUEST_OPEN, REQUEST_KEY, LEGAL_HOLD)


def snapshot(store) -> dict[str, list[tuple[bytes, bytes]]]:
    return {space: list(store.scan(space)) for space in SPACES}


def test_every_projection_is_built_again_from_the_ledger(tmp_path: Path):
    path, clock, shop = tmp_path / "shield.db", FakeClock(), Shop()
    decider = open_decider(path, None, clock=clock)
    desk = RequestDesk(decider, [shop], packages=tmp_path / "requests")
    desk.hold("matter 1", "c-1")
    desk.hold("matter 2")
    desk.lift("matter 2")
    for number, kind in enumerate(("ACCESS", "DELETION", "OPT_OUT", "PORTABILITY")):
        record = desk.create(f"c-{number}", kind, key=f"key {number}")
        if kind != "OPT_OUT":
            desk.verify_identity(record.id, method="operator", actor="anna")
        shop.broken = {"erase"} if number == 1 else set()
        clock.advance(1)
        desk.run(record.id)
    desk.create("c-9", "ACCESS")
    before = snapshot(decider.ledger.store)
    assert all(before.values())
    decider.close()
    store = SqliteStore(path)
    for space in store.spaces():
        if space in {"policy", *SPACES}:
            while store.trim(space):
                pass
    assert not any(snapshot(store).values())
    store.close()
    decider = open_decider(path, None, clock=clock)
    assert before == snapshot(decider.ledger.store)
    decider.close()


def test_the_facts_of_two_chains_add_up_in_whatever_order_they_come(tmp_path: Path):
    decider = open_decider(None, None, clock=FakeClock(step=1))
    desk = RequestDesk(decider, [Shop()])
    record = desk.create("c-1", "DELETION")
    desk.verify_identity(record.id, method="operator", actor="anna")
    events = desk.run(record.id).request.events
    halves = [(f"chain {number % 2}", event.seq, event.fact) for number, event in enumerate(events)]
    values = set()
    for order in (halves, halves[::-1], halves[::2] + halves[1::2]):
        value = None
        for chain, seq, fact in order:
            (value, *_) = [write.value for write in writes_of(fact, chain, seq, value) if write.space == REQUEST]
        values.add(value)
    (value,) = values
    assert desk.get(record.id).state is SubjectRequest.of(read_events(value)).state
    decider.close()


@pytest.mark.parametrize("missing", [0, 1])
def test_without_its_first_fact_a_request_is_not_shown(missing: int):
    decider = open_decider(None, None, clock=FakeClock())
    desk = RequestDesk(decider)
    record = desk.create("c-1", "ACCESS")
    desk.assign(record.id, "anna")
    events = desk.get(record.id).request.events
    assert (SubjectRequest.of(events[missing:]) is None) == bool(missing)
    assert SubjectRequest.of([]) is None
    decider.close()
