"""What an engine rendered, as documents in the order in which they are applied. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

_ORDER: Final = (
    "Namespace", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret", "ClusterIssuer", "SecretStore",
    "ExternalSecret", "ConfigMap", "PersistentVolumeClaim", "Service", "Deployment", "StatefulSet",
    "HorizontalPodAutoscaler", "Ingress", "HTTPRoute", "ServiceMonitor", "PrometheusRule",
)  # fmt: skip
"""Policies come before what they protect, and what is mounted before who mounts it."""

_DIVIDER: Final = re.compile(r"^---[ \t]*(?:#.*)?$", re.MULTILINE)
_KIND: Final = re.compile(r"^kind:[ \t]*(\S+)", re.MULTILINE)
_NAME: Final = re.compile(r"^metadata:\n(?:[ \t]+.*\n)*?[ \t]+name:[ \t]*\"?([^\"\s]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """One object: what it is, what it is called, and its YAML."""

    kind: str
    name: str
    text: str

    @property
    def is_test(self) -> bool:
        """Whether `helm test` makes it, not `helm install`."""
        return "helm.sh/hook: test" in self.text


def documents(texts: Iterable[str]) -> list[Document]:
    """Every object of these texts, in order: two engines that agree give the same bytes."""
    found = []
    for text in texts:
        for part in _DIVIDER.split(text):
            lines = part.strip("\n").splitlines()
            while lines and (not lines[0].strip() or lines[0].startswith("# Source:")):
                del lines[0]
            kind = _KIND.search(part)
            if kind:
                name = _NAME.search(part)
                found.append(
                    Document(kind[1], name[1] if name else "", "\n".join(line.rstrip() for line in lines) + "\n")
                )
    return sorted(found, key=_place)


def _place(document: Document) -> tuple[bool, int, str, str]:
    known = _ORDER.index(document.kind) if document.kind in _ORDER else len(_ORDER)
    return document.is_test, known, document.kind, document.name


def joined(found: Iterable[Document]) -> str:
    """All of them as one YAML text."""
    return "".join(f"---\n{document.text}" for document in found)


def objects(found: Iterable[Document]) -> list[dict[str, Any]]:
    """Each of them as a mapping."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [yaml.load(document.text, Loader=loader) for document in found]  # noqa: S506  # a safe loader, and our own text
