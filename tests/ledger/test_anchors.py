"""Checkpoints are anchored outside in the background, and nothing that goes wrong there is felt anywhere else."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from kiki.ledger.anchors import COSIGNED, TIMESTAMPS, Anchors
from kiki.ledger.bundle import BundleChain, write_bundle
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.checkpoint import VerifierKey, open_note, split_note
from kiki.ledger.ledger import CHECKPOINTS, Append, Ledger
from kiki.ledger.memory import MemoryStore
from kiki.ledger.timestamp import TimestampService, verify_timestamp
from kiki.ledger.witness import Witness
from tests.ledger.doubles import FakeClock
from tests.ledger.independent_witness import running_witness
from tests.ledger.shipping import Noted, Steady
from tests.ledger.timestamp_authority import running_authority


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_witness() as witness, running_authority(tmp_path_factory.mktemp("tsa")) as authority:
        yield witness, authority


class Rig:
    """A ledger in memory and its anchors, whose time is moved by hand."""

    def __init__(self, witness, authority):
        self.witness, self.authority = witness, authority
        self.clock, self.steady = FakeClock(), Steady()
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, self.clock, bytes(range(32)))
        witness.trust(self.ledger.signer.verifier_key)
        self.restart()

    def restart(self):
        self.anchors = Anchors(
            self.ledger,
            Witness(self.witness.url, self.witness.key),
            TimestampService(self.authority.url, [self.authority.root]),
            steady=self.steady,
            chance=lambda: 0.0,
        )

    def write(self, count):
        self.ledger.append_all([Append(Noted("fact"))] * count)

    def work(self, seconds=0):
        self.clock.advance(seconds)
        self.steady.now += seconds
        self.anchors.step()

    def kept(self, space):
        return {int.from_bytes(key, "big"): value for key, value in self.store.scan(space)}


@pytest.fixture
def rig(running):
    witness, authority = running
    witness.mood = authority.mood = "honest"
    witness.trusted.clear()
    witness.requests.clear()
    authority.queries.clear()
    return Rig(witness, authority)


def test_an_empty_ledger_has_nothing_to_anchor(rig):
    rig.work()
    assert (0, 0, 0) == rig.anchors.state()
    assert [] == rig.witness.requests


def test_the_cosigned_note_and_the_stamp_are_kept_beside_the_checkpoint(rig):
    rig.write(300)
    rig.work(60)
    assert (300, 300, 0) == rig.anchors.state()
    note, cosigned = rig.kept(CHECKPOINTS)[300], rig.kept(COSIGNED)[300]
    assert cosigned.startswith(note)
    checkpoint, signatures = open_note(cosigned, rig.ledger.signer.key, VerifierKey.parse(rig.witness.key))
    assert 300 == checkpoint.size
    assert all(signature.verified for signature in signatures)
    verify_timestamp(rig.kept(TIMESTAMPS)[300], note, [rig.authority.root])


def test_each_is_asked_at_its_own_pace_and_only_about_something_new(rig):
    rig.write(1)
    for _ in range(65):
        rig.write(1)
        rig.work(60)
    assert 65 == len(rig.kept(COSIGNED))
    assert 2 == len(rig.kept(TIMESTAMPS))
    asked = len(rig.witness.requests), len(rig.authority.queries)
    for _ in range(70):
        rig.work(60)
    assert (asked[0], asked[1] + 1) == (len(rig.witness.requests), len(rig.authority.queries))


def test_after_a_restart_the_witness_gets_the_right_proof(rig):
    rig.write(300)
    rig.work(60)
    rig.restart()
    rig.write(400)
    rig.work(60)
    assert [300, 700] == list(rig.kept(COSIGNED))
    assert rig.witness.requests[-1].startswith("old 300\n")


def test_a_cosignature_that_was_lost_in_a_crash_is_asked_for_again(rig):
    """The witness signed, and the process died before it could keep that."""
    rig.write(300)
    rig.work(60)
    rig.store.trim(COSIGNED)
    rig.restart()
    rig.work(60)
    rig.write(400)
    rig.work(60)
    assert 700 in rig.kept(COSIGNED)


@pytest.mark.parametrize("mood", ["broken", "forger", "garbage", "silent"])
def test_a_witness_that_fails_is_asked_less_and_less_and_stops_neither_stamps_nor_facts(rig, mood, caplog):
    rig.witness.mood = mood
    rig.write(1)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            rig.write(1)
            rig.work(1)
    assert {} == rig.kept(COSIGNED)
    assert 1 == len(rig.kept(TIMESTAMPS))
    assert 7 == rig.anchors.state().failures
    expected = logging.WARNING if mood == "broken" else logging.ERROR
    assert {expected} == {record.levelno for record in caplog.records}
    rig.witness.mood = "honest"
    rig.work(300)
    assert 101 in rig.kept(COSIGNED)


def test_an_authority_that_fails_stops_no_cosignature(rig):
    rig.authority.mood = "another"
    rig.write(1)
    rig.work(60)
    assert {} == rig.kept(TIMESTAMPS)
    assert [1] == list(rig.kept(COSIGNED))


def test_a_ledger_that_was_pruned_still_proves_its_growth(rig):
    rig.write(1000)
    rig.work(60)
    rig.write(1000)
    rig.store.prune(1000)
    rig.work(60)
    assert [1000, 2000] == list(rig.kept(COSIGNED))


def test_a_bundle_may_end_in_a_cosigned_checkpoint(rig, tmp_path):
    rig.write(300)
    rig.work(60)
    path = tmp_path / "evidence.kiki"
    chain = BundleChain(rig.ledger.chain, 0, (), rig.store.entries(), rig.kept(COSIGNED)[300])
    with path.open("wb") as file:
        write_bundle(file, [chain], rig.ledger.signer, at=rig.clock())
    with path.open("rb") as file:
        verify_bundle(file, rig.ledger.signer.verifier_key, witnesses=[rig.witness.key])
    assert 2 <= len(split_note(rig.kept(COSIGNED)[300])[1])


def test_the_thread_works_until_it_is_stopped(rig):
    rig.write(5)
    rig.clock.advance(60)
    stop = threading.Event()
    thread = threading.Thread(target=rig.anchors.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 60
    while not rig.kept(TIMESTAMPS) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [5] == list(rig.kept(COSIGNED))


def test_only_what_is_configured_is_asked(rig):
    rig.write(5)
    Anchors(rig.ledger).step()
    assert {} == rig.kept(COSIGNED) | rig.kept(TIMESTAMPS)
