"""Whom to write to, under a budget, and what that earned: learned from people who were drawn, judged on others.

The shop is made up, so that the truth is known: a message brings people back who bought lately, and is wasted on the rest.
"""

import numpy as np

from kiki.engage.allocation import allocate
from kiki.engage.effect import effect
from kiki.engage.holdout import Holdout, parse_share
from kiki.engage.moments import Moments
from kiki.engage.outcomes import Outcomes
from kiki.engage.policy_value import policy_value
from kiki.engage.power import power
from kiki.engage.uplift import learn_policy

PEOPLE = 20_000
COST = 400_000  # micros for each message


def month(seed: int) -> Outcomes:
    """People who were drawn to get nothing or a message, and what they did in the month after."""
    chance = np.random.default_rng(seed)
    recency = chance.integers(1, 13, PEOPLE)
    message = chance.random(PEOPLE) < 0.5
    comes = chance.random(PEOPLE) < 0.08 + message * np.where(recency <= 4, 0.12, 0.01)
    margin = np.where(comes & (chance.random(PEOPLE) < 0.3), np.rint(chance.gamma(2, 10e6, PEOPLE)), 0)
    arms = np.where(message, "message", "nothing")
    return Outcomes.of(
        {"recency": recency}, arms, margin, control="nothing", costs={"message": COST}, early=comes.astype(float)
    )


policy = learn_policy(month(1))
evidence = policy.evidence
assert evidence is not None
print(f"the best constant arm: {policy.incumbent}; leaving it for some is carried by the evidence: {policy.deviates}")

test = month(2)
found = policy_value(policy, test)
chosen = np.array(policy.choose(test.features))
print(
    f"written to: {np.mean(chosen == 'message'):.0%}, those who bought at most 4 months ago: {np.mean(test.features['recency'] <= 4):.0%}"
)
for arm, gain in found.versus.items():
    print(
        f"over {arm} for everybody: {gain.value / 1e6:+.2f} a person, from {gain.low / 1e6:+.2f} to {gain.high / 1e6:+.2f}"
    )

# Under a budget: those first who gain most for what they cost, and never a micro over.
added = policy.incremental(test.features)[:, 1:]
plan = allocate(added, np.full(added.shape, COST), 500 * 1_000_000)
print(
    f"messages: {np.count_nonzero(plan.choice >= 0)}, spent {plan.spent[0] / 1e6:.2f} of 500.00, lost at most {plan.gap:.4%}"
)

# What it earned: a holdout that needs no memory, and an interval that may be looked at every day.
holdout = Holdout.of_playbook(b"a secret of the shop's own", parse_share("20%"), "winback")
customers = [f"customer-{number}" for number in range(PEOPLE)]
held = np.array([holdout.holds(customer) for customer in customers])
chance = np.random.default_rng(3)
spent = np.where(chance.random(PEOPLE) < 0.2 + 0.06 * ~held, chance.gamma(2, 10, PEOPLE), 0.0)
shown = effect(Moments.of(spent[~held]), Moments.of(spent[held]), held_out_share=0.2)
assert shown.value is not None
print(f"earned by a message: {shown.value:.2f} a person, from {shown.low:.2f} to {shown.high:.2f}; the truth is 1.20")
need = power(1.2, float(spent.std()), held_out_share=0.2, a_day=500)
print(f"before it starts: {need.always} people, {need.days} days")
