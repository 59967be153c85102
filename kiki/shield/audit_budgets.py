"""Whether a window ever held more than its limit: every spend added up again, exactly. Pure.

A second implementation on purpose. It shares with what decides only how facts and policies are read, and it is as
plain as can be: for each window of each budget a sum over the last `span` microseconds, spend by spend, without the
slots in which the guard rounds against the spender. So whatever a guard admits fits here, and what does not fit
here was never admitted by a guard that worked.

What counts, at the moment that the window itself wrote into the fact:

- an admitted spend from its moment on, until `span` later;
- a reservation in full as long as it is open; a commit from then on with what it charged; at its deadline all of it;
- what was spent before a policy came into force counts under that policy, too.

`record`ed money stands outside of the promise, and is added up apart. So is, for a shared window, money whose fate
nobody knows: a spend without an answer, a reservation of which no end was ever written down (a process may have died
between the window and its ledger). If a limit was passed only with such money, that is said as a doubt.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from kiki.shield.audit_finding import Findings, Kind, Overrun
from kiki.shield.audit_meter import Lane, Meter, Rule, SlidingSum
from kiki.shield.decision import event_id
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes

SPEND: Final = "spend"
RESERVE: Final = "reserve"
RECORD: Final = "record"
COMMIT: Final = "commit"
RELEASE: Final = "release"
EXPIRE: Final = "expire"

_NEVER: Final = 2**63 - 1
_SEQ_BITS: Final = 48
_METERS_KEPT: Final = 100_000


class Money(msgspec.Struct, array_like=True):
    """What one entry says about money. Amounts in micros, moments in microseconds since the epoch."""

    seq: int
    at: int
    recorded_at: int
    verb: str
    taken: list[tuple[int, Scopes]]
    """What was admitted, added up by scopes."""
    unsure: list[tuple[int, Scopes]] = []
    """What may have been."""
    hold: str = ""
    deadline: int | None = None
    charged: int = 0
    epoch: str = ""
    sequence: int = 0


class _Hold(NamedTuple):
    micros: int
    meters: tuple[Meter, ...]
    deadline: int | None
    entry: int
    is_sure: bool
    lag: int
    """How much later than the window's moment the writer's clock was when it was made."""


@dataclass(slots=True)
class Recorded:
    """Money that was spent elsewhere and written down here. Outside of the promise."""

    count: int = 0
    micros: int = 0
    over: int = 0
    """How often it took a window over its limit."""
    worst: Overrun | None = None
    """The time when it went furthest over."""


@dataclass(slots=True)
class Checked:
    """How much was looked at."""

    admitted: int = 0
    """Spends, reservations and commits that were counted."""
    windows: set[tuple[str, int]] = field(default_factory=set)
    """The windows of budgets, by name and span, that were compared with their limits."""
    recorded: Recorded = field(default_factory=Recorded)
    policy_unknown: int = 0
    """Admitted before the first policy of the range: they count, and were compared with nothing."""
    holds_unknown: int = 0
    """Ends of reservations that were made before the range."""


class BudgetSums:
    """Adds up one window's life: the decisions of one process, or of all that share a window, in their order.

    `policies` are those known from an earlier look at the same evidence: what a later one asks about is counted from
    the beginning then. `late` says that one asked about windows that were not counted from early enough.
    """

    def __init__(
        self,
        findings: Findings,
        checked: Checked,
        chains: Sequence[str],
        *,
        policies: Iterable[Policy] = (),
        shared: bool = False,
        settled: frozenset[bytes] = frozenset(),
    ) -> None:
        self.late = False
        self._findings = findings
        self._checked = checked
        self._chains = chains
        self._shared = shared
        self._settled = settled
        self._tracked: dict[tuple[str, int], None] = {}
        self._meters: dict[tuple[str, str, int], Meter] = {}
        self._lanes: dict[bytes, dict[Scopes, Lane]] = {}
        self._policies: dict[bytes, Policy] = {b"": Policy(())}
        self._current = b""
        self._holds: dict[str, _Hold] = {}
        self._expired: dict[str, int] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._next_deadline = _NEVER
        self._last = 0
        self._sweep_at = _METERS_KEPT
        self._over: dict[tuple[str, str, int], Overrun] = {}
        for policy in policies:
            self._track(policy)

    # -- policies ------------------------------------------------------------------------------------

    def use(self, name: bytes, policy: Policy) -> None:
        """Compare with this policy from now on; `name` tells it from others."""
        if name == self._current:
            return
        self._current = name
        if name in self._policies:
            return
        self._policies[name] = policy
        if not self._shared:
            fresh = self._track(policy)
            # Nobody can have counted what was not known to be asked for; earlier spends outside of it do not matter.
            self.late = self.late or (self._last > 0 and fresh)

    def _track(self, policy: Policy) -> bool:
        wanted = {(budget.pattern.text, limit.span) for budget in policy.budgets for limit in budget.limits}
        fresh = wanted - set(self._tracked)
        self._tracked.update(dict.fromkeys(sorted(fresh)))
        if fresh:
            self._lanes.clear()
        return bool(fresh)

    def _lane(self, scopes: Scopes) -> Lane:
        lanes = self._lanes.setdefault(self._current, {})
        lane = lanes.get(scopes)
        if lane is None:
            if len(self._meters) > self._sweep_at:
                self._sweep()
                lanes = self._lanes.setdefault(self._current, {})
            if len(lanes) > _METERS_KEPT:
                lanes.clear()
            lane = lanes[scopes] = self._new_lane(scopes)
        return lane

    def _new_lane(self, scopes: Scopes) -> Lane:
        meters: dict[int, Meter] = {}
        rules: list[Rule] = []
        for pattern, span in () if self._shared else self._tracked:
            scope = instance(pattern, scopes)
            if scope is not None:
                meter = self._meter("", scope, span)
                meters[id(meter)] = meter
        for budget in self._policies[self._current].budgets:
            scope = instance(budget.pattern.text, scopes)
            if scope is None:
                continue
            for limit in budget.limits:
                # A shared window counts by the name of its budget, and what it counted under one it does not know
                # under another. A process that counts alone reads its ledger again under every policy.
                meter = self._meter(budget.name if self._shared else "", scope, limit.span)
                meters[id(meter)] = meter
                rules.append(Rule(meter, limit.micros, budget.name))
                self._checked.windows.add((budget.name, limit.span))
        return Lane(tuple(meters.values()), tuple(rules))

    def _meter(self, name: str, scope: str, span: int) -> Meter:
        key = (name, scope, span)
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = Meter(scope, span, shared=self._shared)
        return meter

    def _sweep(self) -> None:
        """Forget meters on which nothing counts any more."""
        for meter in self._meters.values():
            meter.slide(self._last, 0)
        self._meters = {key: meter for key, meter in self._meters.items() if not meter.is_idle()}
        self._lanes.clear()
        self._sweep_at = max(_METERS_KEPT, 2 * len(self._meters))

    # -- lives ---------------------------------------------------------------------------------------

    def begin_life(self, *, follows: bool) -> None:
        """A shared window was lost and another one begins, under another clock.

        With `follows` spends of the earlier life go on counting, as long as both the window's clock and the writers'
        say that they are within the span; else the two lives are judged apart.
        """
        for meter in self._meters.values():
            if follows:
                if meter.before is None:
                    meter.before = SlidingSum(meter.spent.span, keeps_recorded=True)
                meter.before.take_over(meter.spent)
            else:
                meter.before = None
                meter.spent.clear()
            meter.unsure = meter.recorded = None
        self._last = 0

    # -- counting ------------------------------------------------------------------------------------

    def take_over(self, money: Money) -> None:
        """Count what this process decided with another window, before it counted by itself."""
        for micros, scopes in money.taken if money.verb in {SPEND, COMMIT, EXPIRE} else ():
            for meter in self._lane(scopes).meters:
                if meter.before is None:
                    meter.before = SlidingSum(meter.spent.span)
                meter.before.add(money.at, micros, money.seq)

    def apply(self, money: Money, chain: int = 0) -> None:
        """Count an entry of the chain with this number, and compare with every limit that it must keep."""
        at = money.at
        if at < self._last:
            self._wrong(money, chain, "it was decided before the decision that stands before it")
            at = self._last
        self._last = at
        if at >= self._next_deadline:
            self._expire(at)
        verb = money.verb
        entry = chain << _SEQ_BITS | money.seq
        if verb == SPEND:
            for micros, scopes in money.taken:
                lane = self._lane(scopes)
                for meter in lane.meters:
                    meter.slide(at, money.recorded_at)
                    meter.spent.add(at, micros, entry, money.recorded_at)
                self._judge(lane, money, chain)
            for micros, scopes in money.unsure:
                for meter in self._lane(scopes).meters:
                    meter.add_unsure(at, micros, entry)
        elif verb == RESERVE:
            self._reserve(money, at, entry, chain)
        elif verb == RECORD:
            for micros, scopes in money.taken:
                self._record(micros, self._lane(scopes), money, entry)
        else:
            self._settle(money, at, entry, chain)

    def _judge(self, lane: Lane, money: Money, chain: int) -> None:
        self._checked.admitted += 1
        if not self._current:
            self._checked.policy_unknown += 1
        for meter, limit, budget in lane.rules:
            total = meter.spent.total + meter.held
            if meter.before is not None:
                total += meter.before.total
            unsure = meter.held_unsure + (0 if meter.unsure is None else meter.unsure.total)
            if total > limit:
                self._found(Kind.OVERRUN, Rule(meter, limit, budget), money, chain, total)
            elif total + unsure > limit:
                self._found(Kind.DOUBT, Rule(meter, limit, budget), money, chain, total + unsure)
            elif self._over:
                self._over.pop((budget, meter.scope, meter.spent.span), None)

    def _found(self, kind: Kind, rule: Rule, money: Money, chain: int, total: int) -> None:
        meter = rule.meter
        key = (rule.budget, meter.scope, meter.spent.span)
        known = self._over.get(key)
        if known is not None:
            known.admissions += 1
            known.worst = max(known.worst, total)
            if kind is Kind.DOUBT or not known.unsure:
                return
        over = self._overrun(rule, money.at, total)
        if kind is Kind.OVERRUN:
            over.unsure = 0
        self._over[key] = over
        self._findings.add(kind, self._chains[chain], money.seq, overrun=over)

    def _overrun(self, rule: Rule, at: int, total: int) -> Overrun:
        meter = rule.meter
        before = () if meter.before is None else meter.before.entries()
        return Overrun(
            budget=rule.budget,
            scope=meter.scope,
            span=meter.spent.span,
            limit=rule.limit,
            at=at,
            spent=meter.spent.total + (0 if meter.before is None else meter.before.total),
            held=meter.held,
            unsure=meter.held_unsure + (0 if meter.unsure is None else meter.unsure.total),
            worst=total,
            entries=[self._named(entry) for entry in (*before, *meter.spent.entries())],
        )

    def _named(self, entry: int) -> str:
        name = event_id(entry & (1 << _SEQ_BITS) - 1)
        return f"{self._chains[entry >> _SEQ_BITS]}/{name}" if self._shared else name

    def _wrong(self, money: Money, chain: int, message: str) -> None:
        self._findings.add(Kind.STRUCTURE, self._chains[chain], money.seq, message)

    # -- reservations --------------------------------------------------------------------------------

    def _reserve(self, money: Money, at: int, entry: int, chain: int) -> None:
        if money.hold in self._holds:
            self._wrong(money, chain, f"reservation {money.hold} was made twice")
            return
        ((micros, scopes),) = money.taken or money.unsure
        lane = self._lane(scopes)
        is_sure = bool(money.taken) and (not self._shared or bytes.fromhex(money.hold) in self._settled)
        self._holds[money.hold] = _Hold(micros, lane.meters, money.deadline, entry, is_sure, money.recorded_at - at)
        if money.deadline is not None:
            heapq.heappush(self._deadlines, (money.deadline, money.hold))
            self._next_deadline = self._deadlines[0][0]
        for meter in lane.meters:
            meter.slide(at, money.recorded_at)
            if is_sure:
                meter.held += micros
            else:
                meter.held_unsure += micros
        self._judge(lane, money, chain)

    def _settle(self, money: Money, at: int, entry: int, chain: int) -> None:
        hold = self._holds.pop(money.hold, None)
        if hold is not None:
            if money.verb == EXPIRE:
                self._wrong(money, chain, f"reservation {money.hold} was ended before its deadline")
            elif money.charged > hold.micros:
                self._wrong(money, chain, f"reservation {money.hold} was charged with more than was reserved")
            self._free(hold)
            self._spend(hold.meters, at, money.charged, entry, money.recorded_at, is_sure=True)
            self._checked.admitted += 1
        elif money.hold in self._expired:
            deadline = self._expired[money.hold]
            if money.verb == EXPIRE:
                del self._expired[money.hold]
                if money.at != deadline:
                    self._wrong(money, chain, f"reservation {money.hold} expired at another moment than its deadline")
            elif money.charged:
                self._wrong(money, chain, f"reservation {money.hold} was charged after its deadline had charged it")
        elif money.charged:
            # It was made before the range: only what it charged can be counted.
            self._checked.holds_unknown += 1
            for _, scopes in money.taken:
                self._spend(self._lane(scopes).meters, at, money.charged, entry, money.recorded_at, is_sure=True)

    def _free(self, hold: _Hold) -> None:
        for meter in hold.meters:
            if hold.is_sure:
                meter.held -= hold.micros
            else:
                meter.held_unsure -= hold.micros

    @staticmethod
    def _spend(meters: Iterable[Meter], at: int, micros: int, entry: int, recorded_at: int, *, is_sure: bool) -> None:
        if not micros:
            return
        for meter in meters:
            if is_sure:
                meter.spent.add(at, micros, entry, recorded_at)
            else:
                meter.add_unsure(at, micros, entry)

    def _expire(self, now: int) -> None:
        """What was not ended by its deadline is a spend of that moment."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, hold_id = heapq.heappop(self._deadlines)
            hold = self._holds.get(hold_id)
            if hold is None or hold.deadline != deadline:
                continue
            del self._holds[hold_id]
            if not self._shared:
                self._expired[hold_id] = deadline
            self._free(hold)
            self._spend(hold.meters, deadline, hold.micros, hold.entry, deadline + hold.lag, is_sure=hold.is_sure)
        self._next_deadline = self._deadlines[0][0] if self._deadlines else _NEVER

    # -- money spent elsewhere -----------------------------------------------------------------------

    def _record(self, micros: int, lane: Lane, money: Money, entry: int) -> None:
        recorded = self._checked.recorded
        recorded.count += 1
        recorded.micros += micros
        for meter in lane.meters:
            meter.slide(money.at, money.recorded_at)
            meter.add_recorded(money.at, micros, entry)
        for rule in lane.rules:
            meter = rule.meter
            total = meter.spent.total + meter.held + (meter.recorded.total if meter.recorded else 0)
            if total > rule.limit:
                recorded.over += 1
                if recorded.worst is None or total - rule.limit > recorded.worst.worst - recorded.worst.limit:
                    recorded.worst = self._overrun(rule, money.at, total)
                    recorded.worst.entries = [self._named(entry)]


def instance(pattern: str, scopes: Scopes) -> str | None:
    """The scope on which a pattern meters a spend with these scopes; None when it is not concerned."""
    if pattern == "*":
        return pattern
    if pattern.endswith(":*"):
        return next((scope for scope in scopes if scope.startswith(pattern[:-1])), None)
    return pattern if pattern in scopes else None
