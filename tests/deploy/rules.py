"""What every render must hold, whatever the values are: one list of objections, empty when it is sound.

The tests ask it of the profiles and of odd values; bench/chart_mutants.py asks it of charts with one line spoilt.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate

from kiki.chart.pods import other_users, pods_of, unlimited, unrestricted, writable_roots
from kiki.errors import SettingsError
from kiki.settings import EngageSettings, FlowSettings, ShieldSettings, ValueSettings, parse_listen, unknown_names
from tests.deploy.crds import SPECS
from tests.deploy.object_rules import budgets, ingress, network, references, scaling, secrets, services

SERVICES = ("syncshield", "syncvalue", "syncflow", "syncengage")
PORTS = {  # as the services listen, see kiki/settings
    "syncshield": {"http": 8081, "public": 9081},
    "syncvalue": {"grpc": 50051, "http": 9051},
    "syncflow": {"http": 8082, "grpc": 50052},
    "syncengage": {"http": 8083, "public": 9083},
}


def objections(found: list[dict[str, Any]], *, minor: str = "1.29") -> list[str]:
    """Everything that is wrong with these objects."""
    wrong: list[str] = []
    for one in found:
        wrong += invalid(one, minor)
    pods = pods_of(found)
    for pod in pods:
        for rule in (unrestricted, writable_roots, other_users, unlimited):
            wrong += rule(pod)
        wrong += _pod(pod)
    for check in (_workloads, references, services, network, ingress, secrets, _environment, budgets, scaling):
        wrong += check(found)
    return wrong


def invalid(one: dict[str, Any], minor: str) -> tuple[str, ...]:
    """Where an object does not fit the strict schema of a Kubernetes minor, or the closed one of its CRD."""
    return _invalid(json.dumps(one), minor)


@functools.cache  # most objects are the same on every cloud
def _invalid(text: str, minor: str) -> tuple[str, ...]:
    one = json.loads(text)
    name = f"{one['kind']}/{one['metadata']['name']}"
    crd = SPECS.get((one["apiVersion"], one["kind"]))
    if crd is not None:
        return tuple(f"{name}: {error.message}" for error in jsonschema.Draft7Validator(crd).iter_errors(one["spec"]))
    try:
        kubernetes_validate.validate(one, minor, strict=True)
    except kubernetes_validate.ValidationError as error:
        return (f"{name} on {minor}: {error}",)
    except kubernetes_validate.SchemaNotFoundError:
        return (f"{name}: {minor} knows no {one['apiVersion']}",)
    return ()


def _pod(pod: Any) -> Iterator[str]:
    spec = pod.spec
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{pod.owner}: mounts a token of the service account"
    if spec.get("enableServiceLinks") is not False:
        yield f"{pod.owner}: gets KIKI_ variables from service links"
    own = spec.get("securityContext", {})
    if own.get("runAsNonRoot") is not True or own.get("runAsUser") != 10001:
        yield f"{pod.owner}: a container that says nothing would run as its image does"
    if own.get("fsGroup") != 10001:
        yield f"{pod.owner}: cannot write into its volumes"
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for volume in volumes.values():
        if len(volume) != 2:
            yield f"{pod.owner}: the volume {volume['name']} comes from nowhere"
        empty = volume.get("emptyDir")
        if empty is not None and ("sizeLimit" not in empty or empty.get("medium")):
            yield f"{pod.owner}: the volume {volume['name']} has no limit, or lies in memory"
        if "secret" in volume and volume["secret"].get("defaultMode") != 0o440:
            yield f"{pod.owner}: the secret files of {volume['name']} are readable by others"
    main = spec["containers"][0]
    if pod.owner.startswith(("Deployment/", "StatefulSet/")) and main["name"] != pod.owner.partition("/")[2]:
        yield f"{pod.owner}: the main container does not come first"
    for container in pod.containers:
        where = f"{pod.owner}/{container['name']}"
        if re.search(r":latest$", container["image"]) or not re.search(r":[\w.-]+$|@sha256:", container["image"]):
            yield f"{where}: the image {container['image']} has no fixed tag"
        names = [port["name"] for port in container.get("ports", [])]
        numbers = [port["containerPort"] for port in container.get("ports", [])]
        if len(set(names)) < len(names) or len(set(numbers)) < len(numbers):
            yield f"{where}: a port comes twice"
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if len(set(mounts)) < len(mounts):
            yield f"{where}: a mount path comes twice"
        environ = [entry["name"] for entry in container.get("env", [])]
        if len(set(environ)) < len(environ):
            yield f"{where}: a variable comes twice"
        if pod.owner.startswith("Pod/"):
            continue
        for probe in ("livenessProbe", "readinessProbe"):
            if not container.get(probe, {}).keys() & {"httpGet", "tcpSocket", "grpc", "exec"}:
                yield f"{where}: no {probe}"
        named = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            how = container.get(probe, {})
            port = (how.get("httpGet") or how.get("tcpSocket") or {}).get("port")
            if isinstance(port, str) and port not in named:
                yield f"{where}: {probe} asks the port {port}, which it has not"
        if container["name"] in SERVICES:
            yield from _own_container(pod, container, named)


def _own_container(pod: Any, container: dict[str, Any], named: dict[str, int]) -> Iterator[str]:
    name = container["name"]
    where = f"{pod.owner}/{name}"
    wanted = PORTS[name]
    if (
        any(named.get(key, number) != number for key, number in wanted.items())
        or "http" not in named
        or set(named) - set(wanted)
    ):
        yield f"{where}: listens on {named}, the service on {wanted}"
    if container["command"] != ["kiki", "serve", name.removeprefix("sync")]:
        yield f"{where}: runs {container['command']}"
    if container.get("startupProbe", {}).get("httpGet", {}).get("path") != "/livez":
        yield f"{where}: no startup probe on /livez"
    if container["livenessProbe"].get("httpGet", {}).get("path") != "/livez":
        yield f"{where}: liveness is not /livez"
    start = container["startupProbe"]
    if start.get("failureThreshold", 3) * start.get("periodSeconds", 10) < 60:
        yield f"{where}: a start of a minute is not waited for"
    ready = container["readinessProbe"]
    if name != "syncvalue" and ready.get("httpGet", {}).get("path") != "/readyz":
        yield f"{where}: readiness is not /readyz"
    claims = [
        volume for volume in pod.spec["volumes"] if volume["name"] == "model" and "persistentVolumeClaim" in volume
    ]
    if name == "syncvalue" and claims and ready.get("grpc", {}).get("port") != 50051:
        yield f"{where}: readiness is not gRPC's own health"
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    if pause < 1:
        yield f"{where}: goes before everybody has learnt that it does"
    if name in {"syncshield", "syncengage", "syncflow"}:
        (given,) = [volume for volume in pod.spec["volumes"] if volume["name"] == "keys"]
        files = {item["key"] for item in given.get("secret", {}).get("items", [])}
        own = set() if name == "syncshield" else {"kiki_shield_token"}
        if not given.get("secret", {}).get("secretName") or files != {"kiki_master_key", "kiki_tokens"} | own:
            yield f"{where}: is given {sorted(files)}, which are not its keys"
        keys = [mount for mount in container["volumeMounts"] if mount["name"] == "keys"]
        if not keys or not keys[0].get("readOnly"):
            yield f"{where}: the keys are not mounted read-only"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    if mounts.get("tmp") != "/tmp":
        yield f"{where}: /tmp is not writable"
    home = {
        "syncshield": ("audit-logs", "/var/audit-logs"),
        "syncflow": ("data", "/var/lib/kiki"),
        "syncengage": ("data", "/var/lib/kiki"),
    }
    if name in home:
        volume, path = home[name]
        if mounts.get(volume) != path or container["workingDir"] != path:
            yield f"{where}: `cat shield_audit_gdpr.csv` finds nothing: it works in {container['workingDir']}"


def _workloads(found: list[dict[str, Any]]) -> Iterator[str]:
    database = any(one["kind"] == "ConfigMap" and "DB_HOST" in one["data"] for one in found)
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in found if one["kind"] == "HorizontalPodAutoscaler"}
    for one in found:
        if one["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        name, spec = one["metadata"]["name"], one["spec"]
        where = f"{one['kind']}/{name}"
        if spec["selector"] != {"matchLabels": {"app": name}}:
            yield f"{where}: the selector is not app alone, and cannot be changed later"
        if spec["template"]["metadata"]["labels"].get("app") != name:
            yield f"{where}: the pods do not carry the selector's label"
        if spec["template"]["metadata"]["labels"].get("app.kubernetes.io/part-of") != "kiki":
            yield f"{where}: the pods are not told apart from others'"
        if (name in scaled) == ("replicas" in spec):
            yield f"{where}: replicas are {'' if 'replicas' in spec else 'not '}given, and {'' if name in scaled else 'not '}ruled"
        if name not in SERVICES:
            continue
        if "checksum/config" not in spec["template"]["metadata"]["annotations"]:
            yield f"{where}: a changed setting restarts nothing"
        if spec.get("minReadySeconds", 0) < 1:
            yield f"{where}: a pod counts as available at once"
        environ = _environ(found, name)
        pause = int(spec["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        drain = float(environ.get("KIKI_DRAIN_SECONDS", 10))
        if spec["template"]["spec"].get("terminationGracePeriodSeconds", 30) < pause + drain + 10:
            yield f"{where}: is killed before it has drained"
        if one["kind"] == "Deployment":
            alone = name in {"syncshield", "syncengage"} and not database
            strategy = spec["strategy"]
            if alone and (strategy["type"] != "Recreate" or spec.get("replicas", 2) != 1):
                yield f"{where}: two pods would want one claim"
            if not alone and strategy.get("rollingUpdate") != {"maxUnavailable": 0, "maxSurge": 1}:
                yield f"{where}: an update takes a pod away before its successor is ready"
            if spec.get("progressDeadlineSeconds", 600) > 600:
                yield f"{where}: a stuck update is noticed late"
        constraints = spec["template"]["spec"].get("topologySpreadConstraints", [])
        if any(each["labelSelector"] != {"matchLabels": {"app": name}} for each in constraints):
            yield f"{where}: spreads other pods than its own"
        if constraints and {each["topologyKey"] for each in constraints} != {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }:
            yield f"{where}: is not spread over zones and nodes"
    kinds = {one["metadata"]["name"]: one["kind"] for one in found if one["kind"] in {"Deployment", "StatefulSet"}}
    if kinds.get("syncflow", "StatefulSet") != "StatefulSet":
        yield "syncflow: a runner's name must outlive its pod"
    for one in found:
        if (
            one["kind"] == "PersistentVolumeClaim"
            and one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") != "keep"
        ):
            yield f"PersistentVolumeClaim/{one['metadata']['name']}: uninstalling deletes it"
        if one["kind"] == "StatefulSet" and one["metadata"]["name"] == "syncflow" and one["spec"].get("persistentVolumeClaimRetentionPolicy") != {"whenDeleted": "Retain", "whenScaled": "Retain"}:  # fmt: skip
            yield "StatefulSet/syncflow: scaling down deletes what a runner knows"
    if any(one["kind"] in {"Namespace", "Secret", "PodSecurityPolicy"} for one in found):
        yield "the render holds an object that is not the chart's to own"


def _environ(found: list[dict[str, Any]], service: str) -> dict[str, str]:
    """The variables of a service's container, as far as the render knows them."""
    (pod,) = [
        pod
        for pod in pods_of(found)
        if pod.owner.endswith(f"/{service}") and pod.owner.startswith(("Deployment", "Stateful"))
    ]
    container = pod.spec["containers"][0]
    environ: dict[str, str] = {}
    for source in container.get("envFrom", []):
        for one in found:
            if one["kind"] == "ConfigMap" and one["metadata"]["name"] == source.get("configMapRef", {}).get("name"):
                environ |= one["data"]
    for entry in container.get("env", []):
        value = entry.get("value")
        if value is None:
            value = "a-password" if "secretKeyRef" in entry["valueFrom"] else f"{service}-0"
        environ[entry["name"]] = value.replace("$(POD_NAME)", f"{service}-0")
    return environ


