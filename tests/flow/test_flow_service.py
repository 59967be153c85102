"""SyncFlow over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import schemathesis
from aiohttp import ClientSession
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from kiki.flow import service
from kiki.flow.openapi import openapi
from kiki.flow.pb import syncflow_pb2
from kiki.flow.plan_text import parse_plan
from kiki.flow.service import FlowService
from kiki.settings import FLOW_VARIABLES
from tests.flow.served_flow import PLAN, RunningFlow, served_flow
from tests.flow.test_value_upload import make_campaigns
from tests.shield.served import TOKENS, bearer

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))


async def test_a_plan_from_start_to_end():
    async with served_flow() as flow:
        preview = (await flow.post("/v1/campaigns:plan", {"plan": PLAN})).json
        assert ["create", "create"] == [change["step"] for change in preview["changes"]]
        begun = await flow.post("/v1/campaigns", {"plan": PLAN})
        run = begun.json["run"]
        assert (201, "running") == (begun.status, begun.json["state"])
        assert run == (await flow.post("/v1/campaigns", {"plan": PLAN})).json["run"]
        await asyncio.to_thread(flow.days.live_through, flow.runner, run)

        status = (await flow.get(f"/v1/runs/{run}")).json
        assert "completed" == status["state"]
        assert all({"2026-12-01", "2026-12-02"} <= {*lane["spent"]} for lane in status["lanes"])
        assert [run] == [each["run"] for each in (await flow.get("/v1/runs")).json["runs"]]
        assert ["spring"] == [each["plan"] for each in (await flow.get("/v1/campaigns")).json["campaigns"]]
        assert "spring" == (await flow.get(f"/v1/runs/{run}/plan")).json["name"]
        assert 0 == len((await flow.post(f"/v1/runs/{run}/reconcile", {"act": False})).json["findings"])
        assert 409 == (await flow.post(f"/v1/runs/{run}/pause")).status


async def test_the_story_in_pages_and_as_it_happens():
    async with served_flow() as flow:
        run = (await flow.post("/v1/campaigns", {"plan": PLAN})).json["run"]
        await flow.active(run)
        with flow.days.passing():
            stream = await flow.get(f"/v1/runs/{run}/events", headers={"Accept": "text/event-stream"})
        assert "text/event-stream" == stream.kind
        blocks = stream.text.split("\n\n")
        assert "event: end\ndata: {}" == blocks[-2]
        streamed = [json.loads(block.partition("data: ")[2]) for block in blocks[:-2] if block[0] != ":"]

        paged, after = [], 0
        while True:
            page = (await flow.get(f"/v1/runs/{run}/events?after={after}&limit=7")).json
            if not page["events"]:
                break
            paged, after = paged + page["events"], page["next"]
        assert streamed == paged
        assert "flow.lane_ended" == paged[-1]["event"]

        last = {"Accept": "text/event-stream", "Last-Event-ID": str(paged[-2]["number"])}
        rest = await flow.get(f"/v1/runs/{run}/events", headers=last)
        assert 1 == rest.text.count("event: flow.")
        steps = (await flow.get(f"/v1/runs/{run}/steps?limit=3")).json["steps"]
        assert "start" == steps[0]["step"]
        assert 3 == len(steps)


async def test_a_stream_ends_when_the_service_stops():
    begun = asyncio.Event()

    async def follow(session: ClientSession, url: str) -> str:
        async with session.get(url, headers={"Accept": "text/event-stream"}) as response:
            begun.set()
            return await response.text()

    async with ClientSession() as session:
        async with served_flow() as flow:  # the run itself does not end
            run = (await flow.post("/v1/campaigns", {"plan": PLAN})).json["run"]
            asked = asyncio.create_task(follow(session, f"{flow.url}/v1/runs/{run}/events"))
            await asyncio.wait_for(begun.wait(), 60)
        assert (await asyncio.wait_for(asked, 60)).endswith("event: end\ndata: {}\n\n")


async def test_people_pause_resume_cancel_and_approve():
    plan = PLAN.replace("currency: USD", "currency: USD\napproval_above: $250/day")
    async with served_flow() as flow:
        run = (await flow.post("/v1/campaigns", {"plan": plan})).json["run"]
        assert 2 == (await flow.post(f"/v1/runs/{run}/approvals")).json["campaigns"]
        await flow.active(run)
        assert 1 == (await flow.post(f"/v1/runs/{run}/pause", {"campaign": "search"})).json["campaigns"]
        await flow.until(lambda: not flow.runner.status(run).lanes[0].active)
        assert 200 == (await flow.post(f"/v1/runs/{run}/resume", {"campaign": "search"})).status
        assert 400 == (await flow.post(f"/v1/runs/{run}/pause", {"campaign": "nobody"})).status
        assert 2 == (await flow.post(f"/v1/runs/{run}/cancel", {})).json["campaigns"]
        await flow.settled(run)
        assert "cancelled" == (await flow.get(f"/v1/runs/{run}")).json["state"]


async def test_mistakes_are_named():
    async with served_flow() as flow:
        refused = await flow.post("/v1/campaigns", {"plan": PLAN.replace("budget:", "budgte:", 1)})
        assert (400, "plan_invalid") == (refused.status, refused.json["code"])
        assert "did you mean 'budget'?" in refused.json["problems"][0] + refused.json["problems"][1]
        assert 404 == (await flow.get("/v1/runs/nobody")).status
        assert 400 == (await flow.get("/v1/runs?x=1")).status
        assert 400 == (await flow.post("/v1/campaigns", {"plan": 3})).status
        run = (await flow.post("/v1/campaigns", {"plan": PLAN})).json["run"]
        changed = await flow.post("/v1/campaigns", {"plan": PLAN.replace("$100", "$120")})
        assert (409, "plan_changed") == (changed.status, changed.json["code"])
        assert 409 == (await flow.post(f"/v1/executors/{flow.runner.executor}/adopt")).status
        assert [] == (await flow.post("/v1/executors/somebody/adopt")).json["runs"]
        await flow.post(f"/v1/runs/{run}/cancel")


async def test_who_may_what():
    async with served_flow(tokens=TOKENS) as flow:
        assert 200 == (await flow.get("/health")).status
        assert 401 == (await flow.get("/v1/runs")).status
        assert 200 == (await flow.get("/v1/runs", headers=bearer("read"))).status
        for role, wanted in (("read", 403), ("admin", 403), ("spend", 201)):
            answer = await flow.post("/v1/campaigns", {"plan": PLAN}, headers=bearer(role))
            assert wanted == answer.status
        run = answer.json["run"]
        assert 403 == (await flow.post(f"/v1/runs/{run}/approvals", headers=bearer("spend"))).status
        assert 201 == (await flow.post(f"/v1/runs/{run}/approvals", headers=bearer("admin"))).status
        assert 200 == (await flow.post(f"/v1/runs/{run}/cancel", headers=bearer("spend"))).status
        await flow.until(lambda: any(told.detail.get("actor") == "spend-er" for told in flow.runner.events(run)))


async def test_values_are_uploaded_once():
    plan = parse_plan(PLAN)
    body = {
        "plan": PLAN,
        "campaign": "search",
        "purpose": "data_sharing",
        "values": "order,click,at,value,customer\n1,x,2026-03-02 14:03,12.50,c-1\n2,y,2026-03-02 14:03,7,c-2\n",
    }
    async with served_flow(tokens=TOKENS) as flow:
        path, spend = "/v1/campaigns:upload", bearer("spend")
        assert 403 == (await flow.post(path, body, headers=bearer("read"))).status
        absent = await flow.post(path, body, headers=spend)
        assert (404, "not_found") == (absent.status, absent.json["code"])
        await asyncio.to_thread(make_campaigns, flow.runner, plan)
        await asyncio.to_thread(flow.guard.consents.grant, "c-1", "data_sharing")
        assert 1 == (await flow.post(path, body | {"dry_run": True}, headers=spend)).json["waiting"]
        found = (await flow.post(path, body, headers=spend)).json
        assert (2, 1, 1) == (found["orders"], found["done"], found["left_out"])
        assert 1 == (await flow.post(path, body, headers=spend)).json["already"]
        assert [("1", 12_500_000)] == [(each["order"], each["value"]) for each in flow.sandbox.books()["conversions"]]
        wrong = await flow.post(path, body | {"values": body["values"] + "2,z,never,7,c-2\n"}, headers=spend)
        assert (400, "upload_invalid") == (wrong.status, wrong.json["code"])
        assert wrong.json["problems"][0].startswith("row 4: at: 'never' is not a moment")
        assert 400 == (await flow.post(path, body | {"purpose": None}, headers=spend)).status
        assert 400 == (await flow.post(path, body | {"campaign": "nobody"}, headers=spend)).status


async def test_health_readiness_and_numbers(monkeypatch):
    monkeypatch.setattr(service, "_READY_SECONDS", 60.0)  # a busy machine answers later than a probe waits
    async with served_flow() as flow:
        run = (await flow.post("/v1/campaigns", {"plan": PLAN})).json["run"]
        await flow.until(lambda: any(lane.held for lane in flow.runner.status(run).lanes))
        assert ("healthy", 1) == ((health := (await flow.get("/health")).json)["status"], health["open_runs"])
        assert {"runner": True, "store": True, "guard": True} == {
            check["name"]: check["ok"] for check in (await flow.get("/readyz")).json["checks"]
        }
        numbers = (await flow.get("/metrics")).text
        assert 'kiki_flow_runs{state="running"} 1.0' in numbers
        assert 'syncflow_budget_held_micros{plan="spring"}' in numbers
        assert 'syncflow_circuit_breaker_state_count{platform="meta",state="closed"} 2.0' in numbers
        await flow.post(f"/v1/runs/{run}/cancel")


def test_every_route_is_in_the_document_and_nothing_else():
    service = object.__new__(FlowService)
    routes = FlowService._routes(service)
    written = {path: {method.upper() for method in item} for path, item in openapi()["paths"].items()}
    served: dict[str, set[str]] = {}
    for route in routes:
        served.setdefault(route.path, set()).update({*route.methods} - {"HEAD"})
    own = {"/livez", "/readyz", "/metrics", "/openapi.json"}
    assert served == {path: methods for path, methods in written.items() if path not in own}
    assert own <= {*written}


DOCUMENT = schemathesis.openapi.from_dict(openapi())
DOCUMENT.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@pytest.fixture(scope="module")
def running():
    found = RunningFlow()
    yield found.flow
    found.close()


@DOCUMENT.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_fuzzer_finds_nothing(case, running):
    """Good input is accepted, bad input refused, and every answer has the status, type and shape that is written down."""
    response = case.call(base_url=running.url, timeout=60)
    excluded = []
    if response.status_code in {400, 404, 409} and (
        b"plan_invalid" in response.content or b"not_found" in response.content or response.status_code == 409
    ):
        excluded.append(positive_data_acceptance)  # no schema can say which texts are a plan, or which runs there are
    said = json.dumps((case.body, case.query, case.path_parameters), ensure_ascii=False, default=str)
    if not unquote(said).isascii():
        excluded.append(positive_data_acceptance)
    if response.status_code == 404:
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)


class TestThePageAboutIt:
    PAGE = (Path(__file__).parents[2] / "docs" / "api-flow.md").read_text()

    def test_every_route_stands_there_with_its_role(self):
        routes = FlowService._routes(object.__new__(FlowService))
        served = {
            (m, route.path, route.role) for route in routes for m in route.methods if route.path.startswith("/v1/")
        }
        assert served == set(re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \| (\w+) \|", self.PAGE, re.MULTILINE))

    @pytest.mark.parametrize("variable", FLOW_VARIABLES, ids=lambda variable: variable.name)
    def test_every_setting_stands_there(self, variable):
        assert f"`{variable.name}`" in self.PAGE

    def test_every_method_stands_there(self):
        methods = {each.name for each in syncflow_pb2.DESCRIPTOR.services_by_name["SyncFlowService"].methods}
        assert methods == set(re.findall(r"^\| `(\w+)` \| (?:read|spend) \|", self.PAGE, re.MULTILINE))
