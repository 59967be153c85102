"""Salesforce's Bulk 2 jobs: a query whose results are fetched by locators, and an upload of many rows.

A job is begun, watched and fetched in calls of their own, so that whoever was interrupted goes on with the same job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from kiki.engage.crm.connection import Connection
from kiki.engage.crm.salesforce_text import bulk_outcomes, csv_rows, csv_text
from kiki.engage.moment import parse_moment
from kiki.errors import SourceUnavailable
from kiki.outbound.exchange import INVALID, Reply, Request
from kiki.outbound.outcome import Outcome, done, refused, unknown

BULK_FROM: Final = 2_000
"""From so many rows on, one job costs less of the day's calls than collections do."""
JOB_ROWS_MAX: Final = 50_000
RESULTS: Final = 2_000
"""Rows of a query's results that are fetched at once."""
POLL_SECONDS_MIN: Final = 0.25
POLL_SECONDS_MAX: Final = 10.0

_ENDED: Final = frozenset({"Failed", "Aborted"})


class BulkJobs:
    """The jobs of one org."""

    def __init__(self, connection: Connection, data: str) -> None:
        """`data` is the path of the API's version."""
        self._connection = connection
        self._jobs = f"{data}/jobs"

    def begin_query(self, question: str) -> str:
        """The id of a new query job, deleted rows included."""
        body = {"operation": "queryAll", "query": question}
        # Asked for as a read: a second job, begun because nobody heard of the first, harms nobody.
        reply = self._connection.ask(Request(method="POST", path=f"{self._jobs}/query", write=False, json=body))
        return _text(reply, "id")

    def finished_query(self, job: str) -> int | None:
        """When the job was begun, once it is complete; None: it failed or is forgotten."""
        path, wait = f"{self._jobs}/query/{job}", POLL_SECONDS_MIN
        while True:
            answer = self._connection.tell(Request(method="GET", path=path, write=False))
            if isinstance(answer, Outcome):
                if answer.code == "not_found":
                    return None
                raise self._connection.failure(answer)
            state = _text(answer, "state")
            if state == "JobComplete":
                return parse_moment(_text(answer, "createdDate"))
            if state in _ENDED:
                return None
            self._connection.sleep(wait)
            wait = min(2 * wait, POLL_SECONDS_MAX)

    def results(self, job: str, locator: str) -> tuple[list[dict[str, Any]], str]:
        """Rows of a query's results, and the locator of the next ones; empty when these were the last."""
        params = {"maxRecords": str(RESULTS)} | ({"locator": locator} if locator else {})
        path = f"{self._jobs}/query/{job}/results"
        reply = self._connection.ask(Request(method="GET", path=path, write=False, params=params))
        following = reply.headers.get("sforce-locator", "")
        # The text "null" is how Salesforce says that there is none.
        return [dict(row) for row in csv_rows(reply.content)], "" if following == "null" else following

    def write(self, rows: Mapping[str, Mapping[str, str]], key: str, *, upsert: bool) -> dict[str, Outcome]:
        """The outcome of each row; `key` is the column that names it."""
        outcomes: dict[str, Outcome] = {}
        remaining = iter(rows.items())
        while batch := dict(islice(remaining, JOB_ROWS_MAX)):
            outcomes |= self._write(batch, key, upsert=upsert)
        return outcomes

    def _write(self, rows: Mapping[str, Mapping[str, str]], key: str, *, upsert: bool) -> dict[str, Outcome]:
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        body: dict[str, Any] = {
            "object": "Contact",
            "operation": "upsert" if upsert else "update",
            "contentType": "CSV",
            "lineEnding": "LF",
        }
        if upsert:
            body["externalIdFieldName"] = key
        made = self._tell("POST", "ingest", json=body)
        if isinstance(made, Outcome):
            return dict.fromkeys(rows, made)
        job = f"ingest/{_text(made, 'id')}"
        content = csv_text(rows.values(), columns)
        loaded = self._tell("PUT", f"{job}/batches", content=content)
        if isinstance(loaded, Outcome):
            return dict.fromkeys(rows, loaded)
        begun = self._tell("PATCH", job, json={"state": "UploadComplete"})
        if isinstance(begun, Outcome):
            return dict.fromkeys(rows, begun)
        return self._outcomes(rows, job, key)

    def _outcomes(self, rows: Mapping[str, Mapping[str, str]], job: str, key: str) -> dict[str, Outcome]:
        wait = POLL_SECONDS_MIN
        while True:
            state = self._tell("GET", job)
            if isinstance(state, Outcome):
                return dict.fromkeys(rows, unknown(state.code, f"the job could not be watched: {state.message}"))
            word = _text(state, "state")
            if word == "JobComplete" or word in _ENDED:
                break
            self._connection.sleep(wait)
            wait = min(2 * wait, POLL_SECONDS_MAX)
        found: dict[str, Outcome] = {}
        for part in ("successfulResults", "failedResults", "unprocessedrecords"):
            answer = self._tell("GET", f"{job}/{part}")
            if isinstance(answer, Outcome):
                return dict.fromkeys(rows, unknown(answer.code, f"the results could not be read: {answer.message}"))
            found |= {_short(name, key): outcome for name, outcome in self._told(part, csv_rows(answer.content), key)}
        missing = unknown("no_result", f"salesforce: the job ended as {word} without a word about this row")
        return {customer: found.get(_short(customer, key), missing) for customer in rows}

    @staticmethod
    def _told(part: str, rows: list[dict[str, str]], key: str) -> Iterator[tuple[str, Outcome]]:
        if part == "failedResults":
            yield from bulk_outcomes(rows, key)
        for row in rows:
            if part == "successfulResults":
                yield row.get(key, ""), done()
            elif part == "unprocessedrecords":
                yield row.get(key, ""), refused(INVALID, "salesforce: not processed")

    def _tell(self, method: str, path: str, *, json: Any = None, content: bytes | None = None) -> Reply | Outcome:
        headers = {} if content is None else {"Content-Type": "text/csv; charset=UTF-8"}
        write = method != "GET"
        return self._connection.tell(
            Request(
                method=method, path=f"{self._jobs}/{path}", write=write, json=json, content=content, headers=headers
            )
        )


def _short(name: str, key: str) -> str:
    """Salesforce's own ids are written with 15 or with 18 characters, which are the same id."""
    return name[:15] if key == "Id" else name


def _text(reply: Reply, name: str) -> str:
    said = reply.json
    value = said.get(name) if isinstance(said, dict) else None
    if not isinstance(value, str) or not value:
        raise SourceUnavailable(f"salesforce: a job without {name}")
    return value
