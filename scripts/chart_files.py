"""Writes what is made from the chart and never by hand: its schema, its README and the manifests in k8s/.

    python scripts/chart_files.py            writes them
    python scripts/chart_files.py --check    exits with 1 and their names when one is not what it would write

The values' own file says what a key is for, in the comment above it; the rules below say what it may be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "kiki"
K8S = ROOT / "k8s"
ENVIRONMENTS = ("dev", "staging", "prod")

NAME = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
HOST = f"{NAME}(\\.{NAME})*"
IMAGE = (
    "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+/)?[a-z0-9._/-]*"
    "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
TAGGED = "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$"
CPU = "a CPU quantity, for example 250m or 1"
MEMORY = "a size, for example 512Mi or 1Gi"
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
NODE = f"([A-Za-z0-9_.-]+|\\[[0-9a-fA-F:.]+\\])(:{PORT})?"
DECIMAL = "^[0-9]{1,12}(\\.[0-9]{1,6})?$"


def text(pattern: str, accepted: str, **more: Any) -> dict[str, Any]:
    """A text of one form; `accepted` is what a person is told instead of the pattern."""
    return {"type": "string", "pattern": pattern, "x-accepted": accepted, **more}


def whole(low: int, high: int) -> dict[str, Any]:
    """An integer between two bounds."""
    return {"type": "integer", "minimum": low, "maximum": high}


def one_of(*words: str) -> dict[str, Any]:
    """One of a few words."""
    return {"type": "string", "enum": list(words)}


def listed(item: dict[str, Any]) -> dict[str, Any]:
    """A list of such items."""
    return {"type": "array", "items": item}


def closed(required: tuple[str, ...] | None = None, **properties: dict[str, Any]) -> dict[str, Any]:
    """An object of these keys and no others, all of them required unless told otherwise."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }


def decimal(accepted: str) -> dict[str, Any]:
    """An amount, as a number or in quotes; never as an exponent."""
    return {"type": ["string", "number"], "pattern": DECIMAL, "minimum": 0, "x-accepted": accepted}


DNS_NAME = text(f"^{NAME}$", "a name of lower-case letters, digits and dashes")
DNS_OR_EMPTY = text(f"^({HOST})?$", "a name, or nothing")
HOST_TEXT = text(f"^{HOST}$", "a host name, for example shield.kiki.io")
CIDR = text(
    f"^({OCTET}([.]{OCTET}){{3}}/(3[0-2]|[12]?[0-9])|[0-9a-fA-F]{{0,4}}(:[0-9a-fA-F]{{0,4}}){{2,7}}/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$",
    "an address range, for example 10.0.0.0/8",
)
DURATION = text("^([0-9]+(ms|s|m|h))+$", "a duration, for example 30s or 1h")
LABEL = "^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
LABELS = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "propertyNames": {
        "pattern": LABEL,
        "x-accepted": "a label's name",
    },
}

# Selectors and policies go by the chart's own labels: a second one of the same name takes the pod away from both.
POD_LABELS = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "propertyNames": {
        "pattern": LABEL,
        "not": {"pattern": "^(app|app[.]kubernetes[.]io/(name|instance|part-of))$"},
        "x-accepted": "a label's name that the chart does not write itself",
    },
}

