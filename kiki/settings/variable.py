"""One row of a table of settings, and reading many of them with every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def without_user(text: str) -> str:
    """A text that may be an address without the user and password in it, also where none may stand."""
    return re.sub(r"(?<=://).*@", "***@", text)


def printable(text: str) -> str:
    """A wrong value in quotes."""
    return repr(without_user(text))


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: how it is called, what it becomes, and how a text turns into it.

    `parse` raises ValueError with what is accepted. `default` is text as a person would write it, None for a
    variable that may stay unset. `shown` makes a wrong value fit to print; None never prints it.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    shown: Callable[[str], str] | None = printable

    @property
    def is_secret(self) -> bool:
        """True for a variable whose value is never printed."""
        return self.shown is None

    def read(self, environ: Mapping[str, str]) -> Any:
        """The value in this environment; raises ValueError with the whole problem as its text."""
        text = environ.get(self.name, self.default)
        if text is None or (not text and self.default is None):
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            given = self.name if self.shown is None else f"{self.name}={cut(self.shown(text))}"
            raise ValueError(f"{given}: {error}") from None


def cut(text: str, length: int = 80) -> str:
    """A text short enough for a message."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def read_variables(environ: Mapping[str, str], variables: Iterable[Variable], problems: list[str]) -> dict[str, Any]:
    """The value of each variable by its field; mistakes go to `problems` and leave their field out."""
    values = {}
    for variable in variables:
        try:
            values[variable.field] = variable.read(environ)
        except ValueError as error:
            problems.append(str(error))
    return values
