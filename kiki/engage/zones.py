"""Which time zones a country has, from the tz database of this machine or of the package tzdata."""

from __future__ import annotations

import zoneinfo
from functools import cache
from importlib import resources
from pathlib import Path

_TABLE = "zone.tab"


@cache
def zones_by_country() -> dict[str, tuple[str, ...]]:
    """Zones by ISO 3166-1 code; empty where there is no table: then a country says nothing about the time."""
    found: dict[str, list[str]] = {}
    for line in _table().splitlines():
        fields = line.split("\t")
        if not line.startswith("#") and len(fields) >= 3:
            for country in fields[0].split(","):
                found.setdefault(country, []).append(fields[2])
    return {country: tuple(sorted(zones)) for country, zones in found.items()}


def _table() -> str:
    for place in zoneinfo.TZPATH:
        path = Path(place) / _TABLE
        if path.is_file():
            return path.read_text(encoding="utf-8")
    try:
        return (resources.files("tzdata.zoneinfo") / _TABLE).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        return ""
