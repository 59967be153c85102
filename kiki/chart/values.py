"""Values in layers, put together as Helm does it: maps by key, anything else whole, null takes a default away. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two layers of a user's values as one; a null of the upper one stays, to meet the chart's default."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = overlay(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def coalesce(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates see: the chart's defaults under the user's values, without what a null took away."""
    seen: dict[str, Any] = {}
    for key in [*defaults, *(key for key in given if key not in defaults)]:
        default, value = defaults.get(key), given.get(key)
        if key not in given:
            seen[key] = default
        elif isinstance(value, Mapping):
            seen[key] = coalesce(default if isinstance(default, Mapping) else {}, value)
        elif value is not None or key not in defaults:  # a null with nothing to take away stays, as in Helm
            seen[key] = value
    return seen


def with_nothing(defaults: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates see, with every key of the chart: what a null took away is nothing, of the default's kind."""
    whole = dict(seen)
    for key, default in defaults.items():
        if key not in seen:
            whole[key] = with_nothing(default, {}) if isinstance(default, Mapping) else type(default)()
        elif isinstance(default, Mapping) and isinstance(seen[key], Mapping):
            whole[key] = with_nothing(default, seen[key])
    return whole


def at(values: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """The value under a dotted path."""
    found: Any = values
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found
