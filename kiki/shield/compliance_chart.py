"""The charts of the compliance page as inline SVG: decisions by day, consent by purpose, requests and their clocks. Pure.

Colours are classes, so that one picture serves light, dark and paper; what a colour says is always said in words too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from html import escape
from typing import Final, NamedTuple

from kiki.shield.compliance_report import DecisionDay, PurposeReport, RequestLine

WIDTH: Final = 880
BARS_MAX: Final = 62
REQUESTS_MAX: Final = 24

_LEFT, _RIGHT = 56, 12
_PLOT_HEIGHT: Final = 180
_TICKS: Final = 4
_LABEL_WIDTH: Final = 66
STATES: Final = ("granted", "denied", "revoked", "expired")


class Bin(NamedTuple):
    """Some days in a row, and how they are called."""

    first: str
    label: str
    counts: tuple[int, ...]


def gathered(days: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[list[Bin], str]:
    """At most so many bars that each can be seen: days, or weeks, or months; and what one bar is."""
    days = list(days)
    name: Callable[[date], tuple[str, str]]
    if len(days) <= BARS_MAX:
        unit, name = "day", _day
    elif len(days) <= 7 * BARS_MAX:
        unit, name = "week", _week
    else:
        unit, name = "month", _month
    found: dict[str, Bin] = {}
    for day, counts in days:
        first, label = name(date.fromisoformat(day))
        known = found.get(first)
        summed = counts if known is None else tuple(map(sum, zip(known.counts, counts, strict=True)))
        found[first] = Bin(first, label, summed)
    return list(found.values()), unit


def _day(day: date) -> tuple[str, str]:
    return day.isoformat(), f"{day.day} {day:%b}"


def _week(day: date) -> tuple[str, str]:
    monday = day - timedelta(days=day.weekday())
    return monday.isoformat(), f"{monday.day} {monday:%b}"


def _month(day: date) -> tuple[str, str]:
    return f"{day:%Y-%m}", f"{day:%b %Y}"


def decisions_chart(days: Sequence[DecisionDay]) -> str:
    """Stacked bars: approved below, denied above, unknown on top."""
    bins, unit = gathered((each.day, (each.approved, each.denied, each.unknown)) for each in days)
    highest = max((sum(each.counts) for each in bins), default=0)
    top = ceiling(highest)
    parts = [_scale(top), _dates(bins, _PLOT_HEIGHT + 10)]
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(bins))
    for place, each in enumerate(bins):
        base = float(_PLOT_HEIGHT + 10)
        told = f"{each.label}: {each.counts[0]} approved, {each.counts[1]} denied, {each.counts[2]} unknown"
        parts.append(f"<g><title>{escape(told)}</title>")
        for kind, count in zip(("approved", "denied", "unknown"), each.counts, strict=True):
            height = _PLOT_HEIGHT * count / top
            if count:
                base -= height
                parts.append(_bar(_LEFT + place * slot + slot * 0.12, base, slot * 0.76, height, kind))
        parts.append("</g>")
    said = f"Decisions by {unit}: {sum(each.approved for each in days)} approved, "
    said += f"{sum(each.denied for each in days)} denied, {sum(each.unknown for each in days)} unknown."
    return _svg("decisions", said, _PLOT_HEIGHT + 40, parts)


def states_chart(purposes: Sequence[PurposeReport]) -> str:
    """One bar for each purpose: how many persons are in which state now."""
    most = max((sum(each.states.values()) for each in purposes), default=0)
    parts: list[str] = []
    width = WIDTH - 150 - 70
    for row, each in enumerate(purposes):
        y, x = 10 + row * 34, 150.0
        total = sum(each.states.values())
        told = ", ".join(f"{each.states.get(state, 0)} {state}" for state in STATES)
        parts.append(f"<g><title>{escape(each.purpose)}: {told}</title>")
        parts.append(_text(140, y + 15, _words(each.purpose), "end"))
        for state in STATES:
            count = each.states.get(state, 0)
            length = width * count / max(1, most)
            if count:
                parts.append(_bar(x, y, length, 20, "said-no" if state == "denied" else state))
                x += length
        parts.append(_text(x + 8, y + 15, f"{total:,}", "start", "value"))
        parts.append("</g>")
    said = "; ".join(
        f"{_words(each.purpose)}: {', '.join(f'{each.states.get(state, 0)} {state}' for state in STATES)}"
        for each in purposes
    )
    return _svg("states", f"Consent now. {said}.", 20 + 34 * len(purposes), parts)


def changes_chart(purpose: PurposeReport, days: Sequence[str]) -> str:
    """What was said about one purpose over the period: yes upwards, no downwards."""
    known = {each.day: (each.granted, each.denied + each.revoked) for each in purpose.days}
    bins, unit = gathered((day, known.get(day, (0, 0))) for day in days)
    top = ceiling(max((max(each.counts) for each in bins), default=0))
    middle, half = 54.0, 44.0
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(bins))
    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{middle:g}" y2="{middle:g}"/>',
        _text(_LEFT - 8, middle - half + 10, f"{top:,}", "end", "tick"),
        _text(_LEFT - 8, middle + half, f"{top:,}", "end", "tick"),
        _dates(bins, 98),
    ]
    for place, each in enumerate(bins):
        x, granted, withdrawn = _LEFT + place * slot + slot * 0.12, *each.counts
        parts.append(f"<g><title>{escape(each.label)}: {granted} granted, {withdrawn} denied or revoked</title>")
        if granted:
            parts.append(_bar(x, middle - half * granted / top, slot * 0.76, half * granted / top, "granted"))
        if withdrawn:
            parts.append(_bar(x, middle, slot * 0.76, half * withdrawn / top, "revoked"))
        parts.append("</g>")
    yes, no = (sum(each.counts[at] for each in bins) for at in (0, 1))
    said = f"{_words(purpose.purpose)} by {unit}: {yes} granted, {no} denied or revoked."
    return _svg(f"changes-{purpose.purpose}", said, 124, parts)


def requests_chart(lines: Sequence[RequestLine], now: str) -> str:
    """One bar for each request, from its receipt to its due date, and how much of that has passed."""
    shown = [each for each in lines if each.due_at is not None][:REQUESTS_MAX]
    first = min((_moment(each.received_at) for each in shown), default=_moment(now))
    ends = [_moment(each.due_at or now) for each in shown] + [
        _moment(each.closed_at) for each in shown if each.closed_at
    ]
    last = max([*ends, _moment(now)])
    span = max(1.0, (last - first).total_seconds())
    left, width, height = 300, WIDTH - 300 - _RIGHT, 30 + 26 * len(shown)

    def place(moment: str) -> float:
        return left + width * (_moment(moment) - first).total_seconds() / span

    at_now = place(now)
    parts = [f'<line class="now" x1="{at_now:.1f}" x2="{at_now:.1f}" y1="18" y2="{height}"/>']
    parts.append(_text(min(at_now, WIDTH - 30), 13, "now", "middle", "tick"))
    for row, each in enumerate(shown):
        y, start, due = 24 + row * 26, place(each.received_at), place(each.due_at or now)
        end = place(each.closed_at or now)
        state = "overdue" if each.is_overdue(now) else "closed" if each.closed_at else "running"
        told = f"{each.request}, {each.kind}, {each.state}: received {each.received_at[:10]}, due {(each.due_at or '')[:10]}"
        parts += [
            f"<g><title>{escape(told)}</title>",
            _text(0, y + 13, f"{each.kind} · {each.request}", "start"),
            _bar(start, y, max(2.0, due - start), 16, "clock"),
            _bar(start, y + 4, max(2.0, end - start), 8, state),
            "</g>",
        ]
    late = sum(each.is_overdue(now) for each in shown)
    return _svg("requests", f"{len(shown)} requests against their due dates, {late} of them late.", height + 6, parts)


def ceiling(highest: int) -> int:
    """The top of a scale: a round number that four equal steps of whole numbers reach, not below the highest bar."""
    step = 1
    while step * _TICKS < highest:
        digits = 10 ** (len(str(step)) - 1)
        step = {1: 2, 2: 3, 3: 5, 5: 10}[step // digits] * digits
    return step * _TICKS


def _scale(top: int) -> str:
    lines: list[str] = []
    for tick in range(_TICKS + 1):
        y = 10 + _PLOT_HEIGHT * (1 - tick / _TICKS)
        kind = "grid" if tick else "axis"
        lines.append(f'<line class="{kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(_text(_LEFT - 8, y + 4, f"{top * tick // _TICKS:,}", "end", "tick"))
    return "".join(lines)


def _dates(bins: Sequence[Bin], base: float) -> str:
    """As many labels as there is room for, evenly."""
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(bins))
    every = max(1, -(-_LABEL_WIDTH // max(1, int(slot))))
    return "".join(
        _text(_LEFT + (at + 0.5) * slot, base + 18, each.label, "middle", "tick")
        for at, each in enumerate(bins)
        if at % every == 0
    )


def _bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{max(height, 0.5):.1f}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(name: str, said: str, height: int, parts: Iterable[str]) -> str:
    label = f"chart-{escape(name)}"
    return (
        f'<div class="scroll"><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{label}">'
        f'<title id="{label}">{escape(said)}</title>{"".join(parts)}</svg></div>'
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
