"""Looks at ledgers in PostgreSQL while their owners write them; no lock is taken, and no snapshot held for long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from kiki.errors import LedgerUnavailable
from kiki.ledger.postgres_connection import CONNECT_SECONDS, Row, Session, Values, sql
from kiki.ledger.postgres_schema import current_revision
from kiki.ledger.postgres_statements import Statements, Table

SCHEMA: Final = "kiki"

_READ_ROWS: Final = 1000
_END: Final = 2**62


class Chain(NamedTuple):
    """One replica's chain in a database."""

    id: int
    name: str


class ChainReader:
    """Reads one chain and the shared spaces on a connection that others use too."""

    def __init__(self, session: Session, known: Statements, chain: Chain | None) -> None:
        self._read = session
        self._statements = known
        self._chain = chain

    def __repr__(self) -> str:
        name = "all chains" if self._chain is None else self._chain.name
        return f"{type(self).__name__}({name} in {self._read.place})"

    @property
    def chain(self) -> Chain:
        """The chain that is read."""
        if self._chain is None:
            raise LedgerUnavailable(f"there are several chains in {self._read.place}, or none: say which one is meant")
        return self._chain

    def entries(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Entries in order, read a thousand at a time, so that no snapshot is held while they are worked on."""
        chain, end = self.chain.id, _END if last is None else last
        while True:
            rows = self._query(self._statements.entries, [chain, first, end, _READ_ROWS])
            yield from rows
            if len(rows) < _READ_ROWS:
                return
            first = rows[-1][0] + 1

    def first_seq(self) -> int:
        """The lowest sequence that is still there, 0 when there is none."""
        return self._query(self._statements.first_seq, [self.chain.id])[0][0] or 0

    def next_seq(self) -> int:
        """One more than the last entry's sequence, 0 when there is none."""
        return self._query(self._statements.next_seq, [self.chain.id])[0][0] or 0

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value of one projected key."""
        rows = self._look(space, self._table(space).get, key=key)
        return rows[0][0] if rows else None

    def get_many(self, space: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there, in one round trip."""
        return dict(self._look(space, self._table(space).get_many, keys=list(keys)))

    def scan(self, space: str, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys of a space after `after`, with their values, in the order of the keys' bytes."""
        table = self._table(space)
        rows = self._look(space, table.following if after else table.first, after=after, rows=_READ_ROWS)
        while rows:
            yield from rows
            if len(rows) < _READ_ROWS:
                return
            rows = self._look(space, table.following, after=rows[-1][0], rows=_READ_ROWS)

    def last(self, space: str) -> tuple[bytes, bytes] | None:
        """The highest key of a space with its value."""
        rows = self._look(space, self._table(space).last)
        return (rows[0][0], rows[0][1]) if rows else None

    def spaces(self) -> list[str]:
        """The names of all projections, this chain's own and the shared ones."""
        own, shared = self._statements.own.spaces, self._statements.shared.spaces
        return sorted(space for (space,) in self._query(own, {"chain": self.chain.id}) + self._query(shared))

    def epoch(self, window: str) -> int:
        """The epoch of a shared window, 0 when it was never raised."""
        rows = self._query(self._statements.epoch, [window])
        return rows[0][0] if rows else 0

    def _table(self, space: str) -> Table:
        return self._statements.table(space)

    def _look(self, space: str, statement: sql.Composed, **values: object) -> list[Row]:
        return self._query(statement, self._named(space, values))

    def _named(self, space: str, values: Mapping[str, object]) -> dict[str, object]:
        """The values of a statement on a space, with the chain where the space belongs to one."""
        own = {} if self._table(space) is self._statements.shared else {"chain": self.chain.id}
        return {"space": space, **own, **values}

    def _query(self, statement: sql.Composed, values: Values = ()) -> list[Row]:
        return self._read.query(statement, values)

    def close(self) -> None:
        """Let go of the connection; whoever else reads on it gets a new one."""
        self._read.close()


class PostgresReader(ChainReader):
    """Reads one chain and the shared spaces while others write; takes no lock and connects again when it must.

    `chain` is an id or a name; without it, the only chain there is. With several chains and none named, reading one
    raises `LedgerUnavailable`, the shared spaces can be read, and `readers` has them all. Raises `LedgerUnavailable`
    when there is no such ledger or chain.
    """

    def __init__(
        self,
        url: str,
        chain: int | str | None = None,
        *,
        schema: str = SCHEMA,
        connect_timeout: float = CONNECT_SECONDS,
    ) -> None:
        session = Session(url, heals=True, connect_timeout=connect_timeout)
        super().__init__(session, Statements(schema), None)
        try:
            if current_revision(session, schema) is None:
                raise LedgerUnavailable(
                    f"there is no ledger in {session.place}, schema {schema}",
                    hint="start a service on it first, or run `kiki ledger copy`",
                )
            chains = self.chains()
            wanted = chains if chain is None else [each for each in chains if chain in each]
            if chain is not None and not wanted:
                names = ", ".join(each.name for each in chains) or "none"
                raise LedgerUnavailable(f"there is no chain {chain} in {session.place}", hint=f"there are: {names}")
            self._chain = wanted[0] if len(wanted) == 1 else None
        except BaseException:
            session.close()
            raise

    def chains(self) -> list[Chain]:
        """Every chain of the ledger, in the order in which they were first claimed."""
        return [Chain(*row) for row in self._query(self._statements.chains)]

    def readers(self) -> list[ChainReader]:
        """A reader of each chain, all on this one's connection."""
        return [ChainReader(self._read, self._statements, chain) for chain in self.chains()]
