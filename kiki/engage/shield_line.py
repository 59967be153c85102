"""What engage asks of SyncShield, in this process or over HTTP: consent, money, and a record of why.

Whatever goes wrong raises: who cannot ask the shield sends nothing. Amounts are micros of the shield's currency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from kiki.errors import Conflict, ConsentDenied, NotFound, SpendDenied
from kiki.money import format_micros
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.note import NOTES_MAX, Detail, Note, parse_note
from kiki.shield.shield_client import ShieldClient
from kiki.shield.window import MeterStatus

CONSENTS_AT_ONCE: Final = 500
EVERYTHING: Final = "*"
"""The scope of budgets over all spends."""
CLIENT_TIMEOUT: Final = 0.4
"""Seconds that one answer of the service may take; the original waited as long, and then sent without an answer."""


class Reserved(NamedTuple):
    """Money that is set aside, or why it is not."""

    hold: str = ""
    """Empty: nothing had to be set aside."""
    refusal: str = ""
    """The shield's reason: `consent_missing`, `budget_exhausted`, `halted`, …"""


class Shield(Protocol):
    """The questions. Thread-safe."""

    def consents(self, customers: Sequence[str], purpose: str) -> list[bool]:
        """Whether each customer consents now."""
        ...

    def room(self, scopes: Iterable[str]) -> int | None:
        """What is left under every budget that a message with these scopes would draw on; None: no such budget."""
        ...

    def currency(self) -> str:
        """The one currency that it counts in."""
        ...

    def reserve(self, micros: int, scopes: Mapping[str, str], key: str, purpose: str) -> Reserved:
        """Set money aside for somebody who consents; the same key is the same reservation."""
        ...

    def commit(self, hold: str, micros: int) -> None:
        """Say that so much of it was spent; again is the same."""
        ...

    def release(self, hold: str) -> None:
        """Say that nothing was spent; again is the same."""
        ...

    def note(self, notes: Sequence[Note]) -> None:
        """Write down what engage decided and did; a note with a key that stands already is the same note."""
        ...


class _Line:
    """What both ways have in common: the guard and its client have the same verbs."""

    def __init__(self, shield: BudgetGuard | ShieldClient) -> None:
        self._shield: Any = shield

    def reserve(self, micros: int, scopes: Mapping[str, str], key: str, purpose: str) -> Reserved:
        """Set money aside; where a message costs nothing, only consent is asked for."""
        try:
            if micros == 0:
                allowed = self.consents([scopes["customer"]], purpose)[0]
                return Reserved() if allowed else Reserved(refusal="consent_missing")
            hold = self._shield.reserve(format_micros(micros), scopes, key, purpose=purpose)
        except SpendDenied as error:
            return Reserved(refusal=error.reason)
        except ConsentDenied:
            return Reserved(refusal="consent_missing")
        return Reserved(hold=hold.id)

    def consents(self, customers: Sequence[str], purpose: str) -> list[bool]:
        """Whether each customer consents now."""
        raise NotImplementedError

    def commit(self, hold: str, micros: int) -> None:
        """Say what was spent."""
        if micros == 0:
            self.release(hold)
            return
        try:
            self._shield.commit(hold, format_micros(micros))
        except (Conflict, NotFound):
            # It was settled before a crash kept us from noting that, or ran out and counts as spent.
            return

    def release(self, hold: str) -> None:
        """Say that nothing was spent."""
        try:
            self._shield.release(hold)
        except (Conflict, NotFound):
            return

    def note(self, notes: Sequence[Note]) -> None:
        """Write notes down, as many at once as the shield takes."""
        for first in range(0, len(notes), NOTES_MAX):
            self._shield.note_many(notes[first : first + NOTES_MAX])


class GuardLine(_Line):
    """A guard in this process."""

    def __init__(self, guard: BudgetGuard) -> None:
        super().__init__(guard)
        self._guard = guard

    def consents(self, customers: Sequence[str], purpose: str) -> list[bool]:
        """Whether each customer consents now."""
        return self._guard.consents.check_many((customer, purpose) for customer in customers)

    def room(self, scopes: Iterable[str]) -> int | None:
        """What is left."""
        return _least(self._guard.status(scope=scope) for scope in (EVERYTHING, *scopes))

    def currency(self) -> str:
        """What it counts in."""
        return self._guard.policy.currency


class ClientLine(_Line):
    """A service."""

    def __init__(self, client: ShieldClient) -> None:
        super().__init__(client)
        self._client = client

    def consents(self, customers: Sequence[str], purpose: str) -> list[bool]:
        """Whether each customer consents now."""
        found: list[bool] = []
        for first in range(0, len(customers), CONSENTS_AT_ONCE):
            some = customers[first : first + CONSENTS_AT_ONCE]
            answers = self._client.consents.check_many([(customer, purpose) for customer in some])
            found += [answer.allowed for answer in answers]
        return found

    def room(self, scopes: Iterable[str]) -> int | None:
        """What is left."""
        return _least(self._client.budgets(scope=scope).meters() for scope in (EVERYTHING, *scopes))

    def currency(self) -> str:
        """What it counts in."""
        return self._client.budgets(limit=1).currency


def decided_note(
    event: str, customer: str, scopes: Mapping[str, str], detail: Mapping[str, Detail], key: str | None = None
) -> Note:
    """A note about a customer; its detail is sealed under the person's key."""
    return parse_note(event, {**scopes, "customer": customer}, detail, key)


def _least(found: Iterable[Sequence[MeterStatus]]) -> int | None:
    left = [meter.remaining for meters in found for meter in meters]
    return max(min(left), 0) if left else None
