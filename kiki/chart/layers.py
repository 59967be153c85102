"""Reads the layers of values that a command line names, and finds everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from kiki.chart import extra_env, guards, limits, schema, values_text
from kiki.chart.place import chart_directory, chart_schema
from kiki.chart.set_expression import BadExpression, parse_set
from kiki.chart.values import coalesce, overlay, with_nothing
from kiki.errors import ValuesError

ENVIRONMENTS: Final = ("dev", "staging", "prod")


def read_layers(environment: str | None, files: Iterable[Path], expressions: Iterable[str]) -> dict[str, Any]:
    """What goes over the chart's defaults: the profile, then the files, then what was set, each over the one before.

    Raises `ValuesError` with every mistake, also of the values as a whole.
    """
    problems: list[str] = []
    profile = [] if environment is None else [chart_directory() / f"values-{environment}.yaml"]
    given: dict[str, Any] = {}
    for path in [*profile, *files]:
        given = overlay(given, _read(path, problems))
    for expression in expressions:
        try:
            given = overlay(given, parse_set(expression))
        except BadExpression as error:
            problems.append(f"--set: {error}")
    if not problems:
        problems = _mistakes(given)
    if problems:
        raise ValuesError(problems)
    return given


def with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """What the templates see."""
    return coalesce(_defaults(), given)


def _defaults() -> dict[str, Any]:
    path = chart_directory() / "values.yaml"
    return values_text.parse(path.read_text(encoding="utf-8"), path.name)[0]


def _mistakes(given: dict[str, Any]) -> list[str]:
    seen = with_defaults(given)
    if wrong := schema.problems(seen, chart_schema()):
        return wrong
    # A contradiction can only be told between values that are what they must be, and where each is there.
    whole = with_nothing(_defaults(), seen)
    return [*guards.contradictions(whole), *limits.too_low(whole), *sorted(extra_env.mistyped(whole))]


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problems.append(f"{path}: the file is not UTF-8")
        return {}
    except OSError as error:
        problems.append(f"{path}: {error.strerror or error}")
        return {}
    values, found = values_text.parse(text, str(path))
    problems += found
    return values
