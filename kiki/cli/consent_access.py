"""The consents that `kiki consent` works on: those of a running service, or of a ledger that no service has open.

Which of them it is, `kiki.cli.place` decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kiki.cli.consent_ledger import actor
from kiki.cli.options import open_client
from kiki.cli.place import is_ledger, open_ledger_alone
from kiki.errors import AccessDenied, ConsentDenied, InvalidInput, ShieldUnreachable

if TYPE_CHECKING:
    from kiki.shield.consent_change import Given
    from kiki.shield.consent_client import Consents
    from kiki.shield.consent_record import ConsentRecord
    from kiki.shield.consent_store import ConsentStore
    from kiki.shield.wire_consent import ConsentReply


class Told(NamedTuple):
    """What holds after something was said."""

    record: ConsentRecord
    changed: bool | None
    """Whether it was written down anew; None where the service does not say."""


class Checked(NamedTuple):
    """Whether a customer consents."""

    allowed: bool
    state: str | None
    """None: the token may not be told."""
    event_id: str = ""
    explanation: str = ""


@contextlib.contextmanager
def open_consents(
    ledger: Path | None, url: str | None, token_file: Path | None, *, may_make: bool = False
) -> Iterator[Local | Remote]:
    """The consents, wherever they are; `may_make`: a ledger that is named and not there is made."""
    if is_ledger(ledger, url):
        with open_ledger_alone(ledger, may_make=may_make) as store:
            yield Local(store)
    else:
        with open_client(url, token_file) as client:
            yield Remote(client.consents)


class Local:
    """The consents in a ledger that this process owns."""

    def __init__(self, store: ConsentStore) -> None:
        self.store = store

    def say(self, customer: str, purpose: str, state: str, given: Given) -> Told:
        """Write down what a customer says; `state` is granted, denied or revoked."""
        from kiki.shield.consent import State

        given["actor"] = actor()
        record = self.store.say(self.store.said(customer, purpose, State(state), **given))
        return Told(record, record.changed)

    def status(self, customer: str) -> dict[str, ConsentRecord]:
        """Everything that is known of a customer, by purpose."""
        return self.store.status(customer)

    def history(self, customer: str, purpose: str | None) -> list[ConsentRecord]:
        """Everything that a customer ever said, oldest first."""
        return self.store.history(customer, purpose)

    def check(self, customer: str, purpose: str) -> Checked:
        """Whether the customer consents now, and why not."""
        try:
            record = self.store.require(customer, purpose)
        except ConsentDenied as error:
            return Checked(allowed=False, state=error.state, explanation=str(error))
        return Checked(allowed=True, state=record.state, event_id=record.event_id)


class Remote:
    """The consents of a service."""

    def __init__(self, consents: Consents) -> None:
        self._consents = consents

    def say(self, customer: str, purpose: str, state: str, given: Given) -> Told:
        """Have written down what a customer says; the service enters whose token it was."""
        consents = self._consents
        say = {"granted": consents.grant, "denied": consents.deny, "revoked": consents.revoke}[state]
        return Told(record_of_reply(say(customer, purpose, **given)), None)

    def status(self, customer: str) -> dict[str, ConsentRecord]:
        """Everything that is known of a customer, by purpose."""
        return {purpose: record_of_reply(reply) for purpose, reply in self._consents.status(customer).items()}

    def history(self, customer: str, purpose: str | None) -> list[ConsentRecord]:
        """Everything that a customer ever said, oldest first."""
        return [record_of_reply(reply) for reply in self._consents.history(customer, purpose)]

    def check(self, customer: str, purpose: str) -> Checked:
        """Whether the customer consents now, and why not as far as the token may know."""
        from kiki.shield.consent import State
        from kiki.shield.consent_record import ConsentRecord
        from kiki.shield.consent_store import explained

        (answer,) = self._consents.check_many([(customer, purpose)])
        if answer.allowed:
            return Checked(allowed=True, state=State.GRANTED, event_id=answer.event_id)
        try:
            record = self.status(customer).get(purpose)
        except AccessDenied:
            why = f"there is no consent to {purpose}; a token with the role privacy is told why"
            return Checked(allowed=False, state=None, explanation=why)
        record = record or ConsentRecord(customer=customer, purpose=purpose, state=State.NONE)
        if record.in_force:
            # It was granted between the two questions.
            return Checked(allowed=True, state=record.state, event_id=record.event_id)
        return Checked(allowed=False, state=record.state, explanation=explained(record))

    def everybody(self) -> Iterator[ConsentRecord]:
        """The last word of every customer on every purpose, with what was sealed: a question for each customer."""
        for customer, _ in groupby(self._consents.records(), lambda reply: reply.customer_id):
            # Whoever was erased in between is answered with nothing.
            yield from self.status(customer).values()


def record_of_reply(reply: ConsentReply) -> ConsentRecord:
    """A service's record as the one that a ledger gives; raises `ShieldUnreachable` for one that is none."""
    from kiki.shield.consent import State
    from kiki.shield.consent_record import ConsentDetails, ConsentRecord
    from kiki.shield.evidence import parse_event_id
    from kiki.shield.wire_moment import moment_micros

    def moment(text: str) -> int | None:
        return moment_micros(text) if text else None

    try:
        return ConsentRecord(
            customer=reply.customer_id,
            purpose=reply.purpose,
            state=State(reply.state),
            in_force=reply.in_force is True,
            seq=parse_event_id(reply.event_id)[0] if reply.event_id else -1,
            at=moment(reply.at),
            said_at=moment(reply.said_at),
            granted_at=moment(reply.granted_at),
            expires_at=moment(reply.expires_at),
            basis=reply.basis,
            version=reply.version,
            method=reply.method,
            jurisdiction=reply.jurisdiction,
            notice=reply.notice_sha256,
            guardian=reply.guardian,
            overrides=reply.overrides,
            signal=reply.opt_out_signal,
            network=reply.network,
            details=ConsentDetails(
                ip=reply.ip_address,
                agent=reply.user_agent,
                note=reply.note,
                notice=reply.notice_text,
                guardian=reply.guardian_name,
            ),
        )
    except (InvalidInput, ValueError) as error:
        raise ShieldUnreachable(f"the service answered with what is no record of consent: {error}") from None
