"""A breach of personal data as somebody declares it: the register that GDPR 33(5) asks for. Pure.

kiki detects no breaches. It writes down what it is told, durably and where nobody can take it back, and counts it.
Declaring the same reference again tells more about the same breach: that the authority was notified, or how many
persons it concerns. What is not told again stays as it was; above all the moment from which the authority's time runs.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.errors import InvalidInput
from kiki.ledger.projected import projected
from kiki.ledger.store import SHARED, Write
from kiki.shield.change import Change, Turn
from kiki.shield.consent_words import parse_text
from kiki.shield.fact import BreachDeclared

NOTICE_SPAN: Final = 72 * 3600 * SECOND
"""How long there is to notify the authority, from when the breach became known (GDPR 33(1))."""
AFFECTED_MAX: Final = 10**12
BREACH: Final = SHARED + "breach"
"""The space of what is known of each breach, by its reference."""


class _Known(msgspec.Struct, array_like=True, frozen=True):
    found_at: int
    notified_at: int | None
    affected: int | None


_decode = msgspec.msgpack.Decoder(_Known).decode


def writes_of(fact: BreachDeclared) -> list[Write]:
    """The projection of a declaration: the one rule for writing it and for rebuilding it."""
    value = msgspec.msgpack.encode(_Known(fact.found_at, fact.notified_at, fact.affected))
    return [Write(BREACH, fact.reference.encode(), value)]


def breach_change(
    reference: object,
    *,
    found_at: int | None = None,
    notified_at: int | None = None,
    affected: object = None,
    actor: str = "",
    network: str = "",
) -> Change:
    """A change that declares a breach; its result is the fact and its sequence. Raises `InvalidInput`.

    Moments are microseconds since the epoch. What is None is as it was declared before; a breach that was not, became
    known just now, or when it was notified.
    """
    text = parse_text(reference, "reference of the breach")
    if not text:
        raise InvalidInput("the reference of the breach is missing: name the incident, for example INC-2026-014")
    count = parse_affected(affected)

    def act(turn: Turn) -> tuple[BreachDeclared, int]:
        value = turn.get(BREACH, text.encode())
        known = None if value is None else projected(_decode, value, "a breach")
        before = None if known is None else known.found_at
        found = next(moment for moment in (found_at, before, notified_at, turn.now) if moment is not None)
        notified = notified_at if notified_at is not None or known is None else known.notified_at
        for moment, what in ((found, "found"), (notified, "notified")):
            if moment is not None and not 0 <= moment <= turn.now:
                raise InvalidInput(f"the breach cannot have been {what} at {to_iso(moment)}: that lies in the future")
        if notified is not None and notified < found:
            raise InvalidInput("the authority cannot have been notified before the breach was found")
        affected_now = count if count is not None or known is None else known.affected
        fact = BreachDeclared(turn.now, text, found, notified, affected_now, actor, network)
        return fact, turn.add(fact, writes_of(fact))

    return Change(act)


def parse_affected(given: object) -> int | None:
    """How many persons a breach concerns, None when that is not known; raises `InvalidInput`."""
    if given is None:
        return None
    # JSON has no whole numbers of its own: 12.0 is one.
    if isinstance(given, int | Decimal) and not isinstance(given, bool) and 0 <= given <= AFFECTED_MAX:
        number = int(given)
        if number == given:
            return number
    raise InvalidInput(f"'affected' is a whole number of persons from 0 to {AFFECTED_MAX}; leave it out if not known")
