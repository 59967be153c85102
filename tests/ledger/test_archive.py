"""Every archive takes bytes under a name once: the same suite for a directory and for a bucket, then what each has alone."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import stat
import threading
import time

import pytest

from kiki.errors import ArchiveConflict, ArchiveUnavailable, InvalidInput, NotFound, SettingsError
from kiki.ledger import archive as archive_module
from kiki.ledger.archive import DirectoryArchive, open_archive
from tests.ledger.object_store import running_object_store

BUCKETS = (f"evidence-{number}" for number in itertools.count())
LARGE = bytes(range(256)) * 40_000  # 10 MB: more than a part of a multipart upload


@pytest.fixture(scope="module")
def store():
    with running_object_store() as running:
        yield running


@pytest.fixture
def clean_store(store, monkeypatch):
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    store.proxy.faults.clear()
    store.proxy.puts.clear()
    return store


@pytest.fixture
def bucket(clean_store):
    name = next(BUCKETS)
    clean_store.make_bucket(name)
    return name


@pytest.fixture(params=["directory", "bucket"])
def archive(request, tmp_path):
    if request.param == "directory":
        return open_archive(str(tmp_path / "archive"))
    return open_archive(f"s3://{request.getfixturevalue('bucket')}/kiki/evidence")


def put(archive, name, content):
    return archive.put_if_absent(name, io.BytesIO(content))


def read(archive, name):
    return b"".join(archive.get(name))


@pytest.mark.parametrize("content", [b"", b"sealed", LARGE])
def test_what_was_put_is_there(archive, content):
    stored = put(archive, "chain/a.kiki", content)
    assert hashlib.sha256(content).digest() == stored.sha256
    assert content == read(archive, "chain/a.kiki")


def test_the_same_again_is_success_and_says_the_same(archive):
    first = put(archive, "chain/a.kiki", b"sealed")
    assert first == put(archive, "chain/a.kiki", b"sealed")


def test_something_else_under_the_name_is_a_conflict_and_changes_nothing(archive):
    put(archive, "chain/a.kiki", b"sealed")
    with pytest.raises(ArchiveConflict, match=r"something else under .*a\.kiki"):
        put(archive, "chain/a.kiki", b"sealeD")
    assert b"sealed" == read(archive, "chain/a.kiki")


def test_the_whole_file_is_put_wherever_it_stands(archive):
    file = io.BytesIO(b"sealed")
    file.seek(3)
    archive.put_if_absent("chain/a.kiki", file)
    assert b"sealed" == read(archive, "chain/a.kiki")


def test_many_who_put_the_same_at_once_all_succeed(archive):
    results = []

    def attempt():
        # As the shipper does, which tries both again: moto shows a name for a moment before it has the bytes.
        for _ in range(1000):
            try:
                results.append(put(archive, "c/a", LARGE))
                return
            except (ArchiveConflict, ArchiveUnavailable):
                time.sleep(0.05)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 == len(results)
    assert 1 == len(set(results))
    assert LARGE == read(archive, "c/a")


def test_of_many_who_put_different_things_one_wins(archive):
    results = []

    def attempt(number):
        try:
            results.append(put(archive, "c/a", b"%d" % number).sha256)
        except (ArchiveConflict, ArchiveUnavailable):
            results.append(None)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [digest for digest in results if digest is not None]
    assert [hashlib.sha256(read(archive, "c/a")).digest()] == winners


def test_names_are_listed_in_order_by_any_prefix(archive):
    for name in ("b/2", "a/10", "a/1", "ab/1"):
        put(archive, name, b"x")
    assert ["a/1", "a/10", "ab/1", "b/2"] == list(archive.list())
    assert ["a/1", "a/10"] == list(archive.list("a/"))
    assert ["a/1", "a/10", "ab/1"] == list(archive.list("a"))
    assert ["a/10"] == list(archive.list("a/10"))
    assert [] == list(archive.list("z"))


def test_what_is_deleted_is_gone_and_deleting_again_is_nothing(archive):
    put(archive, "c/a", b"x")
    archive.delete("c/a")
    archive.delete("c/a")
    with pytest.raises(NotFound):
        archive.get("c/a")
    assert [] == list(archive.list())


def test_what_is_not_there_is_not_found(archive):
    with pytest.raises(NotFound, match="nothing under c/a"):
        archive.get("c/a")


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../up", "a/../../up", ".hidden", "a/.b", "a//b", "a/", "é", "a b", "a\n", "x" * 600]
)
def test_a_name_cannot_lead_out_of_the_archive(archive, name):
    for act in (lambda: put(archive, name, b"x"), lambda: archive.get(name), lambda: archive.delete(name)):
        with pytest.raises(InvalidInput):
            act()


def test_a_place_that_is_no_archive_is_refused_with_what_is_accepted():
    for location in ("", "ftp://host/x", "https://bucket", "file://other-host/x", "file://"):
        with pytest.raises(SettingsError, match="s3://bucket/prefix"):
            open_archive(location)
    with pytest.raises(SettingsError, match="credentials in the environment"):
        open_archive("s3://key:secret@bucket/prefix")


def test_a_file_url_is_a_directory(tmp_path):
    put(open_archive(f"{tmp_path.as_uri()}/an%20archive"), "c/a", b"x")
    assert b"x" == (tmp_path / "an archive/c/a").read_bytes()


# A directory.


def test_files_are_private_and_not_writable(tmp_path):
    archive = DirectoryArchive(tmp_path / "archive")
    put(archive, "c/a", b"x")
    assert 0o400 == stat.S_IMODE((tmp_path / "archive/c/a").stat().st_mode)
    assert 0o700 == stat.S_IMODE((tmp_path / "archive/c").stat().st_mode)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    """/dev/full is a disk that is always full."""
    archive = DirectoryArchive(tmp_path)
    really_open = os.open

    def full(path, flags, mode=0o777):
        opened = really_open(path, flags, mode)
        if str(path).endswith(".partial"):
            os.dup2(device, opened)
        return opened

    device = really_open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(archive_module.os, "open", full)
    with pytest.raises(ArchiveUnavailable, match="No space left"):
        put(archive, "c/a", b"x")
    os.close(device)
    assert [] == list((tmp_path / "c").iterdir())
    monkeypatch.undo()
    put(archive, "c/a", b"x")


def test_what_a_killed_attempt_left_is_swept_and_never_listed(tmp_path):
    archive = DirectoryArchive(tmp_path)
    put(archive, "c/b", b"x")
    leftover, other = tmp_path / "c/.a.0123456789abcdef.partial", tmp_path / "c/.b.0123456789abcdef.partial"
    leftover.write_bytes(b"hal")
    other.write_bytes(b"hal")
    assert ["c/b"] == list(archive.list())
    put(archive, "c/a", b"half")
    assert not leftover.exists()
    assert other.exists()


def test_a_directory_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArchiveUnavailable, match="could not handle c/a"):
        put(DirectoryArchive(tmp_path / "file"), "c/a", b"x")
    assert [] == list(DirectoryArchive(tmp_path / "absent").list())


def test_everything_is_synced_before_success_also_what_was_there(tmp_path, monkeypatch):
    """A crash between the link and its sync must not leave a name that a later attempt takes for durable."""
    synced = []
    really_sync = os.fsync
    monkeypatch.setattr(
        archive_module.os, "fsync", lambda opened: (synced.append(os.fstat(opened).st_ino), really_sync(opened))
    )
    archive = DirectoryArchive(tmp_path / "archive")
    for _ in range(2):
        synced.clear()
        put(archive, "c/a", b"x")
        expected = {path.stat().st_ino for path in (tmp_path, tmp_path / "archive", *(tmp_path / "archive").rglob("*"))}
        assert expected <= set(synced)


def test_a_directory_has_no_lock(tmp_path):
    assert "none" == DirectoryArchive(tmp_path).lock_status().state


# A bucket.


@pytest.mark.parametrize("fault", ["500", "late-500", "lost", "slow", "twice"])
def test_a_fault_of_the_network_loses_nothing_and_doubles_nothing(clean_store, bucket, fault):
    """Whatever became of the first request, the call ends in success, and the object is there once, whole."""
    archive = open_archive(f"s3://{bucket}/p")
    clean_store.proxy.faults.append(fault)
    stored = put(archive, "c/a", b"sealed")
    assert hashlib.sha256(b"sealed").digest() == stored.sha256
    assert ["c/a"] == list(archive.list())
    assert b"sealed" == read(archive, "c/a")


def test_a_store_that_stays_away_is_unavailable_and_nothing_secret_is_said(clean_store, bucket):
    archive = open_archive(f"s3://{bucket}/p")
    clean_store.proxy.faults.extend(["500"] * 10)
    with pytest.raises(ArchiveUnavailable) as caught:
        put(archive, "c/a", b"sealed")
    clean_store.proxy.faults.clear()
    text = f"{caught.value} {caught.value.hint}"
    assert "500 Internal Server Error, InternalError" in text
    assert "CANARY" not in text.upper()
    assert clean_store.proxy.url not in text
    assert caught.value.__cause__ is None
    put(archive, "c/a", b"sealed")


def test_a_store_that_nobody_runs_is_unavailable_soon(monkeypatch, clean_store):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(ArchiveUnavailable):
        put(open_archive("s3://bucket"), "c/a", b"x")
    assert time.monotonic() - began < 100


def test_a_bucket_that_is_not_there_is_unavailable(clean_store):
    archive = open_archive("s3://nowhere-at-all")
    with pytest.raises(ArchiveUnavailable, match="404 Not Found, NoSuchBucket"):
        put(archive, "c/a", b"x")
    with pytest.raises(ArchiveUnavailable, match="NoSuchBucket"):
        list(archive.list())


def test_every_put_says_that_the_name_must_be_free_and_carries_a_checksum(clean_store, bucket):
    put(open_archive(f"s3://{bucket}"), "c/a", LARGE)
    ((path, headers),) = clean_store.proxy.puts
    assert f"/{bucket}/c/a" == path
    assert "*" == headers["if-none-match"]
    assert "x-amz-checksum-sha256" in headers


@pytest.mark.parametrize(("mode", "expected"), [("COMPLIANCE", "locked"), ("GOVERNANCE", "bypassable")])
def test_the_lock_of_the_bucket_is_told_from_what_lies_in_it(clean_store, mode, expected):
    bucket = next(BUCKETS)
    clean_store.make_bucket(bucket, mode)
    archive = open_archive(f"s3://{bucket}/p")
    assert "unknown" == archive.lock_status().state
    stored = put(archive, "c/a", b"sealed")
    assert "" != stored.version
    lock = archive.lock_status("c/a")
    assert expected == lock.state
    assert lock.until.startswith("20")
    assert lock == archive.lock_status()


def test_a_bucket_without_a_lock_says_so(clean_store, bucket):
    archive = open_archive(f"s3://{bucket}/p")
    put(archive, "c/a", b"sealed")
    assert "none" == archive.lock_status().state


def test_under_a_lock_an_old_version_outlives_deletion_and_is_still_read(clean_store):
    bucket = next(BUCKETS)
    clean_store.make_bucket(bucket, "COMPLIANCE")
    archive = open_archive(f"s3://{bucket}")
    stored = put(archive, "c/a", b"sealed")
    archive.delete("c/a")
    with pytest.raises(NotFound):
        archive.get("c/a")
    assert b"sealed" == b"".join(archive.get("c/a", stored.version))
