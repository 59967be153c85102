"""One trace through the services: a trigger at SyncEngage, what it asks SyncShield and SyncValue, down to the ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.otlp_collector import Collector, collector
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
CANARY = "canary-4711-kiki"
TRACE = 0xFEED


def post(url: str, body: object, **headers: str) -> bytes:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read()


def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(url)


def ours(found: Collector) -> list[Any]:
    return [span for span in [*found.spans] if int.from_bytes(span.trace_id, "big") == TRACE]


def is_whole(spans: list[Any]) -> bool:
    """All three services have told their part, and every span hangs on another one of the trace."""
    ids, names = {span.span_id for span in spans} | {(1).to_bytes(8, "big")}, {span.name for span in spans}
    told = {"POST /trigger", "ledger COMMIT"} <= names and any("Predict" in name for name in names)
    return told and all(span.parent_span_id in ids for span in spans)


def test_a_trigger_is_one_trace_through_three_services(tmp_path):
    shield, value, value_http, engage = (free_port() for _ in range(4))
    with collector() as (found, address):
        environ = {name: given for name, given in os.environ.items() if not name.startswith(("KIKI_", "OTEL_"))} | {
            "PYTHONPATH": str(ROOT),
            "KIKI_REDIS": "off",
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "SHIELD_URL": f"http://127.0.0.1:{shield}/check",
            "LTV_GRPC_ADDR": f"127.0.0.1:{value}",
            "AUDIT_LOG_PATH": str(tmp_path / "engage.csv"),
        }
        told = {
            "shield": {"PORT": str(shield)},
            "value": {"PORT": str(value), "KIKI_VALUE_HTTP_PORT": str(value_http)},
            "engage": {"PORT": str(engage)},
        }
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "kiki", "serve", name],
                env=environ | ports | {"KIKI_DATA_DIR": str(tmp_path / name)},
                stdout=subprocess.DEVNULL,
            )
            for name, ports in told.items()
        }
        try:
            for name, port in (("shield", shield), ("value", value_http), ("engage", engage)):
                until_ready(f"http://127.0.0.1:{port}/livez", processes[name])
            post(f"http://127.0.0.1:{shield}/consent/grant", {"customer_id": CANARY, "consent_type": "marketing"})
            customer = {
                "customer_id": CANARY,
                "email": f"{CANARY}@example.com",
                "last_purchase": "2026-01-02T00:00:00Z",
                "last_engagement": "2026-01-02T00:00:00Z",
                "total_spend": 450.0,
                "purchase_count": 3,
                "engagement_score": 8.5,
            }
            trigger, deadline = f"http://127.0.0.1:{engage}/trigger", time.monotonic() + 60
            while json.loads(post(trigger, customer, traceparent=f"00-{TRACE:032x}-{1:016x}-01")) is None:
                # On a busy machine the shield may answer later than a trigger waits for it.
                assert time.monotonic() < deadline
            # A service that ends waits for its collector only a moment, so everything is to arrive before.
            deadline = time.monotonic() + 60
            while not is_whole(ours(found)):
                assert time.monotonic() < deadline, ours(found)
                time.sleep(0.05)
        finally:
            for process in processes.values():
                process.terminate()
            codes = [process.wait(60) for process in processes.values()]
        assert [0, 0, 0] == codes

    names = {span.name for span in ours(found)}
    assert names & {"GET /check", "POST /check"}
    assert CANARY not in "".join(map(str, found.spans)) + "".join(map(str, found.metrics))
