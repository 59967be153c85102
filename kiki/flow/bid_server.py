"""The gRPC port of SyncFlow: `syncflow.v1`, the first version's contract, over `Bids`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from kiki.clock import wall_micros
from kiki.errors import InvalidInput, NotFound
from kiki.flow.bids import Bid, Bids, Placed
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.customer_value import CustomerValue
from kiki.flow.pb import syncflow_pb2 as pb
from kiki.settings import ListenSettings
from kiki.value.call_metrics import CallMetrics
from kiki.value.grpc_server import GrpcServer, Method
from kiki.web import Tokens, load_tokens

SERVICE: Final = "syncflow.v1.SyncFlowService"

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class BidPort:
    """Where it listens; like the HTTP port, it speaks TLS only behind something that does."""

    listen: ListenSettings
    port: int
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    variable: str = "KIKI_FLOW_GRPC_PORT"


class BidServer:
    """The methods on one port; belongs to the loop that starts it, and works on the runner's."""

    def __init__(
        self, runner: CampaignRunner, values: CustomerValue, place: BidPort, tokens: Tokens | None, metrics: CallMetrics
    ) -> None:
        self._runner = runner
        self._bids = Bids(runner, values)
        self._place = place
        methods = [
            Method(SERVICE, "PlaceBid", self._on_loop(pb.PlaceBidRequest, self._one), role="spend"),
            Method(SERVICE, "PlaceBidBatch", self._on_loop(pb.PlaceBidBatchRequest, self._many), role="spend"),
            Method(SERVICE, "GetBudgetStatus", self._in_thread(pb.BudgetStatusRequest, self._budget)),
            Method(SERVICE, "GetCircuitBreakerStatus", self._in_thread(pb.CircuitBreakerStatusRequest, self._breakers)),
        ]
        self._server = GrpcServer(methods, place, tokens, metrics)

    @property
    def port(self) -> int:
        """The port that was taken, 0 before the start."""
        return self._server.port

    async def start(self) -> None:
        """Listen; raises `ConfigurationError`."""
        await self._server.start()
        await self._server.say_serving(serving=True)

    def reload(self) -> None:
        """Ask for the tokens that the file holds now."""
        if self._place.listen.tokens_file is not None:
            self._server.use_tokens(load_tokens(self._place.listen.tokens_file))

    async def stop(self) -> None:
        """Answer what is in work, and take no more."""
        await self._server.stop(self._place.listen.drain_seconds)

    # -- inside --------------------------------------------------------------------------------------

    def _on_loop(
        self, kind: type[Message], answer: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[bytes, float | None], Awaitable[bytes]]:
        async def call(data: bytes, _seconds: float | None) -> bytes:
            request = _read(kind, data)

            async def work() -> bytes:
                written: bytes = (await answer(request)).SerializeToString()
                return written

            # A caller that gives up does not cut off a bid that is on its way.
            return await asyncio.shield(asyncio.wrap_future(self._runner.submit(work())))

        return call

    def _in_thread(
        self, kind: type[Message], answer: Callable[[Any], Any]
    ) -> Callable[[bytes, float | None], Awaitable[bytes]]:
        async def call(data: bytes, _seconds: float | None) -> bytes:
            request = _read(kind, data)
            written: bytes = (await asyncio.to_thread(answer, request)).SerializeToString()
            return written

        return call

    async def _one(self, request: pb.PlaceBidRequest) -> pb.PlaceBidResponse:
        return _response(await self._bids.place(_bid(request)))

    async def _many(self, request: pb.PlaceBidBatchRequest) -> pb.PlaceBidBatchResponse:
        placed = await self._bids.place_all([_bid(each) for each in request.bids], atomic=request.atomic)
        accepted = sum(each.status == "ACCEPTED" for each in placed)
        results = [_response(each) for each in placed]
        return pb.PlaceBidBatchResponse(results=results, accepted=accepted, failed=len(results) - accepted)

    def _budget(self, request: pb.BudgetStatusRequest) -> pb.BudgetStatusResponse:
        row = next((each for each in self._runner.runs() if request.plan in {each.run, each.plan_name}), None)
        if row is None:
            raise NotFound(f"there is no run and no plan {request.plan[:80]!r}")
        status = self._runner.status(row.run)
        lanes = status.lanes
        if request.campaign:
            lanes = [lane for lane in lanes if lane.campaign == request.campaign]
            if not lanes:
                raise NotFound(f"the plan has no campaign {request.campaign[:80]!r}")
        planned = sum(lane.planned for lane in lanes)
        limit = planned if request.campaign or status.budget is None else status.budget
        spent, held = sum(lane.spent_total for lane in lanes), sum(lane.held_total for lane in lanes)
        return pb.BudgetStatusResponse(
            run=status.run,
            currency=status.currency,
            limit_micros=limit,
            spent_micros=spent,
            held_micros=held,
            remaining_micros=limit - spent - held,
            utilization=spent / limit if limit else 0.0,
        )

    def _breakers(self, request: pb.CircuitBreakerStatusRequest) -> pb.CircuitBreakerStatusResponse:
        now = wall_micros()
        found = []
        for platform, breakers in self._runner.breakers():
            if request.platform in {"", platform}:
                for operation, breaker in breakers.items():
                    retry_at = breaker.retry_at(now)
                    found.append(
                        pb.CircuitBreaker(
                            platform=platform,
                            operation=operation,
                            state=breaker.state(now).value,
                            retry_at_ms=retry_at // 1000 if retry_at > now else 0,
                        )
                    )
        return pb.CircuitBreakerStatusResponse(breakers=found)


def _read(kind: type[Message], data: bytes) -> Message:
    try:
        found: Message = kind.FromString(data)  # type: ignore[attr-defined]  # every message has it
    except DecodeError:
        raise InvalidInput("the request cannot be read: it is no such message") from None
    return found


def _bid(request: pb.PlaceBidRequest) -> Bid:
    return Bid(request.request_id, request.plan, request.campaign, request.bid_micros, request.customer_id)


def _response(placed: Placed) -> pb.PlaceBidResponse:
    return pb.PlaceBidResponse(
        request_id=placed.request_id,
        status=pb.BidStatus.Value(placed.status.value),
        source=pb.BidSource.Value("BID_SOURCE_UNSPECIFIED" if placed.source is None else placed.source.value),
        bid_micros=placed.micros,
        ltv_micros=placed.ltv,
        message=placed.message,
        platform=placed.platform,
    )
