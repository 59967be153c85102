"""Order logs whose truth is known: Pareto/NBD in days, with a season, a rhythm or bursts where wished, and Gamma-Gamma amounts."""

from __future__ import annotations

from datetime import date

import numpy as np

from kiki.money import MICROS
from kiki.value.orders import Orders, day_number

BEGIN = date(2020, 1, 6)


def log(
    customers: int = 1500,
    weeks: int = 104,
    *,
    season: float = 0.0,
    rhythm: int = 1,
    dropout: bool = True,
    seed: int = 1,
) -> Orders:
    """Customers who came at any time. `season` is the amplitude of a yearly wave, `rhythm` the Erlang shape of the gaps."""
    chance = np.random.default_rng(seed)
    days = weeks * 7
    first = chance.integers(0, days, customers)
    rate = chance.gamma(0.6, 1 / 8, customers) / 7
    leaving = chance.gamma(0.6, 1 / (60 if season else 15), customers) / 7
    life = chance.exponential(1, customers) / np.maximum(leaving, 1e-12) if dropout else np.full(customers, np.inf)
    span = np.minimum(days - first, life)
    if rhythm == 1:
        count = chance.poisson(rate * span * (1 + season))
        who = np.repeat(np.arange(customers), count)
        day = first[who] + 1 + np.floor(chance.random(who.size) * span[who])
        kept = chance.random(who.size) * (1 + season) < 1 + season * np.sin(2 * np.pi * day / 365.25)
        who, day = who[kept], day[kept]
    else:
        most = 200
        gaps = chance.gamma(rhythm, 1 / (rhythm * rate[:, None]), (customers, most)).cumsum(axis=1)
        who, place = np.nonzero(gaps < span[:, None])
        day = first[who] + 1 + np.floor(gaps[who, place])
    who, day = np.concatenate([np.arange(customers), who]), np.concatenate([first, day]).astype(np.int64)
    inside = day < days
    who, day = who[inside], day[inside]
    usual = chance.gamma(3.5, 1 / 60, customers)
    amount = np.round(chance.gamma(4, 1 / usual[who]), 2)
    ids = np.array([f"buyer-{number:06}" for number in range(customers)], dtype=object)
    return Orders.of_lines(
        ids, who.astype(np.int64), day + day_number(BEGIN), np.rint(amount * MICROS).astype(np.int64)
    )
