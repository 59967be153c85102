"""Limits below their requests: Kubernetes makes no pod of them, and it is the ReplicaSet that says so. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kiki.chart.pods import quantity


def too_low(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """One sentence for each limit, with its way out; the values fit the schema."""
    for key, value in values.items():
        if not isinstance(value, Mapping):
            continue
        if key != "resources":
            yield from too_low(value, f"{path}{key}.")
            continue
        # What a null took away is nothing.
        asked, most = (value.get(which) or {} for which in ("requests", "limits"))
        for what, limit in most.items():
            request = asked.get(what)
            if limit and request and quantity(request) > quantity(limit):
                yield (
                    f"{path}resources.limits.{what}: {limit} is below what is requested, {request}; "
                    f"raise it, or lower {path}resources.requests.{what}"
                )
