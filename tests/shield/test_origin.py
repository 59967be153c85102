"""Where a call came from: a /24 or /48 in clear, the exact address and agent only under a key."""

from __future__ import annotations

import csv
import io
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import Unreadable
from kiki.ledger.memory import MemoryStore
from kiki.ledger.subjects import SEGMENT_SPAN
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import check_call, commit_call, record_call, reserve_call, spend_call, spend_many_call, switch
from kiki.shield.change import Change
from kiki.shield.decider import new_hold_id
from kiki.shield.evidence import export
from kiki.shield.fact import Pruned, decode_fact
from kiki.shield.network import coarsened
from kiki.shield.origin import AGENT_LENGTH_MAX, origin_of, read_origin
from tests.ledger.doubles import FakeClock

IP, NETWORK, AGENT = "203.0.113.77", "203.0.113.0/24", "Mozilla/5.0 (Alice's phone)"


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("203.0.113.0", "203.0.113.0/24"),
        ("0.0.0.0", "0.0.0.0/24"),
        ("255.255.255.255", "255.255.255.0/24"),
        ("127.0.0.1", "127.0.0.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("2001:DB8:0001::1", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("::ffff:cb00:714d", "203.0.113.0/24"),
    ],
)
def test_an_address_is_made_coarse(ip, network):
    """Also one of IPv4 inside IPv6, which a /48 would turn into nothing, and one with a zone."""
    assert network == coarsened(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "",
        " ",
        "alice@example.com",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.077",
        "1.2.3.4.5",
        "203.0.113.77:80",
        "[::1]",
        "203.0.113.0/24",
        "::1/48",
        "١٢٣.٠.٠.١",
        "203.0.113.77\n",
        "unix:",
        "/run/socket",
        "%eth0",
        "g::1",
    ],
)
def test_what_is_no_address_leaves_nothing(ip):
    """Not a part of it: nobody knows what somebody put there."""
    assert coarsened(ip) == ""


@given(st.ip_addresses())
def test_the_network_holds_the_address_and_at_least_250_others(address):
    """As the standard library sees it; an address of IPv4 inside IPv6 is one of IPv4."""
    mapped = getattr(address, "ipv4_mapped", None) or address
    network = ipaddress.ip_network(coarsened(str(address)))
    assert mapped in network
    assert (24 if mapped.version == 4 else 48) == network.prefixlen


@given(st.text())
def test_no_text_raises_or_comes_through(text):
    """Whatever a header holds, what stands in clear is a network or nothing."""
    found = coarsened(text)
    assert found == "" or ipaddress.ip_network(found)


def test_what_is_sealed_is_the_address_and_the_agent():
    origin = origin_of(IP, AGENT)
    assert (NETWORK, {"ip": IP, "agent": AGENT}) == (origin.network, read_origin(origin.text))
    assert AGENT_LENGTH_MAX == len(read_origin(origin_of(IP, "x" * 10_000).text)["agent"])
    assert {"ip": "", "agent": ""} == read_origin(origin_of("", "").text)
    assert {"ip": "é", "agent": "\ud7ff\x00"} == read_origin(origin_of("é", "\ud7ff\x00").text)


# -- through the guard ---------------------------------------------------------------------------------


def works():
    """One of each that can come in over a network, each of its own origin."""
    hold = new_hold_id()
    made = [
        spend_call(1, {"customer": "alice"}),
        spend_call(1),
        spend_many_call([(1, {"customer": "alice"}), (2, {"customer": "bob"}), 3]),
        check_call(1, {"customer": "alice"}),
        reserve_call(1, hold, None, {"customer": "alice"}),
        commit_call(hold, 1),
        record_call(1),
        switch("customer:alice", on=True),
        switch("customer:alice", on=False),
        switch("*", on=True),
    ]
    for number, work in enumerate(made):
        work.origin = origin_of(f"198.51.{100 + number}.77", f"agent-{number}")
    return made


@pytest.fixture
def guard():
    with BudgetGuard.open(limit=1000) as guard:
        yield guard


def test_every_kind_of_work_has_its_network_in_clear_and_the_rest_sealed(guard):
    """In the entry there is the /24; what is sealed beside it opens to exactly what came."""
    for work in works():
        guard.decider.group.submit(work).result()
    entries = list(guard.decider.ledger.read())[2:]
    for number, entry in enumerate(entries):
        (sealed,) = entry.sealed
        exact = {"ip": f"198.51.{100 + number}.77", "agent": f"agent-{number}"}
        assert exact == read_origin(guard.decider.subjects.open(sealed))
        assert f"198.51.{100 + number}.0/24".encode() in bytes(entry.fact)
    stored = b"".join(data for _, data in guard.decider.ledger.store.entries())
    assert b".77" not in stored
    assert b"agent-" not in stored


