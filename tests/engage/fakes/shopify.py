"""Shopify's Admin GraphQL: a real GraphQL executor over the part of its schema that we use, with its allowance of points.

Queries are checked against the types, so a field that Shopify does not have is an error here too. The cost of a query is
counted pessimistically: one point for each object, two for each connection. `speed` makes points come back faster than
the 100 a second of a basic plan.
"""

from __future__ import annotations

import json
import re
import time
from bisect import bisect_left, bisect_right
from datetime import datetime
from typing import Any

from graphql import GraphQLError, build_schema, execute, parse, validate
from graphql.language import FieldNode, IntValueNode, OperationDefinitionNode, VariableNode

from tests.engage.fakes.service import Answer, Call, FakeService

VERSION = "2026-10"
TOKEN = "shpat_token"
SCHEMA = build_schema("""
scalar DateTime
scalar Decimal
scalar UnsignedInt64
scalar URL
type MoneyV2 { amount: Decimal! currencyCode: String! }
type MoneyBag { shopMoney: MoneyV2! }
type PageInfo { hasNextPage: Boolean! endCursor: String }
interface Node { id: ID! }
type Email { emailAddress: String! marketingState: String! }
type Phone { phoneNumber: String! marketingState: String! }
type Address { countryCodeV2: String }
type Customer implements Node { id: ID! legacyResourceId: UnsignedInt64! updatedAt: DateTime! firstName: String lastName: String
  locale: String! tags: [String!]! numberOfOrders: UnsignedInt64! amountSpent: MoneyV2! lastOrder: Order
  defaultEmailAddress: Email defaultPhoneNumber: Phone defaultAddress: Address }
type CustomerEdge { node: Customer! cursor: String! }
type CustomerConnection { pageInfo: PageInfo! nodes: [Customer!]! edges: [CustomerEdge!]! }
type Product implements Node { id: ID! legacyResourceId: UnsignedInt64! }
type LineItem implements Node { id: ID! product: Product }
type LineItemEdge { node: LineItem! }
type LineItemConnection { nodes: [LineItem!]! edges: [LineItemEdge!]! }
type Refund implements Node { id: ID! legacyResourceId: UnsignedInt64! createdAt: DateTime totalRefundedSet: MoneyBag! }
type Order implements Node { id: ID! legacyResourceId: UnsignedInt64! updatedAt: DateTime! createdAt: DateTime!
  cancelledAt: DateTime test: Boolean! displayFinancialStatus: String discountCodes: [String!]! customer: Customer
  totalPriceSet: MoneyBag! refunds(first: Int): [Refund!]! lineItems(first: Int): LineItemConnection! }
type OrderEdge { node: Order! cursor: String! }
type OrderConnection { pageInfo: PageInfo! nodes: [Order!]! edges: [OrderEdge!]! }
type WebhookSubscription { topic: String! }
type WebhookSubscriptionConnection { nodes: [WebhookSubscription!]! }
type AccessScope { handle: String! }
type AppInstallation { accessScopes: [AccessScope!]! }
enum BulkOperationStatus { CREATED RUNNING COMPLETED FAILED CANCELED EXPIRED }
type BulkOperation implements Node { id: ID! status: BulkOperationStatus! errorCode: String createdAt: DateTime!
  objectCount: UnsignedInt64! url: URL }
enum CustomerSortKeys { UPDATED_AT ID }
enum OrderSortKeys { UPDATED_AT ID }
type Shop { name: String! }
type QueryRoot { shop: Shop! currentAppInstallation: AppInstallation! node(id: ID!): Node
  webhookSubscriptions(first: Int): WebhookSubscriptionConnection!
  customers(first: Int, after: String, sortKey: CustomerSortKeys, query: String): CustomerConnection!
  orders(first: Int, after: String, sortKey: OrderSortKeys, query: String): OrderConnection! }
type UserError { field: [String!] message: String! }
type BulkPayload { bulkOperation: BulkOperation userErrors: [UserError!]! }
type TagsPayload { node: Node userErrors: [UserError!]! }
type FieldsPayload { userErrors: [UserError!]! }
input MetafieldsSetInput { ownerId: ID! namespace: String key: String! type: String value: String! }
type Mutation { bulkOperationRunQuery(query: String!, groupObjects: Boolean): BulkPayload
  tagsAdd(id: ID!, tags: [String!]!): TagsPayload metafieldsSet(metafields: [MetafieldsSetInput!]!): FieldsPayload }
schema { query: QueryRoot mutation: Mutation }
""")
SCHEMA.get_type("Node").resolve_type = lambda value, *_: value["__typename"]  # type: ignore[union-attr]
SCOPES = ("read_customers", "read_orders", "read_all_orders", "write_customers")


