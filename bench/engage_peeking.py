"""Looking every day at an experiment without an effect, and at one with: how often each way of looking cries wolf."""

from __future__ import annotations

import numpy as np

from bench.measure import Row
from kiki.engage.effect import ACTIVE_LEAST, PERSONS_LEAST, effect
from kiki.engage.moments import Moments

RUNS = 4000
POWER_RUNS = 1000
DAYS = 30
LONG_RUNS = 2000
LONG_DAYS = 120


def peek(
    runs: int, *, days: int, a_day: int, share: float, rate: float, lift: float, seed: int, money: bool = True
) -> dict[str, float]:
    """The share of runs in which each interval left zero out at any of the daily looks; money has a heavy tail."""
    chance = np.random.default_rng(seed)
    found = {"always": 0, "daily z": 0, "last z": 0}
    stops = []
    planned = days * a_day
    for _ in range(runs):
        held = chance.random((days, a_day)) < share
        past = chance.gamma(0.5, 2.0, (days, a_day))
        buys = chance.random((days, a_day)) < np.minimum(0.9, rate * (0.5 + 0.5 * past) + np.where(held, 0.0, lift))
        outcome = np.where(buys, np.exp(chance.normal(3.0, 1.0, (days, a_day))) if money else 1.0, 0.0)
        sides = [Moments(), Moments()]
        always = naive = last = 0
        for day in range(days):
            for side, who in enumerate((~held[day], held[day])):
                sides[side] = sides[side].plus(Moments.of(outcome[day][who], past[day][who]))
            if min(each.persons for each in sides) < PERSONS_LEAST or min(each.active for each in sides) < ACTIVE_LEAST:
                continue
            difference = sides[0].mean - sides[1].mean
            error = sum(each.variance / each.persons for each in sides) ** 0.5
            last = abs(difference) > 1.96 * error
            naive = naive or last
            # The test beside it costs more than the simulation: the same formulas without it.
            shown = effect(*sides, held_out_share=share, planned=planned, fixed=False)
            if shown.is_known and not shown.low <= 0 <= shown.high and not always:
                always = day + 1
        found["always"] += bool(always)
        found["daily z"] += bool(naive)
        found["last z"] += bool(last)
        stops += [always] if always else []
    return {name: count / runs for name, count in found.items()} | {"stop": float(np.mean(stops)) if stops else 0.0}


def run() -> list[Row]:
    rows = []
    for share, rate in ((0.5, 0.05), (0.1, 0.1), (0.05, 0.2)):
        null = peek(RUNS, days=DAYS, a_day=500, share=share, rate=rate, lift=0.0, seed=1)
        name = f"no effect, {share:.0%} held out, {rate:.0%} buy, {RUNS} runs, {DAYS} daily looks"
        rows += [
            Row(f"{name}: false alarms, always-valid", f"{null['always']:.2%}", "<= 5 %", null["always"] <= 0.05),
            Row(f"{name}: false alarms, z-test at every look", f"{null['daily z']:.1%}"),
        ]
    long = peek(LONG_RUNS, days=LONG_DAYS, a_day=500, share=0.05, rate=0.1, lift=0.0, seed=5)
    name = f"no effect, 5% held out, 10% buy, {LONG_RUNS} runs, {LONG_DAYS} daily looks"
    rows += [
        Row(f"{name}: false alarms, always-valid", f"{long['always']:.2%}", "<= 5 %", long["always"] <= 0.05),
        Row(f"{name}: false alarms, z-test at every look", f"{long['daily z']:.1%}"),
    ]
    for money, what in ((True, "money"), (False, "whether they buy")):
        real = peek(POWER_RUNS, days=DAYS, a_day=500, share=0.5, rate=0.05, lift=0.015, seed=2, money=money)
        name = f"5 % → 6.5 % buy, half held out, {POWER_RUNS} runs, by {what}"
        rows += [
            Row(f"{name}: power, always-valid within {DAYS} days", f"{real['always']:.1%}"),
            Row(f"{name}: power, z-test once on the last day", f"{real['last z']:.1%}"),
            Row(f"{name}: day on which it was shown, mean", f"{real['stop']:.1f}"),
        ]
    return rows
