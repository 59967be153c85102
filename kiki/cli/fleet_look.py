"""How the four services are doing, as anybody can ask them: their health, their metrics, and the pages of their interfaces."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from kiki.cli.fleet import ENGAGE, FLOW, SHIELD, VALUE, Fleet, Member, Ports
from kiki.shield.wire import BudgetsReply

DECISIONS_SHOWN: Final = 12
_TAIL_BYTES: Final = 16_384
_TIMEOUT: Final = 1.0


class ServiceLook(msgspec.Struct, kw_only=True):
    """One service."""

    service: str
    port: int
    state: str
    """ready, starting, not ready, or stopped."""
    detail: str = ""
    restarts: int = 0
    requests: float = 0.0
    """Answered so far."""


class DecisionLook(msgspec.Struct, kw_only=True):
    """One line of the audit."""

    at: str
    what: str
    resource: str
    outcome: str
    reason: str
    detail: str


class RunLook(msgspec.Struct, kw_only=True):
    """One campaign of a run. Money in micros."""

    run: str
    campaign: str
    platform: str
    phase: str
    spent: int
    held: int
    planned: int


class Snapshot(msgspec.Struct, kw_only=True):
    """One moment of all four."""

    at: float
    services: list[ServiceLook]
    budgets: BudgetsReply | None = None
    decisions: list[DecisionLook] = []
    admitted: float = 0.0
    refused: float = 0.0
    currency: str = ""
    runs: list[RunLook] = []
    messages: dict[str, float] = {}
    verdicts: dict[str, float] = {}
    letters: list[str] = []
    """The newest subjects in the outbox; subjects are the playbook's own text, without anybody's name where it has none."""
    predictions: float = 0.0
    customers: float = 0.0

    def of(self, service: str) -> ServiceLook | None:
        """The look at one service."""
        return next((each for each in self.services if each.service == service), None)


class Looker:
    """Asks the members of a fleet; a service that does not answer leaves its part empty."""

    def __init__(self, fleet: Fleet, ports: Ports, data_dir: Path) -> None:
        self._fleet = fleet
        self._ports = ports
        self._csv = data_dir / "shield_audit_gdpr.csv"
        self._http = httpx.Client(timeout=_TIMEOUT, trust_env=False)
        self._seen_ready: set[str] = set()

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()

    def look(self) -> Snapshot:
        """Everything, as of now."""
        metrics: dict[str, dict[str, dict[str, float]]] = {}
        services = []
        for member in self._fleet.members:
            found = metrics[member.service] = self._metrics(member)
            services.append(self._service(member, found))
        snapshot = Snapshot(at=time.time(), services=services)
        if SHIELD in metrics:
            self._shield(snapshot, metrics[SHIELD])
        if FLOW in metrics:
            self._flow(snapshot)
        if ENGAGE in metrics:
            snapshot.messages = _by(metrics[ENGAGE], "kiki_engage_messages_total", "state")
            snapshot.verdicts = _by(metrics[ENGAGE], "kiki_engage_verdicts_total", "verdict")
        if VALUE in metrics:
            calls = metrics[VALUE].get("kiki_grpc_calls_total", {})
            snapshot.predictions = sum(count for labels, count in calls.items() if "Predict" in labels)
            snapshot.customers = sum(metrics[VALUE].get("kiki_value_customers", {}).values())
        return snapshot

    def _service(self, member: Member, metrics: dict[str, dict[str, float]]) -> ServiceLook:
        port = self._ports.main(member.service)
        requests = sum(metrics.get("kiki_http_requests_total", {}).values())
        requests += sum(metrics.get("kiki_grpc_calls_total", {}).values())
        look = ServiceLook(
            service=member.service, port=port, state="stopped", restarts=member.restarts, requests=requests
        )
        if member.pid is None:
            look.detail = member.last_words()
            return look
        reply = self._get(port, "/readyz")
        if reply is None:
            look.state = "not ready" if member.service in self._seen_ready else "starting"
            return look
        look.state = "ready" if reply.status_code == 200 else "not ready"
        if look.state == "ready":
            self._seen_ready.add(member.service)
        else:
            checks = reply.json().get("checks", [])
            look.detail = "; ".join(f"{each['name']}: {each['detail']}" for each in checks if not each["ok"])[:200]
        return look

    def _shield(self, snapshot: Snapshot, metrics: dict[str, dict[str, float]]) -> None:
        reply = self._get(self._ports.shield, "/v1/budgets")
        if reply is not None and reply.status_code == 200:
            snapshot.budgets = msgspec.json.decode(reply.content, type=BudgetsReply)
            snapshot.currency = snapshot.budgets.currency
        for labels, count in metrics.get("kiki_shield_decisions_total", {}).items():
            if 'outcome="admitted"' in labels or 'outcome="settled"' in labels:
                snapshot.admitted += count
            else:
                snapshot.refused += count
        snapshot.decisions = [*_last_rows(self._csv)]

    def _flow(self, snapshot: Snapshot) -> None:
        for run in (self._json(self._ports.flow, "/v1/runs") or {}).get("runs", [])[:3]:
            status: dict[str, Any] = self._json(self._ports.flow, f"/v1/runs/{run['run']}") or {}
            for lane in status.get("lanes", []):
                snapshot.runs.append(
                    RunLook(
                        run=run["run"],
                        campaign=lane["campaign"],
                        platform=lane["platform"],
                        phase=lane["how"] or lane["phase"],
                        spent=sum(lane.get("spent", {}).values()),
                        held=sum(lane.get("held", {}).values()),
                        planned=lane.get("planned", 0),
                    )
                )

    def _metrics(self, member: Member) -> dict[str, dict[str, float]]:
        reply = self._get(self._ports.main(member.service), "/metrics") if member.pid is not None else None
        return {} if reply is None or reply.status_code != 200 else parse_metrics(reply.text.splitlines())

    def _json(self, port: int, path: str) -> dict[str, Any] | None:
        reply = self._get(port, path)
        if reply is None or reply.status_code != 200:
            return None
        found: dict[str, Any] = reply.json()
        return found

    def _get(self, port: int, path: str) -> httpx.Response | None:
        try:
            return self._http.get(f"http://127.0.0.1:{port}{path}")
        except httpx.HTTPError:
            return None


def parse_metrics(lines: Iterable[str]) -> dict[str, dict[str, float]]:
    """Prometheus' text as name → labels as they are written → value."""
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        name, brace, rest = line.partition("{")
        if brace:
            labels, _, value = rest.rpartition("} ")
        else:
            name, _, value = line.partition(" ")
            labels = ""
        try:
            found.setdefault(name, {})[labels] = float(value.split()[0])
        except (ValueError, IndexError):
            continue
    return found


def _by(metrics: dict[str, dict[str, float]], name: str, label: str) -> dict[str, float]:
    counts: dict[str, float] = {}
    for labels, value in metrics.get(name, {}).items():
        word = labels.partition(f'{label}="')[2].partition('"')[0]
        counts[word] = counts.get(word, 0.0) + value
    return counts


def _last_rows(file: Path) -> Iterable[DecisionLook]:
    """The newest lines of the audit, the newest first."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = opened.read().decode(errors="replace").splitlines()
    except OSError:
        return
    shown = 0
    for row in csv.reader(reversed(lines[1:])):
        if len(row) < 13:
            continue
        yield DecisionLook(
            at=row[0], what=row[3], resource=row[7], outcome=row[8], reason=row[9], detail=row[11].strip("[]")
        )
        shown += 1
        if shown == DECISIONS_SHOWN:
            return
