"""Stands in for helm, kubectl and the clouds' programs: takes only what the real one would find, and runs what it can.

`python stub.py NAME arguments…`, with a file of facts in STUB_FACTS: the names that the chart renders, the address of a
running SyncShield, and a data directory that stands for the pod's. An argument that leads nowhere ends with 1 and words.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

FACTS: dict[str, Any] = json.loads(Path(os.environ["STUB_FACTS"]).read_text()) if "STUB_FACTS" in os.environ else {}
FOREIGN = {("external-secrets-system", "deployment/external-secrets")}
KINDS = {
    "pods",
    "svc",
    "ing",
    "events",
    "pdb",
    "hpa",
    "configmap",
    "networkpolicy",
    "externalsecret",
    "certificate",
    "secret",
    "ns",
}
CLOUD = {
    "eksctl": {"utils associate-iam-oidc-provider", "create iamserviceaccount"},
    "aws": {
        "iam create-policy", "secretsmanager create-secret", "s3api create-bucket", "s3api put-object-lock-configuration",
        "rds modify-db-instance", "elasticache modify-replication-group", "iam get-policy-version", "s3api get-object-lock-configuration",
    },
    "az": {
        "identity create", "identity federated-credential create", "role assignment create", "role assignment list", "keyvault secret set",
        "storage container create", "storage container immutability-policy create", "storage container immutability-policy show",
    },
    "gcloud": {
        "iam service-accounts create", "iam service-accounts add-iam-policy-binding", "projects add-iam-policy-binding",
        "projects get-iam-policy", "storage buckets create", "storage buckets add-iam-policy-binding", "storage buckets describe", "secrets create",
    },
    "gh": {"workflow view"},
    "git": {"tag", "push origin"},
}  # fmt: skip


def fail(words: str) -> NoReturn:
    """End as the real program would when something is not there."""
    print(f"{sys.argv[1:]}: {words}", file=sys.stderr)
    sys.exit(1)


def take(arguments: list[str], *names: str) -> str | None:
    """An option's value, taken out of the arguments."""
    for index, word in enumerate(arguments):
        for name in names:
            if word == name and index + 1 < len(arguments):
                value = arguments[index + 1]
                del arguments[index : index + 2]
                return value
            if word.startswith(f"{name}=") and name.startswith("--"):
                del arguments[index]
                return word.partition("=")[2]
    return None


def object_of(namespace: str, word: str) -> str:
    """`kind/name` of something that the chart renders, or that an operator brings."""
    if (namespace, word) in FOREIGN:
        return word
    if namespace != "kiki" or word not in FACTS["objects"]:
        fail(f"{word} is not in the namespace {namespace}: there are {FACTS['objects']}")
    return word


def helm(arguments: list[str]) -> None:
    """Installing kiki reads the values as Helm would; the operators' charts are named, no more."""
    from kiki.chart.layers import read_layers

    verb = arguments.pop(0)
    namespace = take(arguments, "--namespace", "-n")
    if verb == "repo":
        if arguments[0] != "add" or not arguments[2].startswith("https://"):
            fail("no such repository")
    elif verb == "install":
        known = {
            "external-secrets/external-secrets": set(),
            "jetstack/cert-manager": {"crds.enabled=true", "installCRDs=true"},
        }
        if arguments[1] not in known or namespace is None:
            fail(f"no chart {arguments[1]}")
        setting = take(arguments, "--set")
        if setting is not None and setting not in known[arguments[1]]:
            fail(f"{setting} is no value of {arguments[1]}")
    elif verb == "upgrade":
        sets, files = [], []
        while (value := take(arguments, "--set")) is not None:
            sets.append(value)
        while (value := take(arguments, "-f", "--values")) is not None:
            files.append(Path(value))
        take(arguments, "--timeout")
        rest = [word for word in arguments if word not in {"--install", "--create-namespace", "--wait", "--atomic"}]
        if len(rest) != 2 or rest[0] != "kiki" or namespace != "kiki" or not (Path(rest[1]) / "Chart.yaml").is_file():
            fail(f"cannot install {rest} into {namespace}")
        read_layers(None, files, sets)  # raises what the schema and the guards say
    elif verb in {"rollback", "test"}:
        if arguments[0] != "kiki" or namespace != "kiki":
            fail("no such release")
    else:
        fail(f"unknown verb {verb}")


