"""A playbook as people write it: one YAML document, in which every mistake is named by its line. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from kiki.engage.journey_text import JourneyReader
from kiki.engage.playbook import (
    DAY,
    FIELDS,
    Cap,
    ChannelRule,
    MessageText,
    Offer,
    Playbook,
)
from kiki.engage.playbook_reader import parse_span
from kiki.engage.quiet_hours import zone_named
from kiki.engage.segment import Condition, InSegment, parts_of
from kiki.engage.template import part_problems
from kiki.errors import InvalidInput, PlaybookError
from kiki.yaml_document import PROBLEMS_MAX, Map, Node, Text, Unreadable, compose, shown

PLAYBOOK_ACCEPTED: Final = "write a mapping with 'playbook', 'currency', 'messages', 'offers' and 'journeys'"
KEYS: Final = (
    *("playbook", "currency", "purpose", "zone", "holdout", "explore", "horizon", "margin", "cooldown", "caps"),
    *("channels", "segments", "messages", "offers", "journeys"),
)
CALENDAR: Final = {"day": DAY, "week": 7 * DAY, "month": 31 * DAY}
NAMES_MAX: Final = 500
TEXT_CHARS_MAX: Final = 100_000

_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_CHANNEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_PURPOSE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


def parse_playbook(text: str, source: str = "playbook") -> Playbook:
    """The playbook in a YAML text.

    Raises `PlaybookError`, whose `problems` are every mistake as `source:line: what is wrong; what is accepted`.
    """
    reader = _Reader()
    try:
        playbook = reader.playbook(compose(text, "playbook", PLAYBOOK_ACCEPTED))
    except Unreadable as error:
        raise PlaybookError([f"{source}:{error.line}: {error.problem}"]) from error.__cause__
    if reader.problems or playbook is None:
        problems = [f"{source}:{line}: {problem}" for line, problem in sorted(reader.problems, key=lambda one: one[0])]
        raise PlaybookError(problems[:PROBLEMS_MAX])
    return playbook


class _Reader(JourneyReader):
    def playbook(self, node: Node | None) -> Playbook | None:
        if not isinstance(node, Map):
            at = node or Text(1, "", plain=True)
            self.wrong(at, f"the playbook is {node.kind if node else 'empty'}; {PLAYBOOK_ACCEPTED}")
            return None
        fields = self.fields(node, "the playbook", KEYS)
        for needed in ("playbook", "currency", "messages", "offers", "journeys"):
            if needed not in fields:
                self.wrong(node, f"the playbook has no '{needed}'; {PLAYBOOK_ACCEPTED}")
        name = self.name(fields["playbook"], "'playbook'") if "playbook" in fields else None
        currency = self._pattern(fields, "currency", _CURRENCY, "write three capital letters, such as USD")
        purpose = self._pattern(fields, "purpose", _PURPOSE, "write a purpose of consent, such as marketing")
        zone = self._zone(fields["zone"]) if "zone" in fields else ""
        spans = {key: self.span(fields, key) for key in ("horizon", "cooldown")}
        shares = {key: self.share(fields, key) for key in ("holdout", "explore", "margin")}
        if shares["holdout"] is not None and shares["holdout"] > 900_000:
            self.wrong(fields["holdout"], "holdout is more than 90%: nobody would be left to write to")
        channels = self._channels(fields["channels"]) if "channels" in fields else {}
        caps = self._caps(fields["caps"]) if "caps" in fields else ()
        segments = self._segments(fields["segments"]) if "segments" in fields else {}
        messages = self._messages(fields["messages"]) if "messages" in fields else {}
        offers = self._offers(fields["offers"], messages) if "offers" in fields else {}
        journeys = self.journeys(fields["journeys"], offers, segments) if "journeys" in fields else ()
        if self.problems or name is None or currency is None:
            return None
        made = Playbook(
            name=name,
            currency=currency,
            journeys=journeys,
            offers=offers,
            messages=messages,
            segments=segments,
            channels=channels,
            caps=caps,
            cooldown=spans["cooldown"] or 0,
            holdout=100_000 if shares["holdout"] is None else shares["holdout"],
            explore=100_000 if shares["explore"] is None else shares["explore"],
            horizon=spans["horizon"] or 90 * DAY,
            margin_rate=1_000_000 if shares["margin"] is None else shares["margin"],
            purpose=purpose or "marketing",
            zone=zone,
        )
        for offer in made.offers:
            told = made.offers[offer].gain
            if told is not None and told < made.cost_of(offer):
                self.wrong(fields["offers"], f"offer '{offer}' is believed to gain less than it costs: leave it out")
        return None if self.problems else made

    # -- what stands beside the journeys -------------------------------------------------------------

    def _pattern(self, fields: Mapping[str, Node], key: str, pattern: re.Pattern[str], accepted: str) -> str | None:
        text = self.text(fields[key], f"'{key}'", accepted) if key in fields else None
        if text is not None and not pattern.fullmatch(text):
            self.wrong(fields[key], f"{key} {shown(text)} cannot be used; {accepted}")
            return None
        return text

    def _zone(self, node: Node) -> str:
        accepted = "write a zone of the IANA list, such as Europe/Vienna"
        text = self.text(node, "'zone'", accepted)
        if text is not None and zone_named(text) is None:
            self.wrong(node, f"zone {shown(text)} is not known; {accepted}")
        return text or ""

    def _channels(self, node: Node) -> dict[str, ChannelRule]:
        made = {}
        for name, value in self.named(node, "'channels'", 50).items():
            one = self.mapping(value, f"channel '{name}'", "write its cost and quiet_hours")
            fields = self.fields(one, f"channel '{name}'", ("cost", "quiet_hours")) if one is not None else {}
            quiet = self.quiet(fields["quiet_hours"]) if "quiet_hours" in fields else None
            made[name] = ChannelRule(self.money(fields, "cost") or 0, quiet)
        return made

    def _caps(self, node: Node) -> tuple[Cap, ...]:
        accepted = "write {messages: 2, per: 7d}; per may also be day, week or month, counted where the person is"
        made = []
        for each in self.items(node, "'caps'", 20, "write a list of caps"):
            one = self.mapping(each, "a cap", accepted)
            if one is None:
                continue
            fields = self.fields(one, "a cap", ("messages", "per", "channel"))
            for needed in ("messages", "per"):
                if needed not in fields:
                    self.wrong(one, f"a cap has no '{needed}'; {accepted}")
            messages = self.whole(fields, "messages", 1, 10_000)
            span = self.given(fields, "per", _span_or_calendar, accepted)
            channel = self._pattern(fields, "channel", _CHANNEL, "write a channel, such as email")
            if messages is not None and span is not None:
                made.append(Cap(messages, span[0], span[1], channel or ""))
        return tuple(made)

    def _segments(self, node: Node) -> dict[str, Condition]:
        named = self.named(node, "'segments'", NAMES_MAX)
        made = {name: found for name, value in named.items() if (found := self.condition(value, named)) is not None}
        for name in made:
            if name in _reached(name, made):
                self.wrong(named[name], f"segment '{name}' is made of itself; write its conditions out")
        return made

    def _messages(self, node: Node) -> dict[str, MessageText]:
        made = {}
        for name, value in self.named(node, "'messages'", NAMES_MAX).items():
            accepted = "write its channel and text, and for e-mail its subject"
            one = self.mapping(value, f"message '{name}'", accepted)
            if one is None:
                continue
            fields = self.fields(one, f"message '{name}'", ("channel", "subject", "text", "html"))
            for needed in ("channel", "text"):
                if needed not in fields:
                    self.wrong(one, f"message '{name}' has no '{needed}'; {accepted}")
            channel = self._pattern(fields, "channel", _CHANNEL, "write a channel, such as email")
            if channel == "email" and "subject" not in fields:
                self.wrong(one, f"message '{name}' has no 'subject'; {accepted}")
            texts = {
                key: self.text(fields[key], f"'{key}'", "write what the person reads") or ""
                for key in ("subject", "text", "html")
                if key in fields
            }
            for key, text in texts.items():
                if len(text) > TEXT_CHARS_MAX:
                    self.wrong(fields[key], f"{key} has more than {TEXT_CHARS_MAX} characters")
                elif text or not self.is_wrong(fields[key]):
                    for problem in part_problems(key, text, FIELDS):
                        self.wrong(fields[key], f"message '{name}': {problem}")
            if channel is not None and "text" in texts:
                made[name] = MessageText(channel, texts["text"], texts.get("subject", ""), texts.get("html", ""))
        return made

    def _offers(self, node: Node, messages: Collection[str]) -> dict[str, Offer]:
        made = {}
        for name, value in self.named(node, "'offers'", NAMES_MAX).items():
            accepted = "write its message, and its cost where it has one"
            one = self.mapping(value, f"offer '{name}'", accepted)
            if one is None:
                continue
            fields = self.fields(one, f"offer '{name}'", ("message", "cost", "discount", "gain"))
            if "message" not in fields:
                self.wrong(one, f"offer '{name}' has no 'message'; {accepted}")
            message = self.known_name(fields["message"], "message", messages) if "message" in fields else None
            discount = self.number(fields["discount"], "'discount'") if "discount" in fields else 0.0
            if discount is not None and not 0 <= discount <= 100:
                self.wrong(fields["discount"], "discount is in per cent, from 0 to 100")
            cost, gain = self.money(fields, "cost"), self.money(fields, "gain")
            if message is not None and discount is not None:
                made[name] = Offer(message, cost or 0, discount, gain)
        return made


def _span_or_calendar(text: str) -> tuple[int, str]:
    if text in CALENDAR:
        return CALENDAR[text], text
    try:
        return parse_span(text), ""
    except InvalidInput:
        raise InvalidInput(f"{shown(text)} is neither a span such as 7d nor day, week or month") from None


def _reached(name: str, segments: Mapping[str, Condition]) -> set[str]:
    """Every segment that a segment is made of, through others too."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        condition = segments.get(waiting.pop())
        for part in () if condition is None else parts_of(condition):
            if isinstance(part, InSegment) and part.name not in found:
                found.add(part.name)
                waiting.append(part.name)
    return found
