"""The compliance report as one page for people: a single file that loads nothing, for screens and for paper. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from kiki.shield.compliance_chart import (
    REQUESTS_MAX,
    STATES,
    changes_chart,
    decisions_chart,
    requests_chart,
    states_chart,
)
from kiki.shield.compliance_report import CUSTOM, ComplianceReport, Probe, Verdict

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --panel: #f6f8fa; --line: #d0d7de;
  --good: #1a7f5a; --bad: #c2410c; --idle: #6e7781; --more: #8250df; --clock: #d6dbe1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --paper: #0f1419; --panel: #182028;
  --line: #323c47; --good: #3fb98a; --bad: #f08a4b; --idle: #8b949e; --more: #b48cf2; --clock: #323c47; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 960px; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; } p { margin: .4rem 0; max-width: 70ch; }
p.soft { color: var(--soft); } .numbers { display: grid; gap: .75rem; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); padding: 0; list-style: none; }
.numbers li { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; }
.numbers b { display: block; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--soft); font-size: .85rem; }
ul.todo { padding-left: 1.2rem; } ul.todo li { margin: .5rem 0; }
.todo .controls, td .controls { color: var(--soft); font-size: .82rem; display: block; }
svg { width: 100%; min-width: 600px; height: auto; display: block; } svg text { fill: var(--ink); font-size: 12.5px; }
svg .tick { fill: var(--soft); font-size: 11.5px; } svg .value { font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-dasharray: 2 3; } svg .axis { stroke: var(--soft); }
svg .now { stroke: var(--ink); stroke-dasharray: 3 3; }
.approved, .granted, .running { fill: var(--good); background: var(--good); }
.denied, .revoked, .overdue { fill: var(--bad); background: var(--bad); }
.unknown, .expired { fill: var(--idle); background: var(--idle); }
.said-no { fill: var(--more); background: var(--more); } .closed { fill: var(--idle); background: var(--idle); }
.clock { fill: var(--clock); background: var(--clock); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .2rem 0 .6rem; font-size: .88rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .4rem; vertical-align: -1px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; } th, td { text-align: left; vertical-align: top;
  padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); } td.count { font-variant-numeric: tabular-nums; }
th.count, td.count { text-align: right; padding-left: .75rem; }
.mark { font-weight: 600; white-space: nowrap; } .mark.passed { color: var(--good); } .mark.failed { color: var(--bad); }
.mark.skipped { color: var(--soft); } details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
.scroll { overflow-x: auto; } footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #fff; --line: #bbb;
  --good: #1a7f5a; --bad: #c2410c; --idle: #777; --clock: #ddd; } body { padding: 0; max-width: none; font-size: 11pt; }
  h2 { break-after: avoid; } svg, tr, .numbers li { break-inside: avoid; } * { print-color-adjust: exact; } }
"""

_MARKS: Final = {Verdict.PASSED: "✓ passed", Verdict.FAILED: "✗ failed", Verdict.SKIPPED: "- not run"}
_PERIODS: Final = {
    "daily": "The last 24 hours",
    "weekly": "The last 7 days",
    "monthly": "The last month",
    "quarterly": "The last three months",
    "yearly": "The last year",
    CUSTOM: "A chosen period",
}


