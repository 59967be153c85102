"""Every name of the original works, in both spellings, and every mistake is told at once."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from kiki.cli.engage_wiring import channels_of, source_of, webhook_readers
from kiki.cli.main import app
from kiki.engage.crm.salesforce import SalesforceSource
from kiki.engage.crm.shopify_text import SUBSCRIPTIONS_NEEDED
from kiki.errors import ConfigurationError, SettingsError
from kiki.settings import CRM_NEEDS, EngageSettings
from tests.engage.fakes.hubspot import FakeHubSpot
from tests.engage.fakes.salesforce import FakeSalesforce
from tests.engage.fakes.shopify import TOKEN, FakeShopify
from tests.engage.webhooks.signers import SENDGRID_PUBLIC


def parse(tmp_path, **environ):
    return EngageSettings.parse({"KIKI_DATA_DIR": str(tmp_path), **environ})


@pytest.mark.parametrize("crm", CRM_NEEDS)
def test_what_a_source_lacks_is_told_at_once(tmp_path, crm):
    with pytest.raises(SettingsError) as caught:
        parse(tmp_path, SYNCENGAGE_CRM_PROVIDER=crm, CRM_POLL_INTERVAL="often", HUBSPOT_API_VERSION="v1")
    text = str(caught.value)
    assert all(needed[0] in text for needed in CRM_NEEDS[crm])
    assert ("CRM_POLL_INTERVAL" in text, "HUBSPOT_API_VERSION" in text) == (True, True)


def test_two_spellings_that_differ_are_a_mistake(tmp_path):
    with pytest.raises(SettingsError, match="SALESFORCE_ACCESS_TOKEN and SALESFORCE_API_TOKEN differ") as caught:
        parse(tmp_path, SALESFORCE_ACCESS_TOKEN="one-secret", SALESFORCE_API_TOKEN="two-secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["SHOPIFY_SHOP_URL", "SHOPIFY_STORE_URL"])
def test_a_shop_under_either_name(tmp_path, name):
    with FakeShopify(speed=1_000) as shop:
        shop.customer(7, "2026-01-01T10:00:00Z")
        shop.polls_until_done = 0
        given = {name: shop.url, "SHOPIFY_ACCESS_TOKEN": TOKEN, "SYNCENGAGE_CRM_PROVIDER": "shopify"}
        source = shop.closing(source_of(parse(tmp_path, **given)))
        assert ["7"] == [one.customer for page in source.changes("") for one in page.records]


def test_a_portal_with_fields_of_its_own(tmp_path):
    with FakeHubSpot() as portal:
        portal.contact(1, 1_790_000_000_000, ltv="12.5", shop_id="c-1")
        portal.properties |= {"ltv", "shop_id"}
        given = {"HUBSPOT_API_KEY": "pat-token", "HUBSPOT_API_URL": portal.url}
        given |= {"HUBSPOT_FIELDS": "total_spend=ltv", "HUBSPOT_ID_PROPERTY": "shop_id"}
        source = portal.closing(source_of(parse(tmp_path, **given), "hubspot"))
        [page] = source.changes("")
    assert [("c-1", 12_500_000)] == [(one.customer, one.total_spend) for one in page.records]


def test_webhooks_that_would_name_nobody_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="HUBSPOT_CLIENT_SECRET"):
        parse(tmp_path, HUBSPOT_CLIENT_SECRET="geheim", HUBSPOT_ID_PROPERTY="shop_id")


def test_an_org_whose_app_gets_its_own_tokens(tmp_path):
    with FakeSalesforce() as org:
        org.contact(1)
        given = {"SALESFORCE_INSTANCE": org.url, "SALESFORCE_CLIENT_ID": "app", "SALESFORCE_CLIENT_SECRET": "geheim"}
        source = org.closing(source_of(parse(tmp_path, **given, SYNCENGAGE_CRM_PROVIDER="salesforce")))
        assert isinstance(source, SalesforceSource)
        assert () == source.check()
    assert 1 == org.tokens_given


def test_a_host_alone_is_an_https_address(tmp_path):
    settings = parse(tmp_path, SALESFORCE_INSTANCE="acme.my.salesforce.com", SHOPIFY_SHOP_URL="tea.myshopify.com")
    assert ("https://acme.my.salesforce.com", "https://tea.myshopify.com") == (
        settings.salesforce_instance,
        settings.shopify_shop,
    )
    with pytest.raises(SettingsError, match="SHOPIFY_SHOP_URL"):
        parse(tmp_path, SHOPIFY_SHOP_URL="http://tea.myshopify.com")


def test_a_map_of_fields_that_makes_no_sense_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match="SALESFORCE_FIELDS: 'ltv' is no field of a profile"):
        source_of(
            parse(tmp_path, SALESFORCE_FIELDS="ltv=x", SALESFORCE_INSTANCE="a.b", SALESFORCE_API_TOKEN="t"),
            "salesforce",
        )


def test_channels_and_readers_of_everything_and_no_secret_is_shown(tmp_path):
    settings = parse(
        tmp_path,
        SENDGRID_API_KEY="SG.geheim",
        SENDGRID_FROM_EMAIL="shop@example.com",
        SENDGRID_WEBHOOK_KEY=SENDGRID_PUBLIC,
        TWILIO_ACCOUNT_SID="AC1",
        TWILIO_AUTH_TOKEN="geheim",
        TWILIO_FROM_PHONE="+15550001111",
        TWILIO_SHARED_KEYS="key-1=geheim",
        SHOPIFY_SHOP_URL="tea.myshopify.com",
        SHOPIFY_API_SECRET="geheim",
        HUBSPOT_CLIENT_SECRET="geheim",
        KIKI_ENGAGE_PUBLIC_URL="https://kiki.example",
    )
    channels = channels_of(settings)
    assert {"email", "sms"} == set(channels)
    assert {"shopify", "hubspot", "sendgrid", "twilio"} == {reader.name for reader in webhook_readers(settings)}
    assert "geheim" not in repr(settings)
    for channel in channels.values():
        channel.close()


def checks(monkeypatch, **environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    reply = CliRunner().invoke(app, ["doctor", "--json"])
    return [
        one for one in json.loads(reply.stdout)["checks"] if one["name"] in {"customers", "webhooks", "engage settings"}
    ]


def test_the_doctor_asks_the_source(tmp_path, monkeypatch):
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("KIKI_REDIS", "off")
    assert [] == checks(monkeypatch)
    with FakeShopify() as shop:
        shop.scopes = ("read_customers", "read_orders", "write_customers")
        given = {"SYNCENGAGE_CRM_PROVIDER": "shopify", "SHOPIFY_SHOP_URL": shop.url, "SHOPIFY_ACCESS_TOKEN": TOKEN}
        [scope] = checks(monkeypatch, **given)
        assert ("fail", True) == (scope["state"], "60 days" in scope["said"])
        shop.scopes += ("read_all_orders",)
        shop.subscriptions = set(SUBSCRIPTIONS_NEEDED)
        customers, webhooks = checks(monkeypatch, SHOPIFY_API_SECRET="geheim")
    assert ("ok", "warn") == (customers["state"], webhooks["state"])
    [problem, *_] = checks(monkeypatch, SYNCENGAGE_CRM_PROVIDER="hubspot")
    assert ("engage settings", True) == (problem["name"], "HUBSPOT_API_KEY" in problem["said"])
