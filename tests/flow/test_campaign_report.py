"""What a run came to: numbers, words, pictures and the page."""

from __future__ import annotations

from datetime import date
from html.parser import HTMLParser

import msgspec

from kiki.flow.campaign_report import CampaignReport, report_of
from kiki.flow.event_words import sentence
from kiki.flow.plan_text import parse_plan
from kiki.flow.progress import begin, follow
from kiki.flow.report_page import page
from kiki.flow.run_rows import RunRow
from kiki.flow.run_status import status_of
from tests.flow.plans import SPRING

PLAN = parse_plan(SPRING)
ROW = RunRow("run-1", PLAN.name, PLAN.version, "running", 1_796_000_000_000_000, None, "a", 1, 0)
RUN = {"run": "run-1"}
STORY = [
    ("search-brand", "flow.lane_started", {"starts": "2026-12-01", "ends": "2026-12-14"}),
    ("search-brand", "flow.called", {"does": "create", "micros": 1_000_000_000, "fate": "unknown", "code": "timeout"}),
    ("search-brand", "flow.read_back", {"does": "create", "micros": 1_000_000_000, "fate": "done"}),
    ("search-brand", "flow.reserved", {"day": "2026-12-01", "micros": 2_000_000_000, "hold": "h1"}),
    ("search-brand", "flow.called", {"does": "resume", "fate": "done"}),
    ("search-brand", "flow.reserved", {"day": "2026-12-02", "micros": 2_000_000_000, "hold": "h2"}),
    (
        "search-brand",
        "flow.settled",
        {"day": "2026-12-01", "spent": 900_000_000, "held": 2_000_000_000, "value": 2_700_000_000},
    ),
    ("search-brand", "flow.credited", {"day": "2026-12-01", "change": -100_000_000}),
    ("search-brand", "flow.revised", {"day": "2026-12-01", "change": 10_000_000}),
    ("social", "flow.lane_started", {"starts": "2026-12-01", "ends": "2026-12-14"}),
    ("social", "flow.refused", {"day": "2026-12-01", "micros": 500_000_000, "code": "budget_exhausted"}),
    ("social", "flow.drift", {"day": "2026-12-01", "change": 5_000_000, "unheld": True}),
    ("social", "flow.signal", {"kind": "pause", "actor": "<ada>"}),
]


def report() -> CampaignReport:
    told = [
        (number, 10**15 + number, lane, event, RUN | detail) for number, (lane, event, detail) in enumerate(STORY, 1)
    ]
    return report_of(status_of(ROW, PLAN, follow(begin(PLAN), told, PLAN), {}), PLAN)


def test_the_numbers_of_a_story():
    found = report()
    google, meta = found.platforms
    assert (810_000_000, 2_700_000_000, 2_000_000_000, 1) == (google.spent, google.value, google.held, google.unknown)
    assert (14_000_000_000, 1_000_000_000, 0.81) == (google.planned, google.planned_so_far, google.pacing)
    assert (5_000_000, 0, None) == (meta.spent, meta.held, meta.pacing)
    assert 815_000_000 == found.total.spent
    first = found.days[0]
    assert (date(2026, 12, 1), 1_250_000_000, 815_000_000, 2, 2) == (
        first.day,
        first.planned,
        first.spent,
        first.campaigns,
        first.settled,
    )
    assert {date(2026, 12, 1): 815_000_000} == found.settled_days
    assert ["flow.drift"] == [alert.event for alert in found.alerts]
    assert found == msgspec.json.decode(msgspec.json.encode(found), type=CampaignReport)


def test_reading_a_story_in_parts_is_reading_it_at_once():
    told = [(number, number, lane, event, detail) for number, (lane, event, detail) in enumerate(STORY, 1)]
    whole = follow(begin(PLAN), told, PLAN)
    for cut in range(len(told)):
        assert whole == follow(follow(begin(PLAN), told[:cut], PLAN), told[cut:], PLAN)


def test_every_word_of_a_story_is_a_sentence():
    said = [sentence(event, detail, "USD") for _, event, detail in STORY]
    assert "make the campaign, $1,000.00: unknown: timeout" in said
    assert "make the campaign, $1,000.00: read back, done" in said
    assert "$2,000.00 set aside for 2026-12-01" in said
    assert "2026-12-01 cost $900.00 of $2,000.00" in said
    assert "2026-12-01 became cheaper by $100.00" in said
    assert "no money for 2026-12-01: budget_exhausted" in said
    assert "DRIFT: 2026-12-01 cost $5.00 more, for which nothing was set aside" in said
    assert "flow.news" == sentence("flow.news", {}, "USD")


def test_the_page_loads_nothing_and_escapes_what_people_wrote():
    from kiki.flow import report_pictures

    found = msgspec.structs.replace(report(), plan="<b>spring</b>")
    pictures = [draw(found) for draw in (report_pictures.over_days, report_pictures.pacing, report_pictures.returns)]
    text = page(found, pictures, ["a < b"])
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append(tag)
            assert not [value for name, value in attributes if name in {"src", "href"} and not value.startswith("#")]

    Reader().feed(text)
    assert 3 == seen.count("svg")
    assert "b" not in seen
    assert "&lt;b&gt;spring&lt;/b&gt;" in text
    assert "a &lt; b" in text
    assert "81%" in text
    assert pictures == [
        draw(found) for draw in (report_pictures.over_days, report_pictures.pacing, report_pictures.returns)
    ]
