"""HubSpot's contacts: search with its walls, batches, and properties, as its documents and its kit have them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from tests.engage.fakes.service import Answer, Call, FakeService

TOKEN = "pat-token"
WALL = 10_000
STANDARD = (
    *("email", "phone", "firstname", "lastname", "hs_language", "hs_timezone", "hs_country_region_code"),
    *("lifecyclestage", "hs_email_optout", "total_revenue", "num_associated_deals", "recent_deal_close_date"),
    *("hs_email_last_click_date", "lastmodifieddate", "hs_object_id", "createdate", "kiki_tags", "kiki_churn"),
)


class FakeHubSpot(FakeService):
    def __init__(self, *, version: str = "v3") -> None:
        super().__init__()
        self.contacts: dict[str, dict[str, str]] = {}
        self.deals: dict[str, dict[str, str]] = {}
        self.ties: dict[str, list[int]] = {}
        self.may_read_deals = True
        self.properties = set(STANDARD)
        self.unique = {"email"}
        self.token = TOKEN
        objects = "/crm/v3/objects" if version == "v3" else f"/crm/objects/{version}"
        self.base, self.deals_base = f"{objects}/contacts", f"{objects}/deals"
        ties = "/crm/v4/associations" if version == "v3" else f"/crm/associations/{version}"
        self.ties_read = f"{ties}/deals/contacts/batch/read"

    def contact(self, number: int, changed_at: int, **properties: str) -> dict[str, str]:
        """`changed_at` in milliseconds."""
        self.contacts[str(number)] = {
            "hs_object_id": str(number),
            "email": f"c{number}@example.com",
            "lastmodifieddate": str(changed_at),
        } | properties
        return self.contacts[str(number)]

    def deal(self, number: int, changed_at: int, *contacts: int, **properties: str) -> dict[str, str]:
        """A deal that is won."""
        self.deals[str(number)] = {
            "hs_object_id": str(number),
            "amount": "100.50",
            "closedate": "1789000000000",
            "hs_is_closed_won": "true",
            "hs_lastmodifieddate": str(changed_at),
        } | properties
        self.ties[str(number)] = list(contacts)
        return self.deals[str(number)]

    def handle(self, call: Call) -> Answer:
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired.")
        if (call.method, call.path) == ("GET", "/crm/v3/properties/contacts"):
            return Answer(200, {"results": [{"name": name} for name in sorted(self.properties)]})
        if call.method == "POST" and call.path == f"{self.base}/search":
            return self._search(call.json, self.contacts)
        if call.method == "POST" and call.path in {f"{self.deals_base}/search", self.ties_read}:
            if not self.may_read_deals:
                return _error(403, "MISSING_SCOPES", "This app hasn't been granted all required scopes")
            return self._search(call.json, self.deals) if call.path.endswith("search") else self._tied(call.json)
        if (call.method, call.path) == ("POST", f"{self.base}/batch/read"):
            return self._read(call.json)
        if call.method == "POST" and call.path in {f"{self.base}/batch/update", f"{self.base}/batch/upsert"}:
            return self._batch(call.json["inputs"], creates=call.path.endswith("upsert"))
        return _error(404, "OBJECT_NOT_FOUND", "Unable to find path")

    def _tied(self, asked: dict[str, Any]) -> Answer:
        """The contacts of deals; those that have none are told as errors beside the others."""
        names = [one["id"] for one in asked["inputs"]]
        kinds = [{"category": "HUBSPOT_DEFINED", "typeId": 3, "label": None}]
        results = [
            {"from": {"id": name}, "to": [{"toObjectId": one, "associationTypes": kinds} for one in self.ties[name]]}
            for name in names
            if self.ties.get(name)
        ]
        answer: dict[str, Any] = {
            "status": "COMPLETE",
            "results": results,
            "startedAt": "2026-01-01T00:00:00.000Z",
            "completedAt": "2026-01-01T00:00:00.000Z",
        }
        lonely = [name for name in names if not self.ties.get(name)]
        if lonely:
            error = {"status": "error", "category": "OBJECT_NOT_FOUND", "subCategory": "NO_ASSOCIATIONS_FOUND"}
            error |= {
                "message": "No contact is associated",
                "context": {"fromObjectId": lonely},
                "errors": [],
                "links": {},
            }
            answer |= {"numErrors": 1, "errors": [error]}
        return Answer(207 if lonely else 200, answer)

    def _read(self, asked: dict[str, Any]) -> Answer:
        if len(asked["inputs"]) > 100:
            return _error(400, "VALIDATION_ERROR", "at most 100 inputs")
        found = [self.contacts[one["id"]] for one in asked["inputs"] if one["id"] in self.contacts]
        shown = [
            {"id": one["hs_object_id"], "properties": {name: one.get(name) for name in asked["properties"]}}
            for one in found
        ]
        return Answer(200, {"status": "COMPLETE", "results": shown})

    def _search(self, asked: dict[str, Any], held: dict[str, dict[str, str]]) -> Answer:
        limit, after = asked.get("limit", 10), int(asked.get("after") or 0)
        if limit > 200 or after + limit > WALL:
            return _error(400, "VALIDATION_ERROR", "limit at most 200, paging at most 10,000")
        if len(asked.get("sorts") or []) > 1:
            return _error(400, "VALIDATION_ERROR", "at most one sort")
        groups = [group["filters"] for group in asked.get("filterGroups") or []]
        found = [
            one
            for one in held.values()
            if not groups or any(all(_holds(one, each) for each in group) for group in groups)
        ]
        for sort in asked.get("sorts") or []:
            found.sort(key=lambda one: int(one[sort["propertyName"]]), reverse=sort["direction"] == "DESCENDING")
        shown = found[after : after + limit]
        wanted = {"hs_object_id", "createdate", *(asked.get("properties") or [])}
        wanted.add("lastmodifieddate" if held is self.contacts else "hs_lastmodifieddate")
        answer: dict[str, Any] = {
            "total": len(found),
            "results": [
                {
                    "id": one["hs_object_id"],
                    "properties": {name: _shown(name, one.get(name)) for name in wanted},
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "updatedAt": _iso(one.get("lastmodifieddate") or one["hs_lastmodifieddate"]),
                    "archived": False,
                }
                for one in shown
            ],
        }
        if found[after + limit :]:
            answer["paging"] = {"next": {"after": str(after + limit)}}
        return Answer(200, answer)

    def _batch(self, inputs: list[dict[str, Any]], *, creates: bool) -> Answer:
        if not 1 <= len(inputs) <= 100:
            return _error(400, "VALIDATION_ERROR", "at most 100 inputs")
        keys = [(one.get("idProperty"), one["id"]) for one in inputs]
        if len(set(keys)) < len(keys):
            return _error(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input")
        unknown = {name for one in inputs for name in one["properties"]} - self.properties
        if unknown:
            return _error(
                400, "VALIDATION_ERROR", f'Property values were not valid: Property "{min(unknown)}" does not exist'
            )
        results, missing = [], []
        for one in inputs:
            found, new = self._named(one), False
            if found is None and creates and one.get("idProperty") in self.unique:
                number = 900_000 + len(self.contacts)
                found, new = self.contact(number, 0, **{one["idProperty"]: one["id"]}), True
            if found is None:
                missing.append(one["id"])
                continue
            for name, value in one["properties"].items():
                added = [part for part in value.split(";") if part] if value.startswith(";") else None
                if added is None:
                    found[name] = value
                else:
                    found[name] = ";".join(sorted({*filter(None, found.get(name, "").split(";")), *added}))
            result = {"id": found["hs_object_id"], "properties": dict(found), "archived": False}
            moments = {"createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-01T00:00:00.000Z"}
            results.append(result | moments | ({"new": new} if creates else {}))
        answer: dict[str, Any] = {
            "status": "COMPLETE",
            "results": results,
            "startedAt": "2026-01-01T00:00:00.000Z",
            "completedAt": "2026-01-01T00:00:00.000Z",
        }
        if missing:
            error = {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some contacts",
                "context": {"ids": missing},
                "errors": [],
                "links": {},
            }
            answer |= {"numErrors": 1, "errors": [error]}
        return Answer(207 if missing else 200, answer)

    def _named(self, one: dict[str, Any]) -> dict[str, str] | None:
        name = one.get("idProperty")
        if not name:
            return self.contacts.get(one["id"])
        return next((each for each in self.contacts.values() if each.get(name) == one["id"]), None)


def throttled(policy: str) -> Answer:
    return Answer(
        429,
        {"status": "error", "message": "You have reached your limit.", "errorType": "RATE_LIMIT", "policyName": policy},
    )


def _error(status: int, category: str, message: str) -> Answer:
    return Answer(status, {"status": "error", "category": category, "message": message, "correlationId": "c"})


def _iso(millis: str) -> str:
    moment = datetime.fromtimestamp(int(millis) // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(millis) % 1000:03d}Z"


def _shown(name: str, value: str | None) -> str | None:
    return _iso(value) if value and name.endswith("date") and re.fullmatch("[0-9]+", value) else value


def _holds(one: dict[str, str], asked: dict[str, Any]) -> bool:
    if asked["propertyName"] == "hs_is_closed_won":
        return one["hs_is_closed_won"] == asked["value"]
    held, wanted = int(one[asked["propertyName"]]), int(asked["value"])
    return {"GTE": held >= wanted, "LTE": held <= wanted, "EQ": held == wanted, "GT": held > wanted}[asked["operator"]]
