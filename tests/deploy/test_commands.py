"""Every block of docs/deploy, and every command that docs/guide-coverage.md says works, is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.serving import Engage, Shield
from tests.deploy.renders import GUIDE_OVERRIDES, GUIDE_VALUES, ROOT, Engine, full, layers

PAGES = sorted((ROOT / "docs" / "deploy").glob("*.md"))
COVERAGE = ROOT / "docs" / "guide-coverage.md"
STUBBED = ("helm", "kubectl", "curl", "docker", "eksctl", "aws", "az", "gcloud", "gh", "git")


class Shell:
    """A directory as a working copy looks, with the stubs first on PATH and everything else real."""

    def __init__(self, directory: Path, facts: dict) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        (directory / "facts.json").write_text(json.dumps(facts))
        stub = Path(__file__).with_name("stub.py")
        for name in STUBBED:
            self._program(name, f'exec "{sys.executable}" "{stub}" {name} "$@"')
        self._program("kiki", f'PATH=/usr/bin:/bin exec "{sys.executable}" -m kiki "$@"')
        self._program("python", f'exec "{sys.executable}" "$@"')
        for name in ("helm", "deploy", "scripts"):
            (directory / name).symlink_to(ROOT / name)
        for name in ("kiki_master_key", "kiki_tokens", "kiki_shield_token"):
            (directory / name).write_text("x")
        (directory / "overrides.yaml").write_text(GUIDE_VALUES)

    def _program(self, name: str, does: str) -> None:
        program = self.directory / "bin" / name
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        environ = os.environ | {
            "PATH": f"{self.directory / 'bin'}:/usr/bin:/bin",
            "STUB_FACTS": str(self.directory / "facts.json"),
            "PYTHONPATH": str(ROOT),
        }
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text],
            cwd=self.directory, env=environ, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> Iterator[dict]:
    directory = tmp_path_factory.mktemp("shield")
    shield = Shield(directory, MAX_BURST_BUDGET="500")
    shield.start()
    for _ in range(6):
        shield.status("/spend?amount=100")
    shield.until("/readyz", 200)
    engage = Engage(directory / "engage", SHIELD_URL=f"http://127.0.0.1:{shield.port}/check")
    engage.start()
    engine = Engine.shared()
    found = engine.objects(layers("prod")) + engine.objects(layers("staging"))
    short = {"Service": "svc", "ServiceAccount": "sa"}
    yield {
        "objects": [f"{short.get(one['kind'], one['kind'].lower())}/{one['metadata']['name']}" for one in found],
        "labels": [f"app={one['metadata']['labels']['app']}" for one in found] + ["app.kubernetes.io/part-of=kiki"],
        "ports": {
            f"svc/{one['metadata']['name']}": [str(port["port"]) for port in one["spec"]["ports"]]
            for one in found if one["kind"] == "Service"
        },
        "shield": f"http://127.0.0.1:{shield.port}",
        "engage": f"http://127.0.0.1:{engage.port}",
        "data": str(shield.data),
        "root": str(ROOT),
    }  # fmt: skip
    engage.close()
    shield.close()


@pytest.fixture
def shell(tmp_path: Path, facts: dict) -> Shell:
    return Shell(tmp_path, facts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_the_page_runs(page: Path, shell: Shell, facts: dict):
    if page.stem == "backup":
        (shell.directory / "kiki-data").mkdir()
        from kiki.shield.budget_guard import BudgetGuard

        with BudgetGuard.open(shell.directory / "kiki-data" / "shield.db", limit="500", window="60s") as guard:
            guard.spend("1")
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        done = shell.run(block)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def test_every_block_of_the_pages_is_of_a_kind_that_a_test_reads():
    """`bash` runs above, `reachability` is the table that the render is compared with, `console` shows an answer, too."""
    kinds = {kind for page in PAGES for kind in re.findall(r"^ *```(.+)$", page.read_text(), re.MULTILINE)}
    assert {kind.split()[0] for kind in kinds} <= {"bash", "console", "reachability"}
    indented = [page.name for page in PAGES if re.search(r"^ +```", page.read_text(), re.MULTILINE)]
    assert indented == []  # the pattern above would not see them


def test_what_a_console_shows_is_typed_with_options_that_there_are():
    """The drill itself runs in test_restore_drill.py."""
    for page in PAGES:
        for line in re.findall(r"^\$ (.+)$", page.read_text(), re.MULTILINE):
            program, script, command, *words = line.split()
            assert program == "python"
            told = subprocess.run(
                [sys.executable, str(ROOT / script), command, "--help"], capture_output=True, text=True, check=True
            ).stdout
            assert [word for word in words if word.startswith("--") and word not in told] == []


def test_what_leads_nowhere_is_noticed(shell: Shell):
    """The stubs can fail: each line is one letter away from one that works."""
    for line in (
        "kubectl -n kiki logs deployment/syncshields",
        "kubectl -n kiki describe pod -l app=shield",
        "kubectl -n kiki port-forward svc/jaeger-query 16687:16687",
        "kubectl -n kiki exec deployment/syncshield -it -- cat shield_audit.csv",
        "kubectl -n kiki describe externalsecret kiki-secret-aws",
        "helm upgrade --install kiki ./helm/kiki --namespace kiki -f helm/kiki/values-production.yaml",
        "helm upgrade --install kiki ./helm/kiki --namespace kiki -f helm/kiki/values-prod.yaml --set syncshield.images=x:1",
        "curl http://syncshield.kiki.svc.cluster.local:8080/health",
        "curl http://syncshield.kiki.svc.cluster.local/spends",
        "curl http://localhost:8084/health",
        "curl http://localhost:8083/spend?amount=1",
        "aws iam create-policies --policy-document file://kiki_master_key",
    ):
        assert shell.run(line).returncode != 0, line


def test_every_link_of_the_pages_leads_somewhere():
    for page in [*PAGES, ROOT / "k8s" / "README.md", ROOT / "deploy" / "helm" / "kiki" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


# -- the guide ---------------------------------------------------------------------------------------


def rows() -> list[tuple[str, str, str, str]]:
    found = []
    for line in COVERAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 4 and cells[0].startswith("`"):
            found.append((cells[0].strip("`"), *cells[1:]))
    return found


def typed(text: str) -> str:
    return text.replace(" ⏎ ", "\n")


OURS = [row for row in rows() if row[1] == "command" and row[2] == "works"]
RUN = [row for row in OURS if row[0].split()[0] in STUBBED and "…" not in row[0]]
WHOLE = {  # of these the page shows the beginning only
    "kubectl apply -f - <<EOF": "eks.md runs it with `ingressClassName`",
    "cat > kiki-policy.json": "deploy/aws/kiki-policy.json",
    "cat > overrides.yaml": "rendered verbatim by test_live_values.py",
}


@pytest.mark.parametrize("text", [row[0] for row in RUN])
def test_every_command_of_the_guide_that_works_is_run(text: str, shell: Shell):
    (shell.directory / "kiki-policy.json").write_text((ROOT / "deploy" / "aws" / "kiki-policy.json").read_text())
    done = shell.run(typed(text))
    assert done.returncode == 0, done.stderr


def test_no_command_of_the_guide_is_left_out():
    """What is not run above is a start of a block that is rendered whole, or runs in the service's own tests."""
    elsewhere = ("for i in {1..6}", "cat shield_audit_gdpr.csv", 'grep "DENIED"')
    left = [
        row[0] for row in OURS
        if row not in RUN and not row[0].startswith(elsewhere) and not any(row[0].startswith(begin) for begin in WHOLE)
    ]  # fmt: skip
    assert left == []


