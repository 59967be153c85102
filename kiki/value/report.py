"""The report of a model as one HTML page: a single file that loads nothing, in light and dark, on screens and on paper.

It shows the parameters with their standard errors, what was measured of the model's calibration, the plots, and what a reader
has to know. It is made of sums and parameters: no customer's id is ever in it. Whatever text comes in is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from kiki.value.whole_file import write_whole

MEANINGS: Final = {
    "r": "shape of the purchase rates: the smaller, the more customers differ",
    "alpha": "scale of the purchase rates, in units of time; the mean rate is r / alpha",
    "s": "shape of the dropout rates",
    "beta": "scale of the dropout rates, in units of time; the mean rate is s / beta",
    "a": "dropout after a purchase: the chance is Beta(a, b) between customers",
    "b": "dropout after a purchase: its mean chance is a / (a + b)",
    "k": "regularity of the gaps between purchases: 1 is chance, more is a rhythm",
    "p": "shape of the amounts of one customer's orders",
    "q": "shape of the mean amounts between customers; there is no finite mean at 1 or less",
    "v": "scale of the mean amounts between customers, in the currency",
}
"""What each parameter says, under the literature's names."""


class Parameter(NamedTuple):
    """One parameter of a model."""

    name: str
    estimate: float
    standard_error: float | None = None
    """None where a standard error would mislead."""


class ParameterTable(NamedTuple):
    """A part of the model: a model of purchases with its weight in the mixture, or of spend."""

    title: str
    parameters: Sequence[Parameter]
    log_likelihood: float | None = None
    weight: float | None = None
    """Between 0 and 1; None for a part that stands alone."""
    notes: Sequence[str] = ()
    """Boundaries, fall-backs, what was not identified."""


class Coverage(NamedTuple):
    """How many outcomes lay inside of an interval."""

    what: str
    """"purchases" or "revenue"."""
    nominal: float
    """What the interval claims, 0.8 for 80 %."""
    actual: float
    """What was measured."""


class Picture(NamedTuple):
    """A plot with what it shows in a sentence, which is also what somebody hears who does not see it."""

    caption: str
    svg: str
    """As `kiki.value.plots.inline_svg` gives it, each picture of a page under a name of its own; it stands as it is."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page says, in its order."""

    title: str
    lead: str
    """One sentence under the title."""
    numbers: Sequence[tuple[str, str]] = ()
    """Headline figures: the figure as text, and what it is."""
    calibration_claimed: bool
    """Whether the intervals may be called true about as often as they say."""
    calibration: Sequence[str]
    """The card in plain words: why it may be claimed, or why not."""
    coverage: Sequence[Coverage] = ()
    tables: Sequence[ParameterTable] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    data: Sequence[tuple[str, str]] = ()
    """What the model was fitted on: span, customers, fingerprint."""


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page to the file `path`, whole or not at all; the path."""
    return write_whole(path, report_page(report).encode())


def report_page(report: Report) -> str:
    """The HTML of the page; the same report gives the same text."""
    body = "".join(
        [
            f"<header><h1>{escape(report.title)}</h1><p class='soft'>{escape(report.lead)}</p></header>",
            _numbers(report.numbers),
            _calibration(report),
            _parameters(report.tables),
            _pictures(report.pictures),
            _notes(report.notes),
            _data(report.data),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


# The plots hold their heat maps as data inside of the page; nothing else may be loaded, and no script runs.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --panel: #f6f8fa; --line: #d0d7de;
  --actual: #1b1f24; --forecast: #0072b2; --second: #d55e00; --empty: #eceff2; --good: #1a7f5a; --warn: #9a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --paper: #0f1419; --panel: #182028;
  --line: #323c47; --actual: #e6edf3; --forecast: #56b4e9; --second: #e69f00; --empty: #232c35; --good: #3fb98a;
  --warn: #f0b54b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 900px; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; } p { margin: .4rem 0; max-width: 72ch; }
.soft, caption, figcaption { color: var(--soft); } .claimed { color: var(--good); } .refused { color: var(--warn); }
.verdict { font-weight: 600; } ul { padding-left: 1.2rem; } li { margin: .3rem 0; max-width: 72ch; }
.numbers { display: grid; gap: .75rem; margin: 1.5rem 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); }
.numbers li { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: 0; }
.numbers b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .4rem 0; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1.2rem .4rem 0; border-bottom: 1px solid var(--line); }
th.figure, td.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { font-style: italic; } caption { text-align: left; padding: .2rem 0; font-size: .88rem; }
figure { margin: 1.2rem 0 2rem; } figcaption { font-size: .92rem; max-width: 72ch; margin-top: .3rem; }
figure svg { width: 100%; min-width: 600px; height: auto; display: block; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; } dt { color: var(--soft); } dd { margin: 0; }
@media (max-width: 600px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #fff; --line: #bbb;
  --actual: #000; --forecast: #0072b2; --second: #d55e00; --empty: #eceff2; --good: #1a7f5a; --warn: #9a5b00; }
  body { padding: 0; max-width: none; font-size: 11pt; } h2 { break-after: avoid; }
  figure, tr, .numbers li { break-inside: avoid; } * { print-color-adjust: exact; } }
"""


