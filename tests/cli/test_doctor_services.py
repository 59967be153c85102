from __future__ import annotations

import http.server
import json
import socket
import threading
from contextlib import contextmanager

import pytest

from kiki.cli import fleet
from kiki.cli.doctor_services import services
from tests.servers import free_port

PORTS = {
    "KIKI_SHIELD_PORT": "shield",
    "KIKI_VALUE_HTTP_PORT": "value",
    "KIKI_FLOW_PORT": "flow",
    "KIKI_ENGAGE_PORT": "engage",
}


@contextmanager
def answering(body: bytes, status: int = 200):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def environ():
    return {name: str(free_port()) for name in (*PORTS, "KIKI_VALUE_PORT", "KIKI_FLOW_GRPC_PORT")}


def found(environ):
    return {check.name: check for check in services(environ)}


def test_ports_that_nobody_has_are_free(environ):
    checks = found(environ)
    assert {"syncshield", "syncvalue", "syncflow", "syncengage"} == set(checks)
    assert all(check.state == "ok" and "free for kiki serve" in check.said for check in checks.values())


def test_a_service_says_what_is_wrong_with_it(environ):
    told = {
        "ready": False,
        "checks": [
            {"name": "window", "ok": False, "detail": "Redis evicts keys"},
            {"name": "ledger", "ok": True, "detail": ""},
        ],
    }
    with answering(json.dumps(told).encode(), 503) as port:
        check = found(environ | {"KIKI_SHIELD_PORT": str(port)})["syncshield"]
    assert "fail" == check.state
    assert "window: Redis evicts keys" in check.said
    assert "ledger" not in check.said


def test_a_ready_service_and_somebody_elses(environ):
    with answering(b'{"ready": true, "checks": []}') as ours, answering(b"<html>hello</html>") as other:
        checks = found(environ | {"KIKI_FLOW_PORT": str(ours), "KIKI_ENGAGE_PORT": str(other)})
    assert ("ok", f"ready at http://127.0.0.1:{ours}") == (checks["syncflow"].state, checks["syncflow"].said)
    assert "warn" == checks["syncengage"].state
    assert "none of kiki's services" in checks["syncengage"].said


@pytest.mark.parametrize(("name", "service"), [("KIKI_VALUE_PORT", "syncvalue"), ("KIKI_FLOW_GRPC_PORT", "syncflow")])
def test_a_grpc_port_that_is_taken(environ, name, service):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        check = found(environ | {name: str(port)})[service]
    assert "warn" == check.state
    assert f"something on {port}, its port for gRPC" in check.said


def test_what_is_not_installed_is_said_with_what_to_do(environ, monkeypatch):
    monkeypatch.setattr(fleet, "missing_extras", lambda: {"value": "pip install 'kiki[value]'"})
    check = found(environ)["syncvalue"]
    assert ("warn", "pip install 'kiki[value]'") == (check.state, check.advice)


def test_a_port_that_is_none(environ):
    assert "fail" == found({"KIKI_FLOW_PORT": "x"})["ports"].state


def test_a_model_that_was_edited_and_a_collector_that_is_away(environ, tmp_path):
    file = tmp_path / "model.json"
    file.write_text("{}")
    away = f"127.0.0.1:{free_port()}"
    checks = found(environ | {"KIKI_VALUE_MODEL": str(file), "OTEL_EXPORTER_OTLP_ENDPOINT": away})
    assert "fail" == checks["model"].state
    assert "warn" == checks["collector"].state
    assert "requests are not slowed" in checks["collector"].said
    with socket.create_server(("127.0.0.1", 0)) as collector:
        address = f"127.0.0.1:{collector.getsockname()[1]}"
        assert "ok" == found(environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": address})["collector"].state
