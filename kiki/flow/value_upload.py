"""One upload of what conversions were worth: consent, what the platform has already, the rest in requests, and the record.

Nothing leaves before consent was asked for everybody, and again for each request just before it. What a request came to is
kept before the next one is made, and told to the ledger in sums: no order, no click and no customer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from kiki.clock import SECOND, Clock, to_iso
from kiki.errors import ConfigurationError, InvalidInput, KeyReused, NotFound, PlatformUnreachable, ShieldUnreachable
from kiki.flow.conversion import Conversion
from kiki.flow.guard_line import GuardLine
from kiki.flow.keys import write_key
from kiki.flow.lane_world import Worlds
from kiki.flow.plan import Plan
from kiki.flow.platform import Platform, ValueUpload, campaign_name, campaign_of
from kiki.flow.value_log import Kept, ValueLog, digest
from kiki.outbound.outcome import Fate, Outcome
from kiki.shield.note import parse_note

UPLOADED: Final = "flow.values_uploaded"
_HOUR: Final = 3600 * SECOND


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the orders of one upload; each is counted once, below `orders`."""

    plan: str
    campaign: str
    platform: str
    purpose: str
    dry_run: bool
    orders: int
    done: int = 0
    """The platform has them since now."""
    refused: int = 0
    """The platform would not have them; they are sent again next time."""
    unknown: int = 0
    """The platform may have them: nobody knows."""
    waiting: int = 0
    """Not sent yet: because of the `problem`, or because this is a dry run."""
    left_out: int = 0
    """Their customers do not consent."""
    already: int = 0
    """The platform had them before."""
    differing: int = 0
    """They were sent before with another click, moment or value, and are not sent again."""
    doubtful: int = 0
    """They may be there, and the platform would count them twice: they are not sent again."""
    problem: str = ""
    """Why not everything was sent, or written into the ledger."""
    recorded: bool = True
    """Whether the ledger has it; if not, the next upload of the campaign tells it."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left that somebody should look at."""
        left = self.refused + self.unknown + self.differing + self.doubtful + (0 if self.dry_run else self.waiting)
        return not left and not self.problem


