"""A campaign plan as people write it: one YAML document, in which every mistake is named by its line. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from enum import StrEnum
from typing import Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from kiki.errors import InvalidInput, KikiError, PlanError
from kiki.flow import words
from kiki.flow.plan import (
    PLATFORMS,
    SANDBOX,
    Absence,
    Account,
    Allocation,
    Audience,
    Bound,
    Objective,
    Pacing,
    Plan,
    PlannedCampaign,
    ValueBid,
)
from kiki.yaml_document import PROBLEMS_MAX, Map, Node, Reader, Text, Unreadable, compose, shown

CAMPAIGNS_MAX: Final = 500
DAYS_MAX: Final = 731
SETTINGS_MAX: Final = 50

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

PLAN_ACCEPTED: Final = "write a mapping with 'plan', 'currency', 'starts', 'ends', 'platforms' and 'campaigns'"
NAME_ACCEPTED: Final = "write 1 to 64 of a-z, 0-9, _ and -, and begin with a letter or a digit, such as spring-sale"
CURRENCY_ACCEPTED: Final = "write three capital letters, such as USD"
ZONE_ACCEPTED: Final = "write a zone of the IANA list, such as Europe/Vienna"
PLATFORM_ACCEPTED: Final = f"the platforms are {', '.join(PLATFORMS)}"
PLATFORMS_ACCEPTED: Final = (
    "write 'sandbox', or a mapping of platforms to their account, such as meta: {account: act_1}"
)
BID_ACCEPTED: Final = "write an amount such as $1.20, 'automatic', or {ltv: 30%, floor: $5.00, bound: lower}"
COUNTRY_ACCEPTED: Final = "write codes of two capital letters, such as [US, CA]"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,2}")
_PURPOSE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")
_Word = TypeVar("_Word", bound=StrEnum)
_Value = TypeVar("_Value")


def parse_plan(text: str, source: str = "plan") -> Plan:
    """The plan in a YAML text.

    Raises `PlanError`, whose `problems` are every mistake as `source:line: what is wrong; what is accepted`.
    """
    reader = _Reader()
    try:
        plan = reader.plan(compose(text, "plan", PLAN_ACCEPTED))
    except Unreadable as error:
        raise PlanError([f"{source}:{error.line}: {error.problem}"]) from error.__cause__
    if reader.problems or plan is None:
        problems = [f"{source}:{line}: {problem}" for line, problem in sorted(reader.problems, key=lambda one: one[0])]
        raise PlanError(problems[:PROBLEMS_MAX])
    return plan


class _Reader(Reader):
    def plan(self, node: Node | None) -> Plan | None:
        if not isinstance(node, Map):
            self.wrong(
                node or Text(1, "", plain=True), f"the plan is {node.kind if node else 'empty'}; {PLAN_ACCEPTED}"
            )
            return None
        known = (
            *("plan", "currency", "time_zone", "starts", "ends", "budget", "pacing", "allocation"),
            *("on_guard_down", "approval_above", "scopes", "platforms", "campaigns"),
        )
        fields = self.fields(node, "the plan", known)
        for needed in ("plan", "currency", "starts", "ends", "platforms", "campaigns"):
            if needed not in fields:
                self.wrong(node, f"the plan has no '{needed}'; {PLAN_ACCEPTED}")
        name = self.matching(fields, "plan", _NAME, "the name of a plan", NAME_ACCEPTED)
        currency = self.matching(fields, "currency", _CURRENCY, "a currency code", CURRENCY_ACCEPTED)
        zone = self.zone(fields["time_zone"]) if "time_zone" in fields else "UTC"
        starts, ends = self.span(node, fields, "the plan", None)
        if starts is not None and ends is not None and ends < starts:
            starts = ends = None  # said once, and not again for every campaign
        accounts, sandbox = self.platforms(fields["platforms"]) if "platforms" in fields else ({}, False)
        money = currency or "USD"
        campaigns = self.campaigns(fields["campaigns"], money, starts, ends) if "campaigns" in fields else ()
        if sandbox:
            accounts = {each.platform: Account(account=f"{SANDBOX}-{each.platform}") for each in campaigns}
        elif "platforms" in fields:
            for campaign in campaigns:
                if campaign.platform not in accounts:
                    problem = (
                        f"campaign {campaign.name!r} is on {campaign.platform}, for which 'platforms' has no account"
                    )
                    self.wrong(fields["platforms"], problem)
        scopes = self.scopes(fields["scopes"]) if "scopes" in fields else {}
        budget = self.given(fields, "budget", lambda text: words.parse_total(text, money), words.TOTAL_ACCEPTED)
        above = self.given(fields, "approval_above", lambda text: words.parse_daily(text, money), words.DAILY_ACCEPTED)
        pacing = self.word(fields, "pacing", Pacing, Pacing.EVEN)
        allocation = self.word(fields, "allocation", Allocation, Allocation.FIXED)
        absence = self.word(fields, "on_guard_down", Absence, Absence.LEAVE)
        if self.problems or name is None or currency is None or starts is None or ends is None:
            return None
        return Plan(
            name=name,
            currency=currency,
            time_zone=zone,
            starts=starts,
            ends=ends,
            budget=budget,
            platforms=accounts,
            campaigns=campaigns,
            sandbox=sandbox,
            pacing=pacing,
            allocation=allocation,
            on_guard_down=absence,
            approval_above=above,
            scopes=scopes,
        )

    # -- parts ---------------------------------------------------------------------------------------

    def campaigns(
        self, node: Node, currency: str, starts: date | None, ends: date | None
    ) -> tuple[PlannedCampaign, ...]:
        found: dict[str, int] = {}
        made = []
        for one in self.items(node, "campaigns", CAMPAIGNS_MAX, "write a list of at least one campaign"):
            campaign = self.campaign(one, currency, starts, ends)
            if campaign is None:
                continue
            if campaign.name in found:
                self.wrong(one, f"the campaign on line {found[campaign.name]} already has the name '{campaign.name}'")
            found.setdefault(campaign.name, one.line)
            made.append(campaign)
        return tuple(made)

    def campaign(self, node: Node, currency: str, starts: date | None, ends: date | None) -> PlannedCampaign | None:
        if not isinstance(node, Map):
            self.wrong(node, f"a campaign is {node.kind}; write a mapping with 'name', 'platform' and 'budget'")
            return None
        known = (
            *("name", "platform", "objective", "budget", "bid", "starts", "ends", "days", "countries", "audience"),
            *("settings", "scopes"),
        )
        fields = self.fields(node, "the campaign", known)
        for needed in ("name", "platform", "budget"):
            if needed not in fields:
                self.wrong(node, f"the campaign has no '{needed}'; it needs 'name', 'platform' and 'budget'")
        name = self.matching(fields, "name", _NAME, "a campaign's name", NAME_ACCEPTED)
        platform = self.platform(fields["platform"]) if "platform" in fields else None
        daily = self.given(fields, "budget", lambda text: words.parse_daily(text, currency), words.DAILY_ACCEPTED)
        bid = self.bid(fields["bid"], currency) if "bid" in fields else None
        first, last = self.span(node, fields, "the campaign", (starts, ends))
        weekdays = self.weekdays(fields["days"]) if "days" in fields else tuple(range(7))
        countries = self.countries(fields["countries"]) if "countries" in fields else ()
        audience = self.audience(fields["audience"]) if "audience" in fields else None
        settings = self.settings(fields["settings"]) if "settings" in fields else {}
        scopes = self.scopes(fields["scopes"]) if "scopes" in fields else {}
        objective = self.word(fields, "objective", Objective, Objective.SALES)
        if name is None or platform is None or daily is None or first is None or last is None:
            return None
        made = PlannedCampaign(
            name=name,
            platform=platform,
            objective=objective,
            daily_budget=daily,
            bid=bid,
            starts=first,
            ends=last,
            weekdays=weekdays,
            countries=countries,
            audience=audience,
            settings=settings,
            scopes=scopes or msgspec.UNSET,
        )
        if not made.days:
            self.wrong(node, f"campaign '{name}' runs on no day: none of its weekdays lies between {first} and {last}")
        return made

    def platforms(self, node: Node) -> tuple[dict[str, Account], bool]:
        if isinstance(node, Text) and node.text == SANDBOX:
            return {}, True
        if not isinstance(node, Map):
            self.wrong(
                node,
                f"'platforms' is {shown(node.text) if isinstance(node, Text) else node.kind}; {PLATFORMS_ACCEPTED}",
            )
            return {}, False
        accounts = {}
        for name, value in self.fields(node, "'platforms'", PLATFORMS).items():
            if not isinstance(value, Map):
                self.wrong(value, f"platform '{name}' is {value.kind}; {PLATFORMS_ACCEPTED}")
                continue
            fields = self.fields(value, f"platform '{name}'", ("account", "settings"))
            account = self.text(fields["account"], "account", "write the account's id") if "account" in fields else None
            if "account" not in fields:
                self.wrong(value, f"platform '{name}' has no 'account'; {PLATFORMS_ACCEPTED}")
            settings = self.settings(fields["settings"]) if "settings" in fields else {}
            if account is not None:
                accounts[name] = Account(account=account, settings=settings)
        return accounts, False

    def platform(self, node: Node) -> str | None:
        text = self.text(node, "platform", PLATFORM_ACCEPTED)
        # The original's names ended in _smart where a model chose the bid; the platform is the same.
        name = None if text is None else text.removesuffix("_smart")
        if name is not None and name not in PLATFORMS:
            self.wrong(node, f"platform {shown(text or '')} is not known; {PLATFORM_ACCEPTED}")
            return None
        return name

    def bid(self, node: Node, currency: str) -> int | ValueBid | None:
        if isinstance(node, Map):
            fields = self.fields(node, "the bid", ("ltv", "floor", "ceiling", "bound"))
            if "ltv" not in fields:
                self.wrong(node, f"the bid has no 'ltv'; {BID_ACCEPTED}")
            share = self.given(fields, "ltv", words.parse_share, words.SHARE_ACCEPTED)
            floor = self.given(fields, "floor", lambda text: words.parse_amount(text, currency), words.AMOUNT_ACCEPTED)
            top = self.given(fields, "ceiling", lambda text: words.parse_amount(text, currency), words.AMOUNT_ACCEPTED)
            bound = self.word(fields, "bound", Bound, Bound.LOWER)
            if floor is not None and top is not None and top < floor:
                self.wrong(node, "the bid's ceiling lies below its floor")
            return None if share is None else ValueBid(share=share, floor=floor or 0, ceiling=top, bound=bound)
        text = self.text(node, "bid", BID_ACCEPTED)
        if text is None or text == "automatic":
            return None
        try:
            return words.parse_amount(text, currency)
        except InvalidInput as error:
            self.wrong(node, f"bid {error}; {BID_ACCEPTED}")
            return None

    def span(
        self, node: Node, fields: Mapping[str, Node], owner: str, within: tuple[date | None, date | None] | None
    ) -> tuple[date | None, date | None]:
        first, last = within or (None, None)
        starts = self.given(fields, "starts", words.parse_date, words.DATE_ACCEPTED) if "starts" in fields else first
        ends = self.given(fields, "ends", words.parse_date, words.DATE_ACCEPTED) if "ends" in fields else last
        if starts is None or ends is None:
            return starts, ends
        if ends < starts:
            self.wrong(fields.get("ends", node), f"{owner} ends on {ends}, before it starts on {starts}")
        elif (ends - starts).days >= DAYS_MAX:
            self.wrong(fields.get("ends", node), f"{owner} is longer than {DAYS_MAX} days")
        if first is not None and last is not None and not first <= starts <= ends <= last:
            self.wrong(
                fields.get("starts", node),
                f"{owner} runs from {starts} to {ends}, outside the plan ({first} to {last})",
            )
        return starts, ends

    def weekdays(self, node: Node) -> tuple[int, ...]:
        accepted = f"write days such as [mon, tue]; they are {', '.join(WEEKDAYS)}"
        found = set()
        for one in self.items(node, "days", 7, accepted):
            text = self.text(one, "a day", accepted)
            if text is None:
                continue
            if text not in WEEKDAYS:
                self.wrong(one, f"day {shown(text)} is not known; {accepted}")
            else:
                found.add(WEEKDAYS.index(text))
        return tuple(sorted(found))

    def countries(self, node: Node) -> tuple[str, ...]:
        found = []
        for one in self.items(node, "countries", 250, COUNTRY_ACCEPTED):
            text = self.text(one, "a country", COUNTRY_ACCEPTED)
            if text is None:
                continue
            if not _COUNTRY.fullmatch(text):
                self.wrong(one, f"country {shown(text)} is not a code; {COUNTRY_ACCEPTED}")
            found.append(text)
        return tuple(sorted(set(found)))

    def audience(self, node: Node) -> Audience | None:
        accepted = "write {list: vip-buyers, consent: targeting}: uploading people needs their consent to a purpose"
        if not isinstance(node, Map):
            self.wrong(node, f"the audience is {node.kind}; {accepted}")
            return None
        fields = self.fields(node, "the audience", ("list", "consent"))
        for needed in ("list", "consent"):
            if needed not in fields:
                self.wrong(node, f"the audience has no '{needed}'; {accepted}")
        name = self.matching(fields, "list", _NAME, "the name of a list", NAME_ACCEPTED)
        consent = self.matching(fields, "consent", _PURPOSE, "a purpose", accepted)
        return None if name is None or consent is None else Audience(list=name, consent=consent)

    def settings(self, node: Node) -> dict[str, str | int | float | bool]:
        if not isinstance(node, Map):
            self.wrong(node, f"settings are {node.kind}; write a mapping of plain values")
            return {}
        found: dict[str, str | int | float | bool] = {}
        for key, value in node.pairs():
            if not isinstance(key, Text) or not isinstance(value, Text) or key.text in found:
                self.wrong(key, "settings are plain values, each name once")
            elif len(found) >= SETTINGS_MAX or len(key.text) > 64 or len(value.text) > 1000:
                self.wrong(key, f"settings are at most {SETTINGS_MAX}, with names of 64 and texts of 1000 characters")
            else:
                found[key.text] = _plain(value)
        return found

    def scopes(self, node: Node) -> dict[str, str]:
        accepted = "write a mapping such as {team: growth}; 'campaign' and 'platform' are set by kiki"
        if not isinstance(node, Map):
            self.wrong(node, f"scopes are {node.kind}; {accepted}")
            return {}
        found: dict[str, str] = {}
        for key, value in node.pairs():
            if not isinstance(key, Text) or not isinstance(value, Text) or not value.text:
                self.wrong(key, f"a scope is a kind and a value; {accepted}")
            elif key.text in {"campaign", "platform", "customer"} or not _PURPOSE.fullmatch(key.text):
                self.wrong(key, f"scope {shown(key.text)} cannot be set here; {accepted}")
            elif len(found) >= 5 or len(value.text) > 128:
                self.wrong(key, f"here are 5 scopes at most, of 128 characters; {accepted}")
            else:
                found[key.text] = value.text
        return found

    # -- values --------------------------------------------------------------------------------------

    def zone(self, node: Node) -> str:
        text = self.text(node, "time_zone", ZONE_ACCEPTED)
        try:
            if text is None or not _ZONE.fullmatch(text):
                raise ValueError
            ZoneInfo(text)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            self.wrong(node, f"time zone {shown(text or '')} is not known; {ZONE_ACCEPTED}")
        return text or "UTC"

    def matching(
        self, fields: Mapping[str, Node], key: str, pattern: re.Pattern[str], what: str, accepted: str
    ) -> str | None:
        if key not in fields:
            return None
        text = self.text(fields[key], f"'{key}'", accepted)
        if text is not None and not pattern.fullmatch(text):
            self.wrong(fields[key], f"{shown(text)} is not {what}; {accepted}")
            return None
        return text

    def given(
        self, fields: Mapping[str, Node], key: str, parse: Callable[[str], _Value], accepted: str
    ) -> _Value | None:
        if key not in fields:
            return None
        text = self.text(fields[key], f"'{key}'", accepted)
        try:
            return None if text is None else parse(text)
        except KikiError as error:
            self.wrong(fields[key], f"{key}: {error}")
            return None

    def word(self, fields: Mapping[str, Node], key: str, words_: type[_Word], default: _Word) -> _Word:
        if key not in fields:
            return default
        accepted = f"write one of {', '.join(words_)}"
        text = self.text(fields[key], f"'{key}'", accepted)
        if text is not None and text not in [*words_]:
            self.wrong(fields[key], f"{key} {shown(text)} is not known; {accepted}")
            return default
        return words_(text) if text else default


def _plain(value: Text) -> str | int | float | bool:
    """What an unquoted scalar means in JSON."""
    if not value.plain:
        return value.text
    if value.text in {"true", "false"}:
        return value.text == "true"
    if _NUMBER.fullmatch(value.text):
        return float(value.text) if "." in value.text else int(value.text)
    return value.text
