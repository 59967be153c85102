"""Which budgets there are: the policy as values, and as YAML. Pure.

A policy is replaced whole or not at all; `parse_policy` reports every mistake with its line.
"""

from __future__ import annotations

from dataclasses import dataclass

from kiki.clock import SECOND
from kiki.shield.scope import Pattern


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `micros` of money in any `span` microseconds."""

    micros: int
    span: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A named budget: which spends it concerns, and how much of them fits in each of its windows."""

    name: str
    pattern: Pattern
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Every budget in force, in one currency. A spend must fit in all that concern it."""

    budgets: tuple[Budget, ...]
    currency: str = "USD"

    @property
    def span_max(self) -> int:
        """The longest window, in microseconds (0 without budgets)."""
        return max((limit.span for budget in self.budgets for limit in budget.limits), default=0)


def single_budget(limit_micros: int, span: int = 60 * SECOND, currency: str = "USD") -> Policy:
    """The default policy: one budget over all spends."""
    return Policy((Budget("default", Pattern("*"), (Limit(limit_micros, span),)),), currency)
