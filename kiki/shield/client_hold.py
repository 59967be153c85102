"""Money that was set aside behind HTTP, in two colours: what `reserve` of a client gives."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from kiki.shield import wire_moment
from kiki.shield.call import Amount
from kiki.shield.wire import ReservationReply, SettlementReply

if TYPE_CHECKING:
    from kiki.shield.shield_client import AsyncShieldClient, ShieldClient


class _RemoteHold:
    """What both colours of a hold know."""

    def __init__(self, reply: ReservationReply) -> None:
        self.reply = reply
        self.id = reply.id
        self.amount = reply.amount
        self.event_id = reply.event_id
        self.deadline = None if reply.deadline is None else wire_moment.moment_micros(reply.deadline)
        """Microseconds since the epoch, None without one; then it turns into a spend."""
        self.is_open = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.amount}, {'open' if self.is_open else 'closed'})"


class ClientHold(_RemoteHold):
    """Money set aside. Leaving a `with` block without a commit releases it."""

    def __init__(self, client: ShieldClient, reply: ReservationReply) -> None:
        super().__init__(reply)
        self._client = client

    def commit(self, amount: Amount) -> SettlementReply:
        """Say what was really spent, at most what was reserved; the rest is free at once."""
        reply = self._client.commit(self.id, amount)
        self.is_open = False
        return reply

    def release(self) -> SettlementReply:
        """Say that nothing was spent; all of it is free at once."""
        reply = self._client.release(self.id)
        self.is_open = False
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            self.release()


class AsyncClientHold(_RemoteHold):
    """Money set aside. Leaving an `async with` block without a commit releases it."""

    def __init__(self, client: AsyncShieldClient, reply: ReservationReply) -> None:
        super().__init__(reply)
        self._client = client

    async def commit(self, amount: Amount) -> SettlementReply:
        """Say what was really spent, at most what was reserved; the rest is free at once."""
        reply = await self._client.commit(self.id, amount)
        self.is_open = False
        return reply

    async def release(self) -> SettlementReply:
        """Say that nothing was spent; all of it is free at once."""
        reply = await self._client.release(self.id)
        self.is_open = False
        return reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            await self.release()
