"""One write to a platform, until its fate is known: fence, call, and where the answer is lost, read back.

All writes set a state, so an unknown one may be sent again with the same key; it is never sent under a new key, and
nothing that it may have cost is given back, before it is known. A refusal that may pass (throttled, down) is tried again
as the next attempt, because a refused attempt has had no effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from kiki.clock import SECOND
from kiki.flow.keys import write_key
from kiki.flow.lane_question import ask
from kiki.flow.platform import CampaignState, campaign_of
from kiki.flow.port import Port
from kiki.flow.story import Story
from kiki.flow.world import Timing, World
from kiki.outbound.fence import fenced
from kiki.outbound.outcome import Fate, Outcome

CREATE: Final = "create"
"""The one write that does not set a state: done twice it makes two campaigns."""

Call = Callable[[str], Awaitable[Outcome]]
"""A write, given its key."""
Shows = Callable[[CampaignState], bool]
"""Whether a campaign that was read back shows the effect of a write."""


class LaneWrites:
    """The writes of one lane, each journaled under its step."""

    def __init__(self, port: Port, world: World, story: Story, name: str, version: str) -> None:
        self._port = port
        self._world = world
        self._story = story
        self._name = name
        self._version = version
        self.doubt_until = 0
        """Until then an unanswered write may still have its effect, whatever was read back or written since."""

    async def write(
        self, step: str, call: Call, shows: Shows, *, until: int, does: str, micros: int | None = None
    ) -> Outcome:
        """Do it, until it is done, refused for good, or `until` has come.

        What is still unknown or refused then is the answer; a later `write` of another step may set the state anew.
        `does` and `micros` say in the record what it is about.
        """
        attempt = sends = 1
        while True:
            outcome = await self._send(step, call, attempt, sends, _about(does, micros))
            if outcome.fate is Fate.UNKNOWN:
                late = round(self._world.platform.limits.late_seconds * SECOND)
                self.doubt_until = await self._port.now(f"{step}/{sends}/sent") + late
                outcome = await self._known(step, outcome, shows, sends, _about(does, micros))
            if outcome.is_done or (outcome.fate is Fate.REFUSED and not outcome.is_transient):
                return outcome
            now = await self._port.now(f"{step}/{sends}/now")
            if now >= until:
                return outcome
            # Whoever says when it listens again is believed: a pause that was throttled for seconds must not wait longer.
            span = self._world.calendar.span
            again = outcome.retry_at or now + span(Timing.RETRY)
            if does == CREATE and outcome.fate is Fate.UNKNOWN:
                again = max(again, self.doubt_until)
            await self._port.sleep(f"{step}/{sends}/wait", min(until, max(again, now + span(Timing.RETRY_LEAST))))
            attempt += outcome.fate is Fate.REFUSED
            sends += 1

    async def _send(self, step: str, call: Call, attempt: int, sends: int, about: dict[str, Any]) -> Outcome:
        key = write_key(self._story.run, self._version, f"{self._name}/{step}", attempt)

        async def call_fenced() -> Outcome:
            if about.get("does") == CREATE and self._port.is_resuming:
                # Whoever was killed here may have sent it a moment ago, and not every platform refuses a second campaign of
                # one name. So the look before it waits until that request can have no effect any more.
                limits = self._world.platform.limits
                await asyncio.sleep(limits.timeout_seconds + limits.late_seconds)
            await self._world.fence()
            # Once more before every request of the call that writes: there may be a read, a token and a wait before it.
            with fenced(self._world.fence):
                return await call(key)

        outcome = await ask(self._port, f"{step}/{sends}", call_fenced)
        await self._story.tell(
            f"{step}/{sends}/told", "flow.called", step=step, attempt=attempt, key=key, **about, **_said(outcome)
        )
        return outcome

    async def _known(self, step: str, outcome: Outcome, shows: Shows, sends: int, about: dict[str, Any]) -> Outcome:
        """What the platform shows after an answer was lost: the effect, or still not known."""
        found = await ask(self._port, f"{step}/{sends}/read", lambda: self._world.platform.lookup(self._name))
        state = campaign_of(found)
        if state is None or not shows(state):
            return outcome
        told = {"step": step, **about, "fate": Fate.DONE.value}
        await self._story.tell(f"{step}/{sends}/read-told", "flow.read_back", **told)
        return Outcome(fate=Fate.DONE, value=found.value)


def _about(does: str, micros: int | None) -> dict[str, Any]:
    return {"does": does} if micros is None else {"does": does, "micros": micros}


def _said(outcome: Outcome) -> dict[str, Any]:
    return {"fate": outcome.fate.value} | ({"code": outcome.code} if outcome.code else {})
