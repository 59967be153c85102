"""What TikTok answers: always the same envelope, mostly with status 200, whose `code` says what became of the request. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.flow.platform import Status
from kiki.flow.platforms.amounts import CurrencyCode, Digits, exact_micros
from kiki.outbound.exchange import (
    CONFLICT,
    INVALID,
    NOT_FOUND,
    SERVER_ERROR,
    THROTTLED,
    UNAUTHORIZED,
    UNAVAILABLE,
    Reply,
)
from kiki.outbound.outcome import Outcome, done, refused, unknown

Item = TypeVar("Item")
Data = TypeVar("Data")

OK: Final = 0
PARTLY: Final = 20001
"""Some of what was asked for was done; the answer does not say reliably what."""
NOTHING_TO_DO: Final = 40012
"""It is so already."""
DUPLICATE: Final = 40050
"""A request with this request_id was taken before."""
WRITE_CONFLICT: Final = 40202
"""Somebody else writes at the same moment; nothing happened."""

_THROTTLE: Final = {40016: 5, 40100: 5, 40132: 60, 61000: 60}
"""Too often, by how many seconds the account is left alone: TikTok does not say until when."""
_FORBIDDEN: Final = frozenset({40001, 40003, *range(40101, 40132), 40301, 40309, 41000})
_MISSING: Final = frozenset({40007, 40300, 40302, 40400})


class Envelope(msgspec.Struct, Generic[Data]):
    """Around every answer."""

    data: Data


class _PageInfo(msgspec.Struct):
    page: int = 1
    total_page: int = 1


class Page(msgspec.Struct, Generic[Item]):
    """One page of a list."""

    items: list[Item] = msgspec.field(name="list")
    page_info: _PageInfo = msgspec.field(default_factory=_PageInfo)


class AdvertiserFields(msgspec.Struct):
    """The ad account."""

    currency: CurrencyCode
    timezone: str = ""
    display_timezone: str = ""


class CampaignFields(msgspec.Struct):
    """A campaign; money in whole currency."""

    campaign_id: Digits
    campaign_name: str
    operation_status: str = ""
    secondary_status: str = ""
    budget: Decimal | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether it never runs again."""
        return "DELETE" in {self.operation_status, self.secondary_status.removeprefix("CAMPAIGN_STATUS_")}

    @property
    def status(self) -> Status:
        """Whether it may spend; a word that we do not know may."""
        if self.is_deleted:
            return Status.ENDED
        return Status.PAUSED if self.operation_status == "DISABLE" else Status.ACTIVE


class AdGroupFields(msgspec.Struct):
    """An ad group."""

    adgroup_id: Digits
    bid_type: str = ""
    bid_price: Decimal | None = None
    conversion_bid_price: Decimal | None = None
    secondary_status: str = ""

    @property
    def is_deleted(self) -> bool:
        """Whether it never runs again."""
        return self.secondary_status == "ADGROUP_STATUS_DELETE"

    def bid(self, field: str) -> int | None:
        """What it bids, in micros; None: what TikTok likes."""
        amount: Decimal | None = getattr(self, field)
        return (exact_micros(amount) or None) if amount is not None and self.bid_type != "BID_TYPE_NO_BID" else None


class MadeCampaign(msgspec.Struct):
    """The id of a campaign that was made."""

    campaign_id: Digits


class MadeAdGroup(msgspec.Struct):
    """The id of an ad group that was made."""

    adgroup_id: Digits


class Regions(msgspec.Struct):
    """Places."""

    region_info: list[Region]


class Region(msgspec.Struct):
    """A place."""

    location_id: Digits
    region_code: str = ""
    level: str = ""


class Metrics(msgspec.Struct):
    """What was measured: decimal texts in whole currency, and counts."""

    spend: Decimal = Decimal(0)
    impressions: Decimal = Decimal(0)
    clicks: Decimal = Decimal(0)
    conversion: Decimal = Decimal(0)


class ReportRow(msgspec.Struct):
    """One row of a report."""

    metrics: Metrics


def judge(reply: Reply) -> Outcome | None:
    """What the code in the envelope means, whatever the status."""
    said = reply.json
    code = said.get("code") if isinstance(said, dict) else None
    if not isinstance(code, int) or isinstance(code, bool) or code == OK:
        return None
    told = f"{code}: {_text(said.get('message'))}"
    if code in _THROTTLE:
        return refused(THROTTLED, told, retry_at=reply.now + _THROTTLE[code] * SECOND)
    if code == NOTHING_TO_DO and reply.write:
        return done()
    if code == DUPLICATE:
        return refused(CONFLICT, told)
    if code == WRITE_CONFLICT:
        return refused(UNAVAILABLE, told, retry_at=reply.now + SECOND)
    if code in _FORBIDDEN:
        return refused(UNAUTHORIZED, told)
    if code in _MISSING:
        return refused(NOT_FOUND, told)
    if 40000 <= code < 50000 and reply.status < 500:
        return refused(INVALID, told)
    # Their own trouble, partly done, or a code that is none of those that say no: nobody knows.
    return unknown(SERVER_ERROR, told) if reply.write else refused(UNAVAILABLE, told)


def _text(given: Any) -> str:
    return given if isinstance(given, str) else ""
