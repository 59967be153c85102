"""What Google Ads answers: rows, results of mutates, and failures with their reasons. Pure.

Numbers of 64 bits are texts in Google's JSON. A failure may come with any status, and inside 200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.flow.platform import Status
from kiki.flow.platforms.amounts import Count, CurrencyCode, Digits
from kiki.outbound.exchange import CONFLICT, INVALID, NOT_FOUND, THROTTLED, UNAUTHORIZED, Reply
from kiki.outbound.outcome import Outcome, refused
from kiki.outbound.rate_budget import retry_after

Row = TypeVar("Row")

LONG_TERM: Final = 15 * 60 * SECOND
"""How long an account is left alone whose limit is not one of seconds, when Google does not say until when."""

_STATUS: Final = {"ENABLED": Status.ACTIVE, "PAUSED": Status.PAUSED, "REMOVED": Status.ENDED}
_THROTTLE: Final = frozenset(
    {
        "RESOURCE_EXHAUSTED",
        "RESOURCE_TEMPORARILY_EXHAUSTED",
        "EXCESSIVE_SHORT_TERM_QUERY_RESOURCE_CONSUMPTION",
        "EXCESSIVE_LONG_TERM_QUERY_RESOURCE_CONSUMPTION",
    }
)
_LONG: Final = frozenset({"RESOURCE_EXHAUSTED", "EXCESSIVE_LONG_TERM_QUERY_RESOURCE_CONSUMPTION"})
_TAKEN: Final = frozenset({"DUPLICATE_CAMPAIGN_NAME", "DUPLICATE_NAME"})
_THERE_ALREADY: Final = frozenset({"CLICK_CONVERSION_ALREADY_EXISTS", "ORDER_ID_ALREADY_IN_USE", "DUPLICATE_ORDER_ID"})
_MISSING: Final = frozenset({"RESOURCE_NOT_FOUND"})


class _Camel(msgspec.Struct, rename="camel"):
    pass


class Rows(_Camel, Generic[Row]):
    """One page of a search."""

    results: list[Row] = []
    next_page_token: str = ""


class _Limit(_Camel):
    cpc_bid_ceiling_micros: Count = 0
    target_cpa_micros: Count = 0


class _CampaignFields(_Camel):
    id: Digits
    name: str
    status: str
    bidding_strategy_type: str = ""
    target_spend: _Limit = msgspec.field(default_factory=_Limit)
    maximize_conversions: _Limit = msgspec.field(default_factory=_Limit)

    @property
    def standing(self) -> Status:
        """Whether it may spend; a word that we do not know may."""
        return _STATUS.get(self.status, Status.ACTIVE)

    def limit(self, strategy: str) -> int:
        """What a strategy of Google's may bid at most, in micros; 0: what it likes."""
        amounts = {
            "TARGET_SPEND": self.target_spend.cpc_bid_ceiling_micros,
            "MAXIMIZE_CONVERSIONS": self.maximize_conversions.target_cpa_micros,
        }
        return int(amounts.get(strategy, 0))


class _BudgetFields(_Camel):
    resource_name: str
    amount_micros: Count = 0
    explicitly_shared: bool = False


class CampaignRow(_Camel):
    """A campaign with its budget."""

    campaign: _CampaignFields
    campaign_budget: _BudgetFields


class _AdGroupFields(_Camel):
    resource_name: str
    cpc_bid_micros: Count = 0


class AdGroupRow(_Camel):
    """An ad group with its bid."""

    ad_group: _AdGroupFields


class _GeoFields(_Camel):
    resource_name: str
    country_code: str


class GeoRow(_Camel):
    """A place."""

    geo_target_constant: _GeoFields


class _CustomerFields(_Camel):
    currency_code: CurrencyCode
    time_zone: str


class AccountRow(_Camel):
    """The account itself."""

    customer: _CustomerFields


class _Metrics(_Camel):
    cost_micros: Count = 0
    impressions: Count = 0
    clicks: Count = 0
    conversions: Decimal = Decimal(0)
    conversions_value: Decimal = Decimal(0)


