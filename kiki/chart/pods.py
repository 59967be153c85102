"""The pods that a render makes, and what the restricted level of Pod Security and the guide's checklist ask of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

UID: Final = 10001
VOLUMES: Final = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
_PROFILES: Final = frozenset({"RuntimeDefault", "Localhost"})


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod's template: whose it is, its labels, and its spec."""

    owner: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """Every container, those that only begin included."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]


def pods_of(objects: list[dict[str, Any]]) -> list[PodSpec]:
    """Each pod that these objects make."""
    found = []
    for one in objects:
        kind, name = one["kind"], one["metadata"]["name"]
        spec = one.get("spec", {})
        if kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        template = one if kind == "Pod" else spec.get("template") if kind in _MAKERS else None
        if template is not None:
            found.append(PodSpec(f"{kind}/{name}", template["metadata"].get("labels", {}), template["spec"]))
    return found


_MAKERS: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet"})


def unrestricted(pod: PodSpec) -> Iterator[str]:
    """Where a pod breaks the level `restricted`: such a pod is refused, while its Deployment is accepted with a warning."""
    spec, own = pod.spec, pod.spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{pod.owner}: {name} is on"
    for volume in spec.get("volumes", []):
        if kinds := volume.keys() - {"name"} - VOLUMES:
            yield f"{pod.owner}: the volume {volume['name']} is a {', '.join(sorted(kinds))}"
    for container in pod.containers:
        where = f"{pod.owner}/{container['name']}"
        context = container.get("securityContext", {})
        capabilities = context.get("capabilities", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{where}: privileges may grow"
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{where}: capabilities are not dropped"
        if context.get("runAsNonRoot", own.get("runAsNonRoot")) is not True:
            yield f"{where}: may run as root"
        if context.get("runAsUser", own.get("runAsUser")) == 0:
            yield f"{where}: runs as root"
        profile = (context.get("seccompProfile") or own.get("seccompProfile") or {}).get("type")
        if profile not in _PROFILES:
            yield f"{where}: has no seccomp profile"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{where}: takes a port of its node"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if any("host" in how for how in container.get(probe, {}).values() if isinstance(how, dict)):
                yield f"{where}: {probe} names a host"


def writable_roots(pod: PodSpec) -> Iterator[str]:
    """Containers that may write anywhere but into their volumes."""
    for container in pod.containers:
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{pod.owner}/{container['name']}: the root file system is writable"


def other_users(pod: PodSpec) -> Iterator[str]:
    """Containers that do not run as the uid of the guide."""
    own = pod.spec.get("securityContext", {})
    for container in pod.containers:
        uid = container.get("securityContext", {}).get("runAsUser", own.get("runAsUser"))
        if uid != UID:
            yield f"{pod.owner}/{container['name']}: runs as uid {uid}, not {UID}"


def unlimited(pod: PodSpec) -> Iterator[str]:
    """Containers without requests and limits, or with more requested than allowed."""
    for container in pod.containers:
        resources = container.get("resources", {})
        for what in ("cpu", "memory"):
            asked, most = (resources.get(which, {}).get(what) for which in ("requests", "limits"))
            where = f"{pod.owner}/{container['name']}"
            if asked is None or most is None:
                yield f"{where}: no {what} {'request' if asked is None else 'limit'}"
            elif quantity(asked) > quantity(most):
                yield f"{where}: {what} request {asked} is above its limit {most}"


_UNITS: Final = {
    "": 1.0, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def quantity(text: object) -> float:
    """A quantity of Kubernetes as a number."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    if not found or found[2] not in _UNITS:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * _UNITS[found[2]]
