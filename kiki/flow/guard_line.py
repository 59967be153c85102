"""The guard as flow asks it: the same few questions whether it is embedded or behind HTTP, and every answer an `Outcome`.

Flow's holds have no deadline: only a report of the platform, or a proved refusal, ends one. What the guard did not
answer is `unknown`; the same key asked again gives the answer that was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kiki.errors import AccessDenied, Conflict, InvalidInput, SpendDenied, Unavailable
from kiki.money import format_micros
from kiki.outbound.outcome import Outcome, done, refused, unknown
from kiki.shield.note import Note

if TYPE_CHECKING:
    from kiki.shield.budget_guard import BudgetGuard
    from kiki.shield.shield_client import AsyncShieldClient
    from kiki.shield.window import OpenHold

UNAVAILABLE = "guard_unavailable"
"""The guard could not be asked, or could not answer: nothing may be spent on it."""
_CONSENTS_AT_ONCE = 500


class GuardLine(Protocol):
    """Money in micros. Every call may be made again with the same key."""

    async def reserve(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        """Set money aside without a deadline: done with `hold` and `event`, refused with the reason, or unknown."""
        ...

    async def commit(self, hold: str, micros: int) -> Outcome:
        """End a hold with what was spent, at most what it holds."""
        ...

    async def release(self, hold: str) -> Outcome:
        """End a hold of which nothing was spent."""
        ...

    async def record(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        """Count money that was spent beyond what was held."""
        ...

    async def note(self, notes: Sequence[Note]) -> Outcome:
        """Write down what flow did."""
        ...

    async def check(self, micros: int, scopes: Mapping[str, str]) -> Outcome:
        """Whether so much would fit now; takes nothing. The message is the guard's own."""
        ...

    async def currency(self) -> Outcome:
        """The one currency that it counts in: done with `currency`."""
        ...

    async def holds_open(self) -> Outcome:
        """Every hold that is open: done with `holds`, each with its `id`, `micros` and `scopes`."""
        ...

    async def consents(self, customers: Sequence[str], purpose: str) -> Outcome:
        """Who of these consents to the purpose now: done with `allowed`, a yes or no for each, in order."""
        ...

    async def close(self) -> None:
        """Let go of a connection; a guard in this process stays open."""
        ...


