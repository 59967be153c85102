"""What Microsoft Advertising answers: its things as far as they matter here, its faults and partial errors, its reports. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from kiki.clock import SECOND
from kiki.flow.platform import SpendReport, Status
from kiki.flow.platforms.amounts import billed_micros
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
from kiki.outbound.outcome import Outcome, refused, unknown

CALL_RATE_EXCEEDED: Final = {117, 207, 4204}
"""CallRateExceeded, ConcurrentRequestOverLimit, BulkServiceConcurrentRequestOverLimit."""
RATE_PAUSE: Final = 60 * SECOND
CREDENTIALS: Final = {105, 106, 109, 110}
"""InvalidCredentials, UserIsNotAuthorized, AuthenticationTokenExpired, and a developer token of no use."""


_STATUS: Final[Mapping[str, Status]] = {
    "Active": Status.ACTIVE,
    "BudgetPaused": Status.ACTIVE,
    "Paused": Status.PAUSED,
    "BudgetAndManualPaused": Status.PAUSED,
    "Suspended": Status.PAUSED,
    "Deleted": Status.ENDED,
}


class CampaignShown(msgspec.Struct, rename="pascal"):
    """A campaign."""

    id: str
    name: str
    status: str
    daily_budget: Decimal | None = None

    @property
    def standing(self) -> Status:
        """Whether it may spend; a status of tomorrow's API may."""
        return _STATUS.get(self.status, Status.ACTIVE)


class Campaigns(msgspec.Struct, rename="pascal"):
    """To Campaigns/QueryByAccountId."""

    campaigns: list[CampaignShown | None] | None = None


class Bid(msgspec.Struct, rename="pascal"):
    """An amount, in whole currency."""

    amount: Decimal | None = None


class AdGroup(msgspec.Struct, rename="pascal"):
    """An ad group."""

    id: str
    name: str
    status: str = ""
    cpc_bid: Bid | None = None


class AdGroups(msgspec.Struct, rename="pascal"):
    """To AdGroups/QueryByCampaignId."""

    ad_groups: list[AdGroup | None] | None = None


class Criterion(msgspec.Struct, rename="pascal"):
    """What a criterion is about; a location, as far as it matters here."""

    location_id: str | None = None


class CampaignCriterion(msgspec.Struct, rename="pascal"):
    """A criterion of a campaign."""

    criterion: Criterion | None = None


class CampaignCriterions(msgspec.Struct, rename="pascal"):
    """To CampaignCriterions/QueryByIds."""

    campaign_criterions: list[CampaignCriterion | None] | None = None


class CampaignIds(msgspec.Struct, rename="pascal"):
    """To a campaign that was added."""

    campaign_ids: list[str | None]


class AdGroupIds(msgspec.Struct, rename="pascal"):
    """To an ad group that was added."""

    ad_group_ids: list[str | None]


class CriterionIds(msgspec.Struct, rename="pascal"):
    """To criterions that were added."""

    campaign_criterion_ids: list[str | None]


class PartialError(msgspec.Struct, rename="pascal"):
    """Which one of a list was refused."""

    index: int | None = None


class Updated(msgspec.Struct, rename="pascal"):
    """To what was changed, or taken."""

    partial_errors: list[PartialError | None] | None = None


class AdvertiserAccount(msgspec.Struct, rename="pascal"):
    """An account."""

    currency_code: str
    time_zone: str


class AccountAnswer(msgspec.Struct, rename="pascal"):
    """To Account/Query."""

    account: AdvertiserAccount


class Submitted(msgspec.Struct, rename="pascal"):
    """To a report that was ordered."""

    report_request_id: str


class ReportStatus(msgspec.Struct, rename="pascal"):
    """How far a report is."""

    status: str
    report_download_url: str | None = None


class Polled(msgspec.Struct, rename="pascal"):
    """To GenerateReport/Poll."""

    report_request_status: ReportStatus


def judge(reply: Reply) -> Outcome | None:
    """What a fault says, whatever its status: `Errors`, `OperationErrors` or `BatchErrors`, each with a code."""
    said = reply.json
    if not isinstance(said, dict):
        return None
    errors = [each for name in ("Errors", "OperationErrors", "BatchErrors") for each in _dicts(said.get(name))]
    return _meaning(errors, reply) if errors else None


def partly(reply: Reply) -> Outcome | None:
    """What is wrong with the one thing that was sent, inside an answer of 200."""
    said = reply.json
    if not isinstance(said, dict):
        return None
    nested = [
        inner for each in _dicts(said.get("NestedPartialErrors")) for inner in (each, *_dicts(each.get("BatchErrors")))
    ]
    errors = [*_dicts(said.get("PartialErrors")), *nested]
    return _meaning(errors, reply) if errors else None


def _meaning(errors: Sequence[Mapping[str, Any]], reply: Reply) -> Outcome | None:
    codes = {each.get("Code") for each in errors if isinstance(each.get("Code"), int)}
    words = [str(each.get("ErrorCode") or "") for each in errors]
    message = "; ".join(
        f"{each.get('ErrorCode') or each.get('Code')}: {each.get('Message') or ''}" for each in errors[:5]
    )
    if codes & CALL_RATE_EXCEEDED:
        return refused(THROTTLED, message, retry_at=reply.now + RATE_PAUSE)
    if codes & CREDENTIALS:
        return refused(UNAUTHORIZED, message)
    if 0 in codes or reply.status >= 500:
        # InternalError: nobody knows how far it came.
        return unknown(SERVER_ERROR, message) if reply.write else refused(UNAVAILABLE, message)
    if any("AlreadyExists" in word or "Duplicate" in word for word in words):
        return refused(CONFLICT, message)
    return refused(NOT_FOUND if any(re.search(r"Invalid\w*Id$", word) for word in words) else INVALID, message)


def _dicts(given: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else ()


def spend_of(content: bytes | None, campaign: str, day: date, *, final: bool) -> SpendReport | None:
    """The row of the campaign in a report; None: nobody understands it."""
    if content is None:
        return None
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
        mine = [row for row in rows if row["CampaignId"] == campaign and row["TimePeriod"] == str(day)]
        spent, value = (_sum(mine, name) for name in ("Spend", "Revenue"))
        counts = [
            sum(int(Decimal(row[name] or "0")) for row in mine) for name in ("Impressions", "Clicks", "Conversions")
        ]
    except (KeyError, TypeError, ValueError, InvalidOperation, UnicodeDecodeError, csv.Error):
        return None
    if spent is None or value is None:
        return None
    impressions, clicks, conversions = counts
    return SpendReport(
        day=day,
        spent=spent,
        impressions=impressions,
        clicks=clicks,
        conversions=conversions,
        value=value,
        final=final,
    )


def _sum(rows: Iterable[Mapping[str, str]], name: str) -> int | None:
    return billed_micros(sum((Decimal(row[name] or "0") for row in rows), Decimal()))
