"""How many people each arm gets next, by how likely it is the best: Thompson sampling by shares, under a floor. Pure.

Instead of a draw for each person, an arm gets the share that equals its chance to be the best (Thompson 1933; batched as
in Russo et al. 2018); a `Split` then assigns by hash. So the propensity of every assignment is known to the digit, and
what was learned can be replayed. No arm falls below the floor: it stays measured. What is compared is margin, so that a
discount pays for those who would have bought anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy.special import log_ndtr

from kiki.engage.holdout import PARTS
from kiki.engage.moments import Moments
from kiki.engage.outcomes import Floats
from kiki.engage.playbook import FLOOR
from kiki.errors import InvalidInput

_POINTS: Final = 4001
_KNOWN_LEAST: Final = 30


def thompson_shares(arms: Mapping[str, Moments], *, floor: int = FLOOR) -> dict[str, int]:
    """By arm its share in parts of a million: the whole, and at least `floor` each; raises `InvalidInput`.

    The moments are of persons by the arm that they were *assigned*, whose outcome windows are over.
    """
    if not arms:
        raise InvalidInput("there is no arm to choose from")
    if not 0 <= floor * len(arms) <= PARTS:
        raise InvalidInput(f"a floor for {len(arms)} arms is at most {PARTS // len(arms)} of {PARTS}")
    best = dict(zip(arms, best_chances(list(arms.values())).tolist(), strict=True))
    free = PARTS - floor * len(arms)
    exact = {arm: free * chance for arm, chance in best.items()}
    shares = {arm: floor + int(part) for arm, part in exact.items()}
    # What the rounding left goes to the largest remainders, ties to the earlier name.
    missing = PARTS - sum(shares.values())
    for arm in sorted(exact, key=lambda arm: (int(exact[arm]) - exact[arm], arm))[:missing]:
        shares[arm] += 1
    return shares


def best_chances(sides: list[Moments]) -> Floats:
    """By arm the chance that its mean is the highest, given what was seen; equal where too little was."""
    if len(sides) == 1 or any(side.persons < _KNOWN_LEAST for side in sides):
        return np.full(len(sides), 1 / len(sides))
    means = np.array([side.mean for side in sides])
    variances = np.array([side.variance for side in sides])
    pooled = float(np.average(variances, weights=[side.persons for side in sides]))
    if pooled <= 0:
        return np.full(len(sides), 1 / len(sides))
    # An arm in which nobody bought yet is not known to the cent: its spread is taken from all of them, too.
    errors = np.sqrt((variances + pooled) / 2 / [side.persons for side in sides])
    grid = np.linspace((means - 8 * errors).min(), (means + 8 * errors).max(), _POINTS)
    standard = (grid - means[:, None]) / errors[:, None]
    below = log_ndtr(standard)
    density = -standard * standard / 2 - np.log(errors)[:, None]  # up to what all arms have in common
    chances = np.exp(density + below.sum(axis=0) - below).sum(axis=1)
    return np.asarray(chances / chances.sum())
