"""Entries leave at the end of their retention; what still holds, and every proof, stays."""

from __future__ import annotations

from functools import reduce

import pytest

from kiki.errors import SpendDenied
from kiki.ledger.checkpoint import VerifierKey, open_note
from kiki.ledger.entry import leaf_hash
from kiki.ledger.ledger import CHECKPOINTS, read_entries
from kiki.ledger.merkle import inclusion_proof, node_hash, peaks_of, root_from_inclusion
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.tiling import TileReader, open_tiling
from kiki.shield import pruning
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.fact import Decided, Pruned, decode_fact
from kiki.shield.pruning import prune
from kiki.shield.request_desk import RequestDesk
from kiki.testing import FakeClock

YEAR = 366 * 24 * 3600


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def guard(tmp_path, clock):
    with BudgetGuard.open(tmp_path / "l.db", limit="1000", clock=clock) as guard:
        yield guard


def grow(guard, clock, spends=700):
    guard.consents.grant("old", "marketing", version="v1", ip_address="203.0.113.9")
    guard.consents.revoke("gone", "marketing")
    guard.halt("platform:x")
    for _ in range(spends):
        guard.spend("0.01", {"customer": "old"})
    clock.advance(8 * YEAR)
    guard.spend("0.01")


def test_old_entries_are_gone_and_new_ones_are_not(guard, clock):
    grow(guard, clock)
    assert prune(guard.decider, 512, 2555) == 512
    left = [entry.seq for entry in read_entries(guard.decider.ledger.store)]
    assert left[0] == 512
    assert left == list(range(512, guard.decider.ledger.next_seq))
    assert any(isinstance(decode_fact(entry), Pruned) for entry in read_entries(guard.decider.ledger.store))


def test_what_still_holds_is_found_after_every_projection_was_dropped(tmp_path, clock):
    """Consent, halts and policy are said again before the entries that said them leave."""
    path = tmp_path / "l.db"
    with BudgetGuard.open(path, limit="1000", clock=clock) as guard:
        grow(guard, clock)
        prune(guard.decider, 512, 2555)
    store = SqliteStore(path)
    for space in store.spaces():
        if space in {"hold", "halt", "policy", "epoch", "shared/consent"} or space.startswith("key/"):
            while store.trim(space):
                pass
    store.close()
    with BudgetGuard.open(path, limit="1000", clock=clock) as guard:
        assert guard.consents.check("old", "marketing")
        record = guard.consents.status("old")["marketing"]
        assert (record.version, record.details.ip) == ("v1", "203.0.113.9")
        assert record.said_at == FakeClock().now
        assert not guard.consents.check("gone", "marketing")
        assert guard.halts() == ["platform:x"]
        with pytest.raises(SpendDenied):
            guard.spend("1", {"platform": "x"})
        assert guard.spend("1", {"customer": "old"}, purpose="marketing").allowed


def test_proofs_and_old_checkpoints_stay_valid(guard, clock):
    grow(guard, clock)
    ledger = guard.decider.ledger
    notes = [note for _, note in ledger.store.scan(CHECKPOINTS)]
    last = ledger.checkpoint()
    prune(guard.decider, 512, 2555)
    key = VerifierKey.parse(ledger.signer.verifier_key)
    tree = TileReader(ledger.store, ledger.next_seq)
    for note in [*notes, last]:
        checkpoint, _ = open_note(note, key)
        at = min(600, checkpoint.size - 1)
        if at >= 512:
            (entry,) = ledger.store.entries(at, at)
            proof = inclusion_proof(tree.node, at, checkpoint.size)
            assert checkpoint.root == root_from_inclusion(leaf_hash(entry[1]), at, checkpoint.size, proof)
    assert open_tiling(ledger.store).root() == ledger._tiling.root()


def test_what_deciding_needs_stays_whatever_its_age(guard, clock):
    """An open hold without a deadline keeps its entry, and all after it; the tile that it lies in stays whole."""
    for _ in range(300):
        guard.spend("0.01")
    hold = guard.reserve("5")
    made = int(hold.event_id[:12], 16)
    grow(guard, clock)
    assert prune(guard.decider, 512, 2555) == 256 < made
    hold.commit("2")
    clock.advance(YEAR)
    guard.spend("0.01")
    assert prune(guard.decider, 512, 2555) == 512


