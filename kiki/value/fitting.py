"""Parameters of a model by maximum likelihood, or at the mode when a prior is given, with exact gradients.

Newton steps, first on a coarse copy of the data, then a few on all of it. The start comes from moments, so equal data
give equal parameters. All work is done in the logarithms of the parameters; what the caller gets is on the parameters' own
scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.count_models import CountModel, count_model
from kiki.value.groups import Floats, Groups
from kiki.value.numeric import Total
from kiki.value.priors import Prior, weak

ESTIMATORS: Final = ("mle", "map")

TOLERANCE: Final = 1e-7
"""A fit has converged when no element of the gradient, a customer, is larger than this."""

NO_DROPOUT: Final = 1.92
"""A smaller gain in log likelihood is no evidence of dropout: half of the 95 % point of chi square, one degree of freedom."""

NO_DROPOUT_AT_EDGE: Final = 4.61
"""The same where the fit is at an edge, and the theory behind it no help: half of the 99 % point, two degrees of freedom."""

UNKNOWN: Final = 2.0
"""A direction, of the parameters' logarithms, with a larger standard error than this is not identified."""

_PART: Final = 0.3
"""A parameter with a smaller share than this in a direction, which is of length 1, is hardly moved by it."""

EDGE: Final = 8.0
"""How far the logarithm of a parameter may go from its start."""

_STRIDE: Final = 2.0
"""How far it may go in one step."""


class Model(Protocol):
    """What can be fitted; a module fulfils it as well as an object does.

    One that also has `total(theta, data) -> numeric.Total` is fitted by its exact Hessian; for others the Hessian comes from
    differences of the gradient, at several times the cost. What its `remarks(parameters)` say, if it has any, is noted in the fit.
    """

    @property
    def NAMES(self) -> tuple[str, ...]:  # noqa: N802 - a constant of each model
        """The literature's names of the parameters."""
        ...

    def start(self, data: Any, /) -> Floats:
        """Parameters to begin from."""
        ...

    def log_likelihood(self, theta: Floats, data: Any, /) -> tuple[Floats, Floats]:
        """The value of each row and its gradient, shape (parameters, rows), in the logarithms `theta`."""
        ...


class Data(Protocol):
    """What a model is fitted to: rows that stand for several customers each, as `Groups` are."""

    @property
    def weight(self) -> Floats:
        """How many customers a row stands for."""
        ...

    @property
    def customers(self) -> float:
        """How many customers there are."""
        ...

    def coarse(self) -> Data:
        """Fewer rows, close enough to begin a fit from."""
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
    """Parameters that ran away or are nearly free: the data do not tell where they are."""
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


class CountFit(NamedTuple):
    """A fitted model of counts, which may be simpler than the one that was asked for."""

    name: str
    """The model that was fitted, a key of `COUNT_MODELS`."""
    fit: Fit
    fell_back_from: str | None = None
    """The model that was asked for, where the data do not show its dropout; else None."""


def fit_count(name: str, groups: Groups, estimator: str = "mle") -> CountFit:
    """The model called `name` by maximum likelihood ("mle"), or at the mode under weak priors ("map").

    Where dropout raises the log likelihood by less than `NO_DROPOUT` above the NBD's, or than `NO_DROPOUT_AT_EDGE` at an
    edge, the data do not show any: the answer is the NBD, and says so. Dropout that is plain but the same for everybody
    (s and beta, or a and b, grow together without end) is kept, with its parameters named in `at_boundary`: without it
    everybody who left would be expected back. Raises `InvalidInput` for an unknown name or estimator, and when nobody
    was observed for any time.
    """
    model = count_model(name)
    if estimator not in ESTIMATORS:
        raise InvalidInput(f"there is no estimator {estimator!r}; the estimators are {', '.join(ESTIMATORS)}")
    require_observed(groups)
    plain = _estimated("nbd", count_model("nbd"), groups, estimator)
    if name == "nbd":
        return CountFit(name, plain)
    fit = _estimated(name, model, groups, estimator)
    gain = fit.log_likelihood - plain.log_likelihood
    least = NO_DROPOUT_AT_EDGE if fit.at_boundary else NO_DROPOUT
    if gain >= least:
        return CountFit(name, fit)
    said = (
        f"dropout is not identified: {name} gains {gain:.2f} in log likelihood over nbd, and less than {least:.2f} may be "
        "chance; nbd was fitted instead"
    )
    return CountFit("nbd", plain._replace(notes=[*plain.notes, said]), fell_back_from=name)


