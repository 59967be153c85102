"""The rules of `Orders`, beside a plain model of them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value.orders import Orders

NAMES = ("a", "b", "c")

# Few customers, days, amounts and order ids, so that lines collide.
LINES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 12), st.integers(-4, 4), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


def orders_of(lines, with_ids=False):
    names = sorted({line[0] for line in lines})
    column = lambda at: np.array([line[at] for line in lines], dtype=np.int64)
    return Orders.of_lines(
        np.array(names, dtype=object),
        np.array([names.index(line[0]) for line in lines], dtype=np.int64),
        column(1),
        column(2),
        order=column(3) if with_ids else None,
    )


def bought(orders, end=10**6):
    days = orders.as_of(end)
    return {
        (orders.ids[customer], day): amount
        for customer, day, amount in zip(*(column.tolist() for column in days), strict=True)
    }


def plainly(lines, *, with_ids):
    """The rules once more, one line at a time."""
    gross, refunds, unmatched = {}, defaultdict(list), []
    for customer, day, amount, order in lines:
        if amount >= 0:
            key = (customer, order if with_ids else 0, day)
            gross[key] = gross.get(key, 0) + amount
    for place, (customer, day, amount, order) in enumerate(lines):
        if amount < 0:
            own = [key for key in gross if key[:2] == (customer, order if with_ids else 0)]
            able = [key for key in own if key[2] <= day and gross[key] >= -amount]
            if able:
                refunds[max(able, key=lambda key: key[2])].append((day, -amount, place))
            else:
                unmatched.append(place)
    result = defaultdict(int)
    for key, value in gross.items():
        total = left = value
        taken = 0
        for _, amount, place in sorted(refunds[key]):
            taken += amount
            if taken <= total:
                left = total - taken
            else:
                unmatched.append(place)
        if left > 0 or total == 0:
            result[key[0], key[2]] += left
    return dict(result), sorted(unmatched)


@given(LINES, st.booleans())
def test_lines_become_purchases_by_the_plain_rules(lines, with_ids):
    orders = orders_of(lines, with_ids)
    purchases, unmatched = plainly(lines, with_ids=with_ids)
    assert purchases == bought(orders)
    assert unmatched == sorted(orders.unmatched.tolist())


@given(LINES, st.booleans(), st.integers(0, 12))
def test_what_is_known_on_a_day_does_not_depend_on_later_lines(lines, with_ids, end):
    earlier = [line for line in lines if line[1] <= end]
    expected = plainly(earlier, with_ids=with_ids)[0]
    assert expected == bought(orders_of(lines, with_ids), end)


@given(LINES, st.booleans(), st.randoms())
def test_the_order_of_lines_does_not_matter(lines, with_ids, chance):
    shuffled = list(lines)
    chance.shuffle(shuffled)
    assert bought(orders_of(lines, with_ids)) == bought(orders_of(shuffled, with_ids))


@pytest.mark.parametrize(
    ("lines", "expected", "unmatched"),
    [
        pytest.param([("a", 1, 5, 0), ("a", 1, 7, 0)], {("a", 1): 12}, 0, id="one day is one order"),
        pytest.param([("a", 1, 0, 0)], {("a", 1): 0}, 0, id="an order of zero is a purchase"),
        pytest.param([("a", 1, 9, 0), ("a", 3, -9, 0)], {}, 0, id="fully refunded is no purchase"),
        pytest.param(
            [("a", 1, 9, 0), ("a", 5, 4, 0), ("a", 6, -9, 0)], {("a", 5): 4}, 0, id="too small an order is passed"
        ),
        pytest.param([("a", 5, 9, 0), ("a", 3, -9, 0)], {("a", 5): 9}, 1, id="a refund never looks forward"),
        pytest.param([("a", 1, 9, 0), ("b", 3, -9, 0)], {("a", 1): 9}, 1, id="nor at another customer"),
        pytest.param([("a", 1, 9, 0), ("a", 3, -5, 0), ("a", 4, -5, 0)], {("a", 1): 4}, 1, id="never below zero"),
        pytest.param([("a", 3, -9, 0)], {}, 1, id="only a refund"),
    ],
)
def test_refunds(lines, expected, unmatched):
    orders = orders_of(lines)
    assert expected == bought(orders)
    assert unmatched == orders.unmatched.size


def test_an_order_id_leads_a_refund_past_a_later_order():
    lines = [("a", 1, 9, 1), ("a", 2, 9, 2), ("a", 3, -9, 1)]
    assert {("a", 2): 9} == bought(orders_of(lines, with_ids=True))
    assert {("a", 1): 9} == bought(orders_of(lines))


def test_nothing_and_too_much_are_refused():
    with pytest.raises(InvalidInput, match="empty"):
        Orders.of_lines(np.array([], dtype=object), *(np.array([], dtype=np.int64) for _ in range(3)))
    with pytest.raises(InvalidInput, match="larger unit"):
        orders_of([("a", 1, 2**62, 0), ("a", 2, 2**62, 0)])
