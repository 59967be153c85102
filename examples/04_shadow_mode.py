"""What would a stricter policy have refused? Asked of the ledger, so nothing changes while you look."""

from kiki import BudgetGuard, Policy
from kiki.shield.policy import parse_policy

STRICTER = """
budgets:
  - scope: "*"
    limit: 500
    window: 60s
  - name: each-campaign
    scope: "campaign:*"
    limit: 60
    window: 1h
"""

with BudgetGuard.open(limit="500", window="60s") as guard:
    for campaign in ("spring", "summer"):
        for amount in ("25", "25", "25"):
            guard.spend(amount, scopes={"campaign": campaign})

    stricter: Policy = parse_policy(STRICTER)
    result = guard.simulate(stricter)
    print(f"{result.decisions} spends, {result.newly_refused} of them would have been refused:")
    for budget, count in result.refused_by_budget.items():
        print(f"  {count} by {budget}")
