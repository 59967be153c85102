"""Who reaches whom, computed from NetworkPolicies as a cluster would. Pure.

A connection passes when the source's policies let it out and the target's let it in; a pod that no policy of a
direction selects is open in that direction.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a connection: a pod of a namespace, or an address outside the cluster."""

    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None


def passes(policies: list[dict[str, Any]], source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection from source to target's port is let through."""
    return lets(policies, source, target, "Egress", port, protocol) and lets(
        policies, target, source, "Ingress", port, protocol
    )


def lets(policies: list[dict[str, Any]], pod: Place, other: Place, direction: str, port: int, protocol: str) -> bool:
    """Whether a pod's own policies of one direction let this through, whatever those of the other end say."""
    if pod.address is not None:
        return True  # what lies outside answers to nobody's policies here
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in policy["spec"].get("policyTypes", ["Ingress"])
        and _selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not selecting:
        return True
    key, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _port_fits(rule.get("ports"), port, protocol)
        and (not rule.get(peers) or any(_peer_fits(peer, other, str(pod.namespace)) for peer in rule[peers]))
        for spec in selecting
        for rule in spec.get(key) or []
    )


def _port_fits(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(
        one.get("protocol", "TCP") == protocol
        and ("port" not in one or one["port"] <= port <= one.get("endPort", one["port"]))
        for one in ports
    )


def _peer_fits(peer: dict[str, Any], other: Place, home: str) -> bool:
    if block := peer.get("ipBlock"):
        return other.address is not None and _inside(other.address, block)
    if other.address is not None:
        return False
    if "namespaceSelector" in peer:
        if not _selects(peer["namespaceSelector"], {NAMESPACE_LABEL: str(other.namespace)}):
            return False
    elif other.namespace != home:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _inside(address: str, block: dict[str, Any]) -> bool:
    one = ipaddress.ip_address(address)
    return one in ipaddress.ip_network(block["cidr"]) and not any(
        one in ipaddress.ip_network(hole) for hole in block.get("except", [])
    )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        value, wanted = labels.get(one["key"]), one.get("values", [])
        held = {
            "In": value in wanted,
            "NotIn": value not in wanted,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not held[one["operator"]]:
            return False
    return True


def open_peers(policies: list[dict[str, Any]]) -> Iterator[str]:
    """Rules that let in or out whatever there is: no peers, no ports, or an empty selector of namespaces."""
    for policy in policies:
        name = policy["metadata"]["name"]
        for key, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(key) or []:
                if not rule.get(peers):
                    yield f"NetworkPolicy/{name}: {key} names nobody, which means everybody"
                if not rule.get("ports"):
                    yield f"NetworkPolicy/{name}: {key} names no port, which means all"
                if any(peer.get("namespaceSelector") == {} for peer in rule.get(peers) or []):
                    yield f"NetworkPolicy/{name}: {key} admits every namespace"