def compliance_page(report: ComplianceReport) -> str:
    """The HTML of the page."""
    title = f"Compliance report, {report.since[:10]} to {report.until[:10]}"
    body = "".join(
        [
            _head(report),
            _numbers(report),
            _to_do(report),
            _decisions(report),
            _consents(report),
            _requests(report),
            _probes(report.probes),
            _breaches(report),
            _foot(report),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _head(report: ComplianceReport) -> str:
    called = _PERIODS.get(report.period, report.period)
    return (
        f"<header><h1>Compliance report</h1><p class='soft'>{escape(called)}: {_minute(report.since)} to "
        f"{_minute(report.until)} (UTC). {escape(_chains(report.chains))}, made {_minute(report.generated_at)}.</p></header>"
    )


def _numbers(report: ComplianceReport) -> str:
    ran = [each for each in report.probes if each.verdict is not Verdict.SKIPPED]
    passed = sum(each.verdict is Verdict.PASSED for each in ran)
    shown = [
        (f"{report.compliance_score:g} %", f"score: {passed} of {len(ran)} probes passed"),
        (_count(report.total_events), "events in the audit"),
        (_count(report.security_events), "security events"),
        (_count(report.consent_changes), "changes of consent"),
        (_count(report.data_access_requests), "access requests received"),
        (_count(report.data_deletions), "deletions completed"),
        (f"{report.requests.open} / {report.requests.overdue}", "requests open / overdue"),
        (_count(report.data_breaches), "breaches declared"),
    ]
    items = "".join(f"<li><b>{escape(number)}</b><span>{escape(what)}</span></li>" for number, what in shown)
    return f'<ul class="numbers">{items}</ul>'


def _to_do(report: ComplianceReport) -> str:
    failed = [each for each in report.probes if each.verdict is Verdict.FAILED]
    if not failed:
        return "<h2>What needs doing</h2><p>Nothing that a probe has found.</p>"
    items = "".join(
        f"<li><b>{escape(_sentence(each.said))}</b> {escape(_sentence(each.advice))}"
        f'<span class="controls">{escape(each.controls)}</span></li>'
        for each in failed
    )
    return f'<h2>What needs doing</h2><ul class="todo">{items}</ul>'


def _decisions(report: ComplianceReport) -> str:
    total = sum(each.approved + each.denied + each.unknown for each in report.decisions)
    if not total:
        return "<h2>Decisions</h2><p>No decision was asked for in this period.</p>"
    busy = [each for each in report.decisions if each.approved or each.denied or each.unknown]
    rows = ((each.day, each.approved, each.denied, each.unknown) for each in busy)
    return (
        "<h2>Decisions</h2>"
        + _legend([("approved", "approved"), ("denied", "denied"), ("unknown", "unknown, counted as spent")])
        + decisions_chart(report.decisions)
        + _details("The numbers by day", ("day", "approved", "denied", "unknown"), rows)
    )


def _consents(report: ComplianceReport) -> str:
    if not report.consents:
        return "<h2>Consent by purpose</h2><p>Nobody has said anything about any purpose yet.</p>"
    days = [each.day for each in report.decisions]
    rows = (
        (each.purpose.replace("_", " "), *(each.states.get(state, 0) for state in STATES)) for each in report.consents
    )
    changed = [each for each in report.consents if each.days]
    charts = "".join(
        f"<h3>{escape(each.purpose.replace('_', ' ').capitalize())}</h3>{changes_chart(each, days)}" for each in changed
    )
    over_time = (
        "<h3>Said in this period</h3><p class='soft'>Granted upwards, denied or revoked downwards; each purpose has a "
        f"scale of its own.</p>{charts}"
        if changed
        else "<p>Nothing was said in this period.</p>"
    )
    return (
        "<h2>Consent by purpose</h2><p class='soft'>Persons by what they said last.</p>"
        + _legend([("granted", "granted"), ("said-no", "denied"), ("revoked", "revoked"), ("expired", "expired")])
        + states_chart(report.consents)
        + _details("The numbers by purpose", ("purpose", *STATES), rows)
        + over_time
    )


def _requests(report: ComplianceReport) -> str:
    lines = report.requests.lines
    received = ", ".join(f"{count} {kind}" for kind, count in report.requests.received.items()) or "none"
    completed = ", ".join(f"{count} {kind}" for kind, count in report.requests.completed.items()) or "none"
    told = f"<p>Received in this period: {escape(received)}. Completed: {escape(completed)}.</p>"
    if not lines:
        return f"<h2>Requests and their clocks</h2>{told}"
    rows = (
        (
            each.request,
            each.kind,
            each.state,
            each.received_at[:10],
            (each.due_at or "-")[:10],
            (each.closed_at or "-")[:10],
        )
        for each in lines
    )
    more = f"<p class='soft'>The {REQUESTS_MAX} most urgent are drawn.</p>" if len(lines) > REQUESTS_MAX else ""
    return (
        f"<h2>Requests and their clocks</h2>{told}"
        + _legend([("clock", "receipt to due date"), ("running", "running"), ("overdue", "late"), ("closed", "closed")])
        + requests_chart(lines, report.generated_at)
        + more
        + _details("All of them", ("request", "kind", "state", "received", "due", "closed"), rows, counts=False)
    )


def _probes(probes: Sequence[Probe]) -> str:
    rows = "".join(
        f'<tr><td class="mark {each.verdict.value}">{_MARKS[each.verdict]}</td><td>{escape(_sentence(each.said))}'
        f'<span class="controls">{escape(each.controls)}</span></td></tr>'
        for each in probes
    )
    return (
        "<h2>Probes</h2><p class='soft'>Each was run when this page was made. The score is the share that passed; what "
        "could not run counts neither way.</p>"
        f'<div class="scroll"><table><thead><tr><th scope="col">Result</th><th scope="col">What was seen</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _breaches(report: ComplianceReport) -> str:
    told = "<p class='soft'>Breaches are declared by people; kiki detects none.</p>"
    if not report.breaches:
        return f"<h2>Declared breaches</h2>{told}<p>None was declared in this period.</p>"
    rows = (
        (
            each.reference,
            _minute(each.found_at),
            _minute(each.authority_due_at),
            _minute(each.notified_at) if each.notified_at else "not yet",
            "unknown" if each.affected is None else str(each.affected),
        )
        for each in report.breaches
    )
    columns = ("reference", "found", "authority by", "authority notified", "persons")
    return f"<h2>Declared breaches</h2>{told}{_table(columns, rows, counts=False)}"


def _foot(report: ComplianceReport) -> str:
    return (
        f"<footer><p>Measured against {escape(', '.join(report.frameworks))}. Every number was counted from the ledger's "
        "entries of this period, and can be counted again: <code>kiki audit export --format jsonl</code>. This page shows what "
        "the software can see; it is no legal opinion and no certificate.</p></footer>"
    )


def _legend(kinds: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<span><i class="{kind}"></i>{escape(what)}</span>' for kind, what in kinds)
    return f'<div class="legend" aria-hidden="true">{items}</div>'


def _details(summary: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, counts: bool = True) -> str:
    return f"<details><summary>{escape(summary)}</summary>{_table(columns, rows, counts=counts)}</details>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, counts: bool) -> str:
    """A table; with `counts` all columns but the first hold numbers."""
    kinds = ["", *(' class="count"' if counts else "" for _ in columns[1:])]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{escape(_count(cell) if isinstance(cell, int) else str(cell))}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _count(number: int) -> str:
    return f"{number:,}"


def _minute(moment: str) -> str:
    return escape(moment[:16].replace("T", " "))


def _chains(names: Sequence[str]) -> str:
    return f"Chain{'s' if len(names) > 1 else ''} {', '.join(names)}"
