"""How much each of several models counts: weights under which their mixture would have foretold best what came. Pure.

Yao, Vehtari, Simpson and Gelman 2018, "Using stacking to average Bayesian predictive distributions", Bayesian Analysis 13: the weights
maximise the log score of the mixture on outcomes that no model was fitted to. Unlike weights by AIC they let models complement
each other, and do not run to one model as the log grows.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.groups import Floats

NEGLIGIBLE: Final = 0.02
"""A smaller weight than this is no part of the mixture: it would cost as much as the others, and change nothing."""

_ROUNDS: Final = 500
_STILL: Final = 1e-9


def stack(log_scores: Floats, prior: Floats | None = None) -> Floats:
    """The weights of the models, 0 or more with sum 1, from the log scores (outcomes, models) of each.

    `prior` counts for each model as so many outcomes that this one alone foretold, so that models which do equally well do not
    share by chance. By the EM algorithm; an outcome that was impossible for every model tells nothing. Raises
    `InvalidInput` for scores that are not of that shape, above 0 or not a number.
    """
    scores = np.asarray(log_scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.size or np.isnan(scores).any() or (scores > 1e-9).any():
        raise InvalidInput("log scores are rows of outcomes by columns of models, logarithms of probabilities")
    best = scores.max(axis=1)
    told = np.isfinite(best)
    already = np.zeros(scores.shape[1]) if prior is None else np.asarray(prior, dtype=np.float64)
    weights = (already + 1) / (already + 1).sum()
    chances = np.exp(scores[told] - best[told, None])
    weights = _climbed(chances, weights, already)
    kept = weights >= min(NEGLIGIBLE, weights.max())
    if not kept.all():
        weights[~kept] = 0
        weights[kept] = _climbed(chances[:, kept], weights[kept] / weights.sum(), already[kept])
    return weights


def _climbed(chances: Floats, weights: Floats, already: Floats) -> Floats:
    if not chances.shape[0]:
        return weights
    for _ in range(_ROUNDS):
        mixed = chances @ weights
        # An outcome that only a model of weight 0 allows has a mixed chance of 0.
        new = weights * ((1 / np.maximum(mixed, 1e-300)) @ chances) + already
        new /= new.sum()
        if np.abs(new - weights).max() < _STILL:
            return new
        weights = new
    return weights
