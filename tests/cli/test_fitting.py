"""Tables in windows of any width: nothing that they say is cut off."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kiki.cli import budget_watch, campaign_show
from kiki.flow.progress import LaneProgress
from kiki.flow.run_status import RunStatus
from kiki.shield.window import MeterStatus
from tests.cli.test_cli import reply

NAME = "a-campaign-with-a-long-name"


def drawn(what, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(what)
    return console.file.getvalue()


def run_status() -> RunStatus:
    lane = LaneProgress(
        campaign=NAME,
        platform="google_ads",
        planned=0,
        days=14,
        budget=1_234_560_000,
        spent={"2026-12-01": 987_650_000},
        last_event="flow.settled",
    )
    return RunStatus(
        run="spring-12345678",
        plan="spring",
        version="12345678",
        state="running",
        currency="USD",
        sandbox=False,
        made_at=0,
        ended_at=None,
        owner="",
        leased_until=0,
        budget=None,
        lanes=[lane, lane],
        alerts=[],
    )


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_run_is_readable_at_any_width(width: int):
    picture = drawn(campaign_show.status_table(run_status()), width)
    assert "…" not in picture
    assert picture.count(NAME) == picture.count("$1,234.56") == picture.count("$987.65") == 2
    assert max(map(len, picture.splitlines())) <= width
    # Where there is room it is a table: a head, and a line for each campaign.
    assert (picture.count("budget/day") == 1) == (width == 200)


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_budgets_are_readable_at_any_width(width: int):
    meter = MeterStatus(
        budget="the-whole-house",
        scope="customer:*",
        span=60_000_000,
        limit=10**12,
        spent=123_456_780_000,
        held=0,
        room_at=None,
    )
    picture = drawn(budget_watch.FittingTable(budget_watch.table(reply(meter), 10**12)), width)
    assert "…" not in picture
    assert "123456.78" in picture
    assert max(map(len, picture.splitlines())) <= width
