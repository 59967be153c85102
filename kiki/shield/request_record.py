"""What a caller is told about a request: where it stands, when it is due, what became of every system. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from kiki.clock import to_iso
from kiki.shield.deadline import Deadline
from kiki.shield.decision import event_id
from kiki.shield.dsr import Kind, State
from kiki.shield.request_change import RequestDetails
from kiki.shield.subject_request import Kept, SubjectRequest, SystemOutcome


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it stands. Moments are microseconds since the epoch."""

    request: SubjectRequest
    customer: str
    """Empty once the person is erased."""
    deadlines: list[Deadline]
    due_at: int | None
    """The earliest moment by which an answer is due."""
    details: RequestDetails | None = None
    """What was sealed when it came in; None when it was not read, or cannot be read any more."""
    is_new: bool = False
    """Of an answer to `create`: it was made just now; otherwise it was there already."""

    @property
    def id(self) -> str:
        """`DSR-<unix seconds>-<8 hexadecimal digits>`."""
        return self.request.id

    @property
    def kind(self) -> Kind:
        """What is asked for."""
        return self.request.kind

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.request.state

    def is_overdue(self, now: int) -> bool:
        """Whether the answer was or is too late."""
        closed = self.request.closed_at
        return self.due_at is not None and (now if closed is None else closed) > self.due_at

    def as_dict(self) -> dict[str, Any]:
        """The record for JSON: moments as RFC 3339, what says nothing left out."""
        request, details = self.request, self.details or RequestDetails()
        plain: dict[str, Any] = {
            "request_id": request.id,
            "customer_id": self.customer,
            "type": request.kind.value,
            "state": request.state.value,
            "status": request.state.outward,
            "received_at": to_iso(request.received_at),
            "due_at": _iso(self.due_at),
            "regimes": [regime.value for regime in request.regimes],
            "deadlines": [deadline_dict(deadline) for deadline in self.deadlines],
            "purposes": list(request.purposes),
            "requested_by": details.requested_by,
            "details": details.details,
            "agent": details.agent,
            "corrections": details.corrections,
            "acknowledged_at": _iso(request.acknowledged_at),
            "verified_at": _iso(request.verified_at),
            "verified_by": request.verified_by,
            "assignee": request.assignee,
            "next_attempt_at": _iso(request.next_attempt_at),
            "systems": {name: outcome_dict(outcome) for name, outcome in request.systems.items()},
            "legal_holds": list(request.held),
            "package_sha256": request.package.hex(),
            "closed_at": _iso(request.closed_at),
            "article": request.article,
            "network": request.network,
            "event_ids": [event_id(event.seq) for event in request.events],
        }
        always = {"request_id", "customer_id", "type", "state", "status", "received_at"}
        return {name: value for name, value in plain.items() if name in always or value}


def deadline_dict(deadline: Deadline) -> dict[str, Any]:
    """A deadline for JSON."""
    return {
        "regime": deadline.regime.value,
        "due": deadline.due.value,
        "at": to_iso(deadline.at),
        "day": deadline.day,
        "time_zone": deadline.zone,
        "holidays": deadline.country,
        "rule": deadline.rule,
        "paused": deadline.is_paused,
        "extended": deadline.is_extended,
    }


def outcome_dict(outcome: SystemOutcome) -> dict[str, Any]:
    """What became of a system, for JSON; what it was not asked for is left out."""
    plain: dict[str, Any] = {
        "outcome": word_of(outcome),
        "located": outcome.located,
        "restricted": outcome.restricted or None,
        "rectified": outcome.rectified,
        "exported": outcome.exported,
        "erased": outcome.erased,
        "read_back": outcome.checked or None,
        "left": outcome.left or None,
        "kept": [kept_dict(kept) for kept in outcome.kept] or None,
        "failure": outcome.failure or None,
        "failures": outcome.failures or None,
    }
    return {name: value for name, value in plain.items() if value is not None}


def kept_dict(kept: Kept) -> dict[str, Any]:
    """What stays, for JSON."""
    return {
        "reason": kept.reason,
        "article": kept.article,
        "until": _iso(kept.until),
        "records": kept.records,
        "readable": kept.readable,
    }


def word_of(outcome: SystemOutcome) -> str:
    """`failed`, `exception`, `done` or `pending`: how far a system has come, in a word."""
    if outcome.failure:
        return "failed"
    if outcome.has_exception:
        return "exception"
    if outcome.erased is not None:
        return "done" if outcome.checked else "pending"
    if outcome.exported is not None or outcome.rectified is not None:
        return "done"
    return "pending" if outcome.located is not None or not outcome.restricted else "done"


def _iso(moment: int | None) -> str:
    return "" if moment is None else to_iso(moment)
