"""Everybody's scores in memory, one row of numbers a customer, found by id. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Final

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.groups import Floats, Ints
from kiki.value.purchases import Purchases

if TYPE_CHECKING:
    from kiki.value.prediction import Predictions

LEVELS: Final = (80, 90, 95)
"""The intervals that are served, in per cent."""

QUANTITY_WIDTH: Final = 2 + 2 * len(LEVELS)
"""Mean, median, and for each level the lower and the upper end: the fields of the message Quantity, in order."""

PURCHASES: Final = slice(0, QUANTITY_WIDTH)
REVENUE: Final = slice(QUANTITY_WIDTH, 2 * QUANTITY_WIDTH)
ALIVE, NO_PURCHASE, ORDER_AMOUNT, DISCOUNTED_VALUE = range(2 * QUANTITY_WIDTH, 2 * QUANTITY_WIDTH + 4)
WIDTH: Final = 2 * QUANTITY_WIDTH + 4
"""Numbers a customer; a discounted value that the model does not give is NaN."""

_STRETCH: Final = 20_000


def scores_of(predictions: Predictions) -> Floats:
    """Predictions as rows of `WIDTH` numbers, in the order of the constants above."""
    scores = np.full((predictions.alive.size, WIDTH), np.nan)
    for place, quantity in ((PURCHASES, predictions.purchases), (REVENUE, predictions.revenue)):
        ends = [end[level] for level in LEVELS for end in (quantity.lower, quantity.upper)]
        for column, values in enumerate((quantity.mean, quantity.median, *ends), start=place.start):
            scores[:, column] = values
    scores[:, ALIVE] = predictions.alive
    scores[:, NO_PURCHASE] = predictions.no_purchase
    scores[:, ORDER_AMOUNT] = predictions.order_amount
    if predictions.discounted_value is not None:
        scores[:, DISCOUNTED_VALUE] = predictions.discounted_value
    return scores


class ScoreTable:
    """Scores by customer id, and a last row for every id that is not known.

    Rows are kept whole rather than columns, because one customer is asked for more often than all of them.
    """

    __slots__ = ("_places", "purchases", "scores")

    def __init__(self, purchases: Purchases | None, scores: Floats, unknown: Floats | None) -> None:
        """`scores` has one row of `WIDTH` for each of `purchases`; `unknown` answers other ids, None: with NaN.

        Raises `InvalidInput` when an id stands twice.
        """
        ids: Sequence[str] = [] if purchases is None else purchases.ids.tolist()
        last = np.full((1, WIDTH), np.nan) if unknown is None else unknown.reshape(1, WIDTH)
        self.scores: Floats = np.concatenate((scores.reshape(-1, WIDTH), last))
        self.purchases = purchases
        self._places: dict[str, int] = {}
        for begin in range(0, len(ids), _STRETCH):
            # In stretches, because a dict that grows in one go holds up every other thread until it is done.
            some = ids[begin : begin + _STRETCH]
            self._places.update(zip(some, range(begin, begin + len(some)), strict=True))
        if len(self._places) != len(ids):
            raise InvalidInput(f"{len(ids) - len(self._places):,} customers stand twice in the summary")

    def __len__(self) -> int:
        return len(self._places)

    def find(self, customer_id: str) -> int | None:
        """The customer's row, None for an unknown one."""
        return self._places.get(customer_id)

    def row(self, place: int | None) -> list[float]:
        """The numbers of one customer; of an unknown one for None."""
        row: list[float] = self.scores[-1 if place is None else place].tolist()
        return row

    def rows(self, customer_ids: Iterable[str], count: int) -> Ints:
        """The places of `count` customers; -1, which is the last row, for those who are not known."""
        return np.fromiter(map(self._places.get, customer_ids, repeat(-1)), dtype=np.int64, count=count)
