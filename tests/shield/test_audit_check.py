"""What no kiki writes: found and named, and never a crash."""

from __future__ import annotations

import msgspec
import pytest

from kiki.errors import EvidenceInvalid
from kiki.ledger.entry import Sealed, encode_entry
from kiki.shield.audit_check import audit
from kiki.shield.audit_finding import Kind
from kiki.shield.fact import (
    Decided,
    Halted,
    Opened,
    PolicyUsed,
    Settled,
)
from tests.ledger.doubles import SECOND
from tests.shield.audit_chain import T0, A, audited, begun, kinds


@pytest.fixture
def chain():
    return begun()


def test_entries_that_nothing_of_kiki_writes_are_findings_and_no_crash(chain):
    class Strange(msgspec.Struct, array_like=True, tag="strange"):
        at: int

    strange = chain.add(Strange(T0))
    chain.bodies.append(b"\x02not an entry")
    chain.bodies.append(b"")
    chain.bodies.append(b"\x09")
    policy = chain.add(PolicyUsed(T0, b"{"))
    report = audited(chain)
    assert [strange, strange + 1, strange + 2, strange + 3, policy] == [each.seq for each in report.findings]
    assert {Kind.STRUCTURE} == set(kinds(report))


@pytest.mark.parametrize(
    "fact",
    [
        Decided("steal", T0, "", 0, [[]], [1]),
        Decided("spend", -1, "", 0, [[]], [1]),
        Decided("spend", 2**63, "", 0, [[]], [1]),
        Decided("spend", T0, "", 0, [[]], []),
        Decided("spend", T0, "", 0, [], [1]),
        Decided("spend", T0, "", 0, [[], []], [1, 1, 1]),
        Decided("spend", T0, "", 0, [[]], [-5]),
        Decided("spend", T0, "", 0, [[]], [2**64 - 1]),
        Decided("reserve", T0, "", 0, [[]], [1], hold="x"),
        Decided("reserve", T0, "", 0, [[]], [1, 1], hold=A),
        Decided("reserve", T0, "", 0, [[]], [1], hold=A, deadline=T0),
        Decided("reserve", T0, "", 0, [[]], [1], hold=A, deadline=2**64 - 1),
        Settled("commit", 2**64 - 1, "", 0, A, 1, 1),
        Settled("commit", T0, "", 0, A, -1, 1),
        Opened(T0, "1", "local", "", "another"),
    ],
    ids=repr,
)
def test_facts_that_cannot_be_are_findings(chain, fact):
    seq = chain.add(fact, at=T0)
    assert [(Kind.STRUCTURE, seq)] == [(each.kind, each.seq) for each in audited(chain).findings]


def test_a_range_that_begins_where_no_ledger_comes_to_is_no_evidence():
    with pytest.raises(EvidenceInvalid, match="no ledger has"):
        audit(lambda on_entry: on_entry("c0", 2**63, b""))


def test_sums_that_no_cell_can_hold_are_overruns(chain):
    for _ in range(3):
        chain.add(Decided("spend", T0, "", 0, [[]], [2**63 - 1] * 3))
    assert [Kind.OVERRUN] == kinds(audited(chain))


def test_order_and_time_go_forward(chain):
    chain.spend(1, 10)
    body = encode_entry(7, T0 + 5 * SECOND, Decided("spend", T0 + 5 * SECOND, "", 0, [[]], [1]))
    chain.bodies.append(body)
    chain.add(Decided("spend", T0 + 99 * SECOND, "", 0, [[]], [1]), at=T0)
    messages = " ".join(each.message for each in audited(chain).findings)
    for said in ("calls itself entry 7", "recorded before", "decided before", "decided after it was recorded"):
        assert said in messages


def test_sealed_parts_have_a_form(chain):
    good = Sealed(b"k" * 16, b"n" * 24, b"c" * 32, b"x" * 16)
    seq = chain.add(Halted(T0, "*", on=True), sealed=[good])
    assert ([], 1) == (audited(chain).findings, audited(chain).chains[0].sealed)
    for bad in ({"key_id": b""}, {"nonce": b"n"}, {"commitment": b"c"}, {"ciphertext": b"in clear"}):
        chain.add(Halted(T0, "*", on=False), sealed=[good, msgspec.structs.replace(good, **bad)])
    assert [seq + 1, seq + 2, seq + 3, seq + 4] == [each.seq for each in audited(chain).findings]


def test_a_forged_ledger_does_not_fill_the_memory(chain, monkeypatch):
    monkeypatch.setattr("kiki.shield.audit_finding.KEPT_MAX", 5)
    for _ in range(20):
        chain.add(Decided("steal", T0, "", 0, [[]], [1]))
    report = audited(chain)
    assert (5, 20, False) == (len(report.findings), report.finding_count, report.holds)
