"""The adapter of LinkedIn: its versioned REST interface in the Rest.li 2.0 protocol.

A campaign carries its budget, its bid and its audience itself, and lives in a campaign group that is made by hand. Money is
decimal text; days are days in UTC, whatever the account. Nothing that makes is idempotent there, and the search may lag: what
was made is read back by its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import quote

import msgspec

from kiki.clock import SECOND
from kiki.flow.plan import Account, Objective
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Twin, ValueUpload
from kiki.flow.platforms.ad_account import (
    PAGES_MAX,
    AboutAccount,
    AdAccount,
    Fates,
    about_account,
    day_start,
    endless,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
)
from kiki.flow.platforms.amounts import billed_micros, exact_micros, smallest_unit, total_billed, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.linkedin_reply import (
    STATUS,
    AccountFields,
    Analytics,
    CampaignFields,
    Found,
    TakenAll,
    judge,
)
from kiki.money import MICROS
from kiki.outbound.exchange import INVALID, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import Authorization, FixedToken, OAuth2
from kiki.outbound.outcome import Fate, Outcome, done, refused

Kind = TypeVar("Kind")

URL: Final = "https://api.linkedin.com"
TOKEN_URL: Final = "https://www.linkedin.com/oauth/v2/accessToken"
VERSION: Final = "202608"
PER_MINUTE: Final = 400
UPLOAD_MAX: Final = 5000
LIMITS: Final = Limits(
    overdelivery=1.5, report_hours=48, timeout_seconds=60.0, late_seconds=900.0, values_again_hours=0
)
BUDGET_MIN_USD: Final = 10 * MICROS
SETTINGS: Final = (
    "version",
    "campaign_group",
    "organization",
    "political",
    "geo",
    "locale",
    "conversion",
    "per_minute",
)


class _Purpose(msgspec.Struct, frozen=True):
    """How LinkedIn names an objective, what a bid is for, and what it optimises for when it bids itself."""

    objective: str
    cost: str
    optimised: str


PURPOSES: Final = {
    Objective.AWARENESS: _Purpose("BRAND_AWARENESS", "CPM", "MAX_IMPRESSION"),
    Objective.TRAFFIC: _Purpose("WEBSITE_VISIT", "CPC", "MAX_CLICK"),
    Objective.LEADS: _Purpose("LEAD_GENERATION", "CPC", "MAX_LEAD"),
    Objective.SALES: _Purpose("WEBSITE_CONVERSION", "CPC", "MAX_CONVERSION"),
}


class LinkedIn(AdAccount):
    """See `Platform`."""

    NAME: ClassVar[str] = "linkedin"

    def __init__(self, account: str, line: Line, settings: Mapping[str, str]) -> None:
        super().__init__(account, line, LIMITS)
        self._settings = settings

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> LinkedIn:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        number = told.account(r"[0-9]{1,20}", "write the ad account's id, digits alone")
        url = told.address("LINKEDIN_URL", URL)
        authorization = _authorization(told)
        version = told.setting("version", VERSION, r"20[0-9]{4}", "write a version of the API, such as 202608")
        settings = {
            "campaign_group": told.setting(
                "campaign_group", "", r"[0-9]{1,20}", "write the id of the campaign group, digits alone"
            ),
            "organization": told.setting(
                "organization", "", r"[0-9]{1,20}", "write the id of the page that advertises, digits alone"
            ),
            "political": told.setting(
                *("political", "", "True|False"),
                "write political: false, or true: LinkedIn wants it declared whether campaigns are political",
            ),
            "geo": told.setting(
                *("geo", "", r"|[A-Z]{2}=[0-9]{1,12}( [A-Z]{2}=[0-9]{1,12})*"),
                "write LinkedIn's ids of countries, such as US=103644278 CA=101174742",
            ),
            "locale": told.setting("locale", "en_US", r"[a-z]{2}_[A-Z]{2}", "write a language and a country: en_US"),
            "conversion": told.setting("conversion", "", r"|[0-9]{1,20}", "write the id of a conversion rule"),
        }
        per_minute = told.per_minute(PER_MINUTE)
        told.settings_known(SETTINGS)
        told.require()
        line = Line(
            f"{url}/rest",
            authorization=authorization,
            headers={"LinkedIn-Version": version, "X-Restli-Protocol-Version": "2.0.0"},
            judge=judge,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        return cls(number, line, settings)

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        found: list[CampaignFields] = []
        page = ""
        for _ in range(PAGES_MAX):
            shown = await self._get(f"{self._campaigns}?{_search(name, page)}", Found)
            if isinstance(shown, Outcome):
                return shown
            found += [each for each in shown.elements if each.name == name]
            page = shown.next_page
            if not page:
                break
        else:
            return endless("a search")
        if not found:
            return done()
        chosen, twins = foremost(
            found, lambda each: Twin(id=str(each.id), status=each.standing), lambda each: int(each.id)
        )
        return shown_campaign(self._state(chosen, about), twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = self._wrong(spec, about)
        if wrong is not None:
            return wrong
        there = await self.lookup(spec.name)
        if not there.is_done or "campaign" in there.value:
            return there
        made = await self._send("POST", self._campaigns, self._creation(spec, about), "CREATE")
        if isinstance(made, Outcome):
            return made
        number = made.headers.get("x-restli-id") or made.headers.get("x-linkedin-id", "")
        if self.no_id(number) is not None:
            return read_back(await self.lookup(spec.name))
        shown = await self._get(f"{self._campaigns}/{number}", CampaignFields)
        return read_back(shown if isinstance(shown, Outcome) else shown_campaign(self._state(shown, about)))

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = wrong_amounts(about.currency, micros)
        return wrong or await self._set(campaign, {"dailyBudget": _money(micros, about.currency)})

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`. A campaign that bid by itself bids by hand from then on."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        change = {"unitCost": _money(micros, about.currency), "optimizationTargetType": "NONE"}
        return wrong_amounts(about.currency, micros) or await self._set(campaign, change)

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": "PAUSED"})

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": "ACTIVE"})

    async def archive(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set(campaign, {"status": "ARCHIVED"})

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        shown = await self._get(f"adAnalytics?{_report_query(campaign, day)}", Analytics)
        if isinstance(shown, Outcome):
            return shown
        spent = total_billed(each.cost_in_local_currency for each in shown.elements)
        if isinstance(spent, Outcome):
            return spent
        return shown_report(
            SpendReport(
                day=day,
                spent=spent,
                impressions=sum(int(each.impressions) for each in shown.elements),
                clicks=sum(int(each.clicks) for each in shown.elements),
                conversions=sum(int(each.external_website_conversions) for each in shown.elements),
                value=sum(billed_micros(each.conversion_value_in_local_currency) or 0 for each in shown.elements),
                final=self.is_final(day, about.time_zone),
            )
        )

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`."""
        return await self.upload(values, UPLOAD_MAX, self._send_values)

    # -- what is sent --------------------------------------------------------------------------------

    def _wrong(self, spec: CampaignSpec, about: AboutAccount) -> Outcome | None:
        settings = CampaignSettings(spec.settings)
        if Objective(spec.objective) not in PURPOSES:
            settings.wrong("LinkedIn has no campaigns for apps")
        missing = [each for each in spec.countries if each not in self._places]
        if missing or not spec.countries:
            what = f"no id of {', '.join(missing)}" if missing else "no country"
            settings.wrong(f"{what}: write countries, and their ids in the account's setting 'geo'")
        return settings.refusal or wrong_amounts(about.currency, spec.daily_budget, spec.bid)

    def _creation(self, spec: CampaignSpec, about: AboutAccount) -> dict[str, Any]:
        purpose = PURPOSES[Objective(spec.objective)]
        language, country = self._settings["locale"].split("_")
        places = [f"urn:li:geo:{self._places[each]}" for each in spec.countries]
        starts = max(day_start(spec.starts, about.time_zone), datetime.fromtimestamp(self._clock() / SECOND, UTC))
        body: dict[str, Any] = {
            "account": f"urn:li:sponsoredAccount:{self.account}",
            "campaignGroup": f"urn:li:sponsoredCampaignGroup:{self._settings['campaign_group']}",
            "associatedEntity": f"urn:li:organization:{self._settings['organization']}",
            "name": spec.name,
            "status": "PAUSED",
            "type": "SPONSORED_UPDATES",
            "objectiveType": purpose.objective,
            "costType": purpose.cost,
            "optimizationTargetType": "NONE" if spec.bid else purpose.optimised,
            "dailyBudget": _money(spec.daily_budget, about.currency),
            "locale": {"country": country, "language": language},
            "runSchedule": {"start": _milliseconds(starts), "end": _milliseconds(_end(spec.ends, about.time_zone))},
            "targetingCriteria": {"include": {"and": [{"or": {"urn:li:adTargetingFacet:locations": places}}]}},
            "politicalIntent": "POLITICAL" if self._settings["political"] == "True" else "NOT_POLITICAL",
            "audienceExpansionEnabled": False,
            "offsiteDeliveryEnabled": False,
        }
        return body | ({"unitCost": _money(spec.bid, about.currency)} if spec.bid else {})

    async def _send_values(self, batch: Sequence[ValueUpload], currency: str) -> Fates | Outcome:
        if not self._settings["conversion"]:
            return refused(INVALID, "not sent: the plan's setting 'conversion' says which conversions these are")
        body = {"elements": [self._conversion(each, currency) for each in batch]}
        answer = await self._send("POST", "conversionEvents", body, "BATCH_CREATE")
        taken = answer if isinstance(answer, Outcome) else answer.read(TakenAll)
        if isinstance(taken, Outcome):
            return taken
        meant = {2: Fate.DONE, 4: Fate.REFUSED}
        told = zip(batch, taken.elements, strict=False)
        return {each.order: meant[one.status // 100] for each, one in told if one.status // 100 in meant}

    def _conversion(self, value: ValueUpload, currency: str) -> dict[str, Any]:
        return {
            "conversion": f"urn:lla:llaPartnerConversion:{self._settings['conversion']}",
            "conversionHappenedAt": value.at // 1000,
            "conversionValue": _money(value.value, currency),
            "eventId": value.order,
            "user": {"userIds": [{"idType": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "idValue": value.click}]},
        }

    # -- below ---------------------------------------------------------------------------------------

    @property
    def _campaigns(self) -> str:
        return f"adAccounts/{self.account}/adCampaigns"

    @property
    def _places(self) -> dict[str, str]:
        """LinkedIn's ids by country code."""
        pairs = (each.partition("=") for each in self._settings["geo"].split())
        return {code: number for code, _, number in pairs}

    async def _ask_about(self) -> AboutAccount | Outcome:
        told = await self._get(f"adAccounts/{self.account}", AccountFields)
        if isinstance(told, Outcome):
            return told
        if told.currency == "USD":
            self._limits = msgspec.structs.replace(self._limits, budget_min=BUDGET_MIN_USD)
        return about_account(told.currency, "UTC")

    def _state(self, shown: CampaignFields, about: AboutAccount) -> CampaignState:
        by_hand = shown.optimization_target_type == "NONE" and shown.unit_cost is not None
        return CampaignState(
            id=str(shown.id),
            name=shown.name,
            status=shown.standing,
            daily_budget=exact_micros(shown.daily_budget.amount) if shown.daily_budget else None,
            bid=exact_micros(shown.unit_cost.amount) if by_hand and shown.unit_cost else None,
            currency=about.currency,
            account=self.account,
        )

    async def _set(self, campaign: str, change: Mapping[str, Any]) -> Outcome:
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        body = {"patch": {"$set": change}}
        reply = await self._send("POST", f"{self._campaigns}/{campaign}", body, "PARTIAL_UPDATE")
        if isinstance(reply, Outcome):
            return reply
        return done() if reply.status == 204 or not reply.content.strip() else reply.nonsense("not an empty answer")

    async def _send(self, method: str, path: str, body: Mapping[str, Any], word: str) -> Reply | Outcome:
        sent = Request(method=method, path=path, write=True, json=body, headers={"X-RestLi-Method": word})
        reply = await self.line.send(sent)
        if isinstance(reply, Reply) and word == "CREATE" and reply.status != 201:
            return reply.nonsense("a creation is answered 201")
        return reply

    async def _get(self, path: str, kind: type[Kind]) -> Kind | Outcome:
        return await self.answer(kind, Request(method="GET", path=path, write=False))


def _authorization(told: Credentials) -> Authorization:
    """An access token as it is, or the means to renew one."""
    token_url = told.address("LINKEDIN_TOKEN_URL", TOKEN_URL)
    if told.optional("LINKEDIN_ACCESS_TOKEN"):
        return FixedToken(told.secret("LINKEDIN_ACCESS_TOKEN", "an access token with rw_ads"))
    client_id = told.text("LINKEDIN_CLIENT_ID", "the id of your app")
    client_secret = told.secret("LINKEDIN_CLIENT_SECRET", "the secret of your app")
    refresh = told.secret("LINKEDIN_REFRESH_TOKEN", "a refresh token with rw_ads (or set LINKEDIN_ACCESS_TOKEN alone)")
    return OAuth2(token_url, client_id, client_secret, refresh)


def _search(name: str, page: str) -> str:
    statuses = ",".join(STATUS)
    criteria = f"(name:(values:List({quote(name, safe='')})),status:(values:List({statuses})))"
    return f"q=search&search={criteria}&pageSize=100" + (f"&pageToken={quote(page, safe='')}" if page else "")


def _report_query(campaign: str, day: date) -> str:
    one = f"(year:{day.year},month:{day.month},day:{day.day})"
    fields = "costInLocalCurrency,impressions,clicks,externalWebsiteConversions,conversionValueInLocalCurrency"
    urn = quote(f"urn:li:sponsoredCampaign:{campaign}", safe="")
    span = f"dateRange=(start:{one},end:{one})"
    return f"q=analytics&pivot=CAMPAIGN&timeGranularity=DAILY&{span}&campaigns=List({urn})&fields={fields}"


def _money(micros: int, currency: str) -> dict[str, str]:
    """Decimal text with the decimals that the currency has: 18.00 USD, 1800 JPY, 1.250 BHD. What is finer is kept."""
    places = len(str(MICROS // smallest_unit(currency))) - 1
    whole, fraction = divmod(micros, MICROS)
    digits = f"{fraction:06d}"
    kept = digits[:places] + digits[places:].rstrip("0")
    return {"amount": f"{whole}.{kept}" if kept else str(whole), "currencyCode": currency}


def _end(last: date, time_zone: str) -> datetime:
    return day_start(last + timedelta(days=1), time_zone)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