class FakeShopify(FakeService):
    def __init__(self, *, bucket: float = 2_000, speed: float = 1.0) -> None:
        super().__init__()
        self.customers: dict[str, dict[str, Any]] = {}
        self.orders: dict[str, dict[str, Any]] = {}
        self.fields: dict[tuple[str, str, str], str] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self._shelves: dict[str, _Shelf] = {}
        self.scopes: tuple[str, ...] = SCOPES
        self.subscriptions: set[str] = set()
        self.served_version = VERSION
        self.token = TOKEN
        self.throttled = 0
        self.polls_until_done = 1
        self._bucket = self._available = bucket
        self._rate = 100.0 * speed
        self._restored_at = time.monotonic()

    # The shop

    def customer(self, number: int, updated_at: str, **members: Any) -> dict[str, Any]:
        gid = f"gid://shopify/Customer/{number}"
        self._shelves.pop("customers", None)
        self.customers[gid] = {
            "__typename": "Customer",
            "id": gid,
            "legacyResourceId": str(number),
            "updatedAt": updated_at,
            "firstName": f"First{number}",
            "lastName": None,
            "locale": "de-CH",
            "tags": [],
            "numberOfOrders": "0",
            "amountSpent": {"amount": "0.0", "currencyCode": "CHF"},
            "lastOrder": None,
            "defaultEmailAddress": {"emailAddress": f"c{number}@example.com", "marketingState": "SUBSCRIBED"},
            "defaultPhoneNumber": None,
            "defaultAddress": {"countryCodeV2": "CH"},
        } | members
        return self.customers[gid]

    def order(
        self, number: int, customer: int, updated_at: str, amount: str = "10.0", **members: Any
    ) -> dict[str, Any]:
        gid = f"gid://shopify/Order/{number}"
        self._shelves.pop("orders", None)
        self.orders[gid] = {
            "__typename": "Order",
            "id": gid,
            "legacyResourceId": str(number),
            "updatedAt": updated_at,
            "createdAt": updated_at,
            "cancelledAt": None,
            "test": False,
            "displayFinancialStatus": "PAID",
            "discountCodes": [],
            "customer": self.customers[f"gid://shopify/Customer/{customer}"],
            "totalPriceSet": money(amount),
            "refunds": [],
            "lineItems": [],
        } | members
        return self.orders[gid]

    def shelf(self, name: str) -> _Shelf:
        if name not in self._shelves:
            self._shelves[name] = _Shelf(getattr(self, name))
        return self._shelves[name]

    # The wire

    def handle(self, call: Call) -> Answer:
        if call.method == "GET" and call.path in self.files:
            assert "x-shopify-access-token" not in call.headers, "the token went to where the file lies"
            return Answer(200, self.files[call.path], {"Content-Type": "application/jsonl"})
        if call.headers.get("x-shopify-access-token") != self.token:
            return Answer(
                401, {"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"}
            )
        if not re.fullmatch(r"/admin/api/[0-9]{4}-[0-9]{2}/graphql\.json", call.path):
            return Answer(404, {"errors": "Not Found"})
        asked = call.json
        answer = self._execute(asked["query"], asked.get("variables") or {})
        return Answer(200, answer, {"X-Shopify-API-Version": self.served_version})

    def _execute(self, text: str, variables: dict[str, Any]) -> dict[str, Any]:
        try:
            document = parse(text)
        except GraphQLError as error:
            return {"errors": [{"message": error.message}]}
        if mistakes := validate(SCHEMA, document):
            return {"errors": [{"message": one.message, "extensions": {"code": "invalid"}} for one in mistakes]}
        cost = sum(_cost(each, variables) for each in document.definitions if isinstance(each, OperationDefinitionNode))
        if cost > 1_000:
            code = {"code": "MAX_COST_EXCEEDED", "cost": cost, "maxCost": 1_000}
            return {"errors": [{"message": f"Query cost is {cost}", "extensions": code}]}
        if refusal := self._pay(cost):
            return refusal
        result = execute(SCHEMA, document, _Root(self), variable_values=variables)
        answer: dict[str, Any] = {"data": result.data, "extensions": {"cost": self._told(cost, cost)}}
        if result.errors:
            answer["errors"] = [{"message": error.message} for error in result.errors]
        return answer

    def _pay(self, cost: float) -> dict[str, Any] | None:
        now = time.monotonic()
        self._available = min(self._bucket, self._available + (now - self._restored_at) * self._rate)
        self._restored_at = now
        if cost <= self._available:
            self._available -= cost
            return None
        self.throttled += 1
        error = {"message": "Throttled", "extensions": {"code": "THROTTLED"}}
        return {"errors": [error], "extensions": {"cost": self._told(cost, None)}}

    def _told(self, requested: float, actual: float | None) -> dict[str, Any]:
        status = {
            "maximumAvailable": self._bucket,
            "currentlyAvailable": int(self._available),
            "restoreRate": self._rate,
        }
        return {"requestedQueryCost": requested, "actualQueryCost": actual, "throttleStatus": status}

    def run_bulk(self, query: str) -> dict[str, Any]:
        document = parse(query)
        mistakes = validate(SCHEMA, document)
        if mistakes:
            return {"bulkOperation": None, "userErrors": [{"field": ["query"], "message": str(mistakes[0])}]}
        gid = f"gid://shopify/BulkOperation/{len(self.operations) + 1}"
        result = execute(SCHEMA, document, _Root(self))
        assert not result.errors, result.errors
        [connection] = result.data.values()  # type: ignore[union-attr]
        lines: list[str] = []
        for edge in connection["edges"]:
            node = dict(edge["node"])
            children = (node.pop("lineItems", None) or {}).get("edges", [])
            lines.append(json.dumps(node))
            lines += [json.dumps(child["node"] | {"__parentId": node["id"]}) for child in children]
        path = f"/bulk/{len(self.operations) + 1}.jsonl"
        self.files[path] = "".join(f"{line}\n" for line in lines).encode()
        self.operations[gid] = {
            "__typename": "BulkOperation",
            "id": gid,
            "status": "RUNNING" if self.polls_until_done else "COMPLETED",
            "errorCode": None,
            "createdAt": datetime.now().astimezone().isoformat(timespec="seconds"),
            "objectCount": str(len(lines)),
            "url": self.url + path if lines else None,
            "polls": self.polls_until_done,
        }
        return {"bulkOperation": self.operations[gid], "userErrors": []}


