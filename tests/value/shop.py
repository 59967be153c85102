"""A small made-up shop whose customers behave as Pareto/NBD and Gamma-Gamma say, with ids that would break a careless page."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kiki.value.order_log import read_orders
from kiki.value.orders import Orders

IDS = ('<script>alert("id")</script>', "😀 & <b>", "a,b;c")


def orders(
    customers: int = 300, days: int = 400, seed: int = 5, currency: str | None = None, until: str = "2099"
) -> Orders:
    chance = np.random.default_rng(seed)
    lines = []
    for number in range(customers):
        name = IDS[number] if number < len(IDS) else f"customer-{number}"
        day = chance.uniform(0, 100)
        rate, usual = chance.gamma(0.8, 0.03), chance.gamma(6, 6)
        gone = day + chance.exponential(1 / (chance.gamma(0.6, 0.01) + 1e-9))
        while day < min(gone, days):
            lines.append(
                (
                    name,
                    pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(day)),
                    round(usual * chance.gamma(6, 1 / 6), 2),
                )
            )
            day += chance.exponential(1 / rate)
    frame = pd.DataFrame(lines, columns=["customer_id", "date", "amount"])
    frame = frame[frame["date"] <= until]
    if currency:
        frame["currency"] = currency
    return read_orders(frame)
