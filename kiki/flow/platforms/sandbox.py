"""The adapter of the sandbox: one account on one of the platforms that it plays.

Its limits are the played platform's, in the sandbox's time: where a day takes sixteen seconds, an answer is given up after
one, and never before half of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from kiki.clock import SECOND
from kiki.errors import PlatformUnreachable
from kiki.flow.plan_calendar import QuickCalendar
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Status, Twin, ValueUpload
from kiki.flow.platforms.ad_account import consented, fates_of, foremost, shown_campaign, uploaded
from kiki.outbound.breaker import BreakerRule
from kiki.outbound.exchange import CONFLICT, INVALID, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import OAuth2
from kiki.outbound.outcome import Outcome, done, refused
from kiki.settings import Secret

Kind = TypeVar("Kind")

TIMEOUT_SHARE: Final = 1 / 16
"""Of a day, after which an answer is given up, within the bounds below."""
TIMEOUT_SECONDS_MIN: Final = 0.5
TIMEOUT_SECONDS_MAX: Final = 30.0
SLACK_SECONDS: Final = 0.25
"""What is late by hundredths of a second in quick time may be later on a busy machine."""
QUARTERS_A_DAY: Final = 96
"""A late effect comes within a quarter of an hour, and a breaker stays open for one, of the sandbox's time."""


class _Account(msgspec.Struct):
    currency: str
    time_zone: str
    overdelivery: float
    unit: int
    report_hours: float


class _Clock(msgspec.Struct):
    first_day: date
    began_at: int
    day_micros: int


class _Campaigns(msgspec.Struct):
    campaigns: list[CampaignState]


class _One(msgspec.Struct):
    campaign: CampaignState


class _Spend(msgspec.Struct):
    report: SpendReport


class _Taken(msgspec.Struct):
    refused: list[str]
    """The orders that it would not have."""


