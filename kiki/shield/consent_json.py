"""Consent as records and receipts of ISO/IEC TS 27560:2023, in JSON. Pure.

A record is about one person and one purpose: header, notice, processing, parties, and the events that were said,
oldest first. Its state is derived from the events; none is ever changed. A receipt is a copy of a record with an
id and a moment of its own. What the standard has no member for stands under names of ours, which its
clause on extension allows; members that we do not know are left alone when a record is read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from kiki.clock import to_iso
from kiki.errors import InvalidInput
from kiki.shield.consent import State
from kiki.shield.consent_change import Given, Said, said
from kiki.shield.consent_record import ConsentDetails, ConsentRecord
from kiki.shield.wire_moment import moment_micros

SCHEMA: Final = "ISO/IEC TS 27560:2023"
EVENTS_MAX: Final = 10_000

_STATES: Final = {State.GRANTED: "given", State.DENIED: "refused", State.REVOKED: "withdrawn"}
_SAID: Final = {name: state for state, name in _STATES.items()}
_RIGHTS: Final = ("access", "rectification", "erasure", "portability", "objection", "withdrawal")


class Party(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody who takes part: the controller who asks for consent."""

    party_id: str
    party_role: str = ""
    """`pii_controller`, as far as kiki knows."""
    party_name: str = ""
    party_contact: str = ""
    party_url: str = ""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the person was shown."""

    version: str = ""
    sha256: str = ""
    text: str = ""
    language: str = ""


class Processing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the personal data is processed for."""

    purpose: str
    lawful_basis: str = ""
    jurisdiction: str = ""
    withdrawal_method: str = ""
    pii_controllers: list[str] = []
    privacy_rights: list[str] = []


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was said."""

    event_time: str
    event_state: str
    """`given`, `refused` or `withdrawn`."""
    event_type: str = ""
    event_id: str = ""
    valid_until: str = ""
    expressed_by: str = ""
    """`pii_principal`, or `guardian`, whose name is the `entity_id`."""
    entity_id: str = ""
    method: str = ""
    lawful_basis: str = ""
    jurisdiction: str = ""
    notice: Notice = Notice()
    ip_address: str = ""
    user_agent: str = ""
    note: str = ""
    overrides_signal: bool = False
    opt_out_signal: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A consent record."""

    schema_version: str
    record_id: str
    pii_principal_id: str
    pii_processing: Processing
    events: list[Event]
    privacy_notice: Notice = Notice()
    party_identification: list[Party] = []


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a record to hand over to the person."""

    schema_version: str
    receipt_id: str
    receipt_time: str
    record: Record


_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def record_json(history: Sequence[ConsentRecord], controller: Party | None = None, withdrawal: str = "") -> Record:
    """The record of what one person said about one purpose, from the oldest to the last."""
    last = history[-1]
    events = [_event(past) for past in history]
    return Record(
        schema_version=SCHEMA,
        record_id=f"urn:kiki:consent:{last.subject}:{last.purpose}",
        pii_principal_id=last.customer,
        privacy_notice=events[-1].notice,
        pii_processing=Processing(
            purpose=last.purpose,
            lawful_basis=last.basis,
            jurisdiction=last.jurisdiction,
            withdrawal_method=withdrawal,
            pii_controllers=[controller.party_id] if controller else [],
            privacy_rights=list(_RIGHTS),
        ),
        party_identification=[controller] if controller else [],
        events=events,
    )


def receipt_json(record: Record, receipt_id: str, now: int) -> Receipt:
    """A receipt for a record, made now."""
    return Receipt(schema_version=SCHEMA, receipt_id=receipt_id, receipt_time=to_iso(now), record=record)


def read_record(text: bytes | str) -> Record:
    """The record in a JSON text; raises `InvalidInput` with the place of the first mistake."""
    try:
        record = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidInput(f"this is no consent record of {SCHEMA}: {error}") from None
    if not record.schema_version.startswith("ISO/IEC TS 27560"):
        raise InvalidInput(f"schema_version is {record.schema_version[:40]!r}: write {SCHEMA!r}")
    if len(record.events) > EVENTS_MAX:
        raise InvalidInput(f"a record of {len(record.events)} events is too long: at most {EVENTS_MAX} are accepted")
    return record


def said_of_record(record: Record, now: int, purposes: Collection[str], actor: str = "") -> list[Said]:
    """What a record's events say, as an import, oldest first; raises `InvalidInput`."""
    made = [
        said(
            record.pii_principal_id,
            record.pii_processing.purpose,
            _state(event),
            now,
            purposes,
            **_given(event, record, actor),
        )
        for event in record.events
    ]
    return sorted(made, key=lambda one: one.statement.said_at or 0)


def _state(event: Event) -> State:
    state = _SAID.get(event.event_state)
    if state is None:
        raise InvalidInput(f"event_state is {event.event_state[:40]!r}: write one of {', '.join(_SAID)}")
    return state


def _given(event: Event, record: Record, actor: str) -> Given:
    given: Given = {
        "imported": True,
        "actor": actor,
        "said_at": moment_micros(event.event_time),
        "version": event.notice.version,
        "notice": event.notice.text,
        "notice_sha256": event.notice.sha256,
        "basis": event.lawful_basis or record.pii_processing.lawful_basis or None,
        "jurisdiction": event.jurisdiction,
        "ip_address": event.ip_address,
        "user_agent": event.user_agent,
        "note": event.note,
        "overrides": event.overrides_signal,
        "signal": event.opt_out_signal,
    }
    if event.valid_until:
        given["expires_at"] = moment_micros(event.valid_until)
    if event.expressed_by == "guardian":
        given["guardian"] = event.entity_id or "guardian"
    if event.method:
        given["method"] = event.method
    return given


def _event(past: ConsentRecord) -> Event:
    details = past.details or ConsentDetails()
    state = State.GRANTED if past.state is State.EXPIRED else past.state
    return Event(
        event_time="" if past.said_at is None else to_iso(past.said_at),
        event_type="explicit",
        event_state=_STATES[state],
        event_id=past.event_id,
        valid_until="" if past.expires_at is None else to_iso(past.expires_at),
        expressed_by="guardian" if past.guardian else "pii_principal",
        entity_id=details.guardian,
        method=past.method,
        lawful_basis=past.basis,
        jurisdiction=past.jurisdiction,
        notice=Notice(version=past.version, sha256=past.notice, text=details.notice),
        ip_address=details.ip,
        user_agent=details.agent,
        note=details.note,
        overrides_signal=past.overrides,
        opt_out_signal=past.signal,
    )
