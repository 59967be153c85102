"""What The Trade Desk answers: its things as far as they matter here, its two kinds of errors, its reports. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Generic, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.flow.platforms.amounts import billed_micros
from kiki.outbound.exchange import INVALID, THROTTLED, Reply
from kiki.outbound.outcome import Outcome, refused
from kiki.outbound.rate_budget import ASKED_MAX, retry_after

Kind = TypeVar("Kind")

COLUMN_DATE: Final = "Date"
COLUMN_CAMPAIGN: Final = "Campaign ID"
COLUMN_COST: Final = "Advertiser Cost (Adv Currency)"
COLUMN_IMPRESSIONS: Final = "Impressions"
COLUMN_CLICKS: Final = "Clicks"
_AMOUNT: Final = re.compile(r"[0-9]{1,13}(\.[0-9]{1,12})?|[0-9]{1,3}(,[0-9]{3}){1,4}(\.[0-9]{1,12})?")


class Result(msgspec.Struct, Generic[Kind], rename="pascal"):
    """One page of what a query found."""

    result: list[Kind]
    total_filtered_count: int = 0


class Advertiser(msgspec.Struct, rename="pascal"):
    """An advertiser."""

    advertiser_id: str
    currency_code: str


class Money(msgspec.Struct, rename="pascal"):
    """An amount, in whole currency."""

    amount: Decimal | None = None


class CampaignShown(msgspec.Struct, rename="pascal"):
    """A campaign."""

    campaign_id: str
    campaign_name: str
    availability: str = "Available"


class BudgetSettings(msgspec.Struct, rename="pascal"):
    """The budget of an ad group."""

    daily_budget: Money | None = None


class Attributes(msgspec.Struct):
    """How an ad group bids."""

    budget_settings: BudgetSettings | None = msgspec.field(default=None, name="BudgetSettings")
    max_bid: Money | None = msgspec.field(default=None, name="MaxBidCPM")


class AdGroup(msgspec.Struct):
    """An ad group."""

    ad_group_id: str = msgspec.field(name="AdGroupId")
    name: str = msgspec.field(name="AdGroupName")
    is_enabled: bool = msgspec.field(name="IsEnabled")
    availability: str = msgspec.field(default="Available", name="Availability")
    attributes: Attributes | None = msgspec.field(default=None, name="RTBAttributes")


class WrittenCampaign(msgspec.Struct):
    """The campaign in an answer of the workflows."""

    id: str


class CampaignPayload(msgspec.Struct):
    """To a campaign that was made."""

    campaign: WrittenCampaign


class WrittenAdGroup(msgspec.Struct, rename="camel"):
    """The ad group in an answer of the workflows."""

    id: str


class AdGroupPayload(msgspec.Struct, rename="camel"):
    """To an ad group that was made or changed."""

    ad_group: WrittenAdGroup


class Schedule(msgspec.Struct, rename="pascal"):
    """To a report that was ordered."""

    report_schedule_id: int


class Delivery(msgspec.Struct):
    """Where a report's file is."""

    url: str | None = msgspec.field(default=None, name="DownloadURL")


class Execution(msgspec.Struct, rename="pascal"):
    """How far a report is."""

    report_execution_state: str
    report_deliveries: list[Delivery] | None = None


class Billed(msgspec.Struct, frozen=True):
    """A row in micros."""

    spent: int
    impressions: int
    clicks: int


def judge(reply: Reply) -> Outcome | None:
    """Too often, with the moment in milliseconds or seconds; and what a refusal says of its fields."""
    if reply.status == 429:
        return refused(THROTTLED, _words(reply.json), retry_at=_again_at(reply))
    if reply.status in {400, 422}:
        return refused(INVALID, _words(reply.json) or str(reply.status))
    return None


def _again_at(reply: Reply) -> int | None:
    text = reply.headers.get("retry-after-ms", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        return reply.now + min(round(float(text) * 1000), ASKED_MAX)
    return retry_after(reply.headers, reply.now) or reply.now + 60 * SECOND


def _words(said: Any) -> str:
    """`Message` with `ErrorDetails` of version 3, `detail` with `errors` of the workflows (RFC 9457)."""
    if not isinstance(said, dict):
        return ""
    title = said.get("Message") or said.get("detail") or said.get("title") or ""
    details = [
        f"{each.get('Property', '')}: {'; '.join(map(str, _list(each.get('Reasons'))))}" for each in _dicts(said)
    ]
    given = said.get("errors")
    fields = (
        [f"{name}: {'; '.join(map(str, _list(why)))}" for name, why in given.items()] if isinstance(given, dict) else []
    )
    return " ".join([str(title), *details[:5], *fields[:5]]).strip()


def _dicts(said: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return [each for each in _list(said.get("ErrorDetails")) if isinstance(each, dict)]


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]


def billed(content: bytes, day: str) -> dict[str, Billed] | None:
    """What campaigns cost on a day, by their ids, from a report's file; None: nobody understands it."""
    found: dict[str, Billed] = {}
    try:
        for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig"))):
            if row[COLUMN_DATE][:10] != day:
                continue
            spent = billed_micros(_number(row[COLUMN_COST]))
            if spent is None:
                return None
            # One row for each of whatever else the template divides by.
            before = found.get(row[COLUMN_CAMPAIGN], Billed(0, 0, 0))
            found[row[COLUMN_CAMPAIGN]] = Billed(
                before.spent + spent,
                before.impressions + int(_number(row[COLUMN_IMPRESSIONS])),
                before.clicks + int(_number(row[COLUMN_CLICKS])),
            )
    except (KeyError, TypeError, ValueError, InvalidOperation, UnicodeDecodeError, csv.Error):
        return None
    return found


def has_columns(content: bytes) -> bool:
    """Whether a report has the columns that are read; without rows this alone tells that nothing was spent."""
    try:
        header = next(csv.reader(io.StringIO(content.decode("utf-8-sig"))), [])
    except (UnicodeDecodeError, csv.Error):
        return False
    return {COLUMN_DATE, COLUMN_CAMPAIGN, COLUMN_COST, COLUMN_IMPRESSIONS, COLUMN_CLICKS} <= set(header)


def _number(text: str) -> Decimal:
    if not _AMOUNT.fullmatch(text):
        raise ValueError(text)
    return Decimal(text.replace(",", ""))
