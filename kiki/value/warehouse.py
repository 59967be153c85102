"""The summary of an order log computed where the log lies: one Ibis expression, for DuckDB, PostgreSQL, BigQuery and others.

`purchases_expression` follows the rules of `kiki.value.orders` and `kiki.value.purchases` to the last micro; nothing leaves the
warehouse. From it come the groups that a model is fitted on (`groups_in`: a billion rows are a few hundred thousand groups), the
whole summary (`purchases_in`), and the scores of every customer (`scored_expression`), each one expression too.

Dates are dates, naive moments or ISO text. A column of moments with a time zone is refused: which day it was is for its owner to say.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import numpy as np
import pandas as pd

from kiki.errors import InvalidInput, MissingExtra
from kiki.money import MICROS
from kiki.value.groups import DAYS_PER_UNIT, Groups
from kiki.value.order_columns import OrderColumns
from kiki.value.order_lines import AMOUNT_MAX, FIRST_DAY
from kiki.value.orders import day_number, day_of
from kiki.value.purchases import COLUMNS, LOG_SCALE, RECENT_WEEKS, Purchases

try:
    import ibis
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError as _missing:
    raise MissingExtra("warehouse", "a summary in the warehouse") from _missing

_KEYS: Final = ("customer", "account", "day")


def purchases_expression(log: Any, calibration_end: date, *, columns: OrderColumns | None = None) -> Any:
    """The columns of `Purchases` as an Ibis table, one row a customer, in no order; nothing runs yet.

    Raises `InvalidInput` for columns that are missing or of a type that does not fit. What the rows hold is checked by `require_sound`.
    """
    end = day_number(calibration_end)
    chosen = _columns(log, columns)
    lines = _lines(log, chosen).filter(lambda line: line.day <= end)
    # Only who was refunded needs orders first. Everybody else's lines are looked at as they are.
    refunders = lines.filter(lines.value < 0, lines.amount < 0).select("customer").distinct()
    plain = lines.anti_join(refunders, "customer").select("customer", "day", "amount")
    netted = _netted(lines.semi_join(refunders, "customer"), by_order=chosen.order is not None)
    return _summary(plain, end).union(_summary(netted, end))


def groups_expression(summary: Any) -> Any:
    """Customers of a summary with equal (x, tx, T), in days, and how many they are: what a fit needs of any number of rows."""
    return summary.group_by("x", "tx", "T").agg(customers=summary.count())


def scored_expression(summary: Any, scores: Any) -> Any:
    """The summary with the scores of each customer's group beside it.

    `scores` has the columns x, tx and T in days, one row a group, and any number of others: a DataFrame, an Arrow table,
    or a table of the same warehouse. A customer whose group has no score keeps a row, with nothing in those columns.
    """
    if isinstance(scores, pd.DataFrame):
        scores = pa.Table.from_pandas(scores, preserve_index=False)
    table = scores if isinstance(scores, ibis.Table) else ibis.memtable(scores)
    keys = ("x", "tx", "T")
    lacking = [key for key in keys if key not in table.columns]
    if lacking:
        raise InvalidInput(f"the scores have no column {', '.join(lacking)}: they are joined by x, tx and T in days")
    beside = table.rename({f"{key}_of_group": key for key in keys})
    joined = summary.left_join(beside, [summary[key] == beside[f"{key}_of_group"] for key in keys])
    return joined.drop(*(f"{key}_of_group" for key in keys))


def purchases_in(
    log: Any,
    calibration_end: date,
    *,
    columns: OrderColumns | None = None,
    unit: str = "week",
    currency: str | None = None,
    until: date | None = None,
) -> Purchases:
    """The summary of every customer, brought here: the same `Purchases` as `summarise` gives for the same log.

    Raises `InvalidInput` as `require_sound` does, and when nobody bought on `calibration_end` or before.
    """
    found = require_sound(log, columns=columns, until=until)
    table = purchases_expression(log, calibration_end, columns=columns).to_pyarrow()
    if not table.num_rows:
        raise InvalidInput(
            f"nobody bought on {calibration_end} or before", hint="choose a later end of the calibration"
        )
    # Sorted here: every database has its own opinion about the order of text.
    table = table.take(pc.sort_indices(table["ids"]))
    ids = table["ids"].combine_chunks().to_numpy(zero_copy_only=False)
    numbers = {name: table[name].to_numpy().astype(np.int64) for name in COLUMNS[1:]}
    return Purchases(ids=ids, **numbers, calibration_end=calibration_end, unit=unit, currency=currency or found)


def groups_in(
    log: Any,
    calibration_end: date,
    *,
    columns: OrderColumns | None = None,
    unit: str = "week",
    until: date | None = None,
) -> Groups:
    """The groups of a log in the model's unit, counted in the warehouse. Raises as `purchases_in` does."""
    require_sound(log, columns=columns, until=until)
    counted = groups_expression(purchases_expression(log, calibration_end, columns=columns))
    table = counted.order_by("x", "tx", "T").to_pyarrow()
    x, tx, age, customers = (table[name].to_numpy().astype(np.float64) for name in ("x", "tx", "T", "customers"))
    days = DAYS_PER_UNIT[unit]
    return Groups.of(x, tx / days, age / days, customers)


