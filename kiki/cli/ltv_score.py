"""`kiki ltv score`: everybody's predictions into a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from kiki.cli import ltv_tables, show
from kiki.cli.ledger_access import written_file
from kiki.cli.ltv_models import chosen_model, model_of_file
from kiki.cli.ltv_options import (
    AmountColumn,
    CalibrationEnd,
    Currency,
    CurrencyColumn,
    CustomerColumn,
    DateColumn,
    DiscountRate,
    Estimator,
    Horizon,
    ModelOrFile,
    OrderColumn,
    TimeZone,
    UnitOrFile,
    day,
    is_model_file,
    note_silence,
    read_log,
    reading,
    require_writable,
)
from kiki.cli.options import Json
from kiki.cli.stages import Told, stages
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.cli.ltv_options import Reading
    from kiki.value.fitted_model import FittedModel
    from kiki.value.orders import Orders
    from kiki.value.purchases import Purchases

_ENDINGS: Final = (".parquet", ".csv")


def score(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The order log, or a summary in Parquet as kiki.value.warehouse makes it."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where to, .parquet or .csv: whole or not at all."),
    ],
    model: ModelOrFile = "auto",
    estimator: Estimator = None,
    calibration_end: CalibrationEnd = None,
    horizon: Horizon = None,
    unit: UnitOrFile = None,
    discount_rate: DiscountRate = None,
    customer_col: CustomerColumn = None,
    date_col: DateColumn = None,
    amount_col: AmountColumn = None,
    order_col: OrderColumn = None,
    currency_col: CurrencyColumn = None,
    currency: Currency = None,
    tz: TimeZone = "UTC",
    as_json: Json = False,
) -> None:
    """Predict everybody in a log, a row each, into a file.

    With a model file, Parquet is read and written in batches: memory stays small whatever its length. Everything up to
    --calibration-end counts, by default up to the last day of the log; a summary needs it said when it is not the model's.
    """
    if output.suffix.lower() not in _ENDINGS:
        raise InvalidInput(f"{output.name} is no file of scores: it ends in .parquet or .csv")
    require_writable(output, read=[file])
    from kiki.value.score_stream import score_stream

    end = day(calibration_end, "--calibration-end")
    how = reading(customer_col, date_col, amount_col, order_col, currency_col, currency, tz)
    with stages() as told, tempfile.TemporaryDirectory(prefix=".kiki-", dir=output.parent) as room:
        if is_model_file(model):
            fitted = model_of_file(model, unit=unit, estimator=estimator)
            found = _batches(file, fitted, end, how, told, room)
        else:
            orders = read_log(file, how, told)
            fitted = chosen_model(
                model,
                orders,
                estimator=estimator,
                calibration_end=end,
                unit=unit,
                horizon=horizon,
                discount_rate=discount_rate,
                told=told,
            )
            found = _of_orders(orders, end, fitted.unit)

        def scores(purchases: Purchases) -> dict[str, Any]:
            predictions = fitted.predict(purchases, horizon, discount_rate=discount_rate)
            return predictions.as_columns()

        target = output if output.suffix.lower() == ".parquet" else Path(room) / "scores.parquet"
        count = score_stream(
            found.batches,
            target,
            scores,
            calibration_end=found.as_of,
            unit=fitted.unit,
            currency=found.currency,
            progress=lambda done: told("scoring", done, found.customers or done),
        )
        if target != output:
            _as_csv(target, output)
    if as_json:
        show.as_json(
            {
                "file": str(output),
                "customers": count,
                "as_of": found.as_of.isoformat(),
                "horizon": fitted.horizon if horizon is None else horizon,
                "unit": fitted.unit,
                "model_version": fitted.model_version,
            }
        )
        return
    show.line(f"{output}: {ltv_tables.many(count, 'customer')}, as of {found.as_of}")


class _Found(NamedTuple):
    """Summaries in batches, and what they are of."""

    batches: Iterable[Any]
    as_of: date
    currency: str | None
    customers: int | None
    """None where nobody has counted them yet."""


def _batches(file: Path, model: FittedModel, end: date | None, how: Reading, told: Told, room: str) -> _Found:
    from kiki.value.score_stream import is_summary, summary_batches

    if file.suffix.lower() in {".parquet", ".pq"} and file.is_file():
        if is_summary(file):
            return _Found(summary_batches(file), end or model.calibration_end, how.currency, None)
        if _reads_alike_in_database(file, how):
            return _in_database(file, end, how, Path(room) / "summary.parquet")
    return _of_orders(read_log(file, how, told), end, model.unit)


def _of_orders(orders: Orders, end: date | None, unit: str) -> _Found:
    from kiki.value.orders import day_of
    from kiki.value.purchases import summarise
    from kiki.value.score_stream import BATCH_ROWS, summary_table

    note_silence("the calibration", end, day_of(orders.last_day))
    known = summarise(orders, end, unit)
    batches = summary_table(known).to_batches(max_chunksize=BATCH_ROWS)
    return _Found(batches, known.calibration_end, known.currency, len(known))


def _in_database(file: Path, end: date | None, how: Reading, summary: Path) -> _Found:
    """A log in Parquet, summed up by DuckDB into the file `summary`: neither needs more memory for a longer log."""
    import ibis
    import pyarrow.parquet as pq

    from kiki.value.score_stream import summary_batches
    from kiki.value.warehouse import first_day, last_day, left_out, purchases_expression, require_sound

    log = ibis.duckdb.connect().read_parquet(file)
    for note in how.columns.within(list(log.columns))[1]:
        show.talk(f"note: {note}", dim=True)
    currency = require_sound(log, columns=how.columns, until=_today(how.tz))
    if how.currency and currency and how.currency.upper() != currency:
        raise InvalidInput(f"the log is in {currency!r}, not in {how.currency!r}")
    for note in left_out(log, columns=how.columns):
        show.talk(f"note: {note}", dim=True)
    last = last_day(log, columns=how.columns)
    note_silence("the calibration", end, last)
    as_of = end or last
    purchases_expression(log, as_of, columns=how.columns).to_parquet(summary)
    if not pq.read_metadata(summary).num_rows:
        raise InvalidInput(
            f"nobody bought on {as_of} or before: the log begins on {first_day(log, columns=how.columns)}",
            hint="choose a later end of the calibration",
        )
    return _Found(summary_batches(summary), as_of, how.currency or currency, None)


def _reads_alike_in_database(file: Path, how: Reading) -> bool:
    """Whether DuckDB reads days, ids and amounts of these types as the reader in memory does, which takes any others.

    Days of moments with an offset depend on the time zone; text may hold those too, or what is no day or number, and
    that reader names the row; an id such as 17850.0 is 17850, and NaN is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except pa.ArrowException as problem:
        raise InvalidInput(f"{file.name} is no whole Parquet file: {problem}") from None
    kinds = pa.types
    chosen = how.columns.within(schema.names)[0]
    when = schema.field(chosen.date).type
    ids = [schema.field(name).type for name in (chosen.customer, chosen.order) if name is not None]
    numbers = [schema.field(name).type for name in (chosen.amount, chosen.quantity) if name is not None]
    return (
        (kinds.is_date(when) or (kinds.is_timestamp(when) and when.tz is None))
        and all(kinds.is_integer(kind) or _is_text(kind) for kind in ids)
        and all(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) for kind in numbers)
    )


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain))


def _today(tz: str) -> date:
    from zoneinfo import ZoneInfo

    from kiki.clock import wall_micros
    from kiki.value.order_lines import today
    from kiki.value.orders import day_of

    return day_of(today(ZoneInfo(tz), wall_micros()))


def _as_csv(scores: Path, output: Path) -> None:
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(scores) as file, written_file(output) as target, pc.CSVWriter(target, file.schema_arrow) as csv:
        for batch in file.iter_batches():
            csv.write_batch(batch)


def register(app: typer.Typer) -> None:
    """Add the command to `kiki ltv`."""
    app.command()(score)
