"""The ten lines of the guide's security checklist, each checked in what the chart renders. Pure.

What a render cannot show (a role in the cloud, a label of the namespace, a lock on a bucket) is said to be outside it,
with the command that shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from kiki.chart.pods import PodSpec, other_users, pods_of, unlimited, unrestricted, writable_roots
from kiki.chart.reach import Place, open_peers, passes
from kiki.chart.values import at

SEVEN_YEARS_DAYS: Final = 2555
State = Literal["pass", "fail", "outside the render"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: the guide's words, how it stands, where it fails or what shows that it holds, and a command for the rest."""

    check: str
    state: State
    where: tuple[str, ...]
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Render:
    """What is checked: the objects, the values they were rendered from, and the namespace."""

    objects: list[dict[str, Any]]
    values: Mapping[str, Any]
    namespace: str

    def kinds(self, *kinds: str) -> list[dict[str, Any]]:
        """The objects of these kinds."""
        return [one for one in self.objects if one["kind"] in kinds]

    @property
    def pods(self) -> list[PodSpec]:
        """Every pod."""
        return pods_of(self.objects)


def checklist(render: Render) -> list[Line]:
    """All ten lines, in the guide's order."""
    return [check(render) for check in _CHECKS]


def _line(check: str, wrong: Iterable[str], right: str, command: str | None = None, *, outside: bool = False) -> Line:
    found = tuple(wrong)
    if found:
        return Line(check, "fail", found, command)
    return Line(check, "outside the render" if outside else "pass", (right,), command)


def _network(render: Render) -> Line:
    policies = render.kinds("NetworkPolicy")
    return _line(
        "Network policies enforce pod-to-pod communication",
        [*open_peers(policies), *_reachable_by_strangers(render, policies)],
        f"{len(policies)} policies: nothing reaches a pod, and no pod reaches anything, that is not listed",
        f"kubectl -n {render.namespace} get networkpolicy",
    )


def _reachable_by_strangers(render: Render, policies: list[dict[str, Any]]) -> Iterator[str]:
    strangers = (Place(render.namespace, {"app": "stranger"}), Place("default", {"app": "stranger"}))
    for pod in render.pods:
        here = Place(render.namespace, pod.labels)
        ports = {port["containerPort"] for container in pod.containers for port in container.get("ports", [])}
        public = {
            port["containerPort"]
            for container in pod.containers
            for port in container.get("ports", [])
            if port.get("name") == "public"
        }
        allowed = public if at(render.values, "networkPolicy.allowExternal") else set()
        for port in sorted(ports - allowed):
            if any(passes(policies, stranger, here, port) for stranger in strangers):
                yield f"{pod.owner}: any pod reaches port {port}"
        if passes(policies, here, Place(address="203.0.113.7"), 25):
            yield f"{pod.owner}: reaches anything outside"


_IDENTITY: Final = {
    "aws": (
        "aws iam get-policy-version --policy-arn arn:aws:iam::ACCOUNT_ID:policy/kiki-sa-policy --version-id v1 "
        "--query PolicyVersion.Document   # the same as deploy/aws/kiki-policy.json"
    ),
    "azure": "az role assignment list --assignee CLIENT_ID --all --output table   # Key Vault Secrets User on this vault alone",
    "gcp": (
        "gcloud projects get-iam-policy PROJECT_ID --flatten=bindings --filter=bindings.members:GOOGLE_ACCOUNT   "
        "# roles/secretmanager.secretAccessor, conditioned on the prefix"
    ),
}


def _least_privilege(render: Render) -> Line:
    provider = str(at(render.values, "externalSecrets.provider"))
    wrong = [
        f"SecretStore/{store['metadata']['name']}: uses no account of its own"
        for store in render.kinds("SecretStore")
        if not _named_account(store) and not at(render.values, "externalSecrets.aws.podIdentity")
    ]
    right = "the store uses the account of this namespace alone; what that account may do is said in the cloud"
    if not render.kinds("SecretStore"):
        right = "no operator is used here: the Secrets are your own"
    return _line(
        "External Secrets operator has least-privilege IAM role", wrong, right, _IDENTITY[provider], outside=True
    )


def _named_account(node: Any) -> bool:
    if isinstance(node, dict):
        return "serviceAccountRef" in node or any(map(_named_account, node.values()))
    return False


def _tls(render: Render) -> Line:
    check = "TLS enabled for all external ingress (Let's Encrypt)"
    wrong = [
        f"Ingress/{one['metadata']['name']}: {rule.get('host', 'every host')} has no certificate"
        for one in render.kinds("Ingress")
        for rule in one["spec"].get("rules", [])
        if rule.get("host") not in {host for part in one["spec"].get("tls", []) for host in part.get("hosts", [])}
    ]
    wrong += [
        f"Service/{one['metadata']['name']}: type {one['spec']['type']} is open without TLS"
        for one in render.kinds("Service")
        if one["spec"].get("type") in {"LoadBalancer", "NodePort"}
    ]
    if render.kinds("HTTPRoute") and not wrong:
        gateway, home = at(render.values, "gateway.name"), at(render.values, "gateway.namespace") or render.namespace
        return Line(
            check, "outside the render", ("the Gateway ends TLS",),
            f"kubectl -n {home} get gateway {gateway} -o jsonpath='{{.spec.listeners[*].tls}}'",
        )  # fmt: skip
    hosts = [rule["host"] for one in render.kinds("Ingress") for rule in one["spec"]["rules"]]
    return _line(
        check,
        wrong,
        f"certificates for {', '.join(hosts)}" if hosts else "nothing is let in from outside",
        f"kubectl -n {render.namespace} get certificate" if hosts else None,
    )


