"""Persons are random references with keys of their own; forgetting one leaves nothing that says who it was."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading

import apsw
import msgspec
import pytest

from kiki.errors import LedgerCorrupt, LedgerUnavailable, Unreadable
from kiki.ledger.entry import Sealed
from kiki.ledger.locked_secrets import SECRETS
from kiki.ledger.master_key import KeySource
from kiki.ledger.memory import MemoryStore
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.subjects import (
    DIRECTORY,
    ERASED,
    SEGMENT_KEYS,
    SEGMENT_SPAN,
    SUBJECTS,
    Person,
    Subjects,
)
from kiki.settings import Secret
from tests.ledger.doubles import FakeClock

PERSON = "customer:alice.liddell@example.com"
KEYS = KeySource(text=Secret("00" * 32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "subjects.db"


@pytest.fixture
def on_disk(path):
    subjects = Subjects(SqliteStore(path), KEYS)
    yield subjects
    subjects.close()


def enrolled(subjects: Subjects, person: str = PERSON) -> Person:
    return subjects.enrol([person])[person]


def files_of(path):
    """Every byte of the key store: database, log and shared memory."""
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if each.name.startswith(path.name)}


def with_any(path, needles):
    """The files in which any of these bytes stand."""
    return sorted(name for name, data in files_of(path).items() if any(needle in data for needle in needles))


# -- references and hashes ---------------------------------------------------------------------------


def test_a_reference_is_stable_and_tells_nothing():
    """The same person gets the same 32 digits; others get others; none can be computed from the name."""
    subjects, other = Subjects(MemoryStore()), Subjects(MemoryStore())
    person = enrolled(subjects)
    assert re.fullmatch("[0-9a-f]{32}", person.reference)
    assert len(person.key) == 32
    assert person == enrolled(subjects)
    for another in (enrolled(subjects, PERSON + "x"), enrolled(other)):
        assert person.reference != another.reference
        assert person.key != another.key
    assert subjects.keyed_hash(PERSON).hex() != person.reference


def test_many_are_enrolled_in_one_commit():
    """However often each is named, and together with some who are known already."""
    store = MemoryStore()
    subjects = Subjects(store)
    known, before = enrolled(subjects), store.commits
    found = subjects.enrol([PERSON, "customer:b", "customer:c", "customer:b"])
    assert {PERSON, "customer:b", "customer:c"} == set(found)
    assert known == found[PERSON]
    assert store.commits == before + 1
    assert found == subjects.enrol(found)
    assert subjects.enrol([]) == {}
    assert store.commits == before + 1


def test_finding_makes_nobody():
    """Looking for an unknown person leaves no trace."""
    store = MemoryStore()
    subjects = Subjects(store)
    assert subjects.find(PERSON) is None
    assert [SECRETS] == store.spaces()
    assert enrolled(subjects) == subjects.find(PERSON)


def test_who_is_behind_a_reference():
    """The person with the key, the name that was sealed, and nothing for a reference that nobody has."""
    subjects = Subjects(MemoryStore())
    person = enrolled(subjects)
    assert person == subjects.person_of(person.reference)
    assert subjects.identity(person.reference) == PERSON
    assert subjects.person_of("0" * 32) is None
    assert subjects.identity("0" * 32) is None


def test_persons_hashes_and_seals_survive_a_restart(path):
    """A new process with the same master key finds all of it again."""
    subjects = Subjects(SqliteStore(path), KEYS)
    person, hashed = enrolled(subjects), subjects.keyed_hash("key")
    sealed = [subjects.seal(person, b"one"), subjects.seal_for_segment(b"two")]
    digest, seed = subjects.digest, subjects.signing_seed
    subjects.close()
    again = Subjects(SqliteStore(path), KEYS)
    assert person == again.find(PERSON) == again.person_of(person.reference) == enrolled(again)
    assert (hashed, digest, seed) == (again.keyed_hash("key"), again.digest, again.signing_seed)
    assert [b"one", b"two"] == [again.open(each) for each in sealed]
    again.close()


def test_the_hash_of_a_key_depends_on_the_secret():
    """The same text hashes alike in one store and differently in another."""
    one, other = Subjects(MemoryStore()), Subjects(MemoryStore())
    assert len(one.keyed_hash("order-1")) == 16
    assert one.keyed_hash("order-1") == one.keyed_hash("order-1")
    assert one.keyed_hash("order-1") != one.keyed_hash("order-2")
    assert one.keyed_hash("order-1") != other.keyed_hash("order-1")


def test_nothing_of_a_person_is_on_the_disk(path, on_disk):
    """Neither the name nor a part of it is in any file."""
    on_disk.enrol(f"{PERSON}{number}" for number in range(50))
    assert files_of(path)
    assert [] == with_any(path, [b"alice", b"liddell", b"example", b"customer"])


def test_many_persons_are_found_beyond_the_memory(monkeypatch):
    """Only some are kept in memory; the others are read from the store."""
    monkeypatch.setattr("kiki.ledger.subjects._KNOWN_MAX", 10)
    subjects = Subjects(MemoryStore())
    made = subjects.enrol(f"customer:{number}" for number in range(100))
    assert len(subjects._known) <= 11
    assert made == {person: enrolled(subjects, person) for person in made}
    assert len(subjects._known) <= 11


# -- durable before use ------------------------------------------------------------------------------


def test_whom_a_full_disk_could_not_take_is_nobody():
    """Enrolling raises, nothing is remembered of it, and it succeeds once there is room."""
    store = MemoryStore()
    store.recoverable = True
    subjects = Subjects(store, KEYS)
    store.fail = "disk full"
    with pytest.raises(LedgerUnavailable):
        subjects.enrol([PERSON])
    assert subjects.find(PERSON) is None
    store.fail = None
    assert enrolled(subjects) == Subjects(store, KEYS).find(PERSON)


@pytest.mark.parametrize(
    "act",
    [
        lambda subjects: subjects.enrol(["customer:b"]),
        lambda subjects: subjects.forget(PERSON),
        lambda subjects: subjects.segment_key(),
        lambda subjects: subjects.seal_for_segment(b"x"),
    ],
    ids=["enrol", "forget", "segment_key", "seal_for_segment"],
)
def test_a_directory_whose_disk_failed_stays_failed(act):
    """After a failed sync the next one may succeed without having written: only a new process may go on."""
    store = MemoryStore()
    subjects = Subjects(store)
    enrolled(subjects)
    store.fail = "input/output error"
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="input/output error"):
            act(subjects)
        store.fail = None
    assert subjects.failure is not None
    assert subjects.find("customer:b") is None


ENROLLER = """
import os, sys
from kiki.ledger.locked_secrets import SECRETS
from kiki.ledger.master_key import KeySource
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.subjects import Subjects
from kiki.settings import Secret

