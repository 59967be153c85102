"""The OpenAPI document's part about consent, compliance and evidence: the routes of `privacy_service`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from kiki.shield import note
from kiki.shield.breach import AFFECTED_MAX
from kiki.shield.call import KEY_LENGTH_MAX
from kiki.shield.compliance_report import PERIODS, ComplianceReport
from kiki.shield.consent import Basis, State
from kiki.shield.consent_change import IP_LENGTH_MAX
from kiki.shield.consent_words import (
    CUSTOMER_LENGTH_MAX,
    NOTE_LENGTH_MAX,
    NOTICE_LENGTH_MAX,
    SAID_METHODS,
    TEXT_LENGTH_MAX,
)
from kiki.shield.openapi_operation import (
    BODY,
    BROKEN,
    CUSTOMER,
    MOMENT,
    PRINTABLE,
    Document,
    body_of,
    json_answer,
    lines_of,
    operation,
    path_parameter,
    printable,
    problem_answer,
    query_parameter,
    schema_of,
    with_text,
)
from kiki.shield.wire_compliance import BREACH_MEMBERS, BreachReply
from kiki.shield.wire_consent import (
    CHECKS_MAX,
    HOLDER_LENGTH_MAX,
    RECORDS_LIMIT_MAX,
    SIGNAL_MEMBERS,
    STATEMENT_MEMBERS,
    ConsentAnswersReply,
    ConsentPageReply,
    ConsentsReply,
    CustomerConsentsReply,
    RecallsReply,
)
from kiki.shield.wire_evidence import BUNDLE_TYPE, CHECKPOINTS_LIMIT_MAX, CheckpointsReply, EvidenceReply
from kiki.shield.wire_guide_consent import GuideConsent
from kiki.shield.wire_note import NotesReply

_READING_METHODS: Final = ("delete", "get", "options", "patch", "post", "put")
# What stands in a path as a whole segment: not the two that every client takes for directories.
_CUSTOMER_PATH: Final = CUSTOMER | {"pattern": rf"^(?!(\.{{1,2}}|\*)$){PRINTABLE}+$"}


def _members(purposes: Sequence[str]) -> Document:
    return {
        "customer_id": CUSTOMER,
        "purpose": {"enum": list(purposes)},
        "state": {"enum": [State.GRANTED, State.DENIED, State.REVOKED]},
        "gpc": {"const": "1", "description": "The value of the Sec-GPC header that a browser sent."},
        "basis": {"enum": list(Basis)},
        "expires_at": MOMENT | {"description": "When the consent runs out by itself: a moment to come."},
        "said_at": MOMENT | {"description": "When it was said, where that is in the past."},
        "overrides": {"type": "boolean", "description": "The person was told that it contradicts an opt-out signal."},
        "version": printable(TEXT_LENGTH_MAX) | {"description": "Of the policy or notice that was shown."},
        "method": {"enum": list(SAID_METHODS)},
        "notice": lines_of(NOTICE_LENGTH_MAX) | {"description": "The text that was shown; kept sealed."},
        "notice_sha256": {"type": "string", "pattern": "^([0-9a-fA-F]{64})?$"},
        "jurisdiction": printable(TEXT_LENGTH_MAX),
        "guardian": printable(CUSTOMER_LENGTH_MAX) | {"description": "Who speaks for the person; sealed."},
        "ip_address": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
        "user_agent": {"type": "string"},
        "note": lines_of(NOTE_LENGTH_MAX),
        "reference": {"type": "string", "pattern": rf"^{PRINTABLE}+$", "maxLength": TEXT_LENGTH_MAX},
        "found_at": MOMENT,
        "notified_at": MOMENT,
        "affected": {"type": "integer", "minimum": 0, "maximum": AFFECTED_MAX},
    }


def schemas(purposes: Sequence[str]) -> Document:
    """Every request and answer of these routes by name."""
    replies: list[Any] = [
        *(GuideConsent, ConsentsReply, CustomerConsentsReply, ConsentPageReply, ConsentAnswersReply, RecallsReply),
        *(ComplianceReport, BreachReply, EvidenceReply, CheckpointsReply, NotesReply),
    ]
    _, components = msgspec.json.schema_components(replies, ref_template="#/components/schemas/{name}")
    known = _members(purposes)
    # The text and its digest may come together, and then must agree: more than a schema can say.
    one_notice = {"not": {"required": ["notice", "notice_sha256"]}}
    guide = {
        "customer_id": CUSTOMER,
        "consent_type": known["purpose"],
        "type": known["purpose"],
        "ip_address": printable(IP_LENGTH_MAX),
    }
    granted = guide | {"user_agent": known["user_agent"], "legal_basis": {"enum": [_titled(each) for each in Basis]}}
    either = {"oneOf": [{"required": ["consent_type"]}, {"required": ["type"]}]}
    pair = {"customer_id": CUSTOMER, "purpose": known["purpose"]}
    confirmed = pair | {"lease": {"type": "string", "pattern": "^([0-9a-f]{2}){1,20}$"}}
    holder = {"type": "string", "pattern": rf"^{PRINTABLE}+$", "maxLength": HOLDER_LENGTH_MAX}
    return {
        **components,
        "GuideGrantBody": body_of(granted, ["customer_id"], **either),
        "GuideRevokeBody": body_of(guide, ["customer_id"], **either),
        "ConsentBody": {"oneOf": [schema_of("StatementBody"), schema_of("SignalBody")]},
        "StatementBody": body_of(
            {name: known[name] for name in STATEMENT_MEMBERS}, ["customer_id", "purpose", "state"], **one_notice
        ),
        "SignalBody": body_of({name: known[name] for name in SIGNAL_MEMBERS}, ["customer_id", "gpc"]),
        "ConsentCheckBody": body_of(
            {
                "checks": {"type": "array", "items": body_of(pair, [*pair]), "maxItems": CHECKS_MAX},
                "holder": holder | {"description": "Who holds the answers under a lease; without: nobody does."},
            },
            ["checks"],
        ),
        "ConsentConfirmBody": body_of(
            {
                "holder": holder,
                "confirmed": {"type": "array", "items": body_of(confirmed, [*confirmed]), "maxItems": CHECKS_MAX},
            },
            ["holder"],
        ),
        "BreachBody": body_of({name: known[name] for name in BREACH_MEMBERS}, ["reference"]),
        "NotesBody": _notes_body(),
    }


def paths(purposes: Sequence[str]) -> Document:
    """Every route with its methods."""
    return {**_guide_paths(), **_consent_paths(purposes), **_compliance_paths(), **_evidence_paths(), **_note_paths()}


def _notes_body() -> Document:
    integer = {"type": "integer", "minimum": -(2**63) + 1, "maximum": 2**63 - 1}
    value = {"anyOf": [{"type": "string", "maxLength": note.TEXT_LENGTH_MAX}, integer, {"type": "boolean"}]}
    members = {
        "event": {"type": "string", "pattern": note.EVENT_PATTERN, "maxLength": 64},
        "scopes": schema_of("Scopes"),
        "detail": {
            "type": "object",
            "propertyNames": {"pattern": note.NAME_PATTERN},
            "additionalProperties": value,
            "maxProperties": note.DETAILS_MAX,
        },
        "key": {"type": "string", "pattern": rf"^{PRINTABLE}+$", "maxLength": KEY_LENGTH_MAX},
    }
    notes = {"type": "array", "items": body_of(members, ["event"]), "minItems": 1, "maxItems": note.NOTES_MAX}
    return body_of({"notes": notes}, ["notes"])


def _note_paths() -> Document:
    return {
        "/v1/notes": {
            "post": operation(
                "Write down what another service did",
                {
                    "201": json_answer(schema_of("NotesReply"), "Written down, durably."),
                    "409": problem_answer("A key stands for another note."),
                },
                body="NotesBody",
                tag="evidence",
            )
        }
    }


def _guide_paths() -> Document:
    broken = with_text({**BROKEN, **BODY})
    refused = {
        **broken,
        "401": problem_answer("No valid bearer token.", text=True),
        "403": problem_answer("The caller lacks the role.", text=True),
    }
    conflict = {"409": problem_answer("An opt-out signal stands against it.", text=True)}
    written = json_answer(
        {
            "type": "object",
            "required": ["status", "message"],
            "properties": {"status": {"enum": ["granted", "revoked"]}, "message": {"type": "string"}},
        },
        "Written down, durably.",
    )
    states = json_answer(
        {"type": "object", "additionalProperties": schema_of("GuideConsent")}, "By type; empty when nothing is known."
    )
    customer = query_parameter("customer_id", CUSTOMER, "Whose consent.", required=True)
    in_query = "The members may stand in the query instead of a body; `type` there is `consent_type`."
    report = operation("The compliance report", {**refused, "200": _report_answer()}, parameters=_period(), tag="guide")
    status = operation("What a customer consented to", {**refused, "200": states}, parameters=[customer], tag="guide")
    return {
        "/consent/grant": {
            "post": operation("Consent", {**refused, **conflict, "200": written}, body="GuideGrantBody", tag="guide")
            | {"description": in_query}
        },
        "/consent/revoke": {
            "post": operation("Take consent back", {**refused, "200": written}, body="GuideRevokeBody", tag="guide")
            | {"description": in_query}
        },
        "/consent/status": dict.fromkeys(_READING_METHODS, status),
        "/compliance/report": dict.fromkeys(_READING_METHODS, report),
        "/.well-known/gpc.json": {
            "get": operation(
                "Global Privacy Control is honoured",
                {
                    "200": json_answer(
                        {
                            "type": "object",
                            "required": ["gpc", "lastUpdate"],
                            "properties": {"gpc": {"const": True}, "lastUpdate": {"type": "string", "format": "date"}},
                        },
                        "As the GPC specification has it.",
                    )
                },
                tag="guide",
            )
        },
    }


def _consent_paths(purposes: Sequence[str]) -> Document:
    customer = path_parameter("customer_id", "") | {"schema": _CUSTOMER_PATH}
    purpose = query_parameter("purpose", {"enum": list(purposes)}, "Only this purpose.")
    known = [each for each in State if each is not State.NONE]
    return {
        "/v1/consents": {
            "get": operation(
                "Every customer's last word",
                {"200": json_answer(schema_of("ConsentPageReply"), "A page, in no order of time.")},
                parameters=[
                    query_parameter("after", {"type": "string", "pattern": "^([0-9a-f]{2}){17,48}$"}, "Go on there."),
                    query_parameter(
                        "limit", {"type": "integer", "minimum": 1, "maximum": RECORDS_LIMIT_MAX}, "At most so many."
                    ),
                    purpose,
                    query_parameter("state", {"enum": known}, "Only this state."),
                ],
                tag="consent",
            ),
            "post": operation(
                "Grant, deny, revoke, or pass on an opt-out signal",
                {
                    "200": json_answer(schema_of("ConsentsReply"), "What holds now; nobody acts on anything older."),
                    "409": problem_answer("An opt-out signal stands against it."),
                },
                body="ConsentBody",
                tag="consent",
            ),
        },
        "/v1/consents/{customer_id}": {
            "get": operation(
                "What a customer said last",
                {"200": json_answer(schema_of("CustomerConsentsReply"), "Empty when nothing is known.")},
                parameters=[customer],
                tag="consent",
            )
        },
        "/v1/consents/{customer_id}/history": {
            "get": operation(
                "Everything that a customer said",
                {"200": json_answer(schema_of("CustomerConsentsReply"), "The oldest first.")},
                parameters=[customer, purpose],
                tag="consent",
            )
        },
        "/v1/consents:check": {
            "post": operation(
                "Ask for many customers at once",
                {"200": json_answer(schema_of("ConsentAnswersReply"), "One answer each.")},
                body="ConsentCheckBody",
                tag="consent",
            )
        },
        "/v1/consents:confirm": {
            "post": operation(
                "Say which answers are acted on no more, and hear which ones must not be",
                {"200": json_answer(schema_of("RecallsReply"), "What somebody waits for.")},
                body="ConsentConfirmBody",
                tag="consent",
            )
        },
    }


def _report_answer() -> Document:
    return json_answer(schema_of("ComplianceReport"), "Computed from the ledger just now.")


def _period() -> list[Document]:
    # Beside these there are from= and to=; that they exclude a name is more than OpenAPI can say of a query.
    return [query_parameter("period", {"enum": list(PERIODS)}, "Up to now; monthly if nothing is given.")]


def _compliance_paths() -> Document:
    return {
        "/v1/compliance/report": {
            "get": operation("The compliance report", {"200": _report_answer()}, parameters=_period(), tag="compliance")
            | {"description": "from= and to= (RFC 3339) may stand instead of period=, for at most ten years."}
        },
        "/v1/breaches": {
            "post": operation(
                "Declare a breach, or tell more about one",
                {"201": json_answer(schema_of("BreachReply"), "Written down, durably.")},
                body="BreachBody",
                tag="compliance",
            )
        },
    }


def _evidence_paths() -> Document:
    event = path_parameter("event_id", "^[0-9a-f]{16}$")
    chain = query_parameter(
        "chain", {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "Of another replica in the same store."
    )
    nothing = {"404": problem_answer("There is nothing of that.")}
    bundle = {"description": "The file.", "content": {BUNDLE_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
    return {
        "/v1/evidence": {
            "get": operation(
                "Where the ledger stands",
                {"200": json_answer(schema_of("EvidenceReply"), "With the key to verify it.")},
                tag="evidence",
            )
        },
        "/v1/evidence/checkpoints": {
            "get": operation(
                "Signed checkpoints",
                {"200": json_answer(schema_of("CheckpointsReply"), "A page, by size."), **nothing},
                parameters=[
                    query_parameter(
                        "after",
                        {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
                        "Over more entries than that.",
                    ),
                    query_parameter(
                        "limit", {"type": "integer", "minimum": 1, "maximum": CHECKPOINTS_LIMIT_MAX}, "At most so many."
                    ),
                    chain,
                ],
                tag="evidence",
            )
        },
        "/v1/evidence/{event_id}/proof": {
            "get": operation(
                "The inclusion proof of one event",
                {"200": json_answer({"type": "object"}, "A document for `kiki audit verify --proof`."), **nothing},
                parameters=[event, chain],
                tag="evidence",
            )
        },
        "/v1/evidence/bundle": {
            "get": operation(
                "Everything that was recorded in a time, as one file that proves itself",
                {"200": bundle, **nothing},
                parameters=[
                    query_parameter("from", MOMENT, "Recorded at this moment or later."),
                    query_parameter("to", MOMENT, "Recorded before this moment, and up to the next checkpoint."),
                ],
                tag="evidence",
            )
        },
    }


def _titled(basis: Basis) -> str:
    return basis.value.replace("_", " ").capitalize()
