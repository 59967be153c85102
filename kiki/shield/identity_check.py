"""Proof of identity for requests: codes that are sent and answered, and operators who vouch."""

from __future__ import annotations

import secrets

from kiki.errors import Conflict, IdentityDenied, InvalidInput
from kiki.shield.change import Change, Turn
from kiki.shield.consent_words import CUSTOMER_LENGTH_MAX, parse_text
from kiki.shield.dsr import DETAILS_LENGTH_MAX, Step, follow
from kiki.shield.identity import (
    ATTEMPTS_MAX,
    CODE_DIGITS,
    CODE_LIFE,
    IdentityChannel,
    code_text,
    is_right_code,
    new_code,
    parse_code,
    require_code_left,
)
from kiki.shield.request_book import RequestBook
from kiki.shield.request_change import RequestDetails, take_step
from kiki.shield.subject_request import REQUEST, SubjectRequest, read_request, request_key


class IdentityCheck:
    """Sends codes over a channel (None: operators only) and accepts proof of identity."""

    def __init__(self, book: RequestBook, channel: IdentityChannel | None) -> None:
        self._book = book
        self._channel = channel

    def send_code(self, request: str, *, actor: str = "") -> SubjectRequest:
        """Send a one-time code to the channel that the person was known by; the same answer when there is none.

        Raises `Conflict` when too many were sent, or no channel is configured here.
        """
        if self._channel is None:
            raise Conflict(
                "no channel is configured that could carry a code",
                hint="let an operator verify the identity: kiki dsr verify, or give RequestDesk a channel",
            )
        known = self._book.find(request)
        person = self._book.person(known)
        code = new_code(secrets.randbelow(10**CODE_DIGITS))
        digest = self._book.decider.subjects.keyed_hash(code_text(known.id, code))
        done = self._book.step(
            known.id,
            Step.CODE_SENT,
            check=lambda found, _: require_code_left(found),
            digest=digest,
            until=self._book.decider.clock() + CODE_LIFE,
            actor=actor,
        )
        if person is not None:
            self._channel.send(person.removeprefix("customer:"), code, known.id)
        return done

    def verify(
        self,
        request: str,
        *,
        method: str = "code",
        code: str = "",
        agent_proof: str = "",
        actor: str = "",
        note: str = "",
    ) -> SubjectRequest:
        """Accept the proof of identity: the code that was sent, or the word of an operator who checked it.

        Whoever acts for the person must have shown that they may: then an operator names the proof. Raises
        `IdentityDenied` for a wrong code, which counts.
        """
        known = self._book.find(request)
        proof = parse_text(agent_proof, "proof of the agent", CUSTOMER_LENGTH_MAX)
        details = self._book.details(known) or RequestDetails()
        if details.agent and not (proof and method == "operator"):
            raise Conflict(
                "an agent acts for the person: the permission has to be seen by an operator",
                hint="verify as an operator, and name the proof: --agent-proof",
            )
        if method == "operator":
            if not actor:
                raise InvalidInput("an operator vouches by name: give actor")
        elif method == "code":
            self._answer_code(known, parse_code(code), actor)
        else:
            raise InvalidInput(f"{method[:40]!r} is no way to verify identity: write code or operator")
        said = RequestDetails(note=parse_text(note, "note", DETAILS_LENGTH_MAX, lines=True), agent_proof=proof)
        return self._book.step(known.id, Step.VERIFIED, note=said, outcome=method, actor=actor)

    def _answer_code(self, known: SubjectRequest, code: str, actor: str) -> None:
        digest = self._book.decider.subjects.keyed_hash(code_text(known.id, code))

        def act(turn: Turn) -> bool:
            found = read_request(turn.get(REQUEST, request_key(known.id)))
            if found is None:
                return False
            after = follow(found.id, found.state, Step.CODE_FAILED)
            if is_right_code(found, digest, turn.now):
                return True
            take_step(turn, found, Step.CODE_FAILED, after, self._book.clocks, actor=actor)
            return False

        if not self._book.submit(Change(act)):
            raise IdentityDenied(
                "the code is wrong", hint=f"{ATTEMPTS_MAX} wrong answers end a code; a new one can be sent then"
            )
