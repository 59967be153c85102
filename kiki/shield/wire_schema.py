"""The shapes of the wire as JSON Schema, for `/openapi.json`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from kiki.shield.simulation import Simulation
from kiki.shield.wire import (
    BatchReply,
    BudgetsReply,
    DecisionsReply,
    HaltReply,
    HaltsReply,
    OutcomeReply,
    RefusalProblem,
    ReservationReply,
    ReservationsReply,
    SettlementReply,
)
from kiki.shield.wire_call import (
    BATCH_MEMBERS,
    CHECK_MEMBERS,
    COMMIT_MEMBERS,
    HALT_MEMBERS,
    ITEM_MEMBERS,
    POLICY_LENGTH_MAX,
    RECORD_MEMBERS,
    RESERVE_MEMBERS,
    SIMULATE_MEMBERS,
    SPEND_MEMBERS,
)

# -- for /openapi.json -------------------------------------------------------------------------------

_MONEY_SCHEMA: Final = {
    "description": "Money: decimal text, or a number that is read exactly; more than 0, at most six decimals.",
    "oneOf": [
        {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,6})?$", "examples": ["12.34"]},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 9223372036854.775807},
    ],
}
_KEY_SCHEMA: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "description": "The same key: the same spend.",
}
_SCOPES_SCHEMA: Final = {
    "type": "object",
    "maxProperties": 8,
    "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,31}$"},
    "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 128},
    "examples": [{"platform": "meta"}],
}

_MEMBER_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "amount": {"$ref": "#/components/schemas/Money"},
    "amounts": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Money"},
        "minItems": 1,
        "maxItems": 10_000,
    },
    "currency": {"type": "string", "description": "Must be the currency of the budgets."},
    "key": {"$ref": "#/components/schemas/Key"},
    "ltv": {
        "oneOf": [
            {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,6})?$"},
            {"type": "number", "minimum": 0, "maximum": 9223372036854.775807},
        ]
    },
    "note": {"type": "string", "maxLength": 255},
    "pattern": {"type": "string", "maxLength": 161, "examples": ["*", "platform:meta", "campaign:*"]},
    "policy": {"type": "string", "maxLength": POLICY_LENGTH_MAX, "description": "A policy file, YAML."},
    "purpose": {
        "type": "string",
        "pattern": "^[a-z][a-z0-9_]{0,31}$",
        "description": "What a customer named in the scopes must have consented to.",
    },
    "scopes": {"$ref": "#/components/schemas/Scopes"},
    "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 366 * 24 * 3600},
    "since": {"type": "string", "format": "date-time"},
}


def _body_schema(members: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: _MEMBER_SCHEMAS[name] for name in members},
        "additionalProperties": False,
    }
    if required:
        found["required"] = list(required)
    return found


def schemas() -> dict[str, Any]:
    """The `components/schemas` of the OpenAPI document: every request and every answer of this file by name."""
    replies: list[Any] = [
        OutcomeReply,
        RefusalProblem,
        BatchReply,
        ReservationReply,
        ReservationsReply,
        SettlementReply,
        HaltReply,
        HaltsReply,
        BudgetsReply,
        DecisionsReply,
    ]
    _, components = msgspec.json.schema_components(replies, ref_template="#/components/schemas/{name}")
    item = _body_schema(ITEM_MEMBERS, ("amount",))
    spends = {"type": "array", "items": item, "minItems": 1, "maxItems": 10_000}
    shared = _body_schema([name for name in BATCH_MEMBERS if name != "spends"])["properties"]
    commit = _body_schema(COMMIT_MEMBERS, ("amount",))
    commit["properties"] = commit["properties"] | {"amount": _MEMBER_SCHEMAS["ltv"]}
    return {
        **components,
        "Money": _MONEY_SCHEMA,
        "Key": _KEY_SCHEMA,
        "Scopes": _SCOPES_SCHEMA,
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "code": {"type": "string"},
                "hint": {"type": "string"},
                "instance": {"type": "string"},
                "problems": {"type": "array", "items": {"type": "string"}},
                "retry_after": {"type": "number"},
            },
        },
        "Simulation": {
            "type": "object",
            "required": [*Simulation().as_dict()],
            "properties": {
                name: {"type": "object", "additionalProperties": {"type": "integer"}}
                if isinstance(value, dict)
                else {"type": "integer" if isinstance(value, int) else "string"}
                for name, value in Simulation().as_dict().items()
            },
        },
        "SpendBody": _body_schema(SPEND_MEMBERS, ("amount",)),
        "BatchBody": {
            "type": "object",
            "properties": {**shared, "spends": spends},
            "additionalProperties": False,
            "oneOf": [{"required": ["amounts"]}, {"required": ["spends"]}],
        },
        "CheckBody": _body_schema(CHECK_MEMBERS),
        "ReserveBody": _body_schema(RESERVE_MEMBERS, ("amount",)),
        "CommitBody": commit,
        "ReleaseBody": {"type": "object", "additionalProperties": False, "maxProperties": 0},
        "RecordBody": _body_schema(RECORD_MEMBERS, ("amount",)),
        "HaltBody": _body_schema(HALT_MEMBERS, ("pattern",)),
        "SimulateBody": _body_schema(SIMULATE_MEMBERS, ("policy",)),
    }