class SpendRow(_Camel):
    """What was measured. Fields that are zero may be missing."""

    metrics: _Metrics = msgspec.field(default_factory=_Metrics)


class Mutated(_Camel):
    """A mutate that was done."""

    results: list[dict[str, Any]] = []
    mutate_operation_responses: list[dict[str, Any]] = []
    partial_failure_error: dict[str, Any] | None = None

    @property
    def failure(self) -> str | None:
        """The error inside; None: there is none."""
        if self.partial_failure_error is None:
            return None
        return _told([*_errors(self.partial_failure_error)]) or str(self.partial_failure_error.get("message", "?"))


class Uploaded(_Camel):
    """An upload of which parts may have failed: their results are empty."""

    results: list[dict[str, Any]] = []
    partial_failure_error: dict[str, Any] | None = None

    def failed(self, sent: int) -> set[int]:
        """The places of the conversions that Google does not have; one that it had already it has."""
        if self.partial_failure_error is None:
            return set()
        errors = [*_errors(self.partial_failure_error)]
        if not any(error.places for error in errors):
            return {place for place in range(sent) if not any(self.results[place : place + 1])}
        return {place for error in errors if error.reason not in _THERE_ALREADY for place in error.places}


class GoogleError(msgspec.Struct):
    """One error of a failure."""

    group: str
    reason: str
    message: str
    places: list[int]
    """Indexes of the operations, or conversions, that it is about."""
    retry_seconds: float | None


def judge(reply: Reply) -> Outcome | None:
    """What a failure means; of 5xx after a write nobody knows more than its status says."""
    said = reply.json
    if isinstance(said, list):
        said = said[0] if said else None
    if not isinstance(said, dict):
        return None
    error = said.get("error")
    if not isinstance(error, dict) or not 400 <= reply.status < 500:
        return None
    errors = list(_errors(error))
    if reply.status == 401:
        return refused(UNAUTHORIZED, _told(errors) or str(error.get("message", "")))
    return _meaning(errors, reply) if errors else None


def _meaning(errors: list[GoogleError], reply: Reply) -> Outcome:
    told = _told(errors)
    for error in errors:
        if error.reason in _THROTTLE:
            return refused(THROTTLED, told, retry_at=_retry_at(error, reply))
    for error in errors:
        if error.group in {"authenticationError", "authorizationError"}:
            return refused(UNAUTHORIZED, told)
        if error.reason in _TAKEN:
            return refused(CONFLICT, told)
        if error.reason in _MISSING:
            return refused(NOT_FOUND, told)
    return refused(INVALID, told)


def _retry_at(error: GoogleError, reply: Reply) -> int | None:
    if error.retry_seconds is not None:
        return reply.now + round(error.retry_seconds * SECOND)
    said = retry_after(reply.headers, reply.now)
    return said if said is not None or error.reason not in _LONG else reply.now + LONG_TERM


def _told(errors: list[GoogleError]) -> str:
    return "; ".join(f"{error.reason}: {error.message}" for error in errors)


def _errors(status: Mapping[str, Any]) -> Iterator[GoogleError]:
    """The errors of a google.rpc.Status, as far as they can be read."""
    for detail in _list(status.get("details")):
        for error in _list(detail.get("errors")):
            code = error.get("errorCode")
            group, reason = next(iter(code.items()), ("", "")) if isinstance(code, dict) else ("", "")
            yield GoogleError(str(group), str(reason), str(error.get("message", "")), _places(error), _delay(error))


def _places(error: Mapping[str, Any]) -> list[int]:
    location = error.get("location")
    path = _list(location.get("fieldPathElements")) if isinstance(location, dict) else []
    indexes = [each.get("index", 0) for each in path[:1]]
    return [int(each) for each in indexes if re.fullmatch(r"[0-9]{1,9}", str(each)[:10])]


def _delay(error: Mapping[str, Any]) -> float | None:
    details = error.get("details")
    quota = details.get("quotaErrorDetails") if isinstance(details, dict) else None
    text = str(quota.get("retryDelay", "")) if isinstance(quota, dict) else ""
    return float(text[:-1]) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?s", text) else None


def _list(given: Any) -> list[dict[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
