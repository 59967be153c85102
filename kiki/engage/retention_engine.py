"""The engine: who enters which journey, who is due, what is decided about them, and that it is done.

One look serves a whole run: customers as columns, consent asked at the shield, suppression, what was sent lately. A look
decides; the last word has the sender, which looks again at everything that may have changed. A run may be killed
anywhere and started again: entries, messages and moves each happen once.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from kiki.clock import Clock, wall_micros
from kiki.engage.action_log import ActionLog, Limit, State
from kiki.engage.channel import Channel
from kiki.engage.customer_store import CustomerStore
from kiki.engage.deciding import Deciding
from kiki.engage.decision import (
    Decisions,
    Standing,
    Verdict,
)
from kiki.engage.entering import Entering, seen
from kiki.engage.event import Delivery
from kiki.engage.journey_book import HELD_OUT, TREATED, JourneyBook, Traveller
from kiki.engage.journey_steps import Place, complete, is_send, sends
from kiki.engage.learning_split import LearningSplits
from kiki.engage.look import Due, Look, Sides, by_step
from kiki.engage.message_maker import MessageMaker
from kiki.engage.plan import Line, Plan, Run
from kiki.engage.playbook import Journey, Playbook, Send, WaitFor
from kiki.engage.quiet_hours import calendar_start, plausible_zones
from kiki.engage.roster import Values, call_the_roll, contacts_of, suppressed_on
from kiki.engage.sender import Links, Post, Sender
from kiki.engage.shield_line import Shield
from kiki.engage.story import Story
from kiki.engage.zones import zones_by_country
from kiki.errors import InvalidInput, KikiError
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.engage")

HOLDOUT_DEFAULT: Final = 50_000
"""Parts of a million of all customers, whom no playbook reaches."""
LATE_EVENTS: Final = 24 * 3600 * 1_000_000
LEARN_EVERY: Final = 24 * 3600 * 1_000_000
WORKERS: Final = 8


class RetentionEngine:
    """Thread-safe where its parts are; one run of a playbook at a time in one process."""

    def __init__(
        self,
        store: CustomerStore,
        shield: Shield,
        channels: Mapping[str, Channel],
        links: Links,
        *,
        value: Values | None = None,
        holdout: int = HOLDOUT_DEFAULT,
        worker: str = "engage",
        workers: int = WORKERS,
        clock: Clock = wall_micros,
    ) -> None:
        """`holdout`: parts of a million of all customers, whom no playbook reaches."""
        self.store = store
        self.log = ActionLog(store.database, clock)
        self.book = JourneyBook(store.database, clock)
        self.shield = shield
        self.value = value
        self.links = links
        self.sender = Sender(store, self.log, shield, channels, links, worker=worker, workers=workers, clock=clock)
        self.sides = Sides(store.keys.secret("holdout"), holdout)
        self._splits = LearningSplits(self.book, self.log, self.sides, shield, clock)
        self._entering = Entering(self.book, self.sides, self._splits)
        self._deciding = Deciding(self.book, self.log, self.sides, clock)
        self._story = Story(store, self.book, shield)
        self._clock = clock
        self._turn = threading.Lock()

    # -- planning ------------------------------------------------------------------------------------

    def plan(self, playbook: Playbook) -> Plan:
        """What a run would do now; nothing is written and nobody is written to. Raises `InvalidInput` as `run` does."""
        self._require_currency(playbook)
        look = self.look(playbook)
        room, lines, multipliers = self._room(playbook), [], {}
        left = room
        for journey in playbook.journeys:
            entrants, stopped = self._entering.entrants(look, journey)
            lines += stopped
            due = [
                Due(Traveller(e.person, e.entry, look.people.now, e.step, e.due), look.row_of[e.person])
                for e in entrants
                if e.arm == TREATED and is_send(journey, e.step)
            ]
            lines += [
                Line(look.people.customers[look.row_of[e.person]], e.person, journey.name, "", Verdict.HELD_OUT)
                for e in entrants
                if e.arm == HELD_OUT
            ]
            due += [
                Due(each, look.row_of[each.person])
                for each in self.book.due(playbook.name, journey.name)
                if each.person in look.row_of and is_send(journey, each.step)
            ]
            for step, some in by_step(due).items():
                send = journey.steps[step]
                assert isinstance(send, Send)
                decisions, gain = self._deciding.decide(look, journey, send, some, left, keeps=False)
                left = None if left is None else left - decisions.cost
                multipliers[f"{journey.name}/{send.name}"] = decisions.multiplier
                lines += self._deciding.lines(look, journey, send, some, decisions, gain)
        return Plan(
            playbook.name,
            playbook.version,
            look.people.now,
            len(look.people),
            sorted(lines, key=lambda line: (line.customer, line.journey)),
            look.roster.fallbacks,
            room,
            multipliers,
        )

    # -- running -------------------------------------------------------------------------------------

    def run(self, playbook: Playbook, maker: MessageMaker | None = None) -> Run:
        """Do what is to be done now. Raises what keeps the shield or the store from answering; then go on later.

        A playbook in another currency than the shield's is `InvalidInput`, and nothing of it is done.
        """
        maker = maker or MessageMaker(playbook)
        with self._turn:
            self._require_currency(playbook)
            resumed = len(self.sender.resume(maker))
            look = self.look(playbook)
            self._splits.begin(playbook)
            entered, held_out = 0, 0
            verdicts: Counter[str] = Counter()
            messages: Counter[str] = Counter()
            try:
                for journey in playbook.journeys:
                    entrants, stopped = self._entering.entrants(look, journey, keeps=True)
                    held = [
                        Line(look.people.customers[look.row_of[e.person]], e.person, journey.name, "", Verdict.HELD_OUT)
                        for e in entrants
                        if e.arm == HELD_OUT
                    ]
                    self._story.reasons(playbook, [*stopped, *held])
                    verdicts.update(str(line.verdict) for line in stopped)
                    entered += self.book.enter(playbook.name, journey.name, entrants)
                    held_out += sum(each.arm == HELD_OUT for each in entrants)
                    if journey.event:
                        self.book.remember(seen(playbook, journey), str(look.people.now).encode())
                    self._pass_waits(look, journey)
                    for _ in range(len(journey.steps)):
                        if not self._pass_sends(look, maker, journey, verdicts, messages):
                            break
            finally:
                settled = self._settle()
        return Run(playbook.name, entered, held_out, dict(verdicts), dict(messages), resumed, settled)

    def told(self, deliveries: Iterable[Delivery]) -> int:
        """Providers' words about messages; how many changed something. Money that is free by them is settled."""
        changed = [action for each in deliveries if (action := self.log.told(each)) is not None]
        self._story.fates(changed)
        if changed:
            self._settle()
        return len(changed)

    def reconcile(self, maker: MessageMaker) -> int:
        """Look unknown messages up where the provider can be asked; how many are known now."""
        found = self.sender.reconcile(maker)
        self._story.fates(found)
        self._settle()
        return len(found)

    def _settle(self) -> int:
        try:
            return self.sender.settle()
        except KikiError as error:  # the money stays reserved until the shield answers
            log_event(logger, logging.WARNING, "money waits to be settled", problem=str(error))
            return 0

    # -- looking -------------------------------------------------------------------------------------

    def look(self, playbook: Playbook, only: set[str] | None = None) -> Look:
        """Everybody, or some, with what the gates ask."""
        roster = call_the_roll(self.store, self.log, self.book, playbook, self.value, only=only)
        people = roster.people
        channels = {
            playbook.channel_of(offer) for journey in playbook.journeys for s in sends(journey) for offer in s.offers
        }
        standing = Standing(
            consent=np.array(self.shield.consents(people.customers, playbook.purpose), dtype=bool),
            suppressed=suppressed_on(roster, self.store, channels),
            held_out=np.zeros(len(people), dtype=bool),
            contacts=contacts_of(people, self.log, playbook),
            zones_by_country=zones_by_country(),
        )
        return Look(playbook, roster, standing, {person: row for row, person in enumerate(people.persons)})

    def is_held_out(self, playbook: Playbook, customer: str) -> bool:
        """Whether a playbook may not reach this customer: they are in its control group, or in that of all playbooks."""
        return self.sides.is_held_out(playbook, customer)

    def held_out_share(self, playbook: Playbook) -> float:
        """The chance of being held out by either."""
        return self.sides.held_out_share(playbook)

    def _require_currency(self, playbook: Playbook) -> None:
        """The shield would count a playbook's amounts as if they were in its own currency."""
        counted = self.shield.currency()
        if counted != playbook.currency:
            raise InvalidInput(
                f"the shield counts in {counted}, and the playbook {playbook.name!r} is in {playbook.currency}: nothing is sent",
                hint=f"write the playbook in {counted}, or ask a shield that counts in {playbook.currency}",
            )

    def _room(self, playbook: Playbook) -> int | None:
        channels = {playbook.channel_of(offer) for offer in playbook.offers}
        return self.shield.room([f"campaign:{playbook.name}", *(f"platform:{channel}" for channel in channels)])

    # -- going on ------------------------------------------------------------------------------------

    def _pass_waits(self, look: Look, journey: Journey) -> None:
        """Move those whose wait is over, and those to whom came what they waited for."""
        name, now = look.playbook.name, look.people.now
        if journey.exit_event:
            inside = [
                *self.book.due(name, journey.name),
                *self.book.waiting(name, journey.name, range(len(journey.steps))),
            ]
            gone = self.book.happened(journey.exit_event, {each.person: each.entered_at for each in inside}, now)
            self.book.move(name, journey.name, [], [each for each in inside if each.person in gone])
        for number, step in enumerate(journey.steps):
            if not isinstance(step, WaitFor):
                continue
            waiting = self.book.waiting(name, journey.name, [number])
            came = self.book.happened(step.event, {each.person: each.due - step.span for each in waiting}, now)
            self._move(look, journey, [each for each in waiting if each.person in came], came)
        for _ in range(len(journey.steps)):
            over = [each for each in self.book.due(name, journey.name) if not is_send(journey, each.step)]
            if not over:
                return
            came = set()
            for number, step in enumerate(journey.steps):
                if isinstance(step, WaitFor):
                    here = {each.person: each.due - step.span for each in over if each.step == number}
                    came |= self.book.happened(step.event, here, now)
            self._move(look, journey, over, came)

    def _move(self, look: Look, journey: Journey, travellers: Sequence[Traveller], came: set[str]) -> None:
        """Let these go on from where they are."""
        moves, ends = [], []
        inside = [
            (look.people.customers[row], e.person) for e in travellers if (row := look.row_of.get(e.person)) is not None
        ]
        picker, keep = self._splits.pickers(look.playbook, journey, inside)
        for each in travellers:
            row = look.row_of.get(each.person)
            place: Place | None = None
            if row is not None and each.step < len(journey.steps):
                pick = picker(look.people.customers[row])
                place = complete(journey, each.step, look.people.now, pick, happened=each.person in came)
            if place is None:
                ends.append(each)
            else:
                moves.append((each, place.step, place.due))
        keep()
        self.book.move(look.playbook.name, journey.name, moves, ends)

    def _pass_sends(
        self, look: Look, maker: MessageMaker, journey: Journey, verdicts: Counter[str], messages: Counter[str]
    ) -> bool:
        """Decide about everybody who is due at a send, send, and move them on; False when nobody was due."""
        playbook = look.playbook
        travellers = self.book.due(playbook.name, journey.name)
        gone = [each for each in travellers if each.person not in look.row_of or each.step >= len(journey.steps)]
        self.book.move(playbook.name, journey.name, [], gone)
        due = [
            Due(each, look.row_of[each.person])
            for each in travellers
            if each.person in look.row_of and is_send(journey, each.step)
        ]
        for step, some in by_step(due).items():
            send = journey.steps[step]
            assert isinstance(send, Send)
            decisions, gain = self._deciding.decide(look, journey, send, some, self._room(playbook))
            lines = self._deciding.lines(look, journey, send, some, decisions, gain)
            # Why, durable before anybody is written to.
            self._story.reasons(playbook, lines)
            verdicts.update(str(line.verdict) for line in lines)
            try:
                self._send(look, maker, journey, send, some, lines, decisions, messages)
            finally:
                self._refresh(look)
        return bool(due)

    def _send(
        self,
        look: Look,
        maker: MessageMaker,
        journey: Journey,
        send: Send,
        some: Sequence[Due],
        lines: Sequence[Line],
        decisions: Decisions,
        messages: Counter[str],
    ) -> None:
        playbook = look.playbook
        later = [
            (due.traveller, due.traveller.step, int(decisions.quiet_until[place]))
            for place, due in enumerate(some)
            if lines[place].verdict is Verdict.QUIET and decisions.quiet_until[place] > look.people.now
        ]
        self.book.move(playbook.name, journey.name, later)
        waits = {id(who) for who, _, _ in later}
        chosen = [place for place, line in enumerate(lines) if line.verdict is Verdict.CHOSEN]
        posts = [self._post(look, journey, send, some[place], lines[place]) for place in chosen]
        sent = self.sender.send(maker, *posts)
        for action in sent.actions.values():
            messages[State.DROPPED if action is None else action.state] += 1
        worked = {place for place, post in zip(chosen, posts, strict=True) if post.dedup in sent.actions}
        moved = [
            due.traveller
            for place, due in enumerate(some)
            if id(due.traveller) not in waits and (lines[place].verdict is not Verdict.CHOSEN or place in worked)
        ]
        self._move(look, journey, moved, set())
        self._story.fates([action for action in sent.actions.values() if action is not None])
        if sent.failure is not None:
            raise sent.failure

    def _post(self, look: Look, journey: Journey, send: Send, due: Due, line: Line) -> Post:
        playbook, people = look.playbook, look.people
        zones = plausible_zones(people.zones[due.row], people.countries[due.row], playbook.zone, zones_by_country())
        now = self._clock()
        limits = [
            Limit(
                cap.messages,
                min(calendar_start(now, cap.calendar, zone) for zone in zones) if cap.calendar else now - cap.span + 1,
                cap.channel,
            )
            for cap in playbook.caps
        ]
        step = f"{journey.name}/{send.name}"
        return Post(line.person, line.offer, step, dedup_of(playbook, step, due.traveller), limits, line.propensity)

    def _refresh(self, look: Look) -> None:
        """What was just sent counts in the next decision of the same run."""
        look.standing.contacts = contacts_of(look.people, self.log, look.playbook)


def dedup_of(playbook: Playbook, step: str, traveller: Traveller) -> str:
    """What makes a message one and no other: the playbook, the step, the person and their entry."""
    return f"{playbook.name}/{step}/{traveller.person}/{traveller.entry}"
