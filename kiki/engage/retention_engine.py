"""The engine: who enters which journey, who is due, what is decided about them, and that it is done.

One look serves a whole run: customers as columns, consent asked at the shield, suppression, what was sent lately. A look
decides; the last word has the sender, which looks again at everything that may have changed. A run may be killed
anywhere and started again: entries, messages and moves each happen once.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from kiki.clock import Clock, wall_micros
from kiki.engage.action_log import Action, ActionLog, Limit, State
from kiki.engage.channel import Channel
from kiki.engage.customer_store import CustomerStore
from kiki.engage.decision import (
    ORDER,
    Contacts,
    Decisions,
    Explorers,
    Ints,
    Mask,
    Standing,
    Verdict,
    decide,
    gates,
)
from kiki.engage.estimate import Drawn, learned, margins, pack
from kiki.engage.event import Delivery
from kiki.engage.holdout import PARTS, Holdout, Split, draw
from kiki.engage.journey_book import HELD_OUT, TREATED, Entrant, JourneyBook, Traveller, experiment_of
from kiki.engage.journey_steps import Place, arrive, complete, is_send, sends
from kiki.engage.message_maker import MessageMaker
from kiki.engage.people import People
from kiki.engage.plan import Line, Plan, Run
from kiki.engage.playbook import Journey, Playbook, Send, WaitFor
from kiki.engage.playbook import Split as SplitStep
from kiki.engage.policy import Policy
from kiki.engage.quiet_hours import calendar_start, plausible_zones
from kiki.engage.roster import Roster, Values, call_the_roll, contacts_of, features_of, suppressed_on
from kiki.engage.segment import members
from kiki.engage.sender import Links, Post, Sender
from kiki.engage.shield_line import Shield, decided_note
from kiki.engage.zones import zones_by_country
from kiki.errors import KikiError
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.engage")

HOLDOUT_DEFAULT: Final = 50_000
"""Parts of a million of all customers, whom no playbook reaches."""
LATE_EVENTS: Final = 24 * 3600 * 1_000_000
LEARN_EVERY: Final = 24 * 3600 * 1_000_000
WORKERS: Final = 8


class Look(NamedTuple):
    """Everybody, with what the gates ask."""

    playbook: Playbook
    roster: Roster
    standing: Standing
    row_of: Mapping[str, int]

    @property
    def people(self) -> People:
        """Everybody."""
        return self.roster.people


class _Due(NamedTuple):
    """Somebody at a step where a message is decided about."""

    traveller: Traveller
    row: int


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
        self._key = store.keys.secret("holdout")
        self.everywhere = Holdout(self._key, holdout)
        self._clock = clock
        self._turn = threading.Lock()

    # -- planning ------------------------------------------------------------------------------------

    def plan(self, playbook: Playbook) -> Plan:
        """What a run would do now; nothing is written and nobody is written to."""
        look = self.look(playbook)
        room, lines, multipliers = self._room(playbook), [], {}
        left = room
        for journey in playbook.journeys:
            entrants, stopped = self._entrants(look, journey)
            lines += stopped
            due = [
                _Due(Traveller(e.person, e.entry, look.people.now, e.step, e.due), look.row_of[e.person])
                for e in entrants
                if e.arm == TREATED and is_send(journey, e.step)
            ]
            lines += [
                Line(look.people.customers[look.row_of[e.person]], e.person, journey.name, "", Verdict.HELD_OUT)
                for e in entrants
                if e.arm == HELD_OUT
            ]
            due += [
                _Due(each, look.row_of[each.person])
                for each in self.book.due(playbook.name, journey.name)
                if each.person in look.row_of and is_send(journey, each.step)
            ]
            for step, some in _by_step(due).items():
                send = journey.steps[step]
                assert isinstance(send, Send)
                decisions, gain = self._decide(look, journey, send, some, left)
                left = None if left is None else left - decisions.cost
                multipliers[f"{journey.name}/{send.name}"] = decisions.multiplier
                lines += self._lines(look, journey, send, some, decisions, gain)
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
        """Do what is to be done now. Raises what keeps the shield or the store from answering; then go on later."""
        maker = maker or MessageMaker(playbook)
        with self._turn:
            resumed = len(self.sender.resume(maker))
            look = self.look(playbook)
            entered, held_out = 0, 0
            verdicts: Counter[str] = Counter()
            messages: Counter[str] = Counter()
            try:
                for journey in playbook.journeys:
                    entrants, stopped = self._entrants(look, journey)
                    self._tell(playbook, stopped)
                    verdicts.update(str(line.verdict) for line in stopped)
                    entered += self.book.enter(playbook.name, journey.name, entrants)
                    held_out += sum(each.arm == HELD_OUT for each in entrants)
                    if journey.event:
                        self.book.remember(_seen(playbook, journey), str(look.people.now).encode())
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
        self._note_fates(changed)
        if changed:
            self._settle()
        return len(changed)

    def reconcile(self, maker: MessageMaker) -> int:
        """Look unknown messages up where the provider can be asked; how many are known now."""
        found = self.sender.reconcile(maker)
        self._note_fates(found)
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
        own = Holdout.of_playbook(self._key, playbook.holdout, playbook.name)
        return self.everywhere.holds(customer) or own.holds(customer)

    def held_out_share(self, playbook: Playbook) -> float:
        """The chance of being held out by either."""
        return 1 - (1 - self.everywhere.parts / PARTS) * (1 - playbook.holdout / PARTS)

    def _room(self, playbook: Playbook) -> int | None:
        channels = {playbook.channel_of(offer) for offer in playbook.offers}
        return self.shield.room([f"campaign:{playbook.name}", *(f"platform:{channel}" for channel in channels)])

    # -- entering ------------------------------------------------------------------------------------

    def _entrants(self, look: Look, journey: Journey) -> tuple[list[Entrant], list[Line]]:
        """Who enters now, on which side; and who would, but is stopped by what is true of them at any time."""
        playbook, people = look.playbook, look.people
        candidates = self._candidates(look, journey)
        if not candidates:
            return [], []
        rows = np.array([row for row, _ in candidates], dtype=np.int64)
        some = people.take(rows)
        codes = self._standing_gates(look, journey, some, rows)
        entrants, lines = [], []
        before = self._earned_before(look, journey)
        features = features_of(some)
        share = self.held_out_share(playbook)
        for at, (row, entry) in enumerate(candidates):
            customer, person = people.customers[row], people.persons[row]
            if codes[at]:
                lines.append(Line(customer, person, journey.name, "", ORDER[int(codes[at])]))
                continue
            held = self.is_held_out(playbook, customer)
            start = arrive(journey, 0, people.now, self._pick(playbook, journey, customer))
            if start is None:
                continue
            arm, chance = (HELD_OUT, share) if held else (TREATED, 1 - share)
            known = pack(features, at)
            entrants.append(Entrant(person, entry, arm, chance, before.get(person, 0), start.step, start.due, known))
        return entrants, lines

    def _candidates(self, look: Look, journey: Journey) -> list[tuple[int, int]]:
        """Row and entry of everybody whom the journey is open to."""
        playbook, people = look.playbook, look.people
        known = self.book.last_entries(playbook.name, journey.name)
        inside = (
            members(playbook.segments[journey.segment], people, playbook.segments)
            if journey.segment
            else np.ones(len(people), dtype=bool)
        )
        if not journey.event:
            found = []
            for row in np.flatnonzero(inside).tolist():
                last = known.get(people.persons[row])
                if last is None:
                    found.append((row, 0))
                elif not last.is_active and self._may_again(journey, last.at, people.now):
                    found.append((row, last.times))
            return found
        since = self.book.recall(_seen(playbook, journey))
        # An event may be told late; who entered for it already is not let in again.
        begins = int(since) - LATE_EVENTS if since is not None else people.now - journey.goal_span
        events: dict[str, int] = dict(self.book.occurrences(journey.event, begins, people.now))
        return [
            (look.row_of[person], at)
            for person, at in events.items()
            if person in look.row_of
            and inside[look.row_of[person]]
            and (
                (last := known.get(person)) is None
                or (not last.is_active and self._may_again(journey, last.at, at, at))
            )
        ]

    @staticmethod
    def _may_again(journey: Journey, last: int, now: int, event: int | None = None) -> bool:
        if journey.again_after is not None:
            return now >= last + journey.again_after
        return event is not None and event > last

    def _standing_gates(self, look: Look, journey: Journey, some: People, rows: Ints) -> Ints:
        """The gates that are about the person: 0 where they are open on some channel of the journey."""
        playbook = look.playbook
        channels = dict.fromkeys(playbook.channel_of(offer) for step in sends(journey) for offer in step.offers)
        standing = _of_rows(look.standing, rows, {})
        found = [gates(playbook, channel, some, standing, moment=False) for channel in channels]
        if not found:
            return np.zeros(len(some), dtype=np.int64)
        table = np.stack(found, axis=1)
        return np.where((table == 0).any(axis=1), 0, table.max(axis=1)).astype(np.int64)

    def _earned_before(self, look: Look, journey: Journey) -> dict[str, int]:
        now = look.people.now
        earned = self.book.earnings(look.playbook.margin_rate, now - journey.goal_span, now)
        return {person: sum(margin for _, margin in some) for person, some in earned.items()}

    def _pick(self, playbook: Playbook, journey: Journey, customer: str) -> Callable[[SplitStep], int]:
        def pick(step: SplitStep) -> int:
            shares = {str(place): share for place, share in enumerate(step.shares)}
            return int(Split(self._key, f"{playbook.name}/{journey.name}/{step.name}", shares).arm_of(customer))

        return pick

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
        for each in travellers:
            row = look.row_of.get(each.person)
            place: Place | None = None
            if row is not None and each.step < len(journey.steps):
                pick = self._pick(look.playbook, journey, look.people.customers[row])
                place = complete(journey, each.step, look.people.now, pick, happened=each.person in came)
            if place is None:
                ends.append(each)
            else:
                moves.append((each, place.step, place.due))
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
            _Due(each, look.row_of[each.person])
            for each in travellers
            if each.person in look.row_of and is_send(journey, each.step)
        ]
        for step, some in _by_step(due).items():
            send = journey.steps[step]
            assert isinstance(send, Send)
            decisions, gain = self._decide(look, journey, send, some, self._room(playbook))
            lines = self._lines(look, journey, send, some, decisions, gain)
            # Why, durable before anybody is written to.
            self._tell(playbook, lines)
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
        some: Sequence[_Due],
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
        self._note_fates([action for action in sent.actions.values() if action is not None])
        if sent.failure is not None:
            raise sent.failure

    def _post(self, look: Look, journey: Journey, send: Send, due: _Due, line: Line) -> Post:
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

    # -- deciding ------------------------------------------------------------------------------------

    def _decide(
        self, look: Look, journey: Journey, send: Send, some: Sequence[_Due], room: int | None
    ) -> tuple[Decisions, Ints]:
        playbook, rows = look.playbook, np.array([due.row for due in some], dtype=np.int64)
        people = look.people.take(rows)
        policy = self._policy(playbook, journey, send)
        gain = margins(playbook, send.offers, policy, features_of(people), len(people))
        step = f"{journey.name}/{send.name}"
        salt = f"explore:{playbook.name}/{step}"

        def place(customer: str) -> tuple[float, int]:
            number = draw(self._key, salt, customer)
            return (number >> 11) / (1 << 53), number & 0x7FF

        standing = _of_rows(look.standing, rows, {row: at for at, row in enumerate(rows.tolist())})
        standing.held_out = np.array([self.is_held_out(playbook, each) for each in people.customers], dtype=bool)
        explorers = Explorers(playbook.explore / PARTS, place)
        return decide(playbook, send.offers, people, standing, gain, room=room, explorers=explorers), gain

    def _policy(self, playbook: Playbook, journey: Journey, send: Send) -> Policy | None:
        """What was learned about a journey's first message, at most a day ago; None while nothing is."""
        if send is not next(iter(sends(journey)), None):
            return None
        name = f"policy:{experiment_of(playbook.name, journey.name)}"
        kept = self.book.recall(name)
        now = self._clock()
        if kept is not None and now - int.from_bytes(kept[:8], "big") < LEARN_EVERY:
            return Policy.load(kept[8:]) if len(kept) > 8 else None
        policy = learned(playbook, send.offers, self._drawn(playbook, journey, send))
        self.book.remember(name, now.to_bytes(8, "big") + (b"" if policy is None else policy.dump()))
        return policy

    def _drawn(self, playbook: Playbook, journey: Journey, send: Send) -> list[Drawn]:
        """Everybody whose window is over, with the arm that chance gave them and what they earned."""
        now, step = self._clock(), f"{journey.name}/{send.name}"
        assigned = self.book.assignments(experiment_of(playbook.name, journey.name), now - journey.goal_span)
        if not assigned:
            return []
        actions = self.log.of_step(playbook.name, step)
        earned = self.book.earnings(playbook.margin_rate, assigned[0].at, now)
        found = []
        for each in assigned:
            arm, chances = HELD_OUT, {}
            if each.arm == TREATED:
                action = actions.get(f"{playbook.name}/{step}/{each.person}/{each.entry}")
                if action is None:
                    continue
                arm = action.offer
                others = max(len(send.offers) - 1, 1)
                chances = {
                    offer: each.propensity * (action.propensity if offer == arm else (1 - action.propensity) / others)
                    for offer in send.offers
                }
            share = each.propensity if each.arm == HELD_OUT else 1 - each.propensity
            if each.arm == HELD_OUT:
                chances = dict.fromkeys(send.offers, (1 - share) / len(send.offers))
            chances[HELD_OUT] = share
            margin = sum(m for at, m in earned.get(each.person, ()) if each.at < at <= each.at + journey.goal_span)
            found.append(Drawn(arm, chances, margin, each.features))
        return found

    def _lines(
        self, look: Look, journey: Journey, send: Send, some: Sequence[_Due], decisions: Decisions, gain: Ints
    ) -> list[Line]:
        playbook, people = look.playbook, look.people
        lines = []
        for place, due in enumerate(some):
            verdict = decisions.verdict(place)
            offer = send.offers[int(decisions.offer[place])] if verdict is Verdict.CHOSEN else ""
            lines.append(
                Line(
                    people.customers[due.row],
                    people.persons[due.row],
                    journey.name,
                    send.name,
                    verdict,
                    offer,
                    playbook.channel_of(offer) if offer else "",
                    playbook.cost_of(offer) if offer else 0,
                    int(gain[place, int(decisions.offer[place])]) if offer else 0,
                    float(decisions.propensity[place]) if offer else 1.0,
                )
            )
        return lines

    # -- evidence ------------------------------------------------------------------------------------

    def _tell(self, playbook: Playbook, lines: Sequence[Line]) -> None:
        """Write the reasons down that are new, in the shield's ledger: every yes, and each no once until it changes."""
        told = {line.person: f"{line.journey}/{line.step}/{line.verdict}/{line.offer}" for line in lines}
        news = self.book.news(playbook.name, told)
        notes = [
            decided_note(
                "engage.decided",
                line.customer,
                {"campaign": playbook.name},
                {
                    "journey": line.journey,
                    "step": line.step,
                    "verdict": str(line.verdict),
                    "offer": line.offer,
                    "version": playbook.version,
                    "gain_micros": line.gain,
                    "cost_micros": line.cost,
                },
            )
            for line in lines
            if line.person in news or line.verdict is Verdict.CHOSEN
        ]
        if notes:
            self.shield.note(notes)
            self.book.keep_verdicts(playbook.name, news)

    def _note_fates(self, actions: Sequence[Action]) -> None:
        """Write down what became of messages; a shield that does not answer now changes nothing about them."""
        notes = []
        for action in actions:
            profile = self.store.profile_of(action.person)
            if profile is not None:
                detail = {
                    "action": action.action,
                    "offer": action.offer,
                    "state": str(action.state),
                    "reason": action.reason,
                }
                scopes = {"campaign": action.playbook, "platform": action.channel}
                notes.append(decided_note("engage.message", profile.customer, scopes, detail))
        try:
            if notes:
                self.shield.note(notes)
        except KikiError as error:
            log_event(logger, logging.WARNING, "what became of messages is not in the ledger", problem=str(error))


