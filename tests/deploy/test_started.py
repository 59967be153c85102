"""Each service, started with exactly the environment that the chart renders, answers where its probes and Services ask.

Only what a pod would find elsewhere is put in its place: mounted paths, and the addresses of Redis, PostgreSQL and the
other services. Ports are the rendered ones where they are free.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.deploy.image import PORTS, SECONDS, TOKEN, fill_keys, with_database
from tests.deploy.renders import ROOT, Engine, layers, named
from tests.deploy.rules import environ_of
from tests.servers import free_port

get = partial(httpx.get, timeout=SECONDS)


@contextmanager
def started(tmp_path: Path, name: str, environ: dict[str, str], url: str) -> Iterator[None]:
    with (tmp_path / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kiki", "serve", name.removeprefix("sync")],
            cwd=tmp_path / "data", stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | environ,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None, (tmp_path / f"{name}.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / f"{name}.log").read_text()
            try:
                if httpx.get(f"{url}/livez", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        code = process.wait(SECONDS)
    assert code == 0, (tmp_path / f"{name}.log").read_text()


def placed(tmp_path: Path, found: list[dict], name: str, http: str) -> tuple[dict[str, str], str, dict[str, int]]:
    """The rendered environment with this machine's paths and free ports; the port that probes ask; all ports by name."""
    keys, data = tmp_path / "keys", tmp_path / "data"
    fill_keys(keys)
    data.mkdir(exist_ok=True)
    environ = environ_of(found, name)
    ports = {}
    for variable in PORTS:
        if variable in environ:
            environ[variable] = str(ports.setdefault(variable, free_port()))
    for variable, value in environ.items():
        environ[variable] = (
            value.replace("/etc/kiki/keys", str(keys))
            .replace("/var/audit-logs", str(data))
            .replace("/var/lib/kiki", str(data))
        )
    environ["KIKI_HOST"] = "127.0.0.1" if name == "syncvalue" else environ["KIKI_HOST"]
    return environ, f"http://127.0.0.1:{environ[http]}", ports


@pytest.fixture(scope="module")
def production() -> list[dict]:
    return Engine.shared().objects(layers("prod", "otel.enabled=false", "audit.shipTo="))


def test_the_shield_with_its_database_and_redis(tmp_path: Path, production, postgres: str, redis):
    environ, url, ports = placed(tmp_path, production, "syncshield", "PORT")
    environ = with_database(environ, postgres) | {"REDIS_ADDR": redis.address}
    del environ["REDIS_PASSWORD"]  # the key is optional for a Redis outside
    redis.command("CONFIG SET maxmemory-policy noeviction")
    container = named(production, "Deployment", "syncshield")["spec"]["template"]["spec"]["containers"][0]
    with started(tmp_path, "syncshield", environ, url):
        deadline = time.monotonic() + SECONDS
        while get(url + container["readinessProbe"]["httpGet"]["path"]).status_code != 200:
            assert time.monotonic() < deadline, (tmp_path / "syncshield.log").read_text()
            time.sleep(0.05)
        # The guide's commands inside, without a token; the public port never without one.
        assert get(f"{url}/spend?amount=100").status_code == 200
        assert get(f"{url}/health").status_code == 200
        assert get(f"{url}/metrics").status_code == 200
        public = f"http://127.0.0.1:{ports['KIKI_PUBLIC_PORT']}"
        assert get(f"{public}/spend?amount=1").status_code == 401
        assert get(f"{public}/spend?amount=1", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert get(f"{url}/v1/budgets", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    # `kubectl exec … -- cat shield_audit_gdpr.csv` in the working directory.
    rows = (tmp_path / "data" / "shield_audit_gdpr.csv").read_text().splitlines()
    assert len([row for row in rows if "budget_decision" in row]) == 2


@pytest.mark.parametrize(
    ("name", "http"), [("syncvalue", "KIKI_VALUE_HTTP_PORT"), ("syncflow", "PORT"), ("syncengage", "PORT")]
)
def test_the_others_answer_their_probes(name: str, http: str, tmp_path: Path, production, postgres: str):
    environ, url, _ = placed(tmp_path, production, name, http)
    if name != "syncvalue":
        environ = with_database(environ, postgres)
    kind = "StatefulSet" if name == "syncflow" else "Deployment"
    container = named(production, kind, name)["spec"]["template"]["spec"]["containers"][0]
    with started(tmp_path, name, environ, url):
        for probe in ("startupProbe", "livenessProbe"):
            assert get(url + container[probe]["httpGet"]["path"]).status_code == 200
        assert get(f"{url}/health").status_code == 200
        assert get(f"{url}/metrics").status_code == 200
        assert get(url + container["readinessProbe"]["httpGet"]["path"]).status_code in {200, 503}
