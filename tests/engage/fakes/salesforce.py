"""Salesforce's contacts: SOQL by pages, collections, Bulk 2 jobs, topics and tokens, as its documents and a kit have them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.engage.fakes.service import Answer, Call, FakeService

TOKEN = "00Dsession"
DATA = re.compile(r"/services/data/v[0-9]+\.[0-9]/(.*)")
CUSTOM = ("kiki_churn__c", "kiki_segment__c", "Shop_Id__c", "LTV__c")
STANDARD = (
    "Id",
    "Email",
    "MobilePhone",
    "FirstName",
    "LastName",
    "HasOptedOutOfEmail",
    "SystemModstamp",
    "IsDeleted",
    "Account",
)


class FakeSalesforce(FakeService):
    def __init__(self, *, page: int = 2_000) -> None:
        super().__init__()
        self.contacts: dict[str, dict[str, Any]] = {}
        self.deals: dict[str, dict[str, Any]] = {}
        self.deal_fields = ["Id", "Amount", "CloseDate", "IsWon", "IsDeleted", "SystemModstamp"]
        self.topics: list[tuple[str, str]] = []
        self.token = TOKEN
        self.tokens_given = 0
        self.page = page
        self.locators: dict[str, tuple[list[dict[str, Any]], int]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.row_errors: dict[str, list[str]] = {}
        """By the value of the key: what is answered to the next attempts on that row."""
        self.polls_until_done = 1

    def contact(self, number: int, stamp: str = "2026-01-01T00:00:00.000+0000", **fields: Any) -> dict[str, Any]:
        key = f"003{number:012d}AAA"
        self.contacts[key] = {
            "Id": key,
            "Email": f"c{number}@example.com",
            "FirstName": None,
            "LastName": f"Last{number}",
            "MobilePhone": None,
            "HasOptedOutOfEmail": False,
            "SystemModstamp": stamp,
            "IsDeleted": False,
        } | fields
        return self.contacts[key]

    def deal(
        self, number: int, *contacts: int, stamp: str = "2026-01-01T00:00:00.000+0000", **fields: Any
    ) -> dict[str, Any]:
        """An opportunity that is won; the first of its contacts is the primary one."""
        key = f"006{number:012d}AAA"
        roles = [{"ContactId": f"003{one:012d}AAA", "IsPrimary": not place} for place, one in enumerate(contacts)]
        self.deals[key] = {
            "Id": key,
            "Amount": 100.5,
            "CloseDate": "2026-01-05",
            "IsWon": True,
            "IsDeleted": False,
            "SystemModstamp": stamp,
            "roles": roles,
        } | fields
        return self.deals[key]

    def handle(self, call: Call) -> Answer:
        if call.path == "/services/oauth2/token":
            self.tokens_given += 1
            return Answer(200, {"access_token": self.token, "instance_url": self.url, "token_type": "Bearer"})
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "INVALID_SESSION_ID", "Session expired or invalid")
        found = DATA.fullmatch(call.path)
        rest = found[1].rstrip("/") if found else ""
        for pattern, method, answer in self._routes():
            if method == call.method and (named := re.fullmatch(pattern, rest)):
                return answer(call, *named.groups())
        return _error(404, "NOT_FOUND", "The requested resource does not exist")

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        return [
            (r"(query|queryAll)", "GET", self._query),
            (r"query(?:All)?/(01g[0-9]+-[0-9]+)", "GET", self._more),
            (r"composite/sobjects", "PATCH", self._collection),
            (r"composite/sobjects/Contact/(\w+)", "PATCH", self._collection),
            (r"sobjects/(Contact|Opportunity)/describe", "GET", self._describe),
            (r"connect/records/(\w+)/topics", "POST", self._topic),
            (r"jobs/(query|ingest)", "POST", self._begin),
            (r"jobs/(?:query|ingest)/(\w+)", "GET", self._state),
            (r"jobs/query/(\w+)/results", "GET", self._results),
            (r"jobs/ingest/(\w+)/batches", "PUT", self._load),
            (r"jobs/ingest/(\w+)", "PATCH", self._close),
            (r"jobs/ingest/(\w+)/(successfulResults|failedResults|unprocessedrecords)", "GET", self._ingested),
        ]

    # SOQL

    def select_deals(self, soql: str) -> list[dict[str, Any]]:
        asked = re.fullmatch(
            r"SELECT (?P<columns>[\w, ]+), \(SELECT (?P<key>[\w.]+) FROM OpportunityContactRoles WHERE IsPrimary = true LIMIT 1\)"
            r" FROM Opportunity WHERE (?P<where>.* AND IsWon = true.*) ORDER BY SystemModstamp, Id",
            soql,
        )
        assert asked, f"no SOQL that the fake knows: {soql}"
        columns = [one.strip() for one in asked["columns"].split(",")]
        for unknown in set(columns) - set(self.deal_fields):
            raise LookupError(f"No such column '{unknown}' on entity 'Opportunity'")
        rows = [one for one in self.deals.values() if one["IsWon"] and not one["IsDeleted"]]
        rows = [one for one in rows if _holds(one, asked["where"].replace(" AND IsWon = true", ""))]
        rows.sort(key=lambda one: (_moment(one["SystemModstamp"]), one["Id"]))
        return [
            {"attributes": {"type": "Opportunity"}}
            | {name: one.get(name) for name in columns}
            | {"OpportunityContactRoles": self._roles(one["roles"], asked["key"])}
            for one in rows
        ]

    def _roles(self, roles: list[dict[str, Any]], key: str) -> dict[str, Any] | None:
        """A child relationship as Salesforce shows one; none at all when there are no children."""
        primary = [one["ContactId"] for one in roles if one["IsPrimary"]]
        if not primary:
            return None
        field = key.partition(".")[2]
        shown = {"Contact": {field: self.contacts[primary[0]].get(field)}} if field else {"ContactId": primary[0]}
        return {"totalSize": 1, "done": True, "records": [{"attributes": {"type": "OpportunityContactRole"}} | shown]}

    def select(self, soql: str, *, deleted: bool) -> list[dict[str, Any]]:
        asked = re.fullmatch(
            r"SELECT (?P<columns>[\w., ]+) FROM Contact(?: WHERE (?P<where>.*?))?(?: ORDER BY (?P<order>[\w, ]+))?(?: LIMIT (?P<limit>\d+))?",
            soql.strip(),
        )
        assert asked, f"no SOQL that the fake knows: {soql}"
        columns = [one.strip() for one in asked["columns"].split(",")]
        unknown = [one for one in columns if one.split(".")[0] not in (*STANDARD, *CUSTOM)]
        if unknown:
            raise LookupError(f"No such column '{unknown[0]}' on entity 'Contact'")
        rows = [one for one in self.contacts.values() if deleted or not one["IsDeleted"]]
        rows = [one for one in rows if _holds(one, asked["where"] or "")]
        if asked["order"]:
            rows.sort(key=lambda one: (_moment(one["SystemModstamp"]), one["Id"]))
        return [
            {"attributes": {"type": "Contact"}} | {name: one.get(name) for name in columns if "." not in name}
            for one in rows[: int(asked["limit"] or len(rows))]
        ]

    def _query(self, call: Call, verb: str) -> Answer:
        try:
            soql = call.query["q"]
            deals = " FROM Opportunity " in soql
            rows = self.select_deals(soql) if deals else self.select(soql, deleted=verb == "queryAll")
        except LookupError as error:
            return _error(400, "INVALID_FIELD", str(error))
        return self._rows(rows, 0, f"01g{len(self.locators)}")

    def _rows(self, rows: list[dict[str, Any]], begin: int, locator: str) -> Answer:
        end = begin + self.page
        answer = {"totalSize": len(rows), "done": end >= len(rows), "records": rows[begin:end]}
        if end < len(rows):
            self.locators[f"{locator}-{end}"] = (rows, end)
            answer["nextRecordsUrl"] = f"/services/data/v66.0/query/{locator}-{end}"
        return Answer(200, answer, {"Sforce-Limit-Info": "api-usage=17/15000"})

    def _more(self, call: Call, locator: str) -> Answer:
        if locator not in self.locators:
            return _error(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        rows, begin = self.locators[locator]
        return self._rows(rows, begin, locator.split("-", maxsplit=1)[0])

    # Writes

    def change(self, row: dict[str, Any], key: str, *, creates: bool) -> tuple[bool, str]:
        """Whether that worked, and the contact's id or the error."""
        name = row.get(key) or row.get("id") or row.get("Id") or ""
        if errors := self.row_errors.get(name):
            return False, errors.pop(0)
        found = next(
            (one for one in self.contacts.values() if one.get(key) == name or one["Id"][:15] == name[:15]), None
        )
        unknown = [one for one in row if one not in (*STANDARD, *CUSTOM, "attributes", "id")]
        if unknown:
            return False, "INVALID_FIELD"
        if found is None and not creates:
            return False, "ENTITY_IS_DELETED" if name in self.contacts else "NOT_FOUND"
        if found is None:
            found = self.contact(900_000 + len(self.contacts), **{key: name})
        found |= {one: value for one, value in row.items() if one not in {"attributes", "id", "Id"} and value != ""}
        return True, found["Id"]

    def _collection(self, call: Call, key: str = "Id") -> Answer:
        asked = call.json
        if len(asked["records"]) > 200:
            return _error(400, "EXCEEDED_MAX_RECORDS", "at most 200")
        results = []
        for row in asked["records"]:
            worked, said = self.change(row, key, creates=key != "Id")
            error = {"statusCode": said, "message": f"{said}: {row}", "fields": []}
            results.append(
                {"id": said, "success": True, "errors": []} if worked else {"success": False, "errors": [error]}
            )
        return Answer(200, results)

    def _describe(self, _call: Call, table: str) -> Answer:
        if table == "Opportunity":
            if not self.deal_fields:
                return _error(404, "NOT_FOUND", "The requested resource does not exist")
            return Answer(200, {"name": table, "fields": [{"name": name} for name in self.deal_fields]})
        names = [{"name": name, "externalId": name == "Shop_Id__c"} for name in (*STANDARD, *CUSTOM)]
        return Answer(200, {"name": "Contact", "fields": names})

    def _topic(self, call: Call, record: str) -> Answer:
        if record not in self.contacts:
            return _error(404, "NOT_FOUND", "no such record")
        topic = (record, call.json["topicName"])
        if topic not in self.topics:
            self.topics.append(topic)
        return Answer(201, {"id": f"0TO{len(self.topics)}", "name": topic[1]})

    # Bulk 2

    def _begin(self, call: Call, kind: str) -> Answer:
        asked = call.json
        job = {"id": f"750{len(self.jobs):03d}", "object": "Contact", "createdDate": "2026-06-01T00:00:00.000+0000"}
        job |= {"state": "UploadComplete" if kind == "query" else "Open", "polls": self.polls_until_done, **asked}
        if kind == "query":
            try:
                job["rows"] = self.select(asked["query"], deleted=asked["operation"] == "queryAll")
            except LookupError as error:
                return _error(400, "INVALIDJOB", str(error))
        self.jobs[job["id"]] = job
        return Answer(200, _told(job))

    def _state(self, _call: Call, name: str) -> Answer:
        job = self.jobs.get(name)
        if job is None:
            return _error(404, "NOT_FOUND", "no such job")
        if job["state"] == "UploadComplete":
            job["polls"] -= 1
            if job["polls"] < 0:
                job["state"] = "JobComplete"
        return Answer(200, _told(job))

    def _results(self, call: Call, name: str) -> Answer:
        rows, begin = self.jobs[name]["rows"], int(call.query.get("locator") or 0)
        end = begin + int(call.query["maxRecords"])
        shown = [{column: value for column, value in row.items() if column != "attributes"} for row in rows[begin:end]]
        shown = [{column: _written(value) for column, value in row.items()} for row in shown]
        headers = {"Content-Type": "text/csv", "Sforce-Locator": str(end) if end < len(rows) else "null"}
        return Answer(200, _csv(shown), headers | {"Sforce-NumberOfRecords": str(len(shown))})

    def _load(self, call: Call, name: str) -> Answer:
        self.jobs[name]["rows"] = list(csv.DictReader(io.StringIO(call.body.decode(), newline="")))
        return Answer(201, None)

    def _close(self, call: Call, name: str) -> Answer:
        job = self.jobs[name]
        job["state"] = call.json["state"]
        key, creates = job.get("externalIdFieldName", "Id"), job["operation"] == "upsert"
        job |= {"successfulResults": [], "failedResults": [], "unprocessedrecords": []}
        for row in job["rows"]:
            worked, said = self.change(row, key, creates=creates)
            part = "successfulResults" if worked else "failedResults"
            job[part].append(
                {"sf__Id": said if worked else "", **({} if worked else {"sf__Error": f"{said}:no:--"}), **row}
            )
        return Answer(200, _told(job))

    def _ingested(self, _call: Call, name: str, part: str) -> Answer:
        return Answer(200, _csv(self.jobs[name][part]), {"Content-Type": "text/csv"})