def require_sound(log: Any, *, columns: OrderColumns | None = None, until: date | None = None) -> str | None:
    """The currency of a log, None where it names none; raises `InvalidInput` for lines that cannot be used, with their number.

    `until` is the last day that may occur; without it no date is called a future one.
    """
    chosen = _columns(log, columns)
    lines = _lines(log, chosen, checked=False)
    unusable = _absent(lines.amount) | lines.amount.isnan() | (lines.amount.abs() > float(AMOUNT_MAX))
    kinds = {
        "have no date": _absent(lines.day),
        "have no amount, or one above 4,000,000,000": unusable,
        "lie before 1900": lines.day < FIRST_DAY,
    }
    if until is not None:
        kinds[f"lie in the future, after {until}"] = lines.day > day_number(until)
    named = {f"kind_{place}": lines.count(where=bad.fill_null(False)) for place, bad in enumerate(kinds.values())}
    if chosen.currency is not None:
        named |= {"lowest": lines.currency.min(), "highest": lines.currency.max()}
    found = lines.agg(lines=lines.count(), **named).to_pyarrow().to_pylist()[0]
    if not found["lines"]:
        raise InvalidInput("the order log is empty: it has no line with a customer")
    wrong = [f"{found[f'kind_{place}']:,} lines {said}" for place, said in enumerate(kinds) if found[f"kind_{place}"]]
    if found.get("lowest") != found.get("highest"):
        wrong.append(f"lines are in {found['lowest']!r} and in {found['highest']!r}: a log is in one currency")
    if wrong:
        raise InvalidInput("the order log cannot be used:\n  - " + "\n  - ".join(wrong))
    return found.get("lowest") or None


def unmatched_refunds(log: Any, calibration_end: date, *, columns: OrderColumns | None = None) -> Any:
    """Refunds that found no order, as an Ibis table: customer, day, micros of each, and how many such lines."""
    end = day_number(calibration_end)
    lines = _lines(log, _columns(log, columns)).filter(lambda line: line.day <= end)
    lines = lines.semi_join(lines.filter(lines.value < 0, lines.amount < 0).select("customer").distinct(), "customer")
    bought = lines.filter(lines.amount >= 0).group_by(_KEYS).agg(gross=_whole(lines.amount.sum()))
    refunds = _refunds(lines)
    found = _counted(refunds, bought).select(
        "refund", **{f"{key}_of": key for key in (*_KEYS[:2], "refund_day")}, counted="counted"
    )
    joined = refunds.left_join(
        found,
        [
            refunds.refund == found.refund,
            *(refunds[key] == found[f"{key}_of"] for key in (*_KEYS[:2], "refund_day")),
        ],
    )
    left = joined.select(
        "customer", day=_whole(joined.refund_day), micros="refund", lines=joined.n - joined.counted.fill_null(0)
    )
    return left.filter(left.lines > 0)