def require_observed(groups: Groups) -> None:
    """Raise `InvalidInput` when nobody was observed for any time: every parameter fits as well as any other."""
    if not float(groups.t.max()) > 0:
        raise InvalidInput(
            "every age is 0: no customer was observed after the first purchase; calibrate to a later day"
        )


def _estimated(name: str, model: CountModel, groups: Groups, estimator: str) -> Fit:
    return maximise(model, groups, prior=weak(name, groups) if estimator == "map" else None)


def maximise(model: Model, data: Data, *, prior: Prior | None = None) -> Fit:
    """The parameters of `model` under which `data` are most likely, times the prior if there is one."""
    began = time.perf_counter()
    first = np.log(model.start(data))
    small = data.coarse()
    theta, customers = first, data.customers
    if small is not data:
        theta, _ = minimised(objective(model, small, prior), first, customers)
    theta, point = minimised(objective(model, data, prior), first, customers, begin=theta)
    edges = np.abs(theta - first) >= EDGE - 1e-9
    free = np.where(_held(theta, first, point), 0.0, point.gradient)
    seen = objective(model, data)(theta) if prior else point
    vague = _vague(seen.hessian * customers, edges) | _vague(point.hessian * customers, edges)
    remarks: Callable[[Floats], list[str]] | None = getattr(model, "remarks", None)
    return _described(
        dict(zip(model.NAMES, np.exp(theta).tolist(), strict=True)),
        log_likelihood=-seen.value * customers,
        gradient_max=float(np.abs(free).max()),
        at_boundary=[name for name, unknown in zip(model.NAMES, edges | vague, strict=True) if unknown],
        information=point.hessian * customers,
        remarks=remarks(np.exp(theta)) if remarks else [],
        began=began,
    )


class Point(NamedTuple):
    """Minus the mean over customers, so that a tolerance means the same for every log."""

    value: float
    gradient: Floats
    hessian: Floats


Objective = Callable[[Floats], Point]


def objective(model: Model, data: Data, prior: Prior | None = None) -> Objective:
    """What is to be minimised over the logarithms of the parameters."""
    customers = data.customers
    exact: Callable[[Floats, Data], Total] | None = getattr(model, "total", None)

    def slope(theta: Floats) -> Floats:
        return np.asarray(model.log_likelihood(theta, data)[1] @ data.weight)

    def point(theta: Floats) -> Point:
        if exact:
            value, gradient, hessian = exact(theta, data)
        else:
            values, slopes = model.log_likelihood(theta, data)
            value, gradient, hessian = float(data.weight @ values), slopes @ data.weight, _differences(slope, theta)
        if prior:
            density, lean = prior(theta)
            value, gradient = value + density, gradient + lean
            hessian = hessian + _differences(lambda at: prior(at)[1], theta)
        return Point(-value / customers, -gradient / customers, -hessian / customers)

    return point


def _differences(gradient: Callable[[Floats], Floats], theta: Floats) -> Floats:
    """The Hessian, by central differences of the exact gradient."""
    step = 1e-4
    rows = [(gradient(theta + step * unit) - gradient(theta - step * unit)) / (2 * step) for unit in np.eye(theta.size)]
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2