subjects = Subjects(SqliteStore(sys.argv[1]), KeySource(text=Secret("00" * 32)))
number = 0
while True:
    names = [f"customer:{sys.argv[2]}-{number + more}" for more in range(3)]
    for name, person in subjects.enrol(names).items():
        sys.stdout.write(f"{name} {person.reference} {person.key.hex()}\\n")
    sys.stdout.flush()
    number += 3
    if number % 9 == 0:
        subjects.forget(names[0])
        sys.stdout.write(f"forgot {names[0]} -\\n")
        sys.stdout.flush()
"""


def test_kill_9_loses_nobody_who_was_named(path):
    """Every reference and key that a killed process told is there; no key is without its name, no name without its key."""
    chance, told, forgotten = random.Random(7), {}, set()
    for round_ in range(8):
        arguments = [sys.executable, "-c", ENROLLER, str(path), str(round_)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            wanted = chance.randrange(3, 60)
            lines = []
            for line in process.stdout:
                lines.append(line)
                if len(lines) == wanted:
                    process.send_signal(signal.SIGKILL)
            process.wait()
        for line in lines:
            if line.endswith("\n") and line.startswith("forgot"):
                forgotten.add(line.split()[1])
            elif line.endswith("\n"):
                name, reference, key = line.split()
                told[name] = Person(reference, bytes.fromhex(key))
    subjects = Subjects(SqliteStore(path), KEYS)
    assert len(told) > 50
    assert forgotten
    for name, person in told.items():
        found = subjects.find(name)
        assert found == (None if name in forgotten or subjects.erased_at(name) is not None else person)
        assert (name in forgotten) <= (subjects.erased_at(name) is not None)
    names = sorted(value for _, value in subjects.store.scan(DIRECTORY))
    assert names == sorted(key for key, _ in subjects.store.scan(SUBJECTS))
    assert all(subjects.identity(reference.hex()) is not None for reference in names)
    subjects.close()


def test_two_replicas_that_enrol_one_person_agree():
    """Whoever comes second gets the first one's reference, and leaves no key behind that no erasure would find."""
    store = MemoryStore()
    first, second = Subjects(store, KEYS), Subjects(store, KEYS)
    real, raced = store.shared_turn, []

    def turn():
        store.shared_turn = real
        raced.append(enrolled(first))
        return real()

    store.shared_turn = turn
    assert [enrolled(second)] == raced == [enrolled(first)]
    assert len(list(store.scan(SUBJECTS))) == 1


