"""Proof of identity: codes, operators and agents."""

from __future__ import annotations

import pytest

from kiki.errors import Conflict, IdentityDenied, InvalidInput
from kiki.shield.dsr import State
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RequestDesk
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Channel, Shop

DAY = 24 * 3600


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
