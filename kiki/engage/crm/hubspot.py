"""Contacts of a HubSpot portal, by its CRM search and batch APIs.

A search ends at 10,000 results and knows one order, so no page is asked for twice and none by its number: each search
begins at the last moment that was read. Contacts that share one millisecond (an import) are read by their ids.
The index lags behind writes; what is younger than the horizon waits. Orders are not read: a contact's totals are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.engage.crm.connection import Connection
from kiki.engage.crm.field_map import profile_of
from kiki.engage.crm.mark import HORIZON, Mark, dump_cursor, parse_cursor
from kiki.engage.moment import parse_moment
from kiki.engage.source import Page, Record
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

_WAITS: Final = {"SECONDLY": SECOND, "TEN_SECONDLY_ROLLING": 10 * SECOND, "DAILY": 3600 * SECOND}


class _Cursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    contacts: Mark = Mark()
    crowd: str = ""
    """The last id that was read of a moment with more contacts than a page."""


class _Contact(msgspec.Struct):
    id: str
    properties: dict[str, str | None]


class _Found(msgspec.Struct):
    results: list[_Contact]


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
        self._path = "crm/v3/objects/contacts" if version == "v3" else f"crm/objects/{version}/contacts"
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
        while True:
            crowded = bool(cursor.crowd)
            contacts = self._crowd(cursor) if crowded else self._search(cursor.contacts, until)
            full = len(contacts) == PAGE
            if full and not crowded and _changed_at(contacts[0]) == _changed_at(contacts[-1]):
                # A search cannot get past so many of one moment: they are read by their ids instead.
                at = _changed_at(contacts[0])
                cursor.crowd = "0"
                cursor.contacts = cursor.contacts if cursor.contacts.at == at else Mark(at)
                continue
            records: list[Record] = []
            problems: list[str] = []
            for contact in contacts:
                changed = _changed_at(contact)
                if cursor.contacts.is_new(changed, contact.id):
                    records += self._records(contact, changed, problems)
                    if not crowded:
                        cursor.contacts = cursor.contacts.moved(changed, contact.id, most=PAGE)
            if crowded and full:
                cursor.crowd = contacts[-1].id
            elif crowded:
                # The whole moment was read: the next search begins behind it.
                cursor.crowd, cursor.contacts = "", Mark(cursor.contacts.at + MILLISECOND)
            if records:
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
            self._search(Mark(), self._clock(), limit=1)
            names = self._properties()
        except KikiError as error:
            return (f"{error}" + (f" ({error.hint})" if error.hint else ""),)
        wanted = [*self._fields.values(), *([self._id_property] if self._id_property else [])]
        return tuple(f"property {name} does not exist" for name in dict.fromkeys(wanted) if name not in names)

    def close(self) -> None:
        """Give connections free."""
        self._connection.close()

    def _search(self, mark: Mark, until: int, *, limit: int = PAGE) -> list[_Contact]:
        """The contacts that changed from the mark on, the oldest change first."""
        filters = [_filter(CHANGED, "LTE", until // 1_000)]
        if not mark.is_start:
            filters.append(_filter(CHANGED, "GTE", mark.at // 1_000))
        return self._found(filters, CHANGED, limit)

    def _crowd(self, cursor: _Cursor) -> list[_Contact]:
        """The contacts of one moment, by their ids."""
        at = cursor.contacts.at // 1_000
        filters = [_filter(CHANGED, "EQ", at), _filter("hs_object_id", "GT", cursor.crowd)]
        return self._found(filters, "hs_object_id", PAGE)

    def _found(self, filters: list[dict[str, str]], order: str, limit: int) -> list[_Contact]:
        body = {
            "filterGroups": [{"filters": filters}],
            "sorts": [{"propertyName": order, "direction": "ASCENDING"}],
            "properties": sorted({CHANGED, *self._fields.values(), *filter(None, (self._id_property,))}),
            "limit": limit,
        }
        reply = self._connection.ask(Request(method="POST", path=f"{self._path}/search", write=False, json=body))
        found = reply.read(_Found)
        if isinstance(found, Outcome):
            raise self._connection.failure(found)
        return found.results

    def _properties(self) -> set[str]:
        reply = self._connection.ask(Request(method="GET", path="crm/v3/properties/contacts", write=False))
        results = reply.json.get("results") if isinstance(reply.json, dict) else None
        if not isinstance(results, list):
            raise SourceUnavailable("hubspot: its properties cannot be read")
        return {str(one.get("name")) for one in results}

    def _records(self, contact: _Contact, changed: int, problems: list[str]) -> Sequence[Record]:
        customer = contact.properties.get(self._id_property) if self._id_property else contact.id
        # Who has no id of the shop's is no customer yet.
        if not customer:
            return ()
        return (profile_of(customer, changed, contact.properties, self._fields, problems),)

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


def _changed_at(contact: _Contact) -> int:
    return parse_moment(contact.properties.get(CHANGED) or "")


def _filter(name: str, operator: str, value: object) -> dict[str, str]:
    return {"propertyName": name, "operator": operator, "value": str(value)}
