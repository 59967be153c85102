"""Shadow mode: what another policy would have decided about what was really asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge
from operator import attrgetter

from kiki.clock import SECOND
from kiki.ledger.entry import Entry
from kiki.ledger.key_index import known_keys
from kiki.ledger.ledger import first_recorded_since, read_entries
from kiki.ledger.store import Reader
from kiki.money import format_micros
from kiki.shield.budget import Reason
from kiki.shield.fact import EXPIRE, Decided, Settled, decode_fact
from kiki.shield.local_window import LocalWindow
from kiki.shield.policy import Policy
from kiki.shield.projections import known_epoch, open_holds, settled_key
from kiki.shield.replay import reach
from kiki.shield.window import Ask, OpenHold, Verb

# These say nothing about a budget, so another policy would not have changed them.
_NOT_ABOUT_BUDGETS = {
    Reason.INVALID_INPUT,
    Reason.LTV_ABOVE_MAXIMUM,
    Reason.LTV_BELOW_MINIMUM,
    Reason.CONSENT_MISSING,
    Reason.HALTED,
}

_PROGRESS_EVERY = 10_000


@dataclass(slots=True)
class Simulation:
    """How another policy compares with what happened. Counts are of amounts; money in micros."""

    decisions: int = 0
    admitted: int = 0
    refused: int = 0
    admitted_micros: int = 0
    refused_micros: int = 0
    newly_refused: int = 0
    """Really admitted, refused by the other policy."""
    newly_refused_micros: int = 0
    newly_admitted: int = 0
    """Really refused, admitted by the other policy."""
    newly_admitted_micros: int = 0
    refused_by_budget: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        """The figures for machines, money as decimal text."""
        return {
            "decisions": self.decisions,
            "admitted": self.admitted,
            "refused": self.refused,
            "admitted_amount": format_micros(self.admitted_micros),
            "refused_amount": format_micros(self.refused_micros),
            "newly_refused": self.newly_refused,
            "newly_refused_amount": format_micros(self.newly_refused_micros),
            "newly_admitted": self.newly_admitted,
            "newly_admitted_amount": format_micros(self.newly_admitted_micros),
            "refused_by_budget": dict(self.refused_by_budget),
        }


class _Told:
    """A clock that stands where the ledger stands."""

    now = 0

    def __call__(self) -> int:
        return self.now


def simulate(
    reader: Reader | Sequence[Reader],
    policy: Policy,
    since: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Ask a fresh window under `policy` everything that the ledger says was asked since then.

    What was spent and held before `since` fills its windows without being counted. Chains that decided over a shared
    window are asked again over one, in the order of their time; each that counted on its own over one of its own.
    `progress` is told (done, total) entries.
    """
    start = 0 if since is None else round(since.timestamp() * SECOND)
    readers = list(reader) if isinstance(reader, Sequence) else [reader]
    together = [one for one in readers if known_epoch(one) is not None]
    result = Simulation()
    for group in [*([together] if together else []), *([one] for one in readers if one not in together)]:
        _again(group, policy, start, result, progress)
    return result


class _Part:
    """What of a chain is asked again: entries `first` to before `end`."""

    def __init__(self, reader: Reader, since: int) -> None:
        self.reader = reader
        self.first, self.end = first_recorded_since(reader, since), reader.next_seq()

    def entries(self) -> Iterator[Entry]:
        return read_entries(self.reader, self.first, self.end - 1)


def _again(
    readers: Sequence[Reader],
    policy: Policy,
    start: int,
    result: Simulation,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Ask everything of chains that share a window."""
    parts = [_Part(reader, start - reach(policy)) for reader in readers]
    total = sum(part.end - part.first for part in parts)
    told = _Told()
    window = LocalWindow(policy, told, scopes_max=2**62)
    if any(part.first for part in parts):
        for hold in _held_at(parts):
            window.restore_hold(hold)
    for done, entry in enumerate(merge(*(part.entries() for part in parts), key=attrgetter("recorded_at"))):
        if progress is not None and done % _PROGRESS_EVERY == 0:
            progress(done, total)
        fact = decode_fact(entry)
        if isinstance(fact, Decided):
            told.now = max(told.now, fact.at)
            _ask_again(fact, window, result if fact.at >= start else Simulation())
        elif isinstance(fact, Settled) and fact.verb != EXPIRE:
            told.now = max(told.now, fact.at)
            if not fact.late:
                # A hold that the other policy refused is unknown here, and its settlement changes nothing.
                verb = Verb(fact.verb)
                window.take([Ask(verb, [fact.charged], hold=fact.hold)])
    if progress is not None:
        progress(total, total)


def _held_at(parts: Sequence[_Part]) -> list[OpenHold]:
    """The holds that were open when the parts begin: those open still, and those that ended since then."""
    made_since: set[str] = set()
    readers = [part.reader for part in parts]
    held = {hold.id: hold for reader in readers for hold in open_holds(reader)}
    if len(readers) > 1:
        # Another chain may have settled it.
        ended = known_keys(readers, [settled_key(hold) for hold in held])
        held = {name: hold for name, hold in held.items() if settled_key(name) not in ended}
    at = 0
    for entry in merge(*(part.entries() for part in parts), key=attrgetter("recorded_at")):
        fact = decode_fact(entry)
        if isinstance(fact, Decided):
            at = at or fact.at
            if fact.verb == Verb.RESERVE:
                made_since.add(fact.hold)
        elif isinstance(fact, Settled) and not fact.late:
            at = at or fact.at
            deadline = fact.at if fact.verb == EXPIRE else None
            scopes = tuple(fact.scopes[0]) if fact.scopes else ()
            held.setdefault(fact.hold, OpenHold(fact.hold, fact.reserved, scopes, deadline, fact.at))
    return [
        OpenHold(hold.id, hold.amount, hold.scopes, hold.deadline, min(hold.made_at, at))
        for hold in held.values()
        if hold.id not in made_since
    ]


def _ask_again(fact: Decided, window: LocalWindow, result: Simulation) -> None:
    verb = Verb(fact.verb)
    if verb is Verb.CHECK:
        return
    refused = {each.index: each.reason for each in fact.refused}
    indexes = [index for index in range(len(fact.amounts)) if refused.get(index) not in _NOT_ABOUT_BUDGETS]
    if not indexes:
        return
    # A reservation that never was has no ending in the ledger: it is asked as the spend it would have become.
    asked_as = Verb.SPEND if verb is Verb.RESERVE and refused else verb
    many = len(fact.scopes) > 1
    scopes = tuple(tuple(fact.scopes[index if many else 0]) for index in indexes)
    amounts = [fact.amounts[index] for index in indexes]
    (answer,) = window.take([Ask(asked_as, amounts, scopes, hold=fact.hold, hold_span=fact.hold_span)])
    if verb is Verb.RECORD:
        return
    for place, (index, amount) in enumerate(zip(indexes, amounts, strict=True)):
        result.decisions += 1
        refusal = answer.refusals.get(place)
        if refusal is None:
            result.admitted += 1
            result.admitted_micros += amount
            if index in refused:
                result.newly_admitted += 1
                result.newly_admitted_micros += amount
        else:
            result.refused += 1
            result.refused_micros += amount
            result.refused_by_budget[refusal.budget or ""] += 1
            if index not in refused:
                result.newly_refused += 1
                result.newly_refused_micros += amount
