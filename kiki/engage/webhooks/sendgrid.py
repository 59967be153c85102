"""What SendGrid tells by its event webhook: ECDSA over timestamp and raw body, then one record for each event. Pure.

SendGrid repeats a call for 24 hours until it is answered 2xx, and repeats events besides: `sg_event_id` is the id that
is kept once. SendGrid's own kit checks no time at all, so a recorded call would verify for ever; here it ends with the
retries. Events of mail that is not ours (no action id) still tell who must not be written to.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kiki.clock import SECOND
from kiki.engage.event import Delivery, DeliveryState, OptIn, OptOut, OptOutReason, Touch, TouchKind
from kiki.engage.webhook import Received, WebhookCall
from kiki.engage.webhooks.proof import from_base64, header, require_fresh, whole_number
from kiki.errors import ConfigurationError, InvalidInput, Unauthenticated

SIGNATURE: Final = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP: Final = "X-Twilio-Email-Event-Webhook-Timestamp"
WINDOW: Final = 25 * 3600 * SECOND
"""The 24 hours of retries and some delay; within it, repeats are told apart by their ids."""
EVENTS_MAX: Final = 10_000
ACTION_ARGUMENT: Final = "kiki_action"
"""The one custom argument that our mail carries: it comes back as a member of each event."""

_STATES: Final = {
    "processed": DeliveryState.ACCEPTED,
    "deferred": DeliveryState.DEFERRED,
    "delivered": DeliveryState.DELIVERED,
    "bounce": DeliveryState.FAILED,
    "blocked": DeliveryState.FAILED,
    "dropped": DeliveryState.FAILED,
}
_TOUCHES: Final = {"open": TouchKind.OPENED, "click": TouchKind.CLICKED}
_OPT_OUTS: Final = {
    "spamreport": OptOutReason.COMPLAINED,
    "unsubscribe": OptOutReason.UNSUBSCRIBED,
    "group_unsubscribe": OptOutReason.UNSUBSCRIBED,
}
_DROPPED: Final = {
    "unsubscribed": OptOutReason.UNSUBSCRIBED,
    "spam report": OptOutReason.COMPLAINED,
    "spam reporting": OptOutReason.COMPLAINED,
    "bounced": OptOutReason.BOUNCED,
    "invalid": OptOutReason.BOUNCED,
}
"""How the reason of a dropped mail begins, and what SendGrid knows by it."""


class _Event(msgspec.Struct, kw_only=True):
    """As far as we read one; unknown members are left alone."""

    event: str
    timestamp: Annotated[int, msgspec.Meta(ge=0, lt=2**35)]
    sg_event_id: str = ""
    email: str = ""
    sg_message_id: str = ""
    kiki_action: Any = ""
    reason: Any = ""
    status: Any = ""
    type: Any = ""
    sg_machine_open: Any = False


class SendGridReader:
    """Proves calls with the verification key of the account's event webhook (base64 of its DER form)."""

    name: Final = "sendgrid"

    def __init__(self, verification_key: str) -> None:
        """Raises `ConfigurationError` for what is no P-256 public key."""
        try:
            key = load_der_public_key(from_base64(verification_key.strip(), "the key"))
        except (Unauthenticated, ValueError, TypeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigurationError(
                ["SendGrid's verification key: expected the base64 text from Mail Settings, Event Webhook"]
            )
        self._key = key

    def read(self, call: WebhookCall, now: int) -> tuple[Received, ...]:
        """See `WebhookReader`."""
        self._prove(call, now)
        try:
            events = msgspec.json.decode(call.body, type=list[_Event])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"not SendGrid's list of events: {error}") from None
        if len(events) > EVENTS_MAX:
            raise InvalidInput(f"{len(events)} events in one call: at most {EVENTS_MAX}")
        return tuple(record for event in events for record in _translated(event))

    def _prove(self, call: WebhookCall, now: int) -> None:
        given, timestamp = header(call, SIGNATURE), header(call, TIMESTAMP)
        moment = whole_number(timestamp, TIMESTAMP) * SECOND
        try:
            self._key.verify(from_base64(given, SIGNATURE), timestamp.encode() + call.body, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Unauthenticated(
                "the signature is not that of this call and key",
                hint="check the verification key, and that no proxy rewrites the body",
            ) from None
        require_fresh(moment, now, past=WINDOW)


def _translated(event: _Event) -> tuple[Received, ...]:
    name = f"sendgrid:{event.sg_event_id}"
    if not event.sg_event_id:
        # Without an id nothing could be kept once; the moment and the message have to stand in for it.
        name = f"sendgrid:{event.sg_message_id}:{event.event}:{event.timestamp}"
    at = event.timestamp * SECOND
    action = event.kiki_action if isinstance(event.kiki_action, str) else ""
    found: list[Received] = []
    state = _STATES.get(event.event)
    if state is not None and action:
        code = str(event.status or event.type or "")[:40] if state is DeliveryState.FAILED else ""
        found.append(Delivery(id=name, action=action, at=at, state=state, provider_id=event.sg_message_id, code=code))
    touch = _TOUCHES.get(event.event)
    if touch is not None and action and event.sg_machine_open is not True:
        found.append(Touch(id=name, at=at, kind=touch, action=action))
    reason = _OPT_OUTS.get(event.event) or _opt_out_of(event)
    if reason is not None and (event.email or action):
        found.append(
            OptOut(id=f"{name}:opt_out", at=at, reason=reason, channel="email", address=event.email, action=action)
        )
    if event.event == "group_resubscribe" and event.email:
        found.append(OptIn(id=name, at=at, channel="email", address=event.email))
    return tuple(found)


def _opt_out_of(event: _Event) -> OptOutReason | None:
    """What a failure says about the address for good; a full mailbox or a block says nothing."""
    if event.event == "bounce" and event.type != "blocked" and not str(event.status or "5").startswith("4"):
        return OptOutReason.BOUNCED
    if event.event == "dropped":
        said = str(event.reason or "").lower()
        return next((reason for words, reason in _DROPPED.items() if said.startswith(words)), None)
    return None
