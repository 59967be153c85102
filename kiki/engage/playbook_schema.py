"""The JSON Schema of a playbook, for editors; `kiki.engage.playbook_text` is what decides, and says more. Pure."""

from __future__ import annotations

from typing import Any, Final

from kiki.engage.segment import EVENTS, NUMBERS, TEXTS, Comparison

_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"


def _text(pattern: str, says: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "description": says}


def _object(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": list(required)} if required else {})


def _named(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "propertyNames": {"pattern": _NAME}, "additionalProperties": value}


_SPAN: Final = _text(r"^[0-9]{1,5}[smhdw]$", "a span such as 45m, 12h, 3d or 2w")
_SHARE: Final = {
    "anyOf": [_text(r"^[0-9.]+\s*%?$", "a share such as 10%"), {"type": "number", "minimum": 0, "maximum": 1}]
}
_MONEY: Final = {"anyOf": [_text(r"^\$?[0-9]+(\.[0-9]{1,6})?$", "an amount"), {"type": "number", "minimum": 0}]}
_NUMBER: Final = {"anyOf": [{"type": "number"}, _text(r"^-?[0-9]+(\.[0-9]+)?$", "a number")]}
_TEXTS: Final = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_EVENT: Final = {"enum": list(EVENTS)}
_HOURS: Final = _text(
    r"^[0-9]{1,2}:[0-9]{2}\s*-\s*[0-9]{1,2}:[0-9]{2}$", "hours where the person is, such as 21:00-08:00"
)
_CONDITION: Final[dict[str, Any]] = {"$ref": "#/$defs/condition"}
_STEPS: Final[dict[str, Any]] = {"$ref": "#/$defs/steps"}


def playbook_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    compared = _object({**{str(each): _NUMBER for each in Comparison}, "absent": {"type": "boolean"}})
    compared["minProperties"] = 1
    several = {"type": "array", "items": _CONDITION, "minItems": 1}
    condition = {
        "oneOf": [
            *(_object({key: several}, (key,)) for key in ("all", "any")),
            _object({"not": _CONDITION}, ("not",)),
            _object({"in": _text(_NAME, "a segment of this playbook")}, ("in",)),
            _object(
                {"event": _EVENT, "within": _SPAN, "at_least": {"type": "integer", "minimum": 1}}, ("event", "within")
            ),
            *(_object({key: compared}, (key,)) for key in NUMBERS),
            *(_object({key: _TEXTS}, (key,)) for key in TEXTS),
        ]
    }
    name = _text(_NAME, "a name that stays when steps are added before it")
    way = {"share": _SHARE, "steps": {"anyOf": [_STEPS, {"type": "array", "maxItems": 0}]}}
    arm, learning_arm = _object(way, ("share",)), _object(way)
    steps = {
        "type": "array",
        "minItems": 1,
        "items": {
            "oneOf": [
                _object({"send": _TEXTS, "name": name}, ("send",)),
                _object({"wait": _SPAN}, ("wait",)),
                _object(
                    {"wait_for": _EVENT, "within": _SPAN, "otherwise": {"enum": ["go_on", "leave"]}},
                    ("wait_for", "within"),
                ),
                _object({"split": {"type": "array", "items": arm, "minItems": 1}, "name": name}, ("split",)),
                _object(
                    {
                        "split": {"type": "array", "items": learning_arm, "minItems": 2},
                        "name": name,
                        "learn": {"enum": ["thompson"]},
                        "floor": _SHARE,
                        "reward": {"enum": ["margin", "goal"]},
                    },
                    ("split", "learn"),
                ),
            ]
        },
    }
    enter = _object({"segment": {"type": "string"}, "event": _EVENT})
    enter["minProperties"] = 1
    journey = _object(
        {
            "enter": enter,
            "again_after": _SPAN,
            "exit": _object({"event": _EVENT}),
            "goal": _object({"event": {"enum": [each for each in EVENTS if each != "opened"]}, "within": _SPAN}),
            "steps": _STEPS,
        },
        ("enter", "steps"),
    )
    calendar = {"anyOf": [_SPAN, {"enum": ["day", "week", "month"]}]}
    top = _object(
        {
            "playbook": name,
            "currency": _text("^[A-Z]{3}$", "ISO 4217"),
            "purpose": _text("^[a-z][a-z0-9_]{0,31}$", "the purpose of consent that every message rests on"),
            "zone": {
                "type": "string",
                "description": "IANA zone of people whose own is unknown, unless their country has others",
            },
            **dict.fromkeys(("holdout", "explore", "margin"), _SHARE),
            **dict.fromkeys(("horizon", "cooldown"), _SPAN),
            "caps": {
                "type": "array",
                "items": _object(
                    {"messages": {"type": "integer", "minimum": 1}, "per": calendar, "channel": {"type": "string"}},
                    ("messages", "per"),
                ),
            },
            "channels": _named(_object({"cost": _MONEY, "quiet_hours": _HOURS})),
            "segments": _named(_CONDITION),
            "messages": _named(
                _object(
                    {key: {"type": "string", "minLength": 1} for key in ("channel", "subject", "text", "html")},
                    ("channel", "text"),
                )
            ),
            "offers": _named(
                _object(
                    {"message": {"type": "string"}, "cost": _MONEY, "discount": _NUMBER, "gain": _MONEY}, ("message",)
                )
            ),
            "journeys": _named(journey) | {"minProperties": 1},
        },
        ("playbook", "currency", "messages", "offers", "journeys"),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kiki playbook",
        **top,
        "$defs": {"condition": condition, "steps": steps},
    }
