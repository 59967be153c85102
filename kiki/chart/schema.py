"""Values against values.schema.json: every mistake at once, by its key, with what is accepted. Pure.

It knows the words that our schema is made of and refuses one that uses others; a test compares it with jsonschema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
}
_NAMES: Final = {
    "object": "a mapping", "array": "a list", "string": "text", "boolean": "true or false",
    "integer": "a whole number", "number": "a number",
}  # fmt: skip
KNOWN: Final = frozenset(
    {
        "$schema", "title", "description", "x-superseded", "x-accepted", "type", "properties", "required", "items", "allOf",
        "additionalProperties", "propertyNames", "enum", "pattern", "not", "minimum", "maximum", "minItems",
    }
)  # fmt: skip


def problems(values: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values, one sentence each."""
    return list(dict.fromkeys(_Check(schema).of(values, schema, "")))


def fits(value: object, kind: str) -> bool:
    """Whether a value is of a kind as JSON Schema sees it: true is no number, 2.0 is whole."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _KINDS[kind])


class _Check:
    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._superseded: Mapping[str, str] = schema.get("x-superseded", {})

    def of(self, value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        """The mistakes of one value and of all below it."""
        if foreign := schema.keys() - KNOWN:
            raise AssertionError(f"the schema of {path} uses {foreign}, which nothing here checks")
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(fits(value, kind) for kind in kinds):
            accepted = schema.get("x-accepted") or " or ".join(_NAMES[kind] for kind in kinds)
            yield f"{path or 'the values'}: expected {accepted}, not {_shown(value)}"
            return
        yield from self._scalar(value, schema, path)
        if isinstance(value, dict):
            yield from self._mapping(value, schema, path)
        elif isinstance(value, list):
            if len(value) < schema.get("minItems", 0):
                yield f"{path}: expected at least {schema['minItems']} item"
            for number, item in enumerate(value):
                yield from self.of(item, schema.get("items", {}), f"{path}[{number}]")

    def _scalar(self, value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        accepted = schema.get("x-accepted")
        if "enum" in schema and value not in schema["enum"]:
            yield f"{path}: expected {' or '.join(word or 'nothing' for word in schema['enum'])}, not {_shown(value)}"
        if isinstance(value, str) and not _allowed(value, schema):
            yield f"{path}: expected {accepted}, not {_shown(value)}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = schema.get("minimum"), schema.get("maximum")
            if (low is not None and value < low) or (high is not None and value > high):
                wanted = f"from {low} to {high}" if high is not None else f"of at least {low}"
                yield f"{path}: expected a number {wanted}, not {_shown(value)}"

    def _mapping(self, value: dict[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        names = schema.get("propertyNames", {})
        for missing in [key for key in schema.get("required", []) if key not in value]:
            yield f"{path}: {missing} is missing"
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            if not _allowed(key, names):
                yield f"{here}: expected {names.get('x-accepted', 'another name')}"
            elif key in known:
                yield from self.of(item, known[key], here)
            elif isinstance(others, dict):
                yield from self.of(item, others, here)
            elif others is False:
                yield f"{here}: {self._unknown(here, key, list(known))}"

    def _unknown(self, path: str, key: str, known: list[str]) -> str:
        if path in self._superseded:
            return f"superseded; {self._superseded[path]}"
        near = get_close_matches(key[:64], known, n=1)
        return f"unknown; did you mean {near[0]}?" if near else f"unknown; the keys here are {', '.join(known)}"


def _allowed(text: str, schema: Mapping[str, Any]) -> bool:
    """Patterns are searched for, as JSON Schema has it; ours say themselves where they begin and end."""
    parts = [schema, *schema.get("allOf", [])]
    wanted = all(_found(part["pattern"], text) for part in parts if "pattern" in part)
    return wanted and not ("not" in schema and _found(schema["not"]["pattern"], text))


def _found(pattern: str, text: str) -> bool:
    # A final `$` of ours means the end of the text; Python's would also allow a line end before it.
    return re.search(re.sub(r"\$\Z", r"\\Z", pattern), text) is not None


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
