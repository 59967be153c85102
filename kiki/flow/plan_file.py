"""The file of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kiki.errors import PlanError
from kiki.flow.plan import Plan
from kiki.flow.plan_text import parse_plan

PLAN_BYTES_MAX: Final = 1024 * 1024


def read_plan(path: str | Path) -> Plan:
    """The plan in a YAML file; raises `PlanError` with every mistake and its line."""
    return parse_plan(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """What is written in a plan's file; raises `PlanError`."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(PLAN_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise PlanError([f"{path}: {getattr(error, 'strerror', None) or error}"]) from error
    if len(content) > PLAN_BYTES_MAX:
        raise PlanError([f"{path}: a plan has at most {PLAN_BYTES_MAX} bytes"])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PlanError([f"{path}:{line}: the file is not UTF-8"]) from None
