"""What the report of a fitted model says: its parameters, what was measured of it, its plots, and what a reader has to know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib.util import find_spec
from typing import Final

from kiki.value.fitted_model import FittedModel, FittedPart
from kiki.value.orders import Orders
from kiki.value.purchases import summarise
from kiki.value.report import Coverage, Parameter, ParameterTable, Picture, Report
from kiki.value.spend import SIGNIFICANT, SpendModel


def model_report(model: FittedModel, orders: Orders, end: date | None = None) -> Report:
    """The report of `model` over the log it was fitted on, up to and on `end` (the last day of the log); for `write_report`.

    Without the extra `plot` it has no plots, and says so. Raises `InvalidInput` for a log without a purchase before the end of the
    calibration.
    """
    purchases = summarise(orders, model.calibration_end, model.unit)
    forecast = model.predictive(purchases)
    fitted = model.fitted_on
    span = f"{model.horizon:g} {model.unit}{'' if model.horizon == 1 else 's'}"
    money = f" {model.currency}" if model.currency else ""
    pictures, lacking = _pictures(model, orders, end)
    return Report(
        title=f"Customer lifetime value: {_TITLES.get(model.model, model.model)}",
        lead=f"{fitted.customers:,} customers, fitted on {fitted.first_day} to {fitted.calibration_end}.",
        numbers=[
            (f"{fitted.customers:,}", "customers"),
            (f"{fitted.purchases:,}", "purchases, on different days"),
            (f"{forecast.mean('purchases').sum():,.0f}", f"purchases expected in the next {span}"),
            (f"{forecast.mean('revenue').sum():,.0f}{money}", f"revenue expected in the next {span}"),
        ],
        calibration_claimed=model.refusal is None,
        calibration=_card(model),
        coverage=_coverage(model),
        tables=[*(_part(part, model.parts) for part in model.parts), _spend(model.spend)],
        pictures=pictures,
        notes=[*fitted.notes, *lacking],
        data=[
            ("first purchase", str(fitted.first_day)),
            ("end of the calibration", str(fitted.calibration_end)),
            ("revenue until then", f"{fitted.revenue}{money}"),
            ("unit of time", model.unit),
            ("estimator", _ESTIMATORS[model.estimator]),
            ("model version", model.model_version),
            ("fingerprint of the data", fitted.fingerprint),
        ],
    )


_ESTIMATORS: Final = {"mle": "maximum likelihood", "map": "maximum likelihood with weak priors"}

_CLAIM: Final = (
    "Stretches inside of the calibration were forecast from earlier days, and the outcomes lay inside of the intervals about "
    "as often as these say. That holds as long as customers go on as they did."
)

_TITLES: Final = {
    "nbd": "NBD (nobody drops out)",
    "bg-nbd": "BG/NBD",
    "mbg-nbd": "MBG/NBD",
    "mbg-cnbd-k": "MBG/CNBD-k",
    "pareto-nbd": "Pareto/NBD",
}


def _card(model: FittedModel) -> list[str]:
    if model.card is None:
        return [f"{model.refusal}."] if model.refusal else []
    return [
        *([] if model.refusal else [_CLAIM]),
        *(f"{each[:1].upper()}{each[1:]}." for each in model.card.sentences()),
    ]


def _coverage(model: FittedModel) -> list[Coverage]:
    measured = (model.card.coverage if model.card else None) or {}
    return [Coverage(kind, level / 100, share) for kind, levels in measured.items() for level, share in levels.items()]


def _part(part: FittedPart, parts: Sequence[FittedPart]) -> ParameterTable:
    notes = list(part.notes)
    if part.fell_back_from is not None:
        notes.append(
            f"{part.fell_back_from} was asked for; this log does not show its dropout, so {part.model} stands here"
        )
    errors = part.standard_errors or {}
    return ParameterTable(
        f"Purchases: {_TITLES.get(part.model, part.model)}",
        [Parameter(name, value, errors.get(name)) for name, value in part.parameters.items()],
        part.log_likelihood,
        part.weight if len(parts) > 1 else None,
        notes,
    )


def _spend(spend: SpendModel) -> ParameterTable:
    notes = list(spend.notes)
    if spend.zero_share > 0:
        notes.append(f"{spend.zero_share:.2%} of the orders are free, and so many of those to come")
    # Where the model follows the dependence, its own notes say so.
    if spend.independence_p_value is not None and not spend.frequency_exponent:
        verdict = "they do" if spend.independence_p_value < SIGNIFICANT else "no sign of it"
        notes.append(
            f"do amounts depend on how often somebody buys? {verdict} (p-value {spend.independence_p_value:.2g}); the "
            "model takes them to be independent"
        )
    if spend.constant is not None:
        return ParameterTable("Spend: one amount", [Parameter("amount", spend.constant)], notes=notes)
    errors = spend.standard_errors or {}
    found = {"p": spend.p, "q": spend.q, "v": spend.v}
    parameters = [Parameter(name, value, errors.get(name)) for name, value in found.items() if value is not None]
    return ParameterTable("Spend: Gamma-Gamma", parameters, spend.log_likelihood, notes=notes)


def _pictures(model: FittedModel, orders: Orders, end: date | None) -> tuple[list[Picture], list[str]]:
    if find_spec("matplotlib") is None:
        return [], ["There are no plots: they need the extra 'plot' (pip install 'kiki[plot]')."]
    from kiki.value.model_pictures import model_pictures
    from kiki.value.plots import inline_svg

    drawn = model_pictures(model, orders, end)
    return [Picture(each.caption, inline_svg(each.figure, name=name)) for name, each in drawn.items()], []
