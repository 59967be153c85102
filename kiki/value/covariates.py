"""What is known about customers besides their purchases: covariates of the purchase rate and of dropout. Pure.

Fader and Hardie 2007, "Incorporating Time-Invariant Covariates into the Pareto/NBD and BG/NBD Models": a characteristic z multiplies the
purchase rate by exp(coefficient * z), alpha = alpha_0 exp(-coefficient * z), and likewise the rate of dropout of the Pareto/NBD, or both
parameters of the chance of dropout of the BG/NBD. Customers with equal characteristics share their parameters, so few categories
keep few groups; a characteristic that differs for everybody costs one evaluation of the model for each customer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.count_models import CountModel, count_model
from kiki.value.groups import Floats, Groups, Ints
from kiki.value.numeric import Total
from kiki.value.priors import Prior

_BETA: Final = {"rate": (1, -1.0), "a": (2, 1.0), "b": (3, 1.0)}

EFFECTS: Final[Mapping[str, Mapping[str, tuple[int, float]]]] = {
    "nbd": {"rate": (1, -1.0)},
    "bg-nbd": _BETA,
    "mbg-nbd": _BETA,
    "pareto-nbd": {"rate": (1, -1.0), "dropout": (3, -1.0)},
}
"""What a covariate can act on, by model: the place of the parameter, and the sign with which the coefficient enters its logarithm."""


@dataclass(frozen=True)
class Coding:
    """How columns of characteristics become numbers: learned from one log, applied to any other.

    A number is standardised, so that a coefficient is for one standard deviation; of words, each but the most frequent one
    gets a column of 0 and 1.
    """

    numbers: dict[str, tuple[float, float]]
    """The mean and the standard deviation of each number."""
    words: dict[str, list[str]]
    """The words of each column of words, the most frequent one first."""

    @classmethod
    def of(cls, columns: Mapping[str, npt.ArrayLike]) -> Self:
        """The coding of these columns, one value a customer; raises `InvalidInput` for a missing value, or for one that never differs."""
        numbers: dict[str, tuple[float, float]] = {}
        words: dict[str, list[str]] = {}
        for name, column in columns.items():
            values = _column(name, column)
            if values.dtype == np.float64:
                numbers[name] = float(values.mean()), float(values.std())
                differs = bool((values != values[0]).any())
            else:
                distinct, counts = np.unique(values, return_counts=True)
                words[name] = [str(word) for word in distinct[np.argsort(-counts, kind="stable")]]
                differs = distinct.size > 1
            if not differs:
                raise InvalidInput(
                    f"{name} is the same for every customer: it cannot explain a difference; leave it out"
                )
        if not columns:
            raise InvalidInput("there are no covariates: give at least one column")
        return cls(numbers, words)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers that `encode` gives, in their order."""
        return (*self.numbers, *(f"{name}={word}" for name, words in self.words.items() for word in words[1:]))

    def encode(self, columns: Mapping[str, npt.ArrayLike]) -> Floats:
        """Shape (customers, names); raises `InvalidInput` for a column or a word that the coding does not know."""
        if set(columns) != {*self.numbers, *self.words}:
            raise InvalidInput(
                f"the covariates are {', '.join(sorted({*self.numbers, *self.words}))}, not {', '.join(sorted(columns))}"
            )
        coded = []
        for name, (mean, deviation) in self.numbers.items():
            values = _column(name, columns[name])
            if values.dtype != np.float64:
                raise InvalidInput(f"{name} is a column of numbers, not of words")
            coded.append((values - mean) / deviation)
        for name, words in self.words.items():
            found = _column(name, columns[name]).astype(str)
            unknown = np.flatnonzero(~np.isin(found, words))
            if unknown.size:
                raise InvalidInput(
                    f"row {int(unknown[0])}: {name} is {str(found[unknown[0]])!r}, the model knows {', '.join(words)}"
                )
            coded += [(found == word).astype(np.float64) for word in words[1:]]
        if len({column.size for column in coded}) != 1:
            raise InvalidInput("the covariates are columns of one length")
        return np.stack(coded, axis=1)


def _column(name: str, column: npt.ArrayLike) -> npt.NDArray[Any]:
    """As float64, or as text; nothing may be missing."""
    values = np.asarray(column)
    if values.ndim != 1 or not values.size:
        raise InvalidInput(f"{name} is one column with a value for each customer")
    if values.dtype.kind in "biuf":
        values = values.astype(np.float64)
        missing = ~np.isfinite(values)
    else:
        missing = np.array([not isinstance(value, str) or not value for value in values.tolist()])
        values = values.astype(str)
    if missing.any():
        raise InvalidInput(
            f"row {int(np.flatnonzero(missing)[0])}: {name} is missing; fill it, or give it a word of its own "
            f"({int(missing.sum())} such rows)"
        )
    return values


