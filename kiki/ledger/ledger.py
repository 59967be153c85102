"""The one write: facts go in, futures come out, and nobody is answered before the disk has it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from kiki import tracing
from kiki.clock import SECOND, Clock, wall_micros
from kiki.errors import LedgerCorrupt, LedgerUnavailable
from kiki.ledger.checkpoint import Checkpoint, Signer, extensions, log_origin, parse_checkpoint, split_note
from kiki.ledger.entry import Entry, Sealed, decode_entry, encode_entry
from kiki.ledger.group_commit import GroupCommit, Ticket
from kiki.ledger.projected import projected
from kiki.ledger.store import Reader, Store, Write
from kiki.ledger.tiling import Tiling, leaf_hashes, open_tiling, require_following, require_signed_root

META = "meta"
"""The space of the ledger's own properties, such as the id of its chain."""

CHECKPOINTS: Final = "checkpoint"
"""The space of signed checkpoints, by the size of the tree that each covers."""
CHECKPOINT_ENTRIES: Final = 65_536
CHECKPOINT_SPAN: Final = 10 * SECOND

Writes = Callable[[int], Iterable[Write]]
"""Projections that belong to a fact, given the sequence it got."""


class Append(NamedTuple):
    """A fact on its way into the ledger, with its projections and the parts of it that are sealed."""

    fact: msgspec.Struct
    writes: Writes | None = None
    sealed: Sequence[Sealed] = ()


