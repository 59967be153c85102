"""Where sealed segments go: a place that takes bytes under a name once and never changes them.

A directory here, buckets in `kiki.ledger.object_archive`. Putting is idempotent, so a caller that does not know what
became of an attempt simply makes another one: the same bytes are taken for the same, other bytes are a conflict.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from kiki.errors import ArchiveConflict, ArchiveUnavailable, InvalidInput, NotFound, SettingsError

READ_BYTES: Final = 1 << 20

_PARTIAL: Final = ".partial"
_NAME: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]*(/[0-9A-Za-z_-][0-9A-Za-z._-]*)*", re.ASCII)
_NAME_LENGTH: Final = 512


class Stored(NamedTuple):
    """What the archive holds now."""

    version: str
    """The archive's own name for these bytes; empty where it keeps one version only."""
    sha256: bytes


LockState = Literal["locked", "bypassable", "none", "unknown"]
"""locked: nobody can shorten it, the account's owner included. bypassable: whoever has a special right can.
none: no lock shows. unknown: this archive, or these credentials, cannot tell."""


class Lock(NamedTuple):
    """What an archive says about the lock on what it holds."""

    state: LockState
    detail: str
    """For a person: what was asked, what came back, what to do."""
    until: str = ""
    """When the lock ends, as the archive wrote it."""


class Archive(Protocol):
    """Takes bytes under a name once. Thread-safe; each call has a timeout of its own where it uses a network.

    Every method raises `ArchiveUnavailable` for a failure that may pass, and `InvalidInput` for a name that is none: parts of
    ASCII letters, digits, dots, dashes and underscores, joined by slashes, none of them beginning with a dot.
    """

    def put_if_absent(self, name: str, content: BinaryIO) -> Stored:
        """Store everything in `content`, a seekable file, durably; what is stored.

        Success also when the same bytes were there before. Raises `ArchiveConflict` when other bytes are.
        """
        ...

    def get(self, name: str, version: str = "") -> Iterator[bytes]:
        """The bytes under a name, in pieces; raises `NotFound`."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names that begin with `prefix`, in their order."""
        ...

    def delete(self, name: str) -> None:
        """Remove what is under a name; nothing when there is nothing. A lock may forbid it, or only hide the name."""
        ...

    def lock_status(self, name: str | None = None) -> Lock:
        """How what was archived under `name` is locked; None looks at the first name that there is."""
        ...


def open_archive(location: str) -> Archive:
    """The archive at a directory, a file:// URL, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix.

    Buckets take their credentials from the environment as their clients do (AWS_…, GOOGLE_…, AZURE_…). Raises
    `SettingsError` for what is none of these, `MissingExtra` where the extra `objectstore` is needed and absent.
    """
    scheme, divider, _ = location.partition("://")
    if not divider and location:
        return DirectoryArchive(location)
    if scheme == "file":
        parts = urlsplit(location)
        if parts.netloc in {"", "localhost"} and parts.path:
            return DirectoryArchive(unquote(parts.path))
    if scheme in {"s3", "gs", "az"}:
        from kiki.ledger.object_archive import ObjectArchive

        return ObjectArchive(location)
    accepted = "a directory, file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    raise SettingsError([f"KIKI_ARCHIVE={location.partition('?')[0]!r} is no archive: expected {accepted}"])


def require_name(name: str) -> str:
    """The name, if it is one; it can never lead out of the archive."""
    if len(name) <= _NAME_LENGTH and _NAME.fullmatch(name):
        return name
    raise InvalidInput(
        f"{name[:100]!r} is not a name in an archive",
        hint=f"up to {_NAME_LENGTH} ASCII letters, digits, dots, dashes and underscores in parts joined by slashes; "
        "no part begins with a dot",
    )


def sha256_of(content: BinaryIO) -> bytes:
    """The SHA-256 of a whole seekable file, which is at its start again afterwards."""
    content.seek(0)
    digest = sha256()
    while piece := content.read(READ_BYTES):
        digest.update(piece)
    content.seek(0)
    return digest.digest()


class DirectoryArchive:
    """Files below a directory: durable, written once, private. Nothing but the file system's rights locks them."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def put_if_absent(self, name: str, content: BinaryIO) -> Stored:
        """Store everything in `content` durably, under its name only once it is whole."""
        target = self.root / require_name(name)
        digest = sha256_of(content)
        with _translated(name):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not target.exists():
                self._place(target, content)
            self._require_same(target, digest)
            # Also for what was there before: a crash may have come between its link and these syncs.
            self._sync(target)
            # Only those of this name: whoever else writes it now finds it there when its own is gone.
            for leftover in target.parent.glob(f".{target.name}.*{_PARTIAL}"):
                leftover.unlink(missing_ok=True)
        return Stored("", digest)

    @staticmethod
    def _place(target: Path, content: BinaryIO) -> None:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}{_PARTIAL}")
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "wb") as out:
                while piece := content.read(READ_BYTES):
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            # A rename would replace what is there; a link fails. Gone or taken: someone else was quicker, see below.
            with suppress(FileExistsError, FileNotFoundError):
                os.link(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def _require_same(target: Path, digest: bytes) -> None:
        with target.open("rb") as there:
            if sha256_of(there) != digest:
                raise conflict(target.name)

    def _sync(self, target: Path) -> None:
        # The file, its directory, and each one above up to the root's own entry: any of them may be new.
        for path in [target, *target.parents]:
            if path == self.root.parent:
                with suppress(PermissionError):  # it need not be ours
                    _fsync(path)
                return
            _fsync(path)

    def get(self, name: str, version: str = "") -> Iterator[bytes]:
        """The bytes under a name, in pieces; raises `NotFound`."""
        path = self.root / require_name(name)
        with _translated(name):
            try:
                file = path.open("rb")
            except FileNotFoundError as error:
                raise absent(name) from error
        return _pieces(name, file)

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names that begin with `prefix`, in their order."""
        with _translated(prefix):
            return iter(sorted(name for name in self._names() if name.startswith(prefix)))

    def _names(self) -> Iterator[str]:
        for directory, _, files in os.walk(self.root, onerror=_raise_unless_missing):
            relative = Path(directory).relative_to(self.root)
            yield from ((relative / file).as_posix() for file in files if not file.startswith("."))

    def delete(self, name: str) -> None:
        """Remove the file under a name; nothing when there is none."""
        path = self.root / require_name(name)
        with _translated(name), suppress(FileNotFoundError):
            path.unlink()

    def lock_status(self, name: str | None = None) -> Lock:
        """None: a directory has no lock."""
        return Lock(
            "none",
            f"{self.root} is a directory: whoever may write to it can delete segments; "
            "for a lock use a bucket with object lock",
        )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pieces(name: str, file: BinaryIO) -> Iterator[bytes]:
    with file, _translated(name):
        while piece := file.read(READ_BYTES):
            yield piece


def _raise_unless_missing(error: OSError) -> None:
    if error.errno != errno.ENOENT:
        raise error


def conflict(name: str) -> ArchiveConflict:
    """The archive holds other bytes under a name."""
    return ArchiveConflict(
        f"the archive holds something else under {name}",
        hint="nothing was overwritten. Two ledgers may share one archive and chain (a copied data directory), the ledger "
        "may have been restored from a backup, or someone wrote into the archive: verify both with `kiki audit verify`",
    )


def absent(name: str) -> NotFound:
    """The archive holds nothing under a name."""
    return NotFound(f"the archive holds nothing under {name}")


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiveUnavailable(
            f"the archive could not handle {name}: {error.strerror or type(error).__name__}",
            hint="check the directory's disk, rights and mount; it is tried again",
        ) from error
