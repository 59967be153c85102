"""`kiki serve flow` beside `kiki serve shield` as real processes: killed, stopped in order, and found where it was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from kiki.flow.bid_server import SERVICE
from kiki.flow.pb import syncflow_pb2 as pb
from tests.acceptance.serving import shield_in

PLAN = """\
plan: served
currency: USD
starts: 2026-12-01
ends: 2026-12-02
platforms: sandbox
campaigns:
  - {name: search, platform: google_ads, budget: $100/day, bid: $1.20}
  - {name: social, platform: meta, budget: $200/day, bid: {ltv: 2%}}
"""


class Flow:
    """One process after the other in the same directory."""

    def __init__(self, directory: Path, shield: str) -> None:
        self.directory = directory
        directory.mkdir()
        self.environ = {
            **os.environ,
            "PORT": "0",
            "KIKI_FLOW_GRPC_PORT": "0",
            "SHIELD_URL": f"{shield}/check",
            "KIKI_DATA_DIR": str(directory / "data"),
            "KIKI_FLOW_EXECUTOR": "syncflow-0",
            "KIKI_FLOW_SANDBOX_DAY_SECONDS": "4",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> Flow:
        log = self.directory / "log"
        with log.open("wb") as file:
            command = [sys.executable, "-m", "kiki", "serve", "flow"]
            self.process = subprocess.Popen(command, env=self.environ, stdout=file, stderr=file)
        until(lambda: re.search(r'"event": "listening".*\n', log.read_text()) or self.process.poll() is not None)
        found = [json.loads(line) for line in log.read_text().split("\n")[:-1] if line.startswith("{")]
        (port,) = [line["port"] for line in found if line["event"] == "listening"]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=60).json()

    def post(self, path: str, body: Any = None) -> Any:
        return httpx.post(self.url + path, json=body or {}, timeout=60).json()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.03)


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Flow]:
    with shield_in(tmp_path / "shield", MAX_BURST_BUDGET="5000", WINDOW_SECONDS="2592000", KIKI_REDIS="off") as shield:
        found = Flow(tmp_path / "flow", f"http://127.0.0.1:{shield.port}")
        try:
            yield found.start()
        finally:
            if found.process is not None and found.process.poll() is None:
                found.process.kill()
                found.process.wait()


def test_a_service_that_is_killed_takes_its_runs_again_and_one_that_is_stopped_gives_them_back(flow: Flow):
    assert 0 == flow.end(signal.SIGTERM)
    flow.environ["KIKI_FLOW_SANDBOX_DAY_SECONDS"] = "3600"  # nothing ends meanwhile
    flow.start()
    status = f"/v1/runs/{flow.post('/v1/campaigns', {'plan': PLAN})['run']}"
    until(lambda: flow.get("/health")["held_runs"] == 1)

    flow.end(signal.SIGKILL)
    flow.start()
    until(lambda: flow.get("/health")["held_runs"] == 1)
    assert "syncflow-0" == flow.get(status)["owner"]

    assert 0 == flow.end(signal.SIGTERM)
    # Of what was not given back another one would have nothing until the lease and the grace are over.
    flow.environ["KIKI_FLOW_EXECUTOR"] = "syncflow-1"
    flow.start()
    until(lambda: flow.get("/health")["held_runs"] == 1)
    assert "syncflow-1" == flow.get(status)["owner"]


def test_a_service_that_is_killed_and_stopped_goes_on_to_the_end(flow: Flow):
    run = flow.post("/v1/campaigns", {"plan": PLAN})["run"]
    status = f"/v1/runs/{run}"
    until(lambda: all(lane["active"] for lane in flow.get(status)["lanes"]))
    with grpc.insecure_channel(f"127.0.0.1:{flow.get('/health')['grpc_port']}") as channel:
        place = channel.unary_unary(
            f"/{SERVICE}/PlaceBid", lambda each: each.SerializeToString(), pb.PlaceBidResponse.FromString
        )
        bid = pb.PlaceBidRequest(request_id="r", plan="served", campaign="search", bid_micros=1_500_000)
        assert pb.ACCEPTED == place(bid, timeout=60).status

    flow.end(signal.SIGKILL)
    flow.start()
    assert 0 == flow.end(signal.SIGTERM)

    flow.start()
    until(lambda: flow.get(status)["state"] == "completed", 120)
    found = flow.get(status)
    assert 0 == sum(sum(lane["held"].values()) for lane in found["lanes"])
    assert [] == flow.post(f"{status}/reconcile", {"act": False})["findings"]
    # Everything is in the guard's record, under its campaign.
    guard = flow.environ["SHIELD_URL"].removesuffix("/check")
    assert [] == httpx.get(f"{guard}/v1/reservations").json()["reservations"]
    told = httpx.get(f"{guard}/v1/decisions", params={"scope": "campaign:search", "limit": 1000}).json()["decisions"]
    assert {"flow.lane_started", "flow.settled", "flow.lane_ended"} <= {each.get("resource") for each in told}