# The first rule whose pattern fits a key's path decides; a key without one is what its default is: text, true or false.
RULES: dict[str, dict[str, Any]] = {
    "*.image": text(
        TAGGED,
        "name:tag or name@sha256:digest, for example syncshield:v1.0.0; the tag latest means something else every day",
        allOf=[{"pattern": IMAGE}],
        **{"not": {"pattern": ":latest$"}},
    ),
    "global.imageRegistry": text(
        "^([a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*/?)?$", "a registry, for example ghcr.io/your-org/kiki"
    ),
    "global.imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
    "global.imagePullSecrets": listed(closed(name=DNS_NAME)),
    "global.namespace": text(f"^({NAME})?$", "a namespace, or nothing"),
    "global.domain.*": HOST_TEXT,
    "global.ingressClass": text(f"^{HOST}$", "the name of an IngressClass"),
    "global.tlsSecretName": text(f"^{HOST}$", "the name of a Secret"),
    "global.logLevel": one_of("debug", "info", "warning", "error"),
    "redis.address": text(
        f"^(((redis|rediss|redis[+]cluster)://)?{NODE}(,{NODE})*(/[0-9]{{1,4}})?)?$",
        "host:port, redis://…, rediss://… or redis+cluster://…, without a password: that is REDIS_PASSWORD in redis.passwordSecret",
    ),
    "redis.replicaCount": whole(0, 1),
    "postgres.host": text(f"^({HOST}|[0-9.]+)?$", "a host name or an address, or nothing"),
    "postgres.port": whole(1, 65535),
    "postgres.database": text("^[A-Za-z_][A-Za-z0-9_$-]{0,62}$", "the name of a database"),
    "postgres.user": text("^[A-Za-z_][A-Za-z0-9_$-]{0,62}$", "the name of a user"),
    "*.passwordSecret": DNS_OR_EMPTY,
    "*.replicaCount": whole(1, 100),
    "*.resources.*.cpu": {
        "type": ["string", "number"],
        "pattern": "^([1-9][0-9]*m|[0-9]+(\\.[0-9]{1,3})?)$",
        "x-accepted": CPU,
    },
    "*.resources.*.memory": {
        "type": ["string", "integer"],
        "pattern": "^[1-9][0-9]*(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$",
        "x-accepted": MEMORY,
    },
    "*.storage.size": text("^[1-9][0-9]*(\\.[0-9]+)?(Mi|Gi|Ti|M|G|T)$", MEMORY),
    "*.storage.storageClass": DNS_OR_EMPTY,
    "*.autoscaling.minReplicas": whole(1, 100),
    "*.autoscaling.maxReplicas": whole(1, 100),
    "*.autoscaling.targetCPUUtilizationPercentage": whole(1, 100),
    "*.autoscaling.targetMemoryUtilizationPercentage": whole(0, 100),
    "*.autoscaling.customMetrics": listed(
        closed(
            name=text("^[a-zA-Z_:][a-zA-Z0-9_:]*$", "the name of a metric"),
            averageValue={
                "type": ["string", "number"],
                "pattern": "^[0-9]+(\\.[0-9]+)?m?$",
                "x-accepted": "a quantity",
            },
        )
    ),
    "pdb.minAvailable": whole(0, 99),
    "*.pdb.minAvailable": whole(0, 99),
    "syncshield.maxBurstBudget": decimal("an amount, for example 500.0"),
    "syncshield.windowSeconds": decimal("seconds, for example 60 or 3600.0"),
    "syncshield.policy": {"type": "string"},
    "syncvalue.model.existingClaim": DNS_OR_EMPTY,
    "syncvalue.model.file": text("^[A-Za-z0-9][A-Za-z0-9_.-]*$", "a file's name without a directory"),
    "*.podLabels": POD_LABELS,
    "*.podAnnotations": LABELS,
    "*.nodeSelector": LABELS,
    "*.labels": LABELS,
    "*.annotations": LABELS,
    "*.extraArgs": listed({"type": "string"}),
    "syncengage.mailFrom": text("^([^@ ]+@[^@ ]+)?$", "an address of mail, or nothing"),
    "syncengage.smsFrom": text(
        "^([+][0-9]{6,15}|MG[0-9a-zA-Z]{10,40})?$", "a number as +15551234567, a messaging service MG…, or nothing"
    ),
    "syncengage.crm.provider": one_of("", "shopify", "hubspot", "salesforce"),
    "syncengage.crm.url": text(
        "^((https://)?[a-z0-9.-]+[.][a-z]{2,}/?)?$", "a host name or an https:// URL, or nothing"
    ),
    "syncengage.playbooks": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "propertyNames": {
            "pattern": "^[a-z0-9][a-z0-9_.-]*[.]yaml$",
            "x-accepted": "the name of a file, for example winback.yaml",
        },
    },
    "*.extraSecrets": listed(DNS_NAME),
    "*.extraEnv": {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "propertyNames": {
            "pattern": "^[A-Z][A-Z0-9_]*$",
            "not": {"pattern": "(PASSWORD|TOKEN|SECRET|API_KEY|MASTER_KEY|DATABASE_URL)$"},
            "x-accepted": "the name of a setting that holds no secret; secrets come from Secrets",
        },
    },
    "*.priorityClassName": DNS_OR_EMPTY,
    "*.tolerations": listed(
        closed(
            (),
            key={"type": "string"},
            operator=one_of("Exists", "Equal"),
            value={"type": "string"},
            effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
            tolerationSeconds=whole(0, 10**6),
        )
    ),
    "audit.shipTo": text(
        "^((s3|gs|az)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?)?$",
        "s3://bucket/, gs://bucket/ or az://container/",
    ),
    "audit.retentionDays": whole(1, 36500),
    "keys.existingSecret": DNS_OR_EMPTY,
    "externalSecrets.provider": one_of("aws", "azure", "gcp"),
    "externalSecrets.region": text("^([a-z]{2,}(-[a-z]+)+-[0-9])?$", "a region, for example us-east-1"),
    "externalSecrets.refreshInterval": DURATION,
    "externalSecrets.prefix": text(
        "^[A-Za-z0-9]+([/-][A-Za-z0-9]+)*$", "words divided by slashes or dashes, for example kiki/prod"
    ),
    "externalSecrets.azure.vaultUrl": text("^(https://[a-z0-9.-]+/?)?$", "the URL of a key vault"),
    "externalSecrets.azure.tenantId": text("^([0-9a-fA-F-]{36})?$", "the tenant's id"),
    "serviceAccount.name": DNS_NAME,
    "networkPolicy.ingressNamespaces": listed(DNS_NAME) | {"minItems": 1},
    "networkPolicy.monitoringNamespaces": listed(DNS_NAME),
    "networkPolicy.dnsCIDRs": listed(CIDR),
    "networkPolicy.databaseCIDRs": listed(CIDR) | {"minItems": 1},
    "networkPolicy.httpsCIDRs": listed(
        CIDR
        | {
            "not": {"pattern": "^(169[.]254[.]|[fF][eE][89abAB])"},
            "x-accepted": "an address range, for example 0.0.0.0/0; link-local addresses, the metadata server's among them, are never called",
        }
    )
    | {"minItems": 1},
    "*.samplingRate": {"type": "number", "minimum": 0, "maximum": 1},
    "otel.collector.endpoint": text(
        f"^((https?://)?[A-Za-z0-9.-]+:{PORT}/?)?$", "host:port, http://host:port or https://host:port"
    ),
    "ingress.issuer": DNS_OR_EMPTY,
    "ingress.hosts": listed(closed(host=HOST_TEXT, service=one_of("syncshield", "syncengage"))),
    "ingress.tls": listed(closed(secretName=DNS_NAME, hosts=listed(HOST_TEXT) | {"minItems": 1})),
    "ingress.rateLimitRps": whole(0, 10**6),
    "ingress.burstMultiplier": whole(1, 100),
    "ingress.bodyMegabytes": whole(1, 100),
    "clusterIssuer.email": text("^[^@ ]+@[^@ ]+$", "an address of mail"),
    "clusterIssuer.server": text("^https://[^ ]+$", "an https:// URL"),
    "gateway.name": DNS_NAME,
    "gateway.namespace": text(f"^({NAME})?$", "a namespace, or nothing"),
    "gateway.sectionName": DNS_NAME,
    "spread.zone": one_of("ScheduleAnyway", "DoNotSchedule"),
    "spread.host": one_of("ScheduleAnyway", "DoNotSchedule"),
    "drain.preStopSeconds": whole(0, 60),
    "drain.seconds": whole(0, 600),
    "serviceMonitor.interval": DURATION,
}

