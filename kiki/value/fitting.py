"""Parameters of a model by maximum likelihood, or at the mode when a prior is given, with exact gradients.

Two stages: L-BFGS on a coarse copy of the groups, then a few quasi-Newton steps on all of them that begin with the
curvature of the coarse copy. The start comes from moments, so equal data give equal parameters. All work is done in the
logarithms of the parameters; what the caller gets is on the parameters' own scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np
from scipy.optimize import minimize

from kiki.value.groups import Floats, Groups

Prior = Callable[[Floats], tuple[float, Floats]]
"""The logarithm of a prior density at the logarithms of the parameters, and its gradient."""

Objective = Callable[[Floats], tuple[float, Floats]]

TOLERANCE: Final = 1e-7
"""A fit has converged when no element of the gradient, a customer, is larger than this."""

_EDGE: Final = 9.0
"""How far the logarithm of a parameter may go from its start before the parameter counts as having run away."""


class Model(Protocol):
    """What can be fitted; a module fulfils it as well as an object does."""

    @property
    def NAMES(self) -> tuple[str, ...]:  # noqa: N802 - a constant of each model
        """The literature's names of the parameters."""
        ...

    def start(self, groups: Groups, /) -> Floats:
        """Parameters to begin from."""
        ...

    def log_likelihood(self, theta: Floats, groups: Groups, /) -> tuple[Floats, Floats]:
        """The value of each group and its gradient, shape (parameters, groups), in the logarithms `theta`."""
        ...


class Fit(NamedTuple):
    """What was found, and how far it can be trusted."""

    parameters: dict[str, float]
    """Under the literature's names."""
    log_likelihood: float
    """Of the data alone, at the parameters, over all customers; a prior is not in it."""
    gradient_max: float
    """The largest element of the gradient of the mean over customers, in log parameters."""
    covariance: Floats | None
    """Of the parameters in their order; None where a Laplace approximation would mislead."""
    standard_errors: dict[str, float] | None
    """The roots of the covariance's diagonal, by name."""
    at_boundary: list[str]
    """Parameters that ran away: the data do not tell where they are."""
    notes: list[str]
    """What a reader of the parameters has to know, in words."""
    seconds: float
    """How long the fit took."""

    @property
    def values(self) -> Floats:
        """The parameters as the array that a model's functions take."""
        return np.array(list(self.parameters.values()))

    @property
    def converged(self) -> bool:
        """Whether the gradient vanished to within `TOLERANCE`."""
        return self.gradient_max <= TOLERANCE


def maximise(model: Model, groups: Groups, *, prior: Prior | None = None) -> Fit:
    """The parameters of `model` under which `groups` are most likely, times the prior if there is one."""
    began = time.perf_counter()
    first = np.log(model.start(groups))
    small = groups.coarse()
    bounds = [(value - _EDGE, value + _EDGE) for value in first]
    rough = minimize(_objective(model, small, prior), first, jac=True, method="L-BFGS-B", bounds=bounds).x
    whole = _objective(model, groups, prior)
    theta = _polished(whole, rough, _curvature(_objective(model, small, prior), rough), first)
    slope = whole(theta)[1]
    if np.abs(slope).max() > TOLERANCE:
        found = minimize(
            whole, theta, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": TOLERANCE}
        ).x
        theta = _polished(whole, found, _curvature(whole, found), first)
        slope = whole(theta)[1]
    values, _ = model.log_likelihood(theta, groups)
    return _described(
        model,
        theta,
        log_likelihood=float(groups.weight @ values),
        gradient_max=float(np.abs(slope).max()),
        edges=np.abs(theta - first) > _EDGE - 1,
        information=_curvature(whole, theta) * groups.customers,
        seconds=time.perf_counter() - began,
    )


def _described(
    model: Model,
    theta: Floats,
    *,
    log_likelihood: float,
    gradient_max: float,
    edges: np.typing.NDArray[np.bool_],
    information: Floats,
    seconds: float,
) -> Fit:
    names, values = model.NAMES, np.exp(theta)
    at_boundary = [name for name, out in zip(names, edges, strict=True) if out]
    notes = []
    covariance = None
    if at_boundary:
        notes.append(
            f"{', '.join(at_boundary)} ran to the edge: the data do not identify them, so there are no standard errors; "
            "compare with the NBD, which needs no dropout"
        )
    elif float(np.linalg.eigvalsh(information).min()) <= 1e-9 * float(np.abs(information).max()):
        notes.append("the likelihood is flat in some direction: there are no standard errors")
    else:
        covariance = np.linalg.inv(information) * np.outer(values, values)
    if gradient_max > TOLERANCE:
        notes.append(f"not converged: the largest gradient is {gradient_max:.1e}, {TOLERANCE:.0e} is asked for")
    errors = None
    if covariance is not None:
        errors = dict(zip(names, np.sqrt(np.diag(covariance)).tolist(), strict=True))
    parameters = dict(zip(names, values.tolist(), strict=True))
    return Fit(parameters, log_likelihood, gradient_max, covariance, errors, at_boundary, notes, seconds)


def _objective(model: Model, groups: Groups, prior: Prior | None) -> Objective:
    """Minus the mean over customers, so that a tolerance means the same for every log."""
    customers = groups.customers

    def objective(theta: Floats) -> tuple[float, Floats]:
        values, gradient = model.log_likelihood(theta, groups)
        value, slope = float(groups.weight @ values), gradient @ groups.weight
        if prior is not None:
            density, lean = prior(theta)
            value, slope = value + density, slope + lean
        return -value / customers, -slope / customers

    return objective


def _curvature(objective: Objective, theta: Floats) -> Floats:
    """The Hessian, by central differences of the exact gradient."""
    step = 1e-4
    rows = [
        (objective(theta + step * unit)[1] - objective(theta - step * unit)[1]) / (2 * step)
        for unit in np.eye(theta.size)
    ]
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2


def _polished(objective: Objective, theta: Floats, hessian: Floats, first: Floats) -> Floats:
    """Quasi-Newton steps (BFGS) from a good start with a good Hessian, inside of the edges."""
    values, vectors = np.linalg.eigh(hessian)
    inverse = (vectors / np.maximum(np.abs(values), 1e-6)) @ vectors.T
    value, slope = objective(theta)
    for _ in range(25):
        if np.abs(slope).max() <= TOLERANCE / 10:
            break
        step = -inverse @ slope
        step *= min(1.0, 2.0 / float(np.abs(step).max()))
        for _ in range(20):
            tried = np.clip(theta + step, first - _EDGE, first + _EDGE)
            new_value, new_slope = objective(tried)
            # Near the optimum values differ by rounding only; there the gradient decides.
            if new_value < value or (new_value <= value + 1e-14 and np.abs(new_slope).max() < np.abs(slope).max()):
                break
            step = step / 2
        else:
            break
        moved, turned = tried - theta, new_slope - slope
        along = float(moved @ turned)
        if along > 1e-300:
            left = np.eye(theta.size) - np.outer(moved, turned) / along
            inverse = left @ inverse @ left.T + np.outer(moved, moved) / along
        theta, value, slope = tried, new_value, new_slope
    return theta
