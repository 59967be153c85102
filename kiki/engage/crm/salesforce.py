"""Contacts of a Salesforce org, by its REST, composite and Bulk 2 APIs.

The first reading is a bulk query; then only what changed is read, in the order of `SystemModstamp` and `Id`, so that it
goes on after any page. Deleted contacts are told as gone. Fields are written back by collections of 200, whose status is
200 whatever became of each row, or by a bulk job; repeating either changes nothing. Opportunities that are won are orders of
their primary contact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

import msgspec

from kiki.clock import Clock, wall_micros
from kiki.engage.crm.connection import Connection
from kiki.engage.crm.field_map import profile_of
from kiki.engage.crm.mark import HORIZON, dump_cursor, parse_cursor
from kiki.engage.crm.salesforce_bulk import BULK_FROM, BulkJobs
from kiki.engage.crm.salesforce_text import changed_at, escaped, field_name, flat, judge, row_outcome, soql
from kiki.engage.crm.won import won_order
from kiki.engage.event import Order
from kiki.engage.profile import Profile
from kiki.engage.source import Page
from kiki.errors import KikiError, SourceUnavailable
from kiki.outbound.exchange import UNAVAILABLE, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import Authorization
from kiki.outbound.outcome import Outcome, done, refused

VERSION: Final = "66.0"
COLLECTION: Final = 200
LOCK_WAITS: Final = (0.5, 2.0)
"""Seconds before a row that somebody else had locked is tried again."""

FIELDS: Final[Mapping[str, str]] = {
    "email": "Email",
    "phone": "MobilePhone",
    "first_name": "FirstName",
    "last_name": "LastName",
    "email_opt_out": "HasOptedOutOfEmail",
}
"""What every org has; the rest is told by `SALESFORCE_FIELDS`."""
DEAL_COLUMNS: Final = ("Id", "SystemModstamp", "Amount", "CloseDate")
DEALS_ADVICE: Final = "let the user read Opportunity and its contact roles, or set KIKI_ENGAGE_DEALS=false"


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """The last contact that was told."""

    at: int = -1
    key: str = ""


class _Cursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    contacts: _Place = _Place()
    job: str = ""
    """The bulk query that is being read, and where in its results."""
    locator: str = ""
    deals: _Place = _Place()


class SalesforceSource:
    """See `Source`."""

    name: Final = "salesforce"

    def __init__(
        self,
        instance_url: str,
        authorization: Authorization,
        *,
        fields: Mapping[str, str] | None = None,
        external_id: str = "",
        deals: bool = True,
        version: str = VERSION,
        bulk: bool = True,
        clock: Clock = wall_micros,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`external_id` is the unique field that holds the customers' ids; without it, Salesforce's own ids are theirs."""
        self._fields = {**FIELDS, **(fields or {})}
        self._external_id = external_id
        self._data = f"services/data/v{version}"
        self._bulk = bulk
        self._deals = deals
        self._clock = clock
        self._connection = Connection(
            self.name,
            lambda: Line(instance_url, authorization=authorization, judge=judge, clock=clock),
            credential="SALESFORCE_ACCESS_TOKEN",
            clock=clock,
            sleep=sleep,
        )
        self._jobs = BulkJobs(self._connection, self._data)

    def changes(self, since: str) -> Iterator[Page]:
        """See `Source`."""
        cursor = parse_cursor(since, _Cursor, self.name)
        if self._bulk and (cursor.job or cursor.contacts.at < 0):
            yield from self._whole(cursor)
        yield from self._recent(cursor)
        if self._deals:
            yield from self._won(cursor)

    def upsert(self, updates: Mapping[str, Mapping[str, str]]) -> Mapping[str, Outcome]:
        """See `Source`. `kiki_churn` is written to `kiki_churn__c`."""
        rows = {
            customer: {self._key: customer} | {field_name(name): value for name, value in fields.items()}
            for customer, fields in updates.items()
        }
        if len(rows) >= BULK_FROM:
            return self._jobs.write(rows, self._key, upsert=bool(self._external_id))
        outcomes: dict[str, Outcome] = {}
        remaining = iter(rows.items())
        while batch := dict(islice(remaining, COLLECTION)):
            outcomes |= self._collection(batch)
        return outcomes

    def tag(self, customer: str, tags: Collection[str]) -> Outcome:
        """See `Source`. Tags are topics of the contact; one that it has already is not added again."""
        record = self._record(customer)
        if isinstance(record, Outcome):
            return record
        for tag in sorted(set(tags)):
            path = f"{self._data}/connect/records/{quote(record, safe='')}/topics"
            reply = self._connection.tell(Request(method="POST", path=path, write=True, json={"topicName": tag}))
            if isinstance(reply, Outcome):
                return reply
        return done()

    def check(self) -> tuple[str, ...]:
        """See `Source`."""
        try:
            path = f"{self._data}/sobjects/Contact/describe"
            said = self._connection.ask(Request(method="GET", path=path, write=False)).json
        except KikiError as error:
            return (f"{error}" + (f" ({error.hint})" if error.hint else ""),)
        known = {one.get("name"): one for one in said.get("fields") or ()} if isinstance(said, dict) else {}
        problems = [
            f"Contact has no field {name}" for name in self._fields.values() if "." not in name and name not in known
        ]
        if self._external_id and not (known.get(self._external_id) or {}).get("externalId"):
            problems.append(f"{self._external_id} is no external id of Contact")
        try:
            if self._deals:
                self._has_currencies()
        except KikiError as error:
            problems.append(f"opportunities cannot be read ({error}): {DEALS_ADVICE}")
        return tuple(problems)

    def close(self) -> None:
        """Give connections free."""
        self._connection.close()

    @property
    def _key(self) -> str:
        return self._external_id or "Id"

    @property
    def _columns(self) -> list[str]:
        own = ["Id", "SystemModstamp", "IsDeleted", *([self._external_id] if self._external_id else [])]
        return list(dict.fromkeys([*own, *self._fields.values()]))

    def _recent(self, cursor: _Cursor) -> Iterator[Page]:
        place, until = cursor.contacts, self._clock() - HORIZON
        for rows in self._asked("queryAll", soql(self._columns, until=until, at=place.at, key=place.key)):
            cursor.contacts = _Place(changed_at(rows[-1]), str(rows[-1].get("Id")))
            yield self._page([flat(row) for row in rows], cursor)

    def _won(self, cursor: _Cursor) -> Iterator[Page]:
        columns = [*DEAL_COLUMNS, *(["CurrencyIsoCode"] if self._has_currencies() else []), self._contact_of_deal]
        place, until = cursor.deals, self._clock() - HORIZON
        question = soql(columns, until=until, at=place.at, key=place.key, table="Opportunity", only="IsWon = true")
        for rows in self._asked("query", question):
            problems: list[str] = []
            records: list[Order] = []
            for row in rows:
                customer = self._buyer(row)
                if customer:
                    told = {
                        "amount": row.get("Amount"),
                        "at": row.get("CloseDate"),
                        "currency": row.get("CurrencyIsoCode"),
                    }
                    records += won_order(self.name, str(row.get("Id")), customer, **told, problems=problems)
            cursor.deals = _Place(changed_at(rows[-1]), str(rows[-1].get("Id")))
            yield Page(tuple(records), dump_cursor(cursor), problems=tuple(problems))

    @property
    def _contact_of_deal(self) -> str:
        key = f"Contact.{self._external_id}" if self._external_id else "ContactId"
        return f"(SELECT {key} FROM OpportunityContactRoles WHERE IsPrimary = true LIMIT 1)"  # noqa: S608  # SOQL only reads; the name was checked

    def _buyer(self, row: Mapping[str, Any]) -> str:
        """The customer's id of the primary contact; empty when there is none, or it is no customer yet."""
        roles = (row.get("OpportunityContactRoles") or {}).get("records") or [{}]
        role = flat(roles[0])
        return str(role.get(f"Contact.{self._external_id}" if self._external_id else "ContactId") or "")

    def _has_currencies(self) -> bool:
        """Whether an opportunity has a currency of its own; raises when opportunities may not be read."""
        path = f"{self._data}/sobjects/Opportunity/describe"
        try:
            said = self._connection.ask(Request(method="GET", path=path, write=False)).json
        except SourceUnavailable as error:
            hint = DEALS_ADVICE if "403" in str(error) or "404" in str(error) else error.hint
            raise SourceUnavailable(f"opportunities: {error}", retry_after=error.retry_after, hint=hint) from None
        fields = said.get("fields") or () if isinstance(said, dict) else ()
        return any(one.get("name") == "CurrencyIsoCode" for one in fields)

    def _asked(self, verb: str, question: str) -> Iterator[list[dict[str, Any]]]:
        """The rows that a question finds, by pages that hold at least one."""
        request = Request(method="GET", path=f"{self._data}/{verb}", write=False, params={"q": question})
        while True:
            page = self._connection.ask(request).json
            rows = page.get("records") if isinstance(page, dict) else None
            if not isinstance(rows, list):
                raise SourceUnavailable("salesforce: an answer without records")
            if rows:
                yield rows
            if page.get("done") is not False:
                return
            following = str(page.get("nextRecordsUrl"))
            # Another host's address would be shown the token.
            if not following.startswith("/services/data/"):
                raise SourceUnavailable("salesforce: the next page lies elsewhere")
            request = Request(method="GET", path=following, write=False)

    def _whole(self, cursor: _Cursor) -> Iterator[Page]:
        if not cursor.job:
            question = soql(self._columns, until=self._clock() - HORIZON, ordered=False)
            cursor.job = self._jobs.begin_query(question)
            # Known before it is waited for: whoever goes on after a crash begins no second one.
            yield Page((), dump_cursor(cursor))
        began = self._jobs.finished_query(cursor.job)
        if began is None:
            # It failed or was forgotten: what it told so far stands, and everything is read page by page.
            cursor.job, cursor.locator = "", ""
            return
        while True:
            rows, locator = self._jobs.results(cursor.job, cursor.locator)
            cursor.locator = locator
            if not locator:
                cursor.job, cursor.contacts = "", _Place(began - HORIZON)
            yield self._page(rows, cursor)
            if not locator:
                return

    def _page(self, rows: list[dict[str, Any]], cursor: _Cursor) -> Page:
        records: list[Profile] = []
        gone: list[str] = []
        problems: list[str] = []
        for row in rows:
            customer = row.get(self._key)
            if not customer:
                continue  # who has no id of the shop's is no customer yet
            if row.get("IsDeleted") in {True, "true"}:
                gone.append(customer)
            else:
                records.append(profile_of(customer, changed_at(row), row, self._fields, problems))
        return Page(tuple(records), dump_cursor(cursor), tuple(gone), tuple(problems))

    def _collection(self, batch: Mapping[str, Mapping[str, str]]) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        left = dict(batch)
        for wait in (*LOCK_WAITS, None):
            outcomes |= self._collection_once(left)
            left = {customer: left[customer] for customer in left if outcomes[customer].code == UNAVAILABLE}
            if not left or wait is None:
                break
            self._connection.sleep(wait)
        return outcomes

    def _collection_once(self, batch: Mapping[str, Mapping[str, str]]) -> dict[str, Outcome]:
        path = f"{self._data}/composite/sobjects" + (f"/Contact/{self._external_id}" if self._external_id else "")
        records = [{"attributes": {"type": "Contact"}, **row} for row in batch.values()]
        body = {"allOrNone": False, "records": records}
        reply = self._connection.tell(Request(method="PATCH", path=path, write=True, json=body))
        if isinstance(reply, Outcome):
            return dict.fromkeys(batch, reply)
        results = reply.json
        if not isinstance(results, list) or len(results) != len(batch):
            return dict.fromkeys(batch, reply.nonsense("not a result for each row"))
        return {customer: row_outcome(result) for customer, result in zip(batch, results, strict=True)}

    def _record(self, customer: str) -> str | Outcome:
        """Salesforce's own id of the customer."""
        if not self._external_id:
            return customer
        question = f"SELECT Id FROM Contact WHERE {self._external_id} = '{escaped(customer)}' LIMIT 2"  # noqa: S608  # SOQL only reads; the name was checked
        request = Request(method="GET", path=f"{self._data}/query", write=False, params={"q": question})
        reply: Reply | Outcome = self._connection.tell(request)
        if isinstance(reply, Outcome):
            return reply
        found = reply.json.get("records") if isinstance(reply.json, dict) else None
        if not isinstance(found, list) or len(found) != 1:
            return refused("not_found", "salesforce: no contact, or more than one, has that external id")
        return str(found[0].get("Id"))
