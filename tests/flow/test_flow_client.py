"""`kiki campaign --service`: the runs of a SyncFlow elsewhere, under the names that a runner here has for them."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.errors import (
    FlowUnreachable,
    Forbidden,
    InvalidInput,
    KikiError,
    NotFound,
    PlanChanged,
    PlanError,
    RunTaken,
    UploadError,
)
from kiki.flow.flow_client import FlowClient
from kiki.flow.plan_text import parse_plan
from tests.flow.own_time import until
from tests.flow.served_flow import PLAN, RunningFlow
from tests.flow.test_value_upload import make_campaigns
from tests.shield.served import TOKENS, bearer


@pytest.fixture
def running() -> Iterator[RunningFlow]:
    running = RunningFlow()
    yield running
    running.close()


@pytest.fixture
def guarded() -> Iterator[RunningFlow]:
    """Who may what is asked."""
    running = RunningFlow(tokens=TOKENS)
    yield running
    running.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "spring.yaml").write_text(PLAN)
    return tmp_path / "spring.yaml"


def test_values_go_through_a_service(running: RunningFlow, file: Path, monkeypatch: pytest.MonkeyPatch):
    make_campaigns(running.flow.runner, parse_plan(PLAN))
    running.flow.guard.consents.grant("c-1", "data_sharing")
    (file.parent / "values.csv").write_text("order,click,at,value,customer\n1,x,2026-03-02 14:03,12.50,c-1\n")
    (file.parent / "bad.csv").write_text("order,click,at,value,customer\n1,,2026-03-02 14:03,12.50,c-1\n")
    with FlowClient(running.flow.url) as client:
        with pytest.raises(UploadError, match="row 2: click: it is empty"):
            client.upload_values(file, "search", file.parent / "bad.csv", purpose="data_sharing")
        with pytest.raises(InvalidInput, match="names a purpose"):
            client.upload_values(file, "search", file.parent / "values.csv")
        found = client.upload_values(file, "search", file.parent / "values.csv", purpose="data_sharing")
        assert (1, True) == (found.done, found.is_whole)
    monkeypatch.setenv("KIKI_FLOW_URL", running.flow.url)
    given = [str(file), str(file.parent / "values.csv"), "--campaign", "search", "--purpose", "data_sharing", "--json"]
    shown = CliRunner().invoke(app, ["campaign", "upload", *given])
    assert (0, 1) == (shown.exit_code, json.loads(shown.stdout)["already"])


def test_values_that_are_too_many_for_a_service_are_refused_by_it(file: Path):
    small = RunningFlow(KIKI_BODY_BYTES_MAX="2048")
    try:
        (file.parent / "values.csv").write_text(
            "order,click,at,value,customer\n" + "".join(f"{each},x,2026-03-02 14:03,12.50,c-1\n" for each in range(60))
        )
        with FlowClient(small.flow.url) as client, pytest.raises(KikiError, match="at most 2048 bytes are accepted"):
            client.upload_values(file, "search", file.parent / "values.csv", purpose="data_sharing")
    finally:
        small.close()


def test_a_client_sees_and_says_what_a_runner_does(running: RunningFlow, file: Path):
    here = running.flow.runner
    with FlowClient(running.flow.url + "/") as client:
        assert ["create", "create"] == [str(change.step) for change in client.preview(file).changes]
        run = client.start(file)
        assert run == client.start(file)
        assert here.plan(run) == client.plan(run)
        assert 1 == client.pause(run, "social")
        assert 1 == client.resume(run, "social")
        until(lambda: any(told.event == "flow.reserved" for told in client.events(run)))
        assert 2 == client.cancel(run)
        assert "cancelled" == running.flow.days.end(here, run).state
        assert here.runs() == client.runs()
        assert here.status(run) == client.status(run)
        events = here.events(run)
        assert events == client.events(run)
        assert events[3:5] == client.events(run, events[2].number, 2)
        assert here.reconcile(run, act=False) == client.reconcile(run, act=False)
        again = client.start(file, again=True)
        assert again != run
        file.write_text(PLAN.replace("$100", "$120"))
        with pytest.raises(PlanChanged, match=f"run {again} of plan 'spring' is open"):
            client.start(file)
        assert f"run {again} of plan 'spring' is open" in client.preview(file).problems[0].what


def token(role: str) -> str:
    return bearer(role)["Authorization"].removeprefix("Bearer ")


def test_mistakes_are_the_same_errors(guarded: RunningFlow, file: Path):
    with FlowClient(guarded.flow.url, token("spend")) as client:
        run = client.start(file)
        with pytest.raises(InvalidInput, match="no campaign 'nobody'"):
            client.pause(run, "nobody")
        file.write_text(PLAN.replace("budget", "budgte", 1))
        with pytest.raises(PlanError, match=r"spring\.yaml:7.*did you mean 'budget'"):
            client.start(file)
    with FlowClient(guarded.flow.url, token("read")) as client, pytest.raises(NotFound):
        client.status("a/../b")
    with FlowClient(guarded.flow.url, token("admin")) as client:
        with pytest.raises(RunTaken, match="it is not gone"):
            client.adopt(guarded.flow.runner.executor)
        assert [] == client.adopt("somebody")


def test_whoever_lacks_a_role_is_told_so(guarded: RunningFlow, file: Path):
    with FlowClient(guarded.flow.url, token("read")) as reader:
        assert [] == reader.runs()
        with pytest.raises(Forbidden):
            reader.start(file)
    with FlowClient(guarded.flow.url, token("spend")) as spender:
        run = spender.start(file)
        with pytest.raises(Forbidden):
            spender.approve(run)
    with FlowClient(guarded.flow.url, token("admin")) as admin:
        assert 2 == admin.approve(run)
        with pytest.raises(Forbidden):
            admin.cancel(run)


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"{}"), (200, b"<html>"), (404, b"{}"), (500, b""), (302, b""), (200, b"\xff")]
)
def test_what_is_no_syncflow_is_called_so(status: int, body: bytes):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            FlowClient(f"http://127.0.0.1:{server.server_port}") as client,
            pytest.raises(FlowUnreachable, match="no SyncFlow of this version"),
        ):
            client.runs()
    finally:
        server.shutdown()
        server.server_close()
    with FlowClient(f"http://127.0.0.1:{server.server_port}") as client, pytest.raises(FlowUnreachable, match="answer"):
        client.runs()


def kiki(*arguments: str):
    return CliRunner().invoke(app, ["campaign", *arguments])


def test_the_commands_ask_the_service(running: RunningFlow, file: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "none"))
    there = ("--service", running.flow.url)
    assert "2 create" in kiki("plan", str(file), *there).stdout
    run = kiki("run", str(file), "--detach", *there).stdout.strip()
    assert "1 campaign told to pause" in kiki("pause", "spring", "--campaign", "search", *there).stdout
    assert "1 campaign told to resume" in kiki("resume", run, "--campaign", "search", *there).stdout
    monkeypatch.setenv("KIKI_FLOW_URL", running.flow.url)
    with running.flow.days.passing():
        ran = kiki("run", str(file))
    assert 0 == ran.exit_code
    assert "social: ended: completed" in ran.stderr
    assert "held $0.00" in ran.stdout
    assert "completed" == json.loads(kiki("status", "spring", "--json").stdout)["state"]
    assert [run] == [each["run"] for each in json.loads(kiki("status", "--json").stdout)["runs"]]
    words = [json.loads(line) for line in kiki("watch", "spring", "--json").stdout.splitlines()]
    assert "flow.lane_ended" == words[-1]["event"]
    assert "google_ads" in kiki("report", "spring").stdout
    assert 0 == kiki("reconcile", "spring").exit_code
    assert "0 runs of somebody are free" in kiki("adopt", "somebody").stdout
    # What is said about the runs here goes before the variable, and against the option.
    assert "there are no runs in" in kiki("status", "--data-dir", str(tmp_path / "none")).stderr
    mixed = kiki("status", "--data-dir", str(tmp_path / "none"), *there)
    assert (2, True) == (mixed.exit_code, "leave --data-dir away" in mixed.stderr)
    assert not (tmp_path / "none").exists()
