"""The models of how many purchases a customer makes, by the names that users give. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, mbg_nbd, nbd, pareto_nbd
from kiki.value.groups import Floats, Groups
from kiki.value.mbg_cnbd_k import K_MAX, of
from kiki.value.numeric import Total


class CountModel(Protocol):
    """What every model of counts can say; the modules fulfil it. `p` are parameters in the order of `NAMES`."""

    @property
    def NAMES(self) -> tuple[str, ...]:  # noqa: N802 - a constant of each model
        """The literature's names of the parameters."""
        ...

    def start(self, groups: Groups, /) -> Floats:
        """Parameters to begin a fit from."""
        ...

    def log_likelihood(self, theta: Floats, groups: Groups, /) -> tuple[Floats, Floats]:
        """The value of each group and its gradient, shape (parameters, groups), in the logarithms `theta`."""
        ...

    def total(self, theta: Floats, groups: Groups, /) -> Total:
        """The same over all customers, with the Hessian."""
        ...

    def alive(self, p: Floats, groups: Groups, /) -> Floats:
        """P(alive at the end of calibration | history), shape (groups,)."""
        ...

    def expected(self, p: Floats, h: float, groups: Groups, /) -> Floats:
        """E[purchases in the next `h` units | history], shape (groups,)."""
        ...

    def expected_new(self, p: Floats, t: Floats, /) -> Floats:
        """E[X(t)]: repeat purchases of a new customer until age `t`, in the shape of `t`."""
        ...

    def pmf(self, p: Floats, h: float, groups: Groups, n_max: int, /) -> Floats:
        """P(n purchases in the next `h` units | history), n = 0 ... `n_max`: shape (groups, n_max + 1)."""
        ...

    def no_purchase(self, p: Floats, h: float, groups: Groups, /) -> Floats:
        """P(no purchase in the next `h` units | history), shape (groups,)."""
        ...


COUNT_MODELS: Final[Mapping[str, CountModel]] = MappingProxyType(
    {"nbd": nbd, "bg-nbd": bg_nbd, "mbg-nbd": mbg_nbd, "pareto-nbd": pareto_nbd}
)
"""Those without a choice in them. MBG/CNBD-k is a model for each k, called `regular_name(k)`."""

_REGULAR: Final = "mbg-cnbd-"


def count_model(name: str) -> CountModel:
    """The model of that name, a key of `COUNT_MODELS` or a `regular_name`; raises `InvalidInput` for others."""
    if name in COUNT_MODELS:
        return COUNT_MODELS[name]
    k = name.removeprefix(_REGULAR)
    if k != name and k in map(str, range(1, K_MAX + 1)):
        return of(int(k))
    names = ", ".join([*COUNT_MODELS, f"{regular_name(1)} ... {regular_name(K_MAX)}"])
    hint = "kiki.value.regularity chooses k" if name == _REGULAR + "k" else None
    raise InvalidInput(f"there is no model {name!r}; the models are {names}", hint=hint)


def regular_name(k: int) -> str:
    """The name of MBG/CNBD-k for this k."""
    return f"{_REGULAR}{k}"