def _numbers(numbers: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<li><b>{escape(figure)}</b><span>{escape(what)}</span></li>" for figure, what in numbers)
    return f'<ul class="numbers">{items}</ul>' if items else ""


def _calibration(report: Report) -> str:
    verdict = (
        '<p class="verdict claimed">✓ The intervals are true about as often as they say.</p>'
        if report.calibration_claimed
        else '<p class="verdict refused">✗ No claim: the intervals may hold more or fewer outcomes than they say.</p>'
    )
    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in report.calibration)
    if not report.coverage:
        return f"<h2>Can the intervals be trusted?</h2>{verdict}{words}"
    rows = (
        ((each.what, ""), (f"{each.nominal:.0%}", "figure"), (f"{each.actual:.1%}", "figure"))
        for each in report.coverage
    )
    table = _table(
        [("forecast of", ""), ("the interval claims", "figure"), ("outcomes inside", "figure")],
        rows,
        "Measured on stretches of the log that the model had not seen, by randomised PIT: a closed interval that begins at 0 holds more.",
    )
    return f"<h2>Can the intervals be trusted?</h2>{verdict}{words}{table}"


def _parameters(tables: Sequence[ParameterTable]) -> str:
    if not tables:
        return ""
    return "<h2>Parameters</h2>" + "".join(_parameter_table(table) for table in tables)


def _parameter_table(table: ParameterTable) -> str:
    rows = (
        (
            (each.name, "name"),
            (_figure(each.estimate), "figure"),
            ("none" if each.standard_error is None else _figure(each.standard_error), "figure"),
            (MEANINGS.get(each.name, ""), ""),
        )
        for each in table.parameters
    )
    said = []
    if table.weight is not None:
        said.append(f"weight {table.weight:.3g} in the mixture")
    if table.log_likelihood is not None:
        said.append(f"log likelihood {table.log_likelihood:,.1f}")
    heads = [("parameter", ""), ("estimate", "figure"), ("standard error", "figure"), ("what it says", "")]
    return f"<h3>{escape(table.title)}</h3>" + _table(heads, rows, "; ".join(said)) + _list(table.notes)


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    shown = []
    for picture in pictures:
        svg = picture.svg.replace("<svg", f'<svg role="img" aria-label="{escape(picture.caption)}"', 1)
        shown.append(
            f'<figure><div class="scroll">{svg}</div><figcaption>{escape(picture.caption)}</figcaption></figure>'
        )
    return "<h2>Plots</h2>" + "".join(shown)


def _notes(notes: Sequence[str]) -> str:
    return f"<h2>What to know</h2>{_list(notes)}" if notes else ""


def _data(data: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(said)}</dd>" for what, said in data)
    return f"<h2>Fitted on</h2><dl>{rows}</dl>" if rows else ""


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in sentences)}</ul>" if sentences else ""


def _table(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[tuple[str, str]]], caption: str) -> str:
    """Cells are pairs of text and the class they are set in."""
    head = "".join(f'<th scope="col" class="{kind}">{escape(text)}</th>' for text, kind in heads)
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{escape(text)}</td>' for text, kind in row) + "</tr>" for row in rows
    )
    below = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{below}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(number: float) -> str:
    """Four digits that mean something, as tables of parameters are printed."""
    if not math.isfinite(number):
        return "not finite"
    return f"{number:,.4f}" if 0.01 <= abs(number) < 10_000 or number == 0 else f"{number:.4g}"
