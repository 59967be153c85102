"""Objects and queries as the services read them: nothing unknown, nothing twice, nothing of another type. Pure.

What is not listed is refused with the name of the nearest right one: a member that is silently passed over is a rule
that is silently passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kiki.errors import InvalidInput, InvalidMoney

Query = Iterable[tuple[str, str]]
"""The decoded pairs of a query string, repeated names included."""

_KINDS = {bool: "a boolean", str: "text", list: "a list", dict: "an object", type(None): "null"}


def quoted(value: object) -> str:
    """What somebody sent, short enough for a message."""
    text = repr(str(value))
    return text if len(text) <= 42 else f"{text[:40]}…'"


def kind_of(value: object) -> str:
    """What JSON calls a value of this type."""
    return _KINDS.get(type(value), "a number")


def read_members(body: object, allowed: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    """The members of an object that holds no others; raises `InvalidInput`."""
    if not isinstance(body, dict):
        raise InvalidInput(f"expected a JSON object, not {kind_of(body)}")
    for name in body:
        if name not in allowed:
            raise InvalidInput(_unknown("member", name, allowed))
    for name in required:
        if name not in body:
            raise (InvalidMoney if name == "amount" else InvalidInput)(f"the member {name!r} is missing")
    return body


def one_of(found: dict[str, str], name: str, alias: str) -> str:
    """A member under either of its names; raises `InvalidInput` when it is given under both."""
    if name in found and alias in found:
        raise InvalidInput(f"{name!r} and {alias!r} are the same: send one of them")
    return found.get(name, found.get(alias, ""))


def read_query(query: Query, allowed: Sequence[str], many: str = "") -> tuple[dict[str, str], list[str]]:
    """The parameters of a query that holds no others, and the values of the one that may be repeated."""
    single: dict[str, str] = {}
    repeated: list[str] = []
    for name, value in query:
        if many and name == many:
            repeated.append(value)
        elif name not in allowed:
            raise InvalidInput(_unknown("parameter", name, (*allowed, many) if many else allowed))
        elif name in single:
            raise InvalidInput(f"the parameter {name!r} is given twice; send it once")
        else:
            single[name] = value
    return single, repeated


def require_no_query(query: Query) -> None:
    """Refuse every parameter, for routes that take none."""
    read_query(query, ())


def text_of(found: Mapping[str, Any], name: str) -> str:
    """A member that must be text."""
    value = found[name]
    if not isinstance(value, str):
        raise InvalidInput(f"{name!r} is text, not {kind_of(value)}")
    return value


def text_or_none(found: Mapping[str, Any], name: str) -> str | None:
    """The same where it may be absent."""
    return text_of(found, name) if name in found else None


def flag_of(found: Mapping[str, Any], name: str) -> bool:
    """A member that is true or false; false when it is absent."""
    value = found.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name!r} is true or false, not {kind_of(value)}")
    return value


def list_of(found: Mapping[str, Any], name: str, most: int | None = None) -> list[Any]:
    """A member that must be a list, of at most `most` items."""
    value = found[name]
    if not isinstance(value, list):
        raise InvalidInput(f"{name!r} is a list, not {kind_of(value)}")
    if most is not None and len(value) > most:
        raise InvalidInput(f"{name!r} holds {len(value)} items: at most {most} are accepted at once")
    return value


def limit_of(single: Mapping[str, str], *, default: int, most: int) -> int:
    """The parameter `limit`, a whole number from 1 to `most`."""
    return number_of(single, "limit", default=default, least=1, most=most)


def number_of(single: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    """A parameter that is a whole number from `least` to `most`."""
    text = single.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= most):
        raise InvalidInput(f"the {name} {quoted(text)} is not acceptable: write a whole number from {least} to {most}")
    return int(text)


def _unknown(what: str, name: object, allowed: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(str(name)[:40], allowed, 1, 0.5)
    if near:
        return f"there is no {what} {quoted(name)}; did you mean {near[0]!r}?"
    known = f"known are {', '.join(allowed)}" if allowed else f"this request takes no {what}s"
    return f"there is no {what} {quoted(name)}; {known}"
