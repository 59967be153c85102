"""What is decided about people at one step: what offers are worth to them, by what was learned, and a line for each person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from kiki.clock import Clock
from kiki.engage.action_log import ActionLog
from kiki.engage.decision import Decisions, Explorers, Ints, Verdict, decide
from kiki.engage.estimate import Drawn, learned, margins
from kiki.engage.holdout import PARTS
from kiki.engage.journey_book import HELD_OUT, TREATED, JourneyBook, experiment_of
from kiki.engage.journey_steps import sends
from kiki.engage.look import Due, Look, Sides, of_rows
from kiki.engage.plan import Line
from kiki.engage.playbook import Journey, Playbook, Send
from kiki.engage.policy import Policy
from kiki.engage.roster import features_of

VISITED: Final = "visited"
LEARN_EVERY: Final = 24 * 3600 * 1_000_000


class Deciding:
    """Learns from the books what each offer adds, at most once a day for each journey."""

    def __init__(self, book: JourneyBook, log: ActionLog, sides: Sides, clock: Clock) -> None:
        self._book = book
        self._log = log
        self._sides = sides
        self._clock = clock

    def decide(
        self, look: Look, journey: Journey, send: Send, some: Sequence[Due], room: int | None, *, keeps: bool = True
    ) -> tuple[Decisions, Ints]:
        """The decisions about everybody who is due at a step, and what each offer is expected to add for them.

        `keeps`: what is learned for it is remembered for a day.
        """
        playbook, rows = look.playbook, np.array([due.row for due in some], dtype=np.int64)
        people = look.people.take(rows)
        policy = self._policy(playbook, journey, send, keeps=keeps)
        gain = margins(playbook, send.offers, policy, features_of(people), len(people))
        step = f"{journey.name}/{send.name}"
        standing = of_rows(look.standing, rows, {row: at for at, row in enumerate(rows.tolist())})
        standing.held_out = np.array([self._sides.is_held_out(playbook, each) for each in people.customers], dtype=bool)
        explorers = Explorers(playbook.explore / PARTS, self._sides.explorer(f"{playbook.name}/{step}"))
        return decide(playbook, send.offers, people, standing, gain, room=room, explorers=explorers), gain

    def _policy(self, playbook: Playbook, journey: Journey, send: Send, *, keeps: bool) -> Policy | None:
        """What was learned about a journey's first message, at most a day ago; None while nothing is."""
        if send is not next(iter(sends(journey)), None):
            return None
        name = f"policy:{experiment_of(playbook.name, journey.name)}"
        kept = self._book.recall(name)
        now = self._clock()
        if kept is not None and now - int.from_bytes(kept[:8], "big") < LEARN_EVERY:
            return Policy.load(kept[8:]) if len(kept) > 8 else None
        policy = learned(playbook, send.offers, self._drawn(playbook, journey, send))
        if keeps:
            self._book.remember(name, now.to_bytes(8, "big") + (b"" if policy is None else policy.dump()))
        return policy

    def _drawn(self, playbook: Playbook, journey: Journey, send: Send) -> list[Drawn]:
        """Everybody whose window is over, with the arm that chance gave them and what they earned."""
        now, step = self._clock(), f"{journey.name}/{send.name}"
        assigned = self._book.assignments(experiment_of(playbook.name, journey.name), now - journey.goal_span)
        if not assigned:
            return []
        actions = self._log.of_step(playbook.name, step)
        earned = self._book.earnings(playbook.margin_rate, assigned[0].at, now)
        visits = self._book.moments_of(VISITED, assigned[0].at, now)
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
            ends = each.at + journey.goal_span
            margin = sum(m for at, m in earned.get(each.person, ()) if each.at < at <= ends)
            visited = any(each.at < at <= ends for at in visits.get(each.person, ()))
            found.append(Drawn(arm, chances, margin, each.features, visited))
        return found

    def lines(
        self, look: Look, journey: Journey, send: Send, some: Sequence[Due], decisions: Decisions, gain: Ints
    ) -> list[Line]:
        """What is told about each of them."""
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