SUPERSEDED = {
    "synccreate": "SyncCreate is no part of kiki; remove the block",
    "admin-api": "there is no separate admin API: the services' own /v1 has the role admin; remove the block",
    "adminApi": "there is no separate admin API: the services' own /v1 has the role admin; remove the block",
    "rest-api": "there is no separate REST API: every service has its own /v1; remove the block",
    "restApi": "there is no separate REST API: every service has its own /v1; remove the block",
    "web": "there is no web front end; remove the block",
    "syncflow.autoscaling": "runners hold leases, and their number is chosen: set syncflow.replicaCount",
}


def described(path: Path) -> dict[str, str]:
    """The comment above each key of a values file, by the key's path."""
    comments: dict[str, str] = {}
    waiting: list[str] = []
    stack: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        bare = line.strip()
        if not bare:
            waiting = []
        elif bare.startswith("#"):
            waiting.append(bare.lstrip("# "))
        elif ":" in bare and not bare.startswith("- "):
            depth = len(line) - len(line.lstrip())
            while stack and stack[-1][0] >= depth:
                stack.pop()
            stack.append((depth, bare.partition(":")[0]))
            if waiting:
                comments[".".join(key for _, key in stack)] = " ".join(waiting)
            waiting = []
    return comments


def leaves(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a block of further keys, by its path."""
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value and rule_of(here) is None:
            yield from leaves(value, here)
        else:
            yield here, value


def rule_of(path: str) -> dict[str, Any] | None:
    """The rule for a key, None when its default says enough."""
    return next((rule for pattern, rule in RULES.items() if fnmatchcase(path, pattern)), None)


def schema_of(value: Any, path: str, comments: dict[str, str]) -> dict[str, Any]:
    """The schema of one key and of everything below it."""
    about = {"description": comments[path]} if path in comments else {}
    if rule := rule_of(path):
        return about | rule
    if isinstance(value, dict):
        below = {key: schema_of(item, f"{path}.{key}" if path else key, comments) for key, item in value.items()}
        return about | {"type": "object", "properties": below, "additionalProperties": False}
    kinds = {bool: "boolean", str: "string"}
    return about | {"type": kinds[type(value)]}


def schema() -> str:
    """values.schema.json."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    comments = described(CHART / "values.yaml")
    head = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart kiki",
        "x-superseded": SUPERSEDED,
    }
    return json.dumps(head | schema_of(values, "", comments), indent=2, ensure_ascii=False) + "\n"


