"""The one writer of a process's journals: answers of many lanes go into one commit, so whoever waits for the disk waits together.

An answer under an epoch that is over is refused in the transaction that would have kept it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

import sqlalchemy as sa

from kiki.clock import Clock
from kiki.errors import RunTaken
from kiki.flow.run_database import RunDatabase, unwritten
from kiki.flow.run_rows import Entry
from kiki.flow.run_tables import journal, runs, signals

_BATCH_MAX: Final = 1000


class _Append(NamedTuple):
    run: str
    epoch: int
    lane: str
    place: int
    entry: Entry
    signal: int | None
    kept: Future[None]


class JournalWriter:
    """Keeps answers, on a thread of its own; any thread may call it."""

    def __init__(self, database: RunDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._appends: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="kiki-flow-journal", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Keep what waits, and take no more."""
        self._appends.put(None)
        self._writer.join()

    def append(
        self, run: str, epoch: int, lane: str, place: int, entry: Entry, signal: int | None = None
    ) -> Future[None]:
        """Journal an answer; the future is done when it is durable, or fails with `RunTaken` or `LedgerUnavailable`.

        `signal` is the message that the answer takes: it is taken with it, or not at all.
        """
        kept: Future[None] = Future()
        # A lane that is cancelled while it waits must not take the answer from the writer, which would stumble over it.
        kept.set_running_or_notify_cancel()
        self._appends.put(_Append(run, epoch, lane, place, entry, signal, kept))
        return kept

    def _write(self) -> None:
        while (first := self._appends.get()) is not None:
            batch = [first]
            while len(batch) < _BATCH_MAX:
                try:
                    more = self._appends.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._appends.put(None)
                    break
                batch.append(more)
            self._keep(batch)

    def _keep(self, batch: Sequence[_Append]) -> None:
        try:
            lost = self._commit(batch)
        except sa.exc.IntegrityError:
            # Somebody else journaled one of these places: a runner that lost its run. Who it is shows one by one.
            if len(batch) == 1:
                batch[0].kept.set_exception(RunTaken(f"another runner journaled for {batch[0].run}"))
            else:
                for each in batch:
                    self._keep([each])
            return
        except sa.exc.SQLAlchemyError as error:
            problem = unwritten(error)
            for each in batch:
                each.kept.set_exception(problem)
            return
        for each in batch:
            if (each.run, each.epoch) in lost:
                each.kept.set_exception(RunTaken(f"another runner took {each.run} over"))
            else:
                each.kept.set_result(None)

    def _commit(self, batch: Sequence[_Append]) -> set[tuple[str, int]]:
        """Keep what is under the epoch in force; the runs and epochs that are over."""
        asked = {(each.run, each.epoch) for each in batch}
        with self._database.engine.begin() as connection:
            mine = sa.select(runs.c.run, runs.c.epoch).where(runs.c.run.in_([run for run, _ in asked]))
            if not self._database.is_sqlite:
                mine = mine.with_for_update(read=True)
            current = {(row[0], row[1]) for row in connection.execute(mine)}
            lost = asked - current
            kept = [each for each in batch if (each.run, each.epoch) not in lost]
            if kept:
                now = self._clock()
                rows = [
                    {
                        "lane": e.lane,
                        "place": e.place,
                        "key": e.entry.key,
                        "value": e.entry.value,
                        "at": now,
                        "told": int(e.entry.told),
                    }
                    for e in kept
                ]
                if self._database.is_sqlite:
                    connection.execute(sa.insert(journal), rows)
                else:
                    # One statement: the driver sends many in a pipeline, and whoever is frozen within one keeps its locks,
                    # because the server takes that for work.
                    connection.execute(sa.insert(journal).values(rows))
            taken = [each.signal for each in kept if each.signal is not None]
            if taken:
                connection.execute(sa.update(signals).where(signals.c.number.in_(taken)).values(taken=1))
        return lost
