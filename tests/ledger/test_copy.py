"""An embedded ledger moves into PostgreSQL whole: same bytes, same tree, same persons, and only once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, closing

import pytest

from kiki.errors import Conflict, LedgerCorrupt, LedgerUnavailable
from kiki.ledger.copy import copy_ledger
from kiki.ledger.ledger import META, Append, Ledger
from kiki.ledger.master_key import KeySource
from kiki.ledger.postgres import PostgresStore
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.store import Write
from kiki.ledger.subjects import Subjects
from kiki.shield.fact import Halted

PERSONS = [f"customer:c-{number}" for number in range(50)]

COPY = """
import os, sys
from pathlib import Path
from kiki.ledger.copy import copy_ledger
from kiki.ledger.postgres import PostgresStore
from kiki.ledger.sqlite import SqliteStore
folder, url = Path(sys.argv[1]), sys.argv[2]
ledger, keys = SqliteStore(folder / "shield.db"), SqliteStore(folder / "shield-subjects.db")
to_ledger = PostgresStore(url, "one", unfinished=True)
to_keys = PostgresStore(url, "one", schema="kiki_keys")
copy_ledger(ledger, keys, to_ledger, to_keys, lambda *told: print(*told, flush=True))
"""


def embedded(folder, entries=3000):
    """A ledger with its key store, checkpoints and tiles, as a guard leaves it."""
    subjects = Subjects(SqliteStore(folder / "shield-subjects.db"), KeySource(file=folder / "key", may_create=True))
    ledger = Ledger(SqliteStore(folder / "shield.db"), seed=subjects.signing_seed)
    ledger.require_companion("directory of persons", subjects.digest)
    persons = subjects.enrol(PERSONS)
    facts = []
    for number in range(entries):
        sealed = [subjects.seal(persons[PERSONS[number % 50]], b"personal %d" % number)]
        facts.append(Append(Halted(0, f"campaign:{number}", on=True), None, sealed))
    ledger.append_all(facts)
    ledger.keep([Write("halt", b"%d" % number, b"1") for number in range(2500)])
    ledger.keep([Write("shared/consent", b"%d" % number, b"granted") for number in range(2500)])
    ledger.checkpoint()
    ledger.close()
    subjects.close()


@pytest.fixture
def source(tmp_path):
    embedded(tmp_path)
    with ExitStack() as stack:
        names = ("shield.db", "shield-subjects.db")
        yield [stack.enter_context(closing(SqliteStore(tmp_path / name))) for name in names]


@pytest.fixture
def target(postgres):
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(PostgresStore(postgres, "one", unfinished=True))),
            stack.enter_context(closing(PostgresStore(postgres, "one", schema="kiki_keys"))),
        ]


def everything(stores):
    """All that a ledger and its key store hold."""
    return [(list(store.entries()), {space: list(store.scan(space)) for space in store.spaces()}) for store in stores]


def test_everything_is_the_same_afterwards(source, target, tmp_path, postgres):
    """Bytes of entries, projections, tiles, checkpoints, secrets and persons; the chain keeps its id."""
    told = []
    copied = copy_ledger(*source, *target, lambda *each: told.append(each))
    assert everything(source) == everything(target)
    assert copied.chain == source[0].get(META, b"chain").decode()
    assert (copied.first_seq, copied.next_seq) == (0, 3000)
    assert copied.rows == sum(len(keys) for _, spaces in everything(source) for keys in spaces.values())
    assert ("entries", 3000, 3000) in told
    assert ("shared/consent", 2500, None) in told
    for each in target:
        each.close()
    # What was sealed before opens, checkpoints go on under the same key, and so does the tree.
    with closing(PostgresStore(postgres, "one", schema="kiki_keys")) as keys:
        subjects = Subjects(keys, KeySource(file=tmp_path / "key"))
        assert subjects.identity(subjects.find(PERSONS[7]).reference) == PERSONS[7]
        with closing(Ledger(PostgresStore(postgres, "one"), seed=subjects.signing_seed)) as ledger:
            ledger.require_companion("directory of persons", subjects.digest)
            assert subjects.open(next(ledger.read(7)).sealed[0]) == b"personal 7"
            ledger.append(Halted(0, "campaign:new", on=True)).result()
            assert ledger.chain == copied.chain
            assert b"\n3001\n" in ledger.checkpoint()


def test_copying_again_changes_nothing(source, target):
    copy_ledger(*source, *target)
    before = everything(target)
    assert copy_ledger(*source, *target).rows == 0
    assert before == everything(target)


@pytest.mark.parametrize("after", ["entries 1", "halt", "shared/subject"])
def test_a_copy_that_was_killed_goes_on(tmp_path, postgres, after):
    """kill -9 at any point leaves a target that nobody else may use, and that the next attempt completes."""
    embedded(tmp_path, entries=12_000)
    with subprocess.Popen(
        [sys.executable, "-c", COPY, str(tmp_path), postgres], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith(after):
                break
        else:
            pytest.fail("the copy ended too early")
        process.kill()
    with pytest.raises(LedgerUnavailable, match="being copied"):
        PostgresStore(postgres, "one").close()
    with ExitStack() as stack:
        names = ("shield.db", "shield-subjects.db")
        source = [stack.enter_context(closing(SqliteStore(tmp_path / name))) for name in names]
        target = [
            stack.enter_context(closing(PostgresStore(postgres, "one", unfinished=True))),
            stack.enter_context(closing(PostgresStore(postgres, "one", schema="kiki_keys"))),
        ]
        begun = target[0].next_seq()
        assert begun
        done = []
        copy_ledger(*source, *target, lambda *told: done.append(told[:2]))
        assert everything(source) == everything(target)
        entries = [count for what, count in done if what == "entries"]
        assert all(count > begun for count in entries)


def test_who_was_erased_between_two_attempts_does_not_come_back(source, target, tmp_path):
    """Keys and projections are copied from their beginning each time."""
    real = target[1].commit
    target[1].commit = lambda *_: (_ for _ in ()).throw(LedgerUnavailable("killed here"))
    with pytest.raises(LedgerUnavailable, match="killed here"):
        copy_ledger(*source, *target)
    target[1].commit = real
    gone, _ = next(source[1].scan("shared/subject"))
    target[1].commit([], [Write("shared/subject", gone, b"copied by the first attempt")])
    source[1].erase("shared/subject", [gone])
    source[0].trim("halt", 2500)
    copy_ledger(*source, *target)
    assert target[1].get("shared/subject", gone) is None
    assert everything(source) == everything(target)


def test_a_pruned_ledger_keeps_its_places(source, target, postgres):
    source[0].prune(1000)
    copied = copy_ledger(*source, *target)
    assert (copied.first_seq, copied.next_seq) == (1000, 3000)
    assert everything(source) == everything(target)
    assert target[0].first_seq() == 1000
    target[0].reopen()
    target[0].commit([(3000, b"next")])


def test_what_was_pruned_between_two_attempts_is_pruned_in_the_target(source, target):
    real = target[1].commit
    target[1].commit = lambda *_: (_ for _ in ()).throw(LedgerUnavailable("killed here"))
    with pytest.raises(LedgerUnavailable, match="killed here"):
        copy_ledger(*source, *target)
    target[1].commit = real
    source[0].prune(2000)
    copy_ledger(*source, *target)
    assert everything(source) == everything(target)


@pytest.mark.parametrize("what", ["entry", "projection", "secret", "other chain", "other copy", "other entries"])
def test_a_target_that_holds_anything_else_is_refused_and_left_alone(source, target, postgres, what):
    ledger, keys = target
    with ExitStack() as stack:
        if what == "entry":
            ledger.commit([(0, b"other")])
        elif what == "projection":
            ledger.commit([], [Write("s", b"k", b"v")])
        elif what == "secret":
            keys.add("shared/secret", {b"lookup": b"other"})
        elif what == "other chain":
            stack.enter_context(closing(PostgresStore(postgres, "two")))
        elif what == "other copy":
            ledger.commit([], [Write("shared/copy", b"chain", b"0123456789abcdef")])
        else:
            chain = source[0].get(META, b"chain")
            ledger.commit([(0, b"other")], [Write("shared/copy", b"chain", chain)])
        before = everything(target)
        with pytest.raises(Conflict, match="not empty"):
            copy_ledger(*source, *target)
        assert before == everything(target)


def test_a_copy_that_went_on_since_is_not_copied_over(source, target):
    copy_ledger(*source, *target)
    target[0].commit([(3000, b"a later decision")])
    before = everything(target)
    with pytest.raises(Conflict, match="went on since"):
        copy_ledger(*source, *target)
    assert before == everything(target)


def test_a_hole_in_the_source_is_found(source, target):
    source[0]._write.execute("DELETE FROM entry WHERE seq = 1234")
    with pytest.raises(LedgerCorrupt, match="entry 1234 is missing"):
        copy_ledger(*source, *target)


def test_a_source_that_is_written_meanwhile_is_noticed(source, target):
    def write(what, done, _):
        if what == "entries" and done == 3000:
            source[0].commit([(3000, b"late")])

    with pytest.raises(Conflict, match="written while it was copied"):
        copy_ledger(*source, *target, write)
    copy_ledger(*source, *target)
    assert everything(source) == everything(target)


def test_an_empty_folder_is_no_ledger(tmp_path, target):
    with (
        closing(SqliteStore(tmp_path / "a.db")) as ledger,
        closing(SqliteStore(tmp_path / "b.db")) as keys,
        pytest.raises(LedgerUnavailable, match="no ledger to copy"),
    ):
        copy_ledger(ledger, keys, *target)
