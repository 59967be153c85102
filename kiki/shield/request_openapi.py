"""The OpenAPI document's part about data subject requests and legal holds: the routes of `request_routes`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from kiki.shield.consent_change import IP_LENGTH_MAX
from kiki.shield.consent_words import CUSTOMER_LENGTH_MAX, TEXT_LENGTH_MAX
from kiki.shield.deadline import Regime
from kiki.shield.dsr import ARTICLE_LENGTH_MAX, DETAILS_LENGTH_MAX, Kind, State
from kiki.shield.legal_hold import REFERENCE_LENGTH_MAX
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
from kiki.shield.request_intake import CORRECTIONS_MAX, FIELD_LENGTH_MAX, VALUE_LENGTH_MAX
from kiki.shield.wire_request import REQUESTS_LIMIT_MAX, WORDS_MAX
from kiki.shield.wire_request_answer import (
    GuideRequest,
    HoldReply,
    LegalHoldsReply,
    LiftedReply,
    PackageReply,
    RequestReply,
    RequestsReply,
)

_NUMBER: Final = "^DSR-[0-9]{1,12}-[0-9a-f]{8}$"
_NOTE: Final = lines_of(DETAILS_LENGTH_MAX)
_REASON: Final = _NOTE | {"pattern": rf"^([\n\r\t]|{PRINTABLE})*[\p{{L}}\p{{N}}\p{{P}}\p{{S}}]([\n\r\t]|{PRINTABLE})*$"}
_REFERENCE: Final = {
    "type": "string",
    "pattern": rf"^{PRINTABLE}*[\p{{L}}\p{{N}}\p{{P}}\p{{S}}]{PRINTABLE}*$",
    "maxLength": REFERENCE_LENGTH_MAX,
}


def _words(known: Sequence[str]) -> Document:
    return {"type": "array", "items": {"enum": list(known)}, "minItems": 1, "maxItems": WORDS_MAX}


def schemas(purposes: Sequence[str]) -> Document:
    """Every request and answer of these routes by name."""
    replies: list[Any] = [
        *(GuideRequest, RequestReply, RequestsReply, PackageReply, HoldReply, LegalHoldsReply, LiftedReply),
    ]
    _, components = msgspec.json.schema_components(replies, ref_template="#/components/schemas/{name}")
    kinds = {"enum": list(Kind)}
    text = printable(CUSTOMER_LENGTH_MAX)
    guide = {
        "customer_id": CUSTOMER,
        "request_type": kinds,
        "type": kinds,
        "requested_by": text,
        "details": _NOTE,
    }
    corrections = {
        "type": "object",
        "propertyNames": {"pattern": rf"^{PRINTABLE}*$", "maxLength": FIELD_LENGTH_MAX},
        "additionalProperties": lines_of(VALUE_LENGTH_MAX),
        "minProperties": 1,
        "maxProperties": CORRECTIONS_MAX,
        "description": "Fields and their right values. Without any it is received, but cannot be run.",
    }
    stopped = _words(purposes) | {"description": "What must stop; by default what usually is."}
    asked = {
        "customer_id": CUSTOMER,
        "regimes": _words(list(Regime)) | {"description": "By default both: the earliest clock counts."},
        "received_at": MOMENT | {"description": "When it came in, within the last year."},
        "key": schema_of("Key"),
        "requested_by": text,
        "details": _NOTE | {"description": "What the person wrote; sealed."},
        "agent": text | {"description": "Who acts for the person; sealed."},
        "agent_proof": text,
        "ip_address": printable(IP_LENGTH_MAX),
        "user_agent": {"type": "string"},
    }
    stopping = [kind for kind in Kind if not kind.needs_identity]
    plain = [kind for kind in Kind if kind.needs_identity and kind is not Kind.RECTIFICATION]
    hold = {"reference": _REFERENCE, "customer_id": CUSTOMER}
    return {
        **components,
        "GuideRequestBody": body_of(
            guide, ["customer_id"], oneOf=[{"required": ["request_type"]}, {"required": ["type"]}]
        ),
        "RequestBody": {
            "oneOf": [
                body_of({"type": {"enum": plain}, **asked}, ["customer_id", "type"]),
                body_of({"type": {"enum": stopping}, "purposes": stopped, **asked}, ["customer_id", "type"]),
                body_of(
                    {"type": {"const": Kind.RECTIFICATION}, "corrections": corrections, **asked},
                    ["customer_id", "type"],
                ),
            ]
        },
        "VerifyBody": {
            "oneOf": [
                body_of({"code": {"type": "string", "pattern": "^[0-9]{8}$"}}, ["code"]),
                body_of(
                    {
                        "operator": _REFERENCE | {"maxLength": TEXT_LENGTH_MAX},
                        "agent_proof": text,
                        "note": _NOTE,
                    },
                    ["operator"],
                ),
            ]
        },
        "NoteBody": body_of({"note": _NOTE}, []),
        "ExtendBody": body_of({"reason": _REASON, "regimes": _words(list(Regime))}, ["reason"]),
        "AssignBody": body_of({"to": printable(TEXT_LENGTH_MAX)}, ["to"]),
        "RefuseBody": body_of(
            {
                "article": {
                    "type": "string",
                    "pattern": "^[A-Za-z0-9 .,()/&:-]*[A-Za-z0-9.,()/&:-][A-Za-z0-9 .,()/&:-]*$",
                    "maxLength": ARTICLE_LENGTH_MAX,
                    "examples": ["GDPR 12(5)"],
                },
                "reason": _REASON,
            },
            ["article", "reason"],
        ),
        "CancelBody": body_of({"reason": _NOTE}, []),
        "LegalHoldBody": body_of(hold, ["reference"]),
    }


def paths() -> Document:
    """Every route with its methods."""
    return {**_guide(), **_requests(), **_steps(), **_results(), **_holds()}


def _guide() -> Document:
    refused = with_text({**BROKEN, **BODY}) | {
        "401": problem_answer("No valid bearer token.", text=True),
        "403": problem_answer("The caller lacks the role.", text=True),
    }
    made = json_answer(schema_of("GuideRequest"), "Received, durably; or what was open already.")
    return {
        "/dsr/create": {
            "post": operation("Take in a request", {**refused, "200": made}, body="GuideRequestBody", tag="guide")
            | {"description": "The members may stand in the query instead of a body; `type` is `request_type`."}
        }
    }


def _requests() -> Document:
    record = json_answer(schema_of("RequestReply"), "As it stands.")
    reused = {"409": problem_answer("The idempotency key made another request, or a signal stands against it.")}
    return {
        "/v1/requests": {
            "get": operation(
                "Requests, those that are due first first",
                {"200": json_answer(schema_of("RequestsReply"), "Those that fit, and how many there are.")},
                parameters=[
                    query_parameter("type", {"enum": list(Kind)}, "Only this type."),
                    query_parameter("state", {"enum": list(State)}, "Only in this state."),
                    query_parameter("open", {"enum": ["true", "false"]}, "Only open or only closed ones."),
                    query_parameter("customer_id", CUSTOMER, "Only of this customer."),
                    query_parameter("due_before", MOMENT, "Only open ones that are due before that."),
                    query_parameter(
                        "limit", {"type": "integer", "minimum": 1, "maximum": REQUESTS_LIMIT_MAX}, "At most so many."
                    ),
                ],
                tag="requests",
            ),
            "post": operation(
                "Take in a request",
                {"201": record, "200": record | {"description": "It was there already."}, **reused},
                body="RequestBody",
                tag="requests",
            ),
        },
        "/v1/requests/{id}": {"get": _of_one("One request", {"200": record})},
    }


def _of_one(summary: str, answers: Document, **more: Any) -> Document:
    unknown = {"404": problem_answer("There is no such request.")}
    return operation(
        summary, {**unknown, **answers}, parameters=[path_parameter("id", _NUMBER)], tag="requests", **more
    )


def _steps() -> Document:
    done = {
        "200": json_answer(schema_of("RequestReply"), "As it stands now."),
        "409": problem_answer("In its state this cannot be done."),
    }
    denied = {"403": problem_answer("The proof does not hold, or the caller lacks the role.")}
    going = {"202": json_answer(schema_of("RequestReply"), "It goes on; look again later.")}
    steps: list[tuple[str, str, str, bool, Document]] = [
        ("acknowledge", "The person was told that it was received", "ReleaseBody", False, {}),
        ("code", "Send a one-time code to where the person was known to be reached", "ReleaseBody", False, {}),
        ("verify", "Accept a proof of identity", "VerifyBody", True, denied),
        ("pause", "The clock of GDPR waits for proof of identity", "NoteBody", False, {}),
        ("resume", "The clock goes on", "NoteBody", False, {}),
        ("extend", "The person was told that it takes longer", "ExtendBody", True, {}),
        ("assign", "Somebody takes care of it", "AssignBody", True, {}),
        ("refuse", "Close it under a legal provision", "RefuseBody", True, {}),
        ("cancel", "Close it because the person took it back", "CancelBody", False, {}),
        ("run", "Run it over every system", "ReleaseBody", False, going),
    ]
    return {
        f"/v1/requests/{{id}}/{name}": {"post": _of_one(summary, {**done, **more}, body=body, body_required=required)}
        for name, summary, body, required, more in steps
    }


def _results() -> Document:
    made = json_answer(schema_of("PackageReply"), "Good once, for a day, for this package.")
    file = {"description": "The file, once.", "content": {"application/zip": {"schema": {"type": "string"}}}}
    gone = {"404": problem_answer("The token is not good any more, or there is no package.")}
    token = query_parameter("token", {"type": "string", "minLength": 1}, "Made by POST on this path.", required=True)
    fetch = operation(
        "The copy of the person's data",
        {**gone, "200": file},
        parameters=[path_parameter("id", _NUMBER), token],
        tag="requests",
    )
    fetch["security"] = [{}]
    proof = {
        "200": {"description": "A C2SP signed note.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        "409": problem_answer("It is not closed yet."),
    }
    return {
        "/v1/requests/{id}/package": {
            "post": _of_one(
                "Make a token that fetches the package once", {"201": made}, body="ReleaseBody", body_required=False
            ),
            "get": fetch,
        },
        "/v1/requests/{id}/proof": {"get": _of_one("The signed proof of what became of it", proof)},
    }


def _holds() -> Document:
    return {
        "/v1/legal-holds": {
            "get": operation(
                "The legal holds that are on",
                {"200": json_answer(schema_of("LegalHoldsReply"), "All of them.")},
                tag="requests",
            ),
            "post": operation(
                "Put a legal hold on a customer, or on everybody",
                {"201": json_answer(schema_of("HoldReply"), "On, durably.")},
                body="LegalHoldBody",
                tag="requests",
            ),
            "delete": operation(
                "Lift a legal hold",
                {
                    "200": json_answer(schema_of("LiftedReply"), "What it had stopped can be run now."),
                    "404": problem_answer("There is no such hold."),
                },
                parameters=[
                    query_parameter("reference", _REFERENCE, "The matter.", required=True),
                    query_parameter("customer_id", CUSTOMER, "On whom; without: on everybody."),
                ],
                tag="requests",
            ),
        }
    }
