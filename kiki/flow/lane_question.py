"""A question of a lane, to the guard, a platform or its adviser: what it was answered is journaled under the step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from kiki.flow.plan_calendar import Calendar
from kiki.flow.port import Json, Port
from kiki.flow.world import Timing
from kiki.outbound.exchange import UNREADABLE
from kiki.outbound.outcome import Fate, Outcome

Question = Callable[[], Awaitable[Outcome]]


async def ask(port: Port, step: str, question: Question) -> Outcome:
    """Ask once."""

    async def act() -> Json:
        plain: Json = msgspec.to_builtins(await question())
        return plain

    return msgspec.convert(await port.step(step, act), Outcome)


async def ask_until(port: Port, calendar: Calendar, step: str, question: Question, *, until: int) -> Outcome:
    """Ask the same again and again, until it is answered or `until` has come."""
    number = 0
    while True:
        told = await ask(port, f"{step}/{number}", question)
        if told.is_done or (told.fate is Fate.REFUSED and not told.is_transient and told.code != UNREADABLE):
            return told
        now = await port.now(f"{step}/{number}/now")
        if now >= until:
            return told
        again = max(now + calendar.span(Timing.RETRY), told.retry_at or 0)
        await port.sleep(f"{step}/{number}/wait", again)
        number += 1
