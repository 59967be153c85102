from __future__ import annotations

import io
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from kiki.errors import InvalidInput
from kiki.value import pareto_nbd, plots
from kiki.value.deciles import deciles
from kiki.value.history_grid import HistoryGrid, history_grid
from kiki.value.orders import day_number
from kiki.value.tracking import Tracking

PARETO = np.array([0.5533, 10.5777, 0.6062, 11.6688])
SVG = "{http://www.w3.org/2000/svg}"


def tracking(weeks: int = 20, calibrated: int = 10) -> Tracking:
    ends = day_number(date(2025, 1, 5)) + 7 * np.arange(weeks)
    actual = np.random.default_rng(1).poisson(30, weeks)
    return Tracking(ends, actual, np.full(weeks, 30.0), int(ends[0]) + 7 * calibrated)


def grid() -> HistoryGrid:
    return history_grid(lambda groups: pareto_nbd.alive(PARETO, groups), age=38.86, x_max=12)


FIGURES = {
    "cumulative": lambda: plots.cumulative_tracking(tracking()),
    "weekly": lambda: plots.weekly_tracking(tracking()),
    "expected": lambda: plots.expected_purchases(grid(), age=38.86, horizon=39),
    "alive": lambda: plots.probability_alive(grid(), age=38.86),
    "calibration": lambda: plots.calibration(np.random.default_rng(2).random(500), what="purchases"),
    "measured": lambda: plots.measured_calibration(
        [0.1] * 10, {80: 0.7, 90: 0.8, 95: 0.9}, {80: 0.8, 90: 0.9, 95: 0.95}, customers=500, what="revenue"
    ),
    "lift": lambda: plots.decile_lift(deciles(np.arange(50), np.arange(50)), what="revenue", unit="USD"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_800_pixels_wide_and_names_its_axes(name: str):
    figure = FIGURES[name]()
    picture = Image.open(io.BytesIO(plots.image(figure, "png")))
    assert (800, 450) == picture.size
    drawn = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in drawn)
    # Something is drawn that is no paper.
    assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.parametrize("name", FIGURES)
def test_the_same_arrays_give_the_same_bytes(name: str, kind: str):
    assert plots.image(FIGURES[name](), kind) == plots.image(FIGURES[name](), kind)


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_inside_a_page_names_no_other_place_and_keeps_its_ids_to_itself(name: str):
    element = plots.inline_svg(FIGURES[name](), name="plot7")
    assert element.startswith("<svg")
    assert "http" not in element
    ET.fromstring(element)
    ids = re.findall(r'\bid="([^"]+)"', element)
    assert ids
    assert all(each.startswith("plot7-") for each in ids)
    assert {*re.findall(r'(?:url\(#|href="#)([^")]+)', element)} <= {*ids}
    colours = [*plots.THEME]
    assert all(f"var({plots.THEME[each]}, {each})" in element for each in colours if each in element)
    assert "var(--ink" in element
    assert "<text" in element


def test_saved_pictures_are_of_the_kind_of_their_ending(tmp_path: Path):
    plots.save(FIGURES["lift"](), tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    plots.save(FIGURES["lift"](), tmp_path / "a.svg")
    assert f"{SVG}svg" == ET.parse(tmp_path / "a.svg").getroot().tag
    for wrong in ("a.pdf", "a", "a.jpg"):
        with pytest.raises(InvalidInput, match="png or svg"):
            plots.save(FIGURES["lift"](), tmp_path / wrong)
    assert {"a.PNG", "a.svg"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("weeks", "calibrated"), [(1, 0), (2, 1), (2, 5), (300, 299), (300, 0), (3, -4)])
def test_any_length_of_log_can_be_drawn(weeks: int, calibrated: int):
    plots.image(plots.cumulative_tracking(tracking(weeks, calibrated)), "png")
    plots.image(plots.weekly_tracking(tracking(weeks, calibrated)), "png")


def test_nothing_bought_can_be_drawn():
    ends = np.array([day_number(date(2025, 1, 5))])
    nothing = Tracking(ends, np.zeros(1, dtype=np.int64), np.zeros(1), int(ends[0]))
    plots.image(plots.weekly_tracking(nothing), "png")
    plots.image(plots.decile_lift(deciles([0.0], [0]), what="purchases"), "png")
    flat = history_grid(lambda groups: np.zeros_like(groups.x), age=0.5, x_max=0)
    plots.image(plots.expected_purchases(flat, age=0.5, horizon=1), "png")


@pytest.mark.parametrize("values", [[], [float("nan")], [-0.1], [1.1]])
def test_what_is_no_probability_is_refused(values):
    with pytest.raises(InvalidInput, match="PIT"):
        plots.calibration(values, what="purchases")


@pytest.mark.parametrize("values", [[0.0], [1.0], [0.5] * 3, [0.0, 1.0] * 40])
def test_few_and_extreme_probabilities_can_be_drawn(values):
    plots.image(plots.calibration(values, what="revenue"), "png")


def test_the_coverage_in_the_picture_is_the_share_of_outcomes_inside():
    """Of 100 evenly spread places, 80 lie in the central 80 %."""
    figure = plots.calibration((np.arange(100) + 0.5) / 100, what="purchases")
    said = figure.axes[1].texts[0].get_text()
    assert "80% hold 80.0%\n90% hold 90.0%\n95% hold 96.0%" == said


def test_dollar_signs_and_markup_in_words_stay_words():
    element = plots.inline_svg(plots.decile_lift(deciles([1.0], [1]), what="<b>$x^2$</b>", unit="€ & $"), name="lift")
    assert "&lt;b&gt;$x^2$&lt;/b&gt;" in element
    ET.fromstring(element)


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    code = (
        "import matplotlib as m; before = dict(m.rcParams)\n"
        "from tests.value.test_plots import FIGURES, plots\n"
        "[plots.inline_svg(make(), name='a') for make in FIGURES.values()]\n"
        "print(dict(m.rcParams) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "True" == done.stdout.strip()


def test_without_matplotlib_one_is_told_how_to_get_it():
    code = "import sys; sys.modules['matplotlib'] = None\nimport kiki.value.plots"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs the extra 'plot'" in done.stderr
