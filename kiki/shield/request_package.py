"""The copy of a person's data that answers a request for access or portability: a zip file, sealed while it waits.

In the zip: a folder for each system with what it handed over, `summary.html` for the person to read, and
`manifest.json` with the SHA-256 and size of every file. It is written as it comes, so it may be larger than memory.

On disk it lies in pieces sealed under the person's key: erasing the person makes it unreadable wherever a copy of it
lies. A piece says which one it is and whether it is the last, so that none can be left out, swapped or cut off.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from kiki.clock import to_datetime
from kiki.errors import NotFound, SystemUnavailable, Unreadable
from kiki.ledger.entry import UNDECODABLE, Sealed
from kiki.ledger.sealing import NONCE_BYTES, seal, unseal
from kiki.ledger.subjects import Person
from kiki.shield.dsr import parse_request_id
from kiki.shield.request_summary import SHOWN_BYTES, Handed, summary
from kiki.shield.subject_data import Document, Task

PIECE_BYTES: Final = 1 << 20
SUFFIX: Final = ".package"
_LENGTH_BYTES: Final = 4
_PIECE_HEAD: Final = 9
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sealed).decode


class Packing:
    """A package that is being written. Leaving the `with` block before `finish` leaves no file behind."""

    def __init__(self, path: Path, person: Person, task: Task, at: int) -> None:
        self._path = path
        self._part = path.with_suffix(".part")
        self._task = task
        self._at = at
        self.files: list[Handed] = []
        self._shown: dict[str, bytes] = {}
        """What the summary shows of them: the small ones that are tables."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._part.unlink(missing_ok=True)
            descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SystemUnavailable(f"the package cannot be written: {error.strerror}") from error
        self._out = _SealingWriter(os.fdopen(descriptor, "wb"), person)
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED)
        # A zip knows no moment before 1980, where a clock that was never set may stand.
        self._moment = max(to_datetime(at).timetuple()[:6], (1980, 1, 1, 0, 0, 0))

    def add(self, system: str, document: Document) -> Handed:
        """Write one document as it comes; raises `SystemUnavailable` when the disk is full."""
        name = f"{_safe(system)}/{_safe(document.name)}"
        if any(file.name == name for file in self.files):
            name = f"{_safe(system)}/{len(self.files)}-{_safe(document.name)}"
        digest, size, kept = sha256(), 0, bytearray()
        with self._writing(), self._zip.open(self._info(name), "w", force_zip64=True) as out:
            for part in document.parts:
                digest.update(part)
                size += len(part)
                if size <= SHOWN_BYTES:
                    kept += part
                out.write(part)
        if name.endswith(".csv") and size <= SHOWN_BYTES:
            self._shown[name] = bytes(kept)
        records = document.records() if callable(document.records) else document.records
        handed = Handed(system, name, size, digest.hexdigest(), records)
        self.files.append(handed)
        return handed

    def finish(self) -> bytes:
        """The SHA-256 of the zip, once it lies on the disk under its own name."""
        manifest = {
            "format": "kiki-request-package/1",
            "request": self._task.request,
            "type": self._task.kind.value,
            "customer_id": self._task.customer,
            "made_at": to_datetime(self._at).isoformat(),
            "files": [file._asdict() for file in self.files],
        }
        page = summary(self._task, self.files, self._shown, to_datetime(self._at))
        with self._writing():
            self._zip.writestr(self._info("summary.html"), page)
            self._zip.writestr(self._info("manifest.json"), msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
            self._zip.close()
            self._out.finish()
            self._part.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return self._out.digest.digest()

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, self._moment)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        return info

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SystemUnavailable(f"the package cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._zip.close()  # of what was broken off, nothing is kept; without this it complains later
        self._out.close()
        self._part.unlink(missing_ok=True)


class _SealingWriter(io.RawIOBase):
    """Seals what is written to it, a piece at a time."""

    def __init__(self, out: IO[bytes], person: Person) -> None:
        super().__init__()
        self._out = out
        self._person = person
        self._waiting = bytearray()
        self._index = 0
        self.digest = sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        """Take in bytes; full pieces go to the disk."""
        given = bytes(data)  # type: ignore[call-overload]  # whatever holds bytes
        self.digest.update(given)
        self._waiting += given
        while len(self._waiting) > PIECE_BYTES:
            self._piece(bytes(self._waiting[:PIECE_BYTES]), last=False)
            del self._waiting[:PIECE_BYTES]
        return len(given)

    def finish(self) -> None:
        """Write the last piece, through to the disk."""
        self._piece(bytes(self._waiting), last=True)
        self._waiting.clear()
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()

    def _piece(self, data: bytes, *, last: bool) -> None:
        text = bytes([last]) + self._index.to_bytes(8, "big") + data
        piece = _encode(seal(self._person.key, bytes.fromhex(self._person.reference), text, os.urandom(NONCE_BYTES)))
        self._out.write(len(piece).to_bytes(_LENGTH_BYTES, "big") + piece)
        self._index += 1

    def close(self) -> None:
        self._out.close()
        super().close()


def package_path(folder: Path, request: str) -> Path:
    """Where the sealed package of a request lies."""
    return folder / f"{parse_request_id(request)}{SUFFIX}"


def open_package(path: Path, person: Person) -> Iterator[bytes]:
    """The bytes of the zip, in pieces; raises `NotFound`, or `Unreadable` where anything is missing or altered."""
    try:
        source = path.open("rb")
    except FileNotFoundError:
        raise NotFound("the package is not there any more", hint="whoever still needs it makes a new request") from None
    return _pieces(source, person)


def _pieces(source: IO[bytes], person: Person) -> Iterator[bytes]:
    with source:
        index, ended = 0, False
        while head := source.read(_LENGTH_BYTES):
            length = int.from_bytes(head, "big")
            if ended or length > 2 * PIECE_BYTES:
                raise Unreadable("the package was altered")
            try:
                text = unseal(person.key, _decode(source.read(length)))
            except UNDECODABLE:
                raise Unreadable("the package was altered or cut off") from None
            if int.from_bytes(text[1:_PIECE_HEAD], "big") != index:
                raise Unreadable("pieces of the package were left out or swapped")
            ended = bool(text[0])
            yield text[_PIECE_HEAD:]
            index += 1
        if not ended:
            raise Unreadable("the package is cut off")


def discard_package(path: Path) -> bool:
    """Remove a package; whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SystemUnavailable(f"{path.name} cannot be removed: {error.strerror}") from error
    return True


def _safe(name: str) -> str:
    """A name without anything that a file system or an unpacker would obey."""
    return _UNSAFE.sub("_", name).lstrip(".")[:100] or "unnamed"
