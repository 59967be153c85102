"""What Shopify tells by webhook: HMAC over the raw body, then the topics that concern customers. Pure.

Only the body is signed: neither the topic nor a time. Each topic's body is therefore read with all that it must hold,
so that a body recorded under one topic means nothing under another, and ids are taken from the body.
A payload is as old as its event: `changed_at` of a profile says which of two is newer.

The three privacy topics must be answered 2xx at once and acted on later: they become data subject requests.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Any, Final, TypeVar

import msgspec

from kiki.clock import SECOND, to_datetime
from kiki.engage.event import OptIn, OptOut, OptOutReason, Order, PrivacyKind, PrivacyRequest, Refund
from kiki.engage.moment import optional_moment, parse_moment
from kiki.engage.profile import Profile
from kiki.engage.webhook import Received, WebhookCall
from kiki.engage.webhooks.proof import header, require_fresh, require_same
from kiki.errors import InvalidInput, Unauthenticated
from kiki.money import parse_micros
from kiki.settings import Secret

SIGNATURE: Final = "X-Shopify-Hmac-Sha256"
TOPIC: Final = "X-Shopify-Topic"
SHOP: Final = "X-Shopify-Shop-Domain"
TRIGGERED_AT: Final = "X-Shopify-Triggered-At"
WINDOW: Final = 24 * 3600 * SECOND
"""Shopify gives up after four hours; whoever sends again by hand has the rest of a day."""

NEVER_PAID: Final = frozenset({"pending", "authorized", "expired", "voided"})
"""Financial states of an order whose money never came."""

Id = Annotated[int, msgspec.Meta(gt=0)]
Kind = TypeVar("Kind")


class _Consent(msgspec.Struct, kw_only=True):
    state: str
    consent_updated_at: str | None = None


class _Customer(msgspec.Struct, kw_only=True):
    id: Id
    updated_at: str
    email: str | None = None
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    tags: str = ""
    total_spent: str | None = None
    orders_count: Annotated[int, msgspec.Meta(le=10**9)] | None = None
    email_marketing_consent: _Consent | None = None
    sms_marketing_consent: _Consent | None = None
    default_address: dict[str, Any] | None = None


class _Buyer(msgspec.Struct, kw_only=True):
    id: Id


class _Code(msgspec.Struct, kw_only=True):
    code: str = ""


class _Line(msgspec.Struct, kw_only=True):
    product_id: int | None = None


class _Order(msgspec.Struct, kw_only=True):
    id: Id
    created_at: str
    total_price: str
    currency: str
    customer: _Buyer | None = None
    discount_codes: list[_Code] = []
    line_items: list[_Line] = []
    cancelled_at: str | None = None
    financial_status: str | None = None
    test: bool = False


class _Transaction(msgspec.Struct, kw_only=True):
    amount: str
    kind: str = "refund"
    status: str = "success"
    currency: str = ""


class _Refund(msgspec.Struct, kw_only=True):
    id: Id
    order_id: Id
    created_at: str
    transactions: list[_Transaction]


class _EmailConsent(msgspec.Struct, kw_only=True):
    customer_id: Id
    email_marketing_consent: _Consent


class _SmsConsent(msgspec.Struct, kw_only=True):
    id: Id
    sms_marketing_consent: _Consent


class _DataRequest(msgspec.Struct, kw_only=True):
    shop_domain: str
    customer: _Buyer
    data_request: _Buyer


class _Redact(msgspec.Struct, kw_only=True):
    shop_domain: str
    customer: _Buyer
    orders_to_redact: list[int]


class _ShopRedact(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    shop_id: Id
    shop_domain: str


class ShopifyReader:
    """Proves calls with the app's client secret (an older and a newer one while it is being changed)."""

    name: Final = "shopify"

    def __init__(self, *client_secrets: Secret, shop: str) -> None:
        """`shop` is the shop's permanent domain: my-shop.myshopify.com."""
        self._secrets = tuple(secret.reveal().encode() for secret in client_secrets)
        self._shop = shop.lower()

    def read(self, call: WebhookCall, now: int) -> tuple[Received, ...]:
        """See `WebhookReader`."""
        self._prove(call, now)
        translate = _TOPICS.get(header(call, TOPIC))
        if translate is None:
            return ()
        return translate(call.body, now)

    def _prove(self, call: WebhookCall, now: int) -> None:
        given = header(call, SIGNATURE)
        self._require_signed(call.body, given)
        if header(call, SHOP).lower() != self._shop:
            raise Unauthenticated("the call is another shop's", hint=f"this service works for {self._shop}")
        triggered = call.headers.get(TRIGGERED_AT.lower(), "")
        if triggered:
            try:
                moment = parse_moment(triggered)
            except InvalidInput:
                raise Unauthenticated(f"{TRIGGERED_AT} is no moment") from None
            require_fresh(moment, now, past=WINDOW)

    def _require_signed(self, body: bytes, given: str) -> None:
        last: Unauthenticated | None = None
        for secret in self._secrets:
            try:
                require_same(base64.b64encode(hmac.new(secret, body, sha256).digest()), given)
            except Unauthenticated as error:
                last = error
            else:
                return
        raise last or Unauthenticated("no client secret is configured: set SHOPIFY_API_SECRET")