# -- altered rows ------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_row_is_noticed():
    """A person's wrapped key and sealed name: never another key, never another name, and never a foreign error."""
    store = MemoryStore()
    subjects = Subjects(store)
    person = enrolled(subjects)
    reference = bytes.fromhex(person.reference)
    row = store.get(SUBJECTS, reference)
    for bit in range(8 * len(row)):
        altered = (int.from_bytes(row, "big") ^ (1 << bit)).to_bytes(len(row), "big")
        store._spaces[SUBJECTS][reference] = altered
        try:
            assert person == subjects.person_of(person.reference)
            assert subjects.identity(person.reference) == PERSON
        except (LedgerCorrupt, Unreadable):
            continue
        pytest.fail(f"bit {bit} was not noticed")


@pytest.mark.parametrize(
    "row", [b"", b"\x00", b"\x92", b"\x92\xc4\x00\x94\xc4\x00\xc4\x00\xc4\x00\xc4\x00", b"\xff" * 99]
)
def test_a_row_of_garbage_is_corrupt_and_can_be_erased(row):
    """Whoever asks is told to restore it; whoever wants to be forgotten is."""
    store = MemoryStore()
    person = enrolled(Subjects(store, KEYS))
    store._spaces[SUBJECTS][bytes.fromhex(person.reference)] = row
    subjects = Subjects(store, KEYS)
    with pytest.raises(LedgerCorrupt, match="was altered") as refused:
        subjects.person_of(person.reference)
    assert refused.value.hint == "restore the key store from a backup"
    with pytest.raises(LedgerCorrupt, match="was altered"):
        subjects.find(PERSON)
    erasure = subjects.forget(PERSON)
    assert b"" not in erasure.needles
    assert subjects.read_back(erasure).is_gone
    assert subjects.find(PERSON) is subjects.person_of(person.reference) is None


def test_rows_cannot_be_exchanged():
    """One person's wrapped key is not accepted under another's reference."""
    store = MemoryStore()
    subjects = Subjects(store)
    one, other = (bytes.fromhex(enrolled(subjects, name).reference) for name in ("customer:a", "customer:b"))
    rows = store._spaces[SUBJECTS]
    rows[one], rows[other] = rows[other], rows[one]
    for reference in (one, other):
        with pytest.raises(LedgerCorrupt):
            subjects.person_of(reference.hex())


# -- sealing -----------------------------------------------------------------------------------------


def test_a_sealed_part_is_read_with_the_key_that_its_id_names():
    """Of a person or of a segment; one with an id that nobody has is unreadable."""
    subjects = Subjects(MemoryStore())
    person = enrolled(subjects)
    mine, nobodys = subjects.seal(person, b"mine"), subjects.seal_for_segment(b"nobody's")
    assert person.reference == mine.key_id.hex()
    assert [b"mine", b"nobody's"] == [subjects.open(mine), subjects.open(nobodys)]
    with pytest.raises(Unreadable, match="destroyed"):
        subjects.open(Sealed(bytes(16), mine.nonce, mine.commitment, mine.ciphertext))
    with pytest.raises(Unreadable):
        subjects.open(Sealed(nobodys.key_id, mine.nonce, mine.commitment, mine.ciphertext))
    with pytest.raises(Unreadable):
        Subjects(MemoryStore()).open(mine)


def test_no_nonce_comes_twice():
    """Two thousand parts of one person have two thousand nonces, and no two look alike."""
    subjects = Subjects(MemoryStore())
    person = enrolled(subjects)
    parts = [subjects.seal(person, b"x") for _ in range(2000)]
    assert len({each.nonce for each in parts}) == len({each.ciphertext for each in parts}) == 2000


