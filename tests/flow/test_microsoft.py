"""Microsoft Advertising: its own package (msads) drives the fake, and its models judge every body that our adapter sends."""

from __future__ import annotations

import asyncio
import json
from datetime import date, datetime
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any

import msgspec
import pytest

from kiki.clock import SECOND
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec, Status, ValueUpload
from kiki.flow.platforms.microsoft import Microsoft
from kiki.flow.platforms.microsoft_zones import REPORT_ZONES, ZONES
from kiki.outbound.outcome import Fate
from tests.flow.fakes.fake import INVALID, THROTTLED, TOKEN, Bill, Got
from tests.flow.fakes.microsoft import ACCOUNT, MicrosoftFake
from tests.flow.fakes.microsoft_kit import AuthorizationData, ServiceClient, model

NAME = "kiki/spring-sale/search-brand"
DAY = date(2026, 12, 1)
SPEC = CampaignSpec(
    name=NAME,
    objective="sales",
    daily_budget=50_500_000,
    bid=1_200_000,
    starts=DAY,
    ends=date(2026, 12, 14),
    countries=("US", "CA"),
)
MODELS: dict[tuple[str, str], Any] = {
    ("POST", "/CustomerManagement/v13/Account/Query"): model("customer", "GetAccountRequest"),
    ("POST", "/CampaignManagement/v13/Campaigns/QueryByAccountId"): model("campaign", "GetCampaignsByAccountIdRequest"),
    ("POST", "/CampaignManagement/v13/Campaigns"): model("campaign", "AddCampaignsRequest"),
    ("PUT", "/CampaignManagement/v13/Campaigns"): model("campaign", "UpdateCampaignsRequest"),
    ("POST", "/CampaignManagement/v13/AdGroups/QueryByCampaignId"): model("campaign", "GetAdGroupsByCampaignIdRequest"),
    ("POST", "/CampaignManagement/v13/AdGroups"): model("campaign", "AddAdGroupsRequest"),
    ("PUT", "/CampaignManagement/v13/AdGroups"): model("campaign", "UpdateAdGroupsRequest"),
    ("POST", "/CampaignManagement/v13/CampaignCriterions/QueryByIds"): model(
        "campaign", "GetCampaignCriterionsByIdsRequest"
    ),
    ("POST", "/CampaignManagement/v13/CampaignCriterions"): model("campaign", "AddCampaignCriterionsRequest"),
    ("POST", "/CampaignManagement/v13/OfflineConversions/Apply"): model("campaign", "ApplyOfflineConversionsRequest"),
    ("POST", "/Reporting/v13/GenerateReport/Submit"): model("reporting", "SubmitGenerateReportRequest"),
    ("POST", "/Reporting/v13/GenerateReport/Poll"): model("reporting", "PollGenerateReportRequest"),
}


class TheirToken:
    """What their package asks for a token."""

    def enrich_headers(self, headers: dict[str, str]) -> None:
        headers["Authorization"] = f"Bearer {TOKEN}"


def kit(fake: MicrosoftFake, service: str) -> Any:
    known = AuthorizationData(
        account_id=ACCOUNT, customer_id="220011", developer_token="a-developer-token", authentication=TheirToken()
    )
    return ServiceClient(service, 13, known, location=fake.url)