def first_day(log: Any, *, columns: OrderColumns | None = None) -> date:
    """The first day of a log, before which nobody had bought anything."""
    return day_of(_lines(log, _columns(log, columns)).day.min().to_pyarrow().as_py())


def last_day(log: Any, *, columns: OrderColumns | None = None) -> date:
    """The last day of a log, on which a calibration ends that nobody chose."""
    return day_of(_lines(log, _columns(log, columns)).day.max().to_pyarrow().as_py())


def left_out(log: Any, *, columns: OrderColumns | None = None) -> tuple[str, ...]:
    """What a reader of the result should know of lines that do not count, as `Orders.notes` says it, but without their numbers."""
    chosen = _columns(log, columns)
    customer = log[chosen.customer].cast("string")
    anonymous = log.count(where=_absent(customer) | (customer == "")).to_pyarrow().as_py()
    refunds = unmatched_refunds(log, last_day(log, columns=columns), columns=columns)
    unmatched = refunds.lines.sum().to_pyarrow().as_py() or 0
    said = (
        (anonymous, "lines without a customer are left out"),
        (unmatched, "refunds have no order they could belong to and are not counted"),
    )
    return tuple(f"{count:,} {what}" for count, what in said if count)


def _columns(log: Any, columns: OrderColumns | None) -> OrderColumns:
    return (columns or OrderColumns()).within(list(log.columns))[0]


def _lines(log: Any, columns: OrderColumns, *, checked: bool = True) -> Any:
    """Lines with a customer, their days and amounts as whole numbers; amounts stay as they are when not yet `checked`."""
    moment = log[columns.date]
    kind = moment.type()
    if kind.is_timestamp() and kind.timezone is not None:
        raise InvalidInput(
            f"column {columns.date!r} holds moments with a time zone",
            hint="make dates of them first, in the zone that your days are in",
        )
    if not (kind.is_date() or kind.is_timestamp() or kind.is_string()):
        raise InvalidInput(f"column {columns.date!r} is of type {kind}: a date is a date, a moment or ISO text")
    if not (log[columns.amount].type().is_numeric() or log[columns.amount].type().is_string()):
        raise InvalidInput(f"column {columns.amount!r} is of type {log[columns.amount].type()}: an amount is a number")
    day = (moment.date() if kind.is_timestamp() else moment.cast("date")).delta(ibis.date("1970-01-01"), unit="day")
    amount = log[columns.amount].cast("float64")
    if columns.quantity is not None:
        amount = amount * log[columns.quantity].cast("float64")
    # `value` lets an engine leave out whole blocks whose smallest amount is not below zero.
    lines = log.select(
        value=amount,
        customer=log[columns.customer].cast("string"),
        account=ibis.literal("") if columns.order is None else log[columns.order].cast("string").fill_null(""),
        day=day.cast("int32"),  # what an engine sorts by is half as wide
        amount=_whole((amount * float(MICROS) + 0.5).floor()) if checked else amount,
        currency=ibis.literal("")
        if columns.currency is None
        else log[columns.currency].cast("string").fill_null("").strip().upper(),
    )
    return lines.filter(~_absent(lines.customer) & (lines.customer != ""))


