"""Persons in the ledger are random references, and nothing of who they are is on the disk."""

from __future__ import annotations

import re

import pytest

from kiki.errors import LedgerUnavailable
from kiki.ledger.memory import MemoryStore
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.subjects import Subjects

PERSON = "customer:alice.liddell@example.com"


def test_a_reference_is_stable_and_tells_nothing():
    """The same person gets the same 32 digits; others get others; none can be computed from the name."""
    subjects, other = Subjects(MemoryStore()), Subjects(MemoryStore())
    reference = subjects.reference(PERSON)
    assert re.fullmatch("[0-9a-f]{32}", reference)
    assert reference == subjects.reference(PERSON)
    assert reference != subjects.reference(PERSON + "x")
    assert reference != other.reference(PERSON)
    assert subjects.keyed_hash(PERSON).hex() != reference


def test_finding_makes_nobody():
    """Looking for an unknown person leaves no trace."""
    store = MemoryStore()
    subjects = Subjects(store)
    assert subjects.find(PERSON) is None
    subjects.flush()
    assert store.spaces() == ["secret"]
    reference = subjects.reference(PERSON)
    assert reference == subjects.find(PERSON)


def test_a_reference_survives_a_restart_once_flushed(tmp_path):
    """After `flush` a new process finds the same reference and the same keyed hashes."""
    path = tmp_path / "subjects.db"
    subjects = Subjects(SqliteStore(path))
    reference, hashed = subjects.reference(PERSON), subjects.keyed_hash("key")
    subjects.flush()
    subjects.close()
    again = Subjects(SqliteStore(path))
    assert reference == again.find(PERSON) == again.reference(PERSON)
    assert hashed == again.keyed_hash("key")
    again.close()


def test_flush_returns_only_when_durable():
    """What a full disk could not take is still to be written, under the same reference."""
    store = MemoryStore()
    store.recoverable = True
    subjects = Subjects(store)
    reference = subjects.reference(PERSON)
    assert Subjects(store).find(PERSON) is None
    store.fail = "disk full"
    with pytest.raises(LedgerUnavailable):
        subjects.flush()
    store.fail = None
    assert reference == subjects.reference(PERSON)
    subjects.flush()
    assert reference == Subjects(store).find(PERSON)
    commits = store.commits
    subjects.flush()
    assert commits == store.commits


def test_a_directory_whose_disk_failed_stays_failed():
    """After a failed sync the next one may succeed without having written: only a new process may go on."""
    store = MemoryStore()
    subjects = Subjects(store)
    subjects.reference(PERSON)
    store.fail = "input/output error"
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            subjects.flush()
        store.fail = None
    assert Subjects(store).find(PERSON) is None


def test_the_hash_of_a_key_depends_on_the_secret():
    """The same text hashes alike in one store and differently in another."""
    one, other = Subjects(MemoryStore()), Subjects(MemoryStore())
    assert len(one.keyed_hash("order-1")) == 16
    assert one.keyed_hash("order-1") == one.keyed_hash("order-1")
    assert one.keyed_hash("order-1") != one.keyed_hash("order-2")
    assert one.keyed_hash("order-1") != other.keyed_hash("order-1")


def test_nothing_of_a_person_is_on_the_disk(tmp_path):
    """Neither the name nor a part of it is in any file."""
    subjects = Subjects(SqliteStore(tmp_path / "subjects.db"))
    for number in range(50):
        subjects.reference(f"{PERSON}{number}")
    subjects.flush()
    subjects.close()
    files = [each for each in tmp_path.iterdir() if each.is_file()]
    assert files
    for part in (b"alice", b"liddell", b"example", b"customer"):
        assert [each.name for each in files if part in each.read_bytes()] == []


def test_many_persons_are_found_beyond_the_memory(monkeypatch):
    """The directory keeps only some references in memory; the others are read from the store."""
    monkeypatch.setattr("kiki.ledger.subjects._KNOWN_MAX", 10)
    subjects = Subjects(MemoryStore())
    made = {f"customer:{number}": subjects.reference(f"customer:{number}") for number in range(100)}
    subjects.flush()
    assert len(subjects._known) == 10
    assert made == {person: subjects.reference(person) for person in made}
