"""`kiki serve shield` as a process: the guide's commands, real signals, restarts, and starts that must be refused."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from tests.acceptance.serving import END_SECONDS, Load, Shield, shield_in
from tests.servers import free_port

TOKENS = """
tokens:
  - name: reader
    token: reader-token-0123456789
    roles: [read]
  - name: spender
    token: spender-token-0123456789
    roles: [spend]
"""
POLICY = """
budgets:
  - name: all
    scope: "*"
    limit: "500"
    window: 60s
"""


@pytest.fixture
def shield(tmp_path):
    """A started service with the guide's defaults."""
    with shield_in(tmp_path) as running:
        yield running


def bash(script: str) -> str:
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=200, check=True).stdout


def wait_for_csv(shield: Shield, ids: list[str]) -> None:
    """The CSV holds exactly these ids, in order, now or soon: a process of its own follows the ledger."""
    deadline = time.monotonic() + END_SECONDS
    while shield.csv_ids() != ids and time.monotonic() < deadline:
        time.sleep(0.02)
    assert shield.csv_ids() == ids


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")
def test_the_guides_loop_as_typed(shield):
    """Six spends of 100 and a check, by bash and curl: five recorded, one refused, and `grep DENIED` finds both refusals."""
    script = """
for i in {1..6}; do
  curl "http://localhost:8081/spend?amount=100"
done
curl "http://localhost:8081/check?ltv=600"  # Expect 403
"""
    said = bash(script.replace("8081", str(shield.port)))
    assert said.count("Spend recorded: 100.00") == 5
    assert said.count("Spend refused: 100.00 does not fit") == 1
    assert said.endswith("Bid validation failed\n")
    codes = bash(f'curl -s -o /dev/null -w "%{{http_code}}" "http://localhost:{shield.port}/check?ltv=600"')
    assert codes == "403"
    health = json.loads(bash(f'curl "http://localhost:{shield.port}/health"'))
    assert health["service"] == "syncshield"
    wait_for_csv(shield, shield.ledger_ids())
    denied = bash(f'cd "{shield.data}" && grep "DENIED" shield_audit_gdpr.csv').splitlines()
    assert len(denied) == 3
    assert (shield.data / "shield_audit_gdpr.csv").stat().st_mode & 0o077 == 0