def _summary(lines: Any, end: int) -> Any:
    """One row a customer of lines that are no refunds; there may be several a day."""
    # Of the lines of one day the largest comes first: it tells whether the day was free.
    along = ibis.window(group_by="customer", order_by=("day", ibis.desc("amount")))
    seen = lines.mutate(before=lines.day.lag().over(along), first=lines.day.first().over(along))
    seen = seen.mutate(gap=(seen.day - seen.before).fill_null(-1))  # 0 on the same day, -1 at a customer's first line
    repeat, opens = seen.gap > 0, seen.gap != 0
    # ln of 1 where there is no gap: an engine may look at the logarithm before it looks at the condition.
    log_gap = _whole((ibis.greatest(seen.gap, 1).cast("float64").ln() * float(LOG_SCALE)).round())
    found = seen.group_by(ids=seen.customer).agg(
        x=seen.count(where=repeat),
        tx=_whole(seen.day.max() - seen.day.min()),
        T=ibis.literal(end, "int64") - seen.day.min(),
        first_micros=_summed(seen.amount.sum(where=seen.day == seen.first)),
        all_micros=_summed(seen.amount.sum()),
        zero_orders=seen.count(where=opens & (seen.amount == 0)),
        **{f"last_{weeks}_weeks": seen.count(where=opens & (seen.day > end - 7 * weeks)) for weeks in RECENT_WEEKS},
        log_gaps=_summed(log_gap.sum()),
    )
    paid_first = ibis.cases((found.first_micros > 0, ibis.literal(1, "int64")), else_=ibis.literal(0, "int64"))
    found = found.mutate(
        repeat_micros=found.all_micros - found.first_micros,
        positive_repeats=found.x + 1 - found.zero_orders - paid_first,
    )
    return found.select(COLUMNS)


def _netted(lines: Any, *, by_order: bool) -> Any:
    """Customers' days and what is left of them after refunds."""
    bought = lines.filter(lines.amount >= 0).group_by(_KEYS).agg(gross=_whole(lines.amount.sum()))
    counted = _counted(_refunds(lines), bought)
    taken = counted.group_by(_KEYS).agg(taken=_whole((counted.counted * counted.refund).sum()))
    taken = taken.rename({f"{key}_of": key for key in _KEYS})
    joined = bought.left_join(taken, [bought[key] == taken[f"{key}_of"] for key in _KEYS])
    orders = joined.select("customer", "day", "gross", amount=joined.gross - joined.taken.fill_null(0))
    orders = orders.filter((orders.amount > 0) | (orders.gross == 0)).drop("gross")
    return orders.group_by("customer", "day").agg(amount=_whole(orders.amount.sum())) if by_order else orders


def _refunds(lines: Any) -> Any:
    """Equal refunds of one day as one row with their number: no database has to tell them apart."""
    negative = lines.filter(lines.amount < 0)
    return negative.group_by("customer", "account", refund_day=negative.day, refund=-negative.amount).agg(
        n=negative.count()
    )


def _counted(refunds: Any, bought: Any) -> Any:
    """Refunds with the day of the order they belong to, and how many of them stay within that order."""
    able = refunds.join(
        bought,
        [
            refunds.customer == bought.customer,
            refunds.account == bought.account,
            refunds.refund_day >= bought.day,
            refunds.refund <= bought.gross,
        ],
    )
    # The latest of the orders that could be meant.
    latest = ibis.window(group_by=("customer", "account", "refund_day", "refund"), order_by=ibis.desc("day"))
    ranked = able.mutate(place=ibis.row_number().over(latest))
    found = ranked.filter(ranked.place == 0)
    earlier = ibis.window(group_by=_KEYS, order_by=("refund_day", "refund"), preceding=(None, 1))
    found = found.mutate(before=_whole((found.refund * found.n).sum().over(earlier)).fill_null(0))
    room = ibis.greatest(found.gross - found.before, 0)
    return found.mutate(counted=ibis.least(_whole((room - room % found.refund) / found.refund), found.n))


def _whole(value: Any) -> Any:
    return value.cast("int64")


def _summed(total: Any) -> Any:
    """A sum of whole numbers as an int64. To Ibis it is one already, to an engine it is not; a type without gaps is another one to both."""
    return total.cast("!int64")


def _absent(value: Any) -> Any:
    return value.isnull()  # noqa: PD003 - this is no pandas column
