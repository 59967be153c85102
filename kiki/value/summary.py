"""A fit as the table that statisticians expect: coefficients, standard errors, z, and confidence intervals.

At an interior optimum the table is that of statsmodels' `GenericLikelihoodModel` over weighted groups, with the exact
Hessian. At a boundary its normal approximation would mislead: there the intervals come from the profile likelihood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from statsmodels.base.model import GenericLikelihoodModel, GenericLikelihoodModelResults
from statsmodels.iolib.table import SimpleTable

from kiki.errors import InvalidInput
from kiki.value import gamma_gamma
from kiki.value.count_models import count_model
from kiki.value.fitting import Data, Fit, Model, objective
from kiki.value.profile import profile_intervals

if TYPE_CHECKING:
    from kiki.value.groups import Floats
    from kiki.value.priors import Prior


def summary_table(name: str, fit: Fit, data: Data, prior: Prior | None = None) -> str:
    """The table of `fit`, a fit of the model called `name` to `data` (under `prior`, when it was fitted with one).

    `name` is a key of `COUNT_MODELS`, or "gamma-gamma"; the notes of the fit follow below. Raises `InvalidInput` for others.
    """
    model: Model = gamma_gamma if name == "gamma-gamma" else count_model(name)
    notes = "".join(f"\n{note}" for note in fit.notes)
    if fit.covariance is None:
        return str(_profiles(name, model, fit, data, prior)) + notes
    results = likelihood_results(name, model, fit, data, prior)
    return str(results.summary(yname="history", title=f"{name}: {_counted(data)}")) + notes


def likelihood_results(name: str, model: Model, fit: Fit, data: Data, prior: Prior | None = None) -> Any:
    """The fit as results of statsmodels: tests, delta method, intervals. Raises `InvalidInput` at a boundary."""
    if fit.covariance is None:
        raise InvalidInput(
            f"{', '.join(fit.at_boundary)}: the fit of {name} is at a boundary, where a normal approximation misleads",
            hint="use kiki.value.profile.profile_intervals",
        )
    # No step is taken: the parameters are those of the fit, and stand at the optimum already.
    return GroupedLikelihood(model, data, prior).fit(
        start_params=fit.values, method="newton", maxiter=0, disp=0, warn_convergence=False
    )


class _Results(GenericLikelihoodModelResults):  # type: ignore[misc] # statsmodels has no types
    def __init__(self, model: GroupedLikelihood, fitted: object) -> None:
        super().__init__(model, fitted)
        # statsmodels counts rows; a row stands for several customers.
        self.nobs = int(model.rows.customers)
        self.df_resid = self.nobs - self.df_model


class GroupedLikelihood(GenericLikelihoodModel):  # type: ignore[misc] # statsmodels has no types
    """A model of kiki in statsmodels' terms: parameters on their own scale, a row of data for each group."""

    def __init__(self, model: Model, data: Data, prior: Prior | None) -> None:
        self.model, self.rows, self.at = model, data, objective(model, data, prior)
        size, count = data.weight.size, len(model.NAMES)
        super().__init__(endog=np.asarray(data.weight), exog=np.ones((size, count)), hasconst=False)
        self.data.xnames = list(model.NAMES)
        self.df_model, self.df_resid = count, size - count
        self.results_class = _Results

    def loglike(self, params: Floats) -> float:
        """The logarithm of the likelihood over all customers."""
        values, _ = self.model.log_likelihood(np.log(params), self.rows)
        return float(self.rows.weight @ values)

    def loglikeobs(self, params: Floats) -> Floats:
        """That of each group, times its customers."""
        values, _ = self.model.log_likelihood(np.log(params), self.rows)
        return self.rows.weight * values

    def score(self, params: Floats) -> Floats:
        """The gradient in the parameters."""
        return -self.at(np.log(params)).gradient * self.rows.customers / params

    def hessian(self, params: Floats) -> Floats:
        """The Hessian in the parameters, at an optimum: the gradient in their logarithms, 0 there, drops out."""
        return -self.at(np.log(params)).hessian * self.rows.customers / np.outer(params, params)


def _profiles(name: str, model: Model, fit: Fit, data: Data, prior: Prior | None) -> SimpleTable:
    ends = profile_intervals(model, data, fit, prior=prior)
    rows = [[f"{fit.parameters[each]:.4g}", f"{low:.4g}", f"{high:.4g}"] for each, (low, high) in ends.items()]
    return SimpleTable(
        rows,
        headers=["coef", "[0.025", "0.975]"],
        stubs=list(ends),
        title=f"{name}: {_counted(data)}, log likelihood {fit.log_likelihood:.3f}, intervals by profile likelihood",
    )


def _counted(data: Data) -> str:
    return f"{data.customers:,.0f} customers in {data.weight.size:,} groups"
