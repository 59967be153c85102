"""Customers and orders of a Shopify shop, by its Admin GraphQL API.

The first reading is two bulk operations, which cost nothing of the shop's allowance of points; from then on only what
changed is read, page by page, at the pace that `extensions.cost` tells. GraphQL answers 200 to almost everything: errors,
throttling and `userErrors` are looked for in every answer. Tags are added, never written anew: a set that was not
read would be erased by its replacement.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.engage.crm.connection import Connection
from kiki.engage.crm.mark import HORIZON, Mark, dump_cursor, parse_cursor
from kiki.engage.crm.shopify_text import (
    BULK_CUSTOMERS,
    BULK_ORDERS,
    BULK_RUN,
    BULK_STATE,
    CUSTOMERS,
    FIELDS_PER_CALL_MAX,
    FIELDS_SET,
    ORDERS,
    SCOPES,
    SCOPES_NEEDED,
    SUBSCRIPTIONS,
    SUBSCRIPTIONS_NEEDED,
    TAGS_ADD,
    Changed,
    CustomerNode,
    Installation,
    NodePage,
    Operation,
    OrderNode,
    Subscriptions,
    bulk_nodes,
    read_node,
)
from kiki.engage.moment import parse_moment, write_moment
from kiki.engage.source import Page, Record
from kiki.errors import InvalidInput, KikiError, SourceUnavailable
from kiki.outbound.exchange import INVALID, SERVER_ERROR, THROTTLED, UNAUTHORIZED, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Outcome, done, refused, unknown
from kiki.settings import Secret, is_loopback

VERSION: Final = "2026-10"
PAGES: Final = {"customers": 100, "orders": 25}
"""What one page may hold: a query may ask for at most 1,000 points, and an order with its lines costs many."""
QUERY_COST_MAX: Final = 1_000.0
"""What the dearest query may cost: so many points are waited for, because the next one may be another than the last."""
BULK_PAGE: Final = 1_000
POLL_SECONDS_MIN: Final = 0.25
POLL_SECONDS_MAX: Final = 10.0
NAMESPACE: Final = "kiki"
"""The namespace of the metafields that are written back."""
RESTARTS_MAX: Final = 5

Kind = TypeVar("Kind")
Stream = Literal["customers", "orders"]
_STREAMS: Final[tuple[Stream, ...]] = ("customers", "orders")
_KINDS: Final[dict[Stream, type[CustomerNode | OrderNode]]] = {"customers": CustomerNode, "orders": OrderNode}
_QUERIES: Final = {"customers": CUSTOMERS, "orders": ORDERS}
_BULKS: Final = {"customers": BULK_CUSTOMERS, "orders": BULK_ORDERS}


class _Cursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    customers: Mark = Mark()
    orders: Mark = Mark()
    bulk: str = ""
    """The bulk operation that is being read, and of which stream."""
    bulk_of: str = ""
    line: int = 0
    """So many lines of it were told."""


class ShopifySource:
    """See `Source`."""

    name: Final = "shopify"

    def __init__(
        self,
        shop: str,
        token: Secret,
        *,
        version: str = VERSION,
        base_url: str | None = None,
        bulk: bool = True,
        webhooks: bool = False,
        clock: Clock = wall_micros,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`shop` is the permanent domain, my-shop.myshopify.com; `base_url` is for a stand-in of it.

        `webhooks` has `check` look for the app's subscriptions: Shopify deletes one whose calls fail for four hours.
        """
        self._webhooks = webhooks
        self._version = version
        self._bulk = bulk
        self._clock = clock
        base = base_url or f"https://{shop}"
        self._connection = Connection(
            self.name,
            lambda: Line(
                f"{base}/admin/api/{version}/graphql.json",
                authorization=FixedToken(token, header="X-Shopify-Access-Token", scheme=""),
                judge=judge,
                rates=_rates,
                clock=clock,
            ),
            credential="SHOPIFY_ACCESS_TOKEN",
            clock=clock,
            sleep=sleep,
        )

    def changes(self, since: str) -> Iterator[Page]:
        """See `Source`."""
        cursor = parse_cursor(since, _Cursor, self.name)
        for stream in _STREAMS:
            if self._bulk and (cursor.bulk_of == stream or (getattr(cursor, stream).is_start and not cursor.bulk)):
                yield from self._whole(stream, cursor)
            yield from self._recent(stream, cursor)

    def upsert(self, updates: Mapping[str, Mapping[str, str]]) -> Mapping[str, Outcome]:
        """See `Source`. Fields become metafields of the customer in the namespace `kiki`."""
        return {customer: self._set_fields(customer, fields) for customer, fields in updates.items()}

    def tag(self, customer: str, tags: Collection[str]) -> Outcome:
        """See `Source`."""
        return self._change(TAGS_ADD, {"id": _gid(customer), "tags": sorted(set(tags))})

    def check(self) -> tuple[str, ...]:
        """See `Source`."""
        try:
            reply = self._connection.ask(_request(SCOPES, {}, write=False))
            installed = _part(reply, "currentAppInstallation", Installation)
        except KikiError as error:
            return (f"{error}" + (f" ({error.hint})" if error.hint else ""),)
        granted = {scope.handle for scope in installed.access_scopes}
        problems = [f"scope {scope} is missing: {why}" for scope, why in SCOPES_NEEDED.items() if scope not in granted]
        served = reply.headers.get("x-shopify-api-version", self._version)
        if served != self._version:
            problems.append(f"version {self._version} is no more: Shopify answers as {served}")
        if self._webhooks:
            problems += self._subscription_problems()
        return tuple(problems)

    def close(self) -> None:
        """Give connections free."""
        self._connection.close()

    def _subscription_problems(self) -> list[str]:
        try:
            reply = self._connection.ask(_request(SUBSCRIPTIONS, {}, write=False))
            there = {one.topic for one in _part(reply, "webhookSubscriptions", Subscriptions).nodes}
        except KikiError as error:
            return [str(error)]
        return [
            f"no webhook is subscribed for {topic}: subscribe it again; Shopify deletes one whose calls fail for four hours"
            for topic in SUBSCRIPTIONS_NEEDED
            if topic not in there
        ]

    def _recent(self, stream: Stream, cursor: _Cursor) -> Iterator[Page]:
        """What changed since the stream's mark, the oldest first."""
        mark: Mark = getattr(cursor, stream)
        until = self._clock() - HORIZON
        search = f"updated_at:<='{write_moment(until // SECOND * SECOND)}'"
        if not mark.is_start:
            search = f"updated_at:>='{write_moment(mark.at // SECOND * SECOND)}' AND {search}"
        after: str | None = None
        while True:
            variables = {"first": PAGES[stream], "after": after, "query": search}
            page = _part(self._connection.ask(_request(_QUERIES[stream], variables, write=False)), "page", NodePage)
            records: list[Record] = []
            problems: list[str] = []
            for each in page.nodes:
                node = read_node(_KINDS[stream], each)
                changed = parse_moment(node.updated_at)
                if mark.is_new(changed, node.legacy_resource_id):
                    records += _records(stream, node, problems)
                    mark = mark.moved(changed, node.legacy_resource_id)
            setattr(cursor, stream, mark)
            if records or problems:
                yield Page(tuple(records), dump_cursor(cursor), problems=tuple(problems))
            if not page.page_info.has_next_page or page.page_info.end_cursor in {None, after}:
                return
            after = page.page_info.end_cursor

    def _whole(self, stream: Stream, cursor: _Cursor) -> Iterator[Page]:
        """Everything there is, by a bulk operation; one that was begun before is gone on with."""
        for _ in range(RESTARTS_MAX):
            if not cursor.bulk:
                # Asked for as a read: a second operation, begun because nobody heard of the first, harms nobody.
                reply = self._connection.ask(_request(BULK_RUN, {"query": _BULKS[stream]}, write=False))
                made = _part(reply, "done", Changed)
                if made.bulk_operation is None or made.user_errors:
                    raise SourceUnavailable(f"shopify: no bulk operation: {made.problem or 'none'}", retry_after=60)
                cursor.bulk, cursor.bulk_of, cursor.line = made.bulk_operation.id, stream, 0
                # Known before it is waited for: whoever goes on after a crash begins no second one.
                yield Page((), dump_cursor(cursor))
            state = self._finished(cursor.bulk)
            if state is not None:
                began = parse_moment(state.created_at)
                if state.url:
                    yield from self._file(stream, state.url, cursor)
                setattr(cursor, stream, Mark(began - HORIZON))
                cursor.bulk, cursor.bulk_of, cursor.line = "", "", 0
                yield Page((), dump_cursor(cursor))
                return
            cursor.bulk, cursor.bulk_of, cursor.line = "", "", 0
        raise SourceUnavailable(
            f"shopify: {RESTARTS_MAX} bulk operations over {stream} came to no end", retry_after=600
        )

    def _finished(self, operation: str) -> Operation | None:
        """The state of the operation once it is complete; None: it failed, was cancelled or is forgotten."""
        wait = POLL_SECONDS_MIN
        while True:
            reply = self._connection.ask(_request(BULK_STATE, {"id": operation}, write=False))
            if _data(reply).get("node") is None:
                return None
            state = _part(reply, "node", Operation)
            if state.status in {"FAILED", "CANCELED", "CANCELING", "EXPIRED"}:
                return None
            if state.status == "COMPLETED":
                return state
            self._connection.sleep(wait)
            wait = min(2 * wait, POLL_SECONDS_MAX)

    def _file(self, stream: Stream, url: str, cursor: _Cursor) -> Iterator[Page]:
        """The operation's file, which is read as it comes and kept nowhere."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise SourceUnavailable("shopify: the bulk file is offered without https")
        skip, records, problems = cursor.line, list[Record](), list[str]()
        try:
            # A client of its own: the file lies elsewhere, and nobody there may see the shop's token.
            with httpx.stream("GET", url, timeout=60.0) as response:
                if not response.is_success:
                    raise SourceUnavailable(f"shopify: the bulk file is answered {response.status_code}")
                for count, node in bulk_nodes(response.iter_lines()):
                    if count <= skip:
                        continue
                    records += _records(stream, read_node(_KINDS[stream], node), problems)
                    cursor.line = count
                    if len(records) >= BULK_PAGE:
                        yield Page(tuple(records), dump_cursor(cursor), problems=tuple(problems))
                        records, problems = [], []
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"shopify: the bulk file broke off: {type(error).__name__}") from None
        if records or problems:
            yield Page(tuple(records), dump_cursor(cursor), problems=tuple(problems))

    def _set_fields(self, customer: str, fields: Mapping[str, str]) -> Outcome:
        if not fields:
            return done()
        if len(fields) > FIELDS_PER_CALL_MAX:
            return refused(INVALID, f"not sent: at most {FIELDS_PER_CALL_MAX} fields of one customer at once")
        inputs = [
            {
                "ownerId": _gid(customer),
                "namespace": NAMESPACE,
                "key": key,
                "type": "single_line_text_field",
                "value": text,
            }
            for key, text in sorted(fields.items())
        ]
        return self._change(FIELDS_SET, {"fields": inputs})

    def _change(self, mutation: str, variables: dict[str, Any]) -> Outcome:
        reply = self._connection.tell(_request(mutation, variables, write=True))
        if isinstance(reply, Outcome):
            return reply
        try:
            result = _part(reply, "done", Changed)
        except SourceUnavailable as error:
            return reply.nonsense(str(error))
        return refused(INVALID, f"shopify: {result.problem}") if result.user_errors else done()


def judge(reply: Reply) -> Outcome | None:
    """What Shopify says beside its status, which is 200 for nearly everything."""
    if not 200 <= reply.status < 300:
        return None
    said = reply.json
    if not isinstance(said, dict):
        return reply.nonsense("no JSON")
    errors = said.get("errors")
    if not errors:
        return None
    first = errors[0] if isinstance(errors, list) and isinstance(errors[0], dict) else {}
    extensions = first.get("extensions")
    code = str(extensions.get("code") or "") if isinstance(extensions, dict) else ""
    message = str(first.get("message") or errors)[:200]
    if code == "THROTTLED":
        return refused(THROTTLED, message, retry_at=_affordable_at(reply, said) or reply.now + SECOND)
    if code in {"ACCESS_DENIED", "UNAUTHORIZED"}:
        return refused(UNAUTHORIZED, message)
    if code == "INTERNAL_SERVER_ERROR":
        return unknown(SERVER_ERROR, message) if reply.write else refused("unavailable", message)
    return refused(INVALID, f"{code} {message}".strip())


def _rates(reply: Reply) -> int | None:
    """Until when a call might be throttled; None: it may come at once."""
    said = reply.json if reply.status == 200 else None
    return _affordable_at(reply, said) if isinstance(said, dict) else None


def _affordable_at(reply: Reply, said: dict[str, Any]) -> int | None:
    try:
        cost = said["extensions"]["cost"]
        status = cost["throttleStatus"]
        wanted = min(max(float(cost["requestedQueryCost"]), QUERY_COST_MAX), float(status["maximumAvailable"]))
        missing = wanted - float(status["currentlyAvailable"])
        rate = float(status["restoreRate"])
    except (KeyError, TypeError, ValueError):
        return None
    if missing <= 0 or rate <= 0 or not math.isfinite(missing):
        return None
    return reply.now + round(min(missing / rate, 3600.0) * SECOND)


def _records(stream: Stream, node: CustomerNode | OrderNode, problems: list[str]) -> tuple[Record, ...]:
    """What a node tells; one that makes no sense is left out and told of."""
    try:
        return tuple(node.records())
    except (InvalidInput, ValueError) as error:
        problems.append(f"{stream} {node.legacy_resource_id[:60]}: {error}")
        return ()


def _request(query: str, variables: Mapping[str, Any], *, write: bool) -> Request:
    return Request(method="POST", path="", write=write, json={"query": query, "variables": dict(variables)})


def _gid(customer: str) -> str:
    return f"gid://shopify/Customer/{customer}"


def _data(reply: Reply) -> dict[str, Any]:
    said = reply.json
    data = said.get("data") if isinstance(said, dict) else None
    if not isinstance(data, dict):
        raise SourceUnavailable("shopify: an answer without data")
    return data


def _part(reply: Reply, name: str, kind: type[Kind]) -> Kind:
    """That member of the answer's data; raises `SourceUnavailable` for an answer that nobody understands."""
    try:
        return msgspec.convert(_data(reply).get(name), kind)
    except msgspec.ValidationError as error:
        raise SourceUnavailable(f"shopify: an answer that nobody understands: {error}") from None
