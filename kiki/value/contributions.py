"""What sets one customer's value apart from the average customer's, in parts that add up to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kiki.value.score_table import ORDER_AMOUNT, PURCHASES, REVENUE


class Contributions(NamedTuple):
    """Parts of an expected revenue v = n a, n purchases of a each: v = V + (a - A) N + (n - N) a, capitals the average's."""

    average: float
    """V: the average customer's expected revenue."""
    spend: float
    """(a - A) N: orders larger or smaller than the average's."""
    purchases: float
    """(n - N) a: more or fewer purchases to come, by how often and how lately somebody bought."""

    @classmethod
    def of(cls, row: Sequence[float], average: Sequence[float]) -> Contributions:
        """The parts of one row of scores."""
        mean, amount = row[PURCHASES][0], _amount(row)
        usual, usual_amount = average[PURCHASES][0], _amount(average)
        return cls(average[REVENUE][0], (amount - usual_amount) * usual, (mean - usual) * amount)

    def shares(self) -> tuple[float, float]:
        """How much of the difference is due to spend and to purchases: two numbers that add up to 1, or to 0."""
        total = abs(self.spend) + abs(self.purchases)
        return (abs(self.spend) / total, abs(self.purchases) / total) if total else (0.0, 0.0)


def _amount(row: Sequence[float]) -> float:
    """Revenue a purchase, so that the parts add up; the expected amount of an order where no purchase is expected."""
    mean = row[PURCHASES][0]
    return row[REVENUE][0] / mean if mean > 0 else row[ORDER_AMOUNT]
