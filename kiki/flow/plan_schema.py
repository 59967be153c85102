"""The JSON Schema of a plan, for editors: docs/campaign.schema.json is what `plan_schema` gives. Pure.

It says what a plan looks like; what belongs together (a campaign's platform and its account, days and dates) only `parse_plan`
can judge.
"""

from __future__ import annotations

from typing import Any, Final

from kiki.flow.plan import PLATFORMS, SANDBOX, Absence, Allocation, Bound, Objective, Pacing
from kiki.flow.plan_text import CAMPAIGNS_MAX, WEEKDAYS

SCHEMA_ID: Final = "https://kiki.example/campaign.schema.json"

_AMOUNT: Final = r"([$€£¥₹₩]\s*|[A-Z]{3}\s+)?[0-9][0-9,]*(\.[0-9]+)?(\s+[A-Z]{3})?"
_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_PURPOSE: Final = r"^[a-z][a-z0-9_]{0,31}$"


def plan_schema() -> dict[str, Any]:
    """The schema, JSON Schema 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "A campaign plan of kiki",
        **_object(
            {
                "plan": _text(_NAME, "The plan's name; one open run for each.", "spring-sale"),
                "currency": _text(r"^[A-Z]{3}$", "Of all amounts and accounts.", "USD"),
                "time_zone": {
                    "type": "string",
                    "description": "Where an account does not say its own.",
                    "default": "UTC",
                },
                "starts": _date("The first day."),
                "ends": _date("The last day."),
                "budget": _total("The most that all of it may cost."),
                "pacing": _words(Pacing, "How a campaign's money is spread over its days.", Pacing.EVEN),
                "allocation": _words(Allocation, "How money is divided among campaigns.", Allocation.FIXED),
                "on_guard_down": _words(
                    Absence, "What running campaigns do while the guard cannot be asked.", Absence.LEAVE
                ),
                "approval_above": _daily("A plan whose days cost more waits for a person's approval."),
                "scopes": _scopes("Added to every reservation, beside campaign and platform."),
                "platforms": _platforms(),
                "campaigns": {"type": "array", "minItems": 1, "maxItems": CAMPAIGNS_MAX, "items": _campaign()},
            },
            ("plan", "currency", "starts", "ends", "platforms", "campaigns"),
        ),
    }


def _campaign() -> dict[str, Any]:
    return _object(
        {
            "name": _text(_NAME, "Unique in the plan.", "search-brand"),
            "platform": {
                "enum": [*PLATFORMS, *(f"{name}_smart" for name in PLATFORMS)],
                "description": "Where it runs; a name with _smart is the same platform.",
            },
            "objective": _words(Objective, "What it is for.", Objective.SALES),
            "budget": _daily("The daily budget."),
            "bid": _bid(),
            "starts": _date("Its first day; without it, the plan's."),
            "ends": _date("Its last day; without it, the plan's."),
            "days": {
                "type": "array",
                "items": {"enum": [*WEEKDAYS]},
                "minItems": 1,
                "description": "The weekdays on which it runs.",
            },
            "countries": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[A-Z]{2}$"},
                "description": "ISO 3166-1 codes.",
            },
            "audience": _object(
                {
                    "list": _text(_NAME, "The list's name.", "vip-buyers"),
                    "consent": _text(_PURPOSE, "What everybody on it must have consented to.", "targeting"),
                },
                ("list", "consent"),
            ),
            "settings": _settings(),
            "scopes": _scopes("Added to its own reservations; a word of its own goes before the plan's."),
        },
        ("name", "platform", "budget"),
    )


def _platforms() -> dict[str, Any]:
    account = _object(
        {
            "account": {"type": ["string", "number"], "description": "The account's id."},
            "settings": _settings(),
        },
        ("account",),
    )
    every = {"type": "object", "properties": dict.fromkeys(PLATFORMS, account), "additionalProperties": False}
    return {
        "description": "The account on each platform, or `sandbox`: all platforms are played, and nothing is spent.",
        "oneOf": [{"const": SANDBOX}, every],
    }


def _bid() -> dict[str, Any]:
    by_value = _object(
        {
            "ltv": _text(r"^[0-9]{1,3}(\.[0-9]{1,4})?\s*%$", "The share of what a new customer is worth.", "30%"),
            "floor": _amount("Never less."),
            "ceiling": _amount("Never more."),
            "bound": _words(Bound, "Which value of the prediction.", Bound.LOWER),
        },
        ("ltv",),
    )
    return {
        "description": "What to offer; `automatic`: the platform bids by itself.",
        "default": "automatic",
        "oneOf": [{"const": "automatic"}, _amount("The bid."), by_value],
    }


def _settings() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "What only the platform knows.",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "maxProperties": 50,
    }


def _scopes(description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": _PURPOSE, "not": {"enum": ["campaign", "platform", "customer"]}},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "maxProperties": 5,
    }


def _object(properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def _text(pattern: str, description: str, example: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "description": description, "examples": [example]}


def _words(words: type[Any], description: str, default: str) -> dict[str, Any]:
    return {"enum": [str(word) for word in words], "description": description, "default": str(default)}


def _date(description: str) -> dict[str, Any]:
    return _text(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description, "2026-12-01")


def _daily(description: str) -> dict[str, Any]:
    return _text(rf"^{_AMOUNT}\s*/\s*day$", description, "$1,500.00/day")


def _total(description: str) -> dict[str, Any]:
    return _text(rf"^{_AMOUNT}\s+(in )?total$", description, "$20,000.00 total")


def _amount(description: str) -> dict[str, Any]:
    # YAML reads an amount without a sign as a number.
    written = _text(rf"^{_AMOUNT}$", description, "$1.20")
    return {**written, "type": ["string", "number"]}
