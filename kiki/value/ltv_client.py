"""`LtvClient` and `AsyncLtvClient`: lifetime value from SyncValue, or from a model file in this process, with the same names.

A call has a deadline for all that it does. One that found no connection, or lost it, is tried once more: asking
changes nothing, so asking twice does no harm. When there is still no answer, the fallback given speaks, and its
answer says that it is one; without a fallback `ValueUnreachable` is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kiki.errors import InvalidInput, ValueUnreachable
from kiki.value.ltv_answer import LtvAnswer, Outcome, answer_of, answers_of, model_info_of
from kiki.value.ltv_line import AsyncLine, AsyncLocal, AsyncRemote, Line, Local, Remote
from kiki.value.ltv_question import Amount, by_cohort, by_id, by_orders, by_summary, in_batches
from kiki.value.pb import value_pb2 as pb

__all__ = ["AsyncLtvClient", "Fallback", "Heuristic", "LtvAnswer", "LtvClient", "Outcome"]

TIMEOUT: Final = 0.2
"""Seconds for a call with its second try."""

BATCH: Final = 5_000
"""How many customers `predict_many` asks for in one call."""

Fallback = float | Callable[[str | None], float]
"""What to say when the service is away: a value, or what makes one from the customer's id."""


@dataclass(frozen=True, slots=True)
class Heuristic:
    """The fallback of the first clients: spend * 1.2 + score * 10. A rule of thumb, which nothing was measured about."""

    recent_spend: float
    engagement_score: float = 0.0

    def __call__(self, _customer_id: str | None) -> float:
        """The value, never below zero."""
        return max(self.recent_spend * 1.2 + self.engagement_score * 10, 0.0)


class _Unset:
    """Tells `fallback=None`, which means none, from no fallback given."""


_UNSET: Final = _Unset()


class _Client:
    """What both clients are made with, and what they say when nobody answers."""

    def __init__(
        self,
        address: str | None,
        model: str | Path | None,
        customers: str | Path | None,
        timeout: float,
        fallback: Fallback | None,
    ) -> None:
        if address is not None and model is not None:
            raise InvalidInput("an address is of a service, a model of this process: give one of the two")
        if customers is not None and model is None:
            raise InvalidInput("customers belong to a model in this process; a service has its own")
        if not timeout > 0:
            raise InvalidInput(f"a timeout is in seconds, above 0, not {timeout!r}")
        self._timeout = timeout
        self._fallback = fallback

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    def _instead(
        self, error: ValueUnreachable, customer_ids: Sequence[str | None], fallback: Fallback | _Unset | None
    ) -> list[LtvAnswer]:
        """Fallback answers; raises the error when there is no fallback."""
        chosen = self._fallback if isinstance(fallback, _Unset) else fallback
        if chosen is None:
            raise error
        return [
            LtvAnswer(float(chosen(each) if callable(chosen) else chosen), "fallback", each) for each in customer_ids
        ]


class LtvClient(_Client):
    """Lifetime value of customers. Thread-safe; keeps its connection until it is closed.

    `address` is by default `LTV_GRPC_ADDR`, then localhost:50051; `token` is by default `KIKI_VALUE_TOKEN`, then the content of
    the file `KIKI_VALUE_TOKEN_FILE`; with `ca_file`, by default `KIKI_VALUE_CA_FILE`, the connection is TLS. With `model`, a
    model file, there is no service: it is asked in this process, about the `customers` of a log or a summary of one.

    `timeout` is in seconds and includes a second try. `fallback` answers when the service is away: a value, a function of the
    customer's id, or a `Heuristic`. Raises `ValueUnreachable` without one, `InvalidInput` for what cannot be, `NotFound`
    for an unknown id where the service does not answer such, `Unauthenticated` and `Forbidden` when the token does not do.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        model: str | Path | None = None,
        customers: str | Path | None = None,
        timeout: float = TIMEOUT,
        fallback: Fallback | None = None,
        token: str | None = None,
        ca_file: str | Path | None = None,
    ) -> None:
        super().__init__(address, model, customers, timeout, fallback)
        self._line: Line = (
            Local(model, customers) if model is not None else Remote(address, token=token, ca_file=ca_file)
        )

    def predict(
        self,
        customer_id: str,
        *,
        horizon: float | None = None,
        reasons: bool = False,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """The value of a customer who is known by id. `horizon` is in the model's unit, by default the model's own."""
        return self._one(by_id(customer_id, horizon, reasons=reasons), customer_id, timeout, fallback)

    def predict_summary(
        self,
        frequency: int,
        recency_days: int,
        age_days: int,
        mean_order: Amount | None = None,
        *,
        horizon: float | None = None,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """The value of somebody with this summary: days with a purchase after the first, days until the last, days since the first."""
        return self._one(by_summary(frequency, recency_days, age_days, mean_order, horizon), None, timeout, fallback)

    def predict_orders(
        self,
        orders: Iterable[tuple[date, Amount]],
        as_of: date,
        *,
        horizon: float | None = None,
        reasons: bool = False,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """The value of somebody with these orders, refunds below zero, as known at the end of `as_of`."""
        return self._one(by_orders(orders, as_of, horizon, reasons=reasons), None, timeout, fallback)

    def predict_new(
        self,
        cohort: str | None = None,
        *,
        horizon: float | None = None,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """What is expected of a new customer after the first purchase; `cohort` is its month, as 2026-03."""
        return self._one(by_cohort(cohort, horizon), None, timeout, fallback)

    def predict_many(
        self,
        customer_ids: Iterable[str],
        *,
        means_only: bool = False,
        batch: int = BATCH,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> list[LtvAnswer]:
        """The values of any number of customers, in their order. `timeout` is for each `batch` of them."""
        answers: list[LtvAnswer] = []
        for request in in_batches(customer_ids, batch, means_only=means_only):
            ids = list(request.customer_ids)
            try:
                reply = self._line.call("PredictBatch", request, pb.PredictBatchResponse, self._seconds(timeout))
                answers += answers_of(reply, ids)
            except ValueUnreachable as error:
                answers += self._instead(error, ids, fallback)
        return answers

    def model_info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What is served and how good it was measured to be, as `ModelInfoResponse` names it; `details` is the model's own file."""
        return model_info_of(
            self._line.call("ModelInfo", pb.ModelInfoRequest(), pb.ModelInfoResponse, self._seconds(timeout))
        )

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _one(
        self,
        request: pb.PredictRequest,
        customer_id: str | None,
        timeout: float | None,
        fallback: Fallback | _Unset | None,
    ) -> LtvAnswer:
        try:
            return answer_of(
                self._line.call("Predict", request, pb.PredictResponse, self._seconds(timeout)), customer_id
            )
        except ValueUnreachable as error:
            return self._instead(error, [customer_id], fallback)[0]


