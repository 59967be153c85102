"""The OpenAPI document of SyncShield: the routes of `service` over the schemas of `wire`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kiki import __version__
from kiki.shield import privacy_openapi, request_openapi, wire, wire_problem, wire_schema
from kiki.shield.consent_words import PURPOSES
from kiki.shield.openapi_operation import (
    BODY,
    BROKEN,
    FREE,
    PRINTABLE,
    TEXT_CONTENT,
    Document,
    json_answer,
    operation,
    path_parameter,
    problem_answer,
    query_parameter,
    schema_of,
    with_text,
)

# Any scope's value but a lone asterisk, which means "each" in a pattern.
_VALUE = rf"(?!\*$){PRINTABLE}{{1,128}}"
_KIND = "[a-z][a-z0-9_]{0,31}"
_PATTERN = rf"^(\*|{_KIND}:(\*|{_VALUE}))$"
_NOT_ZERO = r"(?=.*[1-9])"
# A little less than the 9223372036854.775807 that fit: a pattern is no place for arithmetic.
_DECIMAL = r"([0-9]{1,12}|[0-8][0-9]{12})(\.[0-9]{1,6})?"
_NUMBER_MAX = 9223372036854.775
_REFUSED = problem_answer("Refused, or the caller lacks the role.", "RefusalProblem")
_REFUSED["content"][wire_problem.PROBLEM_TYPE]["schema"] = {
    "anyOf": [schema_of("RefusalProblem"), schema_of("Problem")]
}


_KEY_HEADER = {
    "name": wire.KEY_HEADER,
    "in": "header",
    "required": False,
    # A header is ASCII on its way, and spaces around it are not part of it.
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    "description": "The same key is the same call: a repeat gets the first answer.",
}
_AMOUNT_TEXT = {"type": "string", "pattern": f"^{_NOT_ZERO}{_DECIMAL}$", "examples": ["100"]}
_LTV_TEXT = {"type": "string", "pattern": f"^{_DECIMAL}$", "examples": ["600"]}
_SCOPE_TEXT = {"type": "string", "pattern": f"^{_KIND}:{_VALUE}$", "examples": ["platform:meta"]}
_SCOPES_PARAMETER = {
    "name": "scope",
    "in": "query",
    "required": False,
    "schema": _SCOPE_TEXT,
    # A list would allow a kind twice, which is refused; JSON Schema cannot tell the two apart.
    "description": "kind:value. It may be repeated with other kinds.",
}


def _money_routes(currency: str) -> Document:
    currency_query = query_parameter(
        "currency", {"const": currency, "type": "string"}, "Must be the currency of the budgets."
    )
    purpose_query = query_parameter(
        "purpose",
        {"pattern": "^[a-z][a-z0-9_]{0,31}$", "type": "string"},
        "What a customer named in the scopes must have consented to.",
    )
    conflict = {"409": problem_answer("The idempotency key was used for another request.")}
    admitted = json_answer(schema_of("OutcomeReply"), "Taken, durably.")
    plain = {"description": "Taken, durably.", "content": {**TEXT_CONTENT, **admitted["content"]}}
    passed = plain | {"description": "It would be admitted; nothing was taken."}
    refused = {"description": "Refused; nothing was charged.", "content": {**TEXT_CONTENT, **_REFUSED["content"]}}
    invalid = with_text({**BROKEN, **BODY})
    guide = {**invalid, "401": problem_answer("No valid bearer token.", text=True), "403": refused}
    spend = [
        query_parameter("amount", _AMOUNT_TEXT, "Money as decimal text.", required=True),
        currency_query,
        purpose_query,
        _SCOPES_PARAMETER,
    ]
    check = [
        query_parameter("ltv", _LTV_TEXT, "The predicted value.", required=True),
        currency_query,
        purpose_query,
        _SCOPES_PARAMETER,
    ]
    # That one of two parameters must be there is more than OpenAPI can say of a query.
    also = "amount=12.34 may stand beside ltv, or instead of it: see /v1/checks."
    conflict_text = {"409": problem_answer("The idempotency key was used for another request.", text=True)}
    return {
        "/spend": {
            "get": operation(
                "Spend", {**guide, **conflict_text, "200": plain}, parameters=[*spend, _KEY_HEADER], tag="guide"
            ),
            "post": operation(
                "Spend",
                {**guide, **conflict_text, "200": plain},
                body="SpendBody",
                tag="guide",
            ),
        },
        "/check": {
            "get": operation("Check a bid", {**guide, "200": passed}, parameters=check, tag="guide")
            | {"description": also},
            "post": operation("Check a bid", {**guide, "200": passed}, body="CheckBody", tag="guide"),
        },
        "/v1/spends": {
            "post": operation(
                "Spend",
                {"200": admitted, "403": _REFUSED, **conflict},
                body="SpendBody",
            )
        },
        "/v1/spends:batch": {
            "post": operation(
                "Spend many amounts in one durable commit",
                {"200": json_answer(schema_of("BatchReply"), "One outcome for each amount."), **conflict},
                body="BatchBody",
            )
        },
        "/v1/checks": {
            "post": operation(
                "Check, audited", {"200": json_answer(schema_of("OutcomeReply"), "Whether it fits.")}, body="CheckBody"
            )
        },
        "/v1/records": {
            "post": operation(
                "Count money spent elsewhere",
                {"200": admitted, **conflict},
                body="RecordBody",
            )
        },
    }


def _hold_routes() -> Document:
    hold = path_parameter("id", "^[0-9a-f]{32}$")
    settled = {
        "200": json_answer(schema_of("SettlementReply"), "Settled, durably."),
        "404": problem_answer("No such reservation is open."),
        "409": problem_answer("Settled already in another way, or more than was reserved."),
    }
    return {
        "/v1/reservations": {
            "get": operation("Open reservations", {"200": json_answer(schema_of("ReservationsReply"), "All of them.")}),
            "post": operation(
                "Set money aside",
                {
                    "201": json_answer(schema_of("ReservationReply"), "Set aside, durably."),
                    "403": _REFUSED,
                    "409": problem_answer("The idempotency key was used for another request."),
                },
                body="ReserveBody",
            ),
        },
        "/v1/reservations/{id}/commit": {
            "post": operation("Turn a reservation into a spend", settled, body="CommitBody", parameters=[hold])
        },
        "/v1/reservations/{id}/release": {
            "post": operation("End a reservation", settled, body="ReleaseBody", body_required=False, parameters=[hold])
        },
    }


def _other_routes() -> Document:
    pattern = {"type": "string", "pattern": _PATTERN}
    moment = {"type": "string", "format": "date-time"}
    halted = {"200": json_answer(schema_of("HaltReply"), "Done, durably.")}
    return {
        "/v1/budgets": {
            "get": operation(
                "What is spent, held and left",
                {"200": json_answer(schema_of("BudgetsReply"), "The windows.")},
                parameters=[
                    query_parameter(
                        "budget",
                        {"type": "string", "pattern": f"^{PRINTABLE}+$", "maxLength": 255},
                        "Only this budget.",
                    ),
                    query_parameter("scope", {"anyOf": [{"const": "*"}, _SCOPE_TEXT]}, "Only this scope."),
                    query_parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many."),
                ],
            )
        },
        "/v1/halts": {
            "get": operation("What is halted", {"200": json_answer(schema_of("HaltsReply"), "The patterns.")}),
            "post": operation("Turn the kill switch on", halted, body="HaltBody"),
            "delete": operation(
                "Turn the kill switch off",
                halted,
                parameters=[query_parameter("pattern", pattern, "Which halt.", required=True)],
            ),
        },
        "/v1/policies:simulate": {
            "post": operation(
                "What another policy would have decided",
                {"200": json_answer(schema_of("Simulation"), "The figures.")},
                body="SimulateBody",
            )
        },
        "/v1/decisions": {
            "get": operation(
                "The audit",
                {"200": json_answer(schema_of("DecisionsReply"), "A page, oldest first.")},
                parameters=[
                    query_parameter(
                        "after", {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "Go on after this event."
                    ),
                    query_parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many."),
                    query_parameter("since", moment, "Decided at this moment or later."),
                    query_parameter("until", moment, "Decided before this moment."),
                    query_parameter("outcome", {"enum": ["APPROVED", "DENIED", "UNKNOWN"]}, "Only this outcome."),
                    query_parameter("scope", _SCOPE_TEXT, "Only this scope; a customer by reference."),
                ],
            )
        },
        "/v1/decisions/{event_id}": {
            "get": operation(
                "One decision",
                {"200": json_answer(FREE, "The row."), "404": problem_answer("No such decision.")},
                parameters=[path_parameter("event_id", "^[0-9a-f]{16}$")],
            )
        },
        "/health": {"get": operation("The original's health", {"200": json_answer(FREE, "It serves.")}, tag="guide")},
        "/metrics": {
            "get": operation("Numbers for Prometheus", {"200": {"description": "As text.", "content": TEXT_CONTENT}})
        },
        "/openapi.json": {"get": operation("This document", {"200": json_answer(FREE, "OpenAPI 3.1.")})},
        "/livez": {"get": operation("Alive", {"200": {"description": "The loop turns.", "content": TEXT_CONTENT}})},
        "/readyz": {
            "get": operation(
                "Ready",
                {"200": json_answer(FREE, "A spend can be decided."), "503": json_answer(FREE, "Which part failed.")},
            )
        },
    }


def _schemas(currency: str) -> Document:
    """The schemas of `wire`, with what they leave to its parsers said as exactly as JSON Schema can."""
    found = wire_schema.schemas()
    number = {"type": "number", "maximum": _NUMBER_MAX, "multipleOf": 0.000001}
    found["Money"]["oneOf"] = [_AMOUNT_TEXT, number | {"exclusiveMinimum": 0}]
    from_zero = {"oneOf": [_LTV_TEXT, number | {"minimum": 0}]}
    found["Key"] |= {
        "pattern": f"^{PRINTABLE}*$",
        "description": "The same key: the same spend. The header Idempotency-Key may carry it instead; never two of them.",
    }
    found["Scopes"] |= {
        "propertyNames": {"pattern": f"^{_KIND}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{_VALUE}$"},
    }
    for schema in found.values():
        members = schema.get("properties", {})
        if schema.get("additionalProperties") is False and "currency" in members:
            members["currency"] = {"const": currency, "description": "The currency of the budgets."}
    found["CheckBody"]["properties"]["ltv"] = from_zero
    found["CommitBody"]["properties"]["amount"] = from_zero
    seconds = {"type": "number", "minimum": 0.000001, "maximum": 366 * 24 * 3600}
    found["ReserveBody"]["properties"]["seconds"] = seconds | {
        "description": "Then it turns into a spend; absent: never."
    }
    # How long it may be is said by the 413.
    found["SimulateBody"]["properties"]["policy"] = {"type": "string", "description": "A policy file, YAML."}
    found["HaltBody"]["properties"] = {
        "pattern": {"type": "string", "pattern": _PATTERN, "examples": ["*", "platform:meta", "campaign:*"]},
        "note": {"type": "string", "pattern": f"^{PRINTABLE}*$", "maxLength": 255},
    }
    return found


def openapi(currency: str, purposes: Sequence[str] = PURPOSES) -> Document:
    """The document, OpenAPI 3.1. `purposes` are those of consent."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SyncShield",
            "version": __version__,
            "description": "Sliding-window budgets that are never exceeded; every decision is durable first.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **_money_routes(currency),
            **_hold_routes(),
            **_other_routes(),
            **privacy_openapi.paths(purposes),
            **request_openapi.paths(),
        },
        "components": {
            "schemas": {**_schemas(currency), **privacy_openapi.schemas(purposes), **request_openapi.schemas(purposes)},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }
