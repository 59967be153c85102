"""What consent a decision may rest on: the projected states, kept in memory as long as that is safe."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final, NamedTuple

from kiki.ledger.store import Reader
from kiki.shield.consent import CONSENT, ConsentState, consent_key, read_state, used_of
from kiki.shield.fact import ConsentUsed

STATES_MAX: Final = 200_000
_ALWAYS: Final = 2**63


class _Kept(NamedTuple):
    """An answer, and for which moments it is one."""

    used: ConsentUsed
    first: int
    end: int
    """The first moment for which it must be found again."""


class ConsentView:
    """Looks up what each person said, in memory where it can. Thread-safe.

    Where this process owns the store, an answer is kept until `changed` says otherwise. With a `lease` in
    microseconds, for a store that others write too, it is used no longer than that, counted from the moment that
    the caller read before asking: whoever revokes elsewhere waits out the lease.
    """

    def __init__(self, reader: Reader, lease: int | None, states_max: int = STATES_MAX) -> None:
        self._reader = reader
        self._lease = lease
        # Two generations: who is asked about again moves to the young one, and the old one is dropped whole.
        # That forgets about as well as a list in order of use, and a hit moves nothing.
        self._young: dict[str, dict[str, _Kept]] = {}
        self._old: dict[str, dict[str, _Kept]] = {}
        self._young_count = 0
        self._young_max = max(1, states_max // 2)
        self._keeping = threading.Lock()
        self._changes = 0
        """What was read before a change must not be kept after it."""

    def look(self, subject: str, purpose: str, now: int) -> ConsentUsed:
        """What `subject` (a reference) said about `purpose`, and whether that is consent at the moment `now`."""
        try:
            kept = self._young[subject][purpose]
        except KeyError:
            return self.look_many([(subject, purpose)], now)[0]
        if kept.first <= now < kept.end:
            return kept.used
        return self.look_many([(subject, purpose)], now)[0]

    def look_many(self, asked: Iterable[tuple[str, str]], now: int) -> list[ConsentUsed]:
        """The same for many at once, in order, with one look into the store for all that are not in memory."""
        asked = list(asked)
        changes = self._changes
        found: dict[tuple[str, str], _Kept] = {}
        absent: dict[bytes, tuple[str, str]] = {}
        for pair in asked:
            kept = self._kept(*pair)
            if kept is not None and kept.first <= now < kept.end:
                found[pair] = kept
            else:
                absent[consent_key(*pair)] = pair
        if absent:
            values = self._reader.get_many(CONSENT, absent)
            found.update((pair, self._answer(pair, read_state(values.get(key)), now)) for key, pair in absent.items())
        self._keep(found, changes)
        return [found[pair].used for pair in asked]

    def changed(self, subject: str, purpose: str) -> None:
        """Forget one state: it was written anew. Call it before anybody is told that it was."""
        with self._keeping:
            self._changes += 1
            for generation in (self._young, self._old):
                generation.get(subject, {}).pop(purpose, None)

    def forget(self, subject: str) -> None:
        """Forget everything about a person."""
        with self._keeping:
            self._changes += 1
            self._young.pop(subject, None)
            self._old.pop(subject, None)

    def clear(self) -> None:
        """Forget everything: the store may have changed in ways that nobody told."""
        with self._keeping:
            self._changes += 1
            self._young, self._old, self._young_count = {}, {}, 0

    def _kept(self, subject: str, purpose: str) -> _Kept | None:
        known = self._young.get(subject)
        if known is None or purpose not in known:
            known = self._old.get(subject)
        return None if known is None else known.get(purpose)

    def _answer(self, pair: tuple[str, str], state: ConsentState | None, now: int) -> _Kept:
        used = used_of(*pair, state, now)
        # What holds for ever holds before `now`, too: a clock that stepped back finds it. A lease it does not.
        first, end = (0, _ALWAYS) if self._lease is None else (now, now + self._lease)
        if used.given and state is not None and state.expires_at is not None:
            end = min(end, state.expires_at)
        return _Kept(used, first, end)

    def _keep(self, found: dict[tuple[str, str], _Kept], changes: int) -> None:
        with self._keeping:
            if changes != self._changes:
                return
            for (subject, purpose), kept in found.items():
                known = self._young.setdefault(subject, {})
                if purpose not in known:
                    self._young_count += 1
                known[purpose] = kept
            if self._young_count >= self._young_max:
                self._young, self._old, self._young_count = {}, self._young, 0
