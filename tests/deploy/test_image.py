"""SyncShield as a pod of the production profile, under bubblewrap: `bench/image.py` does the same with what the Dockerfile installs, all services, and more often."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from bench.image import production, restarts, shield_pod
from tests.deploy.image import DOCKERFILE, UID, Pod, with_database
from tests.deploy.renders import ROOT, Engine

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def render() -> list[dict]:
    return production(Engine.shared())


@needs_bubblewrap
def test_restarts_under_load_lose_nothing(render, tmp_path: Path, postgres: str, redis):
    redis.command("CONFIG SET maxmemory-policy noeviction")
    with shield_pod(render, tmp_path / "pod", postgres, redis.address) as pod:
        found = restarts(pod, 2, clients=4)
        assert found.codes == [0] * 3, pod.log.read_text()
        assert found.lost_requests == []
        assert found.lost_decisions == 0
        assert found.holds
        assert found.acknowledged >= 3 * 50  # so many are waited for before and after each


@needs_bubblewrap
def test_the_world_of_a_pod_is_as_small_as_the_chart_says(render, tmp_path: Path, postgres: str, redis):
    """And the guide's two commands work in it."""
    pod = shield_pod(render, tmp_path / "pod", postgres, redis.address)
    status = pod.exec("cat", "/proc/self/status").stdout
    assert re.search(rf"^Uid:\s+{UID}\s", status, re.MULTILINE)
    assert set(re.findall(r"^Cap(?:Prm|Eff|Amb):\s+(\w+)", status, re.MULTILINE)) == {"0" * 16}
    assert "NoNewPrivs:\t1" in status
    for path, may in (("/x", False), ("/etc/kiki/keys/x", False), ("/usr/x", False), ("x", True), ("/tmp/x", True)):
        assert (pod.exec("touch", path).returncode == 0) is may, path


@needs_bubblewrap
@pytest.mark.parametrize("name", ["syncflow", "syncengage"])
def test_nothing_is_written_outside_of_the_volumes(name: str, render, tmp_path: Path, postgres: str):
    """It starts where only those can be written to; that it is ready without a shield would be too much to ask."""
    with Pod.of(render, name, tmp_path / "pod", **with_database({}, postgres)) as pod:
        pod.start("startupProbe")
        assert pod.stop() == 0, pod.log.read_text()
    assert "Traceback" not in pod.log.read_text()


def test_the_builder_is_sent_and_copies_all_that_the_package_is_made_of(tmp_path: Path):
    """A link that leads out of what is copied ends the build, and nothing before it says so."""
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            assert any(source == name or source.startswith(f"{name}/") for name in sent), source
            place = tmp_path / target / (Path(source).name if target.endswith("/") else "")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, place, symlinks=True, dirs_exist_ok=True, ignore=leave)
            else:
                shutil.copyfile(ROOT / source, place)
    assert [path for path in tmp_path.rglob("*") if not path.exists()] == []
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    named = [
        *wheel["packages"],
        *wheel["force-include"],
        project["project"]["readme"],
        *project["project"]["license-files"],
    ]
    assert [name for name in named if not (tmp_path / name).exists()] == []
