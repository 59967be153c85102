"""What an audit found: statements that somebody else can check, each with the entry that it is about. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from kiki.clock import to_iso
from kiki.money import format_micros
from kiki.shield.decision import event_id
from kiki.shield.policy import format_span

KEPT_MAX: Final = 1000
"""Of each kind this many findings are kept and all are counted: a forged ledger must not fill the memory."""


class Kind(StrEnum):
    """What is wrong, or cannot be told."""

    OVERRUN = "budget_exceeded"
    """In one window more was admitted and held than the limit."""
    HALTED = "spent_while_halted"
    """Money was admitted while the kill switch was on for it."""
    CONSENT = "against_consent"
    """A decision did not rest on the consent that was then in force."""
    STRUCTURE = "not_well_formed"
    """An entry says something that kiki does not write."""
    DOUBT = "cannot_be_told"
    """A limit may have been passed, and only if money whose fate nobody knows was really spent. Nothing is proved."""


class Overrun(msgspec.Struct, kw_only=True):
    """One stretch of time in which a window was over its limit. Money in micros, moments in microseconds."""

    budget: str
    scope: str
    span: int
    limit: int
    at: int
    """The end of the first window that was over; it began `span` earlier."""
    spent: int
    held: int
    unsure: int = 0
    """Beside those: money of which nobody knows whether it was spent."""
    worst: int
    """The largest sum of the stretch."""
    admissions: int = 1
    """How many spends and reservations were admitted in it while it was over."""
    entries: list[str]
    """Event ids of entries that make up the sum, oldest first; of many, the oldest and the newest."""

    def told(self) -> str:
        """The finding in a sentence."""
        parts = [f"{format_micros(self.spent)} spent", f"{format_micros(self.held)} held"]
        if self.unsure:
            parts.append(f"{format_micros(self.unsure)} of unknown fate")
        return (
            f"budget {self.budget!r} on {self.scope}: {', '.join(parts)} between {to_iso(self.at - self.span)} and "
            f"{to_iso(self.at)}; the limit is {format_micros(self.limit)} per {format_span(self.span)}"
        )


class Finding(msgspec.Struct, kw_only=True):
    """One thing that was found, and where."""

    kind: Kind
    chain: str
    seq: int
    """The sequence of the entry; -1 when it is about no single one."""
    message: str
    overrun: Overrun | None = None

    @property
    def event_id(self) -> str:
        """The event id of the entry; empty when there is none."""
        return event_id(self.seq) if self.seq >= 0 else ""

    def told(self) -> str:
        """Place and message in a line."""
        place = f"chain {self.chain}, entry {self.seq}" if self.seq >= 0 else f"chain {self.chain}"
        return f"{place}: {self.message if self.overrun is None else self.overrun.told()}"

    def as_dict(self) -> dict[str, object]:
        """For machines: money as decimal text, moments as RFC 3339."""
        found: dict[str, object] = {"kind": self.kind, "chain": self.chain, "message": self.told()}
        if self.seq >= 0:
            found |= {"seq": self.seq, "event_id": self.event_id}
        over = self.overrun
        if over is not None:
            found["window"] = {
                "budget": over.budget,
                "scope": over.scope,
                "from": to_iso(over.at - over.span),
                "to": to_iso(over.at),
                "limit": format_micros(over.limit),
                "spent": format_micros(over.spent),
                "held": format_micros(over.held),
                "unknown": format_micros(over.unsure),
                "worst": format_micros(over.worst),
                "admissions": over.admissions,
                "entries": over.entries,
            }
        return found


class Findings:
    """Collects findings; counts all of them and keeps the first of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._kept: dict[Kind, list[Finding]] = {kind: [] for kind in Kind}

    def add(self, kind: Kind, chain: str, seq: int, message: str = "", overrun: Overrun | None = None) -> None:
        """Take one in."""
        self.counts[kind] += 1
        kept = self._kept[kind]
        if len(kept) < KEPT_MAX:
            kept.append(Finding(kind=kind, chain=chain, seq=seq, message=message, overrun=overrun))

    def of(self, *kinds: Kind) -> Sequence[Finding]:
        """The kept ones of some kinds, in the order of their chains and entries."""
        return sorted((each for kind in kinds for each in self._kept[kind]), key=lambda found: (found.chain, found.seq))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.of(*Kind))
