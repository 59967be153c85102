"""`kiki serve value` as a process: the guide's port, real signals, a new model under load, and starts that must be refused."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from kiki import LtvClient
from kiki.errors import ValueUnreachable
from kiki.value.pb import ltv_pb2, syncvalue_pb2, value_pb2
from kiki.value.service import SYNCVALUE
from tests.value.served_value import ROOT, Process, fitted, process_in, write_log

PREDICT = "/kiki.value.v1.ValueService/Predict"


class Load:
    """Clients that ask on one channel each, one call after the other; they never try a second time."""

    def __init__(self, address: str, clients: int = 4) -> None:
        self.versions: list[str] = []
        self.failures: list[grpc.RpcError] = []
        self._stop = threading.Event()
        self._address = address
        self._pool = ThreadPoolExecutor(clients)
        self._runs = [self._pool.submit(self._run) for _ in range(clients)]

    def _run(self) -> None:
        request = value_pb2.PredictRequest(customer_id="c1").SerializeToString()
        with grpc.insecure_channel(self._address, options=[("grpc.enable_retries", 0)]) as channel:
            ask = channel.unary_unary(PREDICT)
            while not self._stop.is_set():
                try:
                    answer = value_pb2.PredictResponse.FromString(ask(request, timeout=60))
                except grpc.RpcError as error:
                    self.failures.append(error)
                    return
                self.versions.append(answer.model_version)

    def until(self, count: int, seconds: float = 60) -> None:
        """Wait for so many answers."""
        deadline = time.monotonic() + seconds
        while len(self.versions) < count and not self.failures:
            assert time.monotonic() < deadline, len(self.versions)
            time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        for run in self._runs:
            run.result(60)
        self._pool.shutdown()


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_new_models_under_load_lose_no_call_and_answers_are_of_one_model_each(tmp_path):
    models = [fitted("mbg-nbd"), fitted("pareto-nbd"), fitted("bg-nbd")]
    with process_in(tmp_path) as process:
        load = Load(process.address)
        load.until(50)
        for count, model in enumerate(itertools.islice(itertools.cycle([models[1], models[2], models[0]]), 5), start=2):
            model.save(tmp_path / "model.json")
            process.until("model taken over", count)
            load.until(len(load.versions) + 100)
        load.stop()
        answers = {model.model_version: model.predict for model in models}
    assert [] == load.failures
    assert set(answers) == set(load.versions)
    assert [line for line in process.lines() if line["level"] == "error"] == []


def test_sigterm_answers_what_was_taken_and_ends_with_0(tmp_path):
    """A slow call that was taken is answered; new ones find nobody."""
    with process_in(tmp_path) as process:
        orders = [
            value_pb2.Order(date=f"2025-{month:02}-{day:02}", amount_micros=10**6)
            for month in range(1, 12)
            for day in range(1, 29)
        ]
        request = value_pb2.PredictRequest(history=value_pb2.History(orders=orders * 30, as_of="2025-12-31"))
        with grpc.insecure_channel(process.address) as channel, ThreadPoolExecutor(8) as pool:
            ask = channel.unary_unary(PREDICT)
            ask(value_pb2.PredictRequest(customer_id="c1").SerializeToString(), timeout=60)
            calls = [pool.submit(ask, request.SerializeToString(), timeout=60) for _ in range(8)]
            look = channel.unary_unary(f"/{SYNCVALUE}/GetModelHealth")
            deadline, taken = time.monotonic() + 60, 0
            while taken < 1 + len(calls):
                assert time.monotonic() < deadline, taken
                answer = look(syncvalue_pb2.HealthRequest(include_metrics=True).SerializeToString(), timeout=60)
                taken = syncvalue_pb2.HealthResponse.FromString(answer).predictions_today
            process.process.send_signal(signal.SIGTERM)
            answers = [value_pb2.PredictResponse.FromString(call.result(60)) for call in calls]
        assert 0 == process.wait()
    assert {value_pb2.SOURCE_HISTORY} == {answer.source for answer in answers}
    events = [line["event"] for line in process.lines()]
    assert ("stopping", "stopped") == (events[-2], events[-1])
    with LtvClient(process.address, fallback=5.0) as client:
        assert client.predict("c1").is_fallback


@pytest.mark.parametrize("clients", [1, 32])
def test_sigterm_under_load_loses_no_call(tmp_path, clients):
    """Each client's last call finds nobody; none was taken and left without an answer."""
    with process_in(tmp_path) as process:
        load = Load(process.address, clients)
        load.until(200)
        process.process.send_signal(signal.SIGTERM)
        assert 0 == process.wait()
        load.stop()
    assert [grpc.StatusCode.UNAVAILABLE] * clients == [failure.code() for failure in load.failures]
    assert {"failed to connect"} == {failure.details()[:17] for failure in load.failures}


def test_a_kill_is_a_fallback_and_a_restart_is_found_again(tmp_path):
    with process_in(tmp_path) as process, LtvClient(process.address, fallback=5.0, timeout=60) as client:
        assert "scored" == client.predict("c1").source
        process.process.kill()
        process.wait()
        assert client.predict("c1").is_fallback
        with pytest.raises(ValueUnreachable):
            client.predict("c1", fallback=None)
        process.start(port=process.port)
        deadline = time.monotonic() + 60
        while (answer := client.predict("c1")).is_fallback:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert "scored" == answer.source


