"""Why somebody got a message or did not, and what became of it: told to the shield's ledger, beside the money and the consent."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kiki.engage.action_log import Action
from kiki.engage.customer_store import CustomerStore
from kiki.engage.decision import Verdict
from kiki.engage.journey_book import JourneyBook
from kiki.engage.plan import Line
from kiki.engage.playbook import Playbook
from kiki.engage.shield_line import Shield, decided_note
from kiki.errors import KikiError
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.engage")


class Story:
    """Writes notes, sealed under the keys of those they are about."""

    def __init__(self, store: CustomerStore, book: JourneyBook, shield: Shield) -> None:
        self._store = store
        self._book = book
        self._shield = shield

    def reasons(self, playbook: Playbook, lines: Sequence[Line]) -> None:
        """Write the reasons down that are new, in the shield's ledger: every yes, and each no once until it changes."""
        told = {line.person: f"{line.journey}/{line.step}/{line.verdict}/{line.offer}" for line in lines}
        news = self._book.news(playbook.name, told)
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
            self._shield.note(notes)
            self._book.keep_verdicts(playbook.name, news)

    def fates(self, actions: Sequence[Action]) -> None:
        """Write down what became of messages; a shield that does not answer now changes nothing about them."""
        notes = []
        for action in actions:
            profile = self._store.profile_of(action.person)
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
                self._shield.note(notes)
        except KikiError as error:
            log_event(logger, logging.WARNING, "what became of messages is not in the ledger", problem=str(error))
