"""Lifetime value in a script: the same client asks a service, or a model file in this process, and says when it could not ask."""

import tempfile
from datetime import date
from pathlib import Path

from shop_orders import write_orders

from kiki import LtvClient
from kiki.value.training import fit

folder = Path(tempfile.mkdtemp())
log = write_orders(folder / "orders.csv")
fit(log, model="pareto-nbd", calibration_end=date(2024, 12, 31), horizon=26).save(folder / "shop.model.json")

# Without an address and with a model there is no service; the answers are the same ones.
with LtvClient(model=folder / "shop.model.json", customers=log, timeout=30) as client:
    known = client.predict("customer-371", reasons=True)
    low, high = known.interval(90)
    print(
        f"{known.customer_id}: {known.expected:.0f} expected in {known.horizon:g} {known.unit}s, {low:.0f} to {high:.0f}"
    )
    print(f"  comes back with {1 - known.probability_no_purchase:.0%}; calibration claimed: {known.coverage_claimed}")
    print("  because", known.reasons[0])

    stranger = client.predict_orders(
        [(date(2024, 11, 4), "20"), (date(2024, 12, 9), "35.50")], as_of=date(2024, 12, 31)
    )
    print(f"two orders: {stranger.expected:.0f} expected, from {stranger.source}")
    print(f"tomorrow's new customer: {client.predict_new().expected:.0f} expected after the first order")

# Nobody listens on this port: the answer is the caller's own, and says so.
with LtvClient("127.0.0.1:9", fallback=25.0) as client:
    instead = client.predict("customer-371")
    print(f"service away: {instead.expected:.0f}, a fallback: {instead.is_fallback}, an interval: {instead.interval()}")
