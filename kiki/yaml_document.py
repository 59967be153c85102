"""A YAML text that a person wrote, read so that every mistake can be named by its line. Pure.

Only events are read, never constructors; tags, directives, merge keys and several documents are refused, and size,
depth and number of values are limited, with every alias counted as what it stands for. What a text may hold is the
reader's business: `Reader` is where one begins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

TEXT_BYTES_MAX: Final = 2**20
DEPTH_MAX: Final = 16
VALUES_MAX: Final = 200_000
PROBLEMS_MAX: Final = 100

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)


class Unreadable(Exception):
    """The text cannot be read as one YAML value, so nothing can be said about its parts."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar."""

    line: int
    text: str
    plain: bool

    kind = "text"

    @property
    def is_null(self) -> bool:
        """Whether YAML means nothing by it."""
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class List:
    """A sequence."""

    line: int
    items: list[Node]

    kind = "a list"


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping, as it was written: keys may come twice."""

    line: int
    items: list[Node]
    """Keys and values in turn."""

    kind = "a mapping"

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Keys with their values."""
        return zip(self.items[::2], self.items[1::2], strict=True)


Node = Text | List | Map


def compose(text: str, what: str, accepted: str) -> Node | None:
    """The text's one YAML value, None when there is none; raises `Unreadable`, which calls the text `what`.

    It reads parse events instead of `yaml.compose`: that one recurses as deep as the text says, and its nodes no
    longer tell a tag that somebody wrote from one that YAML guessed.
    """
    import yaml

    if len(text) > TEXT_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        raise Unreadable(1, f"the {what} is too large; write at most 1 MiB")
    text = text.removeprefix("\ufeff")
    if bad := _UNPRINTABLE.search(text):
        problem = f"the character U+{ord(bad[0]):04X} is not text; write UTF-8 without control characters"
        raise Unreadable(text.count("\n", 0, bad.start()) + 1, problem)
    if directive := _DIRECTIVE.search(text):
        line = text.count("\n", 0, directive.start()) + 1
        raise Unreadable(line, f"a line begins with %, a YAML directive; write the {what} without directives")
    try:
        return _built(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), what)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"the text is not YAML ({' '.join(filter(None, (error.context, error.problem)))})"
        hint = '; a bare * begins an alias: write "*" in quotes' if "alias" in (error.context or "") else ""
        raise Unreadable(mark.line + 1 if mark else 1, problem + (hint or f"; {accepted}")) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the pure scanner lets chr() speak for itself
        raise Unreadable(1, f"the text is not YAML ({' '.join(str(error).split())}); {accepted}") from error


def _built(events: Any, what: str) -> Node | None:
    import yaml

    root: list[Node] = []
    path: list[_Open] = []  # the collections that are open, outermost first
    anchors: dict[str, _Anchored | None] = {}  # None: still open
    documents = values = 0
    for event in events:
        line: int = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise Unreadable(line, f"a second document begins; write one {what} without --- inside")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = path.pop()
            if path:
                path[-1].levels = max(path[-1].levels, closed.levels + 1)
            if closed.anchor is not None:
                anchors[closed.anchor] = _Anchored(closed.node, values - closed.before, closed.levels)
        elif isinstance(event, yaml.NodeEvent):
            known = _aliased(event.anchor or "", anchors, line) if isinstance(event, yaml.AliasEvent) else None
            before = values
            values += known.values if known is not None else 1
            if values > VALUES_MAX:
                raise Unreadable(line, f"there are too many values; write at most {VALUES_MAX}")
            into = path[-1].items if path else root
            if known is not None:
                if len(path) + known.levels > DEPTH_MAX:
                    raise Unreadable(line, f"values are nested too deep; write at most {DEPTH_MAX} levels")
                if path:
                    path[-1].levels = max(path[-1].levels, known.levels + 1)
                into.append(replace(known.node, line=line))
                continue
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise Unreadable(line, f"the tag {shown(tag)} is not read; write the value without a tag")
            if isinstance(event, yaml.ScalarEvent):
                scalar = Text(line, event.value, not event.style)
                into.append(scalar)
                if event.anchor is not None:
                    anchors[event.anchor] = _Anchored(scalar, 1, 0)
                continue
            if len(path) == DEPTH_MAX:
                raise Unreadable(line, f"values are nested too deep; write at most {DEPTH_MAX} levels")
            items: list[Node] = []
            made = Map(line, items) if isinstance(event, yaml.MappingStartEvent) else List(line, items)
            into.append(made)
            path.append(_Open(items, event.anchor, made, before))
            if event.anchor is not None:
                anchors[event.anchor] = None
    return root[0] if root else None


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    items: list[Node]
    anchor: str | None
    node: Node
    before: int
    """How many values there were before it."""
    levels: int = 1
    """How deep it nests so far, itself included."""