def test_a_segments_key_is_durable_before_its_first_use():
    store = MemoryStore()
    subjects = Subjects(store)
    key_id, _ = subjects.segment_key()
    assert [key_id] == [name for name, _ in store.scan(SEGMENT_KEYS)]
    commits = store.commits
    assert key_id == subjects.seal_for_segment(b"x").key_id == subjects.segment_key()[0]
    assert commits == store.commits


def sealed_in_a_batch(subjects: Subjects, text: bytes) -> Sealed:
    """As the guard does it: the key is renewed where it is due before anything is decided."""
    subjects.segment_key()
    return subjects.seal_for_segment(text)


def test_segment_keys_rotate(monkeypatch):
    """After an hour or many parts there is a new one; old parts stay readable until theirs is pruned."""
    monkeypatch.setattr("kiki.ledger.subjects.SEGMENT_SEALS_MAX", 5)
    clock = FakeClock()
    subjects = Subjects(MemoryStore(), clock=clock)
    first = subjects.seal_for_segment(b"0")
    clock.now += SEGMENT_SPAN - 1
    assert first.key_id == subjects.segment_key()[0]
    clock.now += 1
    assert first == subjects.seal_for_segment(b"0"), "never in the middle of a batch"
    second = sealed_in_a_batch(subjects, b"0")
    assert first.key_id != second.key_id
    parts = [sealed_in_a_batch(subjects, b"%d" % number) for number in range(12)]
    assert len({each.key_id for each in parts}) == 3
    assert [b"0", b"0", *(b"%d" % number for number in range(12))] == [
        subjects.open(each) for each in (first, second, *parts)
    ]


def test_pruning_destroys_the_keys_of_segments_that_ended_before():
    """The current one stays however old it is; what was sealed under the others is unreadable."""
    clock, store = FakeClock(), MemoryStore()
    subjects = Subjects(store, clock=clock)
    old = subjects.seal_for_segment(b"old")
    made = clock.now
    assert subjects.prune(made + SEGMENT_SPAN) == 0
    assert subjects.prune(made + 10 * SEGMENT_SPAN) == 0
    clock.now += SEGMENT_SPAN
    young = sealed_in_a_batch(subjects, b"young")
    assert subjects.prune(made + SEGMENT_SPAN) == 0
    assert subjects.prune(made + SEGMENT_SPAN + 1) == 1
    with pytest.raises(Unreadable, match="its time was over"):
        subjects.open(old)
    assert subjects.open(young) == b"young"


# -- forgetting --------------------------------------------------------------------------------------


def test_the_forgotten_are_gone_and_the_others_are_not(path, on_disk):
    """Neither key nor name nor hash, in no file; what was sealed is unreadable; who comes again is somebody new."""
    other = enrolled(on_disk, "customer:other")
    person = enrolled(on_disk)
    parts = {each: on_disk.seal(each, b"text") for each in (person, other)}
    erasure = on_disk.forget(PERSON)
    assert person.reference == erasure.reference
    assert (on_disk.keyed_hash(PERSON), 2) == (erasure.needles[0], len(erasure.needles))
    found = on_disk.read_back(erasure)
    assert (True, ()) == (found.is_gone, found.traces)
    assert [] == with_any(path, [*erasure.needles, bytes.fromhex(person.reference), person.key])
    assert on_disk.find(PERSON) is on_disk.person_of(person.reference) is on_disk.identity(person.reference) is None
    with pytest.raises(Unreadable, match="destroyed"):
        on_disk.open(parts[person])
    assert on_disk.open(parts[other]) == b"text"
    assert other == on_disk.find("customer:other")
    assert person.reference != enrolled(on_disk).reference


def test_the_time_of_an_erasure_is_known_to_whoever_knows_the_name():
    """By a hash that shares nothing with the directory's; it survives restarts and repeats with the first moment."""
    clock, store = FakeClock(), MemoryStore()
    subjects = Subjects(store, KEYS, clock)
    assert subjects.erased_at(PERSON) is None
    enrolled(subjects)
    first = clock.now
    subjects.forget(PERSON)
    subjects.conclude(PERSON)
    clock.advance(100)
    again = subjects.forget(PERSON)
    assert first == subjects.erased_at(PERSON) == again.at == Subjects(store, KEYS, clock).erased_at(PERSON)
    assert again.reference == ""
    assert subjects.read_back(again).is_gone
    assert subjects.keyed_hash(PERSON) not in dict(store.scan(ERASED))


