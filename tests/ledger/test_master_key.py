"""The master key: where it may come from, what is refused, and that it never shows and never destroys anything."""

from __future__ import annotations

import base64
import copy
import logging
import os
import pickle
import random
import stat
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from kiki.errors import KikiError, LedgerUnavailable, MasterKeyError
from kiki.ledger.locked_secrets import SECRETS, rotate_master_key
from kiki.ledger.master_key import KeySource, MasterKey
from kiki.ledger.memory import MemoryStore
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.subjects import Subjects
from kiki.settings import Secret
from kiki.shield.budget_guard import BudgetGuard

KEY = bytes(range(32))
TEXT = base64.b64encode(KEY).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
PERSON = "customer:alice"


def source(text: str = TEXT) -> KeySource:
    return KeySource(text=Secret(text))


def key_file(directory: Path, text: str = TEXT, mode: int = 0o600) -> Path:
    path = directory / "master.key"
    path.write_text(text)
    path.chmod(mode)
    return path


def held(directory: Path) -> dict[str, bytes]:
    """The bytes of every file, but for the lock that names whoever looks."""
    return {each.name: each.read_bytes() for each in directory.iterdir() if not each.name.endswith(".lock")}


# -- reading a key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, KEY.hex(), KEY.hex().upper(), f"  {TEXT}\n", f"{KEY.hex()}\r\n"])
def test_base64_and_hexadecimal_are_read(text):
    """With the white space that editors and shells leave around it."""
    assert MasterKey(KEY).id == MasterKey.parse(text, "it").id


GARBAGE = [
    "",
    " ",
    "correct horse battery staple",
    TEXT[:-1],
    TEXT[:-4],
    TEXT + "AAAA",
    KEY.hex()[:-1],
    KEY.hex() + "00",
    "g" * 64,
    TEXT.replace("A", "*", 1),
    f"{TEXT}\n{TEXT}",
    "{" + TEXT + "}",
    "é" * 44,
    "\x00" * 32,
]


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_key_is_refused_without_being_repeated(text):
    """It may be a real secret with a typing mistake."""
    with pytest.raises(MasterKeyError, match="the setting holds no master key: a master key is 32 random bytes") as no:
        MasterKey.parse(text, "the setting")
    said = "".join(traceback.format_exception(no.value, chain=True))
    assert not [part for part in (TEXT[:20], KEY.hex()[:20], "horse", "ggg") if part in said]


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(MasterKeyError, match=f"{length} bytes"):
        MasterKey(bytes(length))


def test_text_goes_before_command_and_command_before_file(tmp_path):
    command = f"echo {OTHER}"
    every = KeySource(file=key_file(tmp_path, "garbage"), text=Secret(TEXT), command=command)
    assert MasterKey(KEY).id == every.read().id
    assert MasterKey.parse(OTHER, "").id == KeySource(file=every.file, command=command).read().id
    assert KeySource().read() is None


# -- the file ----------------------------------------------------------------------------------------


def test_the_first_start_makes_a_file_that_only_its_owner_reads(tmp_path):
    """Random, mode 0600 whatever the umask says, read again by the next start, and never made twice."""
    old = os.umask(0)
    try:
        keys = KeySource(file=tmp_path / "deep" / "master.key", may_create=True)
        subjects = Subjects(MemoryStore(), keys)
    finally:
        os.umask(old)
    assert subjects.made_key
    assert stat.S_IMODE(keys.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.file.parent.stat().st_mode) == 0o700
    assert [keys.file] == list(keys.file.parent.iterdir())
    made = keys.file.read_text()
    assert len(base64.b64decode(made, validate=False)) == 32
    again = Subjects(MemoryStore(), keys)
    assert not again.made_key
    assert made == keys.file.read_text()


def test_the_file_is_durable_before_anything_is_locked_with_it(tmp_path, monkeypatch):
    """The bytes and the name are synced first: a key store whose key was lost in a power cut is lost with it."""
    order = []
    real_sync, real_link = os.fsync, os.link

    def fsync(descriptor):
        order.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def link(made, name):
        order.append("name")
        real_link(made, name)

    class Watched(MemoryStore):
        def add(self, space, rows):
            order.append(space)
            return super().add(space, rows)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    Subjects(Watched(), KeySource(file=tmp_path / "master.key", may_create=True))
    assert order == ["file", "name", "directory", SECRETS]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_file_that_cannot_be_made_durable_locks_nothing(tmp_path, monkeypatch, step):
    """No key store is locked, and no half of a key is left behind."""

    def fail(*_):
        raise OSError(28, "No space left on device")

    store, keys = MemoryStore(), KeySource(file=tmp_path / "master.key", may_create=True)
    with monkeypatch.context() as full:
        full.setattr(os, step, fail)
        with pytest.raises(MasterKeyError, match=r"cannot be written to .*master.key: No space left on device"):
            Subjects(store, keys)
    assert store.spaces() == []
    assert list(tmp_path.iterdir()) == []
    assert Subjects(store, keys).made_key


