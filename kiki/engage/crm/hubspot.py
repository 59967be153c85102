"""Contacts of a HubSpot portal, by its CRM search and batch APIs.

A search ends at 10,000 results and knows one order, so no page is asked for twice and none by its number: each search
begins at the last moment that was read. Contacts that share one millisecond (an import) are read by their ids.
The index lags behind writes; what is younger than the horizon waits. Deals that are won are orders of their contact: of
several the one with the lowest id, who was there first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.engage.crm.connection import Connection
from kiki.engage.crm.field_map import profile_of
from kiki.engage.crm.mark import HORIZON, Mark, dump_cursor, parse_cursor
from kiki.engage.crm.won import won_order
from kiki.engage.moment import parse_moment
from kiki.engage.source import Page, Record
from kiki.engage.zones import zone_of_slug
from kiki.errors import KikiError, SourceUnavailable
from kiki.outbound.exchange import INVALID, THROTTLED, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Fate, Outcome, done, refused
from kiki.outbound.rate_budget import retry_after
from kiki.settings import Secret

API: Final = "https://api.hubapi.com"
VERSION: Final = "v3"
"""`v3`, which HubSpot's kit speaks, or a dated one: 2026-03."""
PAGE: Final = 200
BATCH: Final = 100
MILLISECOND: Final = SECOND // 1_000
"""The tick of HubSpot's clock."""
SEARCHES_PER_MINUTE: Final = 240
CHANGED: Final = "lastmodifieddate"
DEAL_CHANGED: Final = "hs_lastmodifieddate"
WON: Final = "hs_is_closed_won"
DEAL_PROPERTIES: Final = ("amount", "amount_in_home_currency", "closedate", "deal_currency_code")
TAGS_PROPERTY: Final = "kiki_tags"
"""A contact property of the type "multiple checkboxes", which holds our tags."""

FIELDS: Final[Mapping[str, str]] = {
    "email": "email",
    "phone": "phone",
    "first_name": "firstname",
    "last_name": "lastname",
    "locale": "hs_language",
    "zone": "hs_timezone",
    "country": "hs_country_region_code",
    "segment": "lifecyclestage",
    "email_opt_out": "hs_email_optout",
    "total_spend": "total_revenue",
    "purchase_count": "num_associated_deals",
    "last_purchase": "recent_deal_close_date",
    "last_engagement": "hs_email_last_click_date",
    "tags": TAGS_PROPERTY,
}
"""Our field and the property that holds it, unless `HUBSPOT_FIELDS` says otherwise."""

DEALS_ADVICE: Final = "give the private app the scope crm.objects.deals.read, or set KIKI_ENGAGE_DEALS=false"

_Answer = TypeVar("_Answer")
_WAITS: Final = {"SECONDLY": SECOND, "TEN_SECONDLY_ROLLING": 10 * SECOND, "DAILY": 3600 * SECOND}


class _Cursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    contacts: Mark = Mark()
    crowd: str = ""
    """The last id that was read of a moment with more contacts than a page."""
    deals: Mark = Mark()
    deals_crowd: str = ""


class _Stream(NamedTuple):
    """What is read in the order of its changes."""

    path: str
    changed: str
    """The property that says when."""
    properties: list[str]
    only: list[dict[str, str]]
    mark: str
    """Where in the cursor it stands, and `crowd` in a moment of many."""
    crowd: str

    def changed_at(self, found: _Contact) -> int:
        """When it was changed last."""
        return parse_moment(found.properties.get(self.changed) or "")


class _Contact(msgspec.Struct):
    """A contact, or a deal."""

    id: str
    properties: dict[str, str | None]


class _Found(msgspec.Struct):
    results: list[_Contact]


class _Other(msgspec.Struct, rename="camel"):
    to_object_id: int | str


class _From(msgspec.Struct):
    id: str