def test_forgetting_somebody_unknown_leaves_no_trace():
    """Not even a tombstone: whoever asks about strangers would fill the store with them."""
    store = MemoryStore()
    subjects = Subjects(store)
    erasure = subjects.forget(PERSON)
    assert ("", ()) == (erasure.reference, erasure.needles)
    assert subjects.read_back(erasure).is_gone
    assert [SECRETS] == store.spaces()


def test_who_was_forgotten_twice_was_forgotten_the_second_time():
    """Somebody who came back and asks again gets the later moment, and the second reference is gone too."""
    clock, store = FakeClock(), MemoryStore()
    subjects = Subjects(store, clock=clock)
    enrolled(subjects)
    subjects.forget(PERSON)
    clock.advance(60)
    second = enrolled(subjects)
    assert subjects.forget(PERSON).reference == second.reference
    assert clock.now == subjects.erased_at(PERSON)
    assert list(store.scan(SUBJECTS)) == list(store.scan(DIRECTORY)) == []


class Killed(BaseException):
    """The process ends here."""


class Dying(SqliteStore):
    """Ends the process, as far as callers can tell, before a chosen call."""

    countdown = 10**9

    def _step(self):
        self.countdown -= 1
        if not self.countdown:
            raise Killed

    def commit(self, entries, writes=()):
        self._step()
        super().commit(entries, writes)

    def flush_log(self):
        self._step()
        super().flush_log()


STEPS = 6
"""One transaction, the bytes of key and name, each removed and flushed, and the conclusion."""


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_an_erasure_that_was_cut_short_is_ended_by_the_next(path, step):
    """Whatever step a crash came at: asked again, the person is gone from every byte, and nobody else is."""
    store = Dying(path)
    subjects = Subjects(store, KEYS)
    other, person = enrolled(subjects, "customer:other"), enrolled(subjects)
    row = store.get(SUBJECTS, bytes.fromhex(person.reference))
    wrapped = msgspec.msgpack.decode(row)[0]
    needles = [subjects.keyed_hash(PERSON), wrapped, bytes.fromhex(person.reference)]
    store.countdown = step
    if step == STEPS:
        subjects.forget(PERSON)
    with pytest.raises(Killed):
        (subjects.conclude if step == STEPS else subjects.forget)(PERSON)
    # As another process finds it: nothing was closed in order.
    copied = path.with_name("after")
    copied.mkdir()
    for name, data in files_of(path).items():
        if not name.endswith((".lock", "-shm")):
            (copied / name).write_bytes(data)
    store.close()
    after = Subjects(SqliteStore(copied / path.name), KEYS)
    assert (after.find(PERSON) is None) == (after.erased_at(PERSON) is not None), "both or neither, at every step"
    erasure = after.forget(PERSON)
    assert (True, ()) == after.read_back(erasure)[3:]
    assert after.find(PERSON) is after.person_of(person.reference) is None
    assert after.erased_at(PERSON) is not None
    assert [] == with_any(copied / path.name, needles)
    assert other == after.find("customer:other")
    assert person.reference != enrolled(after).reference
    after.close()


def test_a_name_that_leads_to_no_key_is_no_obstacle():
    """Left by an erasure of an earlier version that was cut short: the person can be enrolled, and forgotten."""
    store = MemoryStore()
    subjects = Subjects(store, KEYS)
    first = enrolled(subjects)
    store.erase(SUBJECTS, [bytes.fromhex(first.reference)])
    subjects = Subjects(store, KEYS)
    assert subjects.find(PERSON) is None
    second = enrolled(subjects)
    assert first.reference != second.reference
    assert second == Subjects(store, KEYS).find(PERSON)
    store.erase(SUBJECTS, [bytes.fromhex(second.reference)])
    assert Subjects(store, KEYS).forget(PERSON).reference == second.reference
    assert list(store.scan(DIRECTORY)) == []


