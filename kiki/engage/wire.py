"""What the routes under /v1 take, read into values. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from kiki.clock import to_iso
from kiki.engage.event import Event, OptOutReason, Order, Refund, Touch, TouchKind
from kiki.engage.profile import Profile
from kiki.errors import InvalidInput
from kiki.money import format_micros, parse_micros
from kiki.shield.consent_words import parse_customer_id

AT_ONCE: Final = 1000
TEXT_MAX: Final = 320

Text = Annotated[str, Meta(max_length=TEXT_MAX)]
Id = Annotated[str, Meta(min_length=1, max_length=200)]
Amount = Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$")]
_Body = TypeVar("_Body", bound=msgspec.Struct)


class ProfileBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A customer, as callers give one."""

    customer_id: Id
    email: Text = ""
    phone: Text = ""
    first_name: Text = ""
    last_name: Text = ""
    locale: Text = ""
    zone: Text = ""
    country: Text = ""
    segment: Text = ""
    tags: Annotated[list[Text], Meta(max_length=200)] = []
    total_spend: Amount = "0"
    purchase_count: Annotated[int, Meta(ge=0, le=10**9)] = 0
    engagement_score: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    last_purchase: datetime | None = None
    last_engagement: datetime | None = None
    email_marketing: bool | None = None
    sms_marketing: bool | None = None

    def profile(self) -> Profile:
        """The same as a value; raises `InvalidInput`."""
        return Profile(
            customer=parse_customer_id(self.customer_id),
            email=self.email,
            phone=self.phone,
            first_name=self.first_name,
            last_name=self.last_name,
            locale=self.locale,
            zone=self.zone,
            country=self.country,
            segment=self.segment,
            tags=tuple(sorted({each.replace("\n", " ") for each in self.tags if each})),
            total_spend=parse_micros(self.total_spend, zero=True),
            purchase_count=self.purchase_count,
            engagement_score=self.engagement_score,
            last_purchase=_micros(self.last_purchase),
            last_engagement=_micros(self.last_engagement),
            email_marketing=self.email_marketing,
            sms_marketing=self.sms_marketing,
        )


class ProfilesBody(msgspec.Struct, forbid_unknown_fields=True):
    """Some customers."""

    profiles: Annotated[list[ProfileBody], Meta(min_length=1, max_length=AT_ONCE)]


class EventBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Something that a customer did."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    type: Annotated[str, Meta(pattern="^(order|refund|clicked|visited|cart_abandoned)$")]
    customer_id: Id
    at: datetime
    amount: Amount | None = None
    margin: Amount | None = None
    order: Text = ""

    def event(self) -> Event:
        """The same as a value; raises `InvalidInput`."""
        customer, at = parse_customer_id(self.customer_id), _micros(self.at) or 0
        if self.type in {"order", "refund"}:
            if self.amount is None:
                raise InvalidInput(f"an event of type {self.type} has an 'amount', as text: \"12.34\"")
            amount = parse_micros(self.amount, zero=True)
            if self.type == "refund":
                return Refund(id=self.id, order=self.order, customer=customer, at=at, amount=amount)
            margin = None if self.margin is None else parse_micros(self.margin, zero=True)
            return Order(id=self.id, customer=customer, at=at, amount=amount, margin=margin)
        return Touch(id=self.id, customer=customer, at=at, kind=TouchKind(self.type))


class EventsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Some events."""

    events: Annotated[list[EventBody], Meta(min_length=1, max_length=AT_ONCE)]


class PlaybookBody(msgspec.Struct, forbid_unknown_fields=True):
    """A playbook: the name of one that the service has, or the YAML text of another."""

    playbook: Annotated[str, Meta(min_length=1, max_length=150_000)]


class PreviewBody(msgspec.Struct, forbid_unknown_fields=True):
    """An offer of a playbook, and for whom; without a customer for somebody made up."""

    playbook: Annotated[str, Meta(min_length=1, max_length=150_000)]
    offer: Annotated[str, Meta(min_length=1, max_length=100)]
    customer_id: Id | None = None


class SuppressionBody(msgspec.Struct, forbid_unknown_fields=True):
    """Write to this customer no more."""

    customer_id: Id
    channel: Annotated[str, Meta(pattern="^([a-z][a-z0-9_-]{0,31})?$")] = ""
    reason: Annotated[str, Meta(pattern="^(manual|unsubscribed|complained|bounced|stopped)$")] = (
        OptOutReason.MANUAL.value
    )


def read(body: bytes, kind: type[_Body]) -> _Body:
    """A body of this kind; raises `InvalidInput` with the place that is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the body is not what is expected: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("the body is not JSON") from None


def profile_json(profile: Profile) -> dict[str, Any]:
    """A customer as it is shown: without names and addresses."""
    bare = profile.without_personal()
    return {
        "customer_id": bare.customer,
        "zone": bare.zone,
        "country": bare.country,
        "locale": bare.locale,
        "segment": bare.segment,
        "tags": list(bare.tags),
        "total_spend": format_micros(bare.total_spend),
        "purchase_count": bare.purchase_count,
        "engagement_score": bare.engagement_score,
        "last_purchase": None if bare.last_purchase is None else to_iso(bare.last_purchase),
        "last_engagement": None if bare.last_engagement is None else to_iso(bare.last_engagement),
        "email_marketing": bare.email_marketing,
        "sms_marketing": bare.sms_marketing,
    }


def _micros(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidInput("a moment needs a time zone: 2026-11-22T10:00:00Z")
    found = round(moment.astimezone(UTC).timestamp() * 1_000_000)
    if not 0 <= found < 2**52:
        raise InvalidInput("a moment lies between 1970 and 2112")
    return found