def readme() -> str:
    """The chart's README.md."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    comments = described(CHART / "values.yaml")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    lines = [
        "# The chart kiki",
        "",
        "<!-- Written by scripts/chart_files.py from values.yaml: edit the comments there. -->",
        "",
        f"{chart['description']} Kubernetes {chart['kubeVersion'].removesuffix('-0')}, Helm 3.14 or newer.",
        "How to install it is told in [docs/deploy](../../../docs/deploy/README.md).",
        "",
        "| profile | what it is for |",
        "|---|---|",
    ]
    for name in ENVIRONMENTS:
        first = (CHART / f"values-{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        lines.append(f"| `values-{name}.yaml` | {first.lstrip('# ')} |")
    lines += ["", "| key | default | what it does |", "|---|---|---|"]
    for path, value in leaves(values):
        shown = json.dumps(value, ensure_ascii=False)
        lines.append(f"| `{path}` | `{shown}` | {comments.get(path, '')} |")
    lines += ["", "Keys that earlier charts had and this one refuses:", "", "| key | instead |", "|---|---|"]
    lines += [f"| `{key}` | {why} |" for key, why in SUPERSEDED.items()]
    return "\n".join(lines) + "\n"


def manifests(environment: str) -> str:
    """k8s/ENVIRONMENT.yaml: what the chart renders for that profile."""
    from kiki.chart.engine import render
    from kiki.chart.layers import read_layers

    head = (
        f"# Rendered from deploy/helm/kiki with values-{environment}.yaml by scripts/chart_files.py, never by hand.\n"
        "# Yours: kiki helm render --env ENV -f overrides.yaml | kubectl apply -f -\n"
    )
    return head + render(read_layers(environment, [], []), namespace="kiki")


def wanted() -> dict[Path, str]:
    """Every file with what it should say."""
    files = {CHART / "values.schema.json": schema(), CHART / "README.md": readme()}
    for path, content in files.items():  # the manifests are rendered under this schema
        if not path.exists():
            path.write_text(content, encoding="utf-8")
    return files | {K8S / f"{name}.yaml": manifests(name) for name in ENVIRONMENTS}


def main() -> int:
    """Write them, or tell which are old."""
    check = "--check" in sys.argv[1:]
    if not check:
        (CHART / "values.schema.json").write_text(schema(), encoding="utf-8")
    old = []
    for path, content in wanted().items():
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        old.append(path)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if check and old:
        print("\n".join(f"{path.relative_to(ROOT)} is not what scripts/chart_files.py writes" for path in old))
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