def _read(body: bytes, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not the body of this topic: {error}") from None


def _customer(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _Customer)
    address = told.default_address or {}
    return (
        Profile(
            customer=str(told.id),
            email=told.email or "",
            phone=told.phone or "",
            first_name=told.first_name or "",
            last_name=told.last_name or "",
            country=_country(address.get("country_code")),
            tags=tuple(sorted({tag.strip() for tag in told.tags.split(",")} - {""})),
            email_marketing=_allows(told.email_marketing_consent),
            sms_marketing=_allows(told.sms_marketing_consent),
            total_spend=parse_micros(told.total_spent, zero=True) if told.total_spent else 0,
            purchase_count=max(told.orders_count or 0, 0),
            changed_at=parse_moment(told.updated_at),
        ),
    )


def _order(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _Order)
    if told.test or told.customer is None:
        return ()
    order = f"shopify:order:{told.id}"
    amount = parse_micros(told.total_price, zero=True)
    customer, cancelled = str(told.customer.id), optional_moment(told.cancelled_at)
    placed = Order(
        id=order,
        customer=customer,
        at=parse_moment(told.created_at),
        amount=amount,
        currency=told.currency,
        code=next((one.code for one in told.discount_codes if one.code), ""),
        products=tuple(dict.fromkeys(str(line.product_id) for line in told.line_items if line.product_id)),
    )
    if cancelled is None or told.financial_status not in NEVER_PAID:
        return (placed,)
    # What was paid comes back as refunds; an order that never was paid is taken back whole.
    name = f"shopify:cancellation:{told.id}"
    taken_back = Refund(id=name, order=order, customer=customer, at=cancelled, amount=amount, currency=told.currency)
    return (placed, taken_back) if amount else (placed,)


def _refund(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _Refund)
    paid = [one for one in told.transactions if one.kind == "refund" and one.status == "success"]
    amount = sum(parse_micros(one.amount, zero=True) for one in paid)
    if not amount:
        return ()
    return (
        Refund(
            id=f"shopify:refund:{told.id}",
            order=f"shopify:order:{told.order_id}",
            at=parse_moment(told.created_at),
            amount=amount,
            currency=paid[0].currency,
        ),
    )


def _email_consent(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _EmailConsent)
    return _wish("email", str(told.customer_id), told.email_marketing_consent, now)


def _sms_consent(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _SmsConsent)
    return _wish("sms", str(told.id), told.sms_marketing_consent, now)


def _wish(channel: str, customer: str, consent: _Consent, now: int) -> tuple[Received, ...]:
    changed = optional_moment(consent.consent_updated_at)
    at = now if changed is None else changed
    name = f"shopify:consent:{channel}:{customer}:{at}"
    allows = _allows(consent)
    if allows is None:
        return ()
    if allows:
        return (OptIn(id=name, at=at, channel=channel, customer=customer),)
    return (OptOut(id=name, at=at, reason=OptOutReason.UNSUBSCRIBED, channel=channel, customer=customer),)


def _data_request(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _DataRequest)
    name = f"shopify:data_request:{told.data_request.id}"
    return (PrivacyRequest(id=name, at=now, kind=PrivacyKind.ACCESS, customer=str(told.customer.id)),)


def _redact(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _Redact)
    customer = str(told.customer.id)
    # A customer who comes back and asks again is another request: the orders to forget tell the two apart.
    mark = sha256(body).hexdigest()[:16]
    name = f"shopify:redact:{customer}:{mark}"
    return (PrivacyRequest(id=name, at=now, kind=PrivacyKind.DELETION, customer=customer),)


def _shop_redact(body: bytes, now: int) -> tuple[Received, ...]:
    told = _read(body, _ShopRedact)
    # The body is the same each time the app is removed: a day is longer than Shopify repeats one demand.
    day = to_datetime(now).date().isoformat()
    return (PrivacyRequest(id=f"shopify:shop_redact:{told.shop_id}:{day}", at=now, kind=PrivacyKind.SHOP_DELETION),)


def _allows(consent: _Consent | None) -> bool | None:
    """What the shop believes: None where nobody was asked, or has not confirmed yet."""
    if consent is None:
        return None
    return {"subscribed": True, "unsubscribed": False, "redacted": False}.get(consent.state.lower())


def _country(code: Any) -> str:
    return code if isinstance(code, str) and len(code) == 2 and code.isascii() and code.isupper() else ""


_TOPICS: Final[dict[str, Callable[[bytes, int], tuple[Received, ...]]]] = {
    "orders/create": _order,
    "orders/paid": _order,
    "orders/updated": _order,
    "orders/cancelled": _order,
    "refunds/create": _refund,
    "customers/create": _customer,
    "customers/update": _customer,
    "customers_email_marketing_consent/update": _email_consent,
    "customers_marketing_consent/update": _sms_consent,
    "customers/data_request": _data_request,
    "customers/redact": _redact,
    "shop/redact": _shop_redact,
}
TOPICS: Final = tuple(_TOPICS)
"""What an installed app subscribes to."""
