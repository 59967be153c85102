"""Many budgets at once: all spend, each platform, each campaign. A spend fits in all of them or takes nothing."""

from pathlib import Path

from kiki import BudgetGuard, SpendDenied
from kiki.money import format_micros

policy = Path(__file__).parent / "budgets.yaml"

with BudgetGuard.open(policy=policy) as guard:
    guard.spend("90", scopes={"platform": "meta", "campaign": "spring"})
    try:
        guard.spend("20", scopes={"platform": "meta", "campaign": "spring"})
    except SpendDenied as denied:
        print(f"spring: {denied}")

    # Another campaign has its own budget, and the refused 20 was taken from nobody.
    guard.spend("20", scopes={"platform": "meta", "campaign": "summer"})

    for status in guard.status():
        print(
            f"{status.budget:14} {status.scope:16} {format_micros(status.spent):>8} of {format_micros(status.limit):>9}"
        )

    # The kill switch of one platform.
    guard.halt("platform:meta", note="creative under review")
    print("meta:", guard.check("1", scopes={"platform": "meta"}).explanation)
    print("google:", guard.check("1", scopes={"platform": "google"}).explanation)
