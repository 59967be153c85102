"""A playbook as people write it: one YAML document, in which every mistake is named by its line. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from kiki.engage.holdout import PARTS
from kiki.engage.playbook import (
    DAY,
    FLOOR,
    GOAL,
    MARGIN,
    Cap,
    ChannelRule,
    Journey,
    Jump,
    MessageText,
    Offer,
    Playbook,
    Send,
    Split,
    Step,
    Wait,
    WaitFor,
)
from kiki.engage.playbook_reader import PlaybookReader, parse_span
from kiki.engage.quiet_hours import zone_named
from kiki.engage.segment import EVENTS, Condition, InSegment, parts_of
from kiki.errors import InvalidInput, PlaybookError
from kiki.yaml_document import PROBLEMS_MAX, List, Map, Node, Text, Unreadable, compose, shown

PLAYBOOK_ACCEPTED: Final = "write a mapping with 'playbook', 'currency', 'messages', 'offers' and 'journeys'"
KEYS: Final = (
    *("playbook", "currency", "purpose", "zone", "holdout", "explore", "horizon", "margin", "cooldown", "caps"),
    *("channels", "segments", "messages", "offers", "journeys"),
)
JOURNEY_KEYS: Final = ("enter", "again_after", "exit", "goal", "steps")
STEP_KEYS: Final = ("send", "name", "wait", "wait_for", "within", "otherwise", "split", "learn", "floor", "reward")
CALENDAR: Final = {"day": DAY, "week": 7 * DAY, "month": 31 * DAY}
STEPS_MAX: Final = 200
NAMES_MAX: Final = 500
DEPTH_MAX: Final = 4
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


@dataclass(slots=True)
class _Program:
    """The steps of one journey while they are flattened."""

    steps: list[Step]
    names: set[str]


class _Reader(PlaybookReader):
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
        journeys = self._journeys(fields["journeys"], offers, segments) if "journeys" in fields else ()
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

    # -- journeys ------------------------------------------------------------------------------------

    def _journeys(self, node: Node, offers: Collection[str], segments: Collection[str]) -> tuple[Journey, ...]:
        made = []
        named = self.named(node, "'journeys'", 100)
        if not named and not self.problems:
            self.wrong(node, "there is no journey; write at least one")
        for name, value in named.items():
            one = self.mapping(value, f"journey '{name}'", "write 'enter' and 'steps'")
            if one is not None and (journey := self._journey(name, one, offers, segments)) is not None:
                made.append(journey)
        return tuple(made)

    def _journey(self, name: str, node: Map, offers: Collection[str], segments: Collection[str]) -> Journey | None:
        fields = self.fields(node, f"journey '{name}'", JOURNEY_KEYS)
        for needed in ("enter", "steps"):
            if needed not in fields:
                self.wrong(node, f"journey '{name}' has no '{needed}'; it needs 'enter' and 'steps'")
        accepted = "write {segment: lapsed} or {event: cart_abandoned}"
        enter = self.mapping(fields["enter"], "'enter'", accepted) if "enter" in fields else None
        begins = self.fields(enter, "'enter'", ("segment", "event")) if enter is not None else {}
        if enter is not None and not begins:
            self.wrong(enter, f"'enter' says nothing; {accepted}")
        segment = self.known_name(begins["segment"], "segment", segments) if "segment" in begins else ""
        event = self.known_name(begins["event"], "event", EVENTS) if "event" in begins else ""
        exits = self.mapping(fields["exit"], "'exit'", "write {event: order}") if "exit" in fields else None
        leaves = self.fields(exits, "'exit'", ("event",)) if exits is not None else {}
        exit_event = self.known_name(leaves["event"], "event", EVENTS) if "event" in leaves else ""
        goal = self.mapping(fields["goal"], "'goal'", "write {event: order, within: 30d}") if "goal" in fields else None
        aims = self.fields(goal, "'goal'", ("event", "within")) if goal is not None else {}
        goal_event = self.known_name(aims["event"], "event", EVENTS) if "event" in aims else "order"
        if goal_event == "opened":
            self.wrong(
                aims["event"], "an open is no goal: mail programs open everything; take order, clicked or visited"
            )
        goal_span = self.span(aims, "within")
        program = _Program([], set())
        if "steps" in fields:
            self._steps(fields["steps"], program, offers, 0)
        if len(program.steps) > STEPS_MAX:
            self.wrong(fields["steps"], f"journey '{name}' has {len(program.steps)} steps; write at most {STEPS_MAX}")
        again = self.span(fields, "again_after")
        if self.problems:
            return None
        return Journey(
            name=name,
            steps=tuple(program.steps),
            segment=segment or "",
            event=event or "",
            again_after=again,
            exit_event=exit_event or "",
            goal_event=goal_event or "order",
            goal_span=goal_span or 30 * DAY,
        )

    def _steps(self, node: Node, program: _Program, offers: Collection[str], depth: int) -> None:
        accepted = "write a list of steps: send, wait, wait_for, split"
        if depth > DEPTH_MAX:
            self.wrong(node, f"splits are nested too deep; write at most {DEPTH_MAX} levels")
            return
        for each in self.items(node, "'steps'", STEPS_MAX, accepted):
            one = self.mapping(each, "a step", accepted)
            if one is not None:
                self._step(one, self.fields(one, "a step", STEP_KEYS), program, offers, depth)

    def _step(
        self, node: Map, fields: Mapping[str, Node], program: _Program, offers: Collection[str], depth: int
    ) -> None:
        kinds = [key for key in ("send", "wait", "wait_for", "split") if key in fields]
        if len(kinds) != 1:
            self.wrong(node, "a step is one of send, wait, wait_for and split")
            return
        (kind,) = kinds
        companions = {
            "send": {"name"},
            "wait_for": {"within", "otherwise"},
            "split": {"name", "learn", "floor", "reward"},
        }.get(kind, set())
        for key in fields.keys() - companions - {kind}:
            self.wrong(fields[key], f"'{key}' does not go with '{kind}'")
        if kind == "send":
            self._send(fields, program, offers)
        elif kind == "wait":
            span = self.span(fields, "wait")
            if span is not None:
                program.steps.append(Wait(span))
        elif kind == "wait_for":
            event = self.known_name(fields["wait_for"], "event", EVENTS)
            span = self.span(fields, "within")
            if "within" not in fields:
                self.wrong(node, "'wait_for' needs 'within', such as 7d")
            how = (
                self.known_name(fields["otherwise"], "'otherwise'", ("go_on", "leave")) if "otherwise" in fields else ""
            )
            if event is not None and span is not None:
                program.steps.append(WaitFor(event, span, ends=how != "leave"))
        else:
            self._split(node, fields, program, offers, depth)

    def _send(self, fields: Mapping[str, Node], program: _Program, offers: Collection[str]) -> None:
        node = fields["send"]
        nodes = (
            self.items(node, "'send'", 20, "write an offer or a list of offers") if isinstance(node, List) else [node]
        )
        chosen = [self.known_name(each, "offer", offers) for each in nodes]
        name = self._step_name(fields, program, "send")
        if None not in chosen and name is not None:
            names = tuple(dict.fromkeys(each for each in chosen if each is not None))
            program.steps.append(Send(name, names))

    def _split(
        self, node: Map, fields: Mapping[str, Node], program: _Program, offers: Collection[str], depth: int
    ) -> None:
        accepted = "write a list of {share: 50%, steps: [...]}, whose shares add up to 100%"
        name = self._step_name(fields, program, "split")
        shares: list[int] = []
        targets: list[int] = []
        ends: list[int] = []
        place = len(program.steps)
        program.steps.append(Jump(0))
        for each in self.items(fields["split"], "'split'", 20, accepted):
            one = self.mapping(each, "an arm of a split", accepted)
            if one is None:
                continue
            arm = self.fields(one, "an arm of a split", ("share", "steps"))
            share = self.share(arm, "share")
            if "share" not in arm and "learn" not in fields:
                self.wrong(one, f"an arm of a split has no 'share'; {accepted}")
            shares.append(share or 0)
            targets.append(len(program.steps))
            if "steps" in arm and not (isinstance(arm["steps"], List) and not arm["steps"].items):
                self._steps(arm["steps"], program, offers, depth + 1)
            ends.append(len(program.steps))
            program.steps.append(Jump(0))
        learns, floor, reward = self._learning(node, fields, len(shares))
        if learns and shares and not any(shares):
            shares = [PARTS // len(shares) + (place < PARTS % len(shares)) for place in range(len(shares))]
        if sum(shares) != PARTS and not self.problems:
            self.wrong(node, f"the shares of a split add up to {sum(shares) / 10_000:g}%; {accepted}")
        for end in ends:
            program.steps[end] = Jump(len(program.steps))
        program.steps[place] = Split(name or "split", tuple(shares), tuple(targets), learns, floor, reward)

    def _learning(self, node: Map, fields: Mapping[str, Node], ways: int) -> tuple[bool, int, str]:
        """Whether a split learns, above which floor, and from what."""
        if "learn" not in fields:
            for key in fields.keys() & {"floor", "reward"}:
                self.wrong(fields[key], f"'{key}' goes with 'learn: thompson'")
            return False, 0, MARGIN
        self.known_name(fields["learn"], "'learn'", ("thompson",))
        reward = self.known_name(fields["reward"], "'reward'", (MARGIN, GOAL)) if "reward" in fields else MARGIN
        floor = self.share(fields, "floor") if "floor" in fields else FLOOR
        if ways < 2:
            self.wrong(node, "a split that learns has at least two ways")
        elif floor is not None and not 0 < floor * ways <= PARTS:
            self.wrong(fields.get("floor", node), f"floor is above 0 and for {ways} ways at most {100 / ways:g}%")
        return True, floor or FLOOR, reward or MARGIN

    def _step_name(self, fields: Mapping[str, Node], program: _Program, kind: str) -> str | None:
        """A name that stays when steps are added before it: what was sent is remembered under it."""
        if "name" not in fields:
            number = 1 + sum(each.startswith(f"{kind}-") for each in program.names)
            name: str | None = f"{kind}-{number}"
        else:
            name = self.name(fields["name"], "'name'")
        if name is not None and name in program.names:
            self.wrong(fields["name"], f"the name '{name}' stands at another step already")
            return None
        if name is not None:
            program.names.add(name)
        return name


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