def kubectl(arguments: list[str]) -> None:
    """Every name must be rendered; what runs in the pod runs in the directory that stands for its volume."""
    namespace = take(arguments, "-n", "--namespace") or "default"
    verb = arguments.pop(0)
    command: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
    selector = take(arguments, "-l")
    if selector and selector not in FACTS["labels"]:
        fail(f"no pod carries {selector}")
    rest = [word for word in arguments if not word.startswith("-")]
    if verb == "apply":
        import yaml  # here, so that the other verbs start quickly

        documents = [one for one in yaml.safe_load_all(sys.stdin.read()) if one]
        if not documents or not all({"apiVersion", "kind", "metadata"} <= one.keys() for one in documents):
            fail("nothing to apply")
    elif verb == "get":
        if rest[0] not in KINDS:
            fail(f"no kind {rest[0]}")
    elif verb == "create":
        _create(rest, arguments)
    elif verb == "label":
        if rest[:2] != ["namespace", "kiki"] or not all("pod-security.kubernetes.io/" in word for word in rest[2:]):
            fail("no such label of ours")
    elif verb == "describe":
        if not selector:
            object_of(namespace, "/".join(rest[:2]))
    elif verb == "logs":
        object_of(namespace, rest[0])
    elif verb == "rollout":
        object_of(namespace, rest[1])
    elif verb == "port-forward":
        service, ports = rest
        if ports.split(":")[1] not in FACTS["ports"].get(service, []):
            fail(f"{service} has no port {ports}")
    elif verb == "exec":
        object_of(namespace, rest[0])
        _inside(command)
    else:
        fail(f"unknown verb {verb}")


def _create(rest: list[str], arguments: list[str]) -> None:
    if rest[0] == "namespace" and "--dry-run=client" in arguments:
        print(f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {rest[1]}")
    elif rest[:2] == ["secret", "generic"]:
        for word in arguments:
            if word.startswith("--from-file=") and not Path(word.partition("=")[2]).read_text():
                fail(f"{word} is empty")
            if word.startswith("--from-literal=") and not word.split("=", 2)[2]:
                fail(f"{word} is empty")
    elif rest[0] != "namespace":
        fail(f"cannot create {rest}")


def _inside(command: list[str]) -> None:
    data = FACTS["data"]
    mapped = [word.replace("/var/audit-logs", data).replace("/tmp/backup", f"{data}-backup") for word in command]
    if mapped[0] == "python":
        mapped[0] = sys.executable
    elif mapped[0] not in {"cat", "grep"}:
        fail(f"{mapped[0]} is not in the image")
    sys.exit(subprocess.run(mapped, cwd=data, check=False).returncode)


def curl(arguments: list[str]) -> None:
    """The service's name stands for a running one; its port must be the Service's, or the one of a local process."""
    import httpx

    method, headers, body, url = "GET", {}, None, ""
    rest = list(arguments)
    while (value := take(rest, "-H")) is not None:
        name, _, text = value.partition(": ")
        headers[name] = text
    method = take(rest, "-X") or method
    body = take(rest, "-d")
    (url,) = [word for word in rest if not word.startswith("-")]
    found = re.fullmatch(r"http://(localhost|syncshield\.kiki\.svc\.cluster\.local)(?::(\d+))?(/.*)", url)
    if not found:
        fail(f"{url} leads nowhere")
    if found[1] != "localhost" and (found[2] or "80") not in FACTS["ports"]["svc/syncshield"]:
        fail(f"the Service has no port {found[2]}")
    asked = "shield"
    if found[1] == "localhost":
        # 8888 is a port-forward to the collector, whose figures any /metrics stands for here.
        local = {"8081": "shield", "8083": "engage", "8888": "shield"}
        if found[2] not in local or (found[2] == "8888" and found[3] != "/metrics"):
            fail(f"nobody listens at {url}")
        asked = local[found[2]]
    answer = httpx.request(method, FACTS[asked] + found[3], headers=headers, content=body, timeout=60)
    print(answer.text)
    if answer.status_code in {404, 405, 500, 503}:
        fail(f"{answer.status_code}: {answer.text}")


def cloud(program: str, arguments: list[str]) -> None:
    """A subcommand that there is, with files that are there and JSON that can be read."""
    words = []
    for word in arguments:
        if word.startswith("-"):
            break
        words.append(word)
    if not any(" ".join(words).startswith(known) for known in CLOUD[program]):
        fail(f"{program} has no {' '.join(words)}")
    for word in arguments:
        if "file://" in word:
            text = Path(word.partition("file://")[2]).read_text()
            if word.endswith(".json"):
                json.loads(text)
        if word.startswith("{"):
            json.loads(word)


def docker(arguments: list[str]) -> None:
    """Compose's services must be in the file at the top of the working copy."""
    import yaml

    compose = Path(FACTS["root"]) / "compose.yaml"
    services = yaml.safe_load(compose.read_text())["services"] if compose.is_file() else {}
    profile = take(arguments, "--profile")
    if profile is not None and not any(profile in service.get("profiles", []) for service in services.values()):
        fail(f"{compose} has no profile {profile}")
    named = [word for word in arguments if not word.startswith("-")][2:]
    if arguments[0] != "compose" or set(named) - set(services):
        fail(f"{compose} has no service {set(named) - set(services)}")


def main() -> None:
    """Be the program that the first argument names."""
    program, arguments = sys.argv[1], sys.argv[2:]
    known = {"helm": helm, "kubectl": kubectl, "curl": curl, "docker": docker}
    if program in known:
        known[program](arguments)
    else:
        cloud(program, arguments)


if __name__ == "__main__":
    main()
