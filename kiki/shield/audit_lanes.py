"""Which windows count what under a policy, for the auditor's replay alone. Pure.

The auditor reads patterns in its own way and shares nothing here with what decides.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kiki.shield.audit_meter import Lane, Meter, Rule
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes

_NEVER: Final = 2**63 - 1
_METERS_KEPT: Final = 200_000


class _Counted:
    """Windows of one span of the scopes that fit a pattern, under one policy."""

    def __init__(self, name: str, pattern: str, span: int, limits: Sequence[tuple[int, str]]) -> None:
        self.name = name
        """Of the budget, where budgets count apart; else empty."""
        self.pattern = pattern
        self.span = span
        self.limits = limits
        """Micros and budget; none where only another policy sets some."""
        self.lowest = min((micros for micros, _ in limits), default=_NEVER)
        self.windows = {(budget, span) for _, budget in limits}


class Lanes:
    """From scopes to the meters of their windows, under the policy in force and with all that were counted before.

    Where windows are not `shared`, each is counted for every policy that is known, from the beginning on.
    """

    def __init__(self, windows: set[tuple[str, int]], policies: Iterable[Policy], *, shared: bool) -> None:
        """`windows` gets the name of the budget and the span of every window that is compared with a limit."""
        self._current = b""
        self.known: dict[Scopes, Lane] = {}
        """The lanes found so far under the policy in force; the same dictionary until another policy is."""
        self._windows = windows
        self._shared = shared
        self._tracked: dict[tuple[str, int], None] = {}
        self._meters: dict[tuple[str, str, int], Meter] = {}
        self._lanes: dict[bytes, dict[Scopes, Lane]] = {}
        self._policies: dict[bytes, Policy] = {b"": Policy(())}
        self._sweep_at = _METERS_KEPT
        for policy in policies:
            self._track(policy)
        self._plan = self._planned()

    def use(self, name: bytes, policy: Policy) -> bool:
        """Go by this policy from now on; true when it asks about windows that nobody counted so far."""
        if name == self._current:
            return False
        self._current = name
        fresh = False
        if name not in self._policies:
            self._policies[name] = policy
            fresh = not self._shared and self._track(policy)
        self.known = self._lanes.setdefault(name, {})
        self._plan = self._planned()
        return fresh

    def lane(self, scopes: Scopes, now: int) -> Lane:
        """Where a spend with these scopes is counted, with the lowest limit of each window."""
        lane = self.known.get(scopes)
        if lane is None:
            if len(self._meters) > self._sweep_at:
                self._sweep(now)
            if len(self.known) > _METERS_KEPT:
                self.known.clear()
            lane = self.known[scopes] = self._new_lane(scopes)
        return lane

    def rules(self, scopes: Scopes) -> Iterator[Rule]:
        """Every limit that a spend with these scopes must keep under the policy in force."""
        for counted in self._plan:
            scope = instance(counted.pattern, scopes)
            if scope is not None:
                meter = self._meter(counted.name, scope, counted.span)
                for micros, budget in counted.limits:
                    yield Rule(meter, micros, budget)

    def meters(self) -> Iterable[Meter]:
        """Every meter on which something counts."""
        return self._meters.values()

    def _track(self, policy: Policy) -> bool:
        wanted = {(budget.pattern.text, limit.span) for budget in policy.budgets for limit in budget.limits}
        fresh = wanted - set(self._tracked)
        self._tracked.update(dict.fromkeys(sorted(fresh)))
        if fresh:
            self._forget_lanes()
        return bool(fresh)

    def _forget_lanes(self) -> None:
        self.known.clear()
        self._lanes = {self._current: self.known}

    def _new_lane(self, scopes: Scopes) -> Lane:
        limits: dict[int, int] = {}
        meters: list[Meter] = []
        for counted in self._plan:
            scope = instance(counted.pattern, scopes)
            if scope is not None:
                meter = self._meter(counted.name, scope, counted.span)
                key = id(meter)
                if key in limits:
                    # `campaign:*` and `campaign:a` are the same window of that campaign.
                    limits[key] = min(limits[key], counted.lowest)
                else:
                    limits[key] = counted.lowest
                    meters.append(meter)
                self._windows.update(counted.windows)
        return tuple(zip(meters, limits.values(), strict=True))

    def _planned(self) -> tuple[_Counted, ...]:
        """What is counted under the policy in force."""
        limits: dict[tuple[str, str, int], list[tuple[int, str]]] = {}
        if not self._shared:
            limits = {("", *tracked): [] for tracked in self._tracked}
        for budget in self._policies[self._current].budgets:
            for limit in budget.limits:
                # A shared window counts by the name of its budget, and what it counted under one it does not know
                # under another. A process that counts alone reads its ledger again under every policy.
                key = (budget.name if self._shared else "", budget.pattern.text, limit.span)
                limits.setdefault(key, []).append((limit.micros, budget.name))
        return tuple(_Counted(*key, found) for key, found in limits.items())

    def _meter(self, name: str, scope: str, span: int) -> Meter:
        key = (name, scope, span)
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = Meter(span, scope=scope, recorded_at=array("q") if self._shared else None)
        return meter

    def _sweep(self, now: int) -> None:
        """Forget meters on which nothing counts any more."""
        for meter in self._meters.values():
            meter.slide_all(now, 0)
        self._meters = {key: meter for key, meter in self._meters.items() if not meter.is_idle()}
        self._forget_lanes()
        self._sweep_at = max(_METERS_KEPT, 2 * len(self._meters))


def instance(pattern: str, scopes: Scopes) -> str | None:
    """The scope on which a pattern meters a spend with these scopes; None when it is not concerned."""
    if pattern == "*":
        return pattern
    if pattern.endswith(":*"):
        kind = pattern[:-1]
        for scope in scopes:
            if scope.startswith(kind):
                return scope
        return None
    return pattern if pattern in scopes else None
