"""How results and errors reach people and programs: results to stdout, talk to stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NoReturn

import typer

from kiki.errors import CodeDenied, ConfigurationError, InvalidInput, KikiError, PointsShort, SpendDenied

EXIT_YES = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""As a shell reports a program that wrote into a closed pipe."""


def line(text: str) -> None:
    """One line of a result."""
    print(plain(text))


def as_json(value: object) -> None:
    """A result as JSON on one line: a struct of the wire, or what `json` knows."""
    print(json.dumps(_builtin(value), ensure_ascii=False))


def _builtin(value: object) -> object:
    if isinstance(value, dict | list | str | int | float | bool | None):
        return value
    import msgspec

    return msgspec.to_builtins(value)


def talk(text: str, *, dim: bool = False) -> None:
    """One line of talk, to stderr."""
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    typer.echo(typer.style(plain(text), dim=True) if dim and colour else plain(text), err=True)


def plain(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)


def exit_code(error: KikiError) -> int:
    """What a process that ends with this error returns."""
    if isinstance(error, SpendDenied | PointsShort | CodeDenied):
        return EXIT_REFUSED
    return EXIT_USAGE if isinstance(error, InvalidInput) else EXIT_ERROR


def fail(error: KikiError, *, json_wanted: bool) -> int:
    """Tell an error on stderr; the exit code that goes with it."""
    if json_wanted:
        found: dict[str, Any] = {"code": error.code, "message": str(error)}
        if error.hint:
            found["hint"] = error.hint
        if isinstance(error, ConfigurationError):
            found["problems"] = list(error.problems)
        if getattr(error, "retry_after", None) is not None:
            found["retry_after"] = error.retry_after  # type: ignore[attr-defined]  # asked for just now
        typer.echo(json.dumps({"error": found}, ensure_ascii=False), err=True)
    else:
        talk(f"error: {error}")
        if error.hint:
            talk(f"hint: {error.hint}", dim=True)
    return exit_code(error)


def refused(error: SpendDenied, *, json_wanted: bool) -> NoReturn:
    """Show a refusal, which is a result, and end."""
    from kiki.shield.shield_client import outcome_of

    if json_wanted:
        outcome = outcome_of(error)
        as_json(
            outcome
            if outcome is not None
            else {
                "allowed": False,
                "event_id": error.event_id,
                "reason": error.reason,
                "explanation": str(error),
                "budget": error.budget,
                "remaining": error.remaining,
                "retry_after": error.retry_after,
            }
        )
    else:
        line(f"refused: {error}")
    raise typer.Exit(EXIT_REFUSED)