def minimised(
    function: Objective, first: Floats, customers: float, begin: Floats | None = None
) -> tuple[Floats, Point]:
    """Newton steps downhill from `begin` or `first`, no parameter further than `EDGE` from `first`."""
    theta = first if begin is None else begin
    point = function(theta)
    for _ in range(100):
        slope = np.where(_held(theta, first, point), 0.0, point.gradient)
        # The last steps square the error and cost little; along a ridge they would go on and on.
        vague = float(np.linalg.eigvalsh(point.hessian)[0]) * customers < UNKNOWN**-2
        if np.abs(slope).max() <= (TOLERANCE if vague else TOLERANCE / 100):
            break
        step = _step(theta, first, slope, point.hessian)
        if not step.any():
            break
        gain = -float(slope @ step)
        for _ in range(30):
            new = function(theta + step)
            # Near the optimum values differ by rounding only; there the gradient decides.
            calmer = np.abs(np.where(slope == 0, 0.0, new.gradient)).max() < np.abs(slope).max()
            if new.value < point.value - 1e-4 * gain or (
                new.value <= point.value + 1e-13 * abs(point.value) and calmer
            ):
                break
            step, gain = step / 2, gain / 2
        else:
            break
        theta, point = theta + step, new
    return theta, point


def _held(theta: Floats, first: Floats, point: Point) -> npt.NDArray[np.bool_]:
    """Which parameters are at an edge and would go on."""
    return _outward(theta, first, -point.gradient)


def _outward(theta: Floats, first: Floats, step: Floats) -> npt.NDArray[np.bool_]:
    """Which parameters are at an edge that this step would cross."""
    moved = theta - first
    return ((moved <= 1e-9 - EDGE) & (step < 0)) | ((moved >= EDGE - 1e-9) & (step > 0))


def _step(theta: Floats, first: Floats, slope: Floats, hessian: Floats) -> Floats:
    """The Newton step inside of the edges: what would cross one stays, and the others are solved for again."""
    step = _newton(slope, hessian)
    for _ in range(theta.size):
        out = _outward(theta, first, step)
        if not out.any():
            break
        slope = np.where(out, 0.0, slope)
        step = _newton(slope, hessian)
    room = np.where(step > 0, first + EDGE - theta, theta - first + EDGE)
    share = np.divide(room, np.abs(step), out=np.ones_like(step), where=step != 0)
    # The whole step is shortened: to cut off one parameter alone would leave the ridge.
    return np.asarray(step * min(1.0, float(share.min())))


def _newton(slope: Floats, hessian: Floats) -> Floats:
    """The Newton step with curvatures made positive, which goes downhill from a saddle too; no slope, no step."""
    free = np.where(slope == 0, 0.0, 1.0)
    values, vectors = np.linalg.eigh(hessian * np.outer(free, free) + np.diag(1 - free))
    along = vectors.T @ slope / np.maximum(np.abs(values), 1e-12)
    step = -vectors @ along * free
    return np.asarray(step * min(1.0, _STRIDE / max(float(np.abs(step).max()), 1e-300)))


def _described(
    parameters: dict[str, float],
    *,
    log_likelihood: float,
    gradient_max: float,
    at_boundary: list[str],
    information: Floats,
    remarks: list[str],
    began: float,
) -> Fit:
    values = np.array(list(parameters.values()))
    notes = list(remarks)
    covariance, errors = None, None
    if at_boundary:
        notes.append(
            f"{', '.join(at_boundary)}: the data do not tell where they are (a ridge or an edge), so there are no standard "
            "errors; what they imply together may still be well known"
        )
    else:
        covariance = np.asarray(np.linalg.inv(information) * np.outer(values, values), dtype=np.float64)
        errors = dict(zip(parameters, np.sqrt(np.diag(covariance)).tolist(), strict=True))
    if gradient_max > TOLERANCE:
        notes.append(f"not converged: the largest gradient is {gradient_max:.1e}, {TOLERANCE:.0e} is asked for")
    seconds = time.perf_counter() - began
    return Fit(parameters, log_likelihood, gradient_max, covariance, errors, at_boundary, notes, seconds)


def _vague(information: Floats, edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which parameters take part in a direction of which `information`, in logarithms, says nearly nothing.

    Where a standard error is `UNKNOWN` or more, in logarithms, the likelihood is no parabola over that range. At an edge
    the flattest direction is the ridge that led there.
    """
    values, vectors = np.linalg.eigh(information)
    flat = values < UNKNOWN**-2
    flat[0] |= edges.any()
    return np.asarray((np.abs(vectors) > _PART)[:, flat].any(axis=1))
