"""Consent as those use it who act elsewhere: asked for, held for a short lease, and never acted on after its end."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from kiki.shield.consent import LEASE_HELD
from kiki.shield.consent_lease import monotonic_micros

HELD_MAX: Final = 100_000


class Leased(NamedTuple):
    """An answer about consent that may be acted on for a short time."""

    allowed: bool
    span: int
    """For how many microseconds, counted from before it was asked for."""
    end: int
    """The end of the lease as its grantor counts: what a confirmation names."""
    event_id: str = ""
    """The entry that the answer rests on; empty when nothing was ever said."""


Ask = Callable[[str, str], Leased]
"""Asks the grantor about a customer and a purpose, for example over HTTP."""


class Enforcer:
    """Answers whether a customer has consented, from answers that are still good, else by asking. Thread-safe.

    What `ask` raises goes to the caller: who cannot be asked has not consented. Memory is bounded.
    """

    def __init__(self, ask: Ask, *, held_max: int = HELD_MAX, clock: Callable[[], int] = monotonic_micros) -> None:
        self._ask = ask
        self._held_max = held_max
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, str], tuple[Leased, int]] = OrderedDict()
        self._drops = 0
        self._dropped: dict[tuple[str, str], tuple[int, int]] = {}
        """Number and moment of each pair's last drop, as long as an answer may be under way from before it."""

    def allows(self, customer: str, purpose: str) -> bool:
        """Whether the customer consents to the purpose now. Act on a yes at once."""
        pair = customer, purpose
        held = self._held.get(pair)
        if held is not None and self._clock() < held[1]:
            return held[0].allowed
        while True:
            drops, asked_at = self._drops, self._clock()
            leased = self._ask(customer, purpose)
            until = asked_at + min(leased.span, LEASE_HELD)
            if self._keep(pair, leased, until, drops):
                return leased.allowed and self._clock() < until

    def _keep(self, pair: tuple[str, str], leased: Leased, until: int, drops: int) -> bool:
        """Hold an answer; False when it must not be used, because the pair was dropped while it was under way."""
        with self._lock:
            if self._dropped.get(pair, (0, 0))[0] > drops:
                return False
            held = self._held.get(pair)
            if held is None or held[1] <= until:
                self._held[pair] = leased, until
                self._held.move_to_end(pair)
                if len(self._held) > self._held_max:
                    self._held.popitem(last=False)
            return True

    def drop(self, customer: str, purpose: str) -> int:
        """Act no more on any answer so far; the end to confirm to the grantor, 0 when nothing was held."""
        pair = customer, purpose
        with self._lock:
            now = self._clock()
            self._drops += 1
            self._dropped.pop(pair, None)
            self._dropped[pair] = self._drops, now
            while self._dropped[first := next(iter(self._dropped))][1] + LEASE_HELD <= now:
                del self._dropped[first]
            held = self._held.pop(pair, None)
            return 0 if held is None else held[0].end