def test_two_first_starts_at_once_make_one_key(tmp_path):
    """Whoever comes second does not overwrite what the first one locks its store with."""
    keys = KeySource(file=tmp_path / "master.key", may_create=True)
    made = keys.create()
    with pytest.raises(MasterKeyError, match="File exists"):
        keys.create()
    assert made.id == keys.read().id


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o660, 0o620, 0o644, 0o666, 0o777])
def test_loose_permissions_are_refused(tmp_path, mode):
    """Others may neither read nor write it, nor may a group write it; the hint says what to type."""
    path = key_file(tmp_path, mode=mode)
    with pytest.raises(MasterKeyError, match=f"has mode {mode:04o}") as refused:
        KeySource(file=path).read()
    assert f"chmod 600 {path}" == refused.value.hint
    assert TEXT not in str(refused.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_tight_permissions_are_accepted(tmp_path, mode):
    """A secret that Kubernetes mounts is read through a group."""
    assert MasterKey(KEY).id == KeySource(file=key_file(tmp_path, mode=mode)).read().id


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\x00" * 44, TEXT.encode()[:30], b"x" * 10_000])
def test_a_file_of_garbage_is_refused(tmp_path, content):
    """Its name is said, its content is not; it is not overwritten with a new key."""
    path = key_file(tmp_path)
    path.write_bytes(content)
    with pytest.raises(MasterKeyError, match=r"master.key"):
        Subjects(MemoryStore(), KeySource(file=path, may_create=True))
    assert content == path.read_bytes()


def test_a_directory_in_its_place_is_refused(tmp_path):
    (tmp_path / "master.key").mkdir()
    with pytest.raises(MasterKeyError, match="cannot be read"):
        KeySource(file=tmp_path / "master.key", may_create=True).read()


def test_where_none_may_be_made_none_is_made(tmp_path):
    """With a shared database every replica needs the same key; the hint says how to make one."""
    for keys in (KeySource(file=tmp_path / "master.key"), KeySource(may_create=True), KeySource()):
        store = MemoryStore()
        with pytest.raises(MasterKeyError, match="every replica needs the same one") as refused:
            Subjects(store, keys)
        assert "openssl rand -base64 32" in refused.value.hint
        assert store.spaces() == []
    assert list(tmp_path.iterdir()) == []


# -- the command -------------------------------------------------------------------------------------


def test_the_output_of_a_command_is_the_key():
    assert MasterKey(KEY).id == KeySource(command=f"printf '%s\\n' {TEXT}").read().id


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'echo hvs.SECRET; echo s3cr3t >&2; exit 3'", "exit code 3"),
        ("sh -c 'kill -9 $$'", "exit code -9"),
        ("echo hvs.SECRET", "the output of KIKI_MASTER_KEY_COMMAND holds no master key"),
        ("true", "the output of KIKI_MASTER_KEY_COMMAND holds no master key"),
        (r"printf '\377\376s3cr3t'", "did not answer: UnicodeDecodeError"),
        ("/does/not/exist --token=hvs.SECRET", "did not answer: FileNotFoundError"),
        ("echo 'hvs.SECRET", "did not answer: ValueError"),
        ("'' hvs.SECRET", "did not answer"),
    ],
)
def test_a_command_that_fails_says_so_and_tells_no_secret(command, said):
    """Neither its words nor its output are repeated: they may hold a token."""
    store = MemoryStore()
    with pytest.raises(MasterKeyError, match=said) as refused:
        Subjects(store, KeySource(command=command))
    told = f"{refused.value!r} {refused.value} {refused.value.hint}"
    told += "".join(traceback.format_exception_only(refused.value.__cause__ or refused.value))
    assert [] == [secret for secret in ("hvs", "SECRET", "s3cr3t") if secret in told]
    assert store.spaces() == []


def test_a_command_that_hangs_is_ended(monkeypatch):
    """Also one whose child holds on to the output."""
    monkeypatch.setattr("kiki.ledger.master_key.COMMAND_SECONDS", 0.2)
    with pytest.raises(MasterKeyError, match="did not answer: TimeoutExpired"):
        KeySource(command="sh -c 'sleep 20 & sleep 20'").read()