def _restricted(render: Render) -> Line:
    return _line(
        'Pod Security Policy set to "restricted"',
        [problem for pod in render.pods for problem in unrestricted(pod)],
        f"all {len(render.pods)} pods meet the level restricted; that the namespace asks for it is its label",
        f"kubectl label namespace {render.namespace} pod-security.kubernetes.io/enforce=restricted --overwrite",
    )


def _each_pod(check: str, of: Callable[[PodSpec], Iterator[str]], right: str) -> Callable[[Render], Line]:
    def line(render: Render) -> Line:
        return _line(check, [problem for pod in render.pods for problem in of(pod)], right)

    return line


_SECRET_NAME: Final = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|MASTER_KEY|CREDENTIAL")
_NOT_SECRET: Final = re.compile(r"_(FILE|COMMAND|SECONDS|MAX)$")


def _secrets(render: Render) -> Line:
    wrong = [
        f"{one['kind']}/{one['metadata']['name']}: {key} stands in clear"
        for one in render.kinds("ConfigMap")
        for key in one.get("data", {})
        if _SECRET_NAME.search(key.upper()) and not _NOT_SECRET.search(key.upper())
    ]
    wrong += [
        f"{pod.owner}/{container['name']}: {entry['name']} stands in clear"
        for pod in render.pods
        for container in pod.containers
        for entry in container.get("env", [])
        if "value" in entry and _SECRET_NAME.search(entry["name"]) and not _NOT_SECRET.search(entry["name"])
    ]
    wrong += [
        f"Secret/{one['metadata']['name']}: a Secret with its content is in the render"
        for one in render.kinds("Secret")
    ]
    check = "All secrets stored in AWS Secrets Manager (not ConfigMaps)"
    if not at(render.values, "externalSecrets.enabled"):
        return _line(
            check, wrong, "none stands in clear; where the Secret comes from is yours to say",
            f"kubectl -n {render.namespace} get secret {at(render.values, 'keys.existingSecret')} -o jsonpath='{{.metadata.ownerReferences}}'",
            outside=True,
        )  # fmt: skip
    names = [one["metadata"]["name"] for one in render.kinds("ExternalSecret")]
    return _line(check, wrong, f"{' and '.join(names)} bring them", f"kubectl -n {render.namespace} get externalsecret")


def _audit(render: Render) -> Line:
    wrong = []
    days = at(render.values, "audit.retentionDays")
    if days < SEVEN_YEARS_DAYS:
        wrong.append(f"audit.retentionDays: {days} days are less than seven years, {SEVEN_YEARS_DAYS}")
    wrong += [
        f"{pod.owner}: the volume {volume['name']} lies in memory"
        for pod in render.pods
        for volume in pod.spec.get("volumes", [])
        if (volume.get("emptyDir") or {}).get("medium") == "Memory"
    ]
    place = str(at(render.values, "audit.shipTo"))
    bucket = place.partition("://")[2].partition("/")[0]
    lock = {
        "s3": f"aws s3api get-object-lock-configuration --bucket {bucket}",
        "gs": f"gcloud storage buckets describe gs://{bucket} --format='value(retention_policy)'",
        "az": f"az storage container immutability-policy show --account-name ACCOUNT --container-name {bucket}",
    }
    return _line(
        "Audit logs encrypted and retained for 7 years (GDPR)",
        wrong,
        f"sealed under keys of their own, kept {days} days"
        + (
            f", shipped to {place}; the bucket's own lock is said in the cloud"
            if place
            else ", and shipped nowhere: set audit.shipTo"
        ),
        lock.get(place.partition("://")[0], f"kubectl -n {render.namespace} exec deployment/syncshield -- kiki doctor"),
    )


def _autoscaled(render: Render) -> Line:
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in render.kinds("HorizontalPodAutoscaler")}
    wanted = [name for name in ("syncshield", "syncvalue", "syncengage") if at(render.values, f"{name}.enabled")]
    return _line(
        "HPA enabled to prevent resource exhaustion",
        [f"{name}.autoscaling.enabled: false; set it to true" for name in wanted if name not in scaled],
        f"{', '.join(wanted)} are scaled; SyncFlow's runners hold leases and are not",
        f"kubectl -n {render.namespace} get hpa",
    )


_CHECKS: Final[tuple[Callable[[Render], Line], ...]] = (
    _network,
    _least_privilege,
    _tls,
    _restricted,
    _each_pod("ReadOnlyRootFilesystem enabled", writable_roots, "every container writes into its volumes only"),
    _each_pod("Non-root containers (uid 10001)", other_users, "every container runs as uid 10001"),
    _secrets,
    _audit,
    _each_pod("Resource requests/limits enforced", unlimited, "every container has both"),
    _autoscaled,
)
