"""Mail by SendGrid, v3 mail/send: one message, one person, one attempt.

SendGrid has no idempotency key, so what was not answered is `unknown` until its event webhook tells. It keeps custom
arguments and categories for ever and cannot erase them: the opaque action id is all it gets beside the message.
"""

from __future__ import annotations

from typing import Any, Final

import httpx
import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.engage.channel import Message
from kiki.engage.unsubscribe import list_headers, with_way_out
from kiki.engage.webhooks.sendgrid import ACTION_ARGUMENT
from kiki.outbound.blocking_line import BlockingLine
from kiki.outbound.exchange import INVALID, THROTTLED, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Outcome, done, refused
from kiki.outbound.rate_budget import reset_at, retry_after
from kiki.settings import Secret

API: Final = "https://api.sendgrid.com"
"""Accounts in the EU use https://api.eu.sendgrid.com."""
TIMEOUT_SECONDS: Final = 15.0
INVALID_ADDRESS: Final = "invalid_address"

_TO: Final = "personalizations.0.to"


class _Error(msgspec.Struct):
    field: str | None = None


class _Refusal(msgspec.Struct):
    """Which fields SendGrid does not take."""

    errors: list[_Error]


class SendGridChannel:
    """See `Channel`."""

    name: Final = "email"

    def __init__(
        self,
        api_key: Secret,
        from_email: str,
        *,
        from_name: str = "",
        base_url: str = API,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Clock = wall_micros,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`from_email` is a sender that SendGrid has verified."""
        self._from = {"email": from_email} | ({"name": from_name} if from_name else {})
        self._line = BlockingLine(
            lambda: Line(
                base_url,
                authorization=FixedToken(api_key),
                judge=_judge,
                timeout_seconds=timeout_seconds,
                clock=clock,
                transport=transport,
            )
        )

    def send(self, message: Message) -> Outcome:
        """See `Channel`."""
        if not message.is_transactional and not message.unsubscribe_url.startswith("https://"):
            return refused(INVALID, "not sent: a message that is no transaction's needs its https:// unsubscribe link")
        reply = self._line.send(Request(method="POST", path="v3/mail/send", write=True, json=mail(message, self._from)))
        if isinstance(reply, Outcome):
            return reply
        return done(provider_id=reply.headers.get("x-message-id", ""))

    def close(self) -> None:
        """Give connections free."""
        self._line.close()


def mail(message: Message, sender: dict[str, str]) -> dict[str, Any]:
    """The body of the request."""
    content = message.content
    if message.unsubscribe_url:
        content = with_way_out(content, message.unsubscribe_url)
    # Plain text must come before HTML, or SendGrid refuses the message.
    parts = [{"type": "text/plain", "value": content.text}]
    if content.html:
        parts.append({"type": "text/html", "value": content.html})
    body: dict[str, Any] = {
        "from": sender,
        "subject": content.subject,
        "personalizations": [{"to": [{"email": message.to}]}],
        "content": parts,
        "custom_args": {ACTION_ARGUMENT: message.action},
    }
    if message.unsubscribe_url:
        body["headers"] = list_headers(message.unsubscribe_url)
    return body


def _judge(reply: Reply) -> Outcome | None:
    """SendGrid's own words: which field was wrong, and until when it will not listen."""
    if reply.status == 429:
        until = retry_after(reply.headers, reply.now) or _reset(reply)
        return refused(THROTTLED, "429: too many requests", retry_at=until)
    if reply.status != 400:
        return None
    told = reply.read(_Refusal)
    fields = [] if isinstance(told, Outcome) else [str(one.field) for one in told.errors]
    if fields and all(field.startswith(_TO) for field in fields):
        # The words are not repeated: they may repeat the address.
        return refused(INVALID_ADDRESS, f"400: SendGrid does not take the address ({', '.join(fields)[:100]})")
    return None


def _reset(reply: Reply) -> int | None:
    """When a used-up limit begins anew."""
    told = reset_at(reply.headers, "x-ratelimit-remaining", "x-ratelimit-reset")
    return told if told is not None and told < reply.now + 3600 * SECOND else None
