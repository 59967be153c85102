"""Backs a ledger up, restores the backup elsewhere, and verifies what came back: a backup nobody restored is a hope.

    python scripts/restore_drill.py backup --data-dir DIR --to DIR       copies of a live SQLite ledger and its key store
    python scripts/restore_drill.py drill --data-dir DIR                 backs up, restores into a scratch directory, verifies
    python scripts/restore_drill.py drill --backup DIR                   the same with a backup that lies there already
    python scripts/restore_drill.py drill --database-url URL [--scratch-url URL]   the same with pg_dump and a scratch database beside it
    python scripts/restore_drill.py drill --database-url URL --backup FILE    with a dump of yours (pg_dump --format=custom)

The master key (--master-key-file, else master.key in the data directory) must open what was restored: a backup that it does not
open is none. Exit codes: 0 everything holds, 1 it could not be tried, 3 what was restored does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

DATABASES = ("shield.db", "shield-subjects.db")
ROLES = ("kiki_writer", "kiki_pruner")


class Failed(Exception):
    """The drill could not be carried out; its text says why."""


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy by SQLite's own backup, also while a service writes. Copying the file would tear it."""
    import apsw

    with contextlib.closing(apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)) as live:
        copy = apsw.Connection(str(target))
        with contextlib.closing(copy), copy.backup("main", live, "main") as backup:
            while not backup.done:
                backup.step(-1)
    target.chmod(0o600)


def back_up(data_dir: Path, target: Path) -> None:
    """The ledger first, then the keys: a key that is too many opens nothing, one that is missing erases a person."""
    if not (data_dir / DATABASES[0]).exists():
        raise Failed(f"{data_dir} holds no {DATABASES[0]}: is that the KIKI_DATA_DIR of the service?")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in DATABASES:
        if (target / name).exists():
            raise Failed(f"{target / name} is there already; name an empty directory")
        copy_database(data_dir / name, target / name)


