"""The workflows: clean under actionlint and zizmor, pinned, with the least permissions; and their commands, run with stubs."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.renders import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent
GUIDE_FLAGS = [
    "upgrade --install kiki ./helm/kiki",
    "--namespace kiki --create-namespace",
    "--set global.imageRegistry=ghcr.io/your-org/kiki",
    "--set syncshield.image=syncshield:v1.0.0",
    "--set syncengage.image=syncengage:v1.0.0",
    "--set syncvalue.image=syncvalue:v1.0.0",
    "--set syncflow.image=syncflow:v1.0.0",
    "-f helm/kiki/values-prod.yaml",
    "overrides.yaml",
    "--timeout 10m --wait",
    "--atomic",
]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())


def steps(name: str, job: str) -> list[dict[str, Any]]:
    return load(name)["jobs"][job]["steps"]


def test_they_are_the_guides():
    assert [path.name for path in WORKFLOWS] == ["cd.yml", "ci.yml"]
    assert load("cd.yml")["name"] == "CD"
    assert load("cd.yml")[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 takes the key `on` for true
    assert "${{ secrets.KUBECONFIG_BASE64 }}" in (ROOT / ".github" / "workflows" / "cd.yml").read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_linters_find_nothing(path: Path):
    for command in (
        [str(BIN / "actionlint"), str(path)],
        [str(BIN / "zizmor"), "--offline", "--persona=auditor", str(path)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_and_nothing_may_more_than_it_must(path: Path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert set(job["permissions"]) <= {"contents", "packages", "id-token"}
        assert job["permissions"]["contents"] == "read"
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            assert "${{" not in step.get("run", ""), "what comes from outside reaches a script as a variable only"
    for line in path.read_text().splitlines():
        if "uses:" in line:
            assert re.search(r"# v\d+\.\d+\.\d+$", line), f"{line} does not say which version that is"


class Runner:
    """Runs a workflow's `run` blocks as GitHub does: bash -e, one after the other, files for outputs and variables."""

    def __init__(self, tmp_path: Path) -> None:
        self.bin, self.log = tmp_path / "bin", tmp_path / "log"
        self.bin.mkdir()
        for name in ("output", "env"):
            (tmp_path / name).touch()
        self.environ = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "RUNNER_TEMP": str(tmp_path),
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_ENV": str(tmp_path / "env"),
            "LOG": str(self.log),
        }
        self.outputs = tmp_path / "output"
        for name in ("helm", "kubectl", "cosign"):
            self.stub(name, "exit 0")

    def stub(self, name: str, does: str) -> None:
        program = self.bin / name
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> "$LOG"\n{does}\n')
        program.chmod(0o755)

    def run(self, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=ROOT, env=self.environ | environ, capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip

    def called(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def script(job: str, name: str) -> str:
    (found,) = [step["run"] for step in steps("cd.yml", job) if step.get("name") == name]
    return found


def test_a_tag_gives_the_guides_four_names(runner: Runner):
    done = runner.run(script("image", "Names"), REPOSITORY="Your-Org/Kiki", TAG="v1.0.0", REVISION="abc")
    assert done.returncode == 0, done.stderr
    told = runner.outputs.read_text()
    assert "registry=ghcr.io/your-org/kiki\n" in told
    for service in ("syncshield", "syncvalue", "syncflow", "syncengage"):
        assert f"ghcr.io/your-org/kiki/{service}:v1.0.0\n" in told
    assert "labels<<END\nVERSION=v1.0.0\nREVISION=abc\nSOURCE=https://github.com/Your-Org/Kiki\nEND\n" in told
    builds = [step["with"] for step in steps("cd.yml", "image") if "build-push" in step.get("uses", "")]
    assert [one["build-args"] for one in builds] == ["${{ steps.names.outputs.labels }}"] * 2
    assert {line.partition("=")[0] for line in told[told.index("labels<<END") :].splitlines()[1:4]} <= {
        line.split()[1].partition("=")[0]
        for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines() if line.startswith("ARG")
    }  # fmt: skip
    refused = runner.run(script("image", "Names"), REPOSITORY="o/k", TAG="v1$(touch /tmp/x)")
    assert refused.returncode == 1
    assert "is no version" in refused.stderr


def test_each_name_is_signed_by_its_digest_and_verified(runner: Runner):
    environ = {"REGISTRY": "ghcr.io/o/k", "DIGEST": "sha256:1", "REPOSITORY": "o/k", "TAG": "v1.0.0"}
    assert runner.run(script("image", "Sign"), **environ).returncode == 0
    assert runner.run(script("deploy", "Verify who signed"), **environ).returncode == 0
    assert [line.split()[1] for line in runner.called()] == ["sign"] * 4 + ["verify"] * 4
    assert all("@sha256:1" in line for line in runner.called())


def deploy_environ(tmp: Path) -> dict[str, str]:
    return {"REGISTRY": "ghcr.io/your-org/kiki", "TAG": "v1.0.0", "OVERRIDES": "redis: {address: 'r:6379'}", "KUBECONFIG_BASE64": base64.b64encode(b"kind: Config").decode()}  # fmt: skip


def test_the_install_has_the_guides_flags(runner: Runner, tmp_path: Path):
    environ = deploy_environ(tmp_path)
    for name in (
        "Credentials of the cluster",
        "Values of this installation",
        "Install",
        "Watch",
        "Roll back",
        "Forget the credentials",
    ):
        done = runner.run(script("deploy", name), **environ)
        assert done.returncode == 0, (name, done.stderr)
        if name == "Credentials of the cluster":
            assert (tmp_path / "kubeconfig").read_text() == "kind: Config"
            assert (tmp_path / "kubeconfig").stat().st_mode & 0o077 == 0
    (install,) = [line for line in runner.called() if " upgrade " in line]
    assert all(flag in install for flag in GUIDE_FLAGS), install
    assert "redis: {address" in (tmp_path / "overrides.yaml").read_text()
    for guide in ("deployment/syncshield", "deployment/syncengage"):
        assert any(line.startswith(f"kubectl -n kiki rollout status {guide}") for line in runner.called())
    assert any(line.startswith("helm rollback kiki --namespace kiki") for line in runner.called())
    assert not (tmp_path / "kubeconfig").exists()


def test_a_failed_watch_is_rolled_back_and_a_failed_install_is_helms_to_undo(runner: Runner):
    runner.stub("kubectl", "exit 1")
    assert runner.run(script("deploy", "Watch")).returncode == 1
    (back,) = [step for step in steps("cd.yml", "deploy") if step.get("name") == "Roll back"]
    assert back["if"] == "failure() && steps.install.outcome == 'success'"
    assert "--atomic" in script("deploy", "Install")


def test_without_credentials_it_says_what_to_set(runner: Runner):
    done = runner.run(script("deploy", "Credentials of the cluster"), KUBECONFIG_BASE64="")
    assert done.returncode == 1
    assert "KUBECONFIG_BASE64 is not set" in done.stderr


def test_nothing_is_installed_whose_chart_was_not_checked():
    assert load("cd.yml")["jobs"]["deploy"]["needs"] == ["chart", "image"]
    assert [step["run"] for step in steps("cd.yml", "chart") if "run" in step] == ["scripts/check_chart.sh"]


def test_continuous_integration_runs_what_developers_run():
    scripts = [step.get("run", "") for job in load("ci.yml")["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in scripts
    assert "scripts/check_chart.sh" in scripts
    for name in (".ci/run", "scripts/check_chart.sh"):
        assert os.access(ROOT / name, os.X_OK)
