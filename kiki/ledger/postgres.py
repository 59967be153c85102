"""Ledgers in PostgreSQL: one chain for each replica, all of them in one database, and what they share.

A store claims its chain with a session lock and raises the chain's fence; every transaction checks the fence, so a
process that lost its session can never append again, whatever it believes. Entries are inserted under a role that
can do nothing else with them. Spaces whose names begin with `shared/` belong to all chains.

It needs a session of its own: a pooler in front of it must pool sessions, not transactions.

What an erasure leaves, for which a short horizon has to be set: the write-ahead log and its archive, base backups,
standbys that lag, and free space within pages until it is used again or `compact` wrote the tables anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from typing import Final

from kiki.errors import LedgerLocked, LedgerUnavailable
from kiki.ledger import postgres_statements as statements
from kiki.ledger.postgres_connection import ANSWER_SECONDS, CONNECT_SECONDS, Row, Session, Step, sql
from kiki.ledger.postgres_reader import SCHEMA, Chain, PostgresReader
from kiki.ledger.postgres_schema import prepare
from kiki.ledger.postgres_statements import Statements
from kiki.ledger.store import SHARED, Write, require_dense

__all__ = ["SCHEMA", "UNFINISHED", "PostgresReader", "PostgresStore", "lock_key"]

logger = logging.getLogger("kiki.ledger")

UNFINISHED: Final = SHARED + "copy"
"""The space that marks a database into which a ledger is being copied."""

_WRITE_ROWS: Final = 5000
_PRUNE_ROWS: Final = 4096
_CLAIM_SECONDS: Final = 3.0
_WATCHED_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.05


def lock_key(schema: str, name: str) -> int:
    """The number by which the server knows a lock of ours."""
    digest = blake2b(f"kiki/{schema}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class PostgresStore(PostgresReader):
    """Owns the chain of a name; `LedgerLocked` while another live process does.

    The schema is made or migrated when that is needed and allowed; `DatabaseError` says what to do when it is not, or
    when the server is set to acknowledge what is not durable. After a lost connection the next write, or `reopen`,
    claims the chain again with a higher fence.

    `when_taken` is called when another process came to own the chain while this one was cut off from the server.
    `unfinished` opens a database into which a copy was begun and not ended; nobody else may use one.
    """

    is_shared = True

    def __init__(
        self,
        url: str,
        chain_name: str,
        *,
        schema: str = SCHEMA,
        connect_timeout: float = CONNECT_SECONDS,
        answer_timeout: float = ANSWER_SECONDS,
        when_taken: Callable[[], None] | None = None,
        unfinished: bool = False,
    ) -> None:
        self._statements = Statements(schema)
        self._url = url
        self._schema = schema
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._name = chain_name
        self._when_taken = when_taken
        self._unfinished = unfinished
        self._pid: int | None = None
        self._in_turn = False
        self._owning = threading.RLock()
        """Held by the thread that writes or has the turn: a look at a shared window may take the turn, too."""
        self._closed = False
        self._open()
        try:
            self._read = self._session(heals=True)
            self._may_vacuum = bool(self._read.query(self._statements.may_vacuum)[0][0])
        except BaseException:
            self._write.close()
            raise
        if not self._may_vacuum:
            logger.warning(
                "the login does not own the tables of the ledger, so that what is erased stays in their free space "
                "until the server vacuums them; grant it the owner's role, or vacuum them often"
            )

    # -- owning --------------------------------------------------------------------------------------

    def _session(self, *, heals: bool = False) -> Session:
        return Session(
            self._url, heals=heals, connect_timeout=self._connect_timeout, answer_timeout=self._answer_timeout
        )

    def _open(self) -> None:
        """Connect, claim the chain, and read where it ends."""
        session = self._session()
        try:
            session.require_fit()
            self._lock(session)
            prepare(session, self._schema)
            known = self._statements
            claimed = session.query(known.claim, [self._name]) or session.query(known.found, [self._name])
            self._chain, self._fence = Chain(claimed[0][0], self._name), claimed[0][1]
            self._next: int = session.query(known.next_seq, [self._chain.id])[0][0] or 0
            if session.query(known.shared.last, {"space": UNFINISHED}) and not self._unfinished:
                raise LedgerUnavailable(
                    f"a ledger is being copied into {session.place}, or was when the copy was stopped",
                    hint="let `kiki ledger copy` end, or run it again: it goes on from where it was",
                )
        except BaseException:
            session.close()
            raise
        self._write, self._pid = session, session.pid

    def _lock(self, session: Session) -> None:
        """Become the one owner of the chain's name, as long as the session lasts."""
        key = lock_key(self._schema, f"chain/{self._name}")
        deadline = time.monotonic() + _CLAIM_SECONDS
        while not session.query(statements.TRY_LOCK, [key])[0][0]:
            holders = [pid for (pid,) in session.query(statements.HOLDERS, [key])]
            if self._pid in holders:
                # Our own last session: the server has not noticed yet that nobody is behind it any more.
                session.query(statements.TERMINATE, [self._pid])
            if time.monotonic() > deadline:
                owner = session.query(statements.OWNER, [holders[0]]) if holders else []
                raise LedgerLocked(
                    f"another process ({(owner and owner[0][0]) or 'unknown'}) owns the chain {self._name} "
                    f"in {session.place}",
                    hint="stop it, or give this replica a name of its own with KIKI_REPLICA",
                )
            time.sleep(_PAUSE_SECONDS)

    def reopen(self) -> None:
        """Claim the chain again, with a higher fence, and read what became durable."""
        with self._owning:
            self._write.close()
            self._read.close()  # it connects again by itself
            if self._closed:
                raise LedgerUnavailable("this store was closed")
            try:
                self._open()
            except LedgerLocked as error:
                if self._when_taken is not None:
                    self._when_taken()
                unavailable = LedgerUnavailable(str(error), hint=error.hint)
                unavailable.recoverable = True
                raise unavailable from error

    def _owner(self) -> Session:
        """The session that may write."""
        if not self._write.is_alive():
            if self._in_turn:
                unavailable = LedgerUnavailable("the connection was lost, and with it the turn on what all share")
                unavailable.recoverable = True
                raise unavailable
            self.reopen()
        return self._write

    def _transact(self, *steps: Step, under_epoch: tuple[str, int] | None = None) -> list[list[Row]]:
        """Change something in one transaction, which fails unless the chain is still this process's."""
        window, epoch = under_epoch or (None, None)
        with self._owning:
            session = self._owner()
            admit = Step(self._statements.admit, [self.chain.id, self._fence, window, epoch])
            return session.transact([admit, *steps])[1:]

    # -- writing -------------------------------------------------------------------------------------

    def commit(
        self,
        entries: Sequence[tuple[int, bytes]],
        writes: Iterable[Write] = (),
        *,
        under_epoch: tuple[str, int] | None = None,
    ) -> None:
        """Write entries and projections in one transaction and one round trip, and wait until they are durable.

        With `under_epoch`, a shared window and the epoch of it in which this was decided, raises `EpochPassed` and
        writes nothing when that epoch is over.
        """
        steps = list(self._changes(writes))
        self._owner()
        require_dense(entries, self._next)
        for at in range(0, len(entries), _WRITE_ROWS):
            part = entries[at : at + _WRITE_ROWS]
            values = [self.chain.id, part[0][0], [body for _, body in part]]
            steps.append(Step(self._statements.append, values))
        self._transact(*steps, under_epoch=under_epoch)
        self._next += len(entries)

    def _changes(self, writes: Iterable[Write]) -> Iterator[Step]:
        """The statements that make projections so. In the order of the keys, so that two replicas do not entangle."""
        latest = {(space, key): value for space, key, value in writes}
        for table in (self._statements.own, self._statements.shared):
            mine = sorted(item for item in latest.items() if self._table(item[0][0]) is table)
            removed = [name for name, value in mine if value is None]
            kept = [(name, value) for name, value in mine if value is not None]
            for at in range(0, len(removed), _WRITE_ROWS):
                yield self._rows(table.remove, removed[at : at + _WRITE_ROWS])
            for at in range(0, len(kept), _WRITE_ROWS):
                part = kept[at : at + _WRITE_ROWS]
                yield self._rows(table.put, [name for name, _ in part], [value for _, value in part])

    def _rows(self, statement: sql.Composed, names: Sequence[tuple[str, bytes]], values: Sequence[bytes] = ()) -> Step:
        spaces, keys = [space for space, _ in names], [key for _, key in names]
        return Step(statement, {"chain": self.chain.id, "spaces": spaces, "keys": keys, "values": values})

    def add(self, space: str, rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Write the keys that are absent; what stands afterwards for each. Of two replicas who race, the first wins."""
        table, keys = self._table(space), sorted(rows)
        add = self._rows(table.add, [(space, key) for key in keys], [rows[key] for key in keys])
        look = Step(table.get_many, self._named(space, {"keys": keys}))
        stands: dict[bytes, bytes] = {}
        while len(stands) < len(rows):
            # More than once only when another replica removes a key between the two statements.
            stands = dict(self._transact(add, look)[1])
        return stands

    def erase(self, space: str, keys: Iterable[bytes]) -> None:
        """Remove keys, and their bytes from the table and its index; the module says what is left elsewhere.

        Raises `LedgerUnavailable` when somebody's transaction goes on seeing the rows; they are removed even so, and
        asking again ends it.
        """
        table = self._table(space)
        names = [(space, key) for key in sorted(keys)]
        for at in range(0, len(names), _WRITE_ROWS):
            removed = self._transact(
                self._rows(table.remove, names[at : at + _WRITE_ROWS]), Step(statements.THIS_TRANSACTION)
            )[1][0][0]
        if names and self._may_vacuum:
            self._vacuum(table.vacuum, removed)

    def _vacuum(self, statement: sql.Composed, removed_by: str) -> None:
        # In a session of its own: only the tables' owner may do it, and it may take as long as it takes.
        with closing(Session(self._url, answer_timeout=None)) as session:
            deadline = time.monotonic() + _WATCHED_SECONDS
            while session.query(statements.WATCHERS, [removed_by])[0][0]:
                if time.monotonic() > deadline:
                    unavailable = LedgerUnavailable(
                        f"what was erased in {session.place} cannot be overwritten while a transaction still sees it",
                        hint="end what runs long (an export, a backup, a prepared transaction, a replication slot that "
                        "nobody reads) and ask again",
                    )
                    unavailable.recoverable = True
                    raise unavailable
                time.sleep(_PAUSE_SECONDS)
            session.query(statement)

    def traces(self, needles: Iterable[bytes]) -> list[str]:
        """Nothing: the server's files are not ours to look into."""
        return []

    def compact(self) -> None:
        """Write the tables of projections anew without what was removed; the other replicas wait meanwhile."""
        if not self._may_vacuum:
            raise LedgerUnavailable(
                "the login does not own the tables of the ledger, so it may not write them anew",
                hint=f"have their owner run VACUUM (FULL) {self._schema}.shared, {self._schema}.projection",
            )
        removed = self._transact(Step(statements.THIS_TRANSACTION))[0][0][0]
        for table in (self._statements.shared, self._statements.own):
            self._vacuum(table.compact, removed)

    def prune(self, before: int) -> None:
        """Remove the entries below `before`, some thousand at a time, under the role that may."""
        self._owner()
        values = {"chain": self.chain.id, "before": min(before, self._next - 1), "rows": _PRUNE_ROWS}
        while self._transact(Step(statements.BECOME_PRUNER), Step(self._statements.prune, values))[1][0][0]:
            pass

    def trim(self, space: str, most: int = 1000) -> int:
        """Remove up to `most` keys of a space in a transaction of its own; how many were removed."""
        values = self._named(space, {"rows": most})
        count: int = self._transact(Step(self._table(space).trim, values))[0][0][0]
        return count

    def begin_at(self, seq: int) -> None:
        """Let the first entry have this sequence: it is a ledger whose earlier entries were pruned."""
        if self.next_seq():
            raise LedgerUnavailable(f"the chain {self._name} has entries already")
        self._next = seq

    # -- what all chains share -----------------------------------------------------------------------

    @contextmanager
    def shared_turn(self) -> Iterator[None]:
        """While it lasts, no other replica that takes it reads and changes the shared spaces."""
        with self._owning:
            if self._in_turn:
                yield  # what is done in a turn may ask for one
                return
            session, key = self._owner(), lock_key(self._schema, "shared")
            session.query(statements.LOCK, [key])
            self._in_turn = True
            try:
                yield
            finally:
                self._in_turn = False
                if session.is_open:
                    try:
                        session.query(statements.UNLOCK, [key])
                    except LedgerUnavailable:
                        session.close()  # which lets go of it too; the next write claims the chain again

    def raise_epoch(self, window: str) -> int:
        """Begin the next epoch of a shared window: when this returns, no commit under an older one can succeed."""
        epoch: int = self._transact(Step(self._statements.raise_epoch, [window]))[0][0][0]
        return epoch

    def close(self) -> None:
        """Let go of both connections and of the chain. May be called twice."""
        self._closed = True
        self._write.close()
        self._read.close(for_good=True)