def test_it_is_sealed_under_the_key_of_the_one_person_it_is_about(guard):
    """When that person is erased it is unreadable; what is about nobody, or about several, goes with its segment."""
    for work in works():
        guard.decider.group.submit(work).result()
    alice = bytes.fromhex(guard.decider.subjects.find("customer:alice").reference)
    entries = list(guard.decider.ledger.read())[2:]
    # A commit names only the hold, which is for her; a batch has two persons.
    assert [0, 3, 4, 5, 7, 8] == [number for number, entry in enumerate(entries) if alice == entry.sealed[0].key_id]
    guard.decider.forget("customer:alice")
    for number, entry in enumerate(entries):
        if number in {0, 3, 4, 5, 7, 8}:
            with pytest.raises(Unreadable):
                guard.decider.subjects.open(entry.sealed[0])
        else:
            assert f"agent-{number}" == read_origin(guard.decider.subjects.open(entry.sealed[0]))["agent"]


def test_an_agent_that_is_no_text_is_read_as_far_as_it_is():
    """Bytes of a header that are no UTF-8 arrive as lone surrogates: such a caller may spend like any other."""
    assert {"ip": IP, "agent": "Caf\\udce9"} == read_origin(origin_of(IP, "Caf\udce9").text)
    assert AGENT_LENGTH_MAX == len(read_origin(origin_of(IP, "\udce9" * 10_000).text)["agent"])


def test_a_call_from_a_script_has_no_origin(guard):
    guard.spend(1, {"customer": "alice"})
    guard.halt("customer:alice")
    assert [[], []] == [entry.sealed for entry in list(guard.decider.ledger.read())[2:]]


def test_the_csv_says_the_network_and_nothing_more(guard):
    """The guide's column `ip_address` has the /24 or /48, in every row that came over a network."""
    for work in works():
        guard.decider.group.submit(work).result()
    late = spend_call(1)
    late.origin = origin_of("2001:db8:1:2::77", AGENT)
    guard.decider.group.submit(late).result()
    written = io.StringIO()
    export(guard.decider.ledger.store, written.write)
    rows = list(csv.DictReader(io.StringIO(written.getvalue())))
    assert {f"198.51.{100 + number}.0/24" for number in range(10)} | {"2001:db8:1::/48"} == {
        row["ip_address"] for row in rows
    }
    told = [value for row in rows for name, value in row.items() if name not in {"event_id", "timestamp", "user_id"}]
    assert [] == [value for value in told if ".77" in value or "::77" in value or "agent" in value or "Alice" in value]


def test_the_same_caller_of_one_segment_is_sealed_once():
    """A busy caller without a person costs one encryption, whatever the number of calls; persons' parts are each new."""
    with BudgetGuard.open(limit=1000) as guard:
        assert isinstance(guard.decider.ledger.store, MemoryStore)
        for scopes in (None, None, {"customer": "alice"}, {"customer": "alice"}):
            call = spend_call(1, scopes)
            call.origin = origin_of(IP, AGENT)
            guard.decider.group.submit(call).result()
        first, second, third, fourth = (entry.sealed[0] for entry in list(guard.decider.ledger.read())[2:])
        assert first == second
        assert third.ciphertext != fourth.ciphertext


@pytest.mark.parametrize("work", ["spend", "switch", "change"])
def test_a_segments_key_is_renewed_before_anything_is_sealed_with_it(work):
    """Whatever comes in: a part sealed under a key made long ago would be unreadable before its time."""
    clock = FakeClock()
    with BudgetGuard.open(limit=1000, clock=clock) as guard:
        subjects = guard.decider.subjects
        old = subjects.seal_for_segment(b"old")
        clock.now += SEGMENT_SPAN
        if work == "change":
            guard.decider.group.submit(
                Change(lambda turn: turn.add(Pruned(1, 0, 1), [], [turn.subjects.seal_for_segment(b"new")]))
            ).result()
        else:
            call = spend_call(1) if work == "spend" else switch("*", on=True)
            call.origin = origin_of(IP, AGENT)
            guard.decider.group.submit(call).result()
        *_, entry = guard.decider.ledger.read()
        assert old.key_id != entry.sealed[0].key_id


def test_a_note_about_a_person_is_sealed_and_one_about_a_campaign_is_not(guard):
    """It is readable as long as the person is not erased, with or without an origin beside it."""
    guard.halt("campaign:x", note="wrong landing page")
    guard.halt("customer:alice", note="Alice called")
    with_origin = switch("customer:alice", on=False, note="Alice called again")
    with_origin.origin = origin_of(IP, AGENT)
    guard.decider.group.submit(with_origin).result()
    entries = list(guard.decider.ledger.read())[2:]
    assert ["wrong landing page", "", ""] == [decode_fact(entry).note for entry in entries]
    opened = [[read_origin(guard.decider.subjects.open(part)) for part in entry.sealed] for entry in entries]
    assert [[], [{"note": "Alice called"}], [{"ip": IP, "agent": AGENT}, {"note": "Alice called again"}]] == opened
    guard.decider.forget("customer:alice")
    for part in entries[1].sealed + entries[2].sealed:
        with pytest.raises(Unreadable):
            guard.decider.subjects.open(part)
