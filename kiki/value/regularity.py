"""How regularly a log's customers buy: the k of MBG/CNBD-k under which their histories are most likely."""

from __future__ import annotations

from typing import Final, NamedTuple

from kiki.errors import InvalidInput
from kiki.value.fitting import ESTIMATORS, Fit, maximise, require_observed
from kiki.value.mbg_cnbd_k import K_MAX, gap_evidence, of
from kiki.value.priors import weak
from kiki.value.purchases import Purchases

ENOUGH: Final = 1.92
"""Half of the 95 % point of a chi square with one degree of freedom: a smaller gain in log likelihood is no evidence."""


class RegularFit(NamedTuple):
    """The best k, and its parameters."""

    k: int
    """1 when purchases come at random: the model is then MBG/NBD."""
    fit: Fit
    """Its log likelihood is that of (x, tx, T), comparable with the other models'."""
    gap_evidence: float
    """What the single gaps add to the logarithm of the likelihood, relative to k = 1."""
    log_likelihoods: dict[int, float]
    """With the gaps, for every k that was tried."""


def fit_regularity(purchases: Purchases, estimator: str = "mle") -> RegularFit:
    """MBG/CNBD-k with k chosen by likelihood: k grows from 1 for as long as the likelihood does, up to `K_MAX`.

    Where the best k gains less than `ENOUGH` over 1, the log does not show any regularity, and k is 1.

    Purchases are days: where many customers buy nearly daily, gaps cannot be shorter than a day and look more regular than they
    are. Raises `InvalidInput` for an unknown estimator, and when nobody was observed for any time.
    """
    if estimator not in ESTIMATORS:
        raise InvalidInput(f"there is no estimator {estimator!r}; the estimators are {', '.join(ESTIMATORS)}")
    groups, _ = purchases.grouped()
    require_observed(groups)
    prior = weak("mbg-cnbd-k", groups) if estimator == "map" else None
    found: list[RegularFit] = []
    tried: dict[int, float] = {}
    for k in range(1, K_MAX + 1):
        fit = maximise(of(k), groups, prior=prior)
        evidence = gap_evidence(k, purchases.x, purchases.tx, purchases.sum_log_gaps)
        tried[k] = fit.log_likelihood + evidence
        found.append(RegularFit(k, fit, evidence, tried))
        if k > 1 and tried[k] <= tried[k - 1]:
            break
    best = max(found, key=lambda each: tried[each.k])
    return best if tried[best.k] - tried[1] >= ENOUGH else found[0]
