"""Reading the small things of a playbook: names, spans, shares, money, hours, conditions. Pure.

Every mistake is noted with its line, what is accepted and, for a name, the nearest that there is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

from kiki.engage.holdout import parse_share
from kiki.engage.playbook import QuietHours
from kiki.engage.segment import (
    EVENTS,
    NUMBERS,
    TEXTS,
    All,
    AnyOf,
    Comparison,
    Condition,
    Happened,
    InSegment,
    IsAbsent,
    Not,
    NumberIs,
    TextIs,
)
from kiki.errors import InvalidInput, KikiError
from kiki.money import parse_micros
from kiki.yaml_document import List, Map, Node, Reader, Text, shown

NAME_ACCEPTED: Final = "write 1 to 64 of a-z, 0-9, _ and -, and begin with a letter or a digit, such as win-back"
SPAN_ACCEPTED: Final = "write a span such as 45m, 12h, 3d or 2w"
SHARE_ACCEPTED: Final = "write a share such as 10% or 0.1"
MONEY_ACCEPTED: Final = "write an amount such as 4.00"
HOURS_ACCEPTED: Final = 'write hours such as "21:00-08:00"'
CONDITION_ACCEPTED: Final = (
    f"write one condition, such as {{days_since_purchase: {{over: 60}}}}; there are all, any, not, in, event, "
    f"{', '.join((*NUMBERS, *TEXTS))}"
)
NUMBER_ACCEPTED: Final = "write {over: N}, {at_least: N}, {under: N}, {at_most: N}, two of them, or {absent: true}"
PARTS_MAX: Final = 50

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SPAN: Final = re.compile(r"([0-9]{1,5})(s|m|h|d|w)")
_HOURS: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])\s*-\s*([01]?[0-9]|2[0-3]):([0-5][0-9])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?")
_TRUTH: Final = {"true": True, "false": False, "yes": True, "no": False}
_Value = TypeVar("_Value")


def parse_span(text: str) -> int:
    """Microseconds in 45m, 12h, 3d, 2w; raises `InvalidInput`."""
    found = _SPAN.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise InvalidInput(f"{shown(text)} is no span; {SPAN_ACCEPTED}")
    return int(found[1]) * _UNITS[found[2]] * 1_000_000


class PlaybookReader(Reader):
    """What the parts of a playbook have in common."""

    def name(self, node: Node, what: str) -> str | None:
        """A name of somebody's own choosing."""
        text = self.text(node, what, NAME_ACCEPTED)
        if text is not None and not _NAME.fullmatch(text):
            self.wrong(node, f"{what} {shown(text)} is not a name; {NAME_ACCEPTED}")
            return None
        return text

    def known_name(self, node: Node, what: str, names: Collection[str]) -> str | None:
        """A name that stands elsewhere in the playbook, or in a list of ours."""
        accepted = f"there is {', '.join(sorted(names)[:20])}" if names else "there is none"
        text = self.text(node, what, accepted)
        if text is None or text in names:
            return text
        near = self.nearest(text, names)
        meant = f"did you mean '{near[0]}'? " if near else ""
        self.wrong(node, f"{what} {shown(text)} is not known; {meant}{accepted}")
        return None

    def given(
        self, fields: Mapping[str, Node], key: str, parse: Callable[[str], _Value], accepted: str
    ) -> _Value | None:
        """A value that is read from one text; None, and noted, where it cannot be."""
        if key not in fields:
            return None
        text = self.text(fields[key], f"'{key}'", accepted)
        try:
            return None if text is None else parse(text)
        except KikiError as error:
            self.wrong(fields[key], f"{key}: {error}")
            return None

    def span(self, fields: Mapping[str, Node], key: str) -> int | None:
        """A span in microseconds."""
        return self.given(fields, key, parse_span, SPAN_ACCEPTED)

    def share(self, fields: Mapping[str, Node], key: str) -> int | None:
        """A share in parts of a million."""
        return self.given(fields, key, parse_share, SHARE_ACCEPTED)

    def money(self, fields: Mapping[str, Node], key: str) -> int | None:
        """Micros, zero included."""
        return self.given(fields, key, lambda text: parse_micros(text.removeprefix("$"), zero=True), MONEY_ACCEPTED)

    def whole(self, fields: Mapping[str, Node], key: str, least: int, most: int) -> int | None:
        """A whole number within bounds."""
        accepted = f"write a whole number from {least} to {most}"
        text = self.text(fields[key], f"'{key}'", accepted) if key in fields else None
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
            self.wrong(fields[key], f"{key} {shown(text)} cannot be used; {accepted}")
            return None
        return int(text)

    def number(self, node: Node, what: str) -> float | None:
        """A number with a sign and decimals, at most a billion million."""
        text = self.text(node, what, "write a number")
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            self.wrong(node, f"{what} {shown(text)} is not a number; write one such as 60 or 0.5")
            return None
        return float(text)

    def truth(self, node: Node, what: str) -> bool | None:
        """True or false."""
        text = self.text(node, what, "write true or false")
        if text is None:
            return None
        if text not in _TRUTH:
            self.wrong(node, f"{what} is {shown(text)}; write true or false")
        return _TRUTH.get(text)

    def quiet(self, node: Node) -> QuietHours | None:
        """Quiet hours: from and to, where the person is."""
        text = self.text(node, "'quiet_hours'", HOURS_ACCEPTED)
        if text is None:
            return None
        found = _HOURS.fullmatch(text)
        if found is None:
            self.wrong(node, f"quiet_hours {shown(text)} are not hours; {HOURS_ACCEPTED}")
            return None
        begins, ends = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
        if begins == ends:
            self.wrong(node, "quiet_hours begin when they end; leave them out where nothing is quiet")
            return None
        return QuietHours(begins, ends)

    def mapping(self, node: Node, what: str, accepted: str) -> Map | None:
        """A mapping; None, and noted, for anything else."""
        if isinstance(node, Map):
            return node
        self.wrong(node, f"{what} is {node.kind}; {accepted}")
        return None

    # -- conditions ----------------------------------------------------------------------------------

    def condition(self, node: Node, names: Collection[str]) -> Condition | None:
        """One condition about a customer; `names` are the segments that may be named in it."""
        one = self.mapping(node, "a condition", CONDITION_ACCEPTED)
        if one is None:
            return None
        known = ("all", "any", "not", "in", "event", "within", "at_least", *NUMBERS, *TEXTS)
        fields = self.fields(one, "a condition", known)
        if "event" in fields:
            return self._happened(one, fields)
        if len(fields) != 1:
            if not self.is_wrong(one):
                self.wrong(one, f"a condition says one thing, and this one says {len(fields)}; join them with 'all'")
            return None
        ((key, value),) = fields.items()
        if key in {"all", "any"}:
            parts = [self.condition(each, names) for each in self.items(value, f"'{key}'", PARTS_MAX, "write a list")]
            good = tuple(part for part in parts if part is not None)
            return None if len(good) < len(parts) or not good else All(good) if key == "all" else AnyOf(good)
        if key == "not":
            part = self.condition(value, names)
            return None if part is None else Not(part)
        if key == "in":
            name = self.known_name(value, "segment", names)
            return None if name is None else InSegment(name)
        if key in NUMBERS:
            return self._number_is(key, value)
        if key in TEXTS:
            return self._text_is(key, value)
        self.wrong(one, f"'{key}' goes with 'event'; {CONDITION_ACCEPTED}")
        return None

    def _happened(self, node: Map, fields: Mapping[str, Node]) -> Condition | None:
        event = self.known_name(fields["event"], "event", EVENTS)
        within, least = self.span(fields, "within"), self.whole(fields, "at_least", 1, 1_000_000)
        if "within" not in fields:
            self.wrong(node, f"a condition about an event needs 'within'; {SPAN_ACCEPTED}")
        for key in fields.keys() - {"event", "within", "at_least"}:
            self.wrong(fields[key], f"'{key}' does not go with 'event'; join conditions with 'all'")
        return None if event is None or within is None else Happened(event, within, least or 1)

    def _number_is(self, key: str, node: Node) -> Condition | None:
        one = self.mapping(node, f"'{key}'", NUMBER_ACCEPTED)
        if one is None:
            return None
        fields = self.fields(one, f"'{key}'", (*Comparison, "absent"))
        if "absent" in fields:
            if len(fields) > 1:
                self.wrong(one, f"'{key}' is absent or compared, not both; {NUMBER_ACCEPTED}")
            absent = self.truth(fields["absent"], "'absent'")
            return None if absent is None else IsAbsent(key, absent)
        bounds = []
        for name, value in fields.items():
            bound = self.number(value, f"'{name}'")
            if bound is not None and math.isfinite(bound):
                bounds.append((Comparison(name), bound))
        if not fields:
            self.wrong(one, f"'{key}' says nothing; {NUMBER_ACCEPTED}")
        return NumberIs(key, tuple(sorted(bounds))) if bounds and len(bounds) == len(fields) else None

    def _text_is(self, key: str, node: Node) -> Condition | None:
        accepted = "write a text or a list of texts"
        nodes = self.items(node, f"'{key}'", 200, accepted) if isinstance(node, List) else [node]
        texts = [text for each in nodes if (text := self.text(each, f"'{key}'", accepted)) is not None]
        return TextIs(key, tuple(sorted(set(texts)))) if texts and len(texts) == len(nodes) else None

    def named(self, node: Node, what: str, most: int) -> dict[str, Node]:
        """The values of a mapping whose keys are names of somebody's own choosing."""
        one = self.mapping(node, what, "write names with what they stand for")
        if one is None:
            return {}
        found: dict[str, Node] = {}
        for key, value in one.pairs():
            name = self.name(key, f"a name in {what}") if isinstance(key, Text) else None
            if name is None:
                if not isinstance(key, Text):
                    self.wrong(key, f"{what} has {key.kind} as a name; {NAME_ACCEPTED}")
            elif name in found:
                self.wrong(key, f"{what} has the name '{name}' twice")
            else:
                found[name] = value
        if len(found) > most:
            self.wrong(one, f"{what} holds {len(found)}; write at most {most}")
        return found
