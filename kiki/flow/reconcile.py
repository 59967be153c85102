"""Three books of a run side by side: ours, the platforms', the guard's; and what is left open is brought to an end.

A lane that is running looks after itself, so here it is only compared. For one that has ended, a hold that stayed open ends
with what the platform reports, a cost that came later is recorded, and a campaign that spends all the same is paused. Every
call has a deterministic key: asking again changes nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from kiki.flow.guard_line import GuardLine
from kiki.flow.keys import write_key
from kiki.flow.lane_world import Worlds
from kiki.flow.plan import Plan
from kiki.flow.platform import Platform, SpendReport, Status, campaign_name, campaign_of
from kiki.flow.progress import LaneProgress, Phase
from kiki.flow.world import Timing
from kiki.outbound.outcome import Outcome
from kiki.shield.note import parse_note


class Kind(StrEnum):
    """What does not agree."""

    COST = "cost"
    """A settled day cost something else by now."""
    HOLD = "hold"
    """Money is still set aside, although its campaign has ended."""
    ORPHAN = "orphan"
    """Money is set aside for the campaign that no step of the run knows."""
    ACTIVE = "active"
    """The platform lets a campaign spend that has ended."""
    UNREADABLE = "unreadable"
    """The platform or the guard cannot be asked."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not agree. Money in micros."""

    campaign: str
    kind: Kind
    day: str = ""
    ours: int = 0
    theirs: int = 0
    detail: str = ""
    solved: bool = False
    """It is in order now."""


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    run: str
    currency: str
    days: int
    """Days of campaigns that were compared."""
    findings: list[Finding]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to do."""
        return all(each.solved for each in self.findings)


async def reconcile(
    run: str, plan: Plan, lanes: Sequence[LaneProgress], worlds: Worlds, guard: GuardLine, now: int, *, act: bool
) -> Reconciliation:
    """Compare, and unless `act` is False, bring what is left of ended lanes to an end."""
    holds = await guard.holds_open()
    findings, days = [], 0
    if not holds.is_done:
        findings.append(Finding(campaign="", kind=Kind.UNREADABLE, detail=f"the guard: {holds.message or holds.code}"))
    for lane in lanes:
        platform = await worlds.platform(plan, lane.platform)
        calendar = await worlds.calendar(plan, platform)
        one = _Lane(run, plan, lane, platform, guard, holds.value.get("holds", []), act=act)
        campaign = plan.campaign(lane.campaign)
        span = (campaign.ends - campaign.starts).days + 1 + Timing.REVISE_DAYS
        begun = [day for each in range(span) if calendar.start_of(day := campaign.starts + timedelta(days=each)) <= now]
        findings += await one.compare(begun)
        days += len(begun)
    return Reconciliation(run=run, currency=plan.currency, days=days, findings=findings)


class _Lane:
    def __init__(
        self,
        run: str,
        plan: Plan,
        lane: LaneProgress,
        platform: Platform,
        guard: GuardLine,
        holds: Sequence[Mapping[str, Any]],
        *,
        act: bool,
    ) -> None:
        self._run = run
        self._version = plan.version
        self._lane = lane
        self._platform = platform
        self._guard = guard
        self._name = campaign_name(plan.name, lane.campaign)
        self._scopes = plan.scopes_of(plan.campaign(lane.campaign))
        mine = {f"campaign:{lane.campaign}", f"platform:{lane.platform}"}
        self._open = {str(each["id"]): int(each["micros"]) for each in holds if mine <= {*each["scopes"]}}
        self._ended = lane.phase is Phase.ENDED
        self._act = act and self._ended

    async def compare(self, days: Sequence[date]) -> list[Finding]:
        looked = await self._platform.lookup(self._name)
        if not looked.is_done:
            return [self._found(Kind.UNREADABLE, detail=f"the platform: {looked.message or looked.code}")]
        state = campaign_of(looked)
        if state is None:
            return self._orphans({})
        found = []
        if self._ended and state.status is Status.ACTIVE:
            found.append(await self._pause(state.id))
        by_day = {day: hold for day, hold in self._lane.holds.items() if hold in self._open}
        for day in days:
            found += await self._day(state.id, day, by_day.get(str(day)))
        return [*found, *self._orphans(by_day)]

    def _orphans(self, known: Mapping[str, str]) -> list[Finding]:
        unknown = set(self._open) - {*known.values()}
        return [
            self._found(
                Kind.ORPHAN, ours=self._open[hold], detail=f"hold {hold}; end it with kiki commit or kiki release"
            )
            for hold in sorted(unknown)
        ]

    async def _pause(self, campaign: str) -> Finding:
        if not self._act:
            return self._found(Kind.ACTIVE)
        paused = await self._platform.pause(campaign, self._key("pause"))
        await self._note("paused", {})
        return self._found(Kind.ACTIVE, detail=paused.message or paused.code, solved=paused.is_done)

    async def _day(self, campaign: str, day: date, hold: str | None) -> list[Finding]:
        told = await self._platform.spend_report(campaign, day)
        if not told.is_done:
            return [self._found(Kind.UNREADABLE, day=str(day), detail=told.message or told.code)]
        report = msgspec.convert(told.value["report"], SpendReport)
        if hold is not None:
            return [await self._settle(report, hold)] if self._ended else []
        ours = self._lane.spent.get(str(day), 0)
        settled = self._ended or str(day) in self._lane.spent
        if not settled or report.spent == ours:
            return []
        return [await self._cost(report, ours)]

    async def _settle(self, report: SpendReport, hold: str) -> Finding:
        held = self._open[hold]
        about = {"day": str(report.day), "ours": held, "theirs": report.spent}
        if not self._act or not report.final:
            waits = "" if report.final else "its report is not final"
            return self._found(Kind.HOLD, **about, detail=waits)
        within = min(report.spent, held)
        ended = await (self._guard.commit(hold, within) if within else self._guard.release(hold))
        if ended.is_done and report.spent > held:
            ended = await self._record(report, report.spent - held)
        await self._note(f"settled/{report.day}", {"day": str(report.day), "spent": report.spent, "held": held})
        return self._found(Kind.HOLD, **about, detail=ended.message, solved=ended.is_done)

    async def _cost(self, report: SpendReport, ours: int) -> Finding:
        about = {"day": str(report.day), "ours": ours, "theirs": report.spent}
        if not self._act:
            return self._found(Kind.COST, **about)
        change = report.spent - ours
        # What is taken back is only said: the guard counts nothing back.
        taken = await self._record(report, change) if change > 0 else None
        await self._note(f"cost/{report.day}/{report.spent}", {"day": str(report.day), "change": change})
        solved = taken is None or taken.is_done
        return self._found(Kind.COST, **about, detail="" if taken is None else taken.message, solved=solved)

    async def _record(self, report: SpendReport, micros: int) -> Outcome:
        return await self._guard.record(micros, self._scopes, self._key(f"record/{report.day}/{report.spent}"))

    async def _note(self, what: str, detail: Mapping[str, Any]) -> None:
        note = parse_note(
            "flow.reconciled", self._scopes, {"run": self._run, "what": what, **detail}, self._key(f"note/{what}")
        )
        await self._guard.note([note])

    def _key(self, what: str) -> str:
        return write_key(self._run, self._version, f"{self._lane.campaign}/reconcile/{what}", 1)

    def _found(self, kind: Kind, **given: Any) -> Finding:
        return Finding(campaign=self._lane.campaign, kind=kind, **given)
