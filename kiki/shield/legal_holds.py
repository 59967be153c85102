"""The legal holds of a ledger: put on, lifted, looked up."""

from __future__ import annotations

from kiki.errors import NotFound
from kiki.shield.consent_change import person_of
from kiki.shield.consent_words import parse_customer_id, parse_text
from kiki.shield.hold_change import hold_change, lift_change
from kiki.shield.legal_hold import LEGAL_HOLD, LegalHold, holds_prefix, parse_reference, read_hold
from kiki.shield.request_book import RequestBook
from kiki.shield.subject_request import SubjectRequest


class LegalHolds:
    """Holds on customers and on everybody. Thread-safe; what it returns after a change is durable."""

    def __init__(self, book: RequestBook) -> None:
        self._book = book

    def put(self, reference: str, customer: str | None = None, *, actor: str = "") -> LegalHold:
        """Put a legal hold on a customer, or on everybody: nothing of them is erased, and no entry is pruned."""
        person = None if customer is None else person_of(parse_customer_id(customer))
        held: LegalHold = self._book.submit(hold_change(parse_reference(reference), person, parse_text(actor, "actor")))
        return held

    def lift(self, reference: str, customer: str | None = None, *, actor: str = "") -> list[SubjectRequest]:
        """Lift a hold; the deletions that it stopped, which can be run now. Raises `NotFound`."""
        subject, matter = "", parse_reference(reference)
        if customer is not None:
            person = self._book.decider.subjects.find(person_of(parse_customer_id(customer)))
            if person is None:
                raise NotFound(f"there is no legal hold {matter!r} on this customer")
            subject = person.reference
        held = [each.id for each in self._book.all() if matter in each.held and subject in {"", each.subject}]
        change = lift_change(matter, subject, held, self._book.clocks, parse_text(actor, "actor"))
        reopened: list[SubjectRequest] = self._book.submit(change)
        return reopened

    def all(self) -> list[LegalHold]:
        """The holds that are on, those on everybody first."""
        return [read_hold(key, value) for key, value in self._book.decider.ledger.store.scan(LEGAL_HOLD)]

    def customer_of(self, hold: LegalHold) -> str:
        """Whom a hold is on; empty: everybody, or somebody who is erased."""
        return ((hold.subject and self._book.decider.subjects.identity(hold.subject)) or "").removeprefix("customer:")

    def on(self, subject: str) -> list[str]:
        """The matters that hold a person, by the reference in the ledger."""
        found = []
        for prefix in (holds_prefix(""), holds_prefix(subject)):
            for key, _ in self._book.decider.ledger.store.scan(LEGAL_HOLD, prefix):
                if not key.startswith(prefix):
                    break
                found.append(key[len(prefix) :].decode())
        return list(dict.fromkeys(found))
