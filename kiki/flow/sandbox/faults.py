"""What goes wrong in the sandbox, on request: for the next calls of a kind, or with a probability. Chance is by seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from kiki.errors import InvalidInput


class FaultKind(StrEnum):
    """What becomes of a call."""

    LATENCY = "latency"
    """It takes `seconds` longer, before anything happens."""
    THROTTLED = "throttled"
    """429, nothing happens."""
    ERROR_BEFORE = "error_before"
    """503, and nothing happened."""
    ERROR_AFTER = "error_after"
    """500, although it happened."""
    ERROR_INSIDE = "error_inside"
    """200 with an error in the body; nothing happened."""
    GARBLED = "garbled"
    """It happened, and the answer is no JSON."""
    LOST_BEFORE = "lost_before"
    """The connection is cut, and nothing happened."""
    LOST_AFTER = "lost_after"
    """The connection is cut, although it happened."""
    LATE_EFFECT = "late_effect"
    """The connection is cut, and it happens `seconds` later."""
    LATE_REPLY = "late_reply"
    """It happens, and the answer comes `seconds` later."""
    TWICE = "twice"
    """The request is delivered two times."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault that waits for its calls."""

    kind: FaultKind
    operation: str | None = None
    """`create`, `set_budget`, `set_bid`, `set_status`, `values`, `lookup`, `report`, `account`; None: any."""
    platform: str | None = None
    account: str | None = None
    times: int = 1
    """How many calls it meets."""
    seconds: float = 0.0


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All faults that are wanted; a new order replaces the one before."""

    script: tuple[Fault, ...] = ()
    """Each call takes the first that fits it."""
    rates: dict[FaultKind, float] = {}
    """The share of all other calls that each kind meets."""
    seconds: float = 0.1
    """For faults by chance that take time: up to so many."""
    seed: int = 0


OPERATIONS: Final = ("create", "set_budget", "set_bid", "set_status", "values", "lookup", "report", "account")


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._order = FaultOrder()
        self._left: list[int] = []
        self._random = random.Random(0)
        self.met: dict[str, int] = {}
        """How many calls each kind has met."""

    def order(self, given: Any) -> None:
        """Replace what is in force; raises `InvalidInput`."""
        try:
            order = msgspec.convert(given, FaultOrder)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"the faults cannot be ordered so: {error}") from None
        shares = order.rates.values()
        if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1 or not 0 <= order.seconds <= 3600:
            raise InvalidInput("the faults cannot be ordered so: rates are shares of 1 and add up to 1 at most")
        for fault in order.script:
            if fault.operation is not None and fault.operation not in OPERATIONS:
                raise InvalidInput(f"no operation is {fault.operation[:40]!r}; they are {', '.join(OPERATIONS)}")
            if not 0 <= fault.seconds <= 3600 or fault.times < 0:
                raise InvalidInput("the faults cannot be ordered so: seconds are 0 to 3600, times not negative")
        self._order = order
        self._left = [fault.times for fault in order.script]
        self._random = random.Random(order.seed)

    def meet(self, platform: str, account: str, operation: str) -> Fault | None:
        """The fault that this call meets."""
        found = self._scripted({"platform": platform, "account": account, "operation": operation}) or self._drawn()
        if found is not None:
            self.met[found.kind] = self.met.get(found.kind, 0) + 1
        return found

    def _scripted(self, call: Mapping[str, str]) -> Fault | None:
        for number, fault in enumerate(self._order.script):
            fits = all(getattr(fault, name) in {None, value} for name, value in call.items())
            if fits and self._left[number]:
                self._left[number] -= 1
                return fault
        return None

    def _drawn(self) -> Fault | None:
        if not self._order.rates:
            return None
        drawn = self._random.random()
        for kind, share in self._order.rates.items():
            drawn -= share
            if drawn < 0:
                return Fault(kind=kind, seconds=self._random.random() * self._order.seconds)
        return None