def _told(job: dict[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in job.items() if name not in {"rows", "polls"} and not isinstance(value, list)}
    told |= {
        "numberRecordsProcessed": len(job.get("rows", [])),
        "numberRecordsFailed": len(job.get("failedResults", [])),
    }
    return told | {"retries": 0, "totalProcessingTime": 1}


def _csv(rows: list[dict[str, str]]) -> bytes:
    if not rows:
        return b""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _written(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, [{"errorCode": code, "message": message}])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("+0000", "+00:00"))


def _holds(row: dict[str, Any], where: str) -> bool:
    """The conditions that are asked of it: moments, ids, and one external id."""
    if not where:
        return True
    if found := re.fullmatch(r"(\w+) = '((?:[^'\\]|\\.)*)'", where):
        return row.get(found[1]) == re.sub(r"\\(.)", r"\1", found[2])
    stamp = _moment(row["SystemModstamp"])
    until = re.match(r"SystemModstamp <= (\S+)", where)
    if until and stamp > _moment(until[1]):
        return False
    behind = re.search(r"\(SystemModstamp > (\S+) OR \(SystemModstamp = (\S+) AND Id > '(\w*)'\)\)", where)
    if not behind:
        return True
    return stamp > _moment(behind[1]) or (stamp == _moment(behind[2]) and row["Id"] > behind[3])
