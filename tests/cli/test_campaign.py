"""`kiki campaign`: in this process, and as a real one that is killed and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.plan_schema import plan_schema
from kiki.shield.budget_guard import BudgetGuard

PLAN = """\
plan: spring
currency: USD
starts: 2026-12-01
ends: 2026-12-02
platforms: sandbox
campaigns:
  - {name: search, platform: google_ads, budget: $100/day, bid: $1.20}
  - {name: social, platform: meta, budget: $200/day}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A directory with a plan, its own ledger and quick days."""
    monkeypatch.chdir(tmp_path)
    for name, value in own(tmp_path).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "spring.yaml").write_text(PLAN)
    return tmp_path


def own(folder: Path) -> dict[str, str]:
    return {
        "KIKI_DATA_DIR": str(folder / "data"),
        "KIKI_REDIS": "off",
        "MAX_BURST_BUDGET": "5000",
        "WINDOW_SECONDS": "2592000",
        "KIKI_FLOW_SANDBOX_DAY_SECONDS": "1",
        "KIKI_FLOW_EXECUTOR": "here",
    }


def run(*arguments: str):
    return CliRunner().invoke(app, ["campaign", *arguments])


def guarded(*arguments: str):
    return run(*arguments, "--ledger", "data")


def test_a_plan_is_shown_and_nothing_is_changed(place: Path):
    shown = guarded("plan", "spring.yaml")
    assert 0 == shown.exit_code
    assert re.search(r"\+ create +search on google_ads", shown.stdout)
    assert "2 create: $600.00 as planned, at worst $1,100.00" in shown.stdout
    found = json.loads(guarded("plan", "spring.yaml", "--json").stdout)
    assert (600_000_000, []) == (found["planned"], found["problems"])
    assert not (place / "data" / "flow.db").exists()


def test_what_keeps_a_plan_from_running_is_a_refusal(place: Path, monkeypatch):
    monkeypatch.setenv("MAX_BURST_BUDGET", "100")
    shown = guarded("plan", "spring.yaml")
    assert 3 == shown.exit_code
    assert "the guard says: 1100.00 never fits budget 'default', which allows 100.00 per 30d" in shown.stdout


def test_mistakes_in_a_plan_are_named_with_their_lines(place: Path):
    (place / "spring.yaml").write_text(PLAN.replace("budget: $100", "budgte: $100"))
    shown = guarded("plan", "spring.yaml")
    assert 1 == shown.exit_code
    assert "spring.yaml:7" in shown.stderr
    assert "did you mean 'budget'?" in shown.stderr
    assert "No such file" in guarded("run", "nobody.yaml").stderr


def test_a_run_from_start_to_report(place: Path):
    ran = guarded("run", "spring.yaml")
    assert 0 == ran.exit_code
    assert "search: make the campaign, $100.00: done" in ran.stderr
    assert "social: ended: completed" in ran.stderr
    assert "held $0.00" in ran.stdout

    assert re.search(r"spring-\w{8} +completed", run("status").stdout)
    one = json.loads(run("status", "spring", "--json").stdout)
    assert ("completed", 0) == (one["state"], one["held"])
    words = [json.loads(line) for line in run("watch", "spring", "--json").stdout.splitlines()]
    assert "flow.lane_started" == words[0]["event"]
    assert "completed" in run("watch", "spring").stdout
    assert 0 == guarded("reconcile", "spring").exit_code
    assert "google_ads" in run("report", "spring", "--html", "report.html").stdout
    assert "<svg" in (place / "report.html").read_text()
    assert one["run"] == json.loads(run("report", "spring", "--json").stdout)["run"]
    # The same plan is the same run; it has ended.
    again = guarded("run", "spring.yaml", "--json")
    assert [one["run"]] == [each["run"] for each in json.loads(again.stdout)["runs"]]
    assert "has ended; kiki campaign run --again starts the plan anew" in " ".join(again.stderr.split())

    story = CliRunner().invoke(app, ["audit", "export", "--campaign", "search", "--json"]).stdout
    told = [json.loads(line).get("resource") for line in story.splitlines()]
    assert {"flow.lane_started", "flow.reserved", "flow.called", "flow.settled", "flow.lane_ended"} <= {*told}


def test_values_are_uploaded_as_the_page_says(place: Path):
    page = (Path(__file__).parents[2] / "docs" / "flow.md").read_text()
    (csv,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    ((command, answer),) = re.findall(r"\$ kiki campaign (upload .*?)\n(.*?)```", page, re.DOTALL)
    (place / "values.csv").write_text(csv)
    (place / "spring.yaml").write_text(PLAN.replace("ends: 2026-12-02", "ends: 2026-12-01"))
    assert "run the plan first" in guarded(*command.split()).stderr
    assert 0 == guarded("run", "spring.yaml").exit_code
    for customer in ("c-17", "c-18"):
        granted = CliRunner().invoke(app, ["consent", "grant", customer, "data_sharing", "--ledger", "data"])
        assert 0 == granted.exit_code

    planned = json.loads(guarded(*command.split(), "--dry-run", "--json").stdout)
    assert (2, 1, 0) == tuple(planned[name] for name in ("waiting", "left_out", "done"))
    shown = guarded(*command.split())
    assert (0, answer) == (shown.exit_code, shown.stdout)
    again = json.loads(guarded(*command.split(), "--json").stdout)
    assert (2, 1, 0) == tuple(again[name] for name in ("already", "left_out", "done"))

    (place / "values.csv").write_text(csv.replace("49.90", "59.90").replace("Cj0KCQiA9zB", ""))
    wrong = guarded(*command.split())
    assert (1, "") == (wrong.exit_code, wrong.stdout)
    assert "row 3: click: it is empty" in wrong.stderr
    (place / "values.csv").write_text(csv.replace("49.90", "59.90"))
    changed = guarded(*command.split())
    assert 3 == changed.exit_code
    assert "1  sent before with another click, moment or value, and not sent again" in changed.stdout

    story = CliRunner().invoke(app, ["audit", "export", "--campaign", "search", "--json"]).stdout
    notes = [line for line in map(json.loads, story.splitlines()) if line.get("resource") == "flow.values_uploaded"]
    assert [{"plan": "spring", "purpose": "data_sharing", "done": 2, "refused": 0, "unknown": 0}] == [
        note["detail"] for note in notes
    ]


def test_word_is_sent_to_whoever_runs_it(place: Path):
    name = guarded("run", "spring.yaml", "--detach").stdout.strip()
    assert "2 campaigns told to pause" in run("pause", "spring").stdout
    assert "1 campaign told to resume" in run("resume", name, "--campaign", "social").stdout
    assert {"run": name, "told": "cancel", "campaigns": 2} == json.loads(run("cancel", "spring", "--json").stdout)
    assert 2 == run("pause", "spring", "--campaign", "nobody").exit_code
    assert 1 == run("pause", "nobody").exit_code
    assert "0 runs of somebody are free" in run("adopt", "somebody").stdout
    assert 0 == guarded("run").exit_code
    assert "cancelled" == json.loads(run("status", "spring", "--json").stdout)["state"]


def test_a_changed_plan_is_refused_while_its_run_is_open(place: Path):
    guarded("run", "spring.yaml", "--detach")
    (place / "spring.yaml").write_text(PLAN.replace("$100", "$150"))
    changed = guarded("run", "spring.yaml", "--detach")
    assert 1 == changed.exit_code
    assert "is open under version" in changed.stderr
    assert "cancel that run first" in changed.stderr


def test_without_runs_the_way_to_one_is_said(place: Path):
    assert "start one with kiki campaign run PLAN" in run("status").stderr


def test_the_schema_is_printed():
    assert plan_schema() == json.loads(run("schema").stdout)
    assert plan_schema() == json.loads(run("schema", "--json").stdout)


def test_a_new_run_waits_for_no_credentials_and_an_open_one_goes_on(place: Path, monkeypatch):
    for name in ("META_ACCESS_TOKEN", "TIKTOK_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    accounts = 'platforms: {meta: {account: act_1}, tiktok: {account: "7000000000000000001"}}'
    real = PLAN.replace("platforms: sandbox", accounts).replace("google_ads", "tiktok")
    (place / "spring.yaml").write_text(real)
    refused = guarded("run", "spring.yaml")
    assert 1 == refused.exit_code
    assert "META_ACCESS_TOKEN is not set" in refused.stderr
    assert "TIKTOK_ACCESS_TOKEN is not set" in refused.stderr
    assert "--detach" in refused.stderr
    assert "no runs" in run("status").output or not json.loads(run("status", "--json").stdout)["runs"]
    # Left to a runner that has them, or open already: this command goes on with it.
    started = guarded("run", "spring.yaml", "--detach").stdout.strip()
    worked = []
    monkeypatch.setattr("kiki.cli.campaign._work", lambda _, names, **__: worked.append(names))
    assert 0 == guarded("run", "spring.yaml").exit_code
    assert [[started]] == worked


def test_an_interrupted_run_ends_as_one(place: Path):
    environ = {**os.environ, **own(place), "KIKI_FLOW_SANDBOX_DAY_SECONDS": "3600"}  # nothing ends meanwhile
    command = [sys.executable, "-m", "kiki", "campaign", "run", "spring.yaml", "--ledger", "data"]
    with subprocess.Popen(
        command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stderr is not None
        assert any("begun" in line for line in running.stderr)
        running.send_signal(signal.SIGINT)
        assert 130 == running.wait(60)


def test_killed_in_the_middle_the_same_command_goes_on(place: Path):
    environ = {**os.environ, **own(place), "KIKI_FLOW_SANDBOX_DAY_SECONDS": "2.5"}
    command = [sys.executable, "-m", "kiki", "campaign", "run", "spring.yaml", "--ledger", "data"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "let it spend: done" in line:
                break
        first.send_signal(signal.SIGKILL)
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as second:
        assert second.stderr is not None
        for line in second.stderr:
            # As soon as it works: a machine may be so busy that all days have passed before it does.
            if "begun" in line:
                break
        second.send_signal(signal.SIGINT)
        second.wait(60)  # 130, or 0 where it was done before it heard of it
    done = subprocess.run([*command, "--json"], env=environ, capture_output=True, text=True, timeout=100, check=True)
    (found,) = json.loads(done.stdout)["runs"]
    assert ("completed", 0) == (found["state"], found["held"])
    with (
        BudgetGuard.open(place / "data" / "shield.db", limit="5000", window="30d") as guard,
        CampaignRunner.open(place / "data" / "flow.db", guard=guard) as runner,
    ):
        assert [] == guard.holds()
        made = [each for each in runner.events(found["run"], most=10_000) if each.detail.get("does") == "create"]
        assert 2 == len({each.detail["key"] for each in made if "key" in each.detail})