class _Tied(msgspec.Struct):
    """A deal and its contacts."""

    origin: _From = msgspec.field(name="from")
    to: list[_Other]


class _Ties(msgspec.Struct):
    """207 tells of those that have none, too."""

    results: list[_Tied]


class _Result(msgspec.Struct):
    id: str
    properties: dict[str, str | None] = {}


class _Error(msgspec.Struct):
    category: str = ""
    context: dict[str, list[str]] = {}


class _Written(msgspec.Struct):
    """What became of a batch; 207 tells of some that failed."""

    results: list[_Result]
    errors: list[_Error] = []

    def outcome(self, customer: str, id_property: str) -> Outcome | None:
        """What it says about that one; None: nothing."""
        if any(customer in {one.id, one.properties.get(id_property)} for one in self.results):
            return done()
        for error in self.errors:
            if any(customer in named for named in error.context.values()):
                return refused(INVALID, f"hubspot: {error.category[:80]}")
        return None


class HubSpotSource:
    """See `Source`."""

    name: Final = "hubspot"

    def __init__(
        self,
        token: Secret,
        *,
        fields: Mapping[str, str] | None = None,
        id_property: str = "",
        deals: bool = True,
        version: str = VERSION,
        base_url: str = API,
        per_minute: int = SEARCHES_PER_MINUTE,
        clock: Clock = wall_micros,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`id_property` is a unique property that holds the customers' ids; without it, HubSpot's record ids are theirs."""
        self._fields = {**FIELDS, **(fields or {})}
        self._id_property = id_property
        self._clock = clock
        objects = "crm/v3/objects" if version == "v3" else f"crm/objects/{version}"
        self._path = f"{objects}/contacts"
        ties = "crm/v4/associations" if version == "v3" else f"crm/associations/{version}"
        self._ties = f"{ties}/deals/contacts/batch/read"
        properties = sorted({CHANGED, *self._fields.values(), *filter(None, (id_property,))})
        self._contacts = _Stream(self._path, CHANGED, properties, [], "contacts", "crowd")
        won = [_filter(WON, "EQ", "true")]
        self._deals = (
            _Stream(f"{objects}/deals", DEAL_CHANGED, [DEAL_CHANGED, *DEAL_PROPERTIES], won, "deals", "deals_crowd")
            if deals
            else None
        )
        self._connection = Connection(
            self.name,
            lambda: Line(base_url, authorization=FixedToken(token), judge=judge, per_minute=per_minute, clock=clock),
            credential="HUBSPOT_API_KEY",
            clock=clock,
            sleep=sleep,
        )

    def changes(self, since: str) -> Iterator[Page]:
        """See `Source`."""
        cursor = parse_cursor(since, _Cursor, self.name)
        until = self._clock() - HORIZON
        yield from self._read(self._contacts, cursor, until)
        if self._deals is None:
            return
        try:
            yield from self._read(self._deals, cursor, until)
        except SourceUnavailable as error:
            # The contacts were read: it is the deals that this token may not see.
            hint = DEALS_ADVICE if "403" in str(error) else error.hint
            raise SourceUnavailable(f"deals: {error}", retry_after=error.retry_after, hint=hint) from None

    def _read(self, stream: _Stream, cursor: _Cursor, until: int) -> Iterator[Page]:
        mark: Mark = getattr(cursor, stream.mark)
        crowd: str = getattr(cursor, stream.crowd)
        while True:
            crowded = bool(crowd)
            found = self._crowd(stream, mark, crowd) if crowded else self._search(stream, mark, until)
            full = len(found) == PAGE
            if full and not crowded and stream.changed_at(found[0]) == stream.changed_at(found[-1]):
                # A search cannot get past so many of one moment: they are read by their ids instead.
                at = stream.changed_at(found[0])
                crowd = "0"
                mark = mark if mark.at == at else Mark(at)
                continue
            new = []
            for each in found:
                changed = stream.changed_at(each)
                if mark.is_new(changed, each.id):
                    new.append(each)
                    if not crowded:
                        mark = mark.moved(changed, each.id, most=PAGE)
            if crowded and full:
                crowd = found[-1].id
            elif crowded:
                # The whole moment was read: the next search begins behind it.
                crowd, mark = "", Mark(mark.at + MILLISECOND)
            if new:
                setattr(cursor, stream.mark, mark)
                setattr(cursor, stream.crowd, crowd)
                problems: list[str] = []
                records = self._profiles(new, problems) if stream is self._contacts else self._orders(new, problems)
                yield Page(tuple(records), dump_cursor(cursor), problems=tuple(problems))
            if not full and not crowded:
                return

    def upsert(self, updates: Mapping[str, Mapping[str, str]]) -> Mapping[str, Outcome]:
        """See `Source`. A hundred customers a call; each appears in it once."""
        outcomes: dict[str, Outcome] = {}
        remaining = iter(updates.items())
        while batch := dict(islice(remaining, BATCH)):
            outcomes |= self._write(batch)
        return outcomes

    def tag(self, customer: str, tags: Collection[str]) -> Outcome:
        """See `Source`. A value that begins with a semicolon is added to a property of many values."""
        value = "".join(f";{tag}" for tag in sorted(set(tags)))
        return self._write({customer: {TAGS_PROPERTY: value}})[customer]

    def check(self) -> tuple[str, ...]:
        """See `Source`."""
        try:
            self._search(self._contacts, Mark(), self._clock(), limit=1)
            names = self._properties()
        except KikiError as error:
            return (f"{error}" + (f" ({error.hint})" if error.hint else ""),)
        wanted = [*self._fields.values(), *([self._id_property] if self._id_property else [])]
        problems = [f"property {name} does not exist" for name in dict.fromkeys(wanted) if name not in names]
        try:
            if self._deals is not None:
                self._search(self._deals, Mark(), self._clock(), limit=1)
        except KikiError as error:
            problems.append(f"deals cannot be read ({error}): {DEALS_ADVICE}")
        return tuple(problems)

    def close(self) -> None:
        """Give connections free."""
        self._connection.close()

    def _search(self, stream: _Stream, mark: Mark, until: int, *, limit: int = PAGE) -> list[_Contact]:
        """What changed from the mark on, the oldest change first."""
        filters = [_filter(stream.changed, "LTE", until // 1_000)]
        if not mark.is_start:
            filters.append(_filter(stream.changed, "GTE", mark.at // 1_000))
        return self._found(stream, filters, stream.changed, limit)

    def _crowd(self, stream: _Stream, mark: Mark, behind: str) -> list[_Contact]:
        """What changed at one moment, by the ids."""
        filters = [_filter(stream.changed, "EQ", mark.at // 1_000), _filter("hs_object_id", "GT", behind)]
        return self._found(stream, filters, "hs_object_id", PAGE)

    def _found(self, stream: _Stream, filters: list[dict[str, str]], order: str, limit: int) -> list[_Contact]:
        body = {
            "filterGroups": [{"filters": [*filters, *stream.only]}],
            "sorts": [{"propertyName": order, "direction": "ASCENDING"}],
            "properties": stream.properties,
            "limit": limit,
        }
        return self._asked(f"{stream.path}/search", body, _Found).results

    def _asked(self, path: str, body: object, kind: type[_Answer]) -> _Answer:
        """What HubSpot answers to a question that it wants to be posted."""
        reply = self._connection.ask(Request(method="POST", path=path, write=False, json=body))
        found = reply.read(kind)
        if isinstance(found, Outcome):
            raise self._connection.failure(found)
        return found

    def _properties(self) -> set[str]:
        reply = self._connection.ask(Request(method="GET", path="crm/v3/properties/contacts", write=False))
        results = reply.json.get("results") if isinstance(reply.json, dict) else None
        if not isinstance(results, list):
            raise SourceUnavailable("hubspot: its properties cannot be read")
        return {str(one.get("name")) for one in results}

    def _profiles(self, contacts: Sequence[_Contact], problems: list[str]) -> list[Record]:
        made: list[Record] = []
        for contact in contacts:
            customer = contact.properties.get(self._id_property) if self._id_property else contact.id
            if customer:  # who has no id of the shop's is no customer yet
                changed = self._contacts.changed_at(contact)
                zone = self._fields["zone"]
                told = contact.properties | {zone: zone_of_slug(contact.properties.get(zone) or "")}
                made.append(profile_of(customer, changed, told, self._fields, problems))
        return made

    def _orders(self, deals: Sequence[_Contact], problems: list[str]) -> list[Record]:
        inputs = [{"id": deal.id} for deal in deals]
        tied = self._asked(self._ties, {"inputs": inputs}, _Ties).results
        contacts = {one.origin.id: str(min(int(each.to_object_id) for each in one.to)) for one in tied if one.to}
        customers = self._customers(set(contacts.values())) if self._id_property else {}
        made: list[Record] = []
        for deal in deals:
            contact, told = contacts.get(deal.id, ""), deal.properties
            customer = customers.get(contact, "") if self._id_property else contact
            if customer:
                # A portal with several currencies says what a deal is in its own; another has no such property.
                home = told.get("amount_in_home_currency")
                currency = None if home else told.get("deal_currency_code")
                amount, at = home or told.get("amount"), told.get("closedate")
                made += won_order(
                    self.name, deal.id, customer, amount=amount, at=at, currency=currency, problems=problems
                )
        return made

    def _customers(self, contacts: Collection[str]) -> dict[str, str]:
        """By contact the customer's id in the property that holds it."""
        found: dict[str, str] = {}
        remaining = iter(sorted(contacts))
        while some := list(islice(remaining, BATCH)):
            body = {"properties": [self._id_property], "inputs": [{"id": contact} for contact in some]}
            for one in self._asked(f"{self._path}/batch/read", body, _Found).results:
                if customer := one.properties.get(self._id_property):
                    found[one.id] = customer
        return found

    def _write(self, batch: Mapping[str, Mapping[str, str]]) -> dict[str, Outcome]:
        verb, key = ("upsert", {"idProperty": self._id_property}) if self._id_property else ("update", {})
        inputs = [{"id": customer, "properties": dict(fields), **key} for customer, fields in batch.items()]
        path = f"{self._path}/batch/{verb}"
        reply = self._connection.tell(Request(method="POST", path=path, write=True, json={"inputs": inputs}))
        if isinstance(reply, Outcome):
            if reply.fate is Fate.REFUSED and reply.code == INVALID and len(batch) > 1:
                # One that is wrong makes HubSpot refuse all of them: each alone shows which.
                return {customer: self._write({customer: fields})[customer] for customer, fields in batch.items()}
            return dict.fromkeys(batch, reply)
        told = reply.read(_Written)
        if isinstance(told, Outcome):
            return dict.fromkeys(batch, told)
        if len(told.results) == len(batch) and not told.errors:
            return dict.fromkeys(batch, done())
        silent = reply.nonsense("not a word about this customer")
        return {customer: told.outcome(customer, self._id_property) or silent for customer in batch}


def judge(reply: Reply) -> Outcome | None:
    """HubSpot's own words: which limit was met decides how long to wait."""
    if reply.status != 429:
        return None
    said = reply.json if isinstance(reply.json, dict) else {}
    policy = str(said.get("policyName") or "")
    wait = _WAITS.get(policy, SECOND)
    return refused(
        THROTTLED, f"429: {policy or 'too often'}", retry_at=retry_after(reply.headers, reply.now) or reply.now + wait
    )


def _filter(name: str, operator: str, value: object) -> dict[str, str]:
    return {"propertyName": name, "operator": operator, "value": str(value)}
