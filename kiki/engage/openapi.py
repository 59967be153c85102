"""The OpenAPI document of SyncEngage. The schemas of bodies come from `wire`; answers say their members. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kiki import __version__
from kiki.engage import wire
from kiki.engage.unsubscribe import PATH

Document = dict[str, Any]

_BODIES: Final = (wire.ProfilesBody, wire.EventsBody, wire.PlaybookBody, wire.PreviewBody, wire.SuppressionBody)
_PROBLEM_TYPE: Final = "application/problem+json"
_HTML: Final[Document] = {"text/html": {"schema": {"type": "string"}}}
_TEXT: Final[Document] = {"text/plain": {"schema": {"type": "string"}}}


def _problem(says: str) -> Document:
    return {"description": says, "content": {_PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


_REFUSALS: Final[Document] = {
    "400": _problem("The request cannot be read; nothing was changed."),
    "401": _problem("No valid bearer token, or the call is not proven."),
    "403": _problem("The caller lacks the role."),
    "404": _problem("There is no such thing."),
    "408": _problem("The body did not arrive in time."),
    "413": _problem("The body is too large."),
    "415": _problem("The body is not of the type that is expected."),
    "421": _problem("Not under this Host."),
    "429": _problem("Too many requests."),
    "500": _problem("kiki failed."),
    "503": _problem("The shield or the store does not answer; nothing was sent."),
}


def _answer(properties: Document, says: str) -> Document:
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _operation(
    summary: str, answer: Document, *, body: type[msgspec.Struct] | None = None, parameters: tuple[Document, ...] = ()
) -> Document:
    made: Document = {"summary": summary, "tags": ["engage"], "responses": {**_REFUSALS, "200": answer}}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if parameters:
        made["parameters"] = list(parameters)
    return made


def _query(name: str, schema: Document, says: str) -> Document:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": says}


def _path(name: str) -> Document:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 300},
    }


_NUMBER: Final = {"type": "integer"}
_STRING: Final = {"type": "string"}
_LIST: Final = {"type": "array"}
_OBJECT: Final = {"type": "object"}
_PLAYBOOK: Final = _query("playbook", _STRING, "Which one; may be left out where there is one only.")


def openapi() -> Document:
    """The document."""
    _, components = msgspec.json.schema_components(_BODIES, ref_template="#/components/schemas/{name}")
    components["Problem"] = {
        "type": "object",
        "properties": {"type": _STRING, "title": _STRING, "status": _NUMBER, "detail": _STRING, "code": _STRING},
        "required": ["type", "title", "status", "detail", "code"],
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SyncEngage",
            "version": __version__,
            "description": "Retention that asks first and sends once.",
        },
        "paths": _paths(),
        "components": {"schemas": components},
    }


def _paths() -> Document:
    customer = (_path("customer_id"),)
    page = {"text/html": _HTML["text/html"]}
    trigger = {
        "summary": "What the original would do about a customer. Nothing is sent.",
        "tags": ["original"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _OBJECT}}},
        "responses": {
            **_REFUSALS,
            "200": {
                "description": "A trigger; null where the shield denies; without type and action where there is nothing to do.",
                "content": {"application/json": {"schema": {"type": ["object", "null"]}}},
            },
            "400": {"description": "Not a customer.", "content": _TEXT},
            "503": {"description": "The audit cannot be written.", "content": {**_TEXT, **_problem("")["content"]}},
        },
    }
    return {
        "/health": {
            "get": _operation(
                "How the service is, and whether SyncValue can be reached.",
                _answer(
                    {"status": _STRING, "service": _STRING, "ltv_client": {"type": "boolean"}, "timestamp": _STRING},
                    "It is.",
                ),
            )
        },
        "/trigger": dict.fromkeys(("get", "post", "put", "patch", "delete"), trigger),
        "/v1/profiles": {
            "get": _operation(
                "Customers by id, without names and addresses.",
                _answer({"profiles": _LIST, "next": {"type": ["string", "null"]}}, "A page."),
                parameters=(
                    _query("after", {"type": "string", "maxLength": 200}, "The `next` of the page before."),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "How many."),
                ),
            ),
            "post": _operation(
                "Keep customers, durably.",
                _answer({"kept": _NUMBER, "erased": _NUMBER}, "Kept."),
                body=wire.ProfilesBody,
            ),
        },
        "/v1/profiles/{customer_id}": {
            "get": _operation(
                "One customer, without names and addresses.",
                _answer({"customer_id": _STRING}, "There."),
                parameters=customer,
            )
        },
        "/v1/profiles/{customer_id}/explanation": {
            "get": _operation(
                "Why this customer gets what they get.",
                _answer(
                    {"customer_id": _STRING, **dict.fromkeys(("playbooks", "verdicts", "journeys", "messages"), _LIST)},
                    "Why.",
                ),
                parameters=customer,
            )
        },
        "/v1/events": {
            "post": _operation(
                "Keep what customers did, each event once.",
                _answer(dict.fromkeys(("kept", "repeated", "erased"), _NUMBER), "Kept."),
                body=wire.EventsBody,
            )
        },
        "/v1/suppressions": {
            "post": _operation(
                "Write to a customer no more.",
                _answer({"customer_id": _STRING, "channel": _STRING}, "From now on."),
                body=wire.SuppressionBody,
            )
        },
        "/v1/playbooks": {"get": _operation("The playbooks of this service.", _answer({"playbooks": _LIST}, "These."))},
        "/v1/plans": {
            "post": _operation(
                "What a run would do now; nothing is written or sent.",
                _answer({"playbook": _STRING, "version": _STRING, "lines": _LIST, "verdicts": _OBJECT}, "The plan."),
                body=wire.PlaybookBody,
            )
        },
        "/v1/previews": {
            "post": _operation(
                "What a person would read.",
                _answer({"subject": _STRING, "text": _STRING, "html": _STRING}, "This."),
                body=wire.PreviewBody,
            )
        },
        "/v1/runs": {
            "post": _operation(
                "Run a playbook of this service now.",
                _answer({"playbook": _STRING, "entered": _NUMBER, "verdicts": _OBJECT, "messages": _OBJECT}, "Done."),
                body=wire.PlaybookBody,
            )
        },
        "/v1/syncs": {
            "post": _operation(
                "Look at the source of customers now.",
                _answer({"source": _STRING}, "Done."),
                parameters=(
                    _query("write_back", _STRING, "Then write what this playbook sees into fields of the source."),
                    _query("tag", _STRING, "Then add a tag for each segment of this playbook at the source."),
                ),
            )
        },
        "/v1/journeys": {
            "get": _operation(
                "How many people are where.",
                _answer({"playbook": _STRING, "journeys": _LIST}, "These."),
                parameters=(_PLAYBOOK,),
            )
        },
        "/v1/outcomes": {
            "get": _operation(
                "What messages earned beyond the control group, with an interval that holds at every look.",
                _answer({"playbook": _STRING, "currency": _STRING, "journeys": _LIST}, "So far."),
                parameters=(
                    _PLAYBOOK,
                    _query("together", {"type": "boolean"}, "true: of all playbooks, against the global holdout."),
                ),
            )
        },
        "/v1/outcomes/export": {
            "get": {
                **_operation(
                    "Every assignment with what came of it, as CSV, for analysis elsewhere. It names nobody.",
                    {"description": "So far.", "content": {"text/csv": {"schema": _STRING}}},
                    parameters=(_PLAYBOOK,),
                )
            }
        },
        "/v1/webhooks/{provider}": {
            "post": {
                **_operation(
                    "A provider's signed call.", _answer({"kept": _NUMBER}, "Durable."), parameters=(_path("provider"),)
                ),
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {}, "application/x-www-form-urlencoded": {}},
                },
            }
        },
        f"{PATH}{{token}}": {
            "get": {
                "summary": "Asks whether to unsubscribe. Changes nothing.",
                "tags": ["engage"],
                "parameters": [_path("token")],
                "responses": {**_REFUSALS, "200": {"description": "One button.", "content": page}},
            },
            "post": {
                "summary": "Unsubscribes (RFC 8058).",
                "tags": ["engage"],
                "parameters": [_path("token")],
                "responses": {
                    **_REFUSALS,
                    "200": {"description": "Done, durably.", "content": page},
                    "404": {"description": "Not a link of ours; nothing was changed.", "content": page},
                },
            },
        },
        "/privacy/{method}": {
            "post": {
                **_operation(
                    "A shield's signed call about one person: see docs/requests.md.",
                    {"description": "Done.", "content": {"application/json": {}, "application/x-ndjson": {}}},
                    parameters=(_path("method"),),
                ),
                "requestBody": {"required": True, "content": {"application/json": {}}},
            }
        },
    }