class _Anchored(NamedTuple):
    """What an alias stands for, and how much that is: whoever reads the tree goes through all of it each time."""

    node: Node
    values: int
    levels: int


def _aliased(name: str, anchors: Mapping[str, _Anchored | None], line: int) -> _Anchored:
    if name not in anchors:
        raise Unreadable(
            line, f'the alias *{name} stands for nothing; write &{name} before it, or "*{name}" when it is text'
        )
    known = anchors[name]
    if known is None:
        raise Unreadable(line, f"the alias *{name} contains itself; write the value out")
    return known


class Reader:
    """Turns nodes into values and notes every mistake, so that one reading reports them all."""

    def __init__(self) -> None:
        self._noted: dict[tuple[int, str], None] = {}
        self._lines: set[int] = set()

    @property
    def problems(self) -> list[tuple[int, str]]:
        """What was noted so far: line and words."""
        return list(self._noted)

    def wrong(self, node: Node, problem: str) -> None:
        """Note a mistake."""
        self._noted[node.line, problem] = None
        self._lines.add(node.line)

    def is_wrong(self, node: Node) -> bool:
        """Whether a mistake was noted on its line."""
        return node.line in self._lines

    def nearest(self, text: str, known: Collection[str]) -> list[str]:
        """What may have been meant, or nothing; it is slow to find, so not for more mistakes than anybody is told."""
        return get_close_matches(text[:64].lower(), known, n=1) if len(self._noted) < PROBLEMS_MAX else []

    def fields(self, node: Map, owner: str, known: tuple[str, ...]) -> dict[str, Node]:
        """The values of a mapping by their keys; notes every key that is not `known`, with the nearest that is."""
        accepted = f"the keys are {', '.join(known)}"
        fields: dict[str, Node] = {}
        for key, value in node.pairs():
            if not isinstance(key, Text):
                self.wrong(key, f"{owner} has {key.kind} as a key; {accepted}")
            elif key.text in fields:
                self.wrong(key, f"{owner} has the key '{key.text}' twice; write it once")
            elif key.text in known:
                fields[key.text] = value
            elif key.text == "<<":
                self.wrong(key, f"{owner} has the merge key '<<'; write the keys out ({accepted})")
            elif key.plain and key.text.isdigit():
                hint = "a comma ends a value inside braces, so write 1000 instead of 1,000"
                self.wrong(key, f"{owner} has the unknown key {shown(key.text)}; {hint} ({accepted})")
            else:
                near = self.nearest(key.text, known)
                meant = f"did you mean '{near[0]}'? {accepted}" if near else accepted
                self.wrong(key, f"{owner} has the unknown key {shown(key.text)}; {meant}")
        return fields

    def text(self, node: Node, what: str, accepted: str) -> str | None:
        """The text of a scalar that is not empty; None, and noted, for anything else."""
        if not isinstance(node, Text):
            self.wrong(node, f"{what} is {node.kind}; {accepted}")
        elif node.is_null or not node.text:
            self.wrong(node, f"{what} has no value; {accepted}")
        else:
            return node.text
        return None

    def items(self, node: Node, what: str, most: int, accepted: str) -> list[Node]:
        """The items of a list of 1 to `most`; notes anything else."""
        if not isinstance(node, List):
            none = isinstance(node, Text) and node.is_null
            self.wrong(node, f"{what} has no value; {accepted}" if none else f"{what} is {node.kind}; {accepted}")
            return []
        if not node.items:
            self.wrong(node, f"{what} is an empty list; {accepted}")
        if len(node.items) > most:
            self.wrong(node, f"{what} holds {len(node.items)}; write at most {most}")
        return node.items[:most]


def shown(text: str) -> str:
    """What somebody wrote, short enough for a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