def test_sigterm_under_load_loses_nothing(tmp_path):
    """Every request that was sent on an open connection is answered, what was acknowledged is durable, exit code 0."""
    with shield_in(tmp_path, MAX_BURST_BUDGET="3", WINDOW_SECONDS="3600") as shield:
        load = Load(shield)
        load.until(400)
        shield.signal(signal.SIGTERM)
        assert shield.wait() == 0
        load.join()
        assert load.dropped == []
        assert set(load.statuses) == {200, 403}
        assert load.statuses.count(200) == 300
        ids = shield.ledger_ids()
        assert len(load.acknowledged) > 300
        assert sorted(load.acknowledged) == ids
        assert shield.csv_ids() == ids, "the view is complete when the process has ended"
        events = [line["event"] for line in shield.lines()]
        assert (events[-2:], [line["level"] for line in shield.lines() if line["level"] == "error"]) == (
            ["stopping", "stopped"],
            [],
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_ends_soon(tmp_path, number):
    """It does not use the time that it has for requests that are under way."""
    with shield_in(tmp_path, KIKI_DRAIN_SECONDS="300") as shield:
        shield.signal(number)
        assert shield.wait(END_SECONDS) == 0


def test_kill_9_under_load(tmp_path):
    """Five times killed and restarted: what was acknowledged is there, and the CSV follows without gap or duplicate."""
    chance, acknowledged = random.Random(5), set()
    shield = Shield(tmp_path, MAX_BURST_BUDGET="5", WINDOW_SECONDS="3600")
    try:
        for _ in range(5):
            shield.start()
            wait_for_csv(shield, shield.ledger_ids())
            load = Load(shield)
            load.until(120)
            time.sleep(chance.uniform(0, 0.4))
            shield.signal(signal.SIGKILL)
            shield.wait()
            load.join()
            acknowledged.update(load.acknowledged)
        shield.start()
        ids = shield.ledger_ids()
        assert len(acknowledged) > 200
        assert acknowledged <= set(ids)
        wait_for_csv(shield, ids)
        statuses = [shield.status("/spend?amount=0.01") for _ in range(3)]
        assert statuses == [403] * 3, "what was admitted before the kills still fills the window"
        approved = [
            line for line in (shield.data / "shield_audit_gdpr.csv").read_text().splitlines() if "APPROVED" in line
        ]
        assert len(approved) == 500
        ids = shield.ledger_ids()
        wait_for_csv(shield, ids)
    finally:
        shield.close()


def test_a_restart_keeps_the_window(tmp_path):
    """Five spends, an end in order, and the sixth is still refused; a key still knows its answer, a hold is still open."""
    with shield_in(tmp_path) as shield:
        first = shield.ask("/spend?amount=100", Idempotency_Key="one", Accept="application/json")
        assert [shield.status("/spend?amount=100") for _ in range(3)] == [200] * 3
        hold = json.loads(shield.ask("/v1/reservations", "POST", {"amount": "100"})[1])["id"]
        assert shield.status("/v1/halts", method="POST", body={"pattern": "platform:meta"}) == 200
        shield.signal(signal.SIGTERM)
        assert shield.wait() == 0
        shield.start()
        assert shield.status("/spend?amount=0.01") == 403
        again = shield.ask("/spend?amount=100", Idempotency_Key="one", Accept="application/json")
        assert again[:2] == first[:2]
        assert json.loads(shield.ask("/v1/halts")[1]) == {"halts": ["platform:meta"]}
        assert shield.status(f"/v1/reservations/{hold}/release", method="POST") == 200
        assert shield.status("/spend?amount=100") == 200


def test_sighup_reads_the_policy_again(tmp_path):
    """A good one takes effect; a broken one is refused whole, the old one stays, and a line of the log says why."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    with shield_in(tmp_path, KIKI_POLICY_FILE=str(policy)) as shield:

        def reload(text: str, says: str) -> list[dict]:
            policy.write_text(text)
            shield.signal(signal.SIGHUP)
            deadline = time.monotonic() + END_SECONDS
            while not (found := [line for line in shield.lines() if line["event"].startswith(says)]):
                assert time.monotonic() < deadline, shield.log()
                time.sleep(0.02)
            return found

        assert shield.status("/spend?amount=300") == 200
        (line,) = reload(POLICY.replace("500", "400"), "a new policy is in force")
        assert line["level"] == "info"
        assert shield.status("/spend?amount=101") == 403
        (line,) = reload(POLICY.replace("500", "9000").replace("60s", "sixty"), "the policy was refused")
        assert line["level"] == "error"
        assert "policy.yaml:6" in line["detail"]
        assert shield.status("/spend?amount=101") == 403
        assert shield.status("/spend?amount=100") == 200
        assert shield.process.poll() is None


def test_sighup_reads_the_tokens_again(tmp_path):
    """A token that was taken out is refused from then on; a broken file changes nothing."""
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(TOKENS)
    tokens.chmod(0o600)
    bearer = "Bearer reader-token-0123456789"
    with shield_in(tmp_path, KIKI_TOKENS_FILE=str(tokens)) as shield:
        assert shield.status("/v1/budgets", Authorization=bearer) == 200
        tokens.write_text("tokens: [{name: x}]")
        shield.signal(signal.SIGHUP)
        deadline = time.monotonic() + END_SECONDS
        while "the token file was refused" not in shield.log() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "the token file was refused" in shield.log()
        assert shield.status("/v1/budgets", Authorization=bearer) == 200
        tokens.write_text(TOKENS.replace("reader-token", "reader-other"))
        shield.signal(signal.SIGHUP)
        deadline = time.monotonic() + END_SECONDS
        while shield.status("/v1/budgets", Authorization=bearer) == 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert shield.status("/v1/budgets", Authorization=bearer) == 401


def test_a_second_process_on_the_same_directory_refuses(shield, tmp_path):
    """It names the process that has the ledger, and that one goes on undisturbed."""
    second = Shield(tmp_path / "second", KIKI_DATA_DIR=str(shield.data))
    code, words = second.refuse_to_start()
    assert code == 1
    assert f"pid {shield.process.pid}" in words
    assert "Traceback" not in words
    assert shield.status("/spend?amount=1") == 200


def test_a_port_that_is_taken(shield, tmp_path):
    """The message names the port and the variable; nothing is left locked behind it."""
    second = Shield(tmp_path / "second", PORT=str(shield.port))
    code, words = second.refuse_to_start()
    assert code == 1
    assert f"port {shield.port}" in words
    assert "PORT" in words
    assert "Traceback" not in words
    second.environ["PORT"] = "0"
    try:
        second.start()
        assert second.status("/health") == 200
    finally:
        second.close()


def test_wrong_settings_are_all_listed(tmp_path):
    """Every mistake at once, with what is accepted; exit code 1, nothing on the port, no directory made."""
    port = free_port()
    shield = Shield(
        tmp_path, PORT=str(port), MAX_BURST_BUDGET="-1", WINDOW_SECONDS="soon", KIKI_BODY_BYTES_MAX="huge",
        KIKI_POLCY_FILE="x", REDIS_ADDR="http://x", REDIS_PASSWORD="s3cret-word",
    )  # fmt: skip
    code, words = shield.refuse_to_start()
    assert code == 1
    assert "5 mistakes" in words
    for name in ("MAX_BURST_BUDGET", "WINDOW_SECONDS", "KIKI_BODY_BYTES_MAX", "KIKI_POLCY_FILE", "REDIS_ADDR"):
        assert name in words
    assert "did you mean KIKI_POLICY_FILE?" in words
    assert "s3cret-word" not in words
    assert "Traceback" not in words
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    assert not shield.data.exists()


def test_wrong_files_are_told_by_file_and_line(tmp_path):
    """The mistakes of the policy and of the token file together, each where it stands; no token is printed."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace('"500"', '"lots"').replace("60s", "sixty"))
    (tmp_path / "tokens.yaml").write_text(
        TOKENS.replace("[read]", "[reed]").replace("spender-token-0123456789", "short-one")
    )
    shield = Shield(tmp_path, KIKI_POLICY_FILE="policy.yaml", KIKI_TOKENS_FILE="tokens.yaml")
    code, words = shield.refuse_to_start()
    assert code == 1
    for place in ("policy.yaml:5", "policy.yaml:6", "tokens.yaml:5", "tokens.yaml:7"):
        assert place in words
    for secret in ("reader-token", "short-one"):
        assert secret not in words
    assert "Traceback" not in words
    assert not shield.data.exists()


@pytest.mark.parametrize("name", ["KIKI_POLICY_FILE", "KIKI_TOKENS_FILE"])
def test_a_file_that_is_not_there(tmp_path, name):
    shield = Shield(tmp_path, **{name: "nowhere.yaml"})
    code, words = shield.refuse_to_start()
    assert code == 1
    assert "nowhere.yaml" in words
    assert "Traceback" not in words


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    shield = Shield(tmp_path, KIKI_DATA_DIR=str(tmp_path / "file" / "data"))
    code, words = shield.refuse_to_start()
    assert code == 1
    assert str(tmp_path / "file" / "data") in words
    assert "Traceback" not in words


def test_a_ledger_that_is_none(tmp_path):
    """Something else under its name is not touched."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shield.db").write_bytes(b"not a database, but somebody's file" * 100)
    shield = Shield(tmp_path)
    code, words = shield.refuse_to_start()
    assert code == 1
    assert "shield.db" in words
    assert "Traceback" not in words
    assert (tmp_path / "data" / "shield.db").read_bytes() == b"not a database, but somebody's file" * 100


def test_the_public_port(tmp_path):
    """Outside every request wants its token; inside the guide's routes stay open, and the rest does not."""
    (tmp_path / "tokens.yaml").write_text(TOKENS)
    (tmp_path / "tokens.yaml").chmod(0o600)
    with shield_in(tmp_path, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="tokens.yaml") as shield:
        reader, spender = "Bearer reader-token-0123456789", "Bearer spender-token-0123456789"
        outside = {"port": shield.public_port}
        assert shield.status("/spend?amount=1") == 200
        assert shield.status("/v1/budgets") == 401
        assert shield.status("/spend?amount=1", **outside) == 401
        assert shield.status("/spend?amount=1", Authorization=reader, **outside) == 403
        assert shield.status("/spend?amount=1", Authorization=spender, **outside) == 200
        assert shield.status("/v1/budgets", Authorization=reader, **outside) == 200
        assert shield.status("/v1/halts", method="POST", body={"pattern": "*"}, Authorization=spender, **outside) == 403
        assert shield.status("/health", **outside) == 401


def test_a_public_port_without_tokens_is_refused(tmp_path):
    code, words = Shield(tmp_path, KIKI_PUBLIC_PORT="0").refuse_to_start()
    assert code == 1
    assert "KIKI_TOKENS_FILE" in words


def test_an_open_door_is_said_loudly(tmp_path):
    with shield_in(tmp_path, KIKI_HOST="0.0.0.0") as shield:
        assert [line["level"] for line in shield.lines() if "ANYBODY" in line["event"]] == ["warning"]


def test_logs_hold_nothing_personal(tmp_path):
    """Every line is JSON; no query, no name, no key and no token is in any of them, however requests go wrong."""
    (tmp_path / "tokens.yaml").write_text(TOKENS)
    (tmp_path / "tokens.yaml").chmod(0o600)
    environ = {
        "KIKI_ACCESS_LOG": "true",
        "KIKI_LOG_LEVEL": "debug",
        "KIKI_TOKENS_FILE": "tokens.yaml",
        "MAX_BURST_BUDGET": "5",
    }
    with shield_in(tmp_path, **environ) as shield:
        token = "Bearer spender-token-0123456789"
        for path in ("/spend?amount=1&scope=customer:jane-doe", "/spend?amount=jane-doe", "/check?ltv=jane-doe",
                     "/jane-doe?customer_id=jane-doe", "/v1/decisions/jane-doe", "/spend?amount=9&scope=customer:jane-doe",
                     "/v1/reservations/jane-doe/commit", "/spend?jane-doe=1"):  # fmt: skip
            shield.ask(path, Authorization=token, Idempotency_Key="key-of-jane-doe")
        shield.ask(
            "/v1/spends",
            "POST",
            {"amount": "1", "scopes": {"customer": "jane-doe"}, "key": "jane-doe"},
            Authorization=token,
        )
        shield.ask("/v1/spends", "POST", {"jane-doe": 1}, Authorization="Bearer jane-doe-guesses-a-token")
        with socket.create_connection(("127.0.0.1", shield.port)) as connection:
            connection.sendall(b"GET /spend?jane-doe HTTP/9.9\r\nbroken jane-doe\r\n\r\n")
            connection.recv(1000)
        shield.signal(signal.SIGTERM)
        assert shield.wait() == 0
        requests = [line for line in shield.lines() if line["event"] == "request"]
        assert len(requests) >= 10
        assert {line["route"] for line in requests} >= {"/spend", "/check", "unknown", "/v1/decisions/{event_id}"}
        assert {line["caller"] for line in requests} == {"spender", None}
        for secret in ("jane", "token-0123456789", "amount=", "ltv="):
            assert secret not in shield.log()
        for name in ("shield.db", "shield.db-wal", "shield_audit_gdpr.csv"):
            path = shield.data / name
            assert not path.exists() or b"jane-doe" not in path.read_bytes()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", requests[0]["ts"])
