"""What happened to a customer, as sources and webhooks tell it. Pure.

Every event has an id that is the same each time it is told (`shopify:order:123`, `sendgrid:…`): stores keep each id
once, so telling twice changes nothing. Events may come in any order. Moments are microseconds since the epoch, money
is micros.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

EVENT_ID_CHARS_MAX: Final = 255


class Order(msgspec.Struct, frozen=True, kw_only=True, tag="order", omit_defaults=True):
    """A purchase that was paid or placed."""

    id: str
    customer: str
    at: int
    amount: int
    """Gross, after discounts."""
    currency: str = ""
    margin: int | None = None
    """What it earned before the cost of contact; None: not told, then the playbook's rate is used."""
    code: str = ""
    """The coupon code that was redeemed with it."""
    products: tuple[str, ...] = ()


class Refund(msgspec.Struct, frozen=True, kw_only=True, tag="refund", omit_defaults=True):
    """Money that was given back for an order."""

    id: str
    order: str
    """The id of the `Order` event."""
    customer: str = ""
    """Empty when the source names the order alone."""
    at: int
    amount: int
    currency: str = ""


class TouchKind(StrEnum):
    """What a customer did beside buying. Opens are kept and never counted as an outcome: privacy proxies open all."""

    OPENED = "opened"
    CLICKED = "clicked"
    VISITED = "visited"
    CART_ABANDONED = "cart_abandoned"


class Touch(msgspec.Struct, frozen=True, kw_only=True, tag="touch", omit_defaults=True):
    """An open, a click, a visit, a cart left behind."""

    id: str
    at: int
    kind: TouchKind
    customer: str = ""
    """Empty when only the action is known."""
    action: str = ""
    """The message it answers, as its opaque action id."""


class OptOutReason(StrEnum):
    """Why somebody must not be written to any more."""

    UNSUBSCRIBED = "unsubscribed"
    COMPLAINED = "complained"
    STOPPED = "stopped"
    """STOP by SMS; the provider refuses until START."""
    BOUNCED = "bounced"
    """The address does not exist; never for a full mailbox."""
    MANUAL = "manual"


class OptOut(msgspec.Struct, frozen=True, kw_only=True, tag="opt_out", omit_defaults=True):
    """Stop. Names the person by id, by address or by the action it answers: at least one of the three."""

    id: str
    at: int
    reason: OptOutReason
    channel: str = ""
    """`email`, `sms`, …; empty: every channel."""
    customer: str = ""
    address: str = ""
    """An e-mail address or an E.164 number; kept as a keyed hash only."""
    action: str = ""


class OptIn(msgspec.Struct, frozen=True, kw_only=True, tag="opt_in", omit_defaults=True):
    """START by SMS, or a renewed subscription at the source: lifts an opt-out of the same channel, grants no consent."""

    id: str
    at: int
    channel: str
    customer: str = ""
    address: str = ""


class DeliveryState(StrEnum):
    """What a provider says about a message, in rising rank: a lower one that comes later changes nothing."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    """It did not and will not arrive."""

    @property
    def rank(self) -> int:
        """Its place in the order of life."""
        return list(DeliveryState).index(self)


class Delivery(msgspec.Struct, frozen=True, kw_only=True, tag="delivery", omit_defaults=True):
    """A provider's word about one message; it closes an `unknown` one."""

    id: str
    action: str
    at: int
    state: DeliveryState
    provider_id: str = ""
    code: str = ""
    """The provider's error code."""
    cost: int | None = None
    """Micros, when the provider tells the price."""


class PrivacyKind(StrEnum):
    """What a platform demands in a person's name."""

    ACCESS = "access"
    DELETION = "deletion"
    SHOP_DELETION = "shop_deletion"
    """Everything of the shop, 48 hours after the app was removed."""


class PrivacyRequest(msgspec.Struct, frozen=True, kw_only=True, tag="privacy_request", omit_defaults=True):
    """A platform's demand (Shopify's three topics, HubSpot's privacyDeletion): it becomes a data subject request."""

    id: str
    at: int
    kind: PrivacyKind
    customer: str = ""
    """Empty only for `shop_deletion`."""

    def __repr__(self) -> str:
        return f"PrivacyRequest({self.id})"


Event = Order | Refund | Touch | OptOut | OptIn | Delivery
"""What stores keep about customers."""


def kind_of(event: Event) -> str:
    """One word for what happened: `order`, `clicked`, `opt_out`; what playbooks ask about."""
    if isinstance(event, Touch):
        return event.kind.value
    return str(event.__struct_config__.tag)
