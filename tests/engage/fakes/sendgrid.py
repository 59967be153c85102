"""SendGrid's mail/send, as its documents and its kit have it."""

from __future__ import annotations

import re
import uuid
from typing import Any

from tests.engage.fakes.service import Answer, Call, FakeService

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


class FakeSendGrid(FakeService):
    def __init__(self, api_key: str = "SG.key") -> None:
        super().__init__()
        self.api_key = api_key
        self.mails: list[dict[str, Any]] = []

    def handle(self, call: Call) -> Answer:
        if call.headers.get("authorization") != f"Bearer {self.api_key}":
            return _refusal(401, "The provided authorization grant is invalid, expired, or revoked")
        if (call.method, call.path) != ("POST", "/v3/mail/send"):
            return _refusal(404, "Not Found")
        mail = call.json
        for field, message in _mistakes(mail):
            return _refusal(400, message, field)
        self.mails.append(mail)
        return Answer(202, None, {"X-Message-Id": uuid.uuid4().hex[:22]})


def _refusal(status: int, message: str, field: str | None = None) -> Answer:
    return Answer(status, {"errors": [{"message": message, "field": field, "help": None}]})


def _mistakes(mail: dict[str, Any]):
    if not _ADDRESS.fullmatch(mail.get("from", {}).get("email", "")):
        yield "from.email", "The from email does not contain a valid address."
    people = mail.get("personalizations") or []
    if not 1 <= len(people) <= 1000:
        yield "personalizations", "The personalizations field is required and must have at least one personalization."
    for place, person in enumerate(people):
        for number, one in enumerate(person.get("to") or []):
            if not _ADDRESS.fullmatch(one.get("email", "")):
                where = f"personalizations.{place}.to.{number}.email"
                yield where, "Does not contain a valid address."
    if not mail.get("subject") and not all(person.get("subject") for person in people):
        yield "subject", "The subject is required."
    kinds = [part.get("type") for part in mail.get("content") or []]
    if not kinds:
        yield "content", "Unless a valid template_id is provided, the content parameter is required."
    if kinds != sorted(kinds, key=["text/plain", "text/html"].index):
        yield "content", "If present, text/plain and text/html may only be provided once, text/plain first."
    if any(not part.get("value") for part in mail.get("content") or []):
        yield "content.value", "The content value must be a string at least one character in length."
    if any(not isinstance(value, str) for value in (mail.get("custom_args") or {}).values()):
        yield "custom_args", "The custom_args values must be strings."
    for name in mail.get("headers") or {}:
        if name.lower() in {
            "x-sg-id",
            "received",
            "dkim-signature",
            "content-type",
            "to",
            "from",
            "subject",
            "cc",
            "bcc",
        }:
            yield f"headers.{name}", "The header is reserved."
