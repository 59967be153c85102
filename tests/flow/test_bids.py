"""The bids of the first version's contract, over gRPC."""

from __future__ import annotations

import grpc
import pytest

from kiki.flow.bid_server import SERVICE
from kiki.flow.pb import syncflow_pb2 as pb
from tests.flow.served_flow import PLAN, ServedFlow, served_flow
from tests.shield.served import TOKENS, bearer


class Client:
    """A plain client, as any language's would be."""

    def __init__(self, flow: ServedFlow, role: str = "") -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{flow.bids.port}")
        self._metadata = [("authorization", bearer(role)["Authorization"])] if role else []

    async def call(self, name: str, request, kind):
        method = self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=kind.FromString,
        )
        return await method(request, metadata=self._metadata, timeout=60)

    async def place(self, **given):
        return await self.call("PlaceBid", pb.PlaceBidRequest(**{"plan": "spring"} | given), pb.PlaceBidResponse)

    async def place_all(self, bids, *, atomic):
        request = pb.PlaceBidBatchRequest(bids=bids, atomic=atomic)
        return await self.call("PlaceBidBatch", request, pb.PlaceBidBatchResponse)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._channel.close()


def bid_of(flow: ServedFlow, platform: str) -> int | None:
    return next(each["bid"] for each in flow.sandbox.books()["campaigns"] if each["platform"] == platform)


def bids_set(flow: ServedFlow, platform: str) -> list[int]:
    """How often the bid of a platform was changed, by key."""
    effects = [each for each in flow.sandbox.books()["effects"] if each["platform"] == platform]
    return [each["changes"] for each in effects if each["operation"] == "set_bid"]


@pytest.fixture
async def flow():
    async with served_flow() as found:
        yield found


async def made(flow: ServedFlow) -> str:
    """Once its campaigns run, they stay as bids leave them until the next day."""
    run = (await flow.post("/v1/campaigns", {"plan": PLAN})).json["run"]
    await flow.active(run)
    return run


async def test_a_bid_of_the_callers_own_is_set_and_told(flow: ServedFlow):
    run = await made(flow)
    async with Client(flow) as client:
        placed = await client.place(request_id="r-1", campaign="search", bid_micros=1_500_000)
        again = await client.place(request_id="r-1", campaign="search", bid_micros=1_500_000)
    assert (pb.ACCEPTED, pb.MANUAL_OVERRIDE, "google_ads") == (placed.status, placed.source, placed.platform)
    assert placed == again
    assert 1_500_000 == bid_of(flow, "google_ads")
    assert [1] == bids_set(flow, "google_ads")
    assert run


async def test_without_syncvalue_the_old_rule_says_that_it_is_one(flow: ServedFlow):
    await made(flow)
    async with Client(flow) as client:
        by_plan = await client.place(request_id="r-1", campaign="social")
        by_share = await client.place(request_id="r-2", campaign="search", customer_id="c-7")
    assert (pb.ACCEPTED, pb.HEURISTIC_FALLBACK) == (by_plan.status, by_plan.source)
    assert (127_500_000, 2_550_000) == (by_plan.ltv_micros, by_plan.bid_micros)
    assert 38_250_000 == by_share.bid_micros


