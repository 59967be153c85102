"""A breach of personal data as somebody declares it: the register that GDPR 33(5) asks for. Pure.

kiki detects no breaches. It writes down what it is told, durably and where nobody can take it back, and counts it.
Declaring the same reference again tells more about the same breach: that the authority was notified, or how many
persons it concerns.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from kiki.clock import SECOND, to_iso
from kiki.errors import InvalidInput
from kiki.shield.change import Change, Turn
from kiki.shield.consent_words import parse_text
from kiki.shield.fact import BreachDeclared

NOTICE_SPAN: Final = 72 * 3600 * SECOND
"""How long there is to notify the authority, from when the breach became known (GDPR 33(1))."""
AFFECTED_MAX: Final = 10**12


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

    Moments are microseconds since the epoch; `found_at` None: it became known just now, or when it was notified.
    """
    text = parse_text(reference, "reference of the breach")
    if not text:
        raise InvalidInput("the reference of the breach is missing: name the incident, for example INC-2026-014")
    count = parse_affected(affected)

    def act(turn: Turn) -> tuple[BreachDeclared, int]:
        found = next(moment for moment in (found_at, notified_at, turn.now) if moment is not None)
        for moment, what in ((found, "found"), (notified_at, "notified")):
            if moment is not None and not 0 <= moment <= turn.now:
                raise InvalidInput(f"the breach cannot have been {what} at {to_iso(moment)}: that lies in the future")
        if notified_at is not None and notified_at < found:
            raise InvalidInput("the authority cannot have been notified before the breach was found")
        fact = BreachDeclared(turn.now, text, found, notified_at, count, actor, network)
        return fact, turn.add(fact)

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
