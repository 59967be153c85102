"""What a customer's next order is worth: Gamma-Gamma, with what it leaves out.

The papers' form (Fader, Hardie and Lee 2005; Fader and Hardie 2013) takes the repeat orders above zero and supposes that amounts are
independent of how often somebody buys. Here, besides: a chance that an order is free; the first order as evidence, brought
to the level of later ones; a test of the independence; and where that fails, a population whose amounts grow or fall with
the number of purchases. Amounts are float64 in the log's currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
from scipy.special import digamma, erfc, polygamma

from kiki.errors import InvalidInput
from kiki.value import amounts as amounts_model
from kiki.value.amounts import Amounts
from kiki.value.fitting import ESTIMATORS, Fit, maximise
from kiki.value.groups import Floats
from kiki.value.numeric import per_value
from kiki.value.priors import weak
from kiki.value.purchases import Purchases

SIGNIFICANT: Final = 0.01
"""Below this p-value a departure from the papers' form is taken up."""

_STEEPEST: Final = 0.5
"""No more than the square root of the number of purchases: what looks steeper comes from a few odd customers."""


class Posterior(NamedTuple):
    """What is known of each customer's amounts: nu is Gamma(q + p * orders, scale), an order above zero Gamma(p, nu)."""

    orders: Floats
    """Orders above zero that the amounts were seen in."""
    scale: Floats
    """In the currency: the prior's scale, plus what those orders amounted to."""