# -- wrapping ----------------------------------------------------------------------------------------


def test_a_wrapped_key_opens_under_its_own_name_only():
    master = MasterKey(KEY)
    wrapped = master.wrap(b"lookup", b"secret" * 5)
    assert b"secret" * 5 == master.unwrap(b"lookup", wrapped)
    assert b"secret" not in wrapped
    assert wrapped != master.wrap(b"lookup", b"secret" * 5)
    with pytest.raises(MasterKeyError, match="altered"):
        master.unwrap(b"signing", wrapped)


def test_every_flipped_bit_of_a_wrapped_key_is_refused():
    master = MasterKey(KEY)
    wrapped = master.wrap(b"lookup", bytes(32))
    for bit in range(8 * len(wrapped)):
        altered = (int.from_bytes(wrapped, "big") ^ (1 << bit)).to_bytes(len(wrapped), "big")
        with pytest.raises(MasterKeyError):
            master.unwrap(b"lookup", altered)


@pytest.mark.parametrize("length", [0, 1, 8, 19, 20, 30, 36])
def test_a_torn_wrapped_key_is_refused(length):
    """With kiki's own error, wherever it was cut."""
    master = MasterKey(KEY)
    with pytest.raises(MasterKeyError):
        master.unwrap(b"lookup", master.wrap(b"lookup", bytes(32))[:length])


# -- opening a key store -----------------------------------------------------------------------------


def filled(directory: Path, keys: KeySource | None = None) -> str:
    """A ledger with a person, closed again; the person's reference."""
    with BudgetGuard.open(directory / "shield.db", limit="100", keys=keys) as guard:
        guard.spend(1, {"customer": "alice"})
        return guard.decider.subjects.find(PERSON).reference


@pytest.mark.parametrize("text", [OTHER, "garbage"])
def test_the_wrong_key_refuses_to_start_and_changes_nothing(tmp_path, text):
    """Not a byte of any file; with the right key everything is as it was."""
    reference = filled(tmp_path, source())
    before = held(tmp_path)
    with pytest.raises(MasterKeyError) as refused:
        BudgetGuard.open(tmp_path / "shield.db", limit="100", keys=source(text))
    assert before == held(tmp_path)
    assert text not in f"{refused.value} {refused.value.hint}"
    with BudgetGuard.open(tmp_path / "shield.db", limit="100", keys=source()) as guard:
        assert reference == guard.decider.subjects.find(PERSON).reference


def test_the_wrong_key_is_told_by_name(tmp_path):
    """Both keys have an id that tells nothing about them, so that the right one can be found."""
    filled(tmp_path, source())
    with pytest.raises(MasterKeyError) as refused:
        BudgetGuard.open(tmp_path / "shield.db", limit="100", keys=source(OTHER))
    ids = [MasterKey.parse(text, "").id.hex() for text in (OTHER, TEXT)]
    assert f"this is master key {ids[0]}, and the key store was locked with {ids[1]}" == str(refused.value)
    assert "nothing was changed" in refused.value.hint


def test_a_missing_key_refuses_to_start_and_makes_none(tmp_path):
    """A new key would open nothing and look as if all were well."""
    filled(tmp_path)
    key = (tmp_path / "master.key").read_bytes()
    (tmp_path / "master.key").unlink()
    before = held(tmp_path)
    with pytest.raises(MasterKeyError, match="its master key is not at") as refused:
        BudgetGuard.open(tmp_path / "shield.db", limit="100")
    assert "nothing was changed" in refused.value.hint
    assert before == held(tmp_path)
    (tmp_path / "master.key").write_bytes(key)
    (tmp_path / "master.key").chmod(0o600)
    BudgetGuard.open(tmp_path / "shield.db", limit="100").close()


def test_a_key_store_without_some_of_its_secrets_is_corrupt():
    """It is not given new ones: what the old ones hashed would never be found again."""
    store = MemoryStore()
    Subjects(store, source())
    for name in (b"lookup", b"suppression", b"signing", b"wrapping"):
        value = store.get(SECRETS, name)
        store.erase(SECRETS, [name])
        with pytest.raises(KikiError, match="lacks some of its secrets"):
            Subjects(store, source())
        store.add(SECRETS, {name: value})
    Subjects(store, source())


def test_the_first_of_two_replicas_that_start_at_once_makes_the_secrets():
    """Both find an empty store; afterwards both hash and sign alike."""

    class Raced(MemoryStore):
        first: Subjects | None = None

        def add(self, space, rows):
            if self.first is None:
                self.first = object()
                self.first = Subjects(self, source())
            return super().add(space, rows)

    store = Raced()
    second = Subjects(store, source())
    assert store.first.keyed_hash("x") == second.keyed_hash("x")
    assert store.first.signing_seed == second.signing_seed


