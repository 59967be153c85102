"""What HubSpot tells by webhook: signature v3, and the few events that concern a person's wish. Pure.

HubSpot signs METHOD + URI + body + timestamp. It signs the URI with some escapes decoded, which its own Python kit
forgets; and that kit takes a timestamp from the future. Here both directions end at five minutes.

What changed about a contact is not taken from the event, which names one property and comes in any order: the next
read of changes brings the whole contact.
"""

from __future__ import annotations

import base64
import hmac
import re
from hashlib import sha256
from typing import Annotated, Any, Final

import msgspec

from kiki.clock import SECOND
from kiki.engage.event import OptOut, OptOutReason, PrivacyKind, PrivacyRequest
from kiki.engage.webhook import Received, WebhookCall
from kiki.engage.webhooks.proof import header, require_fresh, require_same, whole_number
from kiki.errors import InvalidInput
from kiki.settings import Secret

SIGNATURE: Final = "X-HubSpot-Signature-v3"
TIMESTAMP: Final = "X-HubSpot-Request-Timestamp"
WINDOW: Final = 300 * SECOND
EVENTS_MAX: Final = 1_000
"""HubSpot sends at most 100 in a call."""

OPT_OUT_PROPERTY: Final = "hs_email_optout"

_DECODED: Final = {
    "%3A": ":",
    "%2F": "/",
    "%3F": "?",
    "%40": "@",
    "%21": "!",
    "%24": "$",
    "%27": "'",
    "%28": "(",
    "%29": ")",
    "%2A": "*",
    "%2C": ",",
    "%3B": ";",
}
_ESCAPE = re.compile("|".join(_DECODED), re.IGNORECASE)


class _Event(msgspec.Struct, kw_only=True, rename="camel"):
    """As far as we read one; unknown members are left alone."""

    event_id: int | str
    subscription_type: str
    object_id: int | str
    occurred_at: Annotated[int, msgspec.Meta(ge=0, lt=2**45)]
    property_name: str | None = None
    property_value: Any = None


class HubSpotReader:
    """Proves calls with the client secret of the app (or private app) that subscribed."""

    name: Final = "hubspot"

    def __init__(self, client_secret: Secret) -> None:
        self._secret = client_secret.reveal().encode()

    def read(self, call: WebhookCall, now: int) -> tuple[Received, ...]:
        """See `WebhookReader`."""
        self._prove(call, now)
        try:
            events = msgspec.json.decode(call.body, type=list[_Event])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"not HubSpot's list of events: {error}") from None
        if len(events) > EVENTS_MAX:
            raise InvalidInput(f"{len(events)} events in one call: at most {EVENTS_MAX}")
        return tuple(record for event in events for record in _translated(event))

    def _prove(self, call: WebhookCall, now: int) -> None:
        given, timestamp = header(call, SIGNATURE), header(call, TIMESTAMP)
        moment = whole_number(timestamp, TIMESTAMP) * 1_000
        uri = signed_uri(call.url).encode("utf-8", "surrogatepass")  # a Host header need not be text
        signed = b"".join((call.method.encode(), uri, call.body, timestamp.encode()))
        require_same(base64.b64encode(hmac.new(self._secret, signed, sha256).digest()), given)
        require_fresh(moment, now, past=WINDOW)


def signed_uri(url: str) -> str:
    """The URI as HubSpot signs it: these escapes decoded, and no others."""
    return _ESCAPE.sub(lambda found: _DECODED[found[0].upper()], url)


def _translated(event: _Event) -> tuple[Received, ...]:
    kind, customer, at = event.subscription_type, str(event.object_id), event.occurred_at * 1_000
    name = f"hubspot:{event.event_id}"
    if kind.endswith("contact.privacyDeletion"):
        # The id may be told again with another event id; the person is deleted once.
        return (PrivacyRequest(id=f"hubspot:privacy:{customer}", at=at, kind=PrivacyKind.DELETION, customer=customer),)
    opted_out = (
        kind.endswith("contact.propertyChange")
        and event.property_name == OPT_OUT_PROPERTY
        and str(event.property_value).lower() == "true"
    )
    if opted_out:
        return (OptOut(id=name, at=at, reason=OptOutReason.UNSUBSCRIBED, channel="email", customer=customer),)
    return ()