async def test_what_may_not_be_placed_says_why(flow: ServedFlow):
    await made(flow)
    async with Client(flow) as client:
        for given, wanted in (
            ({"request_id": "", "campaign": "search"}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"request_id": "r", "campaign": "nobody"}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"request_id": "r", "plan": "nobody", "campaign": "search"}, grpc.StatusCode.NOT_FOUND),
            ({"request_id": "r", "campaign": "search", "bid_micros": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.place(**given)
            assert wanted is caught.value.code()
        odd = await client.place(request_id="r", campaign="search", bid_micros=1_500_001)
        assert pb.REJECTED == odd.status
        flow.guard.halt("campaign:search")
        halted = await client.place(request_id="r-2", campaign="search", bid_micros=1_500_000)
        assert pb.BUDGET_EXCEEDED == halted.status
    assert 1_200_000 == bid_of(flow, "google_ads")


async def test_a_lost_answer_is_pending_and_asked_again_with_the_same_id(flow: ServedFlow):
    await made(flow)
    async with flow.session.put(
        f"{flow.sandbox.url}/sandbox/faults", json={"script": [{"kind": "lost_after", "operation": "set_bid"}]}
    ):
        pass
    async with Client(flow) as client:
        first = await client.place(request_id="r-1", campaign="search", bid_micros=1_500_000)
        again = await client.place(request_id="r-1", campaign="search", bid_micros=1_500_000)
    assert (pb.PENDING, pb.ACCEPTED) == (first.status, again.status)
    assert [1] == bids_set(flow, "google_ads")


async def test_a_request_id_is_one_bid(flow: ServedFlow):
    run = await made(flow)
    async with Client(flow) as client:
        first = await client.place(request_id="r-1", campaign="search", bid_micros=1_500_000)
        for other in ({"bid_micros": 1_600_000}, {"campaign": "social"}, {"bid_micros": 0}):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.place(**{"request_id": "r-1", "campaign": "search", "bid_micros": 1_500_000} | other)
            assert grpc.StatusCode.INVALID_ARGUMENT is caught.value.code()
            assert "was another bid" in str(caught.value.details())
        # The run's own name is the plan's other name.
        assert first == await client.place(request_id="r-1", campaign="search", bid_micros=1_500_000, plan=run)
    assert 1_500_000 == bid_of(flow, "google_ads")


async def test_an_atomic_batch_is_all_or_nothing(flow: ServedFlow):
    await made(flow)
    good = {"request_id": "a", "plan": "spring", "campaign": "search", "bid_micros": 2_000_000}
    bad = {"request_id": "b", "plan": "spring", "campaign": "social", "bid_micros": 3_000_001}
    async with Client(flow) as client:
        answer = await client.place_all([good, bad], atomic=True)
        assert ([pb.REJECTED, pb.REJECTED], 0) == ([each.status for each in answer.results], answer.accepted)
        assert 1_200_000 == bid_of(flow, "google_ads")
        loose = await client.place_all([good | {"request_id": "c"}, bad | {"request_id": "d"}], atomic=False)
        assert ([pb.ACCEPTED, pb.REJECTED], 1, 1) == (
            [each.status for each in loose.results],
            loose.accepted,
            loose.failed,
        )
        both = [good | {"request_id": "e"}, bad | {"request_id": "f", "bid_micros": 3_000_000}]
        assert 2 == (await client.place_all(both, atomic=True)).accepted
    assert (2_000_000, 3_000_000) == (bid_of(flow, "google_ads"), bid_of(flow, "meta"))


async def test_budgets_and_breakers(flow: ServedFlow):
    run = await made(flow)
    async with Client(flow) as client:
        whole = await client.call("GetBudgetStatus", pb.BudgetStatusRequest(plan="spring"), pb.BudgetStatusResponse)
        one = await client.call(
            "GetBudgetStatus", pb.BudgetStatusRequest(plan=run, campaign="social"), pb.BudgetStatusResponse
        )
        breakers = await client.call(
            "GetCircuitBreakerStatus", pb.CircuitBreakerStatusRequest(platform="meta"), pb.CircuitBreakerStatusResponse
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await client.call("GetBudgetStatus", pb.BudgetStatusRequest(plan="nobody"), pb.BudgetStatusResponse)
    assert (run, "USD", 600_000_000, 400_000_000) == (whole.run, whole.currency, whole.limit_micros, one.limit_micros)
    assert [("read", "closed"), ("write", "closed")] == [(each.operation, each.state) for each in breakers.breakers]


async def test_who_may_bid():
    async with served_flow(tokens=TOKENS) as flow:
        run = await flow.post("/v1/campaigns", {"plan": PLAN}, headers=bearer("spend"))
        assert 201 == run.status
        for role, code in (("", grpc.StatusCode.UNAUTHENTICATED), ("read", grpc.StatusCode.PERMISSION_DENIED)):
            async with Client(flow, role) as client:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.place(request_id="r", campaign="search", bid_micros=1_000_000)
                assert code is caught.value.code()
        await flow.active(run.json["run"])
        async with Client(flow, "spend") as client:
            assert pb.ACCEPTED == (await client.place(request_id="r", campaign="search", bid_micros=1_000_000)).status
