"""Two campaigns of one name where there should be one: the other one is archived, before it was ever active.

Some platforms take a second campaign of a name, and have no key by which they knew a request again. So a creation that is
delivered twice, by whatever lies between, makes two; nobody who sends it can know that beforehand. Both are paused. Of
campaigns that were all made by a lane one stays; what was there before it, or was set to work by hand, is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kiki.flow.lane_question import ask_until
from kiki.flow.lane_write import LaneWrites
from kiki.flow.platform import CampaignState, Status, Twin, campaign_of
from kiki.flow.port import Port
from kiki.flow.story import Story
from kiki.flow.world import World
from kiki.outbound.outcome import Outcome

ARCHIVE: Final = "archive"


class LaneTwins:
    """The campaigns that bear the name of one lane's campaign."""

    def __init__(self, port: Port, world: World, story: Story, writes: LaneWrites, name: str) -> None:
        self._port = port
        self._calendar = world.calendar
        self._platform = world.platform
        self._story = story
        self._writes = writes
        self._name = name
        self.is_ours = False
        """No campaign of the name was there before: every one of them comes from a creation of this lane."""
        self._paused: list[Twin] | None = None
        """What is still to be archived; None: nobody has looked since the campaign was made."""

    @property
    def is_alone(self) -> bool:
        """It was seen that no twin is left that is to be archived."""
        return not self.is_ours or self._paused == []

    async def begin(self, step: str, *, until: int) -> None:
        """Look before anything is made."""
        before = await self._lookup(step, until)
        self.is_ours = before.is_done and "campaign" not in before.value

    async def see(self, step: str, *, until: int = 0) -> tuple[CampaignState | None, Sequence[Twin]]:
        """The campaign that counts, None where the platform does not show one, and the others of its name."""
        seen = await self._lookup(step, until)
        return campaign_of(seen), msgspec.convert(seen.value.get("twins", []), list[Twin])

    async def part(self, step: str, own: str, state: CampaignState, twins: Sequence[Twin], *, until: int = 0) -> None:
        """Archive every twin of `own`, the campaign that stays; one that is active is told, and left as it is.

        What is not done at once, or by `until`, is seen by the next look.
        """
        others = [each for each in (Twin(id=state.id, status=state.status), *twins) if each.id != own]
        if any(each.status is Status.ACTIVE for each in others):
            await self._story.tell(f"{step}/twin-told", "flow.drift", found="twin")
        paused = [each for each in others if each.status is Status.PAUSED]
        if self.is_ours:
            paused = [each for each in paused if not await self._archived(step, each.id, until)]
        self._paused = paused

    async def _lookup(self, step: str, until: int) -> Outcome:
        return await ask_until(self._port, self._calendar, step, lambda: self._platform.lookup(self._name), until=until)

    async def _archived(self, step: str, twin: str, until: int) -> bool:
        async def call(key: str) -> Outcome:
            return await self._platform.archive(twin, key)

        step = f"{step}/archive/{twin}"
        ended = await self._writes.write(step, call, lambda _: False, until=until, does=ARCHIVE)
        await self._story.tell(f"{step}/archived", "flow.twin_archived", twin=twin, fate=ended.fate.value)
        return ended.is_done
