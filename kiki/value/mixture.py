"""Several count models, weighed: what `auto` stacks, and with one part what a named model is. Pure.

A mixture is a distribution over outcomes: a chance or an expectation of it is the weighted mean of its parts', and so is its pmf.
Times are in the unit that the parts were fitted in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.count_models import CountModel, count_model
from kiki.value.groups import Floats, Groups

Part = tuple[str, Floats, float]
"""The name of a model in `COUNT_MODELS`, its parameters in the order of its `NAMES`, its weight."""

_MEMORYLESS: Final = frozenset({"nbd", "bg-nbd", "mbg-nbd", "pareto-nbd"})
"""Given that a customer is alive, what these expect of him does not depend on how long ago he bought."""

_DISCOUNTED_TO: Final = 1e-3
"""A monthly sum ends where a purchase counts this little."""

_MONTHS: Final = 1200


@dataclass(frozen=True, eq=False)
class Mixture:
    """Parts with weights above 0 that sum to 1; every array it answers has one row a group."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        weights = np.array([weight for _, _, weight in self.parts], dtype=np.float64)
        if not weights.size or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise InvalidInput(f"the weights of a mixture are 0 or more and not all 0, not {weights.tolist()}")
        parts = tuple(
            (name, _parameters(name, values), float(weight / weights.sum()))
            for name, values, weight in self.parts
            if weight > 0
        )
        object.__setattr__(self, "parts", parts)

    @classmethod
    def of(cls, name: str, parameters: npt.ArrayLike) -> Self:
        """One model alone."""
        return cls(((name, np.asarray(parameters, dtype=np.float64), 1.0),))

    def alive(self, groups: Groups) -> Floats:
        """P(alive at the end of the calibration | history)."""
        return self._mean(lambda model, p: model.alive(p, groups))

    def expected(self, h: float, groups: Groups) -> Floats:
        """E[purchases in the next `h` units | history]."""
        return self._mean(lambda model, p: model.expected(p, h, groups))

    def expected_new(self, t: npt.ArrayLike) -> Floats:
        """E[X(t)]: repeat purchases of a new customer until age `t`, in the shape of `t`."""
        ages = np.asarray(t, dtype=np.float64)
        return self._mean(lambda model, p: model.expected_new(p, ages))

    def pmf(self, h: float, groups: Groups, n_max: int) -> Floats:
        """P(n purchases in the next `h` units | history), n = 0 ... `n_max`: shape (groups, n_max + 1)."""
        return self._mean(lambda model, p: model.pmf(p, h, groups, n_max))

    def no_purchase(self, h: float, groups: Groups) -> Floats:
        """P(no purchase in the next `h` units | history)."""
        return self._mean(lambda model, p: model.no_purchase(p, h, groups))

    def discounted(self, groups: Groups, rate: float, *, month: float) -> Floats:
        """Expected purchases after the calibration without an end, discounted by the continuous `rate` a unit (above 0).

        By the closed form where a part has one (`closed_form`); else by a sum over months of `month` units, each in its middle,
        until a purchase counts less than a thousandth.
        """
        if not (np.isfinite(rate) and rate > 0):
            raise InvalidInput(
                f"a discount rate is above 0, not {rate}: without one, sums without an end have no value"
            )

        def value(model: CountModel, p: Floats) -> Floats:
            closed = getattr(model, "discounted", None)
            return closed(p, groups, rate) if closed else _by_month(model, p, groups, rate, month)

        return self._mean(value)

    @property
    def closed_form(self) -> bool:
        """Whether every part has a closed form of its discounted purchases."""
        return all(hasattr(count_model(name), "discounted") for name, _, _ in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, for a model file."""
        return {
            "parts": [
                {
                    "model": name,
                    "parameters": dict(zip(count_model(name).NAMES, values.tolist(), strict=True)),
                    "weight": weight,
                }
                for name, values, weight in self.parts
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The mixture that `as_dict` wrote; raises `InvalidInput` for anything else."""
        try:
            return cls(
                tuple(
                    (
                        part["model"],
                        np.array([part["parameters"][name] for name in count_model(part["model"]).NAMES], dtype=float),
                        float(part["weight"]),
                    )
                    for part in data["parts"]
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"this is no mixture of count models: {error!r}") from error

    def _mean(self, value: Callable[[CountModel, Floats], Floats]) -> Floats:
        total: Floats = sum(  # type: ignore[assignment] # there is always a part, so this is never the int 0
            weight * value(count_model(name), p) for name, p, weight in self.parts
        )
        return np.asarray(total, dtype=np.float64)


def memoryless(name: str) -> bool:
    """Whether the counts of a living customer depend on x and T alone, so that one row serves every recency."""
    return name in _MEMORYLESS


def living_pmf(name: str, p: Floats, h: float, cells: Groups, n_max: int) -> Floats:
    """P(n purchases | x, T, alive) of a memoryless model, n = 0 ... `n_max`, one row for each of the `cells`.

    Taken from the pmf of somebody who bought at the very end, who is as likely alive as anybody can be.
    """
    model = count_model(name)
    recent = cells._replace(tx=np.where(cells.x > 0, cells.t, 0.0))
    alive = np.maximum(model.alive(p, recent), 1e-300)[:, None]
    pmf = model.pmf(p, h, recent, n_max)
    pmf[:, 0] -= 1 - alive[:, 0]
    pmf /= alive
    return np.clip(pmf, 0.0, 1.0, out=pmf)


def _parameters(name: str, values: npt.ArrayLike) -> Floats:
    names = count_model(name).NAMES
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (len(names),) or not np.isfinite(found).all() or (found <= 0).any():
        raise InvalidInput(f"{name} takes {', '.join(names)}, each above 0 and finite, not {found.tolist()}")
    return found


def _by_month(model: CountModel, p: Floats, groups: Groups, rate: float, month: float) -> Floats:
    months = int(np.clip(np.ceil(-np.log(_DISCOUNTED_TO) / (rate * month)), 1, _MONTHS))
    total, before = np.zeros_like(groups.x), np.zeros_like(groups.x)
    for number in range(1, months + 1):
        until = model.expected(p, number * month, groups)
        total += (until - before) * np.exp(-rate * (number - 0.5) * month)
        before = until
    return total
