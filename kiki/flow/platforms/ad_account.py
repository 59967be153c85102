"""What the adapters of all platforms have in common: an account with one currency and one time zone, asked for once."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.flow.platform import CampaignState, Limits, SpendReport, Status, Twin, ValueUpload, campaign_of
from kiki.flow.platforms.amounts import smallest_unit, wrong_amounts
from kiki.outbound.exchange import CONFLICT, NOT_FOUND, UNREADABLE, UNSUPPORTED, Request
from kiki.outbound.line import Line
from kiki.outbound.outcome import Fate, Outcome, done, refused, unknown

Kind = TypeVar("Kind")
Named = TypeVar("Named")
Fates = Mapping[str, Fate]
"""What became of orders; one that is missing may have been taken or not."""

PAGES_MAX: Final = 100
"""A list with more pages than so many is no list of what was asked for."""


class AboutAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What money and days mean in an account."""

    currency: str
    time_zone: str
    unit: int
    """Amounts are whole multiples of so many micros there."""


class AdAccount(ABC):
    """One account on one platform; an adapter adds the rest of `Platform`."""

    NAME: ClassVar[str]
    CAMPAIGN_ID: ClassVar[re.Pattern[str]] = re.compile(r"[0-9]{1,20}")
    """The form of a campaign's id; anything else would become a path or a query of its own."""

    def __init__(self, account: str, line: Line, limits: Limits, *, clock: Clock = wall_micros) -> None:
        self._account = account
        self._limits = limits
        self._clock = clock
        self._about: AboutAccount | None = None
        self.line = line

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._account!r})"

    @property
    def name(self) -> str:
        """See `Platform`."""
        return self.NAME

    @property
    def account(self) -> str:
        """See `Platform`."""
        return self._account

    @property
    def limits(self) -> Limits:
        """See `Platform`. The step of budgets is known once the currency was asked for."""
        return self._limits

    async def currency(self) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        return about if isinstance(about, Outcome) else done(currency=about.currency, time_zone=about.time_zone)

    async def about(self) -> AboutAccount | Outcome:
        """The account's currency and time zone, which no platform lets change: asked until they are known."""
        if self._about is None:
            told = await self._ask_about()
            if isinstance(told, Outcome):
                return told
            if not _is_zone(told.time_zone):
                # Money is held by the account's days: without them nothing may be promised.
                return refused(
                    UNREADABLE, f"the account's time zone is {told.time_zone[:60]!r}, which nobody knows here"
                )
            self._about = told
            step = self.budget_unit(told)
            smallest = max(self._limits.budget_min, step)
            self._limits = msgspec.structs.replace(self._limits, budget_step=step, budget_min=smallest)
        return self._about

    def budget_unit(self, about: AboutAccount) -> int:
        """Budgets are whole multiples of so many micros."""
        return about.unit

    @abstractmethod
    async def _ask_about(self) -> AboutAccount | Outcome:
        """What `about` remembers."""

    @abstractmethod
    async def lookup(self, name: str) -> Outcome:
        """See `Platform`."""

    async def archive(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. For platforms with unique names; the others say how."""
        return refused(UNSUPPORTED, "not sent: names are unique there, so that no campaign has a twin")

    async def close(self) -> None:
        """See `Platform`."""
        await self.line.close()

    async def answer(self, kind: type[Kind], request: Request) -> Kind | Outcome:
        """What the platform answers, as that type."""
        reply = await self.line.send(request)
        return reply if isinstance(reply, Outcome) else reply.read(kind)

    def no_id(self, campaign: str) -> Outcome | None:
        """The refusal of what cannot be a campaign's id."""
        if self.CAMPAIGN_ID.fullmatch(campaign):
            return None
        return refused(NOT_FOUND, f"not sent: {campaign[:40]!r} is no id of a campaign")

    async def wrong_amount(self, micros: int) -> Outcome | None:
        """The refusal of an amount that the account's currency cannot say, or why the currency is not known."""
        about = await self.about()
        return about if isinstance(about, Outcome) else wrong_amounts(about.currency, micros)

    async def taken_since(self, made: Outcome, name: str) -> Outcome:
        """The campaign whose name was taken since the look: by an effect that came late, or by another runner.

        Any other answer to a creation stays as it is.
        """
        shown = await self.lookup(name) if made.code == CONFLICT else made
        return shown if "campaign" in shown.value else made

    async def upload(
        self,
        values: Sequence[ValueUpload],
        most: int,
        send: Callable[[Sequence[ValueUpload], str], Awaitable[Fates | Outcome]],
    ) -> Outcome:
        """Let values leave that may.

        `send` takes at most so many at once, with the account's currency, and says what became of each order, as far as
        the platform tells it.
        """
        allowed = consented(values)
        if not allowed:
            return uploaded(values, {})
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        orders: dict[str, Fate] = {}
        for start in range(0, len(allowed), most):
            taken = await send(allowed[start : start + most], about.currency)
            if isinstance(taken, Outcome):
                return taken
            orders |= taken
        return uploaded(values, orders)

    def today(self, time_zone: str) -> date:
        """The day that it is in the account."""
        return datetime.fromtimestamp(self._clock() / SECOND, zone_of(time_zone)).date()

    def is_final(self, day: date, time_zone: str) -> bool:
        """Whether the platform has stopped changing a day's report much."""
        ends = datetime(day.year, day.month, day.day, tzinfo=zone_of(time_zone)) + timedelta(days=1)
        return self._clock() >= round(ends.timestamp() * SECOND) + self._limits.report_hours * 3600 * SECOND


def about_account(currency: str, time_zone: str) -> AboutAccount:
    """With the currency's own smallest unit."""
    return AboutAccount(currency=currency, time_zone=time_zone, unit=smallest_unit(currency))


def shown_campaign(state: CampaignState, twins: Sequence[Twin] = ()) -> Outcome:
    """A campaign as `lookup` and writes answer it, with the others of its name that have not ended."""
    several = {"twins": msgspec.to_builtins(twins)} if twins else {}
    return done(campaign=msgspec.to_builtins(state), **several)


def unfinished(found: Outcome) -> str | Outcome:
    """The id of a campaign that is not whole yet, empty where there is none: what a look before a creation leaves to do.

    An outcome where nothing is to be done: it is there, or has ended, or nobody knows.
    """
    state = campaign_of(found)
    if state is None:
        return "" if found.is_done else found
    return found if state.whole or state.status is Status.ENDED else state.id


def read_back(found: Outcome) -> Outcome:
    """A creation that the platform has taken, as `lookup` shows it; unknown while it does not show it."""
    if "campaign" in found.value:
        return found
    return unknown(UNREADABLE, f"the campaign was made, and cannot be read back: {found.message or 'not found'}")


def foremost(
    named: Sequence[Named], twin: Callable[[Named], Twin], number: Callable[[Named], int] = lambda _: 0
) -> tuple[Named, list[Twin]]:
    """Of campaigns of one name the one that counts, and those of the others that have not ended.

    What spends counts first, for it must not be overlooked; then what may; of equals the oldest by `number`, and without
    one the first that was listed.
    """
    rank = {Status.ACTIVE: 0, Status.PAUSED: 1, Status.ENDED: 2}
    chosen = min(named, key=lambda each: (rank[twin(each).status], number(each)))
    others = [twin(each) for each in named if each is not chosen]
    return chosen, [each for each in others if each.status is not Status.ENDED]


async def each_of(things: Sequence[Named], what: str, change: Callable[[Named], Awaitable[Outcome]]) -> Outcome:
    """One change of several things, one by one: refused after the first it is half done, and so unknown."""
    for number, each in enumerate(things):
        outcome = await change(each)
        if outcome.fate is Fate.REFUSED and number:
            return unknown("partly", f"{number} of {len(things)} {what}: {outcome.message}")
        if not outcome.is_done:
            return outcome
    return done()


def endless(what: str) -> Outcome:
    """The refusal of a list that does not end."""
    return refused(UNREADABLE, f"{what} has more than {PAGES_MAX} pages")


def shown_report(report: SpendReport) -> Outcome:
    """A report as `spend_report` answers it."""
    return done(report=msgspec.to_builtins(report))


def consented(values: Sequence[ValueUpload]) -> list[ValueUpload]:
    """The values that may leave: with consent, an order and a click to tell them by."""
    return [each for each in values if each.consented and each.order and each.click and each.value >= 0]


def fates_of(batch: Sequence[ValueUpload], wrong: Collection[int] = ()) -> Fates:
    """The fates of values that were all taken but those in the places `wrong`."""
    return {each.order: Fate.REFUSED if place in wrong else Fate.DONE for place, each in enumerate(batch)}


def uploaded(values: Sequence[ValueUpload], orders: Fates) -> Outcome:
    """What became of values as `upload_values` answers it."""
    accepted = sum(each.consented and orders.get(each.order) is Fate.DONE for each in values)
    told = {order: fate.value for order, fate in orders.items()}
    return done(accepted=accepted, rejected=len(values) - accepted, orders=told)


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its IANA name; `about` has seen that it is one."""
    return ZoneInfo(name)


def day_start(day: date, time_zone: str) -> datetime:
    """When a day begins in an account, as a moment in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=zone_of(time_zone)).astimezone(UTC)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
