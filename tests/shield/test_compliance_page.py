"""The compliance page: one file that loads nothing, is well formed whatever it shows, and says in words what it draws."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.clock import SECOND, to_iso
from kiki.shield.compliance_chart import BARS_MAX, ceiling, changes_chart, decisions_chart, gathered, requests_chart
from kiki.shield.compliance_page import compliance_page
from kiki.shield.compliance_report import (
    BreachLine,
    ComplianceReport,
    ConsentDay,
    DecisionDay,
    Period,
    Probe,
    PurposeReport,
    RequestLine,
    Tally,
    Verdict,
    report_of,
)

DAY = 86_400 * SECOND
START = 1_800_000_000 * SECOND - 1_800_000_000 * SECOND % DAY
VOID = {"meta"}


class WellFormed(HTMLParser):
    """Raises when a tag is not closed, and gathers what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [(name, value) for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        self.loads += [(tag, None)] if tag in {"script", "link", "iframe", "img", "object", "form"} else []

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(page: str) -> WellFormed:
    parser = WellFormed()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def report(**more) -> ComplianceReport:
    empty = report_of(
        Tally(),
        Period("weekly", START, START + 7 * DAY),
        now=START + 7 * DAY,
        chains=["0123456789abcdef", "00000000000000ff"],
        probes=[],
        consents={},
        requests=[],
    )
    return msgspec.structs.replace(empty, **more)


NASTY = "<script>alert('x')</script> & \"quoted\" </title></svg>"


def full() -> ComplianceReport:
    lines = [
        RequestLine(
            request=f"DSR-{each}-00000000",
            kind=NASTY,
            state="running",
            received_at=to_iso(START),
            due_at=to_iso(START + each * DAY),
            closed_at=to_iso(START + DAY) if each % 2 else None,
        )
        for each in range(40)
    ]
    found = report()
    return report(
        decisions=[DecisionDay(day=each.day, approved=5, denied=2, unknown=1) for each in found.decisions],
        consents=[
            PurposeReport(
                purpose=NASTY,
                states={"granted": 3, "denied": 1},
                days=[ConsentDay(day=found.decisions[0].day, granted=2, revoked=1)],
            )
        ],
        probes=[
            Probe(name="a", controls=NASTY, verdict=verdict, said=NASTY, advice=NASTY) for verdict in list(Verdict)
        ],
        breaches=[
            BreachLine(
                reference=NASTY,
                declared_at=to_iso(START),
                found_at=to_iso(START),
                authority_due_at=to_iso(START + 3 * DAY),
                affected=7,
            )
        ],
        requests=msgspec.structs.replace(found.requests, lines=lines, open=20, overdue=3, received={NASTY: 4}),
    )


@pytest.mark.parametrize("shown", [report(), full()], ids=["empty", "full"])
def test_the_page_is_well_formed_and_loads_nothing(shown: ComplianceReport):
    page = compliance_page(shown)
    found = read(page)
    assert [] == found.loads
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?://", page)


def test_what_others_wrote_is_never_markup():
    page = compliance_page(full())
    assert "<script" not in page
    assert NASTY in "".join(read(page).texts)


def test_every_chart_is_an_image_with_a_sentence_for_who_cannot_see_it():
    page = compliance_page(full())
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert 4 == len(charts)
    labels = []
    for chart in charts:
        root = ET.fromstring(chart)  # it is XML, too
        label = root.attrib["aria-labelledby"]
        title = root.find("title")
        assert ("img", label) == (root.attrib["role"], title.attrib["id"])
        assert len(title.text) > 20
        labels.append(label)
    assert len(set(labels)) == len(labels)


def test_what_is_drawn_stands_in_a_table_too():
    texts = read(compliance_page(full())).texts
    assert {"The numbers by day", "The numbers by purpose", "All of them"} <= set(texts)


def test_an_empty_report_says_so_in_words():
    text = " ".join(read(compliance_page(report())).texts)
    for words in (
        "No decision was asked for",
        "Nobody has said anything",
        "Received in this period: none",
        "None was declared",
    ):
        assert words in text


def test_what_needs_doing_comes_first_and_only_what_failed():
    text = compliance_page(full())
    assert text.index("What needs doing") < text.index("<h2>Decisions")
    assert "Nothing that a probe has found." in compliance_page(report())


@given(st.integers(0, 10**15))
def test_a_scale_has_four_whole_steps_and_no_bar_beyond_it(highest: int):
    top = ceiling(highest)
    assert max(highest, 4) <= top
    assert top % 4 == 0
    assert top < 4 or top <= max(4, 2.01 * highest + 4)


@given(st.integers(1, 3700))
def test_bars_are_few_enough_to_see_and_lose_nothing(count: int):
    days = [(to_iso(START + each * DAY)[:10], (1, each)) for each in range(count)]
    bins, unit = gathered(days)
    assert len(bins) <= 2 * BARS_MAX + 2
    assert (count, sum(range(count))) == tuple(sum(each.counts[at] for each in bins) for at in (0, 1))
    assert ("day" == unit) == (count <= BARS_MAX)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=400))
def test_no_bar_leaves_the_picture(counts: list[int]):
    days = [DecisionDay(day=to_iso(START + at * DAY)[:10], approved=each) for at, each in enumerate(counts)]
    svg = ET.fromstring(re.search(r"<svg.*</svg>", decisions_chart(days))[0])
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for bar in svg.iter("rect"):
        x, y, wide, high = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + high <= height + 0.5


def test_a_chart_of_nothing_is_a_chart():
    for chart in (
        decisions_chart([]),
        requests_chart([], to_iso(START)),
        changes_chart(PurposeReport(purpose="marketing", states={}, days=[]), []),
    ):
        ET.fromstring(re.search(r"<svg.*</svg>", chart)[0])
