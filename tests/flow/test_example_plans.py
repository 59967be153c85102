"""The plans of examples/plans are understood, and every adapter opens with what they and the documentation say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.flow.plan_text import parse_plan
from kiki.flow.platforms.registry import ADAPTERS, adapter_of, open_platform, platform_name
from tests.flow.test_platform_contract import CASES

ROOT = Path(__file__).parents[2]
PLANS = sorted((ROOT / "examples/plans").glob("*.yaml"))
TEXTS = {path: path.read_text() for path in PLANS}
DOCS = (ROOT / "docs/platforms.md").read_text()
TITLES = {
    "google_ads": "Google Ads",
    "meta": "Meta",
    "tiktok": "TikTok",
    "linkedin": "LinkedIn",
    "microsoft": "Microsoft Advertising",
    "amazon": "Amazon Ads",
    "x": "X",
    "tradedesk": "The Trade Desk",
}
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCS, flags=re.MULTILINE | re.DOTALL))
MADE = [name for name in ADAPTERS if name in CASES and SECTIONS[TITLES[name]].strip()]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
async def test_an_example_plan_is_understood_and_its_platforms_open(path: Path) -> None:
    text = TEXTS[path]
    plan = parse_plan(text, path.name)
    environ = dict(CASES[path.stem].ENVIRON)  # type: ignore[attr-defined]
    opened = await open_platform(plan, path.stem, environ)
    try:
        assert {path.stem} == {*plan.platforms}
        assert all(campaign.days for campaign in plan.campaigns)
        secrets = [value for name, value in environ.items() if name.endswith(("TOKEN", "SECRET"))]
        assert not [value for value in secrets if value in text]
    finally:
        await opened.close()


def test_every_platform_has_a_plan() -> None:
    assert {*MADE} <= {path.stem for path in PLANS}


@pytest.mark.parametrize("name", MADE)
def test_every_variable_is_documented(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        adapter_of(name).open(Account(account="?"), {})
    named = {
        each
        for problem in caught.value.problems
        for each in re.findall(r"\b[A-Z]+_[A-Z_]{3,}\b(?= is not set)", problem)
    }
    assert named
    documented = {*re.findall(r"`([A-Z]+_[A-Z_]+)`", SECTIONS[TITLES[name]])}
    assert named | {*CASES[name].ENVIRON} <= documented  # type: ignore[attr-defined]


def test_the_names_of_the_first_kiki_are_known() -> None:
    first = ("google_ads", "meta", "tiktok", "linkedin", "amazon", "tradedesk", "x")
    assert [*first] == [platform_name(name) for name in first]
    assert [*first] == [platform_name(f"{name}_smart") for name in first]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("google_ads", {}, ("GOOGLE_ADS_DEVELOPER_TOKEN", "GOOGLE_ADS_REFRESH_TOKEN", "eu_political")),
        ("meta", {"pixl": 1}, ("META_ACCESS_TOKEN", "special_ad_categories", "did you mean 'pixel'?")),
    ],
)
def test_everything_that_an_account_lacks_is_said_at_once(name: str, settings: dict, said: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        adapter_of(name).open(Account(account="1234567890", settings=settings), {})
    assert [] == [each for each in said if each not in "\n".join(caught.value.problems)]


def test_the_front_pages_plan_fits_the_default_budget() -> None:
    plan = parse_plan((ROOT / "examples" / "spring-sale.yaml").read_text(), "spring-sale.yaml")
    assert len(plan.campaigns) == 3
    assert plan.budget is not None
    assert plan.budget <= 500_000_000