# -- rotation ----------------------------------------------------------------------------------------


def test_after_a_rotation_only_the_new_key_opens(tmp_path):
    """References, hashes and sealed parts are what they were; not one person's key was rewritten."""
    store = SqliteStore(tmp_path / "keys.db")
    subjects = Subjects(store, source())
    person = subjects.enrol([PERSON])[PERSON]
    sealed, hashed = subjects.seal(person, b"text"), subjects.keyed_hash("k")
    rows = dict(store.scan("shared/subject"))
    wrapped = [value for _, value in store.scan(SECRETS)]
    rotate_master_key(store, MasterKey.parse(TEXT, ""), MasterKey.parse(OTHER, ""))
    assert rows == dict(store.scan("shared/subject"))
    assert [] == store.traces(wrapped), "what the old key opens is gone from the files"
    with pytest.raises(MasterKeyError):
        Subjects(store, source())
    again = Subjects(store, source(OTHER))
    assert (person, hashed, b"text") == (again.find(PERSON), again.keyed_hash("k"), again.open(sealed))
    store.close()


def test_a_rotation_that_fails_changes_nothing():
    """All four secrets change in one commit or none does."""
    store = MemoryStore()
    Subjects(store, source())
    before = dict(store.scan(SECRETS))
    store.fail = "disk full"
    with pytest.raises(LedgerUnavailable):
        rotate_master_key(store, MasterKey.parse(TEXT, ""), MasterKey.parse(OTHER, ""))
    store.fail = None
    assert before == dict(store.scan(SECRETS))
    with pytest.raises(MasterKeyError):
        rotate_master_key(store, MasterKey.parse(OTHER, ""), MasterKey.parse(TEXT, ""))
    assert before == dict(store.scan(SECRETS))
    with pytest.raises(MasterKeyError, match="not locked"):
        rotate_master_key(MemoryStore(), MasterKey.parse(TEXT, ""), MasterKey.parse(OTHER, ""))


ROTATING = """
import sys
from kiki.ledger.master_key import MasterKey
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.locked_secrets import rotate_master_key

store = SqliteStore(sys.argv[1])
keys = [MasterKey.parse(text, "") for text in sys.argv[2:4]]
at = 0
print("started", flush=True)
while True:
    rotate_master_key(store, keys[at % 2], keys[(at + 1) % 2])
    at += 1
"""


def test_kill_9_during_a_rotation_leaves_one_key_that_opens_everything(tmp_path):
    """Killed at any moment, exactly one of the two keys opens the store, and nobody was lost."""
    path = tmp_path / "keys.db"
    store = SqliteStore(path)
    subjects = Subjects(store, source())
    person = subjects.enrol([PERSON])[PERSON]
    store.close()
    chance, current = random.Random(6), TEXT
    for _ in range(6):
        arguments = [str(path), current, OTHER if current == TEXT else TEXT]
        with subprocess.Popen([sys.executable, "-c", ROTATING, *arguments], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.03))
            process.kill()
        store = SqliteStore(path)
        found = []
        for text in (TEXT, OTHER):
            try:
                found.append((text, Subjects(store, source(text)).find(PERSON)))
            except MasterKeyError:
                continue
        store.close()
        ((current, again),) = found
        assert person == again


# -- secrets never show ------------------------------------------------------------------------------


def test_a_key_is_never_shown_copied_or_pickled(tmp_path, caplog):
    """Not in what prints it or its source, not in what logs a first start, and not by way of copying."""
    caplog.set_level(logging.DEBUG)
    filled(tmp_path)
    text = (tmp_path / "master.key").read_text().strip()
    key = KeySource(file=tmp_path / "master.key").read()
    shown = [repr(key), str(key), f"{key:}", repr([key]), repr(source(text)), str(source(text)), caplog.text]
    subjects = Subjects(MemoryStore(), source(text))
    person = subjects.enrol([PERSON])[PERSON]
    shown += [repr(subjects), repr(person), f"{person}", str(person)]
    for secret in (text, base64.b64decode(text).hex(), base64.b64decode(text), person.key, subjects.signing_seed):
        written = [secret] if isinstance(secret, str) else [secret.hex(), repr(secret)[2:-1]]
        assert not [each for each in written for line in shown if each in line]
    assert "a master key was made" in caplog.text
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not pickled or copied"):
            copying(key)
