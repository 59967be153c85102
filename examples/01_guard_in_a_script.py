"""A budget in a script, without any server: what is admitted is on disk before the call returns."""

import tempfile
from pathlib import Path

from kiki import BudgetGuard, SpendDenied
from kiki.money import format_micros

ledger = Path(tempfile.mkdtemp()) / "shield.db"

with BudgetGuard.open(ledger, limit="500", window="60s") as guard:
    print("would 100 fit?", guard.check("100").allowed)

    for number in range(1, 7):
        try:
            outcome = guard.spend("100", scopes={"platform": "meta"}, key=f"order-{number}")
            print(f"order-{number}: {outcome.amount} admitted, audit record {outcome.event_id}")
        except SpendDenied as denied:
            print(
                f"order-{number}: refused by budget {denied.budget!r}, {denied.remaining} left, "
                f"fits in {denied.retry_after:.0f} s"
            )

    # The same key is the same spend: the first answer again, and nothing is taken twice.
    again = guard.spend("100", scopes={"platform": "meta"}, key="order-1")
    print("order-1 again:", again.event_id)

# A restart finds the window exactly as it was.
with BudgetGuard.open(ledger, limit="500", window="60s") as guard:
    (status,) = guard.status()
    print(f"after a restart {format_micros(status.remaining)} are left")