class SandboxPlatform:
    """See `Platform`. `open` makes one."""

    def __init__(self, name: str, account: str, line: Line, about: _Account, clock: _Clock, limits: Limits) -> None:
        self._name = name
        self._account = account
        self._about = about
        self._clock = clock
        self._limits = limits
        self.line = line

    def __repr__(self) -> str:
        return f"SandboxPlatform({self._name!r}, {self._account!r})"

    @classmethod
    async def open(
        cls,
        url: str,
        platform: str,
        account: str,
        *,
        timeout_seconds: float | None = None,
        **profile: Any,
    ) -> SandboxPlatform:
        """The adapter of an account, which the sandbox makes with that `profile` unless it has it already.

        Raises `PlatformUnreachable` when the sandbox does not answer, or does not play this platform so.
        """
        base = url.rstrip("/")
        where = f"{quote(platform, safe='')}/{quote(account, safe='')}"
        async with Line(f"{base}/sandbox") as hand:
            # Made unless it is there, so that asking twice is asking once; nothing of it costs money.
            made = await hand.send(Request(method="POST", path=f"accounts/{where}", write=True, json=profile))
            about = _needed(made, _Account, base)
            zone = {"zone": about.time_zone}
            told = await hand.send(Request(method="GET", path="clock", write=False, params=zone))
            clock = _needed(told, _Clock, base)
        day_seconds = clock.day_micros / SECOND
        quarter = day_seconds / QUARTERS_A_DAY
        timeout = timeout_seconds or min(max(day_seconds * TIMEOUT_SHARE, TIMEOUT_SECONDS_MIN), TIMEOUT_SECONDS_MAX)
        refresh = Secret(f"refresh/{platform}/{account}")
        line = Line(
            f"{base}/{quote(platform, safe='')}/v1/accounts/{quote(account, safe='')}",
            authorization=OAuth2(f"{base}/oauth/token", "kiki", Secret("sandbox"), refresh),
            judge=_judge,
            breaker=BreakerRule(open_seconds=min(30.0, quarter)),
            timeout_seconds=timeout,
        )
        limits = Limits(
            overdelivery=about.overdelivery,
            budget_min=about.unit,
            budget_step=about.unit,
            report_hours=math.ceil(about.report_hours),
            timeout_seconds=timeout,
            late_seconds=quarter + SLACK_SECONDS,
        )
        return cls(platform, account, line, about, clock, limits)

    @property
    def name(self) -> str:
        """See `Platform`."""
        return self._name

    @property
    def account(self) -> str:
        """See `Platform`."""
        return self._account

    @property
    def limits(self) -> Limits:
        """See `Platform`."""
        return self._limits

    @property
    def calendar(self) -> QuickCalendar:
        """The account's days, as moments of the real clock."""
        return QuickCalendar(self._clock.first_day, self._clock.began_at, self._clock.day_micros)

    async def currency(self) -> Outcome:
        """See `Platform`."""
        about = _read(await self.line.send(Request(method="GET", path="", write=False)), _Account)
        return about if isinstance(about, Outcome) else done(currency=about.currency, time_zone=about.time_zone)

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`. Of several campaigns of one name the one that counts."""
        asked = Request(method="GET", path="campaigns", write=False, params={"name": name})
        found = _read(await self.line.send(asked), _Campaigns)
        if isinstance(found, Outcome):
            return found
        if not found.campaigns:
            return done()
        return shown_campaign(*foremost(found.campaigns, lambda each: Twin(id=each.id, status=each.status)))

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        wrong = self._check_money(spec.daily_budget, spec.bid)
        if wrong is not None:
            return wrong
        there = await self.lookup(spec.name)
        if not there.is_done or "campaign" in there.value:
            return there
        made = await self._write("POST", "campaigns", msgspec.to_builtins(spec), key, _One)
        if isinstance(made, Outcome) and made.code == CONFLICT:
            # The name was taken since: by an effect that came late, or by another runner.
            return await self.lookup(spec.name)
        return _campaign(made)

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        return self._check_money(micros) or await self._set(campaign, {"daily_budget": micros}, key)

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        return self._check_money(micros) or await self._set(campaign, {"bid": micros}, key)

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": Status.PAUSED}, key)

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": Status.ACTIVE}, key)

    async def archive(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": Status.ENDED}, key)

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`."""
        path = f"campaigns/{quote(campaign, safe='')}/spend"
        told = _read(
            await self.line.send(Request(method="GET", path=path, write=False, params={"day": str(day)})), _Spend
        )
        return told if isinstance(told, Outcome) else done(report=msgspec.to_builtins(told.report))

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`."""
        allowed = consented(values)
        if not allowed:
            return uploaded(values, {})
        path = f"campaigns/{quote(campaign, safe='')}/values"
        taken = await self._write("POST", path, {"values": msgspec.to_builtins(allowed)}, key, _Taken)
        if isinstance(taken, Outcome):
            return taken
        refusals = {*taken.refused}
        wrong = {place for place, each in enumerate(allowed) if each.order in refusals}
        return uploaded(values, fates_of(allowed, wrong))

    async def close(self) -> None:
        """See `Platform`."""
        await self.line.close()

    async def _set(self, campaign: str, change: Mapping[str, Any], key: str) -> Outcome:
        return _campaign(await self._write("PATCH", f"campaigns/{quote(campaign, safe='')}", change, key, _One))

    async def _write(
        self, method: str, path: str, body: Mapping[str, Any], key: str, kind: type[Kind]
    ) -> Kind | Outcome:
        headers = {"Idempotency-Key": key}
        sent = Request(method=method, path=path, write=True, json=dict(body), headers=headers)
        return _read(await self.line.send(sent), kind)

    def _check_money(self, *amounts: int | None) -> Outcome | None:
        """A refusal of what the account's currency cannot say; nothing is rounded."""
        unit = self._about.unit
        for micros in amounts:
            if micros is not None and (micros <= 0 or micros % unit):
                return refused(INVALID, f"not sent: {micros} micros are no positive multiple of {unit}")
        return None


def _judge(reply: Reply) -> Outcome | None:
    """An error in the body counts, whatever the status says; statuses say enough of the others."""
    if not 200 <= reply.status < 300:
        return None
    said = reply.json
    error = said.get("error") if isinstance(said, dict) else None
    return refused(INVALID, str(error.get("message", ""))) if isinstance(error, dict) else None


def _read(reply: Reply | Outcome, kind: type[Kind]) -> Kind | Outcome:
    return reply if isinstance(reply, Outcome) else reply.read(kind)


def _campaign(given: _One | Outcome) -> Outcome:
    return given if isinstance(given, Outcome) else done(campaign=msgspec.to_builtins(given.campaign))


def _needed(reply: Reply | Outcome, kind: type[Kind], url: str) -> Kind:
    found = _read(reply, kind)
    if isinstance(found, Outcome):
        raise PlatformUnreachable(f"the sandbox at {url} cannot be used: {found.message}")
    return found
