"""Offers for 100,000 customers under budgets: how long, and how far from the best that there could be."""

from __future__ import annotations

import time

import numpy as np

from bench.measure import Row
from kiki.engage.allocation import Allocation, Budget, allocate

CUSTOMERS = 100_000
OFFERS = 5
ROUNDS = 5


def run() -> list[Row]:
    chance = np.random.default_rng(1)
    margins = (chance.gamma(0.5, 4e6, (CUSTOMERS, OFFERS)) - 2e5).astype(np.int64)
    costs = chance.integers(20_000, 8_000_000, (CUSTOMERS, OFFERS))
    whole = int(costs.sum()) // OFFERS
    several = [Budget(whole // 10), Budget(whole // 50, (0, 1)), Budget(whole // 25, (3,))]
    cases: dict[str, list[Budget]] = {
        f"one budget, {share:.1%} of what everybody would cost": [Budget(int(whole * share))]
        for share in (0.001, 0.05, 0.3)
    }
    rows = []
    for name, budgets in [*cases.items(), ("three budgets that overlap", several)]:
        seconds, found = _best(margins, costs, budgets)
        kept = all(used <= budget.limit for used, budget in zip(found.spent, budgets, strict=True))
        goal = 0.5 if len(budgets) == 1 else None
        rows += [
            Row(f"{name}: time", f"{seconds:.2f} s", f"< {goal} s" if goal else "", seconds < goal if goal else None),
            Row(f"{name}: gap to the bound", f"{found.gap:.2g}", "< 0.0001, never over", found.gap < 1e-4 and kept),
        ]
    return rows


def _best(margins: np.ndarray, costs: np.ndarray, budgets: list[Budget]) -> tuple[float, Allocation]:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found = allocate(margins, costs, budgets)
        best = min(best, time.perf_counter() - start)
    return best, found
