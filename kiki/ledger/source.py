"""Where a ledger lies, and how somebody who does not own it reads it: a file, or a database of many chains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kiki.ledger.store import Reader
from kiki.settings import Secret

if TYPE_CHECKING:
    from kiki.ledger.postgres import PostgresReader


class Database(NamedTuple):
    """A ledger in PostgreSQL, and which of its chains is meant."""

    url: Secret
    replica: str
    """The name of the chain's owner: it stays the same over restarts, and no other process has it at the same time."""
    when_taken: Callable[[], None] | None = None
    """What to do when another process has it nevertheless, which took it while this one was cut off."""

    def __str__(self) -> str:
        return f"the chain {self.replica} in PostgreSQL"


Source = Path | Database


def is_pattern(replica: str) -> bool:
    """Whether a name stands for the first free one of many: `syncshield-*` for syncshield-0, syncshield-1 and so on."""
    return replica.endswith("*")


def first_name(replica: str) -> str:
    """The name itself, or a pattern's first: of a command that wants one chain and no other."""
    return f"{replica.removesuffix('*')}0" if is_pattern(replica) else replica


def open_reader(source: Source) -> Reader:
    """A reader of one chain; raises `LedgerUnavailable` when there is none. It takes no lock of the ledger."""
    if isinstance(source, Database):
        return _postgres(source, source.replica)
    # apsw and psycopg are loaded only where there is a file or a database.
    from kiki.ledger.sqlite import SqliteReader

    return SqliteReader(source)


def open_readers(source: Source) -> list[Reader]:
    """A reader of every chain that lies there. Closing the first closes all."""
    if isinstance(source, Database):
        return list(_postgres(source, None).readers())
    return [open_reader(source)]


def _postgres(source: Database, chain: str | None) -> PostgresReader:
    from kiki.ledger.postgres import PostgresReader

    return PostgresReader(source.url.reveal(), chain)
