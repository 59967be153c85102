"""Parsers of plain values: text in, value out, ValueError saying what is accepted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kiki.clock import SECOND
from kiki.errors import InvalidMoney
from kiki.money import parse_micros
from kiki.settings.secret import Secret


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A parser for integers from `low` to `high`, both included."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"expected a whole number from {low} to {high}")

    return parse


def seconds(high: int, *, zero: bool = False) -> Callable[[str], int]:
    """A parser for decimal seconds up to `high`, exact to the microsecond, into microseconds."""
    low = "0" if zero else "above 0"

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
            micros = int(Decimal(text) * SECOND)
            if micros <= high * SECOND and (zero or micros):
                return micros
        raise ValueError(
            f"expected seconds, {low} and at most {high}, as a decimal number with at most six decimals, for example 60 or 0.5"
        )

    return parse


def seconds_float(high: int, *, zero: bool = False) -> Callable[[str], float]:
    """A parser for a timeout: decimal seconds up to `high`, as the float that timers take."""
    exact = seconds(high, zero=zero)
    return lambda text: exact(text) / SECOND


def rate(text: str) -> float:
    """Requests per second, 0 for no limit."""
    if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) and float(text) <= 1_000_000:
        return float(text)
    raise ValueError("expected requests per second as a decimal number from 0 (no limit) to 1000000")


def money(text: str) -> int:
    """An amount in micros; zero is refused."""
    try:
        return parse_micros(text)
    except InvalidMoney as error:
        raise ValueError(str(error)) from None


def currency(text: str) -> str:
    """A currency's ISO 4217 code."""
    if re.fullmatch(r"[A-Z]{3}", text):
        return text
    raise ValueError("expected a currency code of three upper-case letters, for example USD")


def boolean(text: str) -> bool:
    """true, yes, on, 1 or false, no, off, 0, in any case."""
    lowered = text.lower()
    if lowered in {"true", "yes", "on", "1"}:
        return True
    if lowered in {"false", "no", "off", "0"}:
        return False
    raise ValueError("expected true or false (also yes/no, on/off, 1/0)")


def one_of(*words: str) -> Callable[[str], str]:
    """A parser for one word of a few."""

    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"expected {' or '.join(words)}")

    return parse


def path(text: str) -> Path:
    """A path as written; whether it exists is found out when it is used."""
    if text and "\0" not in text:
        return Path(text)
    raise ValueError("expected a path")


_BYTE_UNITS: Final = dict[str, int](
    zip(("", "B", "kB", "MB", "GB"), (1, 1, 10**3, 10**6, 10**9), strict=True),
    KiB=2**10,
    MiB=2**20,
    GiB=2**30,
    Ki=2**10,  # as Kubernetes writes them
    Mi=2**20,
    Gi=2**30,
)


def byte_size(low: int, high: int) -> Callable[[str], int]:
    """A parser for a number of bytes, plain or with a unit: 1048576, 256MiB, 10MB."""

    def parse(text: str) -> int:
        found = re.fullmatch(r"([0-9]{1,18})([A-Za-z]*)", text)
        if found and found[2] in _BYTE_UNITS:
            size = int(found[1]) * _BYTE_UNITS[found[2]]
            if low <= size <= high:
                return size
        raise ValueError(
            f"expected a size from {low} to {high} bytes, plain or with a unit: 1048576, 64KiB, 256MiB, 1GB"
        )

    return parse


def user_name(text: str) -> str:
    """The name of a user."""
    if text.isprintable():
        return text
    raise ValueError("expected printable characters")


def printable(text: str) -> str:
    """One word or more, of printable characters."""
    if text and text.isprintable():
        return text
    raise ValueError("expected printable characters")


def api_version(pattern: str, example: str) -> Callable[[str], str]:
    """A parser for the version of a provider's interface."""

    def parse(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise ValueError(f"expected a version, for example {example}")

    return parse


def field_name(text: str) -> str:
    """The name of a field at a provider."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", text):
        return text
    raise ValueError("expected the name of a field: letters, digits and _")


def named_secrets(text: str) -> dict[str, Secret]:
    """Secrets by their names: key=secret,key=secret."""
    found = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, separator, secret = part.partition("=")
        if not (name and separator and secret):
            raise ValueError("expected key=secret, with commas between several")
        found[name] = Secret(secret)
    return found


def purposes(text: str) -> tuple[str, ...]:
    """Names of purposes, divided by commas."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if all(re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) and name != "none" for name in names):
        return names
    raise ValueError("expected names of 1 to 32 of a-z, 0-9 and _, divided by commas, for example newsletter,research")


def country(text: str) -> str:
    """A country, and a part of it after a dash: DE, US-CA."""
    if re.fullmatch(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", text):
        return text
    raise ValueError("expected an ISO 3166 code, for example DE, or US-CA for a part of a country")


def time_zone(text: str) -> str:
    """A time zone by its name in the tz database: Europe/Berlin."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a name of the tz database, for example Europe/Berlin or UTC") from None
    return text


def command(text: str) -> str:
    """A command with its arguments, as a shell would divide them; it is not run by a shell."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"expected a command with its arguments ({error})") from None
    if not words:
        raise ValueError("expected a command with its arguments")
    return text


def share(text: str) -> int:
    """A share in parts of a million: 5%, 0.05."""
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*(%?)", text)
    parts = Decimal(found[1]) * (10_000 if found[2] else 1_000_000) if found else Decimal(-1)
    if parts != int(parts) or not 0 <= parts <= 1_000_000:
        raise ValueError("expected a share such as 5% or 0.05, from 0 to 1")
    return int(parts)


def replica_name(text: str) -> str:
    """The name of a replica, as Kubernetes names pods, or the beginning of many and `-*`."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}([A-Za-z0-9]|-[*]))?", text):
        return text
    raise ValueError(
        "expected 1 to 128 letters, digits, dots, dashes or underscores, a letter or digit at both ends; or a name and -* "
        "for the first number that is free"
    )


def executor_name(text: str) -> str:
    """The name of a runner of campaigns."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        return text
    raise ValueError("expected 1 to 64 of a-z, A-Z, 0-9, _ . and -, for example syncflow-0")


def archive_url(text: str) -> str:
    """A directory, or the URL of a bucket."""
    scheme, divider, rest = text.partition("://")
    if (not divider and text and "\0" not in text) or (scheme in {"s3", "gs", "az", "file"} and rest.strip("/")):
        return text
    raise ValueError("expected a directory, or s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")
