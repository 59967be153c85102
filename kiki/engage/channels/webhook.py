"""Messages to a system of one's own, which reaches people in ways that we do not: push, post, a call centre.

    POST <url>
    Idempotency-Key: <action>
    Kiki-Timestamp, Kiki-Nonce, Kiki-Signature        as docs/requests.md describes them

    {"action": …, "channel": …, "to": …, "customer": …, "playbook": …, "step": …, "subject": …, "text": …, "html": …}

2xx means that the message will go out, 4xx that it never will, and after anything else nobody knows: a receiver that
remembers the keys may be asked again by hand. One that answers 409 or 410 with `{"code": "suppressed"}` has an opt-out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.engage.channel import Message
from kiki.errors import ConfigurationError
from kiki.outbound.blocking_line import BlockingLine
from kiki.outbound.exchange import Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.outcome import Outcome, done, refused
from kiki.settings import Secret, is_loopback
from kiki.shield.signed_call import SECRET_BYTES_MIN, signed_headers

TIMEOUT_SECONDS: Final = 10.0
CODES: Final = frozenset({"suppressed", "invalid_address"})
"""What a receiver may say in `code` beside its status."""


class WebhookChannel:
    """See `Channel`. `name` is what playbooks call it."""

    def __init__(
        self,
        url: str,
        secret: Secret,
        *,
        name: str = "webhook",
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Clock = wall_micros,
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Messages hold addresses: plain HTTP stays on this machine."""
        parts = urlsplit(url)
        problems = []
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            problems.append("the webhook's URL begins with https://")
        if len(secret.reveal().encode()) < SECRET_BYTES_MIN:
            problems.append(f"the webhook's secret has at least {SECRET_BYTES_MIN} bytes")
        if problems:
            raise ConfigurationError(problems)
        self.name = name
        self._path = parts.path or "/"
        if parts.query:
            self._path += f"?{parts.query}"
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._secret = secret.reveal().encode()
        self._clock = clock
        self._nonce = nonce
        self._line = BlockingLine(
            lambda: Line(self._base, judge=_judge, timeout_seconds=timeout_seconds, clock=clock, transport=transport)
        )

    def send(self, message: Message) -> Outcome:
        """See `Channel`."""
        body = msgspec.json.encode(
            {
                "action": message.action,
                "channel": message.channel,
                "to": message.to,
                "customer": message.customer,
                "playbook": message.playbook,
                "step": message.step,
                "subject": message.content.subject,
                "text": message.content.text,
                "html": message.content.html,
                "unsubscribe_url": message.unsubscribe_url,
            }
        )
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.action} | signed_headers(
            self._secret, "POST", self._path, body, now=self._clock() // SECOND, nonce=self._nonce()
        )
        reply = self._line.send(
            Request(method="POST", path=self._base + self._path, write=True, content=body, headers=headers)
        )
        if isinstance(reply, Outcome):
            return reply
        said = reply.json
        return done(provider_id=str(said.get("id") or "")[:200] if isinstance(said, dict) else "")

    def close(self) -> None:
        """Give connections free."""
        self._line.close()


def _judge(reply: Reply) -> Outcome | None:
    said = reply.json if 400 <= reply.status < 500 else None
    code = said.get("code") if isinstance(said, dict) else None
    return refused(code, f"{reply.status}: {code}") if isinstance(code, str) and code in CODES else None
