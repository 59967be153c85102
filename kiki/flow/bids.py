"""Bids from outside, one at a time or many: the amount, the guard, the platform, the record.

A bid is never a durable step: it sets a state on the platform, under a key of the caller's, and a repeat sets it again. What it
may lead to is held for the day already; the guard is asked all the same, so that a halted or exhausted campaign bids no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from kiki.errors import InvalidInput, KikiError, NotFound
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.customer_value import BASELINE_SHARE, CustomerValue, Source
from kiki.flow.guard_line import UNAVAILABLE
from kiki.flow.keys import write_key
from kiki.flow.plan import Bound, Plan, PlannedCampaign, ValueBid
from kiki.flow.platform import Platform, campaign_name, campaign_of
from kiki.flow.run_rows import RUNNING
from kiki.outbound.exchange import UNAUTHORIZED
from kiki.outbound.exchange import UNAVAILABLE as AWAY
from kiki.outbound.outcome import Fate, Outcome
from kiki.shield.note import parse_note

BATCH_MAX: Final = 500
REQUEST_ID_MAX: Final = 128
REMEMBERED: Final = 10_000
"""So many bids are known by their request_id, the newest; of older ones the platform and the record know by the key."""


class BidStatus(StrEnum):
    """What became of a bid, in the words of the old contract."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    PENDING = "PENDING"
    FAILED = "FAILED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"


class Bid(NamedTuple):
    """A bid as it is asked for. `micros` 0: a share of what the customer is worth."""

    request_id: str
    plan: str
    campaign: str
    micros: int = 0
    customer: str = ""


class Placed(NamedTuple):
    """What became of one."""

    request_id: str
    status: BidStatus
    source: Source | None = None
    micros: int = 0
    ltv: int = 0
    message: str = ""
    platform: str = ""


class _Ready(NamedTuple):
    """A bid with everything that is needed to place it."""

    bid: Bid
    run: str
    planned: PlannedCampaign
    platform: Platform
    campaign: str
    """The platform's id."""
    before: int | None
    scopes: dict[str, str]
    source: Source
    micros: int
    ltv: int


