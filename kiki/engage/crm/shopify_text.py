"""What is asked of Shopify's Admin GraphQL, and what its answers mean as engage's own records. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from kiki.engage.crm.field_map import count_of
from kiki.engage.event import Order, Refund
from kiki.engage.moment import optional_moment, parse_moment
from kiki.engage.profile import Profile
from kiki.engage.webhooks.shopify import NEVER_PAID
from kiki.errors import InvalidInput
from kiki.money import parse_micros

_CUSTOMER: Final = """
  id legacyResourceId updatedAt firstName lastName locale tags numberOfOrders
  amountSpent { amount currencyCode } lastOrder { createdAt }
  defaultEmailAddress { emailAddress marketingState } defaultPhoneNumber { phoneNumber marketingState }
  defaultAddress { countryCodeV2 }
"""
_ORDER: Final = """
  id legacyResourceId updatedAt createdAt cancelledAt test displayFinancialStatus discountCodes
  customer { legacyResourceId } totalPriceSet { shopMoney { amount currencyCode } }
  refunds { legacyResourceId createdAt totalRefundedSet { shopMoney { amount currencyCode } } }
"""

CUSTOMERS: Final = (
    "query Customers($first: Int!, $after: String, $query: String) {"
    " page: customers(first: $first, after: $after, sortKey: UPDATED_AT, query: $query) {"
    f" pageInfo {{ hasNextPage endCursor }} nodes {{ {_CUSTOMER} }} }} }}"
)
ORDERS: Final = (
    "query Orders($first: Int!, $after: String, $query: String) {"
    " page: orders(first: $first, after: $after, sortKey: UPDATED_AT, query: $query) {"
    f" pageInfo {{ hasNextPage endCursor }} nodes {{ {_ORDER}"
    " lineItems(first: 10) { nodes { product { legacyResourceId } } } } } }"
)
BULK_CUSTOMERS: Final = f"{{ customers {{ edges {{ node {{ {_CUSTOMER} }} }} }} }}"
BULK_ORDERS: Final = (
    f"{{ orders {{ edges {{ node {{ {_ORDER}"
    " lineItems { edges { node { id product { legacyResourceId } } } } } } } }"
)
BULK_RUN: Final = (
    "mutation Bulk($query: String!) { done: bulkOperationRunQuery(query: $query, groupObjects: true) {"
    " bulkOperation { id status } userErrors { field message } } }"
)
BULK_STATE: Final = (
    "query BulkState($id: ID!) { node(id: $id) { ... on BulkOperation {"
    " id status errorCode createdAt objectCount url } } }"
)
TAGS_ADD: Final = (
    "mutation Tags($id: ID!, $tags: [String!]!) { done: tagsAdd(id: $id, tags: $tags) {"
    " userErrors { field message } } }"
)
FIELDS_SET: Final = (
    "mutation Fields($fields: [MetafieldsSetInput!]!) { done: metafieldsSet(metafields: $fields) {"
    " userErrors { field message } } }"
)
SUBSCRIPTIONS: Final = "{ webhookSubscriptions(first: 100) { nodes { topic } } }"
SUBSCRIPTIONS_NEEDED: Final = (
    "ORDERS_CREATE",
    "REFUNDS_CREATE",
    "CUSTOMERS_UPDATE",
    "CUSTOMERS_EMAIL_MARKETING_CONSENT_UPDATE",
    "CUSTOMERS_MARKETING_CONSENT_UPDATE",
)
"""The three privacy topics are not among them: they stand in the app's own settings."""
SCOPES: Final = "{ currentAppInstallation { accessScopes { handle } } }"

SCOPES_NEEDED: Final = {
    "read_customers": "customers cannot be read",
    "read_orders": "orders cannot be read",
    "read_all_orders": "orders older than 60 days are hidden, so value and churn would be wrong",
    "write_customers": "tags and fields cannot be written back",
}
FIELDS_PER_CALL_MAX: Final = 25


class PageInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Whether there is more, and from where on."""

    has_next_page: bool
    end_cursor: str | None = None


class NodePage(msgspec.Struct, frozen=True, rename="camel"):
    """One page of customers or orders."""

    nodes: list[Any]
    page_info: PageInfo


class UserError(msgspec.Struct, frozen=True):
    """Why a mutation did nothing, although the answer is 200."""

    message: str = ""


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    """A bulk operation."""

    id: str
    status: str = ""
    created_at: str = ""
    url: str | None = None


class Changed(msgspec.Struct, frozen=True, rename="camel"):
    """What a mutation says."""

    user_errors: list[UserError]
    bulk_operation: Operation | None = None

    @property
    def problem(self) -> str:
        """The errors in one line; empty when it was done."""
        return "; ".join(error.message[:120] or "refused" for error in self.user_errors)[:300]


class Scope(msgspec.Struct, frozen=True):
    """What an app may do."""

    handle: str


class Installation(msgspec.Struct, frozen=True, rename="camel"):
    """The app in the shop."""

    access_scopes: list[Scope]


class Subscription(msgspec.Struct, frozen=True):
    """A webhook."""

    topic: str


class Subscriptions(msgspec.Struct, frozen=True):
    """The webhooks of the app."""

    nodes: list[Subscription]


class _Money(msgspec.Struct, frozen=True, rename="camel"):
    amount: str
    currency_code: str


class _MoneySet(msgspec.Struct, frozen=True, rename="camel"):
    shop_money: _Money


class _Named(msgspec.Struct, frozen=True, rename="camel"):
    legacy_resource_id: str


class _Email(msgspec.Struct, frozen=True, rename="camel"):
    email_address: str = ""
    marketing_state: str = ""


class _Phone(msgspec.Struct, frozen=True, rename="camel"):
    phone_number: str = ""
    marketing_state: str = ""


class _LastOrder(msgspec.Struct, frozen=True, rename="camel"):
    created_at: str


class _Address(msgspec.Struct, frozen=True, rename={"country": "countryCodeV2"}):
    country: str | None = None


class CustomerNode(msgspec.Struct, rename="camel", kw_only=True):
    """A customer as `CUSTOMERS` asks for one."""

    legacy_resource_id: str
    updated_at: str
    first_name: str | None = None
    last_name: str | None = None
    locale: str | None = None
    tags: tuple[str, ...] = ()
    number_of_orders: str | int = 0
    amount_spent: _Money | None = None
    last_order: _LastOrder | None = None
    default_email_address: _Email | None = None
    default_phone_number: _Phone | None = None
    default_address: _Address | None = None

    def records(self) -> Iterator[Profile]:
        """The customer as a profile."""
        email, phone = self.default_email_address or _Email(), self.default_phone_number or _Phone()
        yield Profile(
            customer=self.legacy_resource_id,
            email=email.email_address,
            phone=phone.phone_number,
            first_name=self.first_name or "",
            last_name=self.last_name or "",
            locale=self.locale or "",
            country=(self.default_address and self.default_address.country) or "",
            tags=tuple(sorted(set(self.tags))),
            email_marketing=allowed(email.marketing_state),
            sms_marketing=allowed(phone.marketing_state),
            total_spend=0 if self.amount_spent is None else parse_micros(self.amount_spent.amount, zero=True),
            purchase_count=count_of(self.number_of_orders),
            last_purchase=optional_moment(self.last_order and self.last_order.created_at),
            changed_at=parse_moment(self.updated_at),
        )


class _Refund(msgspec.Struct, frozen=True, rename="camel"):
    legacy_resource_id: str
    total_refunded_set: _MoneySet
    created_at: str | None = None


class _Line(msgspec.Struct, frozen=True, rename="camel"):
    product: _Named | None = None


class _Lines(msgspec.Struct, frozen=True):
    nodes: tuple[_Line, ...] = ()


class OrderNode(msgspec.Struct, rename="camel", kw_only=True):
    """An order as `ORDERS` asks for one."""

    legacy_resource_id: str
    updated_at: str
    created_at: str
    total_price_set: _MoneySet
    cancelled_at: str | None = None
    test: bool = False
    display_financial_status: str | None = None
    discount_codes: tuple[str, ...] = ()
    customer: _Named | None = None
    refunds: tuple[_Refund, ...] = ()
    line_items: _Lines = _Lines()

    def records(self) -> Iterator[Order | Refund]:
        """The order and what was given back of it; nothing for a test and for an order of nobody."""
        if self.test or self.customer is None:
            return
        order, customer = f"shopify:order:{self.legacy_resource_id}", self.customer.legacy_resource_id
        money = self.total_price_set.shop_money
        amount, placed = parse_micros(money.amount, zero=True), parse_moment(self.created_at)
        products = (line.product.legacy_resource_id for line in self.line_items.nodes if line.product is not None)
        yield Order(
            id=order,
            customer=customer,
            at=placed,
            amount=amount,
            currency=money.currency_code,
            code=next(iter(self.discount_codes), ""),
            products=tuple(dict.fromkeys(products)),
        )
        for refund in self.refunds:
            back = refund.total_refunded_set.shop_money
            given = optional_moment(refund.created_at)
            if paid_back := parse_micros(back.amount, zero=True):
                yield Refund(
                    id=f"shopify:refund:{refund.legacy_resource_id}",
                    order=order,
                    customer=customer,
                    at=placed if given is None else given,
                    amount=paid_back,
                    currency=back.currency_code,
                )
        cancelled = optional_moment(self.cancelled_at)
        if cancelled is not None and (self.display_financial_status or "").lower() in NEVER_PAID and amount:
            name = f"shopify:cancellation:{self.legacy_resource_id}"
            yield Refund(
                id=name, order=order, customer=customer, at=cancelled, amount=amount, currency=money.currency_code
            )


def allowed(state: str) -> bool | None:
    """What the shop believes about marketing: None where nobody was asked, or has not confirmed yet."""
    return {"SUBSCRIBED": True, "UNSUBSCRIBED": False, "REDACTED": False}.get(state)


def read_node(kind: type[CustomerNode | OrderNode], node: Any) -> CustomerNode | OrderNode:
    """A node of a page; raises `InvalidInput` for what Shopify does not say."""
    try:
        return msgspec.convert(node, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"shopify: not a {kind.__name__.removesuffix('Node').lower()}: {error}") from None


def bulk_nodes(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """The objects of a bulk file, each with its children put back, and the count of lines up to its end.

    `groupObjects` puts children behind their parent.
    """
    whole: dict[str, Any] | None = None
    count = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            node = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise InvalidInput(f"shopify: line {count + 1} of the bulk file: {error}") from None
        if whole is not None and node.get("__parentId") == whole.get("id"):
            whole.setdefault("lineItems", {"nodes": []})["nodes"].append(node)
        else:
            if whole is not None:
                yield count, whole
            whole = node
        count += 1
    if whole is not None:
        yield count, whole
