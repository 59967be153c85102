"""The files that people write for flow: plans, and conversions with what they were worth."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kiki.errors import ConfigurationError, InvalidInput, PlanError, UploadError
from kiki.flow.conversion import Conversion, parse_conversions
from kiki.flow.plan import Plan
from kiki.flow.plan_text import parse_plan

PLAN_BYTES_MAX: Final = 1024 * 1024
CONVERSIONS_BYTES_MAX: Final = 4 * 1024 * 1024


def read_plan(path: str | Path) -> Plan:
    """The plan in a YAML file; raises `InvalidInput` for what is no path, and `PlanError` with every mistake and its line."""
    return parse_plan(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """What is written in a plan's file; raises `PlanError`."""
    return _text(path, PLAN_BYTES_MAX, "a plan", PlanError)


def read_conversions(path: str | Path, plan: Plan, now: int) -> list[Conversion]:
    """The conversions in a CSV file, each order once; raises `UploadError` with every mistake and its row."""
    return parse_conversions(conversions_text(path), plan, now)


def conversions_text(path: str | Path) -> str:
    """What is written in a file of conversions; raises `UploadError`."""
    return _text(path, CONVERSIONS_BYTES_MAX, "a file of values", UploadError)


def _text(path: str | Path, most: int, what: str, wrong: type[ConfigurationError]) -> str:
    if not isinstance(path, str | Path):
        raise InvalidInput(f"{what} is named by its path, and this is of the type {type(path).__name__}")
    try:
        with Path(path).open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise wrong([f"{path}: {getattr(error, 'strerror', None) or error}"]) from error
    if len(content) > most:
        raise wrong([f"{path}: {what} has at most {most} bytes"])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise wrong([f"{path}:{line}: the file is not UTF-8"]) from None
