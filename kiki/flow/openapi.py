"""The OpenAPI document of SyncFlow: the routes of `service` over the structs of `wire`. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kiki import __version__
from kiki.flow import wire
from kiki.flow.conversion import COLUMNS
from kiki.flow.plan import Plan
from kiki.flow.preview import Preview
from kiki.flow.reconcile import Reconciliation
from kiki.flow.run_status import RunStatus
from kiki.flow.value_upload import Uploaded
from kiki.shield.openapi_operation import (
    FREE,
    TEXT_CONTENT,
    Document,
    json_answer,
    operation,
    path_parameter,
    problem_answer,
    query_parameter,
    schema_of,
)
from kiki.shield.wire_schema import schemas as shield_schemas

_RUN: Final = path_parameter("run", r"^[A-Za-z0-9_-]{1,128}$")
_PLAN_REFUSED: Final = {"409": problem_answer("A run of this plan's name is open under another version.")}
_NO_RUN: Final = {"404": problem_answer("There is no such run.")}
_ENDED: Final = {"409": problem_answer("The run has ended.")}
_AFTER: Final = query_parameter(
    "after", {"type": "integer", "minimum": 0, "maximum": 2**53}, "Only what comes after this number."
)
_LIMIT: Final = query_parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": wire.EVENTS_MAX}, "At most so many."
)
_SAYS: Final = {"400": problem_answer("The request, or the plan in it, cannot be read; nothing was changed.")}


def _flow(summary: str, answers: Document, **given: Any) -> Document:
    return operation(summary, answers, tag="flow", **given)


def _reply(name: str, description: str) -> Document:
    return json_answer(schema_of(name), description)


def _tell(summary: str) -> Document:
    answers = {"200": _reply("ToldReply", "Written down; its campaigns hear it at once."), **_NO_RUN, **_ENDED}
    return {"post": _flow(summary, answers, body="TellBody", body_required=False, parameters=[_RUN])}


def _paths() -> Document:
    run = "/v1/runs/{run}"
    events = _reply("EventsReply", "A part of its story; with Accept: text/event-stream, all of it as it happens.")
    events["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "/v1/campaigns": {
            "get": _flow("Plans, each with its newest run", {"200": _reply("CampaignsReply", "By name.")}),
            "post": _flow(
                "Run a plan; the same plan is the same run",
                {"201": _reply("StartReply", "Written down; it begins at once."), **_PLAN_REFUSED, **_SAYS},
                body="StartBody",
            ),
        },
        "/v1/campaigns:plan": {
            "post": _flow(
                "What a plan would do; nothing is changed",
                {"200": _reply("Preview", "As things stand."), **_SAYS},
                body="PlanBody",
            )
        },
        "/v1/campaigns:upload": {
            "post": _flow(
                "Tell a platform what conversions turned out to be worth, each order once",
                {
                    "200": _reply("Uploaded", "What became of them."),
                    "400": problem_answer("The plan, or the values, cannot be used; nothing was sent."),
                    "404": problem_answer("The platform has no such campaign; nothing was sent."),
                    "409": problem_answer("Values of this campaign are being uploaded just now."),
                },
                body="UploadBody",
            )
        },
        "/v1/runs": {"get": _flow("Runs", {"200": _reply("RunsReply", "Newest first.")})},
        run: {"get": _flow("How a run stands", {"200": _reply("RunStatus", "Now."), **_NO_RUN}, parameters=[_RUN])},
        f"{run}/plan": {
            "get": _flow("The plan of a run", {"200": _reply("Plan", "As it began."), **_NO_RUN}, parameters=[_RUN])
        },
        f"{run}/steps": {
            "get": _flow(
                "The journal of a run",
                {"200": _reply("StepsReply", "In order."), **_NO_RUN},
                parameters=[_RUN, _AFTER, _LIMIT],
            )
        },
        f"{run}/events": {
            "get": _flow("The story of a run", {"200": events, **_NO_RUN}, parameters=[_RUN, _AFTER, _LIMIT])
        },
        f"{run}/approvals": {
            "post": _flow(
                "Approve a run that waits for it",
                {"201": _reply("ToldReply", "Written down."), **_NO_RUN, **_ENDED},
                body="EmptyBody",
                body_required=False,
                parameters=[_RUN],
            )
        },
        f"{run}/pause": _tell("Let a run, or one campaign of it, spend nothing more until it is resumed"),
        f"{run}/resume": _tell("Take a pause back"),
        f"{run}/cancel": _tell("End a run, or one campaign of it, for good"),
        f"{run}/reconcile": {
            "post": _flow(
                "Lay the three books side by side",
                {"200": _reply("Reconciliation", "What was found."), **_NO_RUN},
                body="ReconcileBody",
                body_required=False,
                parameters=[_RUN],
            )
        },
        "/v1/executors/{executor}/adopt": {
            "post": _flow(
                "Free the runs of a runner that is gone for good",
                {
                    "200": _reply("AdoptReply", "They are free."),
                    "409": problem_answer("A process is that runner."),
                },
                body="EmptyBody",
                body_required=False,
                parameters=[path_parameter("executor", r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")],
            )
        },
        "/health": {"get": _flow("What the service says of itself", {"200": json_answer(FREE, "As JSON.")})},
        "/metrics": {
            "get": _flow("Numbers for Prometheus", {"200": {"description": "As text.", "content": TEXT_CONTENT}})
        },
        "/openapi.json": {"get": _flow("This document", {"200": json_answer(FREE, "OpenAPI 3.1.")})},
        "/livez": {"get": _flow("Alive", {"200": {"description": "The loop turns.", "content": TEXT_CONTENT}})},
        "/readyz": {
            "get": _flow(
                "Ready",
                {"200": json_answer(FREE, "Runs are executed."), "503": json_answer(FREE, "Which part failed.")},
            )
        },
    }


def _schemas() -> Document:
    kinds = (*wire.REPLIES, *wire.BODIES, RunStatus, Plan, Preview, Reconciliation, Uploaded)
    _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for name in ("PlanBody", "StartBody", "UploadBody"):
        found[name]["properties"]["plan"] |= {"description": "A plan file, YAML."}
    found["UploadBody"]["properties"]["values"] |= {"description": f"CSV with the columns {', '.join(COLUMNS)}."}
    return {**found, "Problem": shield_schemas()["Problem"]}


def openapi() -> Document:
    """The document, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SyncFlow",
            "version": __version__,
            "description": "Campaigns on many ad platforms, each step once; money is held before a platform may spend.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }
