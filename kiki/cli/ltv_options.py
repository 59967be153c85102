"""The options that the commands of `kiki ltv` share, and what they are turned into. Heavy modules are imported on use only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from kiki.cli import show
from kiki.cli.stages import Told
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.value.order_columns import OrderColumns
    from kiki.value.orders import Orders

MODEL_FILE = ".json"

Log = Annotated[
    Path, typer.Argument(metavar="FILE", help="The order log, .csv, .csv.gz or .parquet: a line an order or an item.")
]
LogOrNothing = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="The order log, .csv, .csv.gz or .parquet: a line an order or an item."),
]
CustomerColumn = Annotated[
    str | None,
    typer.Option("--customer-col", metavar="NAME", help="The column of customers' ids; without it, a guess."),
]
DateColumn = Annotated[
    str | None, typer.Option("--date-col", metavar="NAME", help="The column of dates or moments; without it, a guess.")
]
AmountColumn = Annotated[
    str | None,
    typer.Option(
        "--amount-col", metavar="NAME", help="The column of amounts, refunds below zero; without it, a guess."
    ),
]
OrderColumn = Annotated[
    str | None,
    typer.Option("--order-col", metavar="NAME", help="The column of order ids, by which refunds find orders."),
]
CurrencyColumn = Annotated[
    str | None, typer.Option("--currency-col", metavar="NAME", help="The column of currencies; a log is in one.")
]
Currency = Annotated[
    str | None, typer.Option("--currency", metavar="CODE", help="The currency of the amounts, for example EUR.")
]
TimeZone = Annotated[
    str, typer.Option("--tz", metavar="ZONE", help="In which zone a moment with an offset becomes a day.")
]
Unit = Annotated[str, typer.Option("--unit", metavar="WORD", help="The unit of time: day, week or month.")]
UnitOrFile = Annotated[
    str | None,
    typer.Option("--unit", metavar="WORD", help="The unit of time: day, week or month; week, or a model file's own."),
]
CalibrationEnd = Annotated[
    str | None,
    typer.Option("--calibration-end", metavar="DATE", help="The last day that is looked at; later rows are ignored."),
]
HoldoutEnd = Annotated[
    str | None, typer.Option("--holdout-end", metavar="DATE", help="The last day of what came after the calibration.")
]
Horizon = Annotated[
    float | None,
    typer.Option("--horizon", metavar="UNITS", help="How far to forecast, in the unit; by default a year."),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME", help="auto, bg-nbd, mbg-nbd, pareto-nbd, nbd or mbg-cnbd-k; auto weighs several."
    ),
]
ModelOrFile = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME|FILE",
        help="A model file (.json) of kiki ltv fit; or the name of a model, which is then fitted to the log first.",
    ),
]
Estimator = Annotated[
    str | None,
    typer.Option(
        "--estimator",
        metavar="WORD",
        help="mle: maximum likelihood, as a named model unless told; map: with weak priors, as auto.",
    ),
]
DiscountRate = Annotated[
    float | None,
    typer.Option("--discount-rate", metavar="RATE", help="A year, 0.1 for 10 %: what later money is worth less."),
]


def is_model_file(name: str) -> bool:
    """Whether `--model` names a file and not a model."""
    return name.lower().endswith(MODEL_FILE)


def day(text: str | None, option: str) -> date | None:
    """The date that an option names; None for None."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{option} {text[:40]!r} is not a date: write one such as 1997-09-30") from None


class Reading(NamedTuple):
    """How a log is to be read."""

    columns: OrderColumns
    currency: str | None
    tz: str


def reading(
    customer: str | None,
    date_: str | None,
    amount: str | None,
    order: str | None,
    currency_column: str | None,
    currency: str | None,
    tz: str,
) -> Reading:
    """What the options say about the log."""
    from kiki.value.order_columns import OrderColumns

    return Reading(OrderColumns(customer, date_, amount, order, currency_column), currency, tz)


def read_log(file: Path, how: Reading, told: Told, *, quiet: bool = False) -> Orders:
    """The orders of a log; what a reader has to know of it goes to stderr, unless it is shown otherwise (`quiet`)."""
    from kiki.value.order_log import read_orders

    if is_model_file(file.name):
        raise InvalidInput(f"{file.name} is no order log", hint=f"a model file goes behind --model: --model {file}")
    orders = read_orders(
        file,
        columns=how.columns,
        tz=how.tz,
        currency=how.currency,
        progress=lambda done, total: told("reading", done, total),
    )
    for note in () if quiet else orders.notes:
        show.talk(f"note: {note}", dim=True)
    return orders


def note_silence(what: str, end: date | None, last_line: date) -> None:
    """Say so where `what` ends after the log does: customers who were silent since then look like customers who left."""
    if end is not None and end > last_line:
        show.talk(
            f"note: {what} ends {(end - last_line).days} days after the last line of the log, on {last_line}: "
            "that nobody bought in between is taken as a fact",
            dim=True,
        )


def require_writable(*paths: Path | None, read: Iterable[Path] = ()) -> None:
    """Raise `InvalidInput` for a file that cannot be made where it should, before minutes are spent on what goes into it.

    Nor may it take the place of one that is `read`, which may be the only copy, or of another one of `paths`.
    """
    seen: set[Path] = set()
    for path in paths:
        if path is None:
            continue
        if path.exists() and any(other.exists() and path.samefile(other) for other in read):
            raise InvalidInput(f"{path} is what is read here, and would be lost; name another file")
        if path.resolve() in seen:
            raise InvalidInput(f"{path} is named twice; name two files")
        seen.add(path.resolve())
        if path.is_dir():
            raise InvalidInput(f"{path} is a directory; name a file")
        if not path.parent.is_dir():
            raise InvalidInput(f"there is no directory {path.parent}")
        if not os.access(path.parent, os.W_OK):
            raise InvalidInput(f"{path.parent} cannot be written to")
