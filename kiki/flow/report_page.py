"""A campaign report as one HTML file that loads nothing, for screens and paper. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kiki.clock import to_iso
from kiki.flow.campaign_report import CampaignReport, PlatformReport
from kiki.flow.event_words import sentence
from kiki.flow.words import coins_in_words

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --paper: #ffffff; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d; --paper: #0d1117; --warn: #fdba74; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin-bottom: 0; } p.lead, td.dim, th { color: var(--dim); }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; } th:first-child, td:first-child { text-align: left; }
tr.total td { font-weight: 600; } figure { margin: 1.5rem 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figure svg { width: 100%; height: auto; display: block; } li.warn { color: var(--warn); }
"""


def page(report: CampaignReport, pictures: Sequence[str], notes: Sequence[str] = ()) -> str:
    """The page; `pictures` are SVG, `notes` are said below them."""
    kind = ", in the sandbox" if report.sandbox else ""
    lead = f"{report.starts} to {report.ends}, run {report.run}, version {report.version}: {report.state}{kind}."
    alerts = [
        f"{to_iso(each.at)[:19]}Z {each.campaign}: {sentence(each.event, each.detail, report.currency)}"
        for each in report.alerts
    ]
    parts = [
        f"<h1>{escape(report.plan)}</h1><p class=lead>{escape(lead)}</p>",
        _table(report),
        *(f"<figure>{picture}</figure>" for picture in pictures),
        _listed("What somebody should look at", alerts, "warn"),
        _listed("Notes", notes, ""),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(report.plan)}: campaign report</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>\n"
    )


def share(value: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return "-" if value is None else f"{value:.0%}"


def times(value: float | None) -> str:
    """A multiple; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def _table(report: CampaignReport) -> str:
    heads = ("platform", "campaigns", "planned", "planned so far", "spent", "pacing", "held", "value", "return")
    rows = [_row(each, report.currency, "") for each in report.platforms]
    rows.append(_row(report.total, report.currency, " class=total"))
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(rows)}</table>"


def _row(each: PlatformReport, currency: str, kind: str) -> str:
    def money(micros: int) -> str:
        return coins_in_words(micros, currency)

    cells = (
        each.platform,
        str(each.campaigns),
        money(each.planned),
        money(each.planned_so_far),
        money(each.spent),
        share(each.pacing),
        money(each.held),
        money(each.value),
        times(each.returned),
    )
    return f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _listed(title: str, lines: Sequence[str], kind: str) -> str:
    if not lines:
        return ""
    items = "".join(f'<li class="{kind}">{escape(line)}</li>' for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>"
