"""A ledger where it lies, with one bit of it changed: the check names the entry, and nothing goes on as if all were well."""

from __future__ import annotations

import random

import pytest

from kiki.clock import wall_micros
from kiki.errors import EvidenceInvalid, LedgerCorrupt
from kiki.ledger.entry import encode_entry
from kiki.ledger.ledger import CHECKPOINTS, Ledger
from kiki.ledger.live_verifier import verify_ledger
from kiki.ledger.memory import MemoryStore
from kiki.shield.audit_check import audit
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.consent import read_state
from kiki.shield.fact import Halted
from kiki.shield.legal_hold import read_hold
from kiki.shield.projections import EPOCH, known_epoch
from kiki.shield.subject_request import read_request


@pytest.fixture(scope="module")
def lived():
    """A store that somebody wrote much into, its key and its entries: some before a full tile of the tree, some behind it."""
    with BudgetGuard.open(limit="1000000") as guard:
        guard.consents.grant("jane", "marketing", ip_address="203.0.113.7", user_agent="Mozilla", note="said by phone")
        for number in range(270):
            guard.spend("1", {"campaign": f"c-{number}", "customer": "jane"}, purpose="marketing")
        guard.halt("platform:meta", note="too expensive: größer")
        guard.consents.revoke("jane", "marketing")
        ledger = guard.decider.ledger
        ledger.checkpoint()
        yield ledger.store, ledger.signer.verifier_key, list(ledger.store.entries())


class Changed(MemoryStore):
    """The same with other entries."""

    def __init__(self, lived: MemoryStore, rows: list[tuple[int, bytes]]) -> None:
        super().__init__()
        self._spaces = lived._spaces
        self._entries = [body for _, body in rows]


def test_every_flipped_bit_of_an_entry_is_found_and_the_entry_is_named(lived):
    store, key, entries = lived
    chance = random.Random(3)
    found = set()
    for _ in range(60):
        seq, body = chance.choice([*entries[:3], *entries[250:]])
        bit = chance.randrange(8 * len(body))
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        rows = [(seq, bytes(flipped)) if row[0] == seq else row for row in entries]
        with pytest.raises(EvidenceInvalid) as caught:
            audit(lambda on_entry, rows=rows: verify_ledger([Changed(store, rows)], key, on_entry=on_entry))
        assert caught.value.place.endswith(f"entry {seq}"), (seq, bit, caught.value.place)
        found.add(seq)
    assert len(found) > 20


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xe4bc"])
def test_what_is_no_text_any_more_is_named_too(lived, text: bytes):
    """Such a bit breaks the decoding of the fact before the root is compared."""
    store, key, entries = lived
    (at,) = [seq for seq, body in entries if b"too expensive" in body]
    rows = [(seq, body.replace(b"to", text[:2]) if seq == at else body) for seq, body in entries]
    with pytest.raises(EvidenceInvalid, match=f"entry {at}"):
        audit(lambda on_entry: verify_ledger([Changed(store, rows)], key, on_entry=on_entry))


def test_nobody_goes_on_behind_an_end_that_was_cut_off_or_changed(lived):
    """What was signed would else be signed again with other entries: a fork, by our own hand."""
    store, _, entries = lived
    size = int.from_bytes(store.last(CHECKPOINTS)[0], "big")
    with pytest.raises(LedgerCorrupt, match=f"{size} entries were signed and {size - 1} are there"):
        Ledger(Changed(store, entries[:-1]))
    changed = [*entries[:-1], (entries[-1][0], entries[-1][1][:-1] + bytes([entries[-1][1][-1] ^ 1]))]
    with pytest.raises(LedgerCorrupt, match=f"first {size} entries of the ledger do not have the root"):
        Ledger(Changed(store, changed))
    assert Ledger(Changed(store, entries)).next_seq == size


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        (lambda bodies: bodies[6], "entry 6 of the ledger stands where entry {size} belongs"),
        (lambda bodies: bodies[-1], "entry {last} of the ledger stands where entry {size} belongs"),
        (lambda _: b"\x02\xc1", "a ledger entry cannot be read"),
        (lambda _: b"", "a ledger entry has no bytes"),
        (lambda _: "text", "a ledger entry has no bytes"),
        (lambda _: 17, "a ledger entry has no bytes"),
    ],
)
def test_nobody_goes_on_behind_an_unsigned_end_that_is_no_chain(lived, forged, said: str):
    """The next checkpoint would cover it, and the ledger would never hold again."""
    store, _, entries = lived
    size = len(entries)
    rows = [*entries, (size, forged([body for _, body in entries]))]
    with pytest.raises(LedgerCorrupt, match=said.format(size=size, last=size - 1)):
        Ledger(Changed(store, rows))
    # What a process leaves that was killed before it signed is such an end, too, and a good one.
    good = [*entries, (size, encode_entry(size, wall_micros(), Halted(at=1, pattern="x", on=True)))]
    assert Ledger(Changed(store, good)).next_seq == size + 1


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x93\xa3\xff\xfe\xfd", b"\x91" * 100_000])
@pytest.mark.parametrize(
    "read",
    [read_state, read_request, lambda value: read_hold(b"\0" * 17, value), lambda value: known_epoch(held(value))],
)
def test_a_projection_that_somebody_changed_is_told_as_that(read, value: bytes):
    with pytest.raises(LedgerCorrupt, match="that the ledger keeps cannot be read"):
        read(value)


def held(value: bytes) -> MemoryStore:
    store = MemoryStore()
    store._spaces[EPOCH] = {b"": value}
    return store
