"""`kiki ltv plot`: the plots that people expect of a model, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from kiki.cli import show
from kiki.cli.ltv_models import chosen_model
from kiki.cli.ltv_options import (
    AmountColumn,
    CalibrationEnd,
    Currency,
    CurrencyColumn,
    CustomerColumn,
    DateColumn,
    Estimator,
    HoldoutEnd,
    Horizon,
    Log,
    ModelOrFile,
    OrderColumn,
    TimeZone,
    UnitOrFile,
    day,
    read_log,
    reading,
    require_writable,
)
from kiki.cli.options import Json
from kiki.cli.stages import stages
from kiki.errors import InvalidInput, KikiError

_ENDINGS: Final = (".png", ".svg")


def plot(
    file: Log,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR|FILE", help="A directory for all; or a .png or .svg for one.")
    ] = Path(),
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="NAME",
            help="Only this one: tracking-cumulative, tracking-weekly, frequency-recency, probability-alive, "
            "calibration-purchases, calibration-revenue, lift-purchases or lift-revenue.",
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="WORD", help="png or svg, in a directory.")] = "png",
    model: ModelOrFile = "auto",
    estimator: Estimator = None,
    calibration_end: CalibrationEnd = None,
    holdout_end: HoldoutEnd = None,
    horizon: Horizon = None,
    unit: UnitOrFile = None,
    customer_col: CustomerColumn = None,
    date_col: DateColumn = None,
    amount_col: AmountColumn = None,
    order_col: OrderColumn = None,
    currency_col: CurrencyColumn = None,
    currency: Currency = None,
    tz: TimeZone = "UTC",
    as_json: Json = False,
) -> None:
    """Draw a model's plots over a log, as PNG or SVG files.

    Calibration and lift compare with what came after the calibration; where that is less than a week, with days inside of it.
    """
    single = output.suffix.lower() in _ENDINGS
    _require_clear(output, kind, form, single=single)
    end, last = day(calibration_end, "--calibration-end"), day(holdout_end, "--holdout-end")
    if end is not None and last is not None and last <= end:
        raise InvalidInput(f"the holdout ends on {last}, not after the calibration ({end})")
    from kiki.value.model_pictures import model_pictures
    from kiki.value.plots import save

    how = reading(customer_col, date_col, amount_col, order_col, currency_col, currency, tz)
    with stages() as told:
        orders = read_log(file, how, told)
        fitted = chosen_model(
            model,
            orders,
            estimator=estimator,
            calibration_end=end,
            unit=unit,
            horizon=horizon,
            discount_rate=None,
            told=told,
        )
        if end not in {None, fitted.calibration_end}:
            raise InvalidInput(
                f"the model has seen everything up to {fitted.calibration_end}, so its plots cannot begin on {end}",
                hint="leave --calibration-end out, or name a model to fit instead of its file",
            )
        told("drawing", 0, 1)
        found = model_pictures(fitted, orders, last)
        told("drawing", 1, 1)
    if kind is not None and kind not in found:
        raise InvalidInput(
            f"there is no plot {kind!r} of this log; there is {', '.join(found)}",
            hint="calibration and lift need days to compare with: choose an earlier --calibration-end",
        )
    written = []
    for name in found if kind is None else [kind]:
        path = output if single else output / f"{name}.{form}"
        try:
            written.append(save(found[name].figure, path))
        except OSError as error:
            raise KikiError(f"{path} cannot be written: {error.strerror}") from error
    if as_json:
        show.as_json({"files": [str(path) for path in written]})
        return
    for path in written:
        show.line(str(path))


def _require_clear(output: Path, kind: str | None, form: str, *, single: bool) -> None:
    if form not in {ending[1:] for ending in _ENDINGS}:
        raise InvalidInput(f"--format {form[:40]!r} is not a format of pictures here: take png or svg")
    if single and kind is None:
        raise InvalidInput(f"{output} is one file: say with --kind what it shows, or name a directory")
    if single:
        require_writable(output)
    elif not output.is_dir():
        raise InvalidInput(f"{output} is no directory that there is", hint=f"mkdir {output}, or name a .png or .svg")


def register(app: typer.Typer) -> None:
    """Add the command to `kiki ltv`."""
    app.command()(plot)