@dataclass(frozen=True)
class SpendModel:
    """Amounts of orders. Exactly one of `constant` and the three parameters p, q, v is there."""

    p: float | None
    """The shape of one customer's amounts."""
    q: float | None
    """The shape of the customers' differences."""
    v: float | None
    """The scale, in the currency."""
    constant: float | None
    """The one amount of every order above zero, where all are equal; 0 where none is above zero."""
    zero_share: float
    """The share of orders that are free."""
    first_order: float | None
    """First orders are this many times a later one, and are evidence; None where they are not used."""
    frequency_exponent: float
    """The scale v is multiplied by (1 + x) to this power: 0 where amounts are taken to be independent of frequency."""
    independence_statistic: float | None
    """The square of the standardised slope of amounts on ln(1 + x): chi square with one degree of freedom when independent."""
    independence_p_value: float | None
    """Its p-value; None where everybody bought equally often."""
    log_likelihood: float | None
    """Of what was fitted, at p, q, v: the mean amounts, and where first orders are used also their shares (`amounts`)."""
    standard_errors: dict[str, float] | None
    """Of p, q, v; None at a boundary and where amounts are equal."""
    notes: tuple[str, ...] = ()
    """What a reader of the parameters has to know, in words."""

    def __post_init__(self) -> None:
        gamma = (self.p, self.q, self.v)
        if self.constant is None:
            wrong = (
                any(value is None or not np.isfinite(value) or value <= 0 for value in gamma) or not (self.q or 0) > 1
            )
        else:
            wrong = any(value is not None for value in gamma) or not np.isfinite(self.constant) or self.constant < 0
        wrong = wrong or (self.first_order is not None and not 0 < self.first_order < np.inf)
        if wrong or not 0 <= self.zero_share <= 1 or not np.isfinite(self.frequency_exponent):
            raise InvalidInput(
                f"this is no spend model: p, q, v {gamma} are above 0 with q above 1, or there is one constant amount "
                f"({self.constant}); the share of free orders ({self.zero_share}) lies between 0 and 1"
            )

    def posterior(self, purchases: Purchases) -> Posterior:
        """What each customer's orders say about the next; only where amounts differ (`constant` is None)."""
        assert self.v is not None
        if self.first_order is None:
            orders, amount = purchases.positive_repeats, purchases.sum_amount_repeat
        else:
            orders = purchases.positive_orders
            amount = purchases.first_amount / self.first_order + purchases.sum_amount_repeat
        return Posterior(orders.astype(np.float64), self.v * self.grown(purchases) + amount)

    def grown(self, purchases: Purchases) -> Floats:
        """How many times v is the scale of somebody with so many purchases."""
        return _grown(purchases, self.frequency_exponent)

    def expected_amount(self, purchases: Purchases) -> Floats:
        """E[amount of the next order | history], free orders included, one for each customer."""
        if self.constant is not None:
            return np.full(len(purchases), self.constant * (1 - self.zero_share))
        known = self.posterior(purchases)
        return (1 - self.zero_share) * self.mean_positive(known)

    def mean_positive(self, known: Posterior) -> Floats:
        """E[amount of the next order above zero]: equation 5 of the note of 2013, with the scale of `known`."""
        assert self.p is not None
        assert self.q is not None
        return self.p * known.scale / (self.p * known.orders + self.q - 1)

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, for a model file."""
        return asdict(self) | {"notes": list(self.notes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The model that `as_dict` wrote; raises `InvalidInput` for anything else."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"this is no spend model: {error}") from error


def fit_spend(purchases: Purchases, estimator: str = "mle", *, first_order: bool = True) -> SpendModel:
    """The amounts of these customers' orders, by maximum likelihood ("mle") or at the mode under weak priors ("map").

    With `first_order` False it is the papers' form: repeat orders alone, amounts independent of frequency (the test is reported, and
    changes nothing). Otherwise first orders count too, at the level of later ones when the two differ, and v follows the number of
    purchases where independence fails. Where the likelihood's q is 1 or less, which leaves amounts without a mean, the priors
    keep it above 1 and `notes` says so. Raises `InvalidInput` for an unknown estimator.
    """
    if estimator not in ESTIMATORS:
        raise InvalidInput(f"there is no estimator {estimator!r}; the estimators are {', '.join(ESTIMATORS)}")
    notes: list[str] = []
    adjusted = first_order
    if not first_order and not purchases.positive_repeats.any():
        first_order = True
        notes.append("nobody has a repeat order above zero: the amounts are those of first orders")
    zero_share = _zero_share(purchases, first_order)
    amount = _one_amount(purchases, first_order)
    if amount is not None:
        notes.append(
            "no order is above zero" if amount == 0 else "all amounts are equal: revenue is purchases times it"
        )
        return _constant(amount, zero_share if amount else 1.0, notes)
    ratio = None
    if first_order:
        ratio = _first_against_second(purchases) if adjusted else 1.0
        if ratio != 1:
            notes.append(f"first orders are {ratio:.3g} times later ones")
    fit = _fitted(_amounts(purchases, ratio, np.ones(len(purchases))), estimator, notes)
    slope = _slope(fit, purchases, ratio)
    exponent = 0.0
    if adjusted and slope.p_value is not None and slope.p_value < SIGNIFICANT:
        # What chance alone would add to the square of a slope is taken off again.
        exponent = float(np.clip(slope.value * (1 - 1 / slope.statistic), -_STEEPEST, _STEEPEST))
        fit = _fitted(_amounts(purchases, ratio, _grown(purchases, exponent)), estimator, notes)
        notes.append(f"amounts depend on frequency: the scale v is multiplied by (1 + x)^{exponent:.3f}")
    p, q, v = fit.values.tolist()
    return SpendModel(
        p=p,
        q=q,
        v=v,
        constant=None,
        zero_share=zero_share,
        first_order=ratio,
        frequency_exponent=exponent,
        independence_statistic=slope.statistic if slope.p_value is not None else None,
        independence_p_value=slope.p_value,
        log_likelihood=fit.log_likelihood,
        standard_errors=fit.standard_errors,
        notes=tuple(dict.fromkeys([*notes, *fit.notes])),
    )


def _constant(amount: float, zero_share: float, notes: list[str]) -> SpendModel:
    return SpendModel(
        p=None,
        q=None,
        v=None,
        constant=amount,
        zero_share=zero_share,
        first_order=None,
        frequency_exponent=0.0,
        independence_statistic=None,
        independence_p_value=None,
        log_likelihood=None,
        standard_errors=None,
        notes=tuple(notes),
    )


def _zero_share(purchases: Purchases, first_order: bool) -> float:
    if first_order:
        free, orders = int(purchases.zero_orders.sum()), int((purchases.x + 1).sum())
    else:
        free = int((purchases.zero_orders - (purchases.first_micros == 0)).sum())
        orders = int(purchases.x.sum())
    return free / max(orders, 1)


def _one_amount(purchases: Purchases, first_order: bool) -> float | None:
    """The amount of every order above zero, when there is only one; 0 without any such order."""
    repeats = purchases.mean_amount_repeat[purchases.positive_repeats > 0]
    first = purchases.first_amount[purchases.first_micros > 0] if first_order else repeats[:0]
    amounts = np.concatenate([repeats, first])
    if not amounts.size:
        return 0.0
    low, high = float(amounts.min()), float(amounts.max())
    return low if high - low <= 1e-9 * high else None


def _first_against_second(purchases: Purchases) -> float:
    """How many times a later order the first one is, by those who have one of each; 1 where chance explains the difference.

    Of two orders alike the logarithm of the ratio is 0 on average whatever amounts are like, and one enormous order does not rule it.
    """
    both = (purchases.first_micros > 0) & (purchases.positive_repeats == 1)
    if both.sum() < 3:
        return 1.0
    above = np.log(purchases.first_micros[both] / purchases.repeat_micros[both])
    value, error = float(above.mean()), float(above.std() / np.sqrt(above.size))
    return float(np.exp(value)) if _two_sided((value / max(error, 1e-150)) ** 2) < SIGNIFICANT else 1.0


def _grown(purchases: Purchases, exponent: float) -> Floats:
    return np.asarray((1.0 + purchases.x) ** exponent, dtype=np.float64)


def _amounts(purchases: Purchases, ratio: float | None, scale: Floats) -> Amounts:
    """The orders that are evidence, amounts over `scale`; first ones over `ratio`, and left out when it is None."""
    first = np.zeros(len(purchases)) if ratio is None else purchases.first_amount / ratio
    return Amounts.of(first, purchases.sum_amount_repeat, purchases.positive_repeats, scale)


def _fitted(amounts: Amounts, estimator: str, notes: list[str]) -> Fit:
    if estimator == "mle":
        fit = maximise(amounts_model, amounts)
        if fit.parameters["q"] > 1:
            return fit
        notes.append(
            f"the likelihood's q is {fit.parameters['q']:.3g}, which leaves amounts without a mean: fitted with weak priors"
        )
    return maximise(amounts_model, amounts, prior=weak("gamma-gamma", amounts.spending))


class _Slope(NamedTuple):
    value: float
    statistic: float
    p_value: float | None


def _slope(fit: Fit, purchases: Purchases, ratio: float | None) -> _Slope:
    """The weighted regression of ln(mean amount), less what the model expects of it, on ln(1 + x); robust errors."""
    p, q, _ = fit.values
    first = 0 if ratio is None else purchases.first_micros > 0
    orders = purchases.positive_repeats + first
    amount = purchases.sum_amount_repeat + (0 if ratio is None else purchases.first_amount / ratio)
    used = orders > 0
    n, by = orders[used].astype(np.float64), np.log1p(purchases.x[used])
    # ln of a mean of n amounts has the mean psi(p n) - ln n + constant, and the variance psi'(p n) + psi'(q).
    location, spread = per_value(
        n, lambda k: np.stack([digamma(p * k) - np.log(k), polygamma(1, p * k) + polygamma(1, q)])
    )
    left, weight = np.log(amount[used] / n) - location, 1 / spread
    by = by - weight @ by / weight.sum()
    left = left - weight @ left / weight.sum()
    squares = weight @ by**2
    if squares <= 1e-12 * weight.sum() or n.size < 3:
        return _Slope(0.0, 0.0, None)
    value = weight @ (by * left) / squares
    variance = ((weight * by) ** 2 @ (left - value * by) ** 2) / squares**2
    statistic = float(value**2 / max(variance, 1e-300))
    return _Slope(float(value), statistic, _two_sided(statistic))


def _two_sided(statistic: float) -> float:
    """The p-value of a chi square with one degree of freedom."""
    return float(erfc(np.sqrt(statistic / 2)))