class Upload:
    """Values of one campaign of a plan."""

    def __init__(
        self, plan: Plan, campaign: str, purpose: str | None, *, guard: GuardLine, log: ValueLog, clock: Clock
    ) -> None:
        """Raises `InvalidInput` for a campaign that the plan does not have, and where nobody names a purpose."""
        found = plan.campaign(campaign)
        purpose = purpose or (found.audience.consent if found.audience else None)
        if purpose is None:
            raise InvalidInput(
                f"campaign {campaign!r} has no audience that names a purpose of consent",
                hint="name it, such as --purpose data_sharing: only customers who consent to it are told of",
            )
        account = plan.platforms[found.platform].account
        self._plan, self._campaign, self._purpose = plan, found, purpose
        self._guard, self._log, self._clock = guard, log, clock
        self.place: Final = digest(found.platform, account, campaign_name(plan.name, campaign))

    async def run(self, given: Sequence[Conversion], worlds: Worlds, *, dry_run: bool) -> Uploaded:
        """Send what may be sent and is not there; a dry run sends nothing. Raises, with nothing sent, where it cannot begin."""
        allowed = await self._consenting(given)
        platform, id_there = await self._there(worlds)
        counts = Counter(left_out=len(given) - len(allowed))
        wanted = await self._wanted(allowed, platform, counts)
        counts["waiting"] = len(wanted)
        problem, untold = "", ""
        if not dry_run:
            # First what an upload before left untold: were more added to it, a note that was written and not answered
            # would be another one.
            untold = await self._tell()
            if untold:
                raise ShieldUnreachable(
                    f"the ledger does not take what was uploaded before, so nothing more is sent: {untold}"
                )
            problem = await self._send(wanted, platform, id_there, counts)
            untold = await self._tell()
            if untold:
                problem = "; ".join(filter(None, (problem, f"the ledger does not have it yet: {untold}")))
        return Uploaded(
            plan=self._plan.name,
            campaign=self._campaign.name,
            platform=platform.name,
            purpose=self._purpose,
            dry_run=dry_run,
            orders=len(given),
            problem=problem,
            recorded=not untold,
            **counts,
        )

    # -- what may be sent ----------------------------------------------------------------------------

    async def _consenting(self, given: Sequence[Conversion]) -> list[Conversion]:
        answer = await self._guard.consents([each.customer for each in given], self._purpose) if given else None
        if answer is None:
            return []
        if answer.is_done:
            return [each for each, allowed in zip(given, answer.value["allowed"], strict=True) if allowed]
        if answer.code == InvalidInput.code:
            raise InvalidInput(answer.message)
        raise ShieldUnreachable(f"nobody can be asked for consent, and nothing is sent without: {answer.message}")

    async def _there(self, worlds: Worlds) -> tuple[Platform, str]:
        """The platform, and the campaign's id there."""
        try:
            platform = await worlds.platform(self._plan, self._campaign.platform)
        except ConfigurationError as error:
            # Whoever asks a service cannot mend it; it is there and cannot do this now.
            raise PlatformUnreachable(
                f"{self._campaign.platform} cannot be used, so nothing is sent: {error}"
            ) from None
        where = f"the {platform.name} account {platform.account}"
        told = await platform.currency()
        if not told.is_done:
            raise PlatformUnreachable(f"{where} cannot be asked, so nothing is sent: {_why(told)}")
        if told.value["currency"] != self._plan.currency:
            raise InvalidInput(f"{where} is in {told.value['currency']}, and the plan in {self._plan.currency}")
        found = await platform.lookup(campaign_name(self._plan.name, self._campaign.name))
        if not found.is_done:
            raise PlatformUnreachable(f"{where} cannot be asked, so nothing is sent: {_why(found)}")
        state = campaign_of(found)
        if state is None:
            raise NotFound(f"{where} has no campaign {self._campaign.name!r} of this plan", hint="run the plan first")
        return platform, state.id

    async def _wanted(
        self, allowed: Sequence[Conversion], platform: Platform, counts: Counter[str]
    ) -> list[Conversion]:
        """Those that the platform does not have, as far as they may be sent; the others are counted."""
        known = await asyncio.to_thread(self._log.known, self.place, [self._order(each) for each in allowed])
        again = platform.limits.values_again_hours

        def standing(each: Conversion, kept: Kept | None) -> str:
            if kept is None or kept.fate is Fate.REFUSED:
                return ""
            if kept.content != self._content(each):
                return "differing"
            if kept.fate is Fate.DONE:
                return "already"
            return "" if again is None or self._clock() - kept.first_at < again * _HOUR else "doubtful"

        stands = [standing(each, known.get(self._order(each))) for each in allowed]
        counts.update(word for word in stands if word)
        return [each for each, word in zip(allowed, stands, strict=True) if not word]

    # -- sending -------------------------------------------------------------------------------------

    async def _send(self, wanted: Sequence[Conversion], platform: Platform, id_there: str, counts: Counter[str]) -> str:
        """Request after request; why it stopped before the end, or nothing."""
        for batch in _slices(wanted, platform.limits.values_at_once):
            try:
                allowed = await self._consenting(batch)  # somebody may have taken it back meanwhile
            except ShieldUnreachable as error:
                return str(error)
            counts["waiting"] -= len(batch)
            counts["left_out"] += len(batch) - len(allowed)
            if not allowed:
                continue
            contents = {self._order(each): self._content(each) for each in allowed}
            doubtful = await asyncio.to_thread(self._log.send, self.place, contents, self._purpose)
            outcome = await platform.upload_values(id_there, [_value(each) for each in allowed], self._key(contents))
            fates = {self._order(each): _fate(outcome, each.order) for each in allowed}
            # That it was refused now says nothing of the time before, of which nobody knows.
            fates |= {order: Fate.UNKNOWN for order in doubtful if fates[order] is Fate.REFUSED}
            await asyncio.to_thread(self._log.settle, self.place, fates)
            counts.update(fate.value for fate in fates.values())
            if not outcome.is_done:
                later = f"; it listens again at {to_iso(outcome.retry_at)}" if outcome.retry_at else ""
                return f"{platform.name}: {_why(outcome)}{later}"
        return ""

    async def _tell(self) -> str:
        """Write into the ledger what it does not have yet, once however often this is tried; why it does not take it, or nothing."""
        rows = await asyncio.to_thread(self._log.untold, self.place)
        for purpose in sorted({row.purpose for row in rows}):
            mine = [row for row in rows if row.purpose == purpose]
            counts = Counter({fate.value: 0 for fate in Fate})
            counts.update(row.fate.value for row in mine)
            told = digest(*(f"{row.order.hex()} {row.fate} {row.at}" for row in mine)).hex()
            detail = {"plan": self._plan.name, "purpose": purpose, **counts}
            key = write_key(self.place.hex(), "told", told, 1)
            note = parse_note(UPLOADED, self._plan.scopes_of(self._campaign), detail, key)
            noted = await self._guard.note([note])
            # Refused, too, such as to a token without the role: what was done is not forgotten, and waits until it is taken.
            # A key that was used has these very fates under it: only the plan's scopes are other ones by now.
            if not noted.is_done and noted.code != KeyReused.code:
                return _why(noted)
            await asyncio.to_thread(self._log.told, self.place, [row.order for row in mine])
        return ""

    # -- names ---------------------------------------------------------------------------------------

    def _order(self, each: Conversion) -> bytes:
        return digest(self.place.hex(), each.order)

    def _content(self, each: Conversion) -> bytes:
        return digest(self.place.hex(), each.order, each.click, str(each.at), str(each.value))

    def _key(self, contents: dict[bytes, bytes]) -> str:
        said = digest(*(content.hex() for content in contents.values())).hex()
        return write_key(self.place.hex(), "values", said, 1)


def _value(each: Conversion) -> ValueUpload:
    return ValueUpload(order=each.order, click=each.click, at=each.at, value=each.value, consented=True)


def _fate(outcome: Outcome, order: str) -> Fate:
    """Of a request that was taken the platform may tell more about each; what it does not tell nobody knows."""
    return Fate(outcome.value["orders"].get(order, Fate.UNKNOWN)) if outcome.is_done else outcome.fate


def _why(outcome: Outcome) -> str:
    return outcome.message or outcome.code


def _slices(given: Sequence[Conversion], size: int) -> Iterator[Sequence[Conversion]]:
    for first in range(0, len(given), size):
        yield given[first : first + size]
