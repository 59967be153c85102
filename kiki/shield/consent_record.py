"""What a caller is told about one person and purpose: the state, the entry that says so, and what was sealed. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from kiki.clock import to_iso
from kiki.shield.consent import ConsentState, State, in_force, state_at
from kiki.shield.decision import event_id
from kiki.shield.fact import ConsentChanged

_MOMENTS = ("at", "said_at", "granted_at", "expires_at", "revoked_at")


class ConsentDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sealed beside a change of consent: readable until the person is erased."""

    customer: str = ""
    ip: str = ""
    agent: str = ""
    note: str = ""
    notice: str = ""
    """The text that the person was shown."""
    guardian: str = ""
    """Who spoke for the person."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ConsentDetails).decode


def write_details(details: ConsentDetails) -> bytes:
    """The bytes that are sealed."""
    return _encode(details)


def read_details(text: bytes) -> ConsentDetails:
    """What `write_details` wrote, after it was opened."""
    return _decode(text)


class ConsentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One state of one person's consent to one purpose. Moments are microseconds since the epoch."""

    customer: str
    """Empty when the person was erased."""
    purpose: str
    state: State
    in_force: bool = False
    """Whether there was consent when this was read."""
    subject: str = ""
    """The person's reference in the ledger: random, 32 hexadecimal digits."""
    chain: str = ""
    seq: int = -1
    at: int | None = None
    """When it was written down."""
    said_at: int | None = None
    granted_at: int | None = None
    expires_at: int | None = None
    basis: str = ""
    version: str = ""
    method: str = ""
    jurisdiction: str = ""
    notice: str = ""
    """SHA-256 of the notice that was shown, 64 hexadecimal digits."""
    guardian: bool = False
    overrides: bool = False
    signal: bool = False
    """An opt-out signal stands against this purpose."""
    network: str = ""
    details: ConsentDetails | None = None
    """None when they were not read, or cannot be read any more."""
    changed: bool = False
    """Of an answer: something new was written down; otherwise this is what held already."""

    @property
    def event_id(self) -> str:
        """The id of its record in the audit; empty when nothing was ever said."""
        return "" if self.seq < 0 else event_id(self.seq)

    @property
    def revoked_at(self) -> int | None:
        """When the person said no, if that is what was said last."""
        return self.said_at if self.state in {State.DENIED, State.REVOKED} else None

    @property
    def takes_back(self) -> bool:
        """The person said no after a yes: somebody may still hold the yes. True for a repeat, too."""
        return self.state in {State.DENIED, State.REVOKED} and self.granted_at is not None

    def as_dict(self) -> dict[str, Any]:
        """The record for JSON: moments as RFC 3339, what says nothing left out."""
        plain: dict[str, Any] = {
            "customer_id": self.customer,
            "purpose": self.purpose,
            "state": self.state.value,
            "in_force": self.in_force,
            "event_id": self.event_id,
            "basis": self.basis,
            "version": self.version,
            "method": self.method,
            "jurisdiction": self.jurisdiction,
            "notice_sha256": self.notice,
            "guardian": self.guardian,
            "overrides": self.overrides,
            "opt_out_signal": self.signal,
            "network": self.network,
        }
        for name in _MOMENTS:
            moment = getattr(self, name)
            plain[name] = "" if moment is None else to_iso(moment)
        if self.details is not None:
            plain |= {
                "ip_address": self.details.ip,
                "user_agent": self.details.agent,
                "note": self.details.note,
                "notice_text": self.details.notice,
                "guardian_name": self.details.guardian,
            }
        always = {"customer_id", "purpose", "state", "in_force"}
        return {name: value for name, value in plain.items() if name in always or value not in {"", False}}


def record_of(
    customer: str,
    subject: str,
    purpose: str,
    state: ConsentState | None,
    now: int,
    *,
    details: ConsentDetails | None = None,
    changed: bool = False,
) -> ConsentRecord:
    """The record of a projected state."""
    if state is None:
        return ConsentRecord(customer=customer, purpose=purpose, state=State.NONE, subject=subject)
    return ConsentRecord(
        customer=customer,
        purpose=purpose,
        state=state_at(state, now),
        in_force=in_force(state, now),
        subject=subject,
        chain=state.chain,
        seq=state.seq,
        at=state.at,
        said_at=state.said_at,
        granted_at=state.granted_at,
        expires_at=state.expires_at,
        basis=state.basis,
        version=state.version,
        method=state.method,
        jurisdiction=state.jurisdiction,
        notice=state.notice.hex(),
        guardian=state.guardian,
        overrides=state.overrides,
        signal=state.signal,
        network=state.network,
        details=details,
        changed=changed,
    )


def past_record(
    customer: str, fact: ConsentChanged, chain: str, seq: int, details: ConsentDetails | None
) -> ConsentRecord:
    """The record of a fact in a person's history: as it was said, whatever the time has made of it."""
    said_at = fact.at if fact.said_at is None else fact.said_at
    return ConsentRecord(
        customer=customer,
        purpose=fact.purpose,
        state=State(fact.state),
        subject=fact.subject,
        chain=chain,
        seq=seq,
        at=fact.at,
        said_at=said_at,
        granted_at=said_at if fact.state == State.GRANTED else fact.granted_at,
        expires_at=fact.expires_at,
        basis=fact.basis,
        version=fact.version,
        method=fact.method,
        jurisdiction=fact.jurisdiction,
        notice=fact.notice.hex(),
        guardian=fact.guardian,
        overrides=fact.overrides,
        signal=fact.signal,
        network=fact.network,
        details=details,
    )
