"""`kiki helm`: what it prints and returns, with either engine and with none."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kiki.chart import engine
from kiki.chart.checklist import Render, checklist
from kiki.chart.place import chart_directory
from kiki.cli.main import app
from tests.deploy.renders import AZURE, Engine, full, layers, named

GUIDE = [
    "Network policies enforce pod-to-pod communication",
    "External Secrets operator has least-privilege IAM role",
    "TLS enabled for all external ingress (Let's Encrypt)",
    'Pod Security Policy set to "restricted"',
    "ReadOnlyRootFilesystem enabled",
    "Non-root containers (uid 10001)",
    "All secrets stored in AWS Secrets Manager (not ConfigMaps)",
    "Audit logs encrypted and retained for 7 years (GDPR)",
    "Resource requests/limits enforced",
    "HPA enabled to prevent resource exhaustion",
]
# A `helm` that is none: it takes the arguments of `helm template` and prints as that does.
STUB = """#!{python}
import json, sys
from helm_python import Chart
assert sys.argv[1:3] == ["template", "kiki"], sys.argv
namespace = sys.argv[sys.argv.index("--namespace") + 1]
values = json.load(open(sys.argv[sys.argv.index("-f") + 1]))
for path, text in Chart.load(sys.argv[3]).render(values, name="kiki", namespace=namespace).items():
    if not path.endswith("NOTES.txt"):
        for part in text.split("\\n---\\n"):
            print("---\\n# Source: " + path + "\\n" + part)