def environ_of(found: list[dict[str, Any]], service: str) -> dict[str, str]:
    """The same, for tests that start the service."""
    return _environ(found, service)


def _environment(found: list[dict[str, Any]]) -> Iterator[str]:
    """Each service must be able to start with what it is told."""
    present = {one["metadata"]["name"] for one in found if one["kind"] in {"Deployment", "StatefulSet"}}
    for name, parse in (
        ("syncshield", ShieldSettings.parse),
        ("syncvalue", ValueSettings.parse),
        ("syncflow", FlowSettings.parse),
        ("syncengage", EngageSettings.parse),
    ):
        if name not in present:
            continue
        try:
            parse(_environ(found, name))
        except SettingsError as error:
            yield f"{name}: {error}"
    for name in present & set(SERVICES):
        environ = _environ(found, name)
        yield from (f"{name}: {problem}" for problem in unknown_names(environ))
        if environ.get("KIKI_HOST") != "0.0.0.0":  # read, not bound
            yield f"{name}: listens on the loopback, where no probe reaches it"
        number = environ.get("PORT") or environ.get("KIKI_VALUE_HTTP_PORT")
        if number != str(PORTS[name]["http"]):
            yield f"{name}: is told to listen on {number}"
        if name in {"syncshield", "syncengage", "syncflow"}:
            listen = parse_listen({key: value for key, value in environ.items() if key != "PORT"})
            if listen.tokens_file is None:
                yield f"{name}: asks nobody for a token"
            if listen.public_port not in {None, PORTS[name].get("public")}:
                yield f"{name}: the public port is {listen.public_port}"
        if name in {"syncengage", "syncflow"} and (environ.get("SHIELD_URL"), environ.get("LTV_GRPC_ADDR")) != ("http://syncshield:80/check", "syncvalue:50051"):  # fmt: skip
            yield f"{name}: does not find the services that it asks"
        if "OTEL_EXPORTER_OTLP_ENDPOINT" in environ:
            if (
                environ.get("OTEL_TRACES_SAMPLER") != "parentbased_traceidratio"
                or not 0 <= float(environ["OTEL_TRACES_SAMPLER_ARG"]) <= 1
            ):
                yield f"{name}: keeps every trace"
            if not environ["OTEL_EXPORTER_OTLP_ENDPOINT"].startswith(("http://", "https://")):
                yield f"{name}: the collector's address has no scheme"
        elif environ.get("OTEL_SDK_DISABLED") != "true":
            yield f"{name}: telemetry is neither on nor off"
    shield = _environ(found, "syncshield") if "syncshield" in present else {}
    if shield and int(shield.get("RETENTION_DAYS", 0)) < 1:
        yield "syncshield: keeps no evidence"
    if shield and not (shield.get("REDIS_ADDR") or shield.get("KIKI_REDIS") == "off"):
        yield "syncshield: falls back to a Redis on its own loopback"
