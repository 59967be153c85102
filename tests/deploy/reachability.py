"""The table of docs/deploy/network.md, computed from rendered policies: every pair of places on every port that is spoken."""

from __future__ import annotations

from typing import Any

from kiki.chart.pods import pods_of
from kiki.chart.reach import Place, passes

OUTSIDE = {
    "the internet": Place(address="203.0.113.7"),
    "a private address": Place(address="10.0.0.9"),
    "the metadata address": Place(address="169.254.169.254"),
    "the agent of Pod Identity": Place(address="169.254.170.23"),
    "a DNS cache on the node": Place(address="169.254.20.10"),
}
NEIGHBOURS = {
    "a stranger in the namespace": Place("kiki", {"app": "stranger"}),
    "a stranger elsewhere": Place("default", {"app": "stranger"}),
    "the ingress controller": Place("ingress-nginx", {"app": "controller"}),
    "the monitoring": Place("monitoring", {"app": "prometheus"}),
    "the cluster's DNS": Place("kube-system", {"k8s-app": "kube-dns"}),
    "another pod of kube-system": Place("kube-system", {"app": "other"}),
}
# Not rendered: cert-manager makes this pod in the namespace of the certificate, for as long as a challenge lasts.
SOLVER, SOLVING = "cert-manager's solver", Place("kiki", {"acme.cert-manager.io/http01-solver": "true"})
FOREIGN_PORTS = [
    (53, "UDP"),
    (53, "TCP"),
    (80, "TCP"),
    (443, "TCP"),
    (4317, "TCP"),
    (5432, "TCP"),
    (6379, "TCP"),
    (988, "TCP"),
]


def table(found: list[dict[str, Any]]) -> list[str]:
    """Each connection that is let through, as `source -> target port/protocol`."""
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]
    pods = {pod.labels["app"]: pod for pod in pods_of(found)}
    places = {name: Place("kiki", pod.labels) for name, pod in pods.items()} | {SOLVER: SOLVING}
    spoken = {SOLVER: [(8089, "TCP")]} | {
        name: [(port["containerPort"], "TCP") for container in pod.containers for port in container.get("ports", [])]
        for name, pod in pods.items()
    }
    lines = []
    for source, start in [*places.items(), *NEIGHBOURS.items(), *OUTSIDE.items()]:
        for target, end in [*places.items(), *NEIGHBOURS.items(), *OUTSIDE.items()]:
            if source == target or (source not in places and target not in places):
                continue
            open_ports = [
                f"{port}{'' if protocol == 'TCP' else '/UDP'}"
                for port, protocol in spoken.get(target, FOREIGN_PORTS)
                if passes(policies, start, end, port, protocol)
            ]
            if open_ports:
                lines.append(f"{source} -> {target}: {', '.join(open_ports)}")
    return lines
