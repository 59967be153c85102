"""The decisions of many processes over one shared window, in the window's own order."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kiki.shield.audit_budgets import BudgetSums, Checked
from kiki.shield.audit_finding import Findings, Kind
from kiki.shield.audit_meter import CLOCKS_APART
from kiki.shield.audit_money import COMMIT, RELEASE
from kiki.shield.audit_spool import Spool, Spooled
from kiki.shield.policy import Policy


@dataclass(slots=True)
class _Life:
    """One epoch of the shared window."""

    first: int
    """When its first and last decisions were recorded, by the writers' clocks."""
    last: int
    spools: dict[int, Spool] = field(default_factory=dict)
    """What each chain says about it, in the window's order."""
    reached: dict[int, int] = field(default_factory=dict)
    out_of_order: list[Spooled] = field(default_factory=list)
    """Answers that were given again: the window's first ones, written down later."""
    unknown: list[Spooled] = field(default_factory=list)
    """Calls without an answer: they have a moment and no place."""


class SharedWindow:
    """Gathers what every chain says about shared windows, and then judges it in the order of the windows.

    Each life of a window (an epoch) has an order of its own, by sequence. Lives follow each other by the writers' clocks;
    two that went on at the same time are judged apart, and said to be.
    """

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._settled: set[bytes] = set()

    def add(self, fact: Spooled) -> None:
        """Take in what a chain says, in the order of the chain."""
        money, chain = fact.money, fact.chain
        life = self._lives.get(money.epoch)
        if life is None:
            life = self._lives[money.epoch] = _Life(money.recorded_at, money.recorded_at)
        life.first = min(life.first, money.recorded_at)
        life.last = max(life.last, money.recorded_at)
        if money.verb in {COMMIT, RELEASE}:
            self._settled.add(bytes.fromhex(money.hold))
        if money.unsure and not money.taken:
            life.unknown.append(fact)
        elif money.sequence <= life.reached.get(chain, -1):
            life.out_of_order.append(fact)
        else:
            life.reached[chain] = money.sequence
            spool = life.spools.get(chain)
            if spool is None:
                spool = life.spools[chain] = Spool()
            spool.append(fact)

    def judge(
        self, findings: Findings, checked: Checked, chains: Sequence[str], policies: Sequence[tuple[bytes, Policy]]
    ) -> None:
        """Add up everything, life after life. `policies` are named as facts name them, by their place."""
        sums = BudgetSums(findings, checked, chains, shared=True, settled=frozenset(self._settled))
        latest: int | None = None
        for epoch, life in sorted(self._lives.items(), key=lambda item: (item[1].first, item[0])):
            if latest is not None:
                overlaps = life.first + CLOCKS_APART < latest
                if overlaps:
                    findings.add(
                        Kind.DOUBT,
                        chains[next(iter(life.spools), 0)],
                        -1,
                        f"two lives of the shared window went on at the same time, the later one {epoch}: each had the "
                        "whole of every budget, and they are judged apart",
                    )
                sums.begin_life(follows=not overlaps)
            latest = life.last if latest is None else max(latest, life.last)
            for fact in _in_order(life):
                sums.use(*policies[fact.policy])
                sums.apply(fact.money, fact.chain)

    def close(self) -> None:
        """Forget everything."""
        for life in self._lives.values():
            for spool in life.spools.values():
                spool.close()


def _in_order(life: _Life) -> Iterator[Spooled]:
    """Each decision once, by the window's sequence; those that have none between them, by their moment."""
    unknown = sorted(life.unknown, key=_moment)
    following = 0
    sequence, reached = -1, 0
    for fact in heapq.merge(*life.spools.values(), sorted(life.out_of_order, key=_sequence), key=_sequence):
        if fact.money.sequence == sequence:
            continue
        sequence, reached = fact.money.sequence, max(reached, fact.money.at)
        while following < len(unknown) and unknown[following].money.at <= reached:
            yield _not_before(unknown[following], fact.money.at)
            following += 1
        yield fact
    yield from (_not_before(fact, reached) for fact in unknown[following:])


def _not_before(fact: Spooled, at: int) -> Spooled:
    fact.money.at = max(fact.money.at, at)
    return fact


def _sequence(fact: Spooled) -> int:
    return fact.money.sequence


def _moment(fact: Spooled) -> int:
    return fact.money.at
