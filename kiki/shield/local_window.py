"""Budgets counted in this process. For a single owner: it is rebuilt from the ledger at every start."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from kiki.clock import Clock, steady_clock
from kiki.errors import CapacityReached, CommitExceedsHold, Conflict, HoldUnknown, KikiError
from kiki.money import MICROS_MAX, format_micros
from kiki.shield.budget import Meter, MeterRule, Reason, Refusal, binding, refuse
from kiki.shield.policy import Policy
from kiki.shield.scope import Pattern, Scopes, kind_of
from kiki.shield.window import Answer, Ask, MeterStatus, OpenHold, Verb

Lane = list[Meter]

# How many scopes are looked over for each new one: more than one, so that the idle are found sooner than
# new ones come.
_LOOKED_OVER = 2


class LocalWindow:
    """The window of one process. Not thread-safe: the guard calls it under its own lock."""

    kind = "local"
    restorable = True
    epoch = ""
    under_epoch = None

    def __init__(self, policy: Policy, clock: Clock | None = None, *, scopes_max: int = 1_000_000) -> None:
        self.clock = clock or steady_clock()
        self.scopes_max = scopes_max
        self._halts: dict[str, Pattern] = {}
        self._deadlines: list[tuple[int, str]] = []
        self.use(policy)

    def renewed(self, policy: Policy) -> LocalWindow:
        """A window like this one under another policy, with nothing counted yet and nothing halted."""
        return LocalWindow(policy, self.clock, scopes_max=self.scopes_max)

    # -- deciding ------------------------------------------------------------------------------------

    def take(self, asks: Sequence[Ask]) -> list[Answer]:
        """Decide the asks in order, all at one reading of the clock."""
        now = self.clock()
        return [self.take_at(ask, now) for ask in asks]

    def take_at(self, ask: Ask, now: int) -> Answer:
        """Decide one ask at `now`, which must not be before any earlier one."""
        if now >= self._next_deadline:
            self._expire(now)
        answer = Answer(at=now)
        verb = ask.verb
        try:
            if verb is Verb.SPEND:
                answer.refusals = self._spend(ask, now)
            elif verb is Verb.CHECK:
                answer.refusals = self._check(ask, now)
            elif verb is Verb.RESERVE:
                self._reserve(ask, answer)
            elif verb is Verb.RECORD:
                self._record(ask, now)
            else:
                self._settle(ask, answer)
        except KikiError as error:
            answer.error = error
        return answer

    def admit(self, amount: int, scopes: Scopes, now: int) -> Refusal | None:
        """Take `amount` if it fits in every window that concerns it; None says that it was taken."""
        fresh: dict[str, Lane] | None = None
        if scopes:
            lane, fresh = self._lane(scopes)
        else:
            lane = self._everything
        if self._halts and (halted := self._halted(scopes)):
            return halted
        for meter in lane:
            if now >= meter.due:
                meter.advance(now)
            if amount > meter.room:
                return self._refuse(amount, scopes, lane, now)
        if fresh:
            self._enrol(fresh, scopes, now)
        for meter in lane:
            meter.room -= amount
            meter.current += amount
        return None

    def _spend(self, ask: Ask, now: int) -> dict[int, Refusal]:
        refusals: dict[int, Refusal] = {}
        scopes, many = ask.scopes[0], len(ask.scopes) > 1
        admit = self.admit
        for index, amount in enumerate(ask.amounts):
            try:
                refusal = admit(amount, ask.scopes[index] if many else scopes, now)
            except CapacityReached:
                self._take_back(ask, index, refusals)
                raise
            if refusal is not None:
                refusals[index] = refusal
        return refusals

    def _take_back(self, ask: Ask, count: int, refusals: dict[int, Refusal]) -> None:
        """Undo the first `count` amounts of an ask that cannot be decided as a whole; all of them are of this moment."""
        many = len(ask.scopes) > 1
        for index in range(count):
            if index not in refusals:
                for meter in self._lane(ask.scopes[index if many else 0])[0]:
                    meter.charge(-ask.amounts[index])

    def _check(self, ask: Ask, now: int) -> dict[int, Refusal]:
        refusals: dict[int, Refusal] = {}
        for index, amount in enumerate(ask.amounts):
            refusal = self.peek(amount, ask.scopes[index if len(ask.scopes) > 1 else 0], now)
            if refusal is not None:
                refusals[index] = refusal
        return refusals

    def peek(self, amount: int, scopes: Scopes, now: int) -> Refusal | None:
        """Whether `amount` would fit, without taking it."""
        if now >= self._next_deadline:
            self._expire(now)
        if self._halts and (halted := self._halted(scopes)):
            return halted
        lane = self._lane(scopes)[0]
        for meter in lane:
            if now >= meter.due:
                meter.advance(now)
            if amount > meter.room:
                return self._refuse(amount, scopes, lane, now)
        return None

    def _reserve(self, ask: Ask, answer: Answer) -> None:
        now, amount, scopes = answer.at, ask.amounts[0], ask.scopes[0]
        refusal = self.admit(amount, scopes, now)
        if refusal is not None:
            answer.refusals = {0: refusal}
            return
        # Admitting counted a spend; a hold counts the same until it is resolved.
        for meter in self._lane(scopes)[0]:
            meter.current -= amount
            meter.held += amount
        answer.hold = ask.hold
        answer.deadline = None if ask.hold_span is None else now + ask.hold_span
        self._keep(OpenHold(ask.hold, amount, scopes, answer.deadline, now))

    def _record(self, ask: Ask, now: int) -> None:
        amount, scopes = ask.amounts[0], ask.scopes[0]
        lane, fresh = self._lane(scopes)
        for meter in lane:
            if now >= meter.due:
                meter.advance(now)
            if meter.rule.limit - meter.room + amount > MICROS_MAX:
                raise Conflict(
                    f"{format_micros(amount)} would take what is counted for {meter.rule.budget!r} past "
                    f"{format_micros(MICROS_MAX)}, the largest sum that kiki keeps"
                )
        if fresh:
            self._enrol(fresh, scopes, now)
        for meter in lane:
            meter.charge(amount)

    def _settle(self, ask: Ask, answer: Answer) -> None:
        hold = self._holds.get(ask.hold)
        if hold is None:
            raise HoldUnknown(f"no open reservation has the id {ask.hold!r}")
        spent = ask.amounts[0] if ask.verb is Verb.COMMIT else 0
        if spent > hold.amount:
            raise CommitExceedsHold(
                f"{format_micros(spent)} is more than the {format_micros(hold.amount)} that was reserved",
                hint="commit at most what was reserved, and record what went beyond it",
            )
        del self._holds[ask.hold]
        self._forget_settled_deadlines()
        answer.reserved, answer.charged, answer.deadline = hold.amount, spent, hold.deadline
        self._end(hold, spent, answer.at)

    # -- holds ---------------------------------------------------------------------------------------

    def _keep(self, hold: OpenHold) -> None:
        self._holds[hold.id] = hold
        if hold.deadline is not None:
            heapq.heappush(self._deadlines, (hold.deadline, hold.id))
            self._next_deadline = self._deadlines[0][0]

    def _end(self, hold: OpenHold, spent: int, at: int) -> None:
        for meter in self._lane(hold.scopes)[0]:
            if at >= meter.due:
                meter.advance(at)
            meter.free(hold.amount, spent)

    def _forget_settled_deadlines(self) -> None:
        if len(self._deadlines) > 2 * len(self._holds) + 64:
            self._deadlines = [(hold.deadline, hold.id) for hold in self._holds.values() if hold.deadline is not None]
            heapq.heapify(self._deadlines)
            self._next_deadline = self._deadlines[0][0] if self._deadlines else MICROS_MAX

    def _expire(self, now: int) -> None:
        # Each hold becomes a spend of its own deadline, in order of time: whoever looks first finds the
        # same slots, and a replay does too.
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, hold_id = heapq.heappop(self._deadlines)
            hold = self._holds.pop(hold_id, None)
            if hold is not None:
                self._end(hold, hold.amount, deadline)
        self._next_deadline = self._deadlines[0][0] if self._deadlines else MICROS_MAX

    def holds(self) -> Iterable[OpenHold]:
        """Every open hold, expired ones excluded."""
        self._expire(self.clock())
        return list(self._holds.values())

    def own_holds(self) -> Iterable[OpenHold]:
        """All of them: nobody else counts here."""
        return self.holds()

    # -- replay --------------------------------------------------------------------------------------

    def restore_spend(self, amount: int, scopes: Scopes, at: int) -> None:
        """Count a spend of the past as it was counted then; `at` must not be before any earlier one."""
        if at >= self._next_deadline:
            self._expire(at)
        for meter in self._restored_lane(scopes, at):
            meter.charge(amount)

    def restore_hold(self, hold: OpenHold) -> None:
        """Set money aside again for a hold that the ledger says was made."""
        if hold.made_at >= self._next_deadline:
            self._expire(hold.made_at)
        for meter in self._restored_lane(hold.scopes, hold.made_at):
            meter.hold(hold.amount)
        self._keep(hold)

    def _restored_lane(self, scopes: Scopes, at: int) -> Lane:
        # What was admitted once counts whatever the cap on scopes is now.
        lane, fresh = self._lane(scopes)
        if fresh:
            self._meters.update(fresh)
            self._order.extend(fresh)
        for meter in lane:
            if at >= meter.due:
                meter.advance(at)
        return lane

    def restore_settlement(self, hold_id: str, spent: int, at: int) -> None:
        """End a restored hold as the ledger says it ended; one that expired before `at` was spent then."""
        if at >= self._next_deadline:
            self._expire(at)
        hold = self._holds.pop(hold_id, None)
        if hold is not None:
            self._end(hold, spent, at)

    # -- halts ---------------------------------------------------------------------------------------

    def halt(self, pattern: str, *, on: bool, persons: Mapping[str, str] | None = None) -> None:
        """Turn the kill switch for a scope pattern on or off."""
        if on:
            self._halts[pattern] = Pattern.parse(pattern)
        else:
            self._halts.pop(pattern, None)

    def halts(self) -> list[str]:
        """The patterns that are halted now."""
        return sorted(self._halts)

    def _halted(self, scopes: Scopes) -> Refusal | None:
        for pattern in self._halts.values():
            scope = pattern.instance(scopes)
            if scope is not None:
                return Refusal(Reason.HALTED, scope=scope)
        return None

    # -- meters --------------------------------------------------------------------------------------

    def use(self, policy: Policy) -> None:
        """Decide by this policy, with nothing counted yet: the owner replays its ledger into the window."""
        self.policy = policy
        self._exact: dict[str, list[MeterRule]] = {}
        self._each: dict[str, list[MeterRule]] = {}
        self._everything: Lane = []
        for budget in policy.budgets:
            rules = [MeterRule.of(budget.name, limit) for limit in budget.limits]
            if budget.pattern.is_everything:
                self._everything += [Meter(rule) for rule in rules]
            elif budget.pattern.is_each:
                self._each.setdefault(budget.pattern.kind or "", []).extend(rules)
            else:
                self._exact.setdefault(budget.pattern.text, []).extend(rules)
        self._holds: dict[str, OpenHold] = {}
        self._deadlines = []
        self._next_deadline = MICROS_MAX
        self._meters: dict[str, Lane] = {}
        # `_meters` holds lanes by scope, made when a scope is first charged and dropped when idle;
        # `_order` is the round in which they are looked over.
        self._order: deque[str] = deque()
        self._full_until = 0

    def _rules_for(self, scope: str) -> list[MeterRule]:
        exact = self._exact.get(scope)
        each = self._each.get(kind_of(scope)) if self._each else None
        return (exact or []) + (each or [])

    def _lane(self, scopes: Scopes) -> tuple[Lane, dict[str, Lane] | None]:
        """Every meter that a spend with these scopes is counted on, and those of them that are new."""
        lane = list(self._everything)
        fresh: dict[str, Lane] | None = None
        for scope in scopes:
            meters = self._meters.get(scope)
            if meters is None:
                rules = self._rules_for(scope)
                if not rules:
                    continue
                meters = [Meter(rule) for rule in rules]
                fresh = fresh or {}
                fresh[scope] = meters
            lane += meters
        return lane, fresh

    def _enrol(self, fresh: dict[str, Lane], scopes: Scopes, now: int) -> None:
        """Make room for new scopes by forgetting idle ones, but never one of `scopes`: it is being charged."""
        for _ in range(min(len(self._order), _LOOKED_OVER * len(fresh))):
            scope = self._order.popleft()
            if scope in scopes or not self._forget_idle(scope, now):
                self._order.append(scope)
        if len(self._meters) + len(fresh) > self.scopes_max:
            self._forget_all_idle(scopes, now)
            if len(self._meters) + len(fresh) > self.scopes_max:
                raise CapacityReached(
                    f"{len(self._meters)} scopes are live, and KIKI_SCOPES_MAX allows {self.scopes_max}: "
                    "new scopes are refused, known ones go on",
                    hint="raise KIKI_SCOPES_MAX, or use fewer or shorter budgets of the form kind:*",
                )
        self._meters.update(fresh)
        self._order.extend(fresh)

    def _forget_idle(self, scope: str, now: int) -> bool:
        lane = self._meters.get(scope)
        if lane is None:
            return True
        if all(meter.is_idle(now) for meter in lane):
            del self._meters[scope]
            return True
        return False

    def _forget_all_idle(self, kept: Scopes, now: int) -> None:
        # A scope cannot become idle before its oldest slot is released, so looking again sooner is useless.
        if now < self._full_until:
            return
        self._order = deque(scope for scope in self._order if scope in kept or not self._forget_idle(scope, now))
        due = (meter.due for lane in self._meters.values() for meter in lane)
        self._full_until = max(min(due, default=now), now + 1)

    def _refuse(self, amount: int, scopes: Scopes, lane: Lane, now: int) -> Refusal:
        refusals = []
        for meter in lane:
            if now >= meter.due:
                meter.advance(now)
            if amount > meter.room:
                scope = self._scope_of(meter, scopes)
                refusals.append(refuse(meter, scope, amount, self._deadlines_on(meter, scope)))
        return binding(refusals)

    def _scope_of(self, meter: Meter, scopes: Scopes) -> str:
        if any(meter is other for other in self._everything):
            return "*"
        for scope in scopes:
            if any(meter.rule is rule for rule in self._rules_for(scope)):
                return scope
        return "*"

    def _deadlines_on(self, meter: Meter, scope: str) -> list[tuple[int, int]]:
        if not meter.held:
            return []
        return [
            (hold.deadline, hold.amount)
            for hold in self._holds.values()
            if hold.deadline is not None and (scope == "*" or scope in hold.scopes)
        ]

    # -- looking -------------------------------------------------------------------------------------

    def status(self, budget: str | None = None, scope: str | None = None, limit: int = 1000) -> list[MeterStatus]:
        """What the meters say now: budgets over everything first, then by scope, at most `limit` of them."""
        now = self.clock()
        self._expire(now)
        found: list[MeterStatus] = []
        untouched = [
            (name, [Meter(rule) for rule in rules]) for name, rules in self._exact.items() if name not in self._meters
        ]
        for name, lane in [("*", self._everything), *untouched, *self._meters.items()]:
            if scope is not None and name != scope:
                continue
            for meter in lane:
                if budget is not None and meter.rule.budget != budget:
                    continue
                if len(found) >= limit:
                    return found
                if now >= meter.due:
                    meter.advance(now)
                found.append(_status(meter, name))
        return found

    def scope_count(self) -> int:
        """How many scopes have a meter of their own."""
        return len(self._meters)

    def ready(self) -> str | None:
        """Always ready: nothing outside this process is needed."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""


def _status(meter: Meter, scope: str) -> MeterStatus:
    rule = meter.rule
    slots = meter.filled_slots()
    return MeterStatus(
        budget=rule.budget,
        scope=scope,
        limit=rule.limit,
        span=rule.span,
        spent=meter.spent(),
        held=meter.held,
        room_at=slots[0][0] + rule.span if slots else None,
    )