class Strata(NamedTuple):
    """Customers with equal characteristics together, in groups of equal histories."""

    z: Floats
    """The characteristics, shape (strata, names)."""
    groups: tuple[Groups, ...]
    """The histories of each stratum."""

    @classmethod
    def collapse(
        cls, x: npt.ArrayLike, tx_days: npt.ArrayLike, t_days: npt.ArrayLike, z: Floats, unit: str = "week"
    ) -> tuple[Self, Ints]:
        """As `Groups.collapse`, by characteristics too: for each customer the place among all groups, stratum after stratum."""
        if z.ndim != 2 or np.shape(x) != z.shape[:1]:
            raise InvalidInput("frequency, recency, age and covariates have one row for each customer")
        distinct, stratum = np.unique(z, axis=0, return_inverse=True)
        return cls.split(x, tx_days, t_days, stratum.reshape(-1), distinct, unit)

    @classmethod
    def split(
        cls,
        x: npt.ArrayLike,
        tx_days: npt.ArrayLike,
        t_days: npt.ArrayLike,
        stratum: Ints,
        z: Floats,
        unit: str = "week",
    ) -> tuple[Self, Ints]:
        """The same where it is known which row of `z` each customer belongs to; every row has a customer."""
        frequency, recency, age = np.asarray(x), np.asarray(tx_days), np.asarray(t_days)
        if not (frequency.shape == recency.shape == age.shape == stratum.shape):
            raise InvalidInput("frequency, recency, age and covariates have one row for each customer")
        order = np.argsort(stratum, kind="stable")
        index = np.empty(stratum.size, dtype=np.int64)
        found, place = [], 0
        for rows in np.split(order, np.cumsum(np.bincount(stratum))[:-1]):
            groups, inside = Groups.collapse(frequency[rows], recency[rows], age[rows], unit)
            index[rows] = inside + place
            place += groups.x.size
            found.append(groups)
        return cls(z, tuple(found)), index

    @property
    def weight(self) -> Floats:
        """How many customers each group stands for, stratum after stratum."""
        return np.concatenate([groups.weight for groups in self.groups])

    @property
    def customers(self) -> float:
        """How many customers there are."""
        return float(self.weight.sum())

    @property
    def together(self) -> Groups:
        """All groups, without their characteristics."""
        return Groups(*(np.concatenate(columns) for columns in zip(*self.groups, strict=True)))

    def coarse(self) -> Strata:
        """A copy with fewer groups in each stratum: close enough to begin a fit from."""
        if all(groups.coarse() is groups for groups in self.groups):
            return self
        return Strata(self.z, tuple(groups.coarse() for groups in self.groups))


