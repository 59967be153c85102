"""Errors on the wire, there and back: RFC 9457 problems and the errors of `kiki.errors` that they stand for. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from kiki.errors import (
    CodeDenied,
    ConfigurationError,
    ConsentDenied,
    EvidenceInvalid,
    KikiError,
    MissingExtra,
    PointsShort,
    SpendDenied,
    Unavailable,
)

PROBLEM_TYPE: Final = "application/problem+json"


PROBLEM_URN: Final = "urn:kiki:error:"


Problem = dict[str, Any]


def title_of(error: type[KikiError]) -> str:
    """A problem's title: the same for every error of its kind."""
    return (error.__doc__ or error.__name__).strip().partition("\n")[0]


def parse_problem(data: bytes) -> Problem | None:
    """The problem in a body, None when it holds none of ours."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return None
    return found


def error_of(found: Problem) -> KikiError | None:
    """The error that a problem stands for, as the library would have raised it; None when its code is not known.

    For a refusal with all its members use `RefusalProblem` first, which knows its outcome.
    """
    kind = _errors().get(found["code"])
    if kind is None:
        return None
    detail = found.get("detail")
    message = detail if isinstance(detail, str) else None
    hint = found.get("hint") if isinstance(found.get("hint"), str) else None
    retry_after = found.get("retry_after")
    seconds = float(retry_after) if isinstance(retry_after, int | float) and math.isfinite(retry_after) else None
    if issubclass(kind, SpendDenied):
        members = {
            name: found[name] for name in ("budget", "remaining", "event_id") if isinstance(found.get(name), str)
        }
        return kind(message or title_of(kind), reason=str(found.get("reason", "")), retry_after=seconds, **members)
    if issubclass(kind, ConsentDenied):
        return kind(message or title_of(kind), purpose=str(found.get("purpose", "")), state=str(found.get("state", "")))
    if issubclass(kind, CodeDenied):
        return kind(message or title_of(kind), reason=str(found.get("reason", "")))
    if issubclass(kind, PointsShort):
        available = found.get("available")
        return kind(message or title_of(kind), available=available if isinstance(available, int) else 0)
    if issubclass(kind, EvidenceInvalid):
        place = str(found.get("place", ""))
        return kind((message or title_of(kind)).removeprefix(f"{place}: "), place=place, hint=hint)
    if issubclass(kind, ConfigurationError):
        problems = found.get("problems")
        listed = [str(each) for each in problems] if isinstance(problems, list) else [message or title_of(kind)]
        return kind(listed, hint=hint)
    if issubclass(kind, Unavailable):
        return kind(message, retry_after=seconds, hint=hint)
    if issubclass(kind, MissingExtra):
        return KikiError(message, hint=hint)
    return kind(message, hint=hint)


def _errors() -> dict[str, type[KikiError]]:
    if not _error_kinds:
        _collect(KikiError)
    return _error_kinds


def _collect(kind: type[KikiError]) -> None:
    if kind.__module__ == "kiki.errors":
        _error_kinds[kind.code] = kind
    for child in kind.__subclasses__():
        _collect(child)


_error_kinds: dict[str, type[KikiError]] = {}