def test_sighup_takes_a_new_model_where_nothing_watches(tmp_path):
    with (
        process_in(tmp_path, KIKI_VALUE_RELOAD_SECONDS="0") as process,
        LtvClient(process.address, timeout=60) as client,
    ):
        fitted("pareto-nbd").save(tmp_path / "model.json")
        assert fitted().model_version == client.predict("c1").model_version
        process.process.send_signal(signal.SIGHUP)
        process.until("model taken over", 2)
        assert fitted("pareto-nbd").model_version == client.predict("c1").model_version
        (tmp_path / "model.json").write_text("{}")
        process.process.send_signal(signal.SIGHUP)
        refused = process.until("the reload was refused; nothing changed")
        assert "no model file" in str(refused["problems"])
        assert fitted("pareto-nbd").model_version == client.predict("c1").model_version


def test_an_old_client_gets_a_true_answer_and_no_id_reaches_log_or_metrics(tmp_path):
    with process_in(tmp_path, KIKI_LOG_LEVEL="debug") as process, grpc.insecure_channel(process.address) as channel:
        ask = channel.unary_unary("/ltv.LTVService/PredictLTV")
        request = ltv_pb2.LTVRequest(customer_id="anna.schmidt@example.com", recent_spend=50, engagement_score=0.7)
        answer = ltv_pb2.LTVResponse.FromString(ask(request.SerializeToString(), timeout=60))
        with pytest.raises(grpc.RpcError):
            ask(
                ltv_pb2.LTVRequest(customer_id="anna.schmidt@example.com", recent_spend=-1).SerializeToString(),
                timeout=60,
            )
        metrics = get(process.http_port, "/metrics")[1] + get(process.http_port, "/health")[1]
    assert answer.predicted_ltv > 0
    assert "anna.schmidt" not in process.log_path.read_text() + metrics


def test_tls_and_client_certificates(tmp_path):
    """Without the authority's certificate nobody gets in."""
    run = lambda *words: subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
        "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")  # fmt: skip
    files = {"KIKI_VALUE_TLS_CERT_FILE": "cert.pem", "KIKI_VALUE_TLS_KEY_FILE": "key.pem"}
    with process_in(tmp_path, **files) as process:
        address = f"localhost:{process.port}"
        with LtvClient(address, ca_file=tmp_path / "cert.pem", timeout=60) as client:
            assert "scored" == client.predict("c1").source
        with LtvClient(address, timeout=2) as client, pytest.raises(ValueUnreachable):
            client.predict("c1")
    with process_in(tmp_path, **files, KIKI_VALUE_TLS_CLIENT_CA_FILE="cert.pem") as process:
        address = f"localhost:{process.port}"
        with LtvClient(address, ca_file=tmp_path / "cert.pem", timeout=2) as client, pytest.raises(ValueUnreachable):
            client.predict("c1")
        cert, key = ((tmp_path / name).read_bytes() for name in ("cert.pem", "key.pem"))
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(cert, key, cert)) as channel:
            data = channel.unary_unary(PREDICT)(
                value_pb2.PredictRequest(customer_id="c1").SerializeToString(), timeout=60
            )
    assert value_pb2.SOURCE_SCORED == value_pb2.PredictResponse.FromString(data).source


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"KIKI_HOST": "0.0.0.0"}, "KIKI_VALUE_ANONYMOUS=true"),
        ({"KIKI_VALUE_PORT": "x", "KIKI_VALUE_HTTP_PORT": "y"}, "KIKI_VALUE_HTTP_PORT='y'"),
        (
            {"KIKI_VALUE_TLS_CERT_FILE": "none.pem", "KIKI_VALUE_TLS_KEY_FILE": "none.pem"},
            "KIKI_VALUE_TLS_KEY_FILE=none.pem",
        ),
        ({"KIKI_VALUE_MODEL": "edited.json"}, "was edited after it was written"),
        ({"KIKI_VALUE_CUSTOMERS": "nowhere.csv"}, "there is no file nowhere.csv"),
        ({"KIKI_TOKENS_FILE": "nowhere.yaml"}, "nowhere.yaml: No such file"),
    ],
)
def test_it_does_not_start_with_what_cannot_be_used(tmp_path, environ, said):
    fitted().save(tmp_path / "model.json")
    (tmp_path / "edited.json").write_text(
        (tmp_path / "model.json").read_text().replace('"horizon": 26', '"horizon": 27')
    )
    process = Process(tmp_path, **environ)
    process.launch()
    try:
        assert 1 == process.wait(60)
    finally:
        process.close()
    assert said in process.log_path.read_text()
    assert "Traceback" not in process.log_path.read_text()


def test_options_go_before_the_environment(tmp_path):
    fitted().save(tmp_path / "mine.json")
    log = write_log(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            "serve",
            "value",
            "--port",
            "0",
            "--http-port",
            str(port),
            "--model",
            "mine.json",
            "--customers",
            str(log),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "kiki", *command], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "KIKI_VALUE_PORT": "1"},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert 1 == done.returncode
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr + done.stdout


def test_beyond_this_machine_it_listens_when_told_and_says_so(tmp_path):
    with process_in(tmp_path, KIKI_HOST="0.0.0.0", KIKI_VALUE_ANONYMOUS="true") as process:
        assert 200 == get(process.http_port, "/livez")[0]
        warnings = [line["event"] for line in process.lines() if line["level"] == "warning"]
    assert any("ASK FOR EVERYBODY'S VALUE" in event for event in warnings), json.dumps(warnings)
