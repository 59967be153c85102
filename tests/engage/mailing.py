"""Made-up randomised mailings: few visit, fewer buy, spends vary wildly; effects that are known because we made them."""

from __future__ import annotations

import numpy as np

from kiki.engage.outcomes import Outcomes


def mailing(
    rows: int, seed: int = 0, *, lift: float = 0.05, uneven: float = 1.0, worth: float = 7.0, costs: float = 0.0
) -> tuple[Outcomes, np.ndarray]:
    """Outcomes of three arms, and by person and arm the true expected margin before costs (in units, not micros).

    `lift` is what arm `a` adds to the chance of a visit on average (`b` half of it), `uneven` how much that depends on
    the person: at 0 everybody gains the same.
    """
    chance = np.random.default_rng(seed)
    recency = chance.integers(1, 13, rows).astype(float)
    history = np.exp(chance.normal(5, 1, rows))
    channel = chance.choice(["web", "phone", "both"], rows, p=[0.45, 0.4, 0.15])
    newbie = (chance.random(rows) < 0.5).astype(float)
    base = 0.05 + 0.08 * (12 - recency) / 11 + 0.05 * (channel == "both")
    who = 1 + uneven * (np.where(recency < 6, 0.9, -0.9) * 0.7 + np.where(newbie > 0, -0.6, 0.6) * 0.6)
    chances = np.column_stack(
        [base, base + lift * who, base + lift / 2 * (1 + uneven * np.where(newbie > 0, 0.8, -0.8))]
    )
    chances = np.clip(chances, 0.005, 0.9)
    arm = chance.integers(0, 3, rows)
    visit = chance.random(rows) < chances[np.arange(rows), arm]
    buys = visit & (chance.random(rows) < 0.08)
    spend = np.where(buys, chance.gamma(1.2, worth / 0.08 / 1.2, rows), 0.0)
    names = np.array(["none", "a", "b"])
    outcomes = Outcomes.of(
        {"recency": recency, "history": history, "channel": channel, "newbie": newbie},
        names[arm],
        spend,
        control="none",
        early=visit.astype(float),
        costs={"a": costs, "b": costs},
    )
    return outcomes, chances * worth
