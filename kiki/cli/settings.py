"""`kiki settings`: every variable, what it is now and what it would be without."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import typer

from kiki.cli import show
from kiki.cli.options import Json

if TYPE_CHECKING:
    from kiki.settings import Variable

MASK = "***"


class Shown(NamedTuple):
    """One variable, fit to print."""

    name: str
    value: str | None
    default: str | None
    is_set: bool
    help: str


def settings(as_json: Json = False) -> None:
    """List every setting, its value and its default.

    Secrets are masked. Exit code 1 when a setting is wrong.
    """
    from kiki.settings import VARIABLES

    rows = [_shown(variable, os.environ) for variable in VARIABLES]
    problems = _problems(os.environ)
    if as_json:
        show.as_json({"settings": [row._asdict() for row in rows], "problems": problems})
    else:
        width = max(len(row.name) for row in rows)
        for row in rows:
            value = "-" if row.value is None else row.value
            default = "" if not row.is_set else f" [default {'-' if row.default is None else row.default}]"
            show.line(f"{row.name:<{width}}  {value}{default}")
            show.line(f"{'':<{width}}    {row.help}")
        for problem in problems:
            show.talk(f"error: {problem}")
    if problems:
        raise typer.Exit(show.EXIT_ERROR)


def _shown(variable: Variable, environ: Mapping[str, str]) -> Shown:
    from kiki.settings import printable, without_user

    text = environ.get(variable.name)
    value = variable.default
    if text is not None:
        # What may not be printed as it is (a password in an address) knows how to be shown.
        shown = variable.shown
        value = MASK if shown is None else without_user(text) if shown is printable else shown(text).strip("'")
    return Shown(variable.name, value, variable.default, text is not None, variable.help)


def _problems(environ: Mapping[str, str]) -> list[str]:
    from kiki.errors import SettingsError
    from kiki.settings import (
        ENGAGE_VARIABLES,
        FLOW_VARIABLES,
        VALUE_CLIENT_VARIABLES,
        VALUE_VARIABLES,
        ShieldSettings,
        shield_url,
    )

    found: list[str] = []
    for variable in (*VALUE_VARIABLES, *VALUE_CLIENT_VARIABLES, *ENGAGE_VARIABLES, *FLOW_VARIABLES):
        # What they mean together, only `kiki serve value` can judge: the host may be another service's.
        try:
            variable.read(environ)
        except ValueError as error:
            found.append(str(error))
    for parse in (ShieldSettings.parse, shield_url):
        try:
            parse(environ)
        except SettingsError as error:
            found += error.problems
    return list(dict.fromkeys(found))
