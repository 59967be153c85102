"""What each offer is expected to add for each person: learned from outcomes, else what the playbook believes. Pure.

Learned is a policy that stays with the best constant offer and leaves it only where the evidence carries that. Where
nothing was measured yet, an offer adds what the playbook says; where it says nothing, the first offer named is the one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from kiki.engage.journey_book import HELD_OUT
from kiki.engage.outcomes import Outcomes
from kiki.engage.playbook import Playbook
from kiki.engage.policy import Policy
from kiki.errors import InvalidInput

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FEATURES: Final = (
    *("days_since_purchase", "days_since_engagement", "purchases", "spend", "engagement_score", "value", "churn"),
)
PERSONS_LEAST: Final = 200
"""With fewer ended windows nothing is learned yet."""

_packed = msgspec.msgpack.Encoder().encode
_numbers = msgspec.msgpack.Decoder(list[float | None])


class Drawn(NamedTuple):
    """Somebody whose outcome window is over."""

    arm: str
    """An offer, or `held_out`."""
    chances: Mapping[str, float]
    """By arm the chance that it had for them."""
    margin: int
    features: bytes
    visited: bool = False
    """An outcome that comes before the margin, denser, and open to the held out as well. A click is not: nobody can
    click on a message that they did not get, so it would speak for writing whatever it brought."""


def pack(features: Mapping[str, Floats], row: int) -> bytes:
    """What is known of one person, as it is kept with their assignment."""
    numbers = [float(features[name][row]) for name in FEATURES]
    return _packed([each if np.isfinite(each) else None for each in numbers])


def channel_costs(playbook: Playbook, offers: Sequence[str]) -> dict[str, float]:
    """What saying an offer costs. What a discount takes away is in the amounts of the orders already."""
    found = {}
    for offer in offers:
        rule = playbook.channels.get(playbook.channel_of(offer))
        found[offer] = float(rule.cost if rule is not None else 0)
    return found


def learned(playbook: Playbook, offers: Sequence[str], drawn: Sequence[Drawn]) -> Policy | None:
    """The policy that these outcomes carry; None where there are too few."""
    if len(drawn) < PERSONS_LEAST or len({each.arm for each in drawn}) < 2:
        return None
    # scipy is loaded only where something is learned.
    from kiki.engage.uplift import learn_policy

    rows = [_numbers.decode(each.features) if each.features else [None] * len(FEATURES) for each in drawn]
    table = np.array([[np.nan if each is None else each for each in row] for row in rows], dtype=float)
    arms = [HELD_OUT, *sorted({each.arm for each in drawn} - {HELD_OUT})]
    chances = np.array([[max(each.chances.get(arm, 0.0), 1e-6) for arm in arms] for each in drawn])
    costs = channel_costs(playbook, [arm for arm in arms if arm in playbook.offers])
    outcomes = Outcomes.of(
        {name: table[:, column] for column, name in enumerate(FEATURES)},
        [each.arm for each in drawn],
        [float(each.margin) for each in drawn],
        control=HELD_OUT,
        costs=costs,
        early=[float(each.visited) for each in drawn] if any(each.visited for each in drawn) else None,
        propensity=chances,
    )
    return learn_policy(outcomes, incumbent=offers[0])


def margins(
    playbook: Playbook, offers: Sequence[str], policy: Policy | None, features: Mapping[str, Floats], count: int
) -> Ints:
    """Persons by offers, in micros, after costs."""
    if policy is None or not policy.lines:
        return believed(playbook, offers, count)
    try:
        known = policy.incremental({name: features[name] for name in FEATURES})
    except InvalidInput:
        return believed(playbook, offers, count)
    found = np.full((count, len(offers)), -1, dtype=np.int64)
    for column, offer in enumerate(offers):
        if offer in policy.arms:
            found[:, column] = known[:, policy.arms.index(offer)]
    return found


def believed(playbook: Playbook, offers: Sequence[str], count: int) -> Ints:
    """What the playbook says, the same for everybody."""
    told = [playbook.offers[offer].gain for offer in offers]
    if all(gain is None for gain in told):
        row = [1 if column == 0 else -1 for column in range(len(offers))]
    else:
        row = [-1 if gain is None else gain - playbook.cost_of(offer) for gain, offer in zip(told, offers, strict=True)]
    return np.tile(np.array(row, dtype=np.int64), (count, 1))
