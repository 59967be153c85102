"""A values file's text as values, with every mistake by its line. Pure.

YAML of two generations reads the same word differently (`no`, `0123`, `1_000`), and so may Helm of two versions. Such a
word is refused: a value must mean the same to everybody who reads the file.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kiki.yaml_document import List, Map, Node, Reader, Text, Unreadable, compose, shown

ACCEPTED: Final = "expected a mapping of values, as in values.yaml"
NODES_MAX: Final = 100_000
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS: Final = re.compile(r"[yYnN]|[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF")
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]{1,3})?")
_ODD: Final = re.compile(
    r"[-+]?(0[0-9_]+|0[xob][0-9A-Fa-f_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(:[0-5]?[0-9])+|\.(inf|Inf|INF|nan|NaN|NAN))"
)


def parse(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """The values in a text and every problem of it, `source` before each."""
    try:
        node = compose(text, "values file", ACCEPTED)
    except Unreadable as error:
        return {}, [f"{source}:{error.line}: {error.problem}"]
    if node is None or (isinstance(node, Text) and node.is_null):
        return {}, []
    reader = _ValueReader()
    values = reader.value(node)
    problems = [f"{source}:{line}: {problem}" for line, problem in reader.problems]
    if not isinstance(values, dict):
        return {}, problems or [f"{source}:{node.line}: {ACCEPTED}"]
    return values, problems


class _ValueReader(Reader):
    def __init__(self) -> None:
        super().__init__()
        self._nodes = 0

    def value(self, node: Node) -> Any:
        """The node as a value; notes what has no one meaning."""
        self._nodes += 1
        if self._nodes > NODES_MAX:  # an alias may stand for many values, and they for more
            if self._nodes == NODES_MAX + 1:
                self.wrong(node, f"there are too many values; write at most {NODES_MAX}")
            return None
        if isinstance(node, List):
            return [self.value(item) for item in node.items]
        if isinstance(node, Map):
            return self._mapping(node)
        return self._scalar(node)

    def _mapping(self, node: Map) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, item in node.pairs():
            if not isinstance(key, Text):
                self.wrong(key, f"{key.kind} is no key; write a word")
            elif key.text == "<<" and key.plain:
                self.wrong(key, "the merge key '<<' is not read; write the keys out")
            elif key.text in values:
                self.wrong(key, f"the key '{key.text}' comes twice; write it once")
            else:
                values[key.text] = self.value(item)
        return values

    def _scalar(self, node: Text) -> Any:
        text = node.text
        if not node.plain:
            return text
        if node.is_null:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _WORDS.fullmatch(text):
            self.wrong(
                node, f"{text} is true or false to some and a word to others; write true or false, or quotes around it"
            )
        elif _ODD.fullmatch(text):
            self.wrong(
                node,
                f"{shown(text)} is a number to some and text to others; write it in plain digits, or quotes around it",
            )
        elif _FLOAT.fullmatch(text):
            return float(text)
        return text
