"""Plans: what people write is understood, or every mistake is named by its line."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput, InvalidMoney, PlanError
from kiki.flow import words
from kiki.flow.plan import Bound, Plan, ValueBid
from kiki.flow.plan_text import parse_plan
from tests.flow.plans import SPRING


def test_a_whole_plan_is_understood() -> None:
    plan = parse_plan(SPRING)

    assert ("spring-sale", "USD", 20_000_000_000) == (plan.name, plan.currency, plan.budget)
    assert ["search-brand", "social"] == [each.name for each in plan.campaigns]
    search, social = plan.campaigns
    assert (1_000_000_000, 1_200_000, ("CA", "US")) == (search.daily_budget, search.bid, search.countries)
    assert "meta" == social.platform
    assert ValueBid(share=0.3, floor=5_000_000, ceiling=80_000_000, bound=Bound.LOWER) == social.bid
    assert 14 == len(search.days)
    assert 10 == len(social.days)
    assert all(day.weekday() < 5 for day in social.days)
    assert plan == Plan.load(plan.dump())


def test_the_version_is_of_the_meaning_and_not_of_the_text() -> None:
    same = "# a comment\n" + SPRING.replace("$1,000.00/day", "1000.00 USD / day")
    other = SPRING.replace("$1,000.00/day", "$1,000.01/day")

    assert parse_plan(SPRING).version == parse_plan(same).version
    assert parse_plan(SPRING).version != parse_plan(other).version


def test_a_campaign_s_own_scopes_go_before_the_plan_s_and_none_is_no_other_version() -> None:
    own = parse_plan(SPRING.replace("    objective: sales\n", "    scopes: {team: brand, region: north}\n"))
    search, social = own.campaigns

    assert {"team": "brand", "region": "north", "campaign": "search-brand", "platform": "google_ads"} == own.scopes_of(
        search
    )
    assert {"team": "growth", "campaign": "social", "platform": "meta"} == own.scopes_of(social)
    assert own == Plan.load(own.dump())
    assert b'"scopes":{"team":"growth"}' in parse_plan(SPRING).dump()
    assert 1 == parse_plan(SPRING).dump().count(b'"scopes"')


def test_the_sandbox_needs_no_accounts() -> None:
    head, _, tail = SPRING.partition("platforms:")
    plan = parse_plan(head + "platforms: sandbox\n" + tail[tail.index("campaigns:") :])

    assert plan.sandbox
    assert {"google_ads", "meta"} == {*plan.platforms}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("plan: spring-sale", "plan: Spring Sale", "not the name of a plan"),
        ("plan: spring-sale", "pln: spring-sale", "did you mean 'plan'?"),
        ("$1,000.00/day", "$1,000.00", "does not say for how long"),
        ("$1,000.00/day", "$1,000.00/week", "is per week"),
        ("$1,000.00/day", "$1,000.005/day", "more decimals"),
        ("$1,000.00/day", "$10,00.00/day", "not an amount"),
        ("ends: 2026-12-14", "ends: 2026-11-14", "before it starts"),
        ("ends: 2026-12-14", "ends: 2026-02-30", "not a date"),
        ("    objective: sales", "    scopes: {campaign: x}", "cannot be set here"),
        ("platform: google_ads", "platform: google", "not known"),
        ("name: social", "name: search-brand", "already has the name"),
        ("objective: sales", "objective: fun", "write one of"),
        ("America/New_York", "America/Gotham", "not known"),
        ("consent: targeting", "consnt: targeting", "did you mean 'consent'?"),
        ("{team: growth}", "{campaign: x}", "cannot be set here"),
        ("ceiling: $80", "ceiling: $4", "below its floor"),
        ("[mon, tue, wed, thu, fri]", "[monday]", "not known"),
        ("  meta: {account: act_1}\n", "", "no account"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_is_accepted(old: str, new: str, said: str) -> None:
    assert old in SPRING
    with pytest.raises(PlanError) as caught:
        parse_plan(SPRING.replace(old, new, 1), "plan.yaml")

    found = [problem for problem in caught.value.problems if said in problem]
    assert found, caught.value.problems
    line = SPRING[: SPRING.index(old)].count("\n") + 1
    # What is missing is said of the mapping that lacks it, which begins a line or two above.
    assert line - 2 <= int(found[0].removeprefix("plan.yaml:").partition(":")[0]) <= line


@pytest.mark.parametrize("kept", [b"", b"\xff", b'{"name": "\xff"}', b"[" * 100_000])
def test_a_kept_plan_that_was_altered_is_named(kept: bytes) -> None:
    with pytest.raises(PlanError, match="the kept plan cannot be read"):
        Plan.load(kept)


def test_a_plan_has_one_currency() -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(SPRING.replace("currency: USD", "currency: EUR"))

    assert 7 == sum("not in EUR" in problem for problem in caught.value.problems)


@given(st.text(max_size=300) | st.sampled_from([SPRING]).flatmap(lambda s: st.integers(0, len(s)).map(lambda n: s[:n])))
def test_any_text_is_a_plan_or_a_list_of_mistakes(text: str) -> None:
    try:
        plan = parse_plan(text)
    except PlanError as error:
        problems = error.problems
    else:
        problems = ["none"]
        assert plan == Plan.load(plan.dump())
    assert problems


@pytest.mark.parametrize(
    ("text", "currency", "micros"),
    [
        ("$1,500.00", "USD", 1_500_000_000),
        ("1500 EUR", "EUR", 1_500_000_000),
        ("EUR 1500.5", "EUR", 1_500_500_000),
        ("¥1,200", "JPY", 1_200_000_000),
        ("1.234 BHD", "BHD", 1_234_000),
        ("$2", "AUD", 2_000_000),
    ],
)
def test_amounts_in_words(text: str, currency: str, micros: int) -> None:
    assert micros == words.parse_amount(text, currency)


@pytest.mark.parametrize(
    ("text", "currency"),
    [("1.5", "JPY"), ("1.2345", "BHD"), ("€5", "USD"), ("5 EUR", "USD"), ("-5", "USD"), ("0", "USD"), ("1e3", "USD")],
)
def test_amounts_that_would_have_to_be_guessed_are_refused(text: str, currency: str) -> None:
    with pytest.raises(InvalidMoney):
        words.parse_amount(text, currency)


def test_amounts_for_tables_are_rounded_to_coins() -> None:
    assert ["$552.01", "$552.02", "-$0.01", "¥1", "1.235 BHD"] == [
        words.coins_in_words(552_012_000, "USD"),
        words.coins_in_words(552_015_000, "USD"),
        words.coins_in_words(-5_000, "USD"),
        words.coins_in_words(1_499_999, "JPY"),
        words.coins_in_words(1_234_500, "BHD"),
    ]


def test_shares_and_dates() -> None:
    assert words.parse_share("30%") == pytest.approx(0.3)
    assert date(2026, 12, 1) == words.parse_date("2026-12-01")
    for text in ("30", "0%", "1001%", "x%"):
        with pytest.raises(InvalidInput):
            words.parse_share(text)
    for text in ("2026-1-1", "20261201", "2026-13-01"):
        with pytest.raises(InvalidInput):
            words.parse_date(text)
