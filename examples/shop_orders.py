"""A made-up shop for the examples of value: who bought when, and for how much. The same seed gives the same shop."""

import csv
import random
from datetime import date, timedelta
from pathlib import Path

FIRST = date(2024, 1, 1)
DAYS = 540


def shop_orders(customers: int = 800, seed: int = 7) -> list[tuple[str, date, str]]:
    """Customer, day and amount of each order: customers come for half a year, buy at a rate of their own, and leave one day."""
    chance = random.Random(seed)
    orders = []
    for number in range(customers):
        day = chance.uniform(0, 180)
        gap = 1 / chance.gammavariate(0.8, 0.02)
        gone = day + chance.expovariate(chance.gammavariate(0.6, 0.01) + 1e-6)
        usual = chance.gammavariate(6, 6)
        while day < min(gone, DAYS):
            amount = max(usual * chance.gammavariate(6, 1 / 6), 1)
            orders.append((f"customer-{number:03}", FIRST + timedelta(days=int(day)), f"{amount:.2f}"))
            day += chance.expovariate(1 / gap)
    return orders


def write_orders(path: Path) -> Path:
    """The shop as a CSV file; the path."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["customer_id", "date", "amount"])
        rows.writerows(shop_orders())
    return path
