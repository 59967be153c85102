"""Decides about a customer that somebody else's system asks about: the original's matrix, value, consent, shield.

It decides only: nothing is sent, and neither holdout nor caps nor quiet hours apply, because the caller sends. What
cannot be asked is a no: without a clear yes of the shield, about the value and about consent, the answer is a denial.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, Final

import grpc
import grpc.aio
import httpx
import msgspec

from kiki import tracing
from kiki.clock import Clock, wall_micros
from kiki.engage.retention import Trigger, fallback_value, risk_of, trigger_of
from kiki.engage.trigger import Answer, Customer
from kiki.errors import KikiError
from kiki.shield.shield_client import AsyncShieldClient
from kiki.telemetry import log_event
from kiki.value.pb import ltv_pb2

logger = logging.getLogger("kiki.engage")

VALUE_SECONDS: Final = 0.2
SHIELD_SECONDS: Final = 0.4
HEALTH_SECONDS: Final = 0.15
PURPOSE: Final = "marketing"
_METHOD: Final = "/ltv.LTVService/PredictLTV"
_BODY_BYTES_MAX: Final = 65_536
PASSED: Final = b"Compliance check passed"
"""How a shield says yes that speaks no JSON: the original's words."""


class TriggerDesk:
    """Belongs to the event loop that it is opened on."""

    def __init__(
        self,
        shield_url: str,
        ltv_address: str,
        *,
        token: str | None = None,
        value_token: str | None = None,
        clock: Clock = wall_micros,
    ) -> None:
        """`shield_url` is the shield's origin, without the guide's /check."""
        self._shield_url = shield_url
        self._address = ltv_address
        self._token = token
        self._metadata = (("authorization", f"Bearer {value_token}"),) if value_token else None
        self._clock = clock
        self._channel: grpc.aio.Channel | None = None
        self._http: httpx.AsyncClient | None = None
        self._consents: AsyncShieldClient | None = None

    async def open(self) -> None:
        """Be ready to ask."""
        # A service that comes back is found soon, however long it was away.
        options = (("grpc.max_reconnect_backoff_ms", 1000), ("grpc.initial_reconnect_backoff_ms", 100))
        self._channel = grpc.aio.insecure_channel(self._address, options=options)
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        self._http = httpx.AsyncClient(headers=headers, timeout=SHIELD_SECONDS, trust_env=False)
        self._consents = AsyncShieldClient(
            self._shield_url, token=self._token, timeout=SHIELD_SECONDS, retries=0, deadline=SHIELD_SECONDS
        )

    async def close(self) -> None:
        """Let go of all connections."""
        for each in (self._channel, self._consents):
            if each is not None:
                await each.close()
        if self._http is not None:
            await self._http.aclose()

    async def knows_value(self) -> bool:
        """Whether SyncValue can be reached now."""
        assert self._channel is not None
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await self._channel.channel_ready()
        except TimeoutError:
            return False
        return True

    async def decide(self, customer: Customer) -> tuple[Answer, bool]:
        """The answer, and whether the shield allows it; where there is nothing to do it is not asked."""
        now = self._clock()
        value, is_fallback = await self._value(customer)
        risk = risk_of(now, customer.last_purchase, customer.last_engagement)
        trigger = trigger_of(risk, value)
        answer = Answer(customer.customer_id, trigger, now, value, is_fallback, risk)
        if trigger == Trigger():
            return answer, True
        return answer, all(await asyncio.gather(self._consented(customer.customer_id), self._allowed(value)))

    async def _value(self, customer: Customer) -> tuple[float, bool]:
        assert self._channel is not None
        request = ltv_pb2.LTVRequest(
            customer_id=customer.customer_id,
            recent_spend=customer.total_spend,
            engagement_score=customer.engagement_score,
        )
        call = self._channel.unary_unary(
            _METHOD,
            request_serializer=ltv_pb2.LTVRequest.SerializeToString,
            response_deserializer=ltv_pb2.LTVResponse.FromString,
        )
        try:
            with tracing.child(_METHOD, tracing.Kind.CLIENT, {"rpc.system": "grpc", "peer.service": "syncvalue"}):
                response = await call(request, timeout=VALUE_SECONDS, metadata=tracing.metadata(self._metadata))
            value = float(response.predicted_ltv)
            if math.isfinite(value) and value >= 0:
                return value, False
        except (grpc.aio.AioRpcError, ValueError) as error:
            log_event(logger, logging.WARNING, "SyncValue does not answer", kind=type(error).__name__)
        return fallback_value(customer.total_spend, customer.engagement_score), True

    async def _consented(self, customer: str) -> bool:
        assert self._consents is not None
        try:
            async with asyncio.timeout(SHIELD_SECONDS):
                return (await self._consents.consents.check_many([(customer, PURPOSE)]))[0].allowed is True
        except (KikiError, TimeoutError, httpx.HTTPError, ValueError, LookupError) as error:
            log_event(logger, logging.WARNING, "consent cannot be asked for: denied", kind=type(error).__name__)
            return False

    async def _allowed(self, value: float) -> bool:
        """Only a clear yes is one: 200 with what SyncShield says of a value that passes."""
        assert self._http is not None
        try:
            with tracing.child("GET", tracing.Kind.CLIENT, {"peer.service": "syncshield"}):
                async with asyncio.timeout(SHIELD_SECONDS):
                    reply = await self._http.get(
                        f"{self._shield_url}/check", params={"ltv": f"{value:.2f}"}, headers=dict(tracing.carried({}))
                    )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            log_event(logger, logging.WARNING, "SyncShield does not answer: denied", kind=type(error).__name__)
            return False
        if reply.status_code != httpx.codes.OK or len(reply.content) > _BODY_BYTES_MAX:
            return False
        return _says_yes(reply.content)


def _says_yes(body: bytes) -> bool:
    if body.strip() == PASSED:
        return True
    try:
        told: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(told, dict) and told.get("allowed") is True