class EmbeddedGuard:
    """A `BudgetGuard` in this process; its commits wait on a thread."""

    def __init__(self, guard: BudgetGuard) -> None:
        self._guard = guard

    async def reserve(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        """See `GuardLine`."""

        def ask() -> Outcome:
            hold = self._guard.reserve(format_micros(micros), scopes, key)
            return done(hold=hold.id, event=hold.event_id)

        return await _asked(lambda: asyncio.to_thread(ask))

    async def commit(self, hold: str, micros: int) -> Outcome:
        """See `GuardLine`."""

        def ask() -> Outcome:
            return done(event=self._guard.commit(hold, format_micros(micros)).event_id)

        return await _asked(lambda: asyncio.to_thread(ask))

    async def release(self, hold: str) -> Outcome:
        """See `GuardLine`."""
        return await _asked(lambda: asyncio.to_thread(lambda: done(event=self._guard.release(hold).event_id)))

    async def record(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        """See `GuardLine`."""

        def ask() -> Outcome:
            return done(event=self._guard.record(format_micros(micros), scopes, key).event_id)

        return await _asked(lambda: asyncio.to_thread(ask))

    async def note(self, notes: Sequence[Note]) -> Outcome:
        """See `GuardLine`."""
        return await _asked(lambda: asyncio.to_thread(lambda: done(event=self._guard.note_many(notes)[-1].event_id)))

    async def check(self, micros: int, scopes: Mapping[str, str]) -> Outcome:
        """See `GuardLine`."""

        def ask() -> Outcome:
            found = self._guard.check(format_micros(micros), scopes)
            return done() if found.allowed else refused(str(found.reason), found.explanation)

        return await _asked(lambda: asyncio.to_thread(ask))

    async def currency(self) -> Outcome:
        """See `GuardLine`."""
        return await _asked(lambda: asyncio.to_thread(lambda: done(currency=self._guard.policy.currency)))

    async def holds_open(self) -> Outcome:
        """See `GuardLine`."""
        return await _asked(lambda: asyncio.to_thread(lambda: _open(self._guard.holds())))

    async def consents(self, customers: Sequence[str], purpose: str) -> Outcome:
        """See `GuardLine`."""

        def ask() -> Outcome:
            return done(allowed=self._guard.consents.check_many((customer, purpose) for customer in customers))

        return await _asked(lambda: asyncio.to_thread(ask))

    async def close(self) -> None:
        """See `GuardLine`."""


class RemoteGuard:
    """SyncShield behind HTTP."""

    def __init__(self, client: AsyncShieldClient) -> None:
        self._client = client

    async def reserve(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            hold = await self._client.reserve(format_micros(micros), scopes, key)
            return done(hold=hold.id, event=hold.event_id)

        return await _asked(ask)

    async def commit(self, hold: str, micros: int) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            return done(event=(await self._client.commit(hold, format_micros(micros))).event_id)

        return await _asked(ask)

    async def release(self, hold: str) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            return done(event=(await self._client.release(hold)).event_id)

        return await _asked(ask)

    async def record(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            return done(event=(await self._client.record(format_micros(micros), scopes, key)).event_id)

        return await _asked(ask)

    async def note(self, notes: Sequence[Note]) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            return done(event=(await self._client.note_many(notes))[-1].event_id)

        return await _asked(ask)

    async def check(self, micros: int, scopes: Mapping[str, str]) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            found = await self._client.check(format_micros(micros), scopes)
            return done() if found.allowed else refused(str(found.reason), found.explanation)

        return await _asked(ask)

    async def currency(self) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            return done(currency=(await self._client.budgets(limit=1)).currency)

        return await _asked(ask)

    async def holds_open(self) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            return _open(await self._client.reservations())

        return await _asked(ask)

    async def consents(self, customers: Sequence[str], purpose: str) -> Outcome:
        """See `GuardLine`."""

        async def ask() -> Outcome:
            allowed: list[bool] = []
            for first in range(0, len(customers), _CONSENTS_AT_ONCE):
                some = [(customer, purpose) for customer in customers[first : first + _CONSENTS_AT_ONCE]]
                allowed += [answer.allowed for answer in await self._client.consents.check_many(some)]
            return done(allowed=allowed)

        return await _asked(ask)

    async def close(self) -> None:
        """See `GuardLine`."""
        await self._client.close()


def guard_mismatch(guard: str, plan: str) -> str:
    """Why a plan in another currency than the guard's runs nowhere: its amounts would be counted as if they were the guard's."""
    return f"the guard counts in {guard}, and the plan is in {plan}: nothing will run"


def _open(holds: Sequence[OpenHold]) -> Outcome:
    return done(holds=[{"id": hold.id, "micros": hold.amount, "scopes": [*hold.scopes]} for hold in holds])


def line_to(guard: BudgetGuard | AsyncShieldClient | GuardLine) -> GuardLine:
    """The line to a guard in this process, to one behind HTTP, or to whatever is a line already."""
    from kiki.shield.budget_guard import BudgetGuard
    from kiki.shield.shield_client import AsyncShieldClient

    if isinstance(guard, BudgetGuard):
        return EmbeddedGuard(guard)
    return RemoteGuard(guard) if isinstance(guard, AsyncShieldClient) else guard


async def _asked(ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
    try:
        return await ask()
    except SpendDenied as error:
        return refused(error.reason, str(error))
    except (InvalidInput, AccessDenied, Conflict) as error:
        return refused(error.code, str(error))
    except (Unavailable, OSError) as error:
        return unknown(UNAVAILABLE, str(error))