class _Root:
    """The roots of queries and mutations, which graphql-core asks by name."""

    def __init__(self, fake: FakeShopify) -> None:
        self._fake = fake
        self.shop = {"name": "Tea"}
        self.currentAppInstallation = {"accessScopes": [{"handle": each} for each in fake.scopes]}

    def webhookSubscriptions(self, info: Any, first: int) -> dict[str, Any]:
        return {"nodes": [{"topic": topic} for topic in sorted(self._fake.subscriptions)]}

    def customers(self, info: Any, **asked: Any) -> dict[str, Any]:
        return self._fake.shelf("customers").connection(asked)

    def orders(self, info: Any, **asked: Any) -> dict[str, Any]:
        return self._fake.shelf("orders").connection(asked)

    def node(self, info: Any, id: str) -> dict[str, Any] | None:  # noqa: A002  # its name there
        operation = self._fake.operations.get(id)
        if operation and operation["status"] == "RUNNING":
            operation["polls"] -= 1
            if operation["polls"] < 0:
                operation["status"] = "COMPLETED"
        return operation or self._fake.customers.get(id)

    def bulkOperationRunQuery(self, info: Any, query: str, groupObjects: bool = False) -> dict[str, Any]:  # noqa: N803
        assert groupObjects, "without it children may stand anywhere"
        return self._fake.run_bulk(query)

    def tagsAdd(self, info: Any, id: str, tags: list[str]) -> dict[str, Any]:  # noqa: A002
        customer = self._fake.customers.get(id)
        if customer is None:
            return {"node": None, "userErrors": [{"field": ["id"], "message": "Customer does not exist"}]}
        customer["tags"] = sorted({*customer["tags"], *tags})
        return {"node": customer, "userErrors": []}

    def metafieldsSet(self, info: Any, metafields: list[dict[str, str]]) -> dict[str, Any]:
        if len(metafields) > 25 or any(each["ownerId"] not in self._fake.customers for each in metafields):
            return {"userErrors": [{"field": ["metafields"], "message": "Owner does not exist."}]}
        for each in metafields:
            self._fake.fields[each["ownerId"], each["namespace"], each["key"]] = each["value"]
        return {"userErrors": []}


