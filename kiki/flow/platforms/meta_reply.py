"""What the Graph API answers: objects, errors with their codes, and how much of its limits is used up. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.flow.platform import Status
from kiki.flow.platforms.amounts import Count, CurrencyCode, Digits, billed_micros, whole_count
from kiki.outbound.exchange import INVALID, NOT_FOUND, SERVER_ERROR, THROTTLED, UNAUTHORIZED, UNAVAILABLE, Reply
from kiki.outbound.outcome import Outcome, refused, unknown
from kiki.outbound.rate_budget import ASKED_MAX

Item = TypeVar("Item")

FULL: Final = 100
"""Per cent of a limit."""
FULL_FOR: Final = 5 * 60 * SECOND
"""How long an account is left alone whose limit is used up, when Meta does not say until when."""

_STATUS: Final = {
    "ACTIVE": Status.ACTIVE,
    "PAUSED": Status.PAUSED,
    "ARCHIVED": Status.ENDED,
    "DELETED": Status.ENDED,
}
_THROTTLE: Final = frozenset({4, 17, 32, 613, *range(80000, 80015)})
_TOKEN: Final = frozenset({102, 190, 463, 467})
_PERMISSION: Final = frozenset({3, 10, *range(200, 300)})
_PASSING: Final = frozenset({1, 2})
"""Meta's own trouble: whether a write had its effect is not known."""
_NO_OBJECT: Final = 33
"""The subcode of what does not exist, or may not be seen."""


class Page(msgspec.Struct, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    paging: dict[str, Any] = {}

    @property
    def after(self) -> str:
        """The cursor of the next page; empty: this is the last."""
        cursors = self.paging.get("cursors")
        after = cursors.get("after") if isinstance(cursors, dict) and self.paging.get("next") else None
        return str(after or "")


class Made(msgspec.Struct):
    """What was made."""

    id: Digits


class Changed(msgspec.Struct):
    """Whether something was set."""

    success: bool


class AccountFields(msgspec.Struct):
    """The ad account."""

    currency: CurrencyCode
    timezone_name: str
    min_daily_budget: Count = 0
    """In the minor unit."""


class CampaignFields(msgspec.Struct):
    """A campaign; what does not apply is missing."""

    id: Digits
    name: str
    status: str
    daily_budget: Count | None = None
    bid_strategy: str = ""

    @property
    def standing(self) -> Status:
        """Whether it may spend; a word that we do not know may."""
        return _STATUS.get(self.status, Status.ACTIVE)


class AdSetFields(msgspec.Struct):
    """An ad set."""

    id: Digits
    status: str = ""
    bid_amount: Count | None = None

    @property
    def standing(self) -> Status:
        """Whether it may spend; a word that we do not know may."""
        return _STATUS.get(self.status, Status.ACTIVE)


class _Action(msgspec.Struct):
    action_type: str
    value: Decimal


class Insight(msgspec.Struct):
    """What was measured, in whole currency."""

    spend: Decimal = Decimal(0)
    impressions: Count = 0
    clicks: Count = 0
    actions: list[_Action] = []
    action_values: list[_Action] = []

    def number(self, event: str) -> int:
        """How often an event happened."""
        return whole_count(next((each.value for each in self.actions if each.action_type == event), Decimal(0)))

    def worth(self, event: str) -> int:
        """What it was worth, in micros."""
        return (
            billed_micros(next((each.value for each in self.action_values if each.action_type == event), Decimal(0)))
            or 0
        )


class Received(msgspec.Struct):
    """How many events were taken."""

    events_received: int


def judge(reply: Reply) -> Outcome | None:
    """What an error means, whatever the status: throttling comes with 400 as well as with 429."""
    said = reply.json
    error = said.get("error") if isinstance(said, dict) else None
    if not isinstance(error, dict):
        return None
    code, subcode = error.get("code"), error.get("error_subcode")
    told = f"{code}/{subcode}: " if subcode else f"{code}: "
    told += " ".join(str(error[each]) for each in ("message", "error_user_title", "error_user_msg") if error.get(each))
    if code in _THROTTLE:
        return refused(THROTTLED, told, retry_at=rates(reply))
    if code in _PASSING or reply.status >= 500 or (error.get("is_transient") is True and reply.write):
        return unknown(SERVER_ERROR, told) if reply.write else refused(UNAVAILABLE, told)
    if code in _TOKEN or code in _PERMISSION:
        return refused(UNAUTHORIZED, told)
    return refused(NOT_FOUND if (code, subcode) == (100, _NO_OBJECT) else INVALID, told)


def rates(reply: Reply) -> int | None:
    """Until when Meta wants to hear nothing, by its usage headers: per cent used, and minutes to wait."""
    waits = [*_business(reply.headers), *_account(reply.headers), *_app(reply.headers)]
    return reply.now + max(waits) if waits else None


def _business(headers: Mapping[str, str]) -> Iterator[int]:
    for uses in _header(headers, "x-business-use-case-usage").values():
        for use in uses if isinstance(uses, list) else []:
            if not isinstance(use, dict):
                continue
            minutes = _number(use, "estimated_time_to_regain_access")
            if minutes > 0:
                yield round(min(minutes * 60, ASKED_MAX / SECOND) * SECOND)
            elif _is_full(use):
                yield FULL_FOR


def _account(headers: Mapping[str, str]) -> Iterator[int]:
    use = _header(headers, "x-ad-account-usage")
    if _number(use, "acc_id_util_pct") >= FULL:
        seconds = min(_number(use, "reset_time_duration"), ASKED_MAX / SECOND)
        yield round(seconds * SECOND) if seconds > 0 else FULL_FOR


def _app(headers: Mapping[str, str]) -> Iterator[int]:
    if _is_full(_header(headers, "x-app-usage")):
        yield FULL_FOR


def _is_full(use: Mapping[str, Any]) -> bool:
    return any(_number(use, each) >= FULL for each in ("call_count", "total_cputime", "total_time"))


def _number(use: Mapping[str, Any], name: str) -> float:
    given = use.get(name)
    return float(given) if isinstance(given, int | float) else 0.0


def _header(headers: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(headers.get(name, "{}"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
