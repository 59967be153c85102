"""What follows `--set`: Helm's small language of a.b=c, list={x,y}, a[0].b=c and backslashes. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

INDEX_MAX: Final = 1024
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FORM: Final = "expected key=value, for example syncshield.replicaCount=3 or 'hosts={a,b}'"


class BadExpression(Exception):
    """The expression cannot be read; its text says why."""


def parse_set(expression: str) -> dict[str, Any]:
    """The values that an expression sets; raises `BadExpression`."""
    values: dict[str, Any] = {}
    for part in _split(expression, ",", braces=True):
        key, equals, value = _cut(part)
        if not equals:
            raise BadExpression(f"{part.strip()!r} has no value: {_FORM}")
        _put(values, _path(key), _value(value))
    return values


def _split(text: str, divider: str, *, braces: bool = False) -> list[str]:
    """The parts between dividers that no backslash and no brace protects; the backslashes stay."""
    parts, current, depth, escaped = [], "", 0, False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif braces and letter == "{":
            depth += 1
        elif braces and letter == "}" and depth:
            depth -= 1
        elif letter == divider and not depth:
            parts.append(current)
            current = ""
            continue
        current += letter
    if depth:
        raise BadExpression(f"{text!r}: the list has no closing brace")
    return [part for part in [*parts, current] if part]


def _cut(part: str) -> tuple[str, str, str]:
    found = re.match(r"((?:[^=\\]|\\.)*)(=)(.*)\Z", part, re.DOTALL)
    return (found[1], found[2], found[3]) if found else (part, "", "")


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _path(key: str) -> list[str | int]:
    path: list[str | int] = []
    for part in _split(key, "."):
        found = re.fullmatch(r"(.*?)((?:\[[0-9]+\])*)", part, re.DOTALL)
        assert found is not None
        name, indices = found[1], found[2]
        if name or not indices:
            path.append(_plain(name))
        for index in re.findall(r"[0-9]+", indices):
            if int(index) > INDEX_MAX:
                raise BadExpression(f"{key!r}: the index {index} is too large; at most {INDEX_MAX}")
            path.append(int(index))
    if not path or not all(part != "" for part in path) or isinstance(path[0], int):
        raise BadExpression(f"{key!r} is no key: {_FORM}")
    return path


def _value(text: str) -> Any:
    if text.startswith("{"):
        if not text.endswith("}"):
            raise BadExpression(f"{text!r}: the list has no closing brace")
        return [_scalar(item) for item in _split(text[1:-1], ",")]
    return _scalar(text)


def _scalar(text: str) -> Any:
    plain = _plain(text)
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    return int(plain) if _NUMBER.fullmatch(text) else plain


def _put(values: dict[str, Any], path: list[str | int], value: Any) -> None:
    here: Any = values
    for part, following in zip(path, [*path[1:], None], strict=True):
        last = following is None
        fresh: Any = value if last else [] if isinstance(following, int) else {}
        if isinstance(part, int):
            here.extend([None] * (part + 1 - len(here)))
            present = here[part]
        else:
            present = here.get(part)
        if last or not isinstance(present, type(fresh)):
            here[part] = fresh
        here = here[part]
