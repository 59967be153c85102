"""What pacing and allocation earn on a simulated market, in shares of what is best with everything known."""

from __future__ import annotations

from bench.measure import Row
from kiki.flow.market_simulation import divide, simulate

PACING_MARKETS = 10
ALLOCATION_MARKETS = 100


def run() -> list[Row]:
    """All rows of this part."""
    found = simulate(PACING_MARKETS)
    rows = []
    for shock, least in (("none", 0.95), ("double", 0.92), ("half", 0.92)):
        for name, pace in found.pacing[shock].items():
            ours = name == "dual pacing"
            text = f"{pace.share:.3f} (worst {pace.worst:.3f}), {pace.overspent} micros over"
            met = pace.share >= least and pace.overspent == 0 if ours else None
            rows.append(
                Row(f"pacing, prices at noon: {shock}: {name}", text, f">= {least}, 0 over" if ours else "", met=met)
            )
    for name, adaptive in (("equal split", False), ("adaptive", True)):
        divided = [divide(seed, adaptive=adaptive) for seed in range(ALLOCATION_MARKETS)]
        worst, mean = min(each.share for each in divided), sum(each.share for each in divided) / len(divided)
        late = sum(each.late_share for each in divided) / len(divided)
        text = f"worst {worst:.4f}, mean {mean:.4f}, last 30 days {late:.4f}"
        goal, met = ("worst >= 0.965", worst >= 0.965) if adaptive else ("", None)
        rows.append(Row(f"allocation, {ALLOCATION_MARKETS} markets: {name}", text, goal, met=met))
    return rows