def test_the_longest_window_is_never_cut(guard, clock):
    grow(guard, clock, spends=500)
    assert prune(guard.decider, 10**9, 1) == 256
    facts = [decode_fact(entry) for entry in read_entries(guard.decider.ledger.store)]
    spent = [fact.at for fact in facts if isinstance(fact, Decided)]
    assert clock.now == spent[-1]


@pytest.mark.parametrize("spends", [0, 1, 250, 251, 252, 300, 511])
def test_a_pruned_ledger_opens_again_whatever_its_length(tmp_path, clock, spends):
    """What the open edge of the tree is made of stays, so the next start finds the same root."""
    path = tmp_path / "l.db"
    with BudgetGuard.open(path, limit="1000", clock=clock) as guard:
        grow(guard, clock, spends=spends)
        clock.advance(8 * YEAR)
        prune(guard.decider, guard.decider.ledger.next_seq, 2555)
        root = guard.decider.ledger._tiling.root()
    with BudgetGuard.open(path, limit="1000", clock=clock) as guard:
        store = guard.decider.ledger.store
        size = guard.decider.ledger.next_seq - 1  # the opening is the one entry that came since
        peaks = peaks_of(TileReader(store, size).node, size)
        assert root == reduce(lambda right, left: node_hash(left, right), reversed(peaks))
        guard.spend("1")


def test_erased_persons_are_not_carried_on(guard, clock):
    grow(guard, clock)
    guard.decider.forget("customer:old")
    prune(guard.decider, 512, 2555)
    assert guard.consents.status("old") == {}
    subjects = {key[:16].hex() for key, _ in guard.decider.ledger.store.scan("shared/consent")}
    assert len(subjects) == 1  # the other one's


def test_pruning_twice_changes_nothing(guard, clock):
    grow(guard, clock)
    prune(guard.decider, 512, 2555)
    before = guard.decider.ledger.next_seq
    assert prune(guard.decider, 512, 2555) == 512
    assert guard.decider.ledger.next_seq == before


def test_closed_requests_leave_and_open_ones_hold_their_entries(guard, clock, tmp_path):
    """What is still being answered stays whole; what was answered eight years ago is gone with its entries."""
    desk = RequestDesk(guard.decider, packages=tmp_path / "packages")
    closed, waiting = desk.create("a", "ACCESS"), desk.create("b", "ACCESS")
    desk.refuse(closed.id, "GDPR 12(5)", "asked before")
    grow(guard, clock)
    first = prune(guard.decider, 512, 2555)
    assert first < 512
    assert desk.get(waiting.id).id == waiting.id
    desk.cancel(waiting.id)
    clock.advance(8 * YEAR)
    guard.spend("0.01")
    assert prune(guard.decider, 512, 2555) == 512
    assert desk.list() == []


def test_the_keys_of_old_segments_are_destroyed(guard, clock):
    sealed = guard.decider.subjects.seal_for_segment(b"somebody")
    clock.advance(7200)
    grow(guard, clock)
    assert guard.decider.subjects.open(sealed) == b"somebody"
    guard.decider.subjects.segment_key()  # a new one: the old one's hour is over
    prune(guard.decider, 512, 2555)
    with pytest.raises(Exception, match="destroyed"):
        guard.decider.subjects.open(sealed)


def test_a_legal_hold_that_comes_meanwhile_stops_the_removal(guard, clock, monkeypatch, tmp_path):
    """Whoever is told that the hold is on finds every entry that was there at that moment."""
    grow(guard, clock)
    desk, submit = RequestDesk(guard.decider, packages=tmp_path / "packages"), pruning._submit

    def submitting(decider, act):
        submit(decider, act)
        if not desk.holds.all():
            desk.holds.put("case 7")

    monkeypatch.setattr(pruning, "_submit", submitting)
    assert prune(guard.decider, 512, 2555) == 0
    assert guard.decider.ledger.store.first_seq() == 0
