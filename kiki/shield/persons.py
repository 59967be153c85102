"""Persons in the scopes of calls: who is named, and the reference that stands in the place of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kiki.errors import PolicyError
from kiki.ledger.subjects import Person
from kiki.shield.call import Call, Switch
from kiki.shield.policy import Policy
from kiki.shield.scope import PERSONAL_KINDS, PERSONAL_PREFIXES, Scopes, kind_of

NOBODY: tuple[Scopes, ...] = ((),)
UNKNOWN = "?"
"""In the place of a reference, for somebody who has none and gets none by being looked at."""


def require_nobody(policy: Policy) -> None:
    """Raise `PolicyError` for budgets over one person."""
    # A budget over one person would stand in the ledger in clear, and the person's reference would never match it.
    named = [
        budget.name for budget in policy.budgets if budget.pattern.kind in PERSONAL_KINDS and not budget.pattern.is_each
    ]
    if named:
        raise PolicyError(
            f"budget {name!r} names one person; write the scope as kind:* for each person on their own"
            for name in named
        )


def persons_of(calls: Iterable[Call]) -> list[str]:
    """The persons that calls name, as scope texts."""
    return [
        scope
        for call in calls
        if call.scopes != NOBODY
        for scopes in call.scopes
        for scope in scopes
        if scope.startswith(PERSONAL_PREFIXES)
    ]


def names_one(turn: Switch) -> bool:
    """Whether a kill switch is about one person."""
    return turn.pattern.startswith(PERSONAL_PREFIXES) and not turn.pattern.endswith(":*")


def referenced(given: tuple[Scopes, ...], persons: Mapping[str, Person]) -> tuple[tuple[Scopes, ...], dict[str, str]]:
    """The scopes with references in the place of persons, and the person behind each such scope."""
    named: dict[str, str] = {}
    if given == NOBODY:
        return given, named

    def reference(scope: str) -> str:
        if not scope.startswith(PERSONAL_PREFIXES):
            return scope
        person = persons.get(scope)
        shown = f"{kind_of(scope)}:{person.reference if person else UNKNOWN}"
        named[shown] = scope
        return shown

    return tuple(tuple(map(reference, scopes)) for scopes in given), named