def money(amount: str) -> dict[str, Any]:
    return {"shopMoney": {"amount": amount, "currencyCode": "CHF"}}


class _Shelf:
    """Nodes in the order of their last change."""

    def __init__(self, found: dict[str, dict[str, Any]]) -> None:
        self.nodes = sorted(found.values(), key=_place)
        self._keys = [_place(one) for one in self.nodes]

    def connection(self, asked: dict[str, Any]) -> dict[str, Any]:
        begin, end = 0, len(self.nodes)
        for sign, moment in re.findall(r"updated_at:(>=|<=)'([^']+)'", asked.get("query") or ""):
            if sign == ">=":
                begin = max(begin, bisect_left(self._keys, (moment, 0)))
            else:
                end = min(end, bisect_right(self._keys, (moment, 2**63)))
        if after := asked.get("after"):
            updated, _, number = after.partition("|")
            begin = max(begin, bisect_right(self._keys, (updated, int(number))))
        first = asked.get("first") or len(self.nodes)
        shown = [_whole(one) for one in self.nodes[begin : min(end, begin + first)]]
        cursor = f"{shown[-1]['updatedAt']}|{shown[-1]['legacyResourceId']}" if shown else None
        return {
            "pageInfo": {"hasNextPage": end - begin > first, "endCursor": cursor},
            "nodes": shown,
            "edges": [{"node": one, "cursor": ""} for one in shown],
        }


def _place(node: dict[str, Any]) -> tuple[str, int]:
    return node["updatedAt"], int(node["legacyResourceId"])


def _whole(node: dict[str, Any]) -> dict[str, Any]:
    """An order with its lines as a connection."""
    lines = node.get("lineItems")
    if lines is None:
        return node
    made = [{"id": f"{node['id']}/{place}", "product": {"legacyResourceId": each}} for place, each in enumerate(lines)]
    return node | {"lineItems": {"nodes": made, "edges": [{"node": each} for each in made]}}


def _cost(node: Any, variables: dict[str, Any]) -> int:
    """One point for each object, two for each connection, times how many are asked for."""
    if not getattr(node, "selection_set", None):
        return 0
    inner = sum(_cost(each, variables) for each in node.selection_set.selections)
    if not isinstance(node, FieldNode):
        return inner
    if node.name.value in {"nodes", "edges", "pageInfo", "node"}:
        return inner + (node.name.value in {"nodes", "node"})
    first = next((each.value for each in node.arguments or () if each.name.value == "first"), None)
    if isinstance(first, VariableNode):
        return 2 + int(variables[first.name.value]) * inner
    if isinstance(first, IntValueNode):
        return 2 + int(first.value) * inner
    return 1 + inner
