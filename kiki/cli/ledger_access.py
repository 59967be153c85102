"""What commands on evidence open: the ledger that the settings or the options mean, and the keys beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NamedTuple

import typer

from kiki.cli.options import LEDGER
from kiki.errors import EvidenceInvalid, InvalidInput, KikiError, LedgerUnavailable

if TYPE_CHECKING:
    from kiki.ledger.master_key import KeySource
    from kiki.ledger.source import Source
    from kiki.ledger.store import Reader

LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger", metavar="FILE", help="This ledger file, instead of what KIKI_DATA_DIR or DATABASE_URL say."
    ),
]


class Access(NamedTuple):
    """A ledger where it lies, and what opens its keys."""

    source: Source
    keys: KeySource

    @contextlib.contextmanager
    def readers(self) -> Iterator[list[Reader]]:
        """A reader of every chain, in the order of their ids."""
        from kiki.ledger.exhibit import chain_id
        from kiki.ledger.ledger import META
        from kiki.ledger.source import open_readers

        found = open_readers(self.source)
        try:
            # A replica that is just starting for the first time, or whose first start failed, has nothing to show.
            named = [reader for reader in found if reader.get(META, b"chain") is not None]
            begun = [reader for reader in found if reader.next_seq()] or named
            if not begun:
                raise LedgerUnavailable("there is no chain in this ledger yet", hint="start a service on it first")
            yield sorted(begun, key=chain_id)
        finally:
            for reader in found[:1]:
                reader.close()

    def key_reader(self) -> Reader:
        """A reader of the key store."""
        from kiki.ledger.source import Database

        if isinstance(self.source, Database):
            from kiki.ledger.postgres import SCHEMA, PostgresReader

            return PostgresReader(self.source.url.reveal(), schema=f"{SCHEMA}_keys")
        from kiki.ledger.sqlite import SqliteReader
        from kiki.shield.opening import subjects_path

        return SqliteReader(subjects_path(self.source))

    def verifier_key(self, reader: Reader) -> str | None:
        """What the checkpoints of this chain are checked with; None when the key store does not open."""
        from kiki.ledger.exhibit import verifier_key

        try:
            return verifier_key(reader, self.seed())
        except KikiError:
            return None

    def seed(self) -> bytes:
        """What signs this ledger's checkpoints; raises `MasterKeyError`."""
        from kiki.ledger.locked_secrets import read_signing_seed

        with contextlib.closing(self.key_reader()) as reader:
            return read_signing_seed(reader, self.keys)


def access(ledger: Path | None, data_dir: Path | None) -> Access:
    """The ledger that is meant: `--ledger`, `--data-dir`, then DATABASE_URL and KIKI_DATA_DIR."""
    from kiki.cli.wiring import database, key_source
    from kiki.ledger.source import first_name
    from kiki.settings import LedgerSettings
    from kiki.shield.opening import MASTER_KEY_FILE

    environ = dict(os.environ)
    if data_dir is not None:
        environ["KIKI_DATA_DIR"] = str(data_dir)
    settings = LedgerSettings.parse(environ)
    keys = key_source(settings)
    if ledger is not None:
        ledger = ledger / LEDGER if ledger.is_dir() else ledger
        if settings.master_key_file is None and not keys.text and not keys.command:
            keys = type(keys)(file=ledger.with_name(MASTER_KEY_FILE))
        return Access(ledger, keys)
    if data_dir is None and (shared := database(settings)) is not None:
        return Access(shared._replace(replica=first_name(shared.replica)), keys)
    return Access(settings.data_dir / LEDGER, keys)


def key_text(given: str | None) -> str | None:
    """The verifier key in `--key`, of a log: the text itself, or a file whose first line it is."""
    if given is None:
        return None
    text = _key_in(given)
    from kiki.ledger.chain_verifier import read_key

    _require(lambda: read_key(text, "--key"), "kiki audit key prints it: name+id+base64")
    return text


def witness_keys(given: Iterable[str]) -> list[str]:
    """The same of `--witness`, of witnesses."""
    from kiki.ledger.chain_verifier import read_witnesses

    texts = [_key_in(each) for each in given]
    _require(lambda: read_witnesses(texts), "the witness's operator publishes it: name+id+base64")
    return texts


def _require(read: Callable[[], object], hint: str) -> None:
    """Refuse a key that cannot be one: it says nothing about the evidence."""
    try:
        read()
    except EvidenceInvalid as error:
        raise InvalidInput(str(error), hint=hint) from None


def _key_in(given: str) -> str:
    path = Path(given)
    try:
        if not path.is_file():
            if "+" in given:
                return given.strip()
            raise InvalidInput(
                f"{given[:80]!r} is no verifier key and no file", hint="kiki audit key prints it: name+id+base64"
            )
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the verifier key in {given[:80]} cannot be read: {error}") from error
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise InvalidInput(f"{given[:80]} holds no verifier key")
    return found[0]


@contextlib.contextmanager
def written_file(output: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete and on the disk."""
    output = output.resolve() if output.is_symlink() else output
    if output.exists() and not output.is_file() and not output.is_dir():
        # A rename would put a file in the place of /dev/full, and root may do that.
        raise KikiError(f"{output} cannot be written: it is a device or a pipe, and a file would take its place")
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with open(part, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    except OSError as error:
        raise KikiError(f"{output} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while a person looks on; what it yields is told how much is done."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
