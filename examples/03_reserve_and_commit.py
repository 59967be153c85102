"""Money set aside around a call that costs an amount known only afterwards."""

from kiki import BudgetGuard
from kiki.money import format_micros


def call_the_platform(at_most: str) -> str:
    """Stands for a paid call; answers what it really cost."""
    return "64.20"


with BudgetGuard.open(limit="100", window="60s") as guard:
    # While the hold is open it counts in full, so nobody else can spend it.
    with guard.reserve("80", scopes={"platform": "meta"}, key="call-1") as hold:
        print("80 more?", guard.check("80").explanation)
        hold.commit(call_the_platform(at_most="80"))
    print("30 more?", guard.check("30").explanation)

    # Leaving the block without a commit, by an exception for example, gives the money back.
    try:
        with guard.reserve("35"):
            raise ConnectionError("the platform was never reached")
    except ConnectionError:
        pass
    print("35 more?", guard.check("35").explanation)

    # A deadline turns a forgotten hold into a spend: what may have been spent counts as spent.
    guard.reserve("10", seconds=300)

    # Money that was spent elsewhere is written down even when it goes over the limit.
    guard.record("50", scopes={"platform": "google"})
    (status,) = guard.status()
    print(f"left now: {format_micros(status.remaining)}")