def verified(environ: dict[str, str]) -> dict[str, Any]:
    """What `kiki audit verify` says of a ledger, and that the master key opens its key store."""
    opened = subprocess.run(
        [sys.executable, "-c", _OPENS], env=os.environ | environ, capture_output=True, text=True, check=False
    )
    if opened.returncode:  # nothing else can be said of what no key opens
        return {"holds": False, "keys": opened.stderr.strip()}
    told = subprocess.run(
        [sys.executable, "-m", "kiki", "audit", "verify", "--json"],
        env=os.environ | environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode not in {0, 3}:
        raise Failed(f"kiki audit verify: {told.stderr.strip()}")
    return {"holds": told.returncode == 0, "keys": "opened", "verify": json.loads(told.stdout)}


_OPENS = """
import os, sys
from kiki.cli.wiring import database, key_source
from kiki.errors import KikiError
from kiki.ledger.postgres import PostgresStore
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.subjects import Subjects
from kiki.settings import LedgerSettings
settings = LedgerSettings.parse(os.environ)
shared = database(settings)
try:
    if shared is None:
        store = SqliteStore(settings.data_dir / "shield-subjects.db")
    else:
        store = PostgresStore(shared.url.reveal(), "drill", schema="kiki_keys")
    Subjects(store, key_source(settings)).close()
except KikiError as error:
    sys.exit(str(error))
"""


@contextlib.contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """The URL of an empty database on the same server, gone at the end."""
    import psycopg
    from psycopg import sql

    name = f"kiki_drill_{secrets.token_hex(4)}"
    try:
        session = psycopg.connect(url, autocommit=True)
    except psycopg.Error as error:
        raise Failed(f"the database: {error}") from error
    with session:
        for role in ROLES:  # a dump holds no roles, and what it grants goes to these
            if session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                session.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        try:
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            raise Failed("this login may not make a database: name one that may with --scratch-url") from None
        try:
            yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        finally:
            session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def postgres_tool(name: str, *arguments: str, url: str) -> None:
    """pg_dump or pg_restore, which take the URL from the environment, so that no process list shows the password."""
    program = shutil.which(name)
    if program is None:
        raise Failed(f"{name} is not on PATH: install PostgreSQL's client programs, not older than the server")
    parts = urlsplit(url)
    from urllib.parse import unquote

    environ = {
        "PGHOST": parts.hostname or "", "PGPORT": str(parts.port or 5432), "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""), "PGDATABASE": unquote(parts.path.strip("/")),
    }  # fmt: skip
    done = subprocess.run([program, *arguments], env=os.environ | environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{name}: {done.stderr.strip()[-2000:]}")


def drill_sqlite(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Back up unless there is a backup, restore, verify."""
    key = options.master_key_file or (options.data_dir or options.backup) / "master.key"
    if not key.is_file():
        raise Failed(f"there is no master key at {key}; name it with --master-key-file. Without it nothing is restored")
    backup = options.backup or scratch / "backup"
    if options.backup is None:
        back_up(options.data_dir, backup)
    restored = scratch / "restored"
    restored.mkdir(mode=0o700)
    for name in DATABASES:
        copy_database(backup / name, restored / name)  # with what may still lie in its write-ahead log
    found = verified(
        {"KIKI_DATA_DIR": str(restored), "KIKI_MASTER_KEY_FILE": str(key), "DATABASE_URL": "", "DB_HOST": ""}
    )
    return found | {"bytes": sum((backup / name).stat().st_size for name in DATABASES)}


def drill_postgres(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Dump unless there is a dump, restore into a scratch database, verify."""
    if options.master_key_file is None:
        raise Failed("name the master key with --master-key-file: a shared ledger keeps none beside it")
    dump = options.backup or scratch / "ledger.dump"
    if options.backup is None:
        # One dump is one moment: ledger and keys fit together.
        postgres_tool("pg_dump", "--format=custom", "--schema=kiki*", f"--file={dump}", url=options.database_url)
    with scratch_database(options.scratch_url or options.database_url) as url:
        postgres_tool(
            "pg_restore",
            "--no-owner",
            "--exit-on-error",
            f"--dbname={urlsplit(url).path.strip('/')}",
            str(dump),
            url=url,
        )
        environ = {
            "DATABASE_URL": url,
            "KIKI_MASTER_KEY_FILE": str(options.master_key_file),
            "KIKI_DATA_DIR": str(scratch),
        }
        return verified(environ) | {"bytes": dump.stat().st_size}


def main(arguments: list[str] | None = None) -> int:
    """Carry it out and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    backup = commands.add_parser("backup", help="copy a live SQLite ledger and its key store")
    backup.add_argument("--data-dir", type=Path, required=True)
    backup.add_argument("--to", type=Path, required=True)
    drill = commands.add_parser("drill", help="restore a backup elsewhere and verify it")
    drill.add_argument("--data-dir", type=Path)
    drill.add_argument("--backup", type=Path)
    drill.add_argument("--database-url", default=os.environ.get("DATABASE_URL"))
    drill.add_argument("--scratch-url", help="a login that may make a database; by default the one of --database-url")
    drill.add_argument("--master-key-file", type=Path)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        if options.command == "backup":
            back_up(options.data_dir, options.to)
            result: dict[str, Any] = {"backup": str(options.to), "holds": True}
        elif options.database_url is None and options.data_dir is None and options.backup is None:
            raise Failed("name what to restore: --data-dir, --database-url or --backup")
        else:
            with tempfile.TemporaryDirectory(prefix="kiki-drill-") as scratch:
                carry_out = drill_sqlite if options.database_url is None else drill_postgres
                result = carry_out(options, Path(scratch))
    except (Failed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result | {"seconds": round(time.perf_counter() - started, 2)}))
    return 0 if result["holds"] else 3


if __name__ == "__main__":
    sys.exit(main())