class AsyncLtvClient(_Client):
    """`LtvClient` for asyncio: the same arguments, answers and errors. Belongs to the event loop of its first call."""

    def __init__(
        self,
        address: str | None = None,
        *,
        model: str | Path | None = None,
        customers: str | Path | None = None,
        timeout: float = TIMEOUT,
        fallback: Fallback | None = None,
        token: str | None = None,
        ca_file: str | Path | None = None,
    ) -> None:
        super().__init__(address, model, customers, timeout, fallback)
        self._line: AsyncLine = (
            AsyncLocal(model, customers) if model is not None else AsyncRemote(address, token=token, ca_file=ca_file)
        )

    async def predict(
        self,
        customer_id: str,
        *,
        horizon: float | None = None,
        reasons: bool = False,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """The value of a customer who is known by id. `horizon` is in the model's unit, by default the model's own."""
        return await self._one(by_id(customer_id, horizon, reasons=reasons), customer_id, timeout, fallback)

    async def predict_summary(
        self,
        frequency: int,
        recency_days: int,
        age_days: int,
        mean_order: Amount | None = None,
        *,
        horizon: float | None = None,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """The value of somebody with this summary: days with a purchase after the first, days until the last, days since the first."""
        return await self._one(
            by_summary(frequency, recency_days, age_days, mean_order, horizon), None, timeout, fallback
        )

    async def predict_orders(
        self,
        orders: Iterable[tuple[date, Amount]],
        as_of: date,
        *,
        horizon: float | None = None,
        reasons: bool = False,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """The value of somebody with these orders, refunds below zero, as known at the end of `as_of`."""
        return await self._one(by_orders(orders, as_of, horizon, reasons=reasons), None, timeout, fallback)

    async def predict_new(
        self,
        cohort: str | None = None,
        *,
        horizon: float | None = None,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> LtvAnswer:
        """What is expected of a new customer after the first purchase; `cohort` is its month, as 2026-03."""
        return await self._one(by_cohort(cohort, horizon), None, timeout, fallback)

    async def predict_many(
        self,
        customer_ids: Iterable[str],
        *,
        means_only: bool = False,
        batch: int = BATCH,
        timeout: float | None = None,
        fallback: Fallback | _Unset | None = _UNSET,
    ) -> list[LtvAnswer]:
        """The values of any number of customers, in their order. `timeout` is for each `batch` of them."""
        answers: list[LtvAnswer] = []
        for request in in_batches(customer_ids, batch, means_only=means_only):
            ids = list(request.customer_ids)
            try:
                reply = await self._line.call("PredictBatch", request, pb.PredictBatchResponse, self._seconds(timeout))
                answers += answers_of(reply, ids)
            except ValueUnreachable as error:
                answers += self._instead(error, ids, fallback)
        return answers

    async def model_info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What is served and how good it was measured to be, as `ModelInfoResponse` names it; `details` is the model's own file."""
        return model_info_of(
            await self._line.call("ModelInfo", pb.ModelInfoRequest(), pb.ModelInfoResponse, self._seconds(timeout))
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _one(
        self,
        request: pb.PredictRequest,
        customer_id: str | None,
        timeout: float | None,
        fallback: Fallback | _Unset | None,
    ) -> LtvAnswer:
        try:
            return answer_of(
                await self._line.call("Predict", request, pb.PredictResponse, self._seconds(timeout)), customer_id
            )
        except ValueUnreachable as error:
            return self._instead(error, [customer_id], fallback)[0]
