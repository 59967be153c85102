"""SMS by Twilio: one message, one attempt, and the number's STOP is the last word.

Twilio has no idempotency key for messages, so what was not answered is `unknown` until the status callback tells, or
until the message is found in the account's list. The callback's URL carries the opaque action id.
"""

from __future__ import annotations

import base64
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, urlencode

import httpx
import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.engage.channel import Message
from kiki.engage.event import OptOutReason
from kiki.engage.webhooks.twilio import ACTION_PARAMETER, opt_out_reason
from kiki.outbound.blocking_line import BlockingLine
from kiki.outbound.exchange import INVALID, THROTTLED, UNAUTHORIZED, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Outcome, done, refused, unknown
from kiki.outbound.rate_budget import retry_after
from kiki.settings import Secret

API: Final = "https://api.twilio.com"
VERSION: Final = "2010-04-01"
TIMEOUT_SECONDS: Final = 15.0
BODY_CHARS_MAX: Final = 1_600
CALLBACK_PATH: Final = "/v1/webhooks/twilio"
SUPPRESSED: Final = "suppressed"
INVALID_ADDRESS: Final = "invalid_address"
NOT_FOUND_YET: Final = "not_found_yet"
PAGES_MAX: Final = 20
"""So many pages of a number's messages are looked through."""

_THROTTLED: Final = frozenset({"20429", "14107", "30001", "63038"})
_UNAUTHORIZED: Final = frozenset({"20003", "20005", "21606", "21608"})


class _Sent(msgspec.Struct):
    sid: str
    body: str = ""
    direction: str = ""
    date_created: str = ""


class _Page(msgspec.Struct):
    messages: list[_Sent]
    next_page_uri: str | None = None


class TwilioChannel:
    """See `Channel` and `Searchable`."""

    name: Final = "sms"

    def __init__(
        self,
        account_sid: str,
        auth_token: Secret,
        sender: str,
        *,
        public_url: str,
        base_url: str = API,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Clock = wall_micros,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`sender` is a number of the account's, or a messaging service's id (MG…)."""
        self._sender = {"MessagingServiceSid" if sender.startswith("MG") else "From": sender}
        self._callback = public_url.rstrip("/") + CALLBACK_PATH
        self._path = f"{VERSION}/Accounts/{quote(account_sid, safe='')}/Messages.json"
        basic = base64.b64encode(f"{account_sid}:{auth_token.reveal()}".encode()).decode()
        self._line = BlockingLine(
            lambda: Line(
                base_url,
                authorization=FixedToken(Secret(basic), scheme="Basic "),
                judge=_judge,
                timeout_seconds=timeout_seconds,
                clock=clock,
                transport=transport,
            )
        )

    def send(self, message: Message) -> Outcome:
        """See `Channel`."""
        text = message.content.text
        if not text.strip() or len(text) > BODY_CHARS_MAX:
            return refused(INVALID, f"not sent: an SMS has 1 to {BODY_CHARS_MAX} characters, not {len(text)}")
        form = {
            "To": message.to,
            **self._sender,
            "Body": text,
            "StatusCallback": f"{self._callback}?{urlencode({ACTION_PARAMETER: message.action})}",
        }
        reply = self._line.send(Request(method="POST", path=self._path, write=True, form=form))
        if isinstance(reply, Outcome):
            return reply
        made = reply.json
        if not isinstance(made, dict) or not made.get("sid"):
            return reply.nonsense("no sid")
        return done(provider_id=str(made["sid"]))

    def find(self, message: Message, sent_at: int, now: int) -> Outcome:
        """See `Searchable`: by number, text and time, for Twilio's list does not show the action's id.

        What is not there may still come: it stays unknown.
        """
        request = Request(method="GET", path=self._path, write=False, params={"To": message.to, "PageSize": "50"})
        for _ in range(PAGES_MAX):
            reply = self._line.send(request)
            if isinstance(reply, Outcome):
                return unknown(reply.code, f"the list could not be read: {reply.message}")
            page = reply.read(_Page)
            if isinstance(page, Outcome):
                return unknown(NOT_FOUND_YET, "the list could not be read")
            for one in page.messages:
                created = _created(one)
                if created is not None and created < sent_at - 60 * SECOND:
                    return unknown(NOT_FOUND_YET, "not in the account's list")
                if one.body == message.content.text and one.direction.startswith("outbound"):
                    return done(provider_id=one.sid)
            following = page.next_page_uri
            # Another host's address would be shown the account's token.
            if following is None or not following.startswith(f"/{VERSION}/"):
                return unknown(NOT_FOUND_YET, "not in the account's list")
            request = Request(method="GET", path=following, write=False)
        return unknown(NOT_FOUND_YET, f"not in the last {PAGES_MAX} pages of the account's list")

    def close(self) -> None:
        """Give connections free."""
        self._line.close()


def _judge(reply: Reply) -> Outcome | None:
    """What Twilio's error code means; its words are not repeated, they repeat the number."""
    if reply.status < 400 or reply.status >= 500:
        return None
    said = reply.json
    code = str(said.get("code") or "") if isinstance(said, dict) else ""
    shown = f"{reply.status}: Twilio says {code or 'nothing more'}"
    reason = opt_out_reason(code)
    if reason is OptOutReason.STOPPED:
        return refused(SUPPRESSED, shown)
    if reason is OptOutReason.BOUNCED:
        return refused(INVALID_ADDRESS, shown)
    if reply.status == 429 or code in _THROTTLED:
        return refused(THROTTLED, shown, retry_at=retry_after(reply.headers, reply.now))
    if reply.status in {401, 403} or code in _UNAUTHORIZED:
        return refused(UNAUTHORIZED, shown)
    return refused(INVALID, shown) if reply.status == 400 else None


def _created(message: _Sent) -> int | None:
    try:
        return round(parsedate_to_datetime(message.date_created).timestamp()) * SECOND
    except (ValueError, OverflowError):
        return None
