"""What X answers: its things as far as they matter here, its errors, and when it will listen again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.flow.platform import Status
from kiki.outbound.exchange import INVALID, THROTTLED, Reply, by_status
from kiki.outbound.outcome import Outcome, refused
from kiki.outbound.rate_budget import reset_at

Kind = TypeVar("Kind")


class Answer(msgspec.Struct, Generic[Kind]):
    """One thing, or a list that has no pages."""

    data: Kind


class Page(msgspec.Struct, Generic[Kind]):
    """One page of a list."""

    data: list[Kind]
    next_cursor: str | None = None


class AccountShown(msgspec.Struct):
    """An account."""

    timezone: str


class FundingInstrument(msgspec.Struct):
    """What pays."""

    id: str
    currency: str
    able_to_fund: bool = False
    deleted: bool = False


class CampaignShown(msgspec.Struct):
    """A campaign."""

    id: str
    name: str
    entity_status: str
    currency: str = ""
    daily_budget_amount_local_micro: int | None = None
    deleted: bool = False

    @property
    def status(self) -> Status:
        """Whether it may spend."""
        if self.deleted:
            return Status.ENDED
        return Status.PAUSED if self.entity_status in {"PAUSED", "DRAFT"} else Status.ACTIVE


class LineItem(msgspec.Struct):
    """A line item."""

    id: str
    name: str | None = None
    entity_status: str = ""
    bid_amount_local_micro: int | None = None
    deleted: bool = False


class Targeting(msgspec.Struct):
    """A targeting criterion."""

    targeting_type: str
    targeting_value: str | int | None = None


class Location(msgspec.Struct):
    """A place, by what X calls it."""

    targeting_value: str
    country_code: str = ""


class Metrics(msgspec.Struct):
    """Series of numbers, one a day; none where there is nothing."""

    billed_charge_local_micro: list[int | None] | None = None
    impressions: list[int | None] | None = None
    clicks: list[int | None] | None = None


class Segment(msgspec.Struct):
    """Metrics of one segment."""

    metrics: Metrics


class Stats(msgspec.Struct):
    """Statistics of one campaign."""

    id: str
    id_data: list[Segment]


class Uploaded(msgspec.Struct):
    """To conversions."""

    conversions_processed: int


def data_of(reply: Reply | Outcome, kind: type[Kind]) -> Kind | Outcome:
    """The `data` of an answer."""
    if isinstance(reply, Outcome):
        return reply
    answered = reply.read(Answer[kind])  # type: ignore[valid-type]
    return answered if isinstance(answered, Outcome) else answered.data


def judge(reply: Reply) -> Outcome | None:
    """X names errors in `errors`; with 429 it says in a header when it will listen again."""
    said = reply.json
    errors = said.get("errors") if isinstance(said, dict) else None
    if reply.status == 429:
        return refused(THROTTLED, _words(errors), retry_at=_reset(reply.headers))
    if 200 <= reply.status < 300 and errors and not said.get("data"):
        return refused(INVALID, _words(errors))
    meaning, words = by_status(reply), _words(errors)
    return meaning if meaning is None or not words else msgspec.structs.replace(meaning, message=words)


def _words(errors: Any) -> str:
    named = [each for each in errors or () if isinstance(each, dict)] if isinstance(errors, list) else []
    return "; ".join(f"{each.get('code', '')}: {each.get('message', '')}" for each in named[:5])


def _reset(headers: Mapping[str, str]) -> int | None:
    for name in ("x-account-rate-limit-reset", "x-rate-limit-reset"):
        text = headers.get(name, "").strip()
        if text.isascii() and text.isdigit():
            return int(text[:12]) * SECOND
    return None


def rates(reply: Reply) -> int | None:
    """An account whose calls are used up says so before it refuses one."""
    return reset_at(reply.headers, "x-account-rate-limit-remaining", "x-account-rate-limit-reset")


def total(series: Iterable[list[int | None] | None]) -> int:
    """The sum of series; what is not there counts nothing."""
    return sum(each or 0 for one in series for each in one or ())
