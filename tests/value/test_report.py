from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from kiki.value import plots
from kiki.value.deciles import deciles
from kiki.value.report import MEANINGS, Coverage, Parameter, ParameterTable, Picture, Report, report_page, write_report

NASTY = '<script>alert("1")</script> & 😀 \' "'

REPORT = Report(
    title="CDNOW",
    lead="2,357 customers",
    numbers=[("2,357", "customers")],
    calibration_claimed=True,
    calibration=["Two stretches agreed."],
    coverage=[Coverage("purchases", 0.8, 0.791), Coverage("revenue", 0.95, 0.9449)],
    tables=[
        ParameterTable(
            "Pareto/NBD",
            [Parameter("r", 0.5533, 0.0476), Parameter("beta", 11.6688), Parameter("s", 1.5e7)],
            -9595.0,
            0.62,
            ["beta ran away"],
        )
    ],
    notes=["3 refunds have no order"],
    data=[("fingerprint", "ab" * 32)],
)

VOID = {"meta"}


class Structure(HTMLParser):
    """Tags as they open and close, and what the page would load."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag):
        assert tag == self.open.pop(), f"{tag} closes something else"


def structure(page: str) -> Structure:
    found = Structure()
    found.feed(page)
    found.close()
    assert [] == found.open
    return found


def pictures(count: int = 2) -> list[Picture]:
    figure = plots.decile_lift(deciles([2.0, 1.0], [1, 1]), what="purchases")
    return [Picture(f"Lift {place}", plots.inline_svg(figure, name=f"lift{place}")) for place in range(count)]


def test_the_page_says_what_the_report_holds():
    page = report_page(REPORT)
    for said in (
        *("<h1>CDNOW</h1>", "2,357 customers", "Two stretches agreed.", "79.1%", "94.5%", "log likelihood -9,595.0"),
        *("weight 0.62 in the mixture", "0.5533", "0.0476", "1.5e+07", "beta ran away", "3 refunds", "ab" * 32),
        *(MEANINGS["r"], "The intervals are true about as often as they say"),
    ):
        assert said in page


def test_a_parameter_without_a_standard_error_says_so():
    assert re.search(r"<td[^>]*>beta</td><td[^>]*>11\.6688</td><td[^>]*>none</td>", report_page(REPORT))


def test_without_calibration_the_page_claims_none():
    page = report_page(
        replace(REPORT, calibration_claimed=False, calibration=["The last origins disagree."], coverage=[])
    )
    assert "No claim" in page
    assert "The last origins disagree." in page
    assert "are true about as often" not in page
    assert "✓" not in page


def test_the_page_is_whole_and_loads_nothing():
    page = report_page(replace(REPORT, pictures=pictures()))
    found = structure(page)
    assert all(each.startswith(("#", "data:image/png")) for each in found.loads)
    assert not {"script", "link", "iframe", "img", "a"} & {*found.tags}
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page
    assert 2 == found.tags.count("svg")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len({*ids})


def test_every_colour_of_the_plots_has_one_in_light_and_in_dark():
    page = report_page(REPORT)
    light, dark, paper = (part for part in re.findall(r":root \{[^}]*\}", page))
    for variable in plots.THEME.values():
        assert all(f"{variable}:" in part for part in (light, dark, paper))


def test_whatever_text_comes_in_stays_text():
    report = Report(
        title=NASTY,
        lead=NASTY,
        numbers=[(NASTY, NASTY)],
        calibration_claimed=False,
        calibration=[NASTY],
        coverage=[Coverage(NASTY, 0.8, 0.8)],
        tables=[ParameterTable(NASTY, [Parameter(NASTY, 1.0, 1.0)], notes=[NASTY])],
        pictures=[Picture(NASTY, pictures(1)[0].svg)],
        notes=[NASTY],
        data=[(NASTY, NASTY)],
    )
    page = report_page(report)
    found = structure(page)
    assert "script" not in found.tags
    assert "<script>" not in page
    assert "😀" in page


def test_numbers_that_are_none_are_said():
    table = ParameterTable("x", [Parameter("r", float("inf"), float("nan")), Parameter("a", 0.0), Parameter("b", 1e-9)])
    page = report_page(replace(REPORT, tables=[table]))
    assert 2 == page.count("not finite")
    assert "1e-09" in page


def test_the_least_report_is_a_page():
    page = report_page(Report(title="", lead="", calibration_claimed=False, calibration=[]))
    structure(page)
    assert ["Can the intervals be trusted?"] == re.findall("<h2>(.*?)</h2>", page)


def test_the_same_report_is_the_same_file(tmp_path: Path):
    first = write_report(tmp_path / "a.html", replace(REPORT, pictures=pictures()))
    second = write_report(tmp_path / "b.html", replace(REPORT, pictures=pictures()))
    assert first.read_bytes() == second.read_bytes()
    assert report_page(replace(REPORT, pictures=pictures())) == first.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_a_meaning_is_a_phrase_without_markup(name: str):
    assert re.fullmatch(r"[^<>&]+[^.]", MEANINGS[name])


def test_the_report_of_ten_plots_is_small_enough_to_send():
    page = report_page(
        replace(
            REPORT,
            pictures=[
                Picture("x", plots.inline_svg(plots.calibration(np.linspace(0, 1, 99), what="x"), name=f"p{n}"))
                for n in range(10)
            ],
        )
    )
    assert len(page.encode()) < 1_000_000