def test_a_reader_that_holds_the_log_is_named_and_asking_again_ends_it(path, on_disk):
    """The erasure says that it could not overwrite the bytes; the person is gone already, and the repeat ends it."""
    person = enrolled(on_disk)
    needles = [on_disk.keyed_hash(PERSON), bytes.fromhex(person.reference)]
    on_disk.store._write.set_busy_timeout(50)
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM projection").fetchall()
    with pytest.raises(LedgerUnavailable, match="while another process reads it") as refused:
        on_disk.forget(PERSON)
    assert refused.value.recoverable
    assert on_disk.failure is None
    assert on_disk.find(PERSON) is on_disk.person_of(person.reference) is None
    assert with_any(path, needles), "the bytes are still in the log"
    reader.close()
    assert (True, ()) == on_disk.read_back(on_disk.forget(PERSON))[3:]
    assert [] == with_any(path, needles)


def test_who_is_looked_for_while_being_forgotten_is_not_remembered():
    """A look that read the row before the erasure must not bring the key back into memory after it."""
    store = MemoryStore()
    subjects = Subjects(store)
    person = enrolled(subjects)
    subjects._known.clear()
    reading, forgotten = threading.Event(), threading.Event()
    real = store.get_many

    def get_many(space, keys):
        found = real(space, keys)
        if space == SUBJECTS:
            reading.set()
            assert forgotten.wait(60)
        return found

    store.get_many = get_many
    looker = threading.Thread(target=subjects.find, args=(PERSON,))
    looker.start()
    assert reading.wait(60)
    store.get_many = real
    subjects.forget(PERSON)
    forgotten.set()
    looker.join(60)
    assert subjects.find(PERSON) is None
    assert person.reference != enrolled(subjects).reference


def test_who_comes_back_before_the_reading_back_is_no_trace_of_before(path, on_disk):
    """The directory's hash is theirs again; of the first reference and key nothing is left."""
    first = enrolled(on_disk)
    erasure = on_disk.forget(PERSON)
    assert first.reference != enrolled(on_disk).reference
    assert (True, ()) == on_disk.read_back(erasure)[3:]
    assert with_any(path, [on_disk.keyed_hash(PERSON)])


def test_a_thousand_erasures_in_any_order_leave_no_byte(path, on_disk):
    """Of three thousand persons a random third leaves, one by one; after each two hundred every byte of every file is looked at."""
    chance = random.Random(3)
    persons = {name: on_disk.enrol([name])[name] for name in (f"customer:{number}" for number in range(600))}
    persons |= on_disk.enrol(f"customer:{number}" for number in range(600, 3000))
    rows = dict(on_disk.store.scan(SUBJECTS))
    leaving = chance.sample(sorted(persons), 1000)
    needles: list[bytes] = []
    for count, name in enumerate(leaving, 1):
        reference = bytes.fromhex(persons[name].reference)
        wrapped, identity = msgspec.msgpack.decode(rows[reference])
        erasure = on_disk.forget(name)
        assert (on_disk.keyed_hash(name), wrapped) == erasure.needles
        needles += [*erasure.needles, reference, identity[3]]
        if chance.random() < 0.1:
            on_disk.enrol([f"customer:new-{count}"])
        if count % 200 == 0:
            traced(path, on_disk, needles)
    staying = persons.keys() - leaving
    assert {name: persons[name] for name in staying} == {name: on_disk.find(name) for name in staying}


def traced(path, subjects, needles):
    """No needle stands in any file, if need be after writing the files anew, as the guard does."""
    if subjects.store.traces(needles):
        subjects.store.compact()
    pieces = {needle[:8] for needle in needles}
    for name, data in files_of(path).items():
        windows = {data[at : at + 8] for at in range(len(data) - 7)} & pieces
        assert not [needle for needle in needles if needle[:8] in windows and needle in data], name


def test_the_search_finds_what_is_there(path, on_disk):
    """In the log and in the database, and nothing that is not: the tests above rest on it."""
    person = enrolled(on_disk)
    reference = bytes.fromhex(person.reference)
    assert [f"{path.name}-wal"] == with_any(path, [reference]) == on_disk.store.traces([os.urandom(16), reference])
    on_disk.store.flush_log()
    assert [path.name] == with_any(path, [reference]) == on_disk.store.traces([reference])
    assert on_disk.store.traces([os.urandom(16)]) == []
