"""`kiki serve shield` on a Redis that is absent, silent, killed, emptied, or shared: nothing is ever over."""

from __future__ import annotations

import json
import socket
import threading
import time
from statistics import median

import pytest

from tests.acceptance.serving import END_SECONDS, Shield, shield_in
from tests.servers import RedisServer, free_port, running_redis

pytestmark = pytest.mark.redis

TIMEOUT = 30.0
ON = {"KIKI_REDIS": "auto", "KIKI_REDIS_TIMEOUT_SECONDS": str(TIMEOUT)}
"""So long that no answer of a Redis that is there comes too late, however busy the machine: who waits for it is found out."""


def checks(shield: Shield) -> dict[str, dict]:
    return {check["name"]: check for check in json.loads(shield.ask("/readyz")[1])["checks"]}


def refusals(shield: Shield) -> list[float]:
    """How long each of some requests took that must be refused."""
    times = []
    for _ in range(20):
        started = time.monotonic()
        assert shield.status("/spend?amount=1") == 503
        times.append(time.monotonic() - started)
    return times


def own_address() -> str:
    """An address of this machine that is not the loopback; what is sent to it does not leave the machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Of a datagram socket this only looks up the route: nothing is sent. The address is for documentation.
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has the loopback only")
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has the loopback only")
    return address


def test_a_loopback_redis_that_is_absent(tmp_path):
    """The window is counted in the process; log and /readyz say so, and a Redis that comes later is not used."""
    port = free_port()
    with shield_in(tmp_path, REDIS_ADDR=f"localhost:{port}", **ON) as shield:
        assert shield.status("/spend?amount=500") == 200
        assert shield.status("/spend?amount=1") == 403
        assert [line["level"] for line in shield.lines() if "counted in this process alone" in line["event"]] == [
            "warning"
        ]
        window = checks(shield)["window"]
        assert window["ok"] is True
        assert window["detail"].startswith("local window; Redis did not answer")
        assert json.loads(shield.ask("/health")[1])["redis_connected"] is False
        late = RedisServer(tmp_path / "redis")
        late.port = port
        try:
            late.start()
            time.sleep(0.5)
            assert shield.status("/spend?amount=1") == 403
            assert checks(shield)["window"]["detail"].startswith("local window")
            assert late.command("DBSIZE") == ":0"
        finally:
            late.stop()


def test_a_redis_elsewhere_that_is_absent(tmp_path):
    """Not ready and 503, fast, until it answers; then it waits out the longest window, and decides."""
    address = own_address()
    redis = RedisServer(tmp_path / "redis", "--bind", address, "--protected-mode", "no")
    redis.host, redis.port = address, free_port()
    environ = ON | {"REDIS_ADDR": f"{address}:{redis.port}", "WINDOW_SECONDS": "2"}
    with shield_in(tmp_path / "shield", **environ) as shield:
        status, body, headers = shield.ask("/spend?amount=1")
        assert (status, "Retry-After" in headers) == (503, True)
        assert "REDIS_ADDR" in body
        assert shield.status("/readyz") == 503
        assert checks(shield)["window"]["ok"] is False
        assert shield.status("/health") == 200
        assert shield.csv_ids() == shield.ledger_ids() == []
        try:
            absent = time.monotonic()
            redis.start()
            shield.until("/readyz", 200)
            assert time.monotonic() - absent >= 2, "a Redis that was never met is waited out"
            assert shield.status("/spend?amount=1") == 200
            assert json.loads(shield.ask("/health")[1])["redis_connected"] is True
        finally:
            redis.stop()


def test_a_redis_elsewhere_that_says_nothing(tmp_path):
    """It takes the connection and never answers: requests are refused without waiting for it."""
    with socket.create_server((own_address(), 0)) as silent:
        host, port = silent.getsockname()
        environ = ON | {"REDIS_ADDR": f"{host}:{port}", "KIKI_REDIS_TIMEOUT_SECONDS": "4"}
        with shield_in(tmp_path, **environ) as shield:
            assert median(refusals(shield)) < 4, "nobody waits for who does not answer"
            assert shield.status("/readyz") == 503


def test_a_redis_that_is_killed_and_comes_back_empty(tmp_path, own_redis):
    """Refused at once while it is gone; back again it is distrusted until the window has passed; never over meanwhile."""
    environ = ON | {"REDIS_ADDR": own_redis.address, "MAX_BURST_BUDGET": "5", "WINDOW_SECONDS": "5"}
    with shield_in(tmp_path / "shield", **environ) as shield:
        assert checks(shield)["window"]["detail"].startswith("redis")
        began = time.monotonic()
        assert [shield.status(f"/spend?amount={amount}") for amount in (5, 1)] == [200, 403]
        own_redis.kill()
        assert max(refusals(shield)) < TIMEOUT, "nobody waits for what is not there"
        assert shield.status("/readyz") == 503
        own_redis.start()
        while (status := shield.status("/spend?amount=1")) != 200:
            assert status in {403, 503}
            assert time.monotonic() - began < END_SECONDS
            time.sleep(0.02)
        assert time.monotonic() - began >= 5, "what was spent had left the window"
        assert shield.status("/readyz") == 200
        assert shield.log().count("Traceback") == 0


def test_a_redis_that_pauses(tmp_path, own_redis):
    """What was asked and not answered may have been taken: 503 once, it counts if it was, and the rest is refused at once."""
    environ = ON | {"REDIS_ADDR": own_redis.address, "MAX_BURST_BUDGET": "5", "KIKI_REDIS_TIMEOUT_SECONDS": "4"}
    with shield_in(tmp_path / "shield", **environ) as shield:
        assert shield.status("/spend?amount=3") == 200
        own_redis.pause()
        try:
            first = shield.ask("/spend?amount=1", Idempotency_Key="k")
            assert first[0] == 503
            assert "counts as spent" in first[1]
            assert median(refusals(shield)) < 4, "nobody else waits"
        finally:
            own_redis.resume()
        shield.until("/readyz", 200)
        # It was carried out when Redis went on, unless that was later than a clock without a jump can explain.
        spent = float(json.loads(shield.ask("/v1/budgets")[1])["budgets"][0]["spent"])
        assert spent in {3, 4}
        admitted = sum(shield.status("/spend?amount=1") == 200 for _ in range(4))
        assert admitted == 5 - spent, "3 before, and the 1 of which nobody knew if it was carried out"


def test_two_services_on_one_redis(tmp_path, redis):
    """Together they admit exactly the limit, whoever is asked, and each says the same about what is left."""
    environ = ON | {"REDIS_ADDR": redis.address, "MAX_BURST_BUDGET": "500", "WINDOW_SECONDS": "600"}
    with shield_in(tmp_path / "one", **environ) as one, shield_in(tmp_path / "two", **environ) as two:
        admitted, lock = [], threading.Lock()

        def spend(shield: Shield, name: str) -> None:
            for number in range(100):
                status, body, _ = shield.ask(
                    "/spend?amount=1", Accept="application/json", Idempotency_Key=f"{name}-{number}"
                )
                assert status in {200, 403}
                if status == 200:
                    with lock:
                        admitted.append(json.loads(body)["event_id"] + json.loads(body)["chain"])

        threads = [
            threading.Thread(target=spend, args=(shield, f"{name}")) for name, shield in enumerate([one, two] * 4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(admitted) == len(set(admitted)) == 500
        budgets = [json.loads(shield.ask("/v1/budgets")[1])["budgets"] for shield in (one, two)]
        assert [(each["spent"], each["remaining"]) for (each,) in budgets] == [("500.00", "0.00")] * 2
        # A key is known to both, and so is a halt.
        replay = two.ask("/spend?amount=1", Idempotency_Key="0-0")
        assert (replay[0], one.ask("/spend?amount=1", Idempotency_Key="0-0")[0]) == (200, 200)
        assert one.status("/v1/halts", method="POST", body={"pattern": "*"}) == 200
        assert json.loads(two.ask("/v1/halts")[1]) == {"halts": ["*"]}
        one.process.kill()
        one.wait()
        one.start()
        assert one.status("/spend?amount=1") == 403, "a restart frees nothing"


def test_a_redis_that_wants_a_password(tmp_path):
    """A Redis that answers and refuses is no absent one: not ready, and the password is in no log."""
    with running_redis(tmp_path / "redis") as server:
        server.command("CONFIG SET requirepass right-word")
        environ = ON | {"REDIS_ADDR": server.address}
        with shield_in(tmp_path / "wrong", REDIS_PASSWORD="wrong-word", **environ) as shield:
            assert shield.status("/spend?amount=1") == 503
            assert "REDIS_PASSWORD" in shield.ask("/spend?amount=1")[1]
            assert checks(shield)["window"]["ok"] is False
            assert "wrong-word" not in shield.log() + shield.ask("/readyz")[1]
        with shield_in(tmp_path / "right", REDIS_PASSWORD="right-word", **environ) as shield:
            assert shield.status("/spend?amount=1") == 200
            assert "right-word" not in shield.log()


def test_a_redis_that_evicts(tmp_path):
    """Keys that may be thrown away at any time are no window: not ready, and named."""
    with (
        running_redis(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru") as server,
        shield_in(tmp_path / "shield", REDIS_ADDR=server.address, **ON) as shield,
    ):
        assert shield.status("/spend?amount=1") == 503
        assert "allkeys-lru" in checks(shield)["window"]["detail"]
