"""The ledger told again to a window, so that a restart finds it exactly as it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from kiki.ledger.ledger import first_recorded_since, read_entries
from kiki.ledger.store import Reader
from kiki.shield.budget import SLOTS, Reason
from kiki.shield.fact import EXPIRE, Decided, Settled, decode_fact
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes
from kiki.shield.window import OpenHold, Verb, Window


class Restorable(Window, Protocol):
    """A window that can be told its past, in order of time."""

    def renewed(self, policy: Policy) -> Restorable:
        """A window like this one under another policy, with nothing counted yet."""
        ...

    def restore_spend(self, amount: int, scopes: Scopes, at: int) -> None:
        """Count a spend of the past."""
        ...

    def restore_hold(self, hold: OpenHold) -> None:
        """Set money aside again."""
        ...

    def restore_settlement(self, hold_id: str, spent: int, at: int) -> None:
        """End a hold as it ended."""
        ...


def reach(policy: Policy) -> int:
    """How far back a spend can still count, in microseconds: a slot stays until all of it is out of the window."""
    return policy.span_max + -(-policy.span_max // SLOTS)


def admitted(fact: Decided) -> Iterable[tuple[int, Scopes]]:
    """The amounts of a spend, reservation or record that count, with their scopes: all but the refused.

    One whose outcome is unknown may have been taken, so it counts.
    """
    refused = {each.index for each in fact.refused if each.reason != Reason.OUTCOME_UNKNOWN}
    scopes = [tuple(each) for each in fact.scopes]
    many = len(scopes) > 1
    for index, amount in enumerate(fact.amounts):
        if index not in refused:
            yield amount, scopes[index if many else 0]


def replay(reader: Reader, window: Restorable, open_holds: Iterable[OpenHold], since: int) -> None:
    """Tell the window every fact recorded at `since` or later, and before them the holds still open from earlier."""
    first = first_recorded_since(reader, since)
    # A hold still open is restored once: here, and passed over when its own fact comes by.
    restored: set[str] = set()
    for hold in sorted(open_holds, key=lambda each: each.made_at):
        if hold.made_at < since:
            window.restore_hold(hold)
            restored.add(hold.id)
    last = 0
    for entry in read_entries(reader, first):
        fact = decode_fact(entry)
        if not isinstance(fact, Decided | Settled):
            continue
        # Decisions of a shared window carry its server's time, which need not agree with ours.
        last = max(last, fact.at)
        if isinstance(fact, Settled):
            if fact.hold not in restored:
                # Made before the replay began: only what it charged is left to count.
                if fact.charged:
                    window.restore_spend(fact.charged, tuple(fact.scopes[0]) if fact.scopes else (), last)
            elif fact.verb != EXPIRE:
                # A restored hold that ran out is charged by the window itself, at its deadline.
                window.restore_settlement(fact.hold, fact.charged, last)
        elif fact.verb == Verb.RESERVE:
            for amount, scopes in admitted(fact):
                if fact.hold not in restored:
                    window.restore_hold(OpenHold(fact.hold, amount, scopes, fact.deadline, last))
                    restored.add(fact.hold)
        elif fact.verb != Verb.CHECK:
            for amount, scopes in admitted(fact):
                window.restore_spend(amount, scopes, last)
