"""The compose file and the image's recipe say what the guide says, and nothing that is unsafe."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from kiki.settings import VARIABLES, LedgerSettings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {"syncshield": "shield", "syncvalue": "value", "syncflow": "flow", "syncengage": "engage"}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_guides_command_starts_what_it_names_and_needs_nothing_else():
    for name in ("redis", "syncshield", "syncengage"):
        assert "profiles" not in SERVICES[name]
        assert set(SERVICES[name].get("depends_on", {})) <= {"redis", "syncshield"}
    assert all(
        "profiles" in service for name, service in SERVICES.items() if name not in {"redis", "syncshield", "syncengage"}
    )


def test_ports_are_the_guides_and_on_this_machine_alone():
    published = {name: service["ports"] for name, service in SERVICES.items()}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert ["127.0.0.1:8081:8081"] == published["syncshield"]
    assert ["127.0.0.1:8083:8083"] == published["syncengage"]
    assert "127.0.0.1:50051:50051" in published["syncvalue"]
    assert "127.0.0.1:8082:8082" in published["syncflow"]
    assert "127.0.0.1:16686:16686" in published["jaeger-query"]
    assert "127.0.0.1:8888:8888" in published["otel-collector"]


@pytest.mark.parametrize(("name", "word"), OURS.items())
def test_our_services_are_confined_and_their_variables_exist(name, word):
    service = SERVICES[name]
    assert ["kiki", "serve", word] == service["command"]
    assert service["read_only"]
    assert "10001:10001" == service["user"]
    assert ["ALL"] == service["cap_drop"]
    assert service["healthcheck"]["test"]
    known = {variable.name for variable in VARIABLES}
    assert set(service["environment"]) <= known


def test_postgres_is_used_by_all_that_keep_something_and_by_nobody_unless_told():
    """An empty variable is an unset one: without .env each service keeps its files in its own volume."""
    for name in ("syncshield", "syncengage", "syncflow"):
        given = SERVICES[name]["environment"]
        assert {key: given[key] for key in ("DB_HOST", "POSTGRES_PASSWORD", "KIKI_MASTER_KEY")} == {
            "DB_HOST": "${DB_HOST:-}", "POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:-}", "KIKI_MASTER_KEY": "${KIKI_MASTER_KEY:-}",
        }  # fmt: skip
    replica = SERVICES["syncshield"]["environment"]["KIKI_REPLICA"]
    unset = LedgerSettings.parse(
        {"DB_HOST": "", "POSTGRES_PASSWORD": "", "KIKI_MASTER_KEY": "", "KIKI_REPLICA": replica}
    )
    assert (unset.database_url, unset.replica) == (None, "syncshield")
    own = SERVICES["postgres"]["environment"]
    told = LedgerSettings.parse({"DB_HOST": "postgres", "POSTGRES_PASSWORD": "word"})
    assert told.database_url is not None
    assert f"postgresql://{own['POSTGRES_USER']}:word@postgres:5432/{own['POSTGRES_DB']}" == told.database_url.reveal()


def test_no_container_can_get_more_rights_than_it_has():
    for name, service in SERVICES.items():
        assert ["no-new-privileges:true"] == service["security_opt"], name
        # The official images of databases begin as root to own their volume, and go on as their own user.
        assert (name in {"redis", "postgres"}) == ("cap_drop" not in service), name


def test_redis_forgets_nothing():
    command = SERVICES["redis"]["command"]
    assert "noeviction" == command[command.index("--maxmemory-policy") + 1]
    assert "yes" == command[command.index("--appendonly") + 1]


def test_compose_and_chart_run_the_same_collector_and_the_same_jaeger():
    otel = yaml.safe_load((ROOT / "deploy" / "helm" / "kiki" / "values.yaml").read_text())["otel"]
    assert otel["collector"]["image"] == f"docker.io/{SERVICES['otel-collector']['image']}"
    assert otel["jaeger"]["image"] == f"docker.io/{SERVICES['jaeger-query']['image']}"


def test_every_image_has_a_tag_every_file_is_there_and_no_secret_is_in_it():
    for name, service in SERVICES.items():
        assert re.search(r":[\w.-]+$", service["image"]), name
        assert not service["image"].endswith(":latest")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|KEY", key):
                assert str(value).startswith("${")


def test_the_image_has_every_extra_but_the_engine_for_charts():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (installed,) = re.findall(r'"\.\[(.+)\]"', DOCKERFILE)
    assert set(extras) - {"all", "dev", "bench", "helm"} == set(installed.split(","))


def test_the_image_is_one_for_four_and_runs_as_nobody():
    stages = re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE)
    assert ["${BASE} AS build", "${BASE}"] == stages
    assert re.search(r"^ARG BASE=python:3\.11-slim-\w+$", DOCKERFILE, re.MULTILINE)
    last = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    assert "\nUSER 10001:10001\n" in last
    assert "apt-get" not in DOCKERFILE
    assert "gcc" not in DOCKERFILE
    assert 'CMD ["kiki", "serve", "shield"]' in last
    for name in ("title", "source", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{name}=" in last
    ignored = (ROOT / ".dockerignore").read_text()
    assert ignored.splitlines()[1] == "*"
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists()
            assert any(f"!{kept}" in ignored for kept in (path, path.split("/")[0]))
