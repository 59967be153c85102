"""Acquisition cohorts: by how much customers who came in one month buy more often than those of another.

Each cohort's purchase rate is the population's times exp(level), and the levels are normal around 0 (a random effect; Gelman and Hill
2007, "Data Analysis Using Regression and Multilevel/Hierarchical Models", chapter 12). Their standard deviation is estimated
from the log (empirical Bayes, by Laplace's approximation to the marginal likelihood), so that a small or young cohort is
pulled towards the others by as much as it is doubtful, and cohorts that do not differ are treated as one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.covariates import Strata, WithCovariates
from kiki.value.fitting import maximise
from kiki.value.groups import Floats
from kiki.value.purchases import Purchases

_SPREADS: Final = (0.01, 2.0)
"""Standard deviations of the levels that are tried: a hundredth is no difference, 2 is a factor of 7."""


@dataclass(frozen=True)
class Cohorts:
    """What was found about the cohorts of one log, as plain numbers."""

    model: str
    """The count model, a key of `covariates.EFFECTS`."""
    parameters: dict[str, float]
    """The model's, for a cohort of level 0."""
    between_sd: float
    """The standard deviation of the levels of all cohorts; 0 when the log shows no difference."""
    cohorts: list[str]
    """The months of the first purchase as 2024-01, or whatever names were given."""
    levels: list[float]
    """The logarithm of what multiplies each cohort's purchase rate, partially pooled."""
    level_sds: list[float]
    """How doubtful each level is: its standard deviation given the log."""
    customers: list[int]
    """How many customers each cohort has."""

    def level(self, cohort: str | None = None) -> tuple[float, float]:
        """The mean of what multiplies the rate of a cohort, and the standard deviation of its logarithm.

        None, or a cohort that the log does not hold, is one that is still to come: as different as cohorts are.
        """
        if cohort not in self.cohorts:
            return float(np.exp(self.between_sd**2 / 2)), self.between_sd
        place = self.cohorts.index(cohort)
        return float(np.exp(self.levels[place] + self.level_sds[place] ** 2 / 2)), self.level_sds[place]

    def parameters_of(self, cohort: str | None = None) -> Floats:
        """The count model's parameters for the customers of a cohort, as the array that its functions take: the prior of a new one."""
        level = self.levels[self.cohorts.index(cohort)] if cohort in self.cohorts else 0.0
        return np.array(
            [value * np.exp(-level) if name == "alpha" else value for name, value in self.parameters.items()]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and names, for a model file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(**content)


def fit_cohorts(name: str, purchases: Purchases, cohort: npt.ArrayLike | None = None) -> Cohorts:
    """The levels of the cohorts under the count model called `name`; `cohort` names each customer's, by default his first month.

    All parameters and levels are fitted together, for each of about ten standard deviations of the levels: a second for
    tens of cohorts, tens of seconds for hundreds. Raises `InvalidInput` for a model that takes no covariates, and for names that are not one for each customer.
    """
    named = np.asarray(purchases.cohort if cohort is None else cohort).astype(str)
    if named.shape != purchases.x.shape:
        raise InvalidInput(f"there are {len(purchases)} customers and {named.size} names of cohorts: give one for each")
    labels, codes = np.unique(named, return_inverse=True)
    strata, _ = Strata.split(
        purchases.x, purchases.tx, purchases.T, codes.reshape(-1), np.eye(labels.size), purchases.unit
    )
    model = WithCovariates(name, tuple(labels.tolist()), only=("rate",))
    own = len(model.model.NAMES)
    pooled = maximise(model.model, strata.together)
    customers = np.bincount(codes).tolist()
    spread = _spread(model, strata, pooled.log_likelihood) if labels.size > 1 else 0.0
    if not spread:
        none = [0.0] * labels.size
        return Cohorts(name, pooled.parameters, 0.0, labels.tolist(), none, none, customers)
    theta, information = _joint(model, strata, spread)
    parameters = dict(zip(model.model.NAMES, np.exp(theta[:own]).tolist(), strict=True))
    sds = 1 / np.sqrt(information + spread**-2)
    return Cohorts(name, parameters, spread, labels.tolist(), theta[own:].tolist(), sds.tolist(), customers)


def _spread(model: WithCovariates, strata: Strata, pooled: float) -> float:
    """The most likely standard deviation of the levels; 0 when no difference is as likely, `pooled` being the likelihood of that."""
    from scipy.optimize import minimize_scalar  # only a fit needs it, and every service that predicts would load it

    low, high = np.log(_SPREADS)
    found = minimize_scalar(
        lambda log_spread: -_marginal(model, strata, float(np.exp(log_spread))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 0.1},
    )
    return float(np.exp(found.x)) if -found.fun > pooled and found.x > low + 0.1 else 0.0


def _marginal(model: WithCovariates, strata: Strata, spread: float) -> float:
    """The logarithm of the likelihood with the levels integrated out, by Laplace's approximation at their mode."""
    theta, information = _joint(model, strata, spread)
    levels = theta[-information.size :]
    value = model.total(theta, strata).value
    return value - float(levels @ levels) / (2 * spread**2) - 0.5 * float(np.log1p(spread**2 * information).sum())


def _joint(model: WithCovariates, strata: Strata, spread: float) -> tuple[Floats, Floats]:
    """All parameters and levels in logarithms at their mode, and what the log says about each level: its information.

    A level acts on its own cohort only, so that given the parameters the levels do not depend on each other.
    """
    theta = np.log(maximise(model, strata, prior=model.ridge(spread)).values)
    information = -np.diag(model.total(theta, strata).hessian)[len(model.model.NAMES) :]
    return theta, np.maximum(information, 0.0)
