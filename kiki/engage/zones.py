"""Which time zones a country has, and what others call them, from the tz database of this machine or of the package tzdata."""

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


@cache
def _by_small_letters() -> dict[str, str]:
    return {name.lower(): name for name in zoneinfo.available_timezones()}


def zone_of_slug(text: str) -> str:
    """The zone that HubSpot writes as `america_slash_port_hyphen_au_hyphen_prince`; what is no slug stays as it is."""
    if "_slash_" not in text:
        return text
    name = text.lower()
    for word, sign in (("_slash_", "/"), ("_hyphen_", "-"), ("_plus_", "+")):
        name = name.replace(word, sign)
    return _by_small_letters().get(name, text)


def _table() -> str:
    for place in zoneinfo.TZPATH:
        path = Path(place) / _TABLE
        if path.is_file():
            return path.read_text(encoding="utf-8")
    try:
        return (resources.files("tzdata.zoneinfo") / _TABLE).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        return ""