@dataclass(frozen=True)
class WithCovariates:
    """A count model whose parameters depend on covariates; its functions are those of the model, over `Strata`.

    Parameters are those of the model for z = 0, and for each effect and covariate the factor exp(coefficient): 1.2 for
    "rate:channel=web" says that these customers buy 20 % more often.
    """

    name: str
    """The count model, a key of `EFFECTS`."""
    covariates: tuple[str, ...]
    only: tuple[str, ...] | None = None
    """The effects that covariates have, of those in `EFFECTS`; None for all."""

    def __post_init__(self) -> None:
        if self.name not in EFFECTS:
            raise InvalidInput(f"{self.name} takes no covariates; {', '.join(EFFECTS)} do")
        if not self.covariates:
            raise InvalidInput("there are no covariates: fit the model without them")
        unknown = set(self.only or ()) - set(EFFECTS[self.name])
        if unknown:
            raise InvalidInput(
                f"covariates of {self.name} act on {', '.join(EFFECTS[self.name])}, not on {', '.join(sorted(unknown))}"
            )

    @property
    def effects(self) -> Mapping[str, tuple[int, float]]:
        """The effects that covariates have: as in `EFFECTS`."""
        all_effects = EFFECTS[self.name]
        return all_effects if self.only is None else {effect: all_effects[effect] for effect in self.only}

    @property
    def model(self) -> CountModel:
        """The count model itself."""
        return count_model(self.name)

    @property
    def NAMES(self) -> tuple[str, ...]:  # noqa: N802 - what every model calls it
        """The model's parameters, then effect:covariate."""
        factors = (f"{effect}:{covariate}" for effect in self.effects for covariate in self.covariates)
        return (*self.model.NAMES, *factors)

    def start(self, strata: Strata) -> Floats:
        """Parameters to begin from: no covariate matters."""
        factors = len(self.effects) * len(self.covariates)
        return np.concatenate([self.model.start(strata.together), np.ones(factors)])

    def ridge(self, spread: float = 1.0, prior: Prior | None = None) -> Prior:
        """The prior under which each coefficient is normal around 0 with the standard deviation `spread`.

        `prior` is one for the model's own parameters, as of `priors.weak`. Raises `InvalidInput` when `spread` is not above 0.
        """
        if not spread > 0:
            raise InvalidInput(f"a spread of {spread:g}: it is above 0")
        own = len(self.model.NAMES)

        def density(theta: Floats) -> tuple[float, Floats]:
            value, gradient = prior(theta[:own]) if prior else (0.0, np.zeros(own))
            pulled = theta[own:] / spread**2
            return value - 0.5 * float(pulled @ theta[own:]), np.concatenate([gradient, -pulled])

        return density

    def log_likelihood(self, theta: Floats, strata: Strata) -> tuple[Floats, Floats]:
        """The value of each group and its gradient, shape (parameters, groups), in the logarithms `theta`."""
        found = []
        for z, groups in zip(strata.z, strata.groups, strict=True):
            chain = self._chain(z)
            value, gradient = self.model.log_likelihood(chain @ theta, groups)
            found.append((value, chain.T @ gradient))
        return np.concatenate([value for value, _ in found]), np.hstack([gradient for _, gradient in found])

    def total(self, theta: Floats, strata: Strata) -> Total:
        """The same over all customers, with the Hessian."""
        value, gradient, hessian = 0.0, np.zeros(theta.size), np.zeros((theta.size, theta.size))
        for z, groups in zip(strata.z, strata.groups, strict=True):
            chain = self._chain(z)
            part = self.model.total(chain @ theta, groups)
            value += part.value
            gradient += chain.T @ part.gradient
            hessian += chain.T @ part.hessian @ chain
        return Total(value, gradient, hessian)

    def _chain(self, z: Floats) -> Floats:
        """The logarithms of a stratum's parameters, as a matrix to multiply `theta` by."""
        own = len(self.model.NAMES)
        chain = np.zeros((own, own + len(self.effects) * z.size))
        chain[:, :own] = np.eye(own)
        for effect, (place, sign) in enumerate(self.effects.values()):
            chain[place, own + effect * z.size : own + (effect + 1) * z.size] = sign * z
        return chain

    def parameters(self, p: Floats, z: Floats) -> Floats:
        """The count model's parameters of customers with the characteristics `z`, shape (names,)."""
        return np.exp(self._chain(np.asarray(z, dtype=np.float64)) @ np.log(p))

    def alive(self, p: Floats, strata: Strata) -> Floats:
        """P(alive at the end of calibration | history), shape (groups,)."""
        return np.concatenate([self.model.alive(own, groups) for own, groups in self._strata(p, strata)])

    def expected(self, p: Floats, h: float, strata: Strata) -> Floats:
        """E[purchases in the next `h` units | history], shape (groups,)."""
        return np.concatenate([self.model.expected(own, h, groups) for own, groups in self._strata(p, strata)])

    def expected_new(self, p: Floats, t: Floats, z: Floats) -> Floats:
        """E[X(t)]: repeat purchases of a new customer with the characteristics `z` until age `t`, in the shape of `t`."""
        return self.model.expected_new(self.parameters(p, z), t)

    def pmf(self, p: Floats, h: float, strata: Strata, n_max: int) -> Floats:
        """P(n purchases in the next `h` units | history), n = 0 ... `n_max`: shape (groups, n_max + 1)."""
        return np.concatenate([self.model.pmf(own, h, groups, n_max) for own, groups in self._strata(p, strata)])

    def no_purchase(self, p: Floats, h: float, strata: Strata) -> Floats:
        """P(no purchase in the next `h` units | history), shape (groups,)."""
        return np.concatenate([self.model.no_purchase(own, h, groups) for own, groups in self._strata(p, strata)])

    def _strata(self, p: Floats, strata: Strata) -> list[tuple[Floats, Groups]]:
        return [(self.parameters(p, z), groups) for z, groups in zip(strata.z, strata.groups, strict=True)]
