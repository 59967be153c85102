"""The adapter of Meta: campaigns of the Graph API's Marketing API, with their budget on the campaign and one ad set.

Money goes out as whole numbers of Meta's minor unit, which is not always the currency's own, and comes back in reports as
decimals of whole currency. Nothing that makes is idempotent there: a name is looked for before it is made.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar, Final, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.flow.plan import Account, Objective
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Status, Twin, ValueUpload
from kiki.flow.platforms.ad_account import (
    PAGES_MAX,
    AboutAccount,
    AdAccount,
    Fates,
    each_of,
    endless,
    fates_of,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
    unfinished,
)
from kiki.flow.platforms.amounts import json_text, total_billed, wrong_multiples
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.meta_campaign import (
    PURPOSES,
    STRATEGIES,
    WITHOUT_BID,
    ad_set_form,
    campaign_form,
    event,
)
from kiki.flow.platforms.meta_reply import (
    AccountFields,
    AdSetFields,
    CampaignFields,
    Changed,
    Insight,
    Made,
    Page,
    Received,
    judge,
    rates,
)
from kiki.money import MICROS
from kiki.outbound.exchange import INVALID, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Fate, Outcome, done, refused, unknown
from kiki.settings import Secret

Kind = TypeVar("Kind")

URL: Final = "https://graph.facebook.com"
VERSION: Final = "v26.0"
PER_MINUTE: Final = 600
UPLOAD_MAX: Final = 1000
EVENT_AGE_MAX: Final = timedelta(days=7)
"""One older event makes Meta refuse all that came with it."""
LIMITS: Final = Limits(
    overdelivery=1.75, report_hours=72, timeout_seconds=60.0, late_seconds=900.0, values_again_hours=48
)

WHOLE_CURRENCIES: Final = frozenset(
    {"CLP", "COP", "CRC", "HUF", "ISK", "IDR", "JPY", "KRW", "PYG", "TWD", "VND"}
)  # fmt: skip
"""Meta counts these in whole units, and every other currency in hundredths, dinars of a thousand fils too."""


SETTINGS: Final = (
    *("version", "special_ad_categories", "pixel", "value_event", "bid_strategy", "per_minute"),
    *("dsa_beneficiary", "dsa_payor"),
)
_CAMPAIGN: Final = "id,name,status,daily_budget,bid_strategy"
_ANY_STATUS: Final = '["ACTIVE","PAUSED","ARCHIVED","DELETED","IN_PROCESS","WITH_ISSUES"]'


class Meta(AdAccount):
    """See `Platform`."""

    NAME: ClassVar[str] = "meta"

    def __init__(self, account: str, line: Line, proof: str, settings: Mapping[str, str]) -> None:
        super().__init__(account, line, LIMITS)
        self._proof = {"appsecret_proof": proof} if proof else {}
        self._settings = settings

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> Meta:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        number = told.account(r"(act_)?[0-9]{1,20}", "write the ad account's id, such as act_1234567890")
        token = told.secret("META_ACCESS_TOKEN", "the access token of a system user with ads_management")
        app_secret = Secret(told.optional("META_APP_SECRET"))
        url = told.address("META_URL", URL)
        version = told.setting("version", VERSION, r"v[0-9]{1,3}\.[0-9]", "write a version of the API, such as v26.0")
        settings = {
            "special_ad_categories": told.setting(
                *("special_ad_categories", "", r"[A-Z_]+(,[A-Z_]+)*"),
                "write NONE, or what your ads are for, such as HOUSING,CREDIT: Meta wants it declared",
            ),
            "pixel": told.setting("pixel", "", r"|[0-9]{1,20}", "write the pixel's (dataset's) id, digits alone"),
            "value_event": told.setting(
                "value_event", "Purchase", r"[A-Za-z]{1,40}", "write an event such as Purchase"
            ),
            "bid_strategy": told.setting(
                *("bid_strategy", STRATEGIES[0], "|".join(STRATEGIES), f"write one of {', '.join(STRATEGIES)}")
            ),
            "dsa_beneficiary": told.setting("dsa_beneficiary", "", r".{0,200}", "write who benefits from the ads"),
            "dsa_payor": told.setting("dsa_payor", "", r".{0,200}", "write who pays for the ads"),
        }
        per_minute = told.per_minute(PER_MINUTE)
        told.settings_known(SETTINGS)
        told.require()
        proof = ""
        if app_secret:
            proof = hmac.new(app_secret.reveal().encode(), token.reveal().encode(), "sha256").hexdigest()
        line = Line(
            f"{url}/{version}",
            authorization=FixedToken(token),
            judge=judge,
            rates=rates,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        return cls(f"act_{number.removeprefix('act_')}", line, proof, settings)

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        asked = {
            "fields": _CAMPAIGN,
            "filtering": json_text([{"field": "name", "operator": "CONTAIN", "value": name}]),
            "effective_status": _ANY_STATUS,
        }
        found = await self._all(f"{self.account}/campaigns", asked, CampaignFields)
        if isinstance(found, Outcome):
            return found
        named = [each for each in found if each.name == name]
        if not named:
            return done()
        chosen, twins = foremost(named, lambda each: Twin(id=each.id, status=each.standing), lambda each: int(each.id))
        groups = await self._ad_sets(chosen.id)
        if isinstance(groups, Outcome):
            return groups
        return shown_campaign(self._state(chosen, groups, about), twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = self._wrong(spec, about)
        if wrong is not None:
            return wrong
        campaign = unfinished(await self.lookup(spec.name))
        if isinstance(campaign, Outcome):
            return campaign
        if not campaign:
            made = await self._post(f"{self.account}/campaigns", campaign_form(spec, self._settings, about.unit), Made)
            if isinstance(made, Outcome):
                return made
            campaign = made.id
        group = await self._post(
            f"{self.account}/adsets", ad_set_form(spec, self._settings, campaign, about, self._moment()), Made
        )
        return group if isinstance(group, Outcome) else read_back(await self.lookup(spec.name))

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        return _inexact(about, micros) or await self._set(campaign, {"daily_budget": str(micros // about.unit)})

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`. A campaign that bid by itself bids by the account's `bid_strategy` from then on."""
        about = await self.about()
        wrong = about if isinstance(about, Outcome) else _inexact(about, micros) or self.no_id(campaign)
        if wrong is not None:
            return wrong
        assert isinstance(about, AboutAccount)
        shown = await self._get(campaign, {"fields": _CAMPAIGN}, CampaignFields)
        if isinstance(shown, Outcome):
            return shown
        groups = await self._ad_sets(campaign)
        if isinstance(groups, Outcome):
            return groups
        if not groups:
            return refused(INVALID, "not sent: the campaign has no ad set to bid for")
        amount = micros // about.unit
        if shown.bid_strategy in {"", WITHOUT_BID}:
            amounts = json_text({each.id: amount for each in groups})
            return await self._set(
                campaign, {"bid_strategy": self._settings["bid_strategy"], "adset_bid_amounts": amounts}
            )
        return await each_of(
            groups, "ad sets have the bid", lambda each: self._set(each.id, {"bid_amount": str(amount)})
        )

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
        wrong = about if isinstance(about, Outcome) else self.no_id(campaign)
        if wrong is not None:
            return wrong
        assert isinstance(about, AboutAccount)
        asked = {
            "fields": "spend,impressions,clicks,actions,action_values",
            "time_range": json_text({"since": str(day), "until": str(day)}),
            "level": "campaign",
        }
        rows = await self._all(f"{campaign}/insights", asked, Insight)
        if isinstance(rows, Outcome):
            return rows
        spent = total_billed(each.spend for each in rows)
        if isinstance(spent, Outcome):
            return spent
        return shown_report(
            SpendReport(
                day=day,
                spent=spent,
                impressions=sum(int(each.impressions) for each in rows),
                clicks=sum(int(each.clicks) for each in rows),
                conversions=sum(each.number("purchase") for each in rows),
                value=sum(each.worth("purchase") for each in rows),
                final=self.is_final(day, about.time_zone),
            )
        )

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`. Meta takes events of the last seven days; older ones are rejected here."""
        return await self.upload(values, UPLOAD_MAX, self._send_values)

    # -- what is sent --------------------------------------------------------------------------------

    def _wrong(self, spec: CampaignSpec, about: AboutAccount) -> Outcome | None:
        settings = CampaignSettings(spec.settings)
        purpose = PURPOSES.get(Objective(spec.objective))
        if purpose is None:
            settings.wrong("app campaigns of Meta are made by hand; kiki can steer them then")
        elif purpose.event and not self._settings["pixel"]:
            settings.wrong(f"a campaign for {spec.objective} needs the account's setting 'pixel'")
        if not spec.countries:
            settings.wrong("Meta wants to know where: write countries such as [US]")
        return settings.refusal or _inexact(about, spec.daily_budget, spec.bid)

    async def _send_values(self, batch: Sequence[ValueUpload], currency: str) -> Fates | Outcome:
        oldest = self._clock() - round(EVENT_AGE_MAX.total_seconds()) * SECOND
        old = {place for place, each in enumerate(batch) if each.at <= oldest}
        events = [event(each, currency, self._settings["value_event"]) for each in batch if each.at > oldest]
        if not events:
            return fates_of(batch, old)
        if not self._settings["pixel"]:
            return refused(INVALID, "not sent: the plan's setting 'pixel' says where events go")
        taken = await self._post(f"{self._settings['pixel']}/events", {"data": json_text(events)}, Received)
        if isinstance(taken, Outcome):
            return taken
        # Meta counts, and names none: where some are missing nobody knows which.
        if taken.events_received == len(events):
            return fates_of(batch, old)
        return {batch[place].order: Fate.REFUSED for place in old}

    # -- below ---------------------------------------------------------------------------------------

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._clock() / SECOND, UTC)

    async def _ask_about(self) -> AboutAccount | Outcome:
        told = await self._get(self.account, {"fields": "currency,timezone_name,min_daily_budget"}, AccountFields)
        if isinstance(told, Outcome):
            return told
        unit = MICROS if told.currency in WHOLE_CURRENCIES else MICROS // 100
        self._limits = msgspec.structs.replace(self._limits, budget_min=int(told.min_daily_budget) * unit)
        return AboutAccount(currency=told.currency, time_zone=told.timezone_name, unit=unit)

    def _state(self, shown: CampaignFields, groups: Sequence[AdSetFields], about: AboutAccount) -> CampaignState:
        bids = (
            {each.bid_amount and int(each.bid_amount) for each in groups}
            if shown.bid_strategy != WITHOUT_BID
            else {None}
        )
        bid = bids.pop() if len(bids) == 1 else None
        return CampaignState(
            id=shown.id,
            name=shown.name,
            status=shown.standing,
            daily_budget=int(shown.daily_budget) * about.unit if shown.daily_budget else None,
            bid=bid * about.unit if bid else None,
            currency=about.currency,
            account=self.account,
            whole=bool(groups),
        )

    async def _ad_sets(self, campaign: str) -> list[AdSetFields] | Outcome:
        found = await self._all(f"{campaign}/adsets", {"fields": "id,status,bid_amount"}, AdSetFields)
        if isinstance(found, Outcome):
            return found
        return [each for each in found if each.standing is not Status.ENDED]

    async def _set(self, node: str, form: Mapping[str, str]) -> Outcome:
        wrong = self.no_id(node)
        if wrong is not None:
            return wrong
        changed = await self._post(node, form, Changed)
        if isinstance(changed, Outcome):
            return changed
        return done() if changed.success else unknown("not_said", "Meta says neither success nor why not")

    async def _post(self, path: str, form: Mapping[str, str], kind: type[Kind]) -> Kind | Outcome:
        return await self.answer(kind, Request(method="POST", path=path, write=True, form={**form, **self._proof}))

    async def _get(self, path: str, asked: Mapping[str, str], kind: type[Kind]) -> Kind | Outcome:
        return await self.answer(kind, Request(method="GET", path=path, write=False, params={**asked, **self._proof}))

    async def _all(self, path: str, asked: Mapping[str, str], kind: type[Kind]) -> list[Kind] | Outcome:
        """All pages of a list."""
        found: list[Kind] = []
        after: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            page = await self._get(path, {**asked, "limit": "100", **after}, Page[kind])  # type: ignore[valid-type]
            if isinstance(page, Outcome):
                return page
            found += page.data
            if not page.after:
                return found
            after = {"after": page.after}
        return endless(path)


def _inexact(about: AboutAccount, *amounts: int | None) -> Outcome | None:
    return wrong_multiples(about.unit, f"Meta's unit of {about.currency}", *amounts)