class Ledger:
    """One writer's chain of facts in a store.

    `append` may be called from any thread. A commit that fails stops the ledger: later appends fail at
    once, because what became of the failed ones is unknown until `recover` has read the disk again.

    With a `signer`, the tree over all entries is signed every `CHECKPOINT_ENTRIES` entries or `CHECKPOINT_SPAN`,
    in the commit that is due anyway; `checkpoint` signs what has gathered since.
    """

    def __init__(self, store: Store, clock: Clock = wall_micros, seed: bytes | None = None) -> None:
        self.store = store
        self.failure: LedgerUnavailable | None = None
        self.clock = clock
        self._group: GroupCommit[Append, int] = GroupCommit(self._write)
        self._next = store.next_seq()
        self.chain = self._name_chain()
        self._tiling = self._open_tiling()
        self.recorded_at = self._last_recorded_at()
        """When the last entry was taken in, in microseconds since the epoch."""
        self._process = os.getpid()
        self._traced_as = {
            "db.system.name": "postgresql" if store.is_shared else "sqlite",
            "db.operation.name": "COMMIT",
        }
        self.signer = None if seed is None else Signer(log_origin(self.chain), seed)
        self.others: Callable[[], Mapping[str, int]] = dict
        """The other chains that lie in the same store, with the sizes of their last checkpoints: each names them all."""
        latest = store.last(CHECKPOINTS)
        self._signed_size = 0 if latest is None else int.from_bytes(latest[0], "big")
        self._signed_at = self.recorded_at

    def _open_tiling(self) -> Tiling:
        """The tree as it lies there; raises `LedgerCorrupt` when it is not what was signed last, or what follows is no chain.

        It would be a fork to go on, or a ledger that never holds again: what is signed next covers all of it.
        """
        latest: tuple[bytes, object] | None = self.store.last(CHECKPOINTS)
        if latest is None:
            require_following(self.store, 0)
            return open_tiling(self.store)
        # Anything but bytes was put there by somebody else, and is no note.
        signed = parse_checkpoint(split_note(latest[1] if isinstance(latest[1], bytes) else b"")[0])
        require_following(self.store, signed.size)
        tiling = open_tiling(self.store)
        require_signed_root(self.store, signed.size, signed.root)
        return tiling

    def _name_chain(self) -> str:
        known = self.store.get(META, b"chain")
        if known is not None:
            return projected(bytes.decode, known, "the id of the chain")
        if self._next:
            # Under another id, what was signed could never be compared with what is there.
            raise nameless(self._next)
        chain = secrets.token_hex(8)
        self.store.commit([], [Write(META, b"chain", chain.encode())])
        return chain

    def require_companion(self, name: str, digest: bytes) -> None:
        """Remember what belongs to this ledger, and raise `LedgerCorrupt` when it is another one than before."""
        key = f"companion/{name}".encode()
        known = self.store.get(META, key)
        if known is None:
            self.store.commit([], [Write(META, key, digest)])
        elif known != digest:
            raise LedgerCorrupt(
                f"the {name} beside this ledger is not the one that it was written with",
                hint="restore both from backups that belong together; kiki changes nothing in them",
            )

    def _last_recorded_at(self) -> int:
        for _, data in self.store.entries(max(self._next - 1, 0)):
            return decode_entry(data).recorded_at
        return 0

    @property
    def next_seq(self) -> int:
        """The sequence that the next entry will get."""
        return self._next

    def append(self, fact: msgspec.Struct, writes: Writes | None = None) -> Ticket[Append, int]:
        """Queue a fact; the future's result is its sequence, once the entry is durable.

        Callers MUST NOT answer anybody before that, and MUST count what they queued even when it fails.
        """
        return self._group.submit(Append(fact, writes))

    def append_all(self, facts: Sequence[Append], under_epoch: tuple[str, int] | None = None) -> int:
        """Make facts durable now, in one commit; the sequence of the first, the others follow it densely.

        With `under_epoch`, a shared window and its epoch in which they were decided, raises `EpochPassed` and writes
        nothing when that epoch is over.
        """
        return self._group.exclusively(lambda: self._commit(facts, under_epoch)) if facts else self._next

    def flush(self) -> None:
        """Make everything that was appended so far durable; failures are on the futures."""
        self._group.drain()

    def _write(self, batch: list[Ticket[Append, int]]) -> None:
        first = self._commit([ticket.item for ticket in batch])
        for offset, ticket in enumerate(batch):
            ticket.resolve(first + offset)

    def _commit(self, facts: Sequence[Append], under_epoch: tuple[str, int] | None = None) -> int:
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        if os.getpid() != self._process:
            raise LedgerUnavailable(
                "this process was forked from the one that owns the ledger", hint="open a guard of its own"
            )
        recorded_at = max(self.clock(), self.recorded_at)
        first = seq = self._next
        entries: list[tuple[int, bytes]] = []
        writes: list[Write] = []
        for fact, also, sealed in facts:
            entries.append((seq, encode_entry(seq, recorded_at, fact, sealed)))
            if also is not None:
                writes += also(seq)
            seq += 1
        tiling, tiles = self._tiling.grown(leaf_hashes(entries))
        writes += tiles
        due = recorded_at - self._signed_at >= CHECKPOINT_SPAN or seq - self._signed_size >= CHECKPOINT_ENTRIES
        if due and self.signer is not None:
            writes += self._checkpoint(self.signer, tiling, recorded_at)
        self._keep(writes, entries, under_epoch)
        self._next, self.recorded_at, self._tiling = seq, recorded_at, tiling
        if due:
            self._signed_size, self._signed_at = seq, recorded_at
        return first

    def _keep(
        self,
        writes: Sequence[Write],
        entries: Sequence[tuple[int, bytes]] = (),
        under_epoch: tuple[str, int] | None = None,
    ) -> None:
        try:
            with tracing.child("ledger COMMIT", tracing.Kind.CLIENT, self._traced_as):
                if under_epoch is None:
                    self.store.commit(entries, writes)
                else:
                    self.store.commit(entries, writes, under_epoch=under_epoch)
        except BaseException as error:
            # Also an interrupt, or an error of a kind nobody planned for: what became of the entries is unknown.
            failure = error
            if not isinstance(failure, LedgerUnavailable):
                failure = LedgerUnavailable(f"the last commit ended with {type(error).__name__}: {error}")
                # Reading the disk again settles what became of it, unless the disk itself is the trouble.
                failure.recoverable = not isinstance(error, LedgerCorrupt)
            self.failure = failure
            raise

    def keep(self, writes: Sequence[Write]) -> None:
        """Make writes durable that belong to no fact: the ledger's own records, never a projection."""

        def act() -> None:
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            self._keep(writes)

        self._group.exclusively(act)

    def _checkpoint(self, signer: Signer, tiling: Tiling, at: int) -> list[Write]:
        note = signer.sign(Checkpoint(signer.name, tiling.size, tiling.root(), extensions(at, self.others())))
        return [Write(CHECKPOINTS, tiling.size.to_bytes(8, "big"), note), tiling.noted()]

    def checkpoint(self, *, older_than: int = 0) -> bytes | None:
        """The signed checkpoint over every entry, made now if there is none yet; None: no signer, or no entries.

        With `older_than`, in microseconds, one is only made when the last is older than that.
        """

        def sign() -> bytes | None:
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            signer, now = self.signer, max(self.clock(), self.recorded_at)
            if signer is None or not self._next:
                return None
            if self._signed_size < self._next and now - self._signed_at >= older_than:
                self._keep(self._checkpoint(signer, self._tiling, now))
                self._signed_size, self._signed_at = self._next, now
            latest = self.store.last(CHECKPOINTS)
            return None if latest is None else latest[1]

        return self._group.exclusively(sign)

    def recover(self) -> None:
        """Read again what is durable and go on from there; raises `LedgerUnavailable` while it still fails."""

        def again() -> None:
            self.store.reopen()
            # A write proves more than a read does: a full disk opens without complaint.
            self.store.commit([], [Write(META, b"chain", self.chain.encode())])
            self._next = self.store.next_seq()
            self._tiling = self._open_tiling()
            self.recorded_at = max(self.recorded_at, self._last_recorded_at())
            self.failure = None

        self._group.exclusively(again)

    def read(self, first: int = 0, last: int | None = None) -> Iterator[Entry]:
        """Durable entries in order."""
        return read_entries(self.store, first, last)

    def close(self) -> None:
        """Make durable what waits, then let go of the store."""
        try:
            self.flush()
        finally:
            self.store.close()


def nameless(following: int) -> LedgerCorrupt:
    """What to say of a chain that lost its id: it is written before the first entry."""
    return LedgerCorrupt(
        f"the ledger has entries up to {following - 1}, and the id of their chain is missing: projection '{META}', key 'chain'",
        hint="somebody changed the database; restore it from a backup",
    )


def signed_sizes(readers: Iterable[Reader]) -> dict[str, int]:
    """The sizes of the last checkpoints of chains, by their ids; chains without one are left out."""
    found: dict[str, int] = {}
    for reader in readers:
        chain, latest = reader.get(META, b"chain"), reader.last(CHECKPOINTS)
        if chain is not None and latest is not None:
            found[chain.decode()] = int.from_bytes(latest[0], "big")
    return found


def read_entries(reader: Reader, first: int = 0, last: int | None = None) -> Iterator[Entry]:
    """The entries of a store or reader in order, decoded."""
    for _, data in reader.entries(first, last):
        yield decode_entry(data)


def first_recorded_since(reader: Reader, moment: int) -> int:
    """The sequence of the first entry recorded at `moment` or later, by bisection."""
    low, high = reader.first_seq(), reader.next_seq()
    while low < high:
        middle = (low + high) // 2
        recorded_at = next(decode_entry(data).recorded_at for _, data in reader.entries(middle, middle))
        if recorded_at < moment:
            low = middle + 1
        else:
            high = middle
    return low
