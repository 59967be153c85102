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

from kiki.shield.audit_finding import Findings, Kind, Overrun
from kiki.shield.audit_lanes import Lanes
from kiki.shield.audit_meter import Lane, Meter, Rule, add_to_all, packed_amount
from kiki.shield.audit_money import COMMIT, EXPIRE, RECORD, RESERVE, SPEND, Money
from kiki.shield.decision import event_id
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes

_NEVER: Final = 2**63 - 1
_SEQ_BITS: Final = 48


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
        self._lanes = Lanes(checked.windows, policies, shared=shared)
        self._known = self._lanes.known
        self._compares = False
        """There is a policy in force."""
        self._holds: dict[str, _Hold] = {}
        self._expired: dict[str, int] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._next_deadline = _NEVER
        self._last = 0
        self._over: dict[tuple[str, str, int], Overrun] = {}

    def use(self, name: bytes, policy: Policy) -> None:
        """Compare with this policy from now on; `name` tells it from others."""
        fresh = self._lanes.use(name, policy)
        self._known = self._lanes.known
        self._compares = bool(name)
        # Nobody can have counted what was not known to be asked for; earlier spends outside of it do not matter.
        self.late = self.late or (self._last > 0 and fresh)

    # -- lives ---------------------------------------------------------------------------------------

    def begin_life(self, *, follows: bool) -> None:
        """A shared window was lost and another one begins, under another clock.

        With `follows` spends of the earlier life go on counting, as long as both the window's clock and the writers'
        say that they are within the span; else the two lives are judged apart.
        """
        for meter in self._lanes.meters():
            meter.begin_life(follows=follows)
        self._last = 0

    # -- counting ------------------------------------------------------------------------------------

    def _lane(self, scopes: Scopes) -> Lane:
        return self._lanes.lane(scopes, self._last)

    def take_over(self, money: Money) -> None:
        """Count what this process decided with another window, before it counted by itself."""
        for micros, scopes in money.taken if money.verb in {SPEND, COMMIT, EXPIRE} else ():
            packed = packed_amount(money.at, micros, money.seq)
            for meter, _ in self._lane(scopes):
                meter.add_before(money.at, micros, packed)

    def spend(self, micros: int, scopes: Scopes, at: int, recorded_at: int, seq: int, chain: int = 0) -> None:
        """Count an admitted spend of the chain with this number, and compare with every limit that it must keep.

        By far most of what an auditor reads, so it is the shortest way.
        """
        now = self._last = at if self._last <= at < self._next_deadline else self._moved(at, seq, chain)
        packed = packed_amount(now, micros, chain << _SEQ_BITS | seq)
        is_close = add_to_all(self._known.get(scopes) or self._lane(scopes), now, micros, packed, recorded_at)
        self._checked.admitted += 1
        if is_close or self._over or not self._compares:
            self._judge(scopes, now, recorded_at, seq, chain)

    def apply(self, money: Money, chain: int = 0) -> None:
        """Count what an entry of the chain with this number says, and compare with every limit that it must keep."""
        verb = money.verb
        at = self._last = self._moved(money.at, money.seq, chain)
        entry = chain << _SEQ_BITS | money.seq
        if verb == SPEND:
            for micros, scopes in money.taken:
                self.spend(micros, scopes, at, money.recorded_at, money.seq, chain)
            for micros, scopes in money.unsure:
                packed = packed_amount(at, micros, entry)
                for meter, _ in self._lane(scopes):
                    meter.add_unsure(at, micros, packed)
        elif verb == RESERVE:
            self._reserve(money, at, entry, chain)
        elif verb == RECORD:
            for micros, scopes in money.taken:
                self._record(micros, scopes, at, money.recorded_at, entry)
        else:
            self._settle(money, at, entry, chain)

    def _moved(self, at: int, seq: int, chain: int) -> int:
        """The moment of an entry in the order of the entries, once every deadline until then has passed."""
        if at < self._last:
            self._wrong(seq, chain, "it was decided before the decision that stands before it")
            at = self._last
        if at >= self._next_deadline:
            self._expire(at)
        return at

    def _judge(self, scopes: Scopes, at: int, recorded_at: int, seq: int, chain: int) -> None:
        if not self._compares:
            self._checked.policy_unknown += 1
        for rule in self._lanes.rules(scopes):
            meter, limit = rule.meter, rule.limit
            meter.slide_all(at, recorded_at)
            total, unsure = meter.sure(), meter.doubtful()
            if total > limit:
                self._found(Kind.OVERRUN, rule, at, seq, chain, total)
            elif total + unsure > limit:
                self._found(Kind.DOUBT, rule, at, seq, chain, total + unsure)
            else:
                self._over.pop((rule.budget, meter.scope, meter.span), None)

    def _found(self, kind: Kind, rule: Rule, at: int, seq: int, chain: int, total: int) -> None:
        meter = rule.meter
        key = (rule.budget, meter.scope, meter.span)
        known = self._over.get(key)
        if known is not None:
            known.admissions += 1
            known.worst = max(known.worst, total)
            if kind is Kind.DOUBT or not known.unsure:
                return
        over = self._overrun(rule, at, total)
        if kind is Kind.OVERRUN:
            over.unsure = 0
        self._over[key] = over
        self._findings.add(kind, self._chains[chain], seq, overrun=over)

    def _overrun(self, rule: Rule, at: int, total: int) -> Overrun:
        meter = rule.meter
        before = () if meter.before is None else meter.before.entries()
        return Overrun(
            budget=rule.budget,
            scope=meter.scope,
            span=meter.span,
            limit=rule.limit,
            at=at,
            spent=meter.sure() - meter.held,
            held=meter.held,
            unsure=meter.doubtful(),
            worst=total,
            entries=[self._named(entry) for entry in (*before, *meter.entries())],
        )

    def _named(self, entry: int) -> str:
        name = event_id(entry & (1 << _SEQ_BITS) - 1)
        return f"{self._chains[entry >> _SEQ_BITS]}/{name}" if self._shared else name

    def _wrong(self, seq: int, chain: int, message: str) -> None:
        self._findings.add(Kind.STRUCTURE, self._chains[chain], seq, message)

    # -- reservations --------------------------------------------------------------------------------

    def _reserve(self, money: Money, at: int, entry: int, chain: int) -> None:
        if money.hold in self._holds:
            self._wrong(money.seq, chain, f"reservation {money.hold} was made twice")
            return
        ((micros, scopes),) = money.taken or money.unsure
        meters = tuple(meter for meter, _ in self._lane(scopes))
        is_sure = bool(money.taken) and (not self._shared or bytes.fromhex(money.hold) in self._settled)
        self._holds[money.hold] = _Hold(micros, meters, money.deadline, entry, is_sure, money.recorded_at - at)
        if money.deadline is not None:
            heapq.heappush(self._deadlines, (money.deadline, money.hold))
            self._next_deadline = self._deadlines[0][0]
        for meter in meters:
            if is_sure:
                meter.held += micros
            else:
                meter.hold_unsure(micros)
        self._checked.admitted += 1
        self._judge(scopes, at, money.recorded_at, money.seq, chain)

    def _settle(self, money: Money, at: int, entry: int, chain: int) -> None:
        hold = self._holds.pop(money.hold, None)
        if hold is not None:
            if money.verb == EXPIRE:
                self._wrong(money.seq, chain, f"reservation {money.hold} was ended before its deadline")
            elif money.charged > hold.micros:
                self._wrong(money.seq, chain, f"reservation {money.hold} was charged with more than was reserved")
            self._free(hold)
            self._spend(hold.meters, at, money.charged, entry, money.recorded_at, is_sure=True)
            self._checked.admitted += 1
        elif money.hold in self._expired:
            deadline = self._expired[money.hold]
            if money.verb == EXPIRE:
                del self._expired[money.hold]
                if money.at != deadline:
                    self._wrong(
                        money.seq, chain, f"reservation {money.hold} expired at another moment than its deadline"
                    )
            elif money.charged:
                self._wrong(money.seq, chain, f"reservation {money.hold} was charged after its deadline had charged it")
        elif money.charged:
            # It was made before the range: only what it charged can be counted.
            self._checked.holds_unknown += 1
            for _, scopes in money.taken:
                meters = [meter for meter, _ in self._lane(scopes)]
                self._spend(meters, at, money.charged, entry, money.recorded_at, is_sure=True)

    def _free(self, hold: _Hold) -> None:
        for meter in hold.meters:
            if hold.is_sure:
                meter.held -= hold.micros
            else:
                meter.hold_unsure(-hold.micros)

    @staticmethod
    def _spend(meters: Iterable[Meter], at: int, micros: int, entry: int, recorded_at: int, *, is_sure: bool) -> None:
        if not micros:
            return
        packed = packed_amount(at, micros, entry)
        for meter in meters:
            if is_sure:
                meter.add_late(at, micros, packed, recorded_at)
            else:
                meter.add_unsure(at, micros, packed)

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

    def _record(self, micros: int, scopes: Scopes, at: int, recorded_at: int, entry: int) -> None:
        recorded = self._checked.recorded
        recorded.count += 1
        recorded.micros += micros
        packed = packed_amount(at, micros, entry)
        for meter, _ in self._lane(scopes):
            meter.slide_all(at, recorded_at)
            meter.add_recorded(at, micros, packed)
        for rule in self._lanes.rules(scopes):
            meter = rule.meter
            total = meter.total + meter.held + (meter.recorded.total if meter.recorded else 0)
            if total > rule.limit:
                recorded.over += 1
                if recorded.worst is None or total - rule.limit > recorded.worst.worst - recorded.worst.limit:
                    recorded.worst = self._overrun(rule, at, total)
                    recorded.worst.entries = [self._named(entry)]
