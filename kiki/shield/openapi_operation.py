"""What the parts of the OpenAPI document are made of: operations, parameters, answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kiki.shield import wire_problem
from kiki.shield.consent_words import CUSTOMER_LENGTH_MAX

Document = dict[str, Any]

TEXT_CONTENT: Final = {"text/plain": {"schema": {"type": "string"}}}
FREE: Final = {"type": "object"}
STRING: Final = {"type": "string"}


# What Python calls printable, as ECMA-262 says it: no controls, no unassigned characters, no space but the plain one.
PRINTABLE: Final = r"[\p{L}\p{M}\p{N}\p{P}\p{S} ]"
CUSTOMER: Final = {
    "type": "string",
    "pattern": rf"^(?!\*$){PRINTABLE}+$",
    "maxLength": CUSTOMER_LENGTH_MAX,
    "examples": ["cust_123"],
}
MOMENT: Final = {"type": "string", "format": "date-time"}


def schema_of(name: str) -> Document:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_answer(schema: Document, description: str) -> Document:
    """An answer in JSON."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def problem_answer(description: str, schema: str = "Problem", *, text: bool = False) -> Document:
    """A refusal; with `text` also in plain text."""
    content: Document = {wire_problem.PROBLEM_TYPE: {"schema": schema_of(schema)}}
    return {"description": description, "content": content | TEXT_CONTENT if text else content}


AUTH: Final = {"401": problem_answer("No valid bearer token."), "403": problem_answer("The caller lacks the role.")}
BROKEN: Final = {
    "400": problem_answer("The request cannot be read; nothing was changed."),
    "408": problem_answer("The body did not arrive in time."),
    "421": problem_answer("Not under this Host."),
    "429": problem_answer("Too many requests."),
    "500": problem_answer("kiki failed."),
    "503": problem_answer("kiki cannot decide now; nothing was acknowledged."),
}
BODY: Final = {"413": problem_answer("The body is too large."), "415": problem_answer("The body is not JSON.")}


def operation(
    summary: str,
    answers: Document,
    *,
    body: str | None = None,
    body_required: bool = True,
    parameters: list[Document] | None = None,
    tag: str = "shield",
) -> Document:
    """One method of a path, with the refusals that every one may answer."""
    found: Document = {
        "summary": summary,
        "tags": [tag],
        "responses": {**BROKEN, **(BODY if body else {}), **AUTH, **answers},
    }
    if body:
        found["requestBody"] = {
            "required": body_required,
            "content": {"application/json": {"schema": schema_of(body)}},
        }
    if parameters:
        found["parameters"] = parameters
    return found


def query_parameter(name: str, schema: Document, description: str, *, required: bool = False) -> Document:
    """A parameter of the query."""
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def path_parameter(name: str, pattern: str) -> Document:
    """A segment of the path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}


def with_text(answers: Document) -> Document:
    """The same refusals of a route that answers plain text unless JSON is asked for."""
    return {code: problem_answer(answer["description"], text=True) for code, answer in answers.items()}


def printable(longest: int) -> Document:
    """A text of one line."""
    return {"type": "string", "pattern": rf"^{PRINTABLE}*$", "maxLength": longest}


def lines_of(longest: int) -> Document:
    """A text of several lines."""
    return {"type": "string", "pattern": rf"^({PRINTABLE}|[\n\r\t])*$", "maxLength": longest}


def body_of(properties: Document, required: Sequence[str], **more: Any) -> Document:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        **more,
    }