def floats(value: Any) -> Any:
    """Their models take amounts as floats and ours writes 50 as 50; in JSON both are one number."""
    if isinstance(value, dict):
        amounts = {"DailyBudget", "Amount", "ConversionValue", "Multiplier"}
        return {
            name: float(each) if name in amounts and isinstance(each, int) else floats(each)
            for name, each in value.items()
        }
    return [floats(each) for each in value] if isinstance(value, list) else value


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def written(value: Any) -> str:
    """Flags and moments, which their model holds as objects."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def judged(got: Got) -> Any:
    """The body as their model reads and writes it, which must be what we sent: nothing unknown, nothing lost."""
    body = floats(got.json)
    several = body.get("CampaignType")
    if several is not None:
        # Their model writes several types as we do, and cannot read what it wrote.
        kinds = model("campaign", "CampaignType")
        body["CampaignType"] = reduce(or_, (kinds[each.strip().upper()] for each in several.split(",")))
    read = MODELS[got.method, got.path].from_dict(body)
    return without_nulls(json.loads(json.dumps(read.to_dict(), default=written)))


async def test_their_models_read_every_body_that_we_send() -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        made = await platform.ensure_campaign(SPEC, "k")
        assert made.is_done, made
        campaign = made.value["campaign"]["id"]
        for outcome in (
            await platform.set_budget(campaign, 60_000_000, "k"),
            await platform.set_bid(campaign, 2_010_000, "k"),
            await platform.resume(campaign, "k"),
            await platform.pause(campaign, "k"),
            await platform.spend_report(campaign, DAY),
            await platform.upload_values(
                campaign,
                [ValueUpload(order="o", click="c", at=1_796_000_000 * SECOND, value=9_990_000, consented=True)],
                "k",
            ),
        ):
            assert outcome.is_done, outcome
        await platform.close()
        assert set(MODELS) == {(each.method, each.path) for each in fake.got}
        for got in fake.got:
            assert floats(got.json) == judged(got), got.path


async def test_their_package_sees_and_changes_what_we_made() -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]

        def drive() -> tuple[Any, Any, Any]:
            service = kit(fake, "CampaignManagementService")
            found = service.get_campaigns_by_account_id(
                model("campaign", "GetCampaignsByAccountIdRequest").from_dict(
                    {"AccountId": ACCOUNT, "CampaignType": "Search"}
                )
            )
            groups = service.get_ad_groups_by_campaign_id(
                model("campaign", "GetAdGroupsByCampaignIdRequest")(campaign_id=campaign)
            )
            change = {"AccountId": ACCOUNT, "Campaigns": [{"Id": campaign, "DailyBudget": 75.25, "Status": "Active"}]}
            changed = service.update_campaigns(model("campaign", "UpdateCampaignsRequest").from_dict(change))
            return found, groups, changed

        found, groups, changed = await asyncio.to_thread(drive)
        assert (NAME, 50.5, "Paused") == (
            found.campaigns[0].name,
            found.campaigns[0].daily_budget,
            found.campaigns[0].status.value,
        )
        assert ("kiki", 1.2) == (groups.ad_groups[0].name, groups.ad_groups[0].cpc_bid.amount)
        assert [] == changed.partial_errors
        shown = (await platform.lookup(NAME)).value["campaign"]
        assert (75_250_000, "active") == (shown["daily_budget"], shown["status"])
        await platform.close()


async def test_their_package_reads_partial_errors_and_reports_of_the_fake() -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await platform.close()
        ordered = next(each.json for each in fake.got if each.path.endswith("/Campaigns"))
        await fake.bill(campaign, DAY, Bill(1_000_000))

        def drive() -> tuple[Any, Any]:
            service, reporting = kit(fake, "CampaignManagementService"), kit(fake, "ReportingService")
            again = service.add_campaigns(model("campaign", "AddCampaignsRequest").from_dict(floats(ordered)))
            request = {
                "Type": "CampaignPerformanceReportRequest",
                "Columns": ["TimePeriod", "CampaignId", "Spend"],
                "Scope": {"AccountIds": [ACCOUNT], "Campaigns": [{"AccountId": ACCOUNT, "CampaignId": campaign}]},
                "Time": {
                    "CustomDateRangeStart": {"Day": 1, "Month": 12, "Year": 2026},
                    "CustomDateRangeEnd": {"Day": 1, "Month": 12, "Year": 2026},
                    "ReportTimeZone": "EasternTimeUSCanada",
                },
            }
            submitted = reporting.submit_generate_report(
                model("reporting", "SubmitGenerateReportRequest").from_dict({"ReportRequest": request})
            )
            polled = reporting.poll_generate_report(
                model("reporting", "PollGenerateReportRequest")(report_request_id=submitted.report_request_id)
            )
            return again, polled

        again, polled = await asyncio.to_thread(drive)
        assert "CampaignServiceCampaignNameAlreadyExists" == again.partial_errors[0].error_code
        assert "Success" == polled.report_request_status.status.value
        assert polled.report_request_status.report_download_url.startswith(fake.url)


async def test_a_report_that_is_not_made_is_no_zero_and_is_asked_for_once() -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        assert isinstance(platform, Microsoft)
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        platform._sleep = sleep
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.bill(campaign, DAY, Bill(12_340_000, 100, 5, 2, 50_000_000))
        fake.pending = 6
        waiting = await platform.spend_report(campaign, DAY)
        assert (Fate.REFUSED, "not_ready", {}) == (waiting.fate, waiting.code, waiting.value)
        assert waiting.is_transient
        made = await platform.spend_report(campaign, DAY)
        assert (12_340_000, 2, 50_000_000) == tuple(
            made.value["report"][name] for name in ("spent", "conversions", "value")
        )
        assert 1 == len(fake.reports)
        assert [1.0, 2.0, 4.0, 1.0, 2.0] == pauses
        fake.failing = True
        failed = await platform.spend_report(campaign, DAY)
        assert Fate.REFUSED is failed.fate
        assert "report" not in failed.value
        await platform.close()


async def test_reports_are_fetched_without_the_accounts_tokens() -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.bill(campaign, DAY, Bill(1_000_000))
        assert (await platform.spend_report(campaign, DAY)).is_done
        (headers,) = fake.downloads
        assert not {"authorization", "developertoken", "customerid"} & {name.lower() for name in headers}
        await platform.close()


async def test_code_117_closes_the_account_for_a_minute() -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.fail(THROTTLED)
        refused = await platform.pause(campaign, "k")
        assert (Fate.REFUSED, "throttled") == (refused.fate, refused.code)
        assert refused.retry_at is not None
        again = await platform.pause(campaign, "k")
        assert ("throttled", refused.retry_at) == (again.code, again.retry_at)
        assert 1 == len([each for each in fake.got if (each.method, each.path[-9:]) == ("PUT", "Campaigns")])
        await platform.close()


@pytest.mark.parametrize(
    ("server", "status"),
    [
        ("BudgetPaused", Status.ACTIVE),
        ("BudgetAndManualPaused", Status.PAUSED),
        ("Suspended", Status.PAUSED),
        ("SomethingNew", Status.ACTIVE),
    ],
)
async def test_what_the_server_paused_may_spend_again(server: str, status: Status) -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        fake.server_status[campaign] = server
        assert status == (await platform.lookup(NAME)).value["campaign"]["status"]
        await platform.close()


async def test_a_partial_error_in_200_is_a_refusal() -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.fail(INVALID)
        refused = await platform.set_budget(campaign, 10_000, "k")
        assert (Fate.REFUSED, "invalid") == (refused.fate, refused.code)
        assert "DailyBudgetAmountIsBelowMinimum" in refused.message
        gone = await platform.set_budget("424242", 50_000_000, "k")
        assert (Fate.REFUSED, "not_found") == (gone.fate, gone.code)
        await platform.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"countries": ("US", "AT")}, "ids of AT are not known here; set 'locations'"),
        ({"objective": "app"}, "campaigns for app"),
        ({"name": "x" * 129}, "129 letters"),
        ({"settings": {"language": "All"}}, "did you mean 'languages'"),
        ({"daily_budget": 1}, "no positive multiple"),
    ],
)
async def test_what_microsoft_cannot_do_is_refused_before_anything_is_made(changes: dict[str, Any], said: str) -> None:
    async with MicrosoftFake() as fake:
        platform = fake.open()
        refused = await platform.ensure_campaign(msgspec.structs.replace(SPEC, **changes), "k")
        assert (Fate.REFUSED, "invalid") == (refused.fate, refused.code)
        assert said in refused.message
        assert not fake.writes
        await platform.close()


async def test_values_need_a_goal() -> None:
    async with MicrosoftFake() as fake:
        platform = Microsoft.open(Account(account=ACCOUNT), fake.environ())
        refused = await platform.upload_values("1", [], "k")
        assert (Fate.REFUSED, "unsupported") == (refused.fate, refused.code)
        await platform.close()


def test_every_time_zone_of_theirs_is_known() -> None:
    assert {each.value for each in model("customer", "TimeZoneType")} == set(ZONES)
    assert {each.value for each in model("reporting", "ReportTimeZone")} == {
        REPORT_ZONES.get(each, each) for each in ZONES
    }


def test_amounts_are_written_digit_for_digit() -> None:
    from kiki.flow.platforms.amounts import dump, whole_currency

    assert b'{"DailyBudget":0.07}' == dump({"DailyBudget": whole_currency(70_000)})
    assert Decimal("7777.001") == whole_currency(7_777_001_000)
