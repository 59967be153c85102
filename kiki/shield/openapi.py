"""The OpenAPI document of SyncShield: the routes of `service` over the schemas of `wire`. Pure."""

from __future__ import annotations

from typing import Any

from kiki import __version__
from kiki.shield import wire, wire_schema

Document = dict[str, Any]

_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_FREE = {"type": "object"}
_STRING = {"type": "string"}


# What Python calls printable, as ECMA-262 says it: no controls, no unassigned characters, no space but the plain one.
_PRINTABLE = r"[\p{L}\p{M}\p{N}\p{P}\p{S} ]"
# Any scope's value but a lone asterisk, which means "each" in a pattern.
_VALUE = rf"(?!\*$){_PRINTABLE}{{1,128}}"
_KIND = "[a-z][a-z0-9_]{0,31}"
_PATTERN = rf"^(\*|{_KIND}:(\*|{_VALUE}))$"
_NOT_ZERO = r"(?=.*[1-9])"
# A little less than the 9223372036854.775807 that fit: a pattern is no place for arithmetic.
_DECIMAL = r"([0-9]{1,12}|[0-8][0-9]{12})(\.[0-9]{1,6})?"
_NUMBER_MAX = 9223372036854.775


def _schema(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Document, description: str) -> Document:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem(description: str, schema: str = "Problem", *, text: bool = False) -> Document:
    content: Document = {wire.PROBLEM_TYPE: {"schema": _schema(schema)}}
    return {"description": description, "content": content | _TEXT if text else content}


_AUTH = {"401": _problem("No valid bearer token."), "403": _problem("The caller lacks the role.")}
_BROKEN = {
    "400": _problem("The request cannot be read; nothing was charged."),
    "408": _problem("The body did not arrive in time."),
    "421": _problem("Not under this Host."),
    "429": _problem("Too many requests."),
    "500": _problem("kiki failed."),
    "503": _problem("kiki cannot decide now; nothing was acknowledged."),
}
_BODY = {"413": _problem("The body is too large."), "415": _problem("The body is not JSON.")}
_REFUSED = _problem("Refused, or the caller lacks the role.", "RefusalProblem")
_REFUSED["content"][wire.PROBLEM_TYPE]["schema"] = {"anyOf": [_schema("RefusalProblem"), _schema("Problem")]}


def _operation(
    summary: str,
    answers: Document,
    *,
    body: str | None = None,
    body_required: bool = True,
    parameters: list[Document] | None = None,
    tag: str = "shield",
) -> Document:
    operation: Document = {
        "summary": summary,
        "tags": [tag],
        "responses": {**_BROKEN, **(_BODY if body else {}), **_AUTH, **answers},
    }
    if body:
        operation["requestBody"] = {
            "required": body_required,
            "content": {"application/json": {"schema": _schema(body)}},
        }
    if parameters:
        operation["parameters"] = parameters
    return operation


def _query(name: str, schema: Document, description: str, *, required: bool = False) -> Document:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def _path(name: str, pattern: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}


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
    currency_query = _query("currency", {"const": currency, "type": "string"}, "Must be the currency of the budgets.")
    purpose_query = _query(
        "purpose",
        {"pattern": "^[a-z][a-z0-9_]{0,31}$", "type": "string"},
        "What a customer named in the scopes must have consented to.",
    )
    conflict = {"409": _problem("The idempotency key was used for another request.")}
    admitted = _json(_schema("OutcomeReply"), "Taken, durably.")
    plain = {"description": "Taken, durably.", "content": {**_TEXT, **admitted["content"]}}
    passed = plain | {"description": "It would be admitted; nothing was taken."}
    refused = {"description": "Refused; nothing was charged.", "content": {**_TEXT, **_REFUSED["content"]}}
    invalid = {code: _problem(answer["description"], text=True) for code, answer in {**_BROKEN, **_BODY}.items()}
    guide = {**invalid, "401": _problem("No valid bearer token.", text=True), "403": refused}
    spend = [
        _query("amount", _AMOUNT_TEXT, "Money as decimal text.", required=True),
        currency_query,
        purpose_query,
        _SCOPES_PARAMETER,
    ]
    check = [
        _query("ltv", _LTV_TEXT, "The predicted value.", required=True),
        currency_query,
        purpose_query,
        _SCOPES_PARAMETER,
    ]
    # That one of two parameters must be there is more than OpenAPI can say of a query.
    also = "amount=12.34 may stand beside ltv, or instead of it: see /v1/checks."
    conflict_text = {"409": _problem("The idempotency key was used for another request.", text=True)}
    return {
        "/spend": {
            "get": _operation(
                "Spend", {**guide, **conflict_text, "200": plain}, parameters=[*spend, _KEY_HEADER], tag="guide"
            ),
            "post": _operation(
                "Spend",
                {**guide, **conflict_text, "200": plain},
                body="SpendBody",
                tag="guide",
            ),
        },
        "/check": {
            "get": _operation("Check a bid", {**guide, "200": passed}, parameters=check, tag="guide")
            | {"description": also},
            "post": _operation("Check a bid", {**guide, "200": passed}, body="CheckBody", tag="guide"),
        },
        "/v1/spends": {
            "post": _operation(
                "Spend",
                {"200": admitted, "403": _REFUSED, **conflict},
                body="SpendBody",
            )
        },
        "/v1/spends:batch": {
            "post": _operation(
                "Spend many amounts in one durable commit",
                {"200": _json(_schema("BatchReply"), "One outcome for each amount."), **conflict},
                body="BatchBody",
            )
        },
        "/v1/checks": {
            "post": _operation(
                "Check, audited", {"200": _json(_schema("OutcomeReply"), "Whether it fits.")}, body="CheckBody"
            )
        },
        "/v1/records": {
            "post": _operation(
                "Count money spent elsewhere",
                {"200": admitted, **conflict},
                body="RecordBody",
            )
        },
    }


