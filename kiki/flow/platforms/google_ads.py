"""The adapter of Google Ads: its REST interface, GAQL for reading, atomic mutates for writing.

A campaign is made with its own budget, paused, in one atomic mutate. What a bid means is read from the campaign's bidding
strategy: a click's bid of its ad groups where it bids by hand, the limit or the target where Google bids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, ClassVar, Final, TypeVar

from kiki.flow.plan import Account, Objective
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Twin, ValueUpload
from kiki.flow.platforms import google_ads_query as query
from kiki.flow.platforms.ad_account import (
    PAGES_MAX,
    AboutAccount,
    AdAccount,
    Fates,
    about_account,
    endless,
    fates_of,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
)
from kiki.flow.platforms.amounts import billed_micros, json_request, whole_count, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.google_ads_campaign import (
    BID_FIELDS,
    BY_OBJECTIVE,
    CHANNELS,
    MANUAL_CPC,
    STRATEGIES,
    conversion,
    creation,
)
from kiki.flow.platforms.google_ads_reply import (
    AccountRow,
    AdGroupRow,
    CampaignRow,
    GeoRow,
    Mutated,
    Rows,
    SpendRow,
    Uploaded,
    judge,
)
from kiki.outbound.exchange import INVALID, NOT_FOUND, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import OAuth2
from kiki.outbound.outcome import Outcome, done, refused

Kind = TypeVar("Kind")

URL: Final = "https://googleads.googleapis.com"
TOKEN_URL: Final = "https://oauth2.googleapis.com/token"
VERSION: Final = "v26"
PER_MINUTE: Final = 600
UPLOAD_MAX: Final = 2000
LIMITS: Final = Limits(overdelivery=2.0, report_hours=24, timeout_seconds=60.0, late_seconds=900.0)

CLICK_IDS: Final = ("gclid", "gbraid", "wbraid")
SETTINGS: Final = ("version", "login_customer", "eu_political", "conversion_action", "click_id", "per_minute")


class GoogleAds(AdAccount):
    """See `Platform`."""

    NAME: ClassVar[str] = "google_ads"
    CAMPAIGN_ID: ClassVar[re.Pattern[str]] = re.compile(r"[0-9]{1,19}")

    def __init__(
        self, customer: str, line: Line, *, eu_political: bool, conversion_action: str = "", click_id: str = "gclid"
    ) -> None:
        super().__init__(customer, line, LIMITS)
        self._eu_political = eu_political
        self._conversion_action = conversion_action
        self._click_id = click_id

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> GoogleAds:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        customer = told.account(r"[0-9]{3}-?[0-9]{3}-?[0-9]{4}", "write the customer id, such as 123-456-7890").replace(
            "-", ""
        )
        developer_token = told.secret("GOOGLE_ADS_DEVELOPER_TOKEN", "the developer token of your manager account")
        client_id = told.text("GOOGLE_ADS_CLIENT_ID", "the id of your OAuth client")
        client_secret = told.secret("GOOGLE_ADS_CLIENT_SECRET", "the secret of your OAuth client")
        refresh_token = told.secret("GOOGLE_ADS_REFRESH_TOKEN", "a refresh token for https://…/auth/adwords")
        login = told.setting(
            *("login_customer", "", r"|[0-9][0-9-]*", "write the manager account's id, digits and dashes"),
            environ="GOOGLE_ADS_LOGIN_CUSTOMER_ID",
        )
        version = told.setting("version", VERSION, r"v[0-9]{1,3}", "write a version of the API, such as v26")
        political = told.setting(
            *("eu_political", "", "True|False"),
            "write eu_political: false, or true: Google wants it declared whether campaigns hold EU political advertising",
        )
        action = told.setting("conversion_action", "", r"|[0-9]+", "write the conversion action's id, digits alone")
        click_id = told.setting("click_id", "gclid", "|".join(CLICK_IDS), f"write one of {', '.join(CLICK_IDS)}")
        per_minute = told.per_minute(PER_MINUTE)
        url = told.address("GOOGLE_ADS_URL", URL)
        token_url = told.address("GOOGLE_ADS_TOKEN_URL", TOKEN_URL)
        told.settings_known(SETTINGS)
        told.require()
        line = Line(
            f"{url}/{version}",
            authorization=OAuth2(token_url, client_id, client_secret, refresh_token),
            headers={"developer-token": developer_token}
            | ({"login-customer-id": login.replace("-", "")} if login else {}),
            judge=judge,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        return cls(customer, line, eu_political=political == "True", conversion_action=action, click_id=click_id)

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        rows = await self._search(query.campaign_named(name), CampaignRow)
        if isinstance(rows, Outcome):
            return rows
        named = [row for row in rows if row.campaign.name == name]
        if not named:
            return done()
        # Google lets a removed campaign's name be used again.
        row, twins = foremost(
            named,
            lambda each: Twin(id=each.campaign.id, status=each.campaign.standing),
            lambda each: int(each.campaign.id),
        )
        bid = await self._bid_of(row)
        if isinstance(bid, Outcome):
            return bid
        return shown_campaign(self._state(row, bid, about), twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        settings = CampaignSettings(spec.settings)
        channel = settings.word("channel", "SEARCH", CHANNELS)
        strategy = settings.word(
            "strategy", MANUAL_CPC if spec.bid else BY_OBJECTIVE.get(Objective(spec.objective), ""), STRATEGIES
        )
        wrong = settings.refusal or wrong_amounts(about.currency, spec.daily_budget, spec.bid)
        if wrong is not None:
            return wrong
        if spec.objective == Objective.APP:
            return refused(INVALID, "not sent: app campaigns of Google Ads are made by hand; kiki can steer them then")
        there = await self.lookup(spec.name)
        if not there.is_done or "campaign" in there.value:
            return there
        places = await self._places(spec.countries)
        if isinstance(places, Outcome):
            return places
        body = {
            "mutateOperations": creation(
                spec,
                customer=self.account,
                channel=channel,
                strategy=strategy,
                places=places,
                eu_political=self._eu_political,
                today=self.today(about.time_zone),
            )
        }
        made = await self._mutate("googleAds", body)
        if not made.is_done:
            return await self.taken_since(made, spec.name)
        return read_back(await self.lookup(spec.name))

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        row = await self._to_be_set(campaign, micros)
        if isinstance(row, Outcome):
            return row
        budget = row.campaign_budget
        if budget.explicitly_shared:
            return refused(INVALID, "not sent: the campaign shares its budget with others; give it one of its own")
        change = {"resourceName": budget.resource_name, "amountMicros": str(micros)}
        body = {"operations": [{"update": change, "updateMask": "amountMicros"}]}
        return await self._mutate("campaignBudgets", body)

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        row = await self._to_be_set(campaign, micros)
        if isinstance(row, Outcome):
            return row
        strategy = row.campaign.bidding_strategy_type
        if strategy == MANUAL_CPC:
            return await self._set_bid_of_groups(row, micros)
        if strategy not in BID_FIELDS:
            return refused(INVALID, f"not sent: a campaign that bids by {strategy} has no bid to be set")
        field, amount = BID_FIELDS[strategy]
        return await self._set(campaign, {field: {amount: str(micros)}}, f"{field}.{amount}")

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": "PAUSED"}, "status")

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": "ENABLED"}, "status")

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        rows = await self._search(query.spend(campaign, day), SpendRow)
        if isinstance(rows, Outcome):
            return rows
        metrics = [row.metrics for row in rows]
        return shown_report(
            SpendReport(
                day=day,
                spent=sum(int(each.cost_micros) for each in metrics),
                impressions=sum(int(each.impressions) for each in metrics),
                clicks=sum(int(each.clicks) for each in metrics),
                conversions=sum(whole_count(each.conversions) for each in metrics),
                value=sum(billed_micros(each.conversions_value) or 0 for each in metrics),
                final=self.is_final(day, about.time_zone),
            )
        )

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`."""
        return await self.upload(values, UPLOAD_MAX, self._send_values)

    # -- below ---------------------------------------------------------------------------------------

    async def _ask_about(self) -> AboutAccount | Outcome:
        rows = await self._search(query.ACCOUNT, AccountRow)
        if isinstance(rows, Outcome):
            return rows
        if not rows:
            return refused(NOT_FOUND, f"Google Ads shows no customer {self.account}")
        return about_account(rows[0].customer.currency_code, rows[0].customer.time_zone)

    async def _places(self, countries: Sequence[str]) -> list[str] | Outcome:
        """Google's own names of countries."""
        if not countries:
            return []
        rows = await self._search(query.places(countries), GeoRow)
        if isinstance(rows, Outcome):
            return rows
        found = {row.geo_target_constant.country_code: row.geo_target_constant.resource_name for row in rows}
        missing = [each for each in countries if each not in found]
        if missing:
            return refused(INVALID, f"not sent: Google Ads knows no country {', '.join(missing)}")
        return [found[each] for each in countries]

    async def _campaign(self, campaign: str) -> CampaignRow | Outcome:
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        rows = await self._search(query.campaign_numbered(campaign), CampaignRow)
        if isinstance(rows, Outcome):
            return rows
        return rows[0] if rows else refused(NOT_FOUND, f"the account has no campaign {campaign}")

    async def _to_be_set(self, campaign: str, micros: int) -> CampaignRow | Outcome:
        """The campaign as it is, for an amount that its currency can say."""
        return await self.wrong_amount(micros) or await self._campaign(campaign)

    async def _groups(self, campaign: str) -> list[AdGroupRow] | Outcome:
        return await self._search(query.ad_groups(campaign), AdGroupRow)

    async def _set_bid_of_groups(self, row: CampaignRow, micros: int) -> Outcome:
        groups = await self._groups(row.campaign.id)
        if isinstance(groups, Outcome):
            return groups
        if not groups:
            return refused(INVALID, "not sent: the campaign bids by hand and has no ad group to bid for")
        operations = [
            {
                "adGroupOperation": {
                    "update": {"resourceName": each.ad_group.resource_name, "cpcBidMicros": str(micros)},
                    "updateMask": "cpcBidMicros",
                }
            }
            for each in groups
        ]
        return await self._mutate("googleAds", {"mutateOperations": operations})

    async def _bid_of(self, row: CampaignRow) -> int | Outcome | None:
        """The bid that is in force; None: Google's own, or its ad groups differ."""
        strategy = row.campaign.bidding_strategy_type
        if strategy != MANUAL_CPC:
            limit = row.campaign.limit(strategy)
            return limit or None
        groups = await self._groups(row.campaign.id)
        if isinstance(groups, Outcome):
            return groups
        bids = {int(each.ad_group.cpc_bid_micros) for each in groups}
        return (bids.pop() or None) if len(bids) == 1 else None

    def _state(self, row: CampaignRow, bid: int | None, about: AboutAccount) -> CampaignState:
        amount = row.campaign_budget.amount_micros
        return CampaignState(
            id=row.campaign.id,
            name=row.campaign.name,
            status=row.campaign.standing,
            daily_budget=int(amount) if amount else None,
            bid=bid,
            currency=about.currency,
            account=self.account,
        )

    async def _send_values(self, batch: Sequence[ValueUpload], currency: str) -> Fates | Outcome:
        action, click_id = self._conversion_action, self._click_id
        if not action:
            return refused(INVALID, "not sent: the plan's setting 'conversion_action' says which conversions these are")
        told = [conversion(each, currency, customer=self.account, action=action, click_id=click_id) for each in batch]
        body = {"conversions": told, "partialFailure": True}
        taken = await self._write(f"customers/{self.account}:uploadClickConversions", body, Uploaded)
        return taken if isinstance(taken, Outcome) else fates_of(batch, taken.failed(len(batch)))

    async def _set(self, campaign: str, change: Mapping[str, Any], mask: str) -> Outcome:
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        update = {"resourceName": f"customers/{self.account}/campaigns/{campaign}", **change}
        body = {"operations": [{"update": update, "updateMask": mask}]}
        return await self._mutate("campaigns", body)

    async def _search(self, asked: str, kind: type[Kind]) -> list[Kind] | Outcome:
        """All rows of a GAQL query."""
        rows: list[Kind] = []
        body = {"query": asked}
        for _ in range(PAGES_MAX):
            path = f"customers/{self.account}/googleAds:search"
            request = Request(method="POST", path=path, write=False, json=body)
            page = await self.answer(Rows[kind], request)  # type: ignore[valid-type]  # a type at run time
            if isinstance(page, Outcome):
                return page
            rows += page.results
            if not page.next_page_token:
                return rows
            body = {"query": asked, "pageToken": page.next_page_token}
        return endless("a search")

    async def _mutate(self, what: str, body: Mapping[str, Any]) -> Outcome:
        done_so_far = await self._write(f"customers/{self.account}/{what}:mutate", body, Mutated)
        if isinstance(done_so_far, Outcome):
            return done_so_far
        # 200 is no success while an error is inside.
        failed = done_so_far.failure
        return done() if failed is None else refused(INVALID, self.line.plain(failed))

    async def _write(self, path: str, body: Mapping[str, Any], kind: type[Kind]) -> Kind | Outcome:
        return await self.answer(kind, json_request("POST", path, body, write=True))
