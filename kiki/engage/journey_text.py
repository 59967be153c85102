"""The journeys of a playbook as people write them: who enters, what ends them, and their steps, flattened into a program. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from kiki.engage.holdout import PARTS
from kiki.engage.playbook import DAY, FLOOR, GOAL, MARGIN, Journey, Jump, Send, Split, Step, Wait, WaitFor
from kiki.engage.playbook_reader import PlaybookReader
from kiki.engage.segment import EVENTS
from kiki.yaml_document import List, Map, Node

JOURNEY_KEYS: Final = ("enter", "again_after", "exit", "goal", "steps")
STEP_KEYS: Final = ("send", "name", "wait", "wait_for", "within", "otherwise", "split", "learn", "floor", "reward")
STEPS_MAX: Final = 200
DEPTH_MAX: Final = 4


@dataclass(slots=True)
class _Program:
    """The steps of one journey while they are flattened."""

    steps: list[Step]
    names: set[str]


class JourneyReader(PlaybookReader):
    """Reads one playbook's journeys, and notes what is wrong with them."""

    def journeys(self, node: Node, offers: Collection[str], segments: Collection[str]) -> tuple[Journey, ...]:
        """Those under `journeys`; offers and segments are the names that there are."""
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
