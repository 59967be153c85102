"""Consent on the original's routes, as they were: `POST /consent/grant` and `/consent/revoke`, `/consent/status`. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from kiki.errors import InvalidInput
from kiki.members import Query, one_of, read_members, read_query, text_of, text_or_none
from kiki.shield.consent import State
from kiki.shield.consent_change import Given
from kiki.shield.consent_record import ConsentRecord
from kiki.shield.consent_words import parse_customer_id
from kiki.shield.wire_consent import Asked

GUIDE_MEMBERS: Final = ("customer_id", "consent_type", "type", "ip_address", "user_agent", "legal_basis")
GUIDE_REVOKE_MEMBERS: Final = ("customer_id", "consent_type", "type", "ip_address")
MISSING: Final = "Missing required parameters"
"""The original's answer on its own routes."""
MISSING_CUSTOMER: Final = "Missing customer_id parameter"

_GUIDE_STATES: Final = {
    State.GRANTED: "GRANTED",
    State.DENIED: "DENIED",
    State.REVOKED: "REVOKED",
    # The original's word for somebody who has to be asked; it had none for what ran out.
    State.EXPIRED: "PENDING",
}
GRANTED_REPLY: Final = {"status": "granted", "message": "Consent successfully recorded"}
REVOKED_REPLY: Final = {"status": "revoked", "message": "Consent successfully revoked"}


class GuideConsent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One state of consent as the original shows it."""

    customer_id: str
    consent_type: str
    status: str
    granted_at: str | None = None
    revoked_at: str | None = None
    expires_at: str | None = None
    ip_address: str | msgspec.UnsetType = msgspec.UNSET
    """The network that it came from: coarser than the original showed."""
    user_agent: str | msgspec.UnsetType = msgspec.UNSET
    version: str | msgspec.UnsetType = msgspec.UNSET
    legal_basis: str | msgspec.UnsetType = msgspec.UNSET


def guide_consent(record: ConsentRecord) -> GuideConsent:
    """A record as the original shows it."""
    shown = record.as_dict()
    return GuideConsent(
        customer_id=record.customer,
        consent_type=record.purpose,
        status=_GUIDE_STATES[record.state],
        granted_at=shown.get("granted_at"),
        revoked_at=shown.get("revoked_at"),
        expires_at=shown.get("expires_at"),
        ip_address=record.network,
        user_agent="" if record.details is None else record.details.agent,
        version=record.version,
        legal_basis=record.basis.replace("_", " ").capitalize(),
    )


def guide_body(body: object, state: State) -> Asked:
    """The grant or withdrawal in a body of the original; raises `InvalidInput`."""
    allowed = GUIDE_MEMBERS if state is State.GRANTED else GUIDE_REVOKE_MEMBERS
    found = read_members(body, allowed)
    return _guide({name: text_of(found, name) for name in found}, state)


def guide_query(query: Query, state: State) -> Asked:
    """The same from a query."""
    allowed = GUIDE_MEMBERS if state is State.GRANTED else GUIDE_REVOKE_MEMBERS
    return _guide(read_query(query, allowed)[0], state)


def _guide(found: dict[str, str], state: State) -> Asked:
    purpose = one_of(found, "consent_type", "type")
    if not found.get("customer_id") or not purpose:
        raise InvalidInput(MISSING, hint="send customer_id and consent_type")
    given = Given(ip_address=found.get("ip_address", ""), user_agent=found.get("user_agent", ""))
    # The original's default; of a withdrawal it is the basis of what ends.
    if state is State.GRANTED:
        given["basis"] = found.get("legal_basis") or "Consent"
    return Asked(found["customer_id"], purpose, state, given)


def guide_customer_body(body: object) -> str:
    """The customer in a body of the original's `/consent/status`."""
    found = read_members(body, ("customer_id",))
    return _customer(text_or_none(found, "customer_id"))


def guide_customer_query(query: Query) -> str:
    """The same from a query."""
    return _customer(read_query(query, ("customer_id",))[0].get("customer_id"))


def _customer(given: str | None) -> str:
    if not given:
        raise InvalidInput(MISSING_CUSTOMER, hint="write /consent/status?customer_id=cust_123")
    return parse_customer_id(given)
