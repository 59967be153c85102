"""What a message is, and what every channel must do with it. Pure.

A channel makes one attempt and tells the truth about it: `done` (the provider took it), `refused` (certainly not
taken), `unknown` (it may have been). It retries only what was certainly not taken, and only within one `send`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from kiki.outbound.outcome import Outcome


class Content(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person reads, rendered."""

    text: str
    """Plain text; the only part of an SMS."""
    subject: str = ""
    html: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message to one person."""

    action: str
    """Opaque and unique; all that a provider may store beside the message (custom_args, callback URL, header)."""
    channel: str
    """`email`, `sms`, `webhook`, …"""
    to: str
    """The address on that channel."""
    content: Content
    customer: str = ""
    """For one's own outbox and webhooks; never given to a mail or SMS provider."""
    playbook: str = ""
    step: str = ""
    unsubscribe_url: str = ""
    """https, opaque, unforgeable: the one URI of List-Unsubscribe. Empty only for transactional messages."""
    is_transactional: bool = False

    def __repr__(self) -> str:
        """Without address and content: messages end up in logs."""
        return f"Message({self.action})"

    def __str__(self) -> str:
        return repr(self)


class Channel(Protocol):
    """A way to reach people. Thread-safe."""

    @property
    def name(self) -> str:
        """`email`, `sms`, `webhook`: what playbooks call it."""
        ...

    def send(self, message: Message) -> Outcome:
        """One attempt, within a deadline of the channel's own. Never raises for what a provider or the network does.

        `value` of a done one holds `provider_id`. Codes of refusals: `suppressed` (the provider knows an opt-out: it
        becomes one of ours), `invalid_address`, `invalid`, `unauthorized`, `throttled`, `unavailable`.
        """
        ...


class Searchable(Protocol):
    """A channel whose provider can be asked what became of a message."""

    def find(self, message: Message, sent_at: int, now: int) -> Outcome:
        """Read back: done when the provider shows it, refused when it certainly never came, else still unknown."""
        ...