class Bids:
    """Belongs to the runner's event loop."""

    def __init__(self, runner: CampaignRunner, values: CustomerValue) -> None:
        self._runner = runner
        self._values = values
        self._known: dict[tuple[str, str], tuple[Bid, int, int, Source]] = {}

    async def place(self, bid: Bid) -> Placed:
        """Set one bid; raises `InvalidInput` and `NotFound`."""
        ready = await self._ready(bid)
        return ready if isinstance(ready, Placed) else await self._send(ready)

    async def place_all(self, bids: Sequence[Bid], *, atomic: bool) -> list[Placed]:
        """Set many, in order. `atomic`: none unless all may be, and back again when one is refused on the way."""
        if not 1 <= len(bids) <= BATCH_MAX:
            raise InvalidInput(f"place 1 to {BATCH_MAX} bids at once, not {len(bids)}")
        if not atomic:
            return [await self._placed(bid) for bid in bids]
        ready = [await self._ready(bid) for bid in bids]
        if any(isinstance(each, Placed) for each in ready):
            left = "another bid of the batch may not be placed"
            return [each if isinstance(each, Placed) else _not_sent(each, left) for each in ready]
        every = [each for each in ready if isinstance(each, _Ready)]
        placed: list[Placed] = []
        for each in every:
            placed.append(await self._send(each))
            if placed[-1].status is not BidStatus.ACCEPTED:
                break
        else:
            return placed
        set_back = [await self._set_back(one) for one in every[: len(placed) - 1]]
        return [*set_back, placed[-1], *(_not_sent(each, "an earlier bid failed") for each in every[len(placed) :])]

    async def _placed(self, bid: Bid) -> Placed:
        try:
            return await self.place(bid)
        except KikiError as error:
            return Placed(bid.request_id, BidStatus.REJECTED, message=str(error))

    async def _ready(self, bid: Bid) -> _Ready | Placed:
        if not (0 < len(bid.request_id) <= REQUEST_ID_MAX and bid.request_id.isprintable()):
            raise InvalidInput(f"a request_id has 1 to {REQUEST_ID_MAX} printable characters")
        if bid.micros < 0:
            raise InvalidInput("a bid is not below 0 micros")
        run, plan = self._run(bid.plan)
        planned = plan.campaign(bid.campaign)
        platform = await self._runner.worlds.platform(plan, planned.platform)
        micros, ltv, source = await self._amount_once(run, bid, planned, platform)
        scopes = plan.scopes_of(planned)
        told = Placed(bid.request_id, BidStatus.REJECTED, source, micros, ltv, platform=planned.platform)
        fits = await self._runner.guard.check(micros, scopes)
        if not fits.is_done:
            away = fits.code == UNAVAILABLE
            status = BidStatus.FAILED if away else BidStatus.BUDGET_EXCEEDED
            return told._replace(status=status, message=fits.message)
        found = await platform.lookup(campaign_name(plan.name, planned.name))
        state = campaign_of(found)
        if state is None:
            missing = found.message or ("the campaign is not made yet" if found.is_done else found.code)
            return told._replace(status=BidStatus.REJECTED if found.is_done else BidStatus.FAILED, message=missing)
        return _Ready(bid, run, planned, platform, state.id, state.bid, scopes, source, micros, ltv)

    def _run(self, name: str) -> tuple[str, Plan]:
        for row in self._runner.runs():
            if name in {row.run, row.plan_name} and row.state == RUNNING:
                return row.run, self._runner.plan(row.run)
        raise NotFound(f"no run of {name[:80]!r} is open")

    async def _amount_once(
        self, run: str, bid: Bid, planned: PlannedCampaign, platform: Platform
    ) -> tuple[int, int, Source]:
        """What a bid comes to: the same as when it was first asked for under its request_id."""
        key = (run, bid.request_id)
        if key not in self._known:
            amount = await self._amount(bid, planned, platform)
            while len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known.setdefault(key, (bid, *amount))
        first, micros, ltv, source = self._known[key]
        if first._replace(plan=bid.plan) != bid:
            raise InvalidInput(f"the request_id {bid.request_id[:60]!r} was another bid: give each bid its own")
        return micros, ltv, source

    async def _amount(self, bid: Bid, planned: PlannedCampaign, platform: Platform) -> tuple[int, int, Source]:
        if bid.micros:
            return bid.micros, 0, Source.MANUAL_OVERRIDE
        rule = planned.bid if isinstance(planned.bid, ValueBid) else ValueBid(share=BASELINE_SHARE, bound=Bound.MEAN)
        if bid.customer:
            worth = await self._values.of(bid.customer, planned.platform, rule.bound)
        else:
            worth = await self._values.of_new(planned.platform, rule.bound)
        micros = max(round(worth.micros * rule.share), rule.floor)
        micros = micros if rule.ceiling is None else min(micros, rule.ceiling)
        step = platform.limits.budget_step
        return max(micros // step * step, step), worth.micros, worth.source

    async def _send(self, ready: _Ready) -> Placed:
        key = write_key(ready.run, "bid", ready.bid.request_id, 1)
        outcome = await ready.platform.set_bid(ready.campaign, ready.micros, key)
        placed = Placed(
            ready.bid.request_id,
            _status(outcome),
            ready.source,
            ready.micros,
            ready.ltv,
            outcome.message or outcome.code,
            ready.planned.platform,
        )
        await self._note(ready, placed, key)
        return placed

    async def _set_back(self, ready: _Ready) -> Placed:
        told = _not_sent(ready, "set, and set back because a later bid failed")
        if ready.before is None:
            return told._replace(
                status=BidStatus.ACCEPTED, message="a later bid failed, and before it there was no bid to go back to"
            )
        key = write_key(ready.run, "bid-back", ready.bid.request_id, 1)
        outcome = await ready.platform.set_bid(ready.campaign, ready.before, key)
        if not outcome.is_done:
            told = told._replace(
                status=BidStatus.PENDING, message="a later bid failed; whether this one is set is not known"
            )
        await self._note(ready, told, key)
        return told

    async def _note(self, ready: _Ready, placed: Placed, key: str) -> None:
        detail = {
            "run": ready.run,
            "micros": placed.micros,
            "source": ready.source.value,
            "ltv": ready.ltv,
            "status": placed.status.value,
        }
        await self._runner.guard.note([parse_note("flow.bid_placed", ready.scopes, detail, key)])


def _status(outcome: Outcome) -> BidStatus:
    if outcome.fate is Fate.DONE:
        return BidStatus.ACCEPTED
    if outcome.fate is Fate.UNKNOWN:
        return BidStatus.PENDING
    return BidStatus.FAILED if outcome.code in {AWAY, UNAUTHORIZED} or outcome.is_transient else BidStatus.REJECTED


def _not_sent(ready: _Ready, why: str) -> Placed:
    platform = ready.planned.platform
    return Placed(ready.bid.request_id, BidStatus.REJECTED, ready.source, ready.micros, ready.ltv, why, platform)