"""


def helm(*arguments: str):
    return CliRunner().invoke(app, ["helm", *arguments])


def test_values_are_merged_and_printed(tmp_path: Path):
    over = tmp_path / "overrides.yaml"
    over.write_text("redis: {address: 'redis.example.com:6379'}\n")
    result = helm("values", "--env", "prod", "-f", str(over), "--set", "syncshield.replicaCount=5")
    assert result.exit_code == 0, result.stderr
    values = yaml.safe_load(result.stdout)
    assert (values["redis"]["address"], values["syncshield"]["replicaCount"]) == ("redis.example.com:6379", 5)
    assert values["spread"]["zone"] == "DoNotSchedule"
    as_json = helm("values", "--env", "prod", "-f", str(over), "--set", "syncshield.replicaCount=5", "--json")
    assert json.loads(as_json.stdout) == values


@pytest.mark.parametrize("command", ["values", "render", "check"])
def test_every_mistake_is_told_at_once(command: str, tmp_path: Path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("synccreate: {enabled: true}\nsyncshield: {image: syncshield}\n")
    result = helm(command, "--env", "prod", "-f", str(bad), "--set", "pdb.minAvailabl=2")
    assert (result.exit_code, result.stdout) == (1, "")
    for words in (
        "3 mistakes",
        "synccreate: superseded",
        "syncshield.image: expected name:tag",
        "did you mean minAvailable?",
    ):
        assert words in result.stderr
    told = json.loads(helm(command, "--env", "prod", "-f", str(bad), "--json").stderr)
    assert (told["error"]["code"], len(told["error"]["problems"])) == ("values_invalid", 2)


def test_files_that_are_not_there_or_are_no_values_are_named(tmp_path: Path):
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    names = ["missing.yaml", "list.yaml", "bytes.yaml"]
    result = helm("values", *[part for name in names for part in ("-f", str(tmp_path / name))])
    assert result.exit_code == 1
    assert all(name in result.stderr for name in names)
    assert helm("values", "--env", "production").exit_code == 2


def test_both_engines_give_the_same_bytes(tmp_path: Path, monkeypatch):
    rest = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))  # whatever this machine has
    without = helm("render", "--env", "prod", "--set", "syncshield.image=syncshield:v1.0.0")
    stub = tmp_path / "helm"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{rest}")
    with_program = helm("render", "--env", "prod", "--set", "syncshield.image=syncshield:v1.0.0")
    assert without.exit_code == with_program.exit_code == 0, with_program.stderr
    assert without.stdout == with_program.stdout
    assert (
        named(list(yaml.safe_load_all(without.stdout)), "Deployment", "syncshield")["metadata"]["namespace"] == "kiki"
    )
    there = json.loads(helm("render", "--env", "prod", "-n", "team-a", "--json").stdout)
    assert {one["metadata"]["namespace"] for one in there} == {"team-a"}


@pytest.mark.parametrize("name", ["Bad NS", "a_b", "-a", "a" * 64, ""])
def test_what_is_no_namespace_is_a_usage_error(name: str):
    for command in ("render", "check"):
        result = helm(command, "--env", "prod", "--namespace", name)
        assert (result.exit_code, result.stdout) == (2, "")


def test_without_an_engine_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(engine.shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for command in ("render", "check"):
        result = helm(command, "--env", "prod")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "without a `helm` program on PATH" in result.stderr
        assert "pip install 'kiki[helm]'" in result.stderr
    assert helm("values", "--env", "prod").exit_code == 0


def test_an_engine_that_fails_is_an_error(tmp_path: Path, monkeypatch):
    stub = tmp_path / "helm"
    stub.write_text("#!/bin/sh\necho 'Error: no such thing' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = helm("render", "--env", "prod")
    assert result.exit_code == 1
    assert "the chart cannot be rendered: Error: no such thing" in result.stderr


def test_the_checklist_is_the_guides_line_by_line():
    result = helm("check", "--env", "prod", "--json")
    lines = json.loads(result.stdout)
    assert [line["check"] for line in lines] == GUIDE
    assert result.exit_code == 0
    assert [line["state"] for line in lines] == ["pass", "outside the render", *["pass"] * 8]
    assert all(line["command"] for line in lines if line["state"] == "outside the render")
    people = helm("check", "--env", "prod")
    assert people.exit_code == 0
    assert all(line in people.stdout for line in GUIDE)


def test_a_line_that_fails_says_where_and_exits_with_three():
    result = helm("check", "--env", "dev")
    assert result.exit_code == 3
    assert "fail               HPA enabled" in result.stdout
    assert "syncshield.autoscaling.enabled: false; set it to true" in result.stdout


@pytest.mark.parametrize(
    ("sets", "failing"),
    [
        (["networkPolicy.enabled=false"], {GUIDE[0]}),
        (["audit.retentionDays=365"], {GUIDE[7]}),
        (["syncengage.autoscaling.enabled=false"], {GUIDE[9]}),
        (["networkPolicy.allowExternal=true"], set()),
        (AZURE, set()),
    ],
)
def test_what_values_can_spoil_is_found(sets: list[str], failing: set[str]):
    arguments = [part for one in sets for part in ("--set", one)]
    lines = json.loads(helm("check", "--env", "prod", "--json", *arguments).stdout)
    assert {line["check"] for line in lines if line["state"] == "fail"} == failing


SPOILT = {
    2: lambda found: named(found, "Ingress", "kiki-ingress")["spec"]["tls"][0]["hosts"].pop(),
    3: lambda found: first(found)["securityContext"]["capabilities"].update(drop=[]),
    4: lambda found: first(found)["securityContext"].update(readOnlyRootFilesystem=False),
    5: lambda found: first(found)["securityContext"].update(runAsUser=1000),
    6: lambda found: first(found)["env"].append({"name": "SENDGRID_API_KEY", "value": "SG.x"}),
    7: lambda found: pod(found)["volumes"].append({"name": "audit", "emptyDir": {"medium": "Memory"}}),
    8: lambda found: first(found)["resources"].pop("limits"),
}


def pod(found):
    return named(found, "Deployment", "syncshield")["spec"]["template"]["spec"]


def first(found):
    return pod(found)["containers"][0]


@pytest.mark.parametrize("number", SPOILT)
def test_each_line_can_fail(number: int):
    values = layers("prod")
    found = Engine.shared().objects(values)
    SPOILT[number](found)
    lines = checklist(Render(found, full(values), "kiki"))
    assert [line.check for line in lines if line.state == "fail"] == [GUIDE[number]]


def test_the_chart_is_found_in_an_installed_package_too(tmp_path: Path, monkeypatch):
    from kiki.chart import place

    packaged = tmp_path / "helm" / "kiki"
    shutil.copytree(chart_directory(), packaged)
    monkeypatch.setattr(place, "_PACKAGED", packaged)
    assert chart_directory() == packaged
    assert helm("values", "--env", "staging").exit_code == 0