@pytest.mark.parametrize(
    "row", [row for row in rows() if row[1] == "command" and row[2] == "superseded"], ids=lambda row: row[0][:50]
)
def test_what_replaces_a_command_runs(row, shell: Shell):
    for replacement in re.findall(r"`([^`]+)`", row[3]):
        if replacement.split()[0] in {"helm", "kubectl", "aws"} and "…" not in replacement:
            done = shell.run(replacement)
            assert done.returncode == 0, done.stderr


def test_every_helm_key_that_works_is_a_value():
    values = full({})
    for key, kind, state, _ in rows():
        if kind == "Helm key" and state == "works":
            here = values
            for part in key.split("."):
                assert part in here, key
                here = here[part]


def test_every_path_that_works_is_there():
    for path, kind, state, _ in rows():
        if kind == "path" and state == "works" and "/" in path and not path.startswith("/"):
            assert (ROOT / path).exists(), path


def test_the_guides_names_hosts_and_images_are_in_the_render():
    engine = Engine.shared()
    over = GUIDE_VALUES + GUIDE_OVERRIDES
    sets = [f"sync{name}.image=sync{name}:v1.0.0" for name in ("shield", "engage", "value", "flow")]
    found = engine.objects(layers("prod", *sets, over=over))
    text = yaml.safe_dump_all(found) + yaml.safe_dump_all(
        engine.objects(layers("staging", "syncshield.image=syncshield:v1.1.0"))
    )
    pages = "".join(page.read_text() for page in PAGES)
    for name, kind, state, _ in rows():
        if (
            kind in {"name", "host", "image", "secret", "address"}
            and state == "works"
            and name not in {"localhost:6379", "redis:6379", "localhost:50051"}
        ):
            assert all(part in text or part in pages or part.lower() in text.lower() for part in name.split(", ")), name