def dedup_of(playbook: Playbook, step: str, traveller: Traveller) -> str:
    """What makes a message one and no other: the playbook, the step, the person and their entry."""
    return f"{playbook.name}/{step}/{traveller.person}/{traveller.entry}"


def _seen(playbook: Playbook, journey: Journey) -> str:
    """Under which name it is remembered until when events were looked at."""
    return f"seen:{playbook.name}/{journey.name}"


def _by_step(due: Iterable[_Due]) -> dict[int, list[_Due]]:
    """Who is due at each step, sorted by row and so by customer: ties in the allocation go to the earlier one."""
    found: dict[int, list[_Due]] = {}
    for each in sorted(due, key=lambda one: (one.traveller.step, one.row)):
        found.setdefault(each.traveller.step, []).append(each)
    return found


def _of_rows(standing: Standing, rows: Ints, place: Mapping[int, int]) -> Standing:
    """What the gates ask about some of the people."""
    contacts = standing.contacts
    kept = np.array([int(row) in place for row in contacts.row.tolist()], dtype=bool)
    mine = np.flatnonzero(kept)
    picked = Contacts(
        np.array([place[int(row)] for row in contacts.row[mine].tolist()], dtype=np.int64),
        [contacts.channel[at] for at in mine.tolist()],
        contacts.at[mine],
        contacts.own[mine],
    )
    masks: dict[str, Mask] = {channel: mask[rows] for channel, mask in standing.suppressed.items()}
    return Standing(standing.consent[rows], masks, standing.held_out[rows], picked, standing.zones_by_country)
