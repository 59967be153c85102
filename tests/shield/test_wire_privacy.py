"""What the wire says about persons is what the library says: no member is lost on the way, none is made up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput, SystemUnavailable
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.consent import State
from kiki.shield.consent_record import ConsentDetails, ConsentRecord
from kiki.shield.request_desk import RequestDesk
from kiki.shield.subject_data import Found
from kiki.shield.wire_consent import ConsentReply, confirm_body, consent_reply, end_of, write_lease
from kiki.shield.wire_request_answer import RequestReply, request_reply


def test_a_record_of_consent_loses_nothing():
    details = ConsentDetails(customer="c", ip="1.2.3.4", agent="a", note="n", notice="t", guardian="g")
    words = dict.fromkeys(("basis", "version", "method", "jurisdiction", "notice", "network"), "x")
    flags = dict.fromkeys(("in_force", "guardian", "overrides", "signal"), True)
    moments = dict.fromkeys(("at", "said_at", "granted_at", "expires_at"), 1)
    record = ConsentRecord(
        customer="c", purpose="marketing", state=State.REVOKED, seq=1, details=details, **words, **flags, **moments
    )
    assert {*ConsentReply.__struct_fields__} == {*record.as_dict()}
    assert record.as_dict() == msgspec.to_builtins(consent_reply(record))
    bare = ConsentRecord(customer="c", purpose="marketing", state=State.NONE)
    assert bare.as_dict() == msgspec.to_builtins(consent_reply(bare))


class Broken:
    name, depends_on = "crm", ()

    def locate(self, task):
        if task.customer == "c-1":
            raise SystemUnavailable("down")
        return Found(0)

    def __getattr__(self, name: str):
        raise SystemUnavailable("down")


@pytest.mark.parametrize("kind", ["ACCESS", "DELETION", "RECTIFICATION", "OPT_OUT"])
def test_a_record_of_a_request_loses_nothing(kind: str, tmp_path):
    with BudgetGuard.open(limit="1") as guard:
        desk = RequestDesk(guard.decider, [Broken()], consents=guard.consents, packages=tmp_path)
        given = {"corrections": {"a": "b"}} if kind == "RECTIFICATION" else {}
        made = desk.create("c-1", kind, details="d", requested_by="r", agent="x", ip_address="1.2.3.4", **given)
        desk.hold("case", "c-1")
        records = [made, desk.get(made.id), desk.acknowledge(made.id), desk.assign(made.id, "jane")]
        if kind != "OPT_OUT":
            records.append(desk.verify_identity(made.id, method="operator", actor="jane", agent_proof="signed"))
        records += [desk.run(made.id), desk.get(made.id)]
        for record in records:
            assert record.as_dict() == msgspec.to_builtins(request_reply(record))
            assert {*record.as_dict()} <= {*RequestReply.__struct_fields__}


@given(epoch=st.integers(1, 2**32 - 1), end=st.integers(0, 2**63 - 1), other=st.integers(1, 2**32 - 1))
def test_a_lease_comes_back_to_who_granted_it_and_to_nobody_else(epoch: int, end: int, other: int):
    text = write_lease(epoch, end)
    item = {"customer_id": "c", "purpose": "marketing", "lease": text}
    _, (confirmed,) = confirm_body({"holder": "w", "confirmed": [item]})
    assert end == end_of(confirmed.lease, epoch)
    assert (end_of(confirmed.lease, other) is None) == (other != epoch)


@pytest.mark.parametrize("lease", ["", "0", "xy", "AB", "ab" * 21, "٣٣", "0x12"])
def test_what_is_no_lease(lease: str):
    item = {"customer_id": "c", "purpose": "marketing", "lease": lease}
    with pytest.raises(InvalidInput):
        confirm_body({"holder": "w", "confirmed": [item]})
