"""Twilio's Messages resource, as its documents and its kit have it."""

from __future__ import annotations

import base64
import re
import time
import uuid
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from tests.engage.fakes.service import Answer, Call, FakeService

ACCOUNT = "AC" + "1" * 32


class FakeTwilio(FakeService):
    def __init__(self, auth_token: str = "token") -> None:
        super().__init__()
        self.basic = base64.b64encode(f"{ACCOUNT}:{auth_token}".encode()).decode()
        self.messages: list[dict[str, Any]] = []
        self.callbacks: dict[str, str] = {}
        self.opted_out: set[str] = set()
        self.page_size_max = 1000

    def handle(self, call: Call) -> Answer:
        if call.headers.get("authorization") != f"Basic {self.basic}":
            return refusal(401, 20003, "Authenticate")
        if call.path != f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json":
            return refusal(404, 20404, "The requested resource was not found")
        return self._create(call) if call.method == "POST" else self._list(call)

    def _create(self, call: Call) -> Answer:
        form, to = call.form, call.form.get("To", "")
        if not re.fullmatch(r"\+[1-9][0-9]{6,14}", to):
            return refusal(400, 21211, f"The 'To' number {to} is not a valid phone number.")
        if to in self.opted_out:
            return refusal(400, 21610, "Attempt to send to unsubscribed recipient")
        if not (form.get("From") or form.get("MessagingServiceSid")):
            return refusal(400, 21603, "A 'From' phone number is required.")
        if not form.get("Body") or len(form["Body"]) > 1600:
            return refusal(400, 21617 if form.get("Body") else 21602, "Message body is required, of at most 1600.")
        now = format_datetime(datetime.fromtimestamp(int(time.time()), UTC))
        sid = "SM" + uuid.uuid4().hex
        message = {
            "sid": sid,
            "account_sid": ACCOUNT,
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "to": to,
            "from": form.get("From"),
            "body": form["Body"],
            "status": "queued",
            "direction": "outbound-api",
            "num_segments": "1",
            "num_media": "0",
            "price": None,
            "price_unit": "USD",
            "api_version": "2010-04-01",
            "error_code": None,
            "error_message": None,
            "date_created": now,
            "date_updated": now,
            "date_sent": None,
            "uri": f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json",
            "subresource_uris": {},
        }
        self.messages.append(message)
        self.callbacks[sid] = form.get("StatusCallback", "")
        return Answer(201, message)

    def _list(self, call: Call) -> Answer:
        found = [one for one in reversed(self.messages) if one["to"] == call.query.get("To", one["to"])]
        size = min(int(call.query.get("PageSize", 50)), self.page_size_max)
        page = int(call.query.get("Page", 0))
        shown = found[page * size : (page + 1) * size]
        following = None
        if found[(page + 1) * size :]:
            to = call.query.get("To", "").replace("+", "%2B")
            following = f"{call.path}?To={to}&PageSize={size}&Page={page + 1}&PageToken=PA{shown[-1]['sid']}"
        return Answer(
            200, {"messages": shown, "page": page, "page_size": size, "next_page_uri": following, "uri": call.path}
        )


def refusal(status: int, code: int, message: str) -> Answer:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return Answer(status, {"code": code, "message": message, "more_info": more, "status": status})
