"""What must hold between the objects of a render: nothing leads nowhere, nothing stands open, nothing blocks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from kiki.chart.pods import pods_of, quantity
from kiki.chart.reach import Place, lets, open_peers

SERVICE_PORTS = {
    "syncshield": {"http": 80, "native": 8081, "public": 9081},
    "syncvalue": {"grpc": 50051, "http": 9051},
    "syncflow": {"http": 80, "native": 8082, "grpc": 50052},
    "syncengage": {"http": 80, "native": 8083, "public": 9083},
    "redis": {"redis": 6379},
    "postgres": {"postgres": 5432},
    "otel-collector": {"otlp-grpc": 4317, "otlp-http": 4318, "own-metrics": 8888, "metrics": 8889},
    "jaeger-query": {"query": 16686, "otlp-grpc": 4317},
    "syncflow-runners": {"http": 8082},
}


def references(found: list[dict[str, Any]]) -> Iterator[str]:
    configs = {one["metadata"]["name"] for one in found if one["kind"] == "ConfigMap"}
    claims = {one["metadata"]["name"] for one in found if one["kind"] == "PersistentVolumeClaim"}
    for one in found:
        if (
            one["kind"] == "ConfigMap"
            and not one["metadata"]["name"].startswith("kiki-dashboard-")
            and one.get("immutable") is not True
        ):
            yield f"ConfigMap/{one['metadata']['name']}: may be changed under a running pod"
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("kiki-config-") and one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") != "keep":  # fmt: skip
            yield f"ConfigMap/{one['metadata']['name']}: is gone when a pod of the revision before starts again"
    for pod in pods_of(found):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        (owner,) = [one for one in found if f"{one['kind']}/{one['metadata']['name']}" == pod.owner]
        claimed = {template["metadata"]["name"] for template in owner["spec"].get("volumeClaimTemplates", [])}
        for volume in volumes.values():
            if "configMap" in volume and volume["configMap"]["name"] not in configs:
                yield f"{pod.owner}: mounts a ConfigMap that is not there"
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and volume["name"] != "model" and claim not in claims:
                yield f"{pod.owner}: mounts the claim {claim}, which is not there"
        for container in pod.containers:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes and mount["name"] not in claimed:
                    yield f"{pod.owner}: mounts {mount['name']}, which is no volume of it"
            for source in container.get("envFrom", []):
                if "configMapRef" in source and source["configMapRef"]["name"] not in configs:
                    yield f"{pod.owner}: reads a ConfigMap that is not there"


def services(found: list[dict[str, Any]]) -> Iterator[str]:
    pods = {pod.labels.get("app"): pod for pod in pods_of(found)}
    for one in found:
        if one["kind"] != "Service":
            continue
        name, spec = one["metadata"]["name"], one["spec"]
        if name.startswith("kiki"):
            yield f"Service/{name}: its links would be settings of kiki"
        if spec.get("type", "ClusterIP") != "ClusterIP":
            yield f"Service/{name}: is open to the outside"
        pod = pods.get(spec["selector"].get("app"))
        if pod is None or len(spec["selector"]) != 1:
            yield f"Service/{name}: leads to no pod"
            continue
        listening = {port["name"] for container in pod.containers for port in container["ports"]}
        for port in spec["ports"]:
            if port["targetPort"] != {"native": "http"}.get(port["name"], port["name"]):
                yield f"Service/{name}: {port['name']} leads to {port['targetPort']}"
            if port["targetPort"] not in listening:
                yield f"Service/{name}: leads to the port {port['targetPort']}, which nobody has"
        wanted, given = SERVICE_PORTS.get(name), {port["name"]: port["port"] for port in spec["ports"]}
        if (
            wanted is None
            or set(wanted) - set(given) - {"public"}
            or any(wanted.get(key) != number for key, number in given.items())
        ):
            yield f"Service/{name}: has the ports {given}, not {wanted}"


def network(found: list[dict[str, Any]]) -> Iterator[str]:
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]
    yield from open_peers(policies)
    denying = [
        one for one in policies
        if one["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ]  # fmt: skip
    if policies and not denying:
        yield "nothing is denied by default"
    for one in policies:
        name, selector = one["metadata"]["name"], one["spec"]["podSelector"]
        if one not in denying and selects_all(selector):
            yield f"NetworkPolicy/{name}: is meant for some pods and selects all"
        for key, peers in (("ingress", "from"), ("egress", "to")):
            for rule in one["spec"].get(key, []):
                if not all("port" in port for port in rule.get("ports", [])):
                    yield f"NetworkPolicy/{name}: {key} opens every port"
                named = [
                    peer.get(which) for peer in rule.get(peers, []) for which in ("podSelector", "namespaceSelector")
                ]
                if not all(rule.get(peers, [])) or any(each is not None and selects_all(each) for each in named):
                    yield f"NetworkPolicy/{name}: {key} names a peer that is everybody"
    pods = {pod.labels["app"]: pod for pod in pods_of(found)} if policies else {}
    for (source, start), (target, end) in itertools.permutations(pods.items(), 2):
        a, b = (Place(pod_namespace(found), pod.labels) for pod in (start, end))
        for container in end.containers:
            for port in container.get("ports", []):
                number = port["containerPort"]
                if lets(policies, a, b, "Egress", number, "TCP") != lets(policies, b, a, "Ingress", number, "TCP"):
                    yield f"{source} -> {target}: {number} is let through at one end only"


def selects_all(selector: dict[str, Any]) -> bool:
    """Whether a selector that is there says nothing."""
    return not (selector.get("matchLabels") or selector.get("matchExpressions"))


def pod_namespace(found: list[dict[str, Any]]) -> str:
    """The namespace of the release."""
    return str(next(one["metadata"]["namespace"] for one in found if one["kind"] == "NetworkPolicy"))


def ingress(found: list[dict[str, Any]]) -> Iterator[str]:
    offered = {
        one["metadata"]["name"]: {port["name"]: port["port"] for port in one["spec"]["ports"]}
        for one in found
        if one["kind"] == "Service"
    }
    for one in found:
        if one["kind"] == "Ingress":
            annotations = one["metadata"].get("annotations", {})
            if not one["spec"].get("ingressClassName") or "kubernetes.io/ingress.class" in annotations:
                yield "Ingress: the class belongs in ingressClassName"
            if any("snippet" in key for key in annotations):
                yield "Ingress: snippets are refused by the controller's webhook"
            if (
                one["spec"]["ingressClassName"] == "nginx"
                and annotations.get("nginx.ingress.kubernetes.io/force-ssl-redirect") != "true"
            ):
                yield "Ingress: plain HTTP is answered"
            covered = {host for part in one["spec"].get("tls", []) for host in part["hosts"]}
            for rule in one["spec"]["rules"]:
                if rule["host"] not in covered:
                    yield f"Ingress: {rule['host']} has no certificate"
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    if backend["port"] != {"name": "public"} or "public" not in offered.get(backend["name"], {}):
                        yield f"Ingress: {rule['host']} leads past the tokens"
        if one["kind"] == "HTTPRoute":
            for rule in one["spec"]["rules"]:
                for backend in rule["backendRefs"]:
                    if offered.get(backend["name"], {}).get("public") != backend["port"]:
                        yield f"HTTPRoute/{one['metadata']['name']}: leads past the tokens"
            if not all(parent.get("sectionName") for parent in one["spec"]["parentRefs"]):
                yield f"HTTPRoute/{one['metadata']['name']}: any listener of the gateway would do, one without TLS too"


SECRET_WORD = re.compile(r"PASSWORD|SECRET|TOKEN$|API_KEY|MASTER_KEY$|CREDENTIAL")


def secrets(found: list[dict[str, Any]]) -> Iterator[str]:
    for one in found:
        if one["kind"] == "ConfigMap":
            yield from (f"ConfigMap: {key} stands in clear" for key in one.get("data", {}) if SECRET_WORD.search(key))
        if one["kind"] == "ExternalSecret":
            if one["spec"]["target"].get("deletionPolicy") != "Retain":
                yield f"ExternalSecret/{one['metadata']['name']}: a secret that is lost there is deleted here"
            stores = {each["metadata"]["name"] for each in found if each["kind"] == "SecretStore"}
            if one["spec"]["secretStoreRef"]["name"] not in stores:
                yield f"ExternalSecret/{one['metadata']['name']}: has no store"
    for pod in pods_of(found):
        for container in pod.containers:
            for entry in container.get("env", []):
                if SECRET_WORD.search(entry["name"]) and "value" in entry:
                    yield f"{pod.owner}: {entry['name']} stands in clear"
    for one in found:
        if one["kind"] == "ServiceAccount" and one.get("automountServiceAccountToken") is not False:
            yield "ServiceAccount: its token is mounted everywhere"


def budgets(found: list[dict[str, Any]]) -> Iterator[str]:
    least = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicas"]
        for one in found
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    least |= {
        one["metadata"]["name"]: one["spec"]["replicas"]
        for one in found
        if one["kind"] in {"Deployment", "StatefulSet"} and "replicas" in one["spec"]
    }
    for one in found:
        if one["kind"] == "PodDisruptionBudget":
            name, spec = one["spec"]["selector"]["matchLabels"]["app"], one["spec"]
            if spec.get("minAvailable", 0) >= least[name] or spec.get("maxUnavailable", 1) < 1:
                yield f"PodDisruptionBudget/{name}: blocks every drain for ever"
            if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
                yield f"PodDisruptionBudget/{name}: a broken pod keeps its node"
            if ("minAvailable" in spec) == ("maxUnavailable" in spec):
                yield f"PodDisruptionBudget/{name}: says nothing, or two things"


def scaling(found: list[dict[str, Any]]) -> Iterator[str]:
    deployments = {one["metadata"]["name"]: one for one in found if one["kind"] == "Deployment"}
    for one in found:
        if one["kind"] != "HorizontalPodAutoscaler":
            continue
        spec, name = one["spec"], one["metadata"]["name"]
        target = deployments.get(spec["scaleTargetRef"]["name"])
        if (
            target is None
            or spec["scaleTargetRef"].get("kind") != "Deployment"
            or name != f"{spec['scaleTargetRef']['name']}-hpa"
        ):
            yield f"{name}: scales nothing"
            continue
        if not 1 <= spec["minReplicas"] <= spec["maxReplicas"]:
            yield f"{name}: from {spec['minReplicas']} to {spec['maxReplicas']}"
        requests = target["spec"]["template"]["spec"]["containers"][0]["resources"].get("requests", {})
        for metric in spec["metrics"]:
            if metric["type"] == "Resource" and not quantity(requests.get(metric["resource"]["name"], "0")):
                yield f"{name}: measures against a request that is not there"
        if not any(metric["type"] == "Resource" and metric["resource"]["name"] == "cpu" for metric in spec["metrics"]):
            yield f"{name}: does not look at the CPU"
        down, up = (
            spec.get("behavior", {}).get(which, {}).get("stabilizationWindowSeconds", 0)
            for which in ("scaleDown", "scaleUp")
        )
        if down < 120 or up > 60:
            yield f"{name}: scales down quickly and up slowly"
