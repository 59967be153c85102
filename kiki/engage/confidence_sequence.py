"""Intervals that hold at every look at once: peek daily, stop when you like. Pure.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals of Statistics 52(6), 2024;
arXiv 2103.06476), Theorem 2.2, which carries Robbins' normal mixture over to any mean with a finite variance:

    mean_t  ±  sd_t * sqrt( 2 (t r² + 1) / (t² r²) * log( sqrt(t r² + 1) / alpha ) )        for all t at once

where r says at which t the interval is narrowest. Its inversion is the p-value of the mixture sequential probability
ratio test (Robbins 1970; Johari, Koomen, Pekelis and Walsh 2022).
"""

from __future__ import annotations

import math
from functools import cache


@cache
def tuned(persons: int, alpha: float) -> float:
    """The r² that makes the interval narrowest when that many persons are known."""

    def width(product: float) -> float:
        return (product + 1) / product * math.log(math.sqrt(product + 1) / alpha)

    low, high = 1e-3, 1e4
    for _ in range(200):  # the width has one minimum: thirds of a logarithm close in on it
        third = (high / low) ** (1 / 3)
        if width(low * third) < width(high / third):
            high /= third
        else:
            low *= third
    return low / max(persons, 1)


def reach(deviation: float, persons: int, squared: float, alpha: float) -> float:
    """How far the interval goes to each side; infinite where nobody is known."""
    if persons < 1:
        return math.inf
    product = persons * squared
    return deviation * math.sqrt(2 * (product + 1) / (persons * product) * math.log(math.sqrt(product + 1) / alpha))


def always_p(mean: float, deviation: float, persons: int, squared: float) -> float:
    """The p-value of "the mean is zero" that may be looked at every day; the smallest that was seen counts."""
    if persons < 1 or deviation <= 0:
        return 1.0
    product = persons * squared
    exponent = product * persons * (mean / deviation) ** 2 / (2 * (product + 1))
    return min(1.0, math.exp(min(0.0, 0.5 * math.log1p(product) - exponent)))
