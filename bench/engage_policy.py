"""What learned policies are worth against constants and the rule "the most dormant first", where the truth is known.

Made-up mailings of three arms in which few visit and fewer buy; real logs are for acceptance, so that nothing is tuned to one.
"""

from __future__ import annotations

import numpy as np

from bench.measure import Row
from kiki.engage.uplift import learn_policy
from tests.engage.mailing import mailing

PERSONS = 30_000
LOGS = 12
NULL_LOGS = 100


def run() -> list[Row]:
    rows = []
    for cost, kind in ((0.0, "free"), (0.1, "cheap"), (0.35, "dear"), (0.7, "too dear")):
        gains = np.array([_gains(seed, cost) for seed in range(LOGS)])
        mean, error = gains.mean(axis=0), gains.std(axis=0, ddof=1) / LOGS**0.5
        name = f"a contact that is {kind} ({cost:.2f}; it adds 0.35 on average), {LOGS} logs of {PERSONS:,}"
        over = [
            ("the best constant, known only to us", ">= -0.01", mean[0] >= -0.01),
            ("everybody", ">= 0", mean[1] >= -1e-9),
            ("nobody", ">= 0", mean[2] >= -1e-9),
            ("the most dormant", "> 0", mean[3] > 0),
        ]
        rows += [
            Row(f"{name}: gain over {what}", f"{gain:+.3f} ± {wrong:.3f} a person", goal, bool(met))
            for (what, goal, met), gain, wrong in zip(over, mean, error, strict=True)
        ]
    left = sum(learn_policy(mailing(3000, seed, lift=0.0, costs=0.02)[0]).deviates for seed in range(NULL_LOGS))
    rows.append(
        Row(
            f"no effect at all: incumbent left, of {NULL_LOGS} logs of 3,000",
            f"{left}",
            "<= 10 %",
            left <= NULL_LOGS / 10,
        )
    )
    return rows


def _gains(seed: int, cost: float) -> tuple[float, float, float, float]:
    policy = learn_policy(mailing(PERSONS, seed, costs=cost)[0])
    test, expected = mailing(PERSONS, 1000 + seed, costs=cost)
    net = expected - test.costs
    own = net[np.arange(PERSONS), policy.places(test.features)].mean()
    dormant = net[np.arange(PERSONS), (test.features["recency"] > 6).astype(int)].mean()
    constants = net.mean(axis=0)
    return own - constants.max(), own - constants[1], own - constants[0], own - dormant
