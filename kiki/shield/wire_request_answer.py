"""Data subject requests and legal holds as SyncShield shows them, and as its clients read them back. Pure."""

from __future__ import annotations

import msgspec

from kiki.clock import to_iso
from kiki.shield.legal_hold import LegalHold
from kiki.shield.request_record import RequestRecord


class GuideRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request as the original shows it."""

    request_id: str
    customer_id: str
    request_type: str
    status: str
    requested_at: str
    completed_at: str | None = None
    requested_by: str | msgspec.UnsetType = msgspec.UNSET
    processed_by: str | msgspec.UnsetType = msgspec.UNSET
    notes: str | msgspec.UnsetType = msgspec.UNSET


def guide_request(record: RequestRecord, customer: str) -> GuideRequest:
    """A record as the original shows it, to the one who named this customer."""
    request, details = record.request, record.details
    return GuideRequest(
        request_id=request.id,
        customer_id=customer,
        request_type=request.kind.value,
        status=request.state.outward,
        requested_at=to_iso(request.received_at),
        completed_at=None if request.closed_at is None else to_iso(request.closed_at),
        requested_by="" if details is None else details.requested_by,
        processed_by=request.assignee,
        notes="" if details is None else details.details,
    )


class DeadlineReply(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is due, and by which rule."""

    regime: str
    due: str
    at: str
    day: str
    time_zone: str
    holidays: str
    rule: str
    paused: bool
    extended: bool


class KeptReply(msgspec.Struct, frozen=True, kw_only=True):
    """What stays in a system, and why."""

    reason: str
    article: str
    until: str
    records: int
    readable: bool


class SystemReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one system."""

    outcome: str
    located: int | None = None
    restricted: bool = False
    rectified: int | None = None
    exported: int | None = None
    erased: int | None = None
    read_back: bool = False
    left: int | None = None
    kept: list[KeptReply] = []
    failure: str = ""
    failures: int = 0


class RequestReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `RequestRecord.as_dict` says, as a client reads it."""

    request_id: str
    customer_id: str
    type: str
    state: str
    status: str
    received_at: str
    due_at: str = ""
    regimes: list[str] = []
    deadlines: list[DeadlineReply] = []
    purposes: list[str] = []
    requested_by: str = ""
    details: str = ""
    agent: str = ""
    corrections: dict[str, str] = {}
    acknowledged_at: str = ""
    verified_at: str = ""
    verified_by: str = ""
    assignee: str = ""
    next_attempt_at: str = ""
    systems: dict[str, SystemReply] = {}
    legal_holds: list[str] = []
    package_sha256: str = ""
    closed_at: str = ""
    article: str = ""
    network: str = ""
    event_ids: list[str] = []


class RequestsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Requests, those that are due first first; `total` fit, of which these are the first."""

    requests: list[RequestReply]
    total: int


class PackageReply(msgspec.Struct, frozen=True, kw_only=True):
    """With this token the package can be fetched once, until it expires."""

    token: str
    expires_at: str
    sha256: str


class HoldReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A legal hold that is on; without a customer on everybody, or on somebody who is erased."""

    reference: str
    at: str
    everybody: bool = False
    customer_id: str = ""
    actor: str = ""


class LegalHoldsReply(msgspec.Struct, frozen=True, kw_only=True):
    """The legal holds that are on."""

    holds: list[HoldReply]


class LiftedReply(msgspec.Struct, frozen=True, kw_only=True):
    """The deletions that a hold had stopped, and which can be run now."""

    requests: list[RequestReply]


def request_reply(record: RequestRecord) -> RequestReply:
    """A record as the wire shows it."""
    return msgspec.convert(record.as_dict(), RequestReply)


def hold_reply(hold: LegalHold, customer: str) -> HoldReply:
    """A legal hold as the wire shows it."""
    return HoldReply(
        reference=hold.reference,
        at=to_iso(hold.at),
        everybody=not hold.subject,
        customer_id=customer,
        actor=hold.actor,
    )
