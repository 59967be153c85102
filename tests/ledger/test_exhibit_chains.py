"""Several chains in one database: no bundle may end where another chain's checkpoint already saw more."""

from __future__ import annotations

import io

import pytest

from kiki.clock import wall_micros
from kiki.errors import LedgerUnavailable
from kiki.ledger.bundle import write_bundle
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.exhibit import stretches
from kiki.ledger.ledger import Append, Ledger, signed_sizes
from kiki.ledger.memory import MemoryStore
from kiki.shield.fact import Halted

SEED = bytes(range(32))


def chains(count=3):
    """Ledgers that name each other in their checkpoints, as replicas do."""
    stores = [MemoryStore() for _ in range(count)]
    ledgers = [Ledger(store, wall_micros, SEED) for store in stores]
    for ledger in ledgers:
        ledger.others = lambda own=ledger: {
            chain: size for chain, size in signed_sizes(stores).items() if chain != own.chain
        }
    return stores, ledgers


def grow(ledger, count=1):
    ledger.append_all([Append(Halted(wall_micros(), "*", on=True)) for _ in range(count)])
    ledger.checkpoint()


def bundled(stores, ledgers, since=None, until=None):
    file = io.BytesIO()
    write_bundle(
        file,
        [piece.bundle for piece in stretches(stores, since, until)],
        ledgers[0].signer,
        at=wall_micros(),
    )
    file.seek(0)
    return verify_bundle(file, ledgers[0].signer.verifier_key)


def test_every_chain_reaches_as_far_as_the_others_saw_it():
    """A moment in the past: the checkpoint that covers it in one chain names more of another than lay before it."""
    stores, ledgers = chains()
    for ledger in ledgers:
        grow(ledger)
    until = wall_micros() + 1
    for _ in range(5):
        for ledger in reversed(ledgers):
            grow(ledger, 2)
    verified = bundled(stores, ledgers, until=until)
    assert len(verified.chains) == 3
    assert not verified.absent
    assert bundled(stores, ledgers).entries == 33


def test_a_chain_that_lacks_what_another_saw_is_noticed():
    """A whole tail of one chain was removed, its checkpoints too: the others remember."""
    stores, ledgers = chains(2)
    grow(ledgers[0], 5)
    grow(ledgers[1])
    stores[0].commit([], [])
    stores[0]._entries = stores[0]._entries[:2]
    stores[0]._spaces["checkpoint"].clear()
    cut = Ledger(stores[0], wall_micros, SEED)
    cut.checkpoint()
    with pytest.raises(LedgerUnavailable, match="lacks a checkpoint"):
        bundled(stores, ledgers)
