"""`kiki ledger`: move a ledger into PostgreSQL, or give it another master key. The service must be stopped for both."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.ledger_access import access, progress
from kiki.cli.options import DataDir, Json
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.cli.ledger_access import Access
    from kiki.ledger.master_key import KeySource, MasterKey
    from kiki.ledger.store import Store

app = typer.Typer(help="Move a ledger, or change its master key.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def copy(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="URL",
            help="postgresql://…; better in DATABASE_URL, because others may read a command line.",
        ),
    ] = None,
    replica: Annotated[
        str | None, typer.Option("--replica", metavar="NAME", help="Who will own the chain there: KIKI_REPLICA.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Copy the ledger of the data directory into an empty PostgreSQL database.

    Entries to the byte, checkpoints, persons and keys. It may be repeated after a stop. The source stays as it is.
    """
    from kiki.ledger.copy import copy_ledger
    from kiki.ledger.postgres import SCHEMA, PostgresStore
    from kiki.ledger.source import first_name
    from kiki.ledger.sqlite import SqliteReader, SqliteStore
    from kiki.settings import LedgerSettings
    from kiki.shield.opening import subjects_path

    environ = dict(os.environ)
    if to is not None:
        environ["DATABASE_URL"] = to
    if replica is not None:
        environ["KIKI_REPLICA"] = replica
    if data_dir is not None:
        environ["KIKI_DATA_DIR"] = str(data_dir)
    settings = LedgerSettings.parse(environ)
    if settings.database_url is None:
        raise InvalidInput("where to? name the database with --to or DATABASE_URL")
    source = settings.data_dir / "shield.db"
    SqliteReader(source).close()  # an owner would make what is not there
    url, name = settings.database_url.reveal(), first_name(settings.replica)
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(contextlib.closing(SqliteStore(source)))
        keys = stack.enter_context(contextlib.closing(SqliteStore(subjects_path(source))))
        to_ledger = stack.enter_context(contextlib.closing(PostgresStore(url, name, unfinished=True)))
        to_keys = stack.enter_context(contextlib.closing(PostgresStore(url, name, schema=f"{SCHEMA}_keys")))
        told = stack.enter_context(progress("copying", ledger.next_seq() - ledger.first_seq()))
        copied = copy_ledger(
            ledger, keys, to_ledger, to_keys, lambda what, done, _of: told(done) if what == "entries" else None
        )
    if as_json:
        show.as_json(copied._asdict())
        return
    show.line(
        f"chain {copied.chain}: entries {copied.first_seq} to {copied.next_seq - 1} and {copied.rows} keys are in the "
        f"database, as the chain of {name}"
    )
    show.talk(
        f"next: start the service with DATABASE_URL, KIKI_REPLICA={name} and the same master key; when it runs, put "
        f"{settings.data_dir} away, and never start a service on it again"
    )


@app.command("rotate-key")
def rotate_key(
    new_file: Annotated[
        Path | None,
        typer.Option("--new-file", metavar="FILE", help="The file of the new key; it is made when it is not there."),
    ] = None,
    new_command: Annotated[
        str | None, typer.Option("--new-command", metavar="COMMAND", help="A command that prints the new key.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Lock the key store with a new master key.

    No entry is rewritten. The old key is the one that the settings name; it is left where it is. May be repeated.
    """
    from kiki.ledger.master_key import KeySource

    if (new_file is None) == (new_command is None):
        raise InvalidInput("give either --new-file or --new-command")
    found = access(None, data_dir)
    with found.readers():
        pass  # there must be a ledger before a key is made for it
    new = KeySource(file=new_file, command=new_command, may_create=new_file is not None)
    if new_file is not None and found.keys.file is not None and new_file.absolute() == found.keys.file.absolute():
        raise InvalidInput(f"{new_file} is the file of the key in force", hint="name another file; this one is kept")
    with contextlib.closing(_key_store(found)) as store:
        # The new key is durable before anything is locked with it, and the locks change in one commit: whatever
        # stops this in between, one of the two keys opens the store.
        master = new.read() or new.create()
        changed = _rotate(store, found.keys, master)
    if as_json:
        show.as_json({"changed": changed, "key_id": master.id.hex()})
        return
    show.line(f"the key store is locked with master key {master.id.hex()}{'' if changed else ' already'}")
    named = f"KIKI_MASTER_KEY_FILE={new_file}" if new_file is not None else f"KIKI_MASTER_KEY_COMMAND={new_command!r}"
    show.talk(
        f"next: start the service with {named}. Keep the old key as long as there are backups of the key store that it "
        "opens, then destroy it: whoever has both can read everything that those backups hold"
    )


def _rotate(store: Store, old: KeySource, new: MasterKey) -> bool:
    from kiki.errors import MasterKeyError
    from kiki.ledger.locked_secrets import is_locked_with, rotate_master_key

    if is_locked_with(store, new):
        store.compact()  # what a stop may have left of the old locks
        return False
    key = old.read()
    if key is None:
        raise MasterKeyError(
            f"the key in force is not at {old.file}",
            hint="name it with KIKI_MASTER_KEY_FILE, KIKI_MASTER_KEY or KIKI_MASTER_KEY_COMMAND; nothing was changed",
        )
    rotate_master_key(store, key, new)
    return True


def _key_store(found: Access) -> Store:
    from kiki.ledger.source import Database
    from kiki.shield.opening import subjects_path

    if isinstance(found.source, Database):
        from kiki.ledger.postgres import SCHEMA, PostgresStore

        return PostgresStore(found.source.url.reveal(), found.source.replica, schema=f"{SCHEMA}_keys")
    from kiki.ledger.sqlite import SqliteStore

    return SqliteStore(subjects_path(found.source))