def _hold_routes() -> Document:
    hold = _path("id", "^[0-9a-f]{32}$")
    settled = {
        "200": _json(_schema("SettlementReply"), "Settled, durably."),
        "404": _problem("No such reservation is open."),
        "409": _problem("Settled already in another way, or more than was reserved."),
    }
    return {
        "/v1/reservations": {
            "get": _operation("Open reservations", {"200": _json(_schema("ReservationsReply"), "All of them.")}),
            "post": _operation(
                "Set money aside",
                {
                    "201": _json(_schema("ReservationReply"), "Set aside, durably."),
                    "403": _REFUSED,
                    "409": _problem("The idempotency key was used for another request."),
                },
                body="ReserveBody",
            ),
        },
        "/v1/reservations/{id}/commit": {
            "post": _operation("Turn a reservation into a spend", settled, body="CommitBody", parameters=[hold])
        },
        "/v1/reservations/{id}/release": {
            "post": _operation("End a reservation", settled, body="ReleaseBody", body_required=False, parameters=[hold])
        },
    }


def _other_routes() -> Document:
    pattern = {"type": "string", "pattern": _PATTERN}
    moment = {"type": "string", "format": "date-time"}
    halted = {"200": _json(_schema("HaltReply"), "Done, durably.")}
    return {
        "/v1/budgets": {
            "get": _operation(
                "What is spent, held and left",
                {"200": _json(_schema("BudgetsReply"), "The windows.")},
                parameters=[
                    _query(
                        "budget",
                        {"type": "string", "pattern": f"^{_PRINTABLE}+$", "maxLength": 255},
                        "Only this budget.",
                    ),
                    _query("scope", {"anyOf": [{"const": "*"}, _SCOPE_TEXT]}, "Only this scope."),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many."),
                ],
            )
        },
        "/v1/halts": {
            "get": _operation("What is halted", {"200": _json(_schema("HaltsReply"), "The patterns.")}),
            "post": _operation("Turn the kill switch on", halted, body="HaltBody"),
            "delete": _operation(
                "Turn the kill switch off",
                halted,
                parameters=[_query("pattern", pattern, "Which halt.", required=True)],
            ),
        },
        "/v1/policies:simulate": {
            "post": _operation(
                "What another policy would have decided",
                {"200": _json(_schema("Simulation"), "The figures.")},
                body="SimulateBody",
            )
        },
        "/v1/decisions": {
            "get": _operation(
                "The audit",
                {"200": _json(_schema("DecisionsReply"), "A page, oldest first.")},
                parameters=[
                    _query("after", {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "Go on after this event."),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many."),
                    _query("since", moment, "Decided at this moment or later."),
                    _query("until", moment, "Decided before this moment."),
                    _query("outcome", {"enum": ["APPROVED", "DENIED", "UNKNOWN"]}, "Only this outcome."),
                    _query("scope", _SCOPE_TEXT, "Only this scope; a customer by reference."),
                ],
            )
        },
        "/v1/decisions/{event_id}": {
            "get": _operation(
                "One decision",
                {"200": _json(_FREE, "The row."), "404": _problem("No such decision.")},
                parameters=[_path("event_id", "^[0-9a-f]{16}$")],
            )
        },
        "/health": {"get": _operation("The original's health", {"200": _json(_FREE, "It serves.")}, tag="guide")},
        "/metrics": {
            "get": _operation("Numbers for Prometheus", {"200": {"description": "As text.", "content": _TEXT}})
        },
        "/openapi.json": {"get": _operation("This document", {"200": _json(_FREE, "OpenAPI 3.1.")})},
        "/livez": {"get": _operation("Alive", {"200": {"description": "The loop turns.", "content": _TEXT}})},
        "/readyz": {
            "get": _operation(
                "Ready", {"200": _json(_FREE, "A spend can be decided."), "503": _json(_FREE, "Which part failed.")}
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
        "pattern": f"^{_PRINTABLE}*$",
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
        "note": {"type": "string", "pattern": f"^{_PRINTABLE}*$", "maxLength": 255},
    }
    return found


def openapi(currency: str) -> Document:
    """The document, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SyncShield",
            "version": __version__,
            "description": "Sliding-window budgets that are never exceeded; every decision is durable first.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_money_routes(currency), **_hold_routes(), **_other_routes()},
        "components": {
            "schemas": _schemas(currency),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }
