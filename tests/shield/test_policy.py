"""The policy: every form that is read, every mistake that is reported, and nothing that silently changes a number."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput, PolicyError
from kiki.money import MICROS_MAX
from kiki.shield.policy import (
    BUDGETS_MAX,
    DAY,
    HOUR,
    MINUTE,
    SPAN_MAX,
    WINDOWS_MAX,
    Budget,
    Limit,
    Policy,
    format_span,
    format_wait,
    parse_policy,
    parse_span,
    single_budget,
)
from kiki.shield.scope import Pattern
from kiki.yaml_document import PROBLEMS_MAX, TEXT_BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000


def _id(value: object) -> str:
    """A short name for a case: some inputs are megabytes, and some numbers Python refuses to print."""
    return ascii(value[:24])[1:-1] if isinstance(value, str) else type(value).__name__


@pytest.fixture(params=["libyaml", "pure"])
def either_yaml(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """PyYAML with its C scanner and without: a wheel without libyaml must behave the same."""
    if request.param == "pure":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("this PyYAML was built without libyaml")


def problems(text: str, source: str = "p") -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, source)
    return list(caught.value.problems)


def budget(limit: str = "5", window: str = "60", scope: str = '"*"') -> str:
    return f"budgets:\n  - scope: {scope}\n    limit: {limit}\n    window: {window}\n"


def limit_of(text: str) -> int:
    return parse_policy(budget(limit=text)).budgets[0].limits[0].micros


# -- what is read ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("either_yaml")
def test_every_form_is_read():
    policy = parse_policy(
        """
        currency: EUR
        budgets:
          - name: everything
            scope: "*"
            limit: 500
            window: 60s
          - scope: platform:meta
            limit: "250.50"
            window: 1.5h
          - name: each-campaign
            scope: campaign:*
            windows:
              - {limit: 0.1, window: 1h}
              - {limit: 9223372036854.775807, window: 366d}
        """
    )
    assert policy == Policy(
        (
            Budget("everything", Pattern("*"), (Limit(500 * SECOND, MINUTE),)),
            Budget("platform:meta", Pattern("platform:meta"), (Limit(250_500_000, 90 * MINUTE),)),
            Budget("each-campaign", Pattern("campaign:*"), (Limit(100_000, HOUR), Limit(MICROS_MAX, SPAN_MAX))),
        ),
        "EUR",
    )


def test_the_currency_is_the_one_given_unless_the_text_says_another():
    assert parse_policy(budget()).currency == "USD"
    assert parse_policy(budget(), currency="JPY").currency == "JPY"
    assert parse_policy("currency: EUR\n" + budget(), currency="JPY").currency == "EUR"


def test_a_budget_without_a_name_has_its_scope_as_name():
    assert parse_policy(budget(scope="campaign:*")).budgets[0].name == "campaign:*"


def test_names_are_the_text_that_stands_there():
    for name in ["yes", "1.0", "0x10", "2026-11-22", "a" * 64, "0"]:
        text = f'budgets: [{{name: {name}, scope: "*", limit: 1, window: 1}}]'
        assert parse_policy(text).budgets[0].name == name


@pytest.mark.usefixtures("either_yaml")
def test_anchors_and_aliases_are_read():
    policy = parse_policy(
        """
        budgets:
          - {scope: "platform:meta", windows: &usual [{limit: &l 5, window: 1h}, {limit: 7, window: 1d}]}
          - {scope: "platform:google", windows: *usual}
          - {scope: "platform:tiktok", limit: *l, window: 1s}
        """
    )
    meta, google, tiktok = (one.limits for one in policy.budgets)
    assert meta == google == (Limit(5 * SECOND, HOUR), Limit(7 * SECOND, DAY))
    assert tiktok == (Limit(5 * SECOND, SECOND),)


def test_what_stands_beside_the_values_does_not_matter():
    plain = parse_policy(budget())
    for text in [
        "\ufeff" + budget(),
        "---\n" + budget() + "...\n",
        budget().replace("\n", "\r\n"),
        "# a comment\n" + budget().replace("limit: 5", "limit: '5'  # five"),
        '{"budgets":[{"scope":"*","limit":5,"window":60}]}',
    ]:
        assert parse_policy(text) == plain


def test_the_largest_policy_is_read():
    windows = ", ".join(f"{{limit: 1, window: {n}h}}" for n in range(1, WINDOWS_MAX + 1))
    lines = [f"  - {{scope: 'c:{n}', windows: [{windows}]}}\n" for n in range(BUDGETS_MAX)]
    text = "budgets:\n" + "".join(lines)
    assert len(parse_policy(text).budgets) == BUDGETS_MAX
    padding = "#" * (TEXT_BYTES_MAX - len(text))
    assert len(parse_policy(text + padding).budgets) == BUDGETS_MAX
    assert problems(text + padding + "#") == ["p:1: the policy is too large; write at most 1 MiB"]


# -- money -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0.1", 100_000),
        ("'0.1'", 100_000),
        ("500", 500_000_000),
        ("500.0", 500_000_000),
        ("0.000001", 1),
        ("9223372036854.775807", MICROS_MAX),
        ("9007199254.740993", 9_007_199_254_740_993),  # 2**53 + 1: a float would have lost it
    ],
)
def test_a_limit_is_exactly_what_stands_there(text: str, micros: int):
    assert limit_of(text) == micros


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *[
            (word, "is not an amount")
            for word in ["NaN", ".nan", "nan", "Inf", ".inf", "inf", "Infinity", "abc", "true"]
        ],
        *[(word, "is not an amount") for word in ["1e3", "1E3", "1e400", "1.5e-3", "+5", "5.", ".5", "1.2.3", "0x10"]],
        *[(word, "is not an amount") for word in ["$500", "500 USD", "€5", "5%", "5\u200b", "'５'", "'٣'", "1:30"]],
        *[(word, "is not a positive amount") for word in ["-5", "-.inf", "0", "0.00", "'0'", "-0"]],
        *[(word, "has something between its digits") for word in ["1,000", "'1,000.50'", "1_000", "1 000", "0,5"]],
        *[
            (word, "has something between its digits")
            for word in ["'1\u00a0000'", '"1\'000"', "1\u2019000", "1,00,000"]
        ],
        *[(word, "begins with a zero") for word in ["0100", "00", "007.5", "'0100'"]],
        *[(word, "has no value") for word in ["", "~", "null", "''"]],
        *[(word, "is too large") for word in ["9223372036854.775808", "9223372036855", "9" * 5000]],
        *[(word, "has too many decimals") for word in ["0.1234567", "1.0000000"]],
        ("[5]", "is a list"),
        ("{a: 5}", "is a mapping"),
        ("0o17", "is not an amount"),
    ],
    ids=_id,
)
def test_a_limit_that_could_be_misread_is_refused(text: str, said: str):
    (problem,) = problems(budget(limit=text))
    assert problem.startswith("p:3: limit ")
    assert said in problem
    assert "; write " in problem
    assert len(problem) < 400


@given(
    whole=st.integers(0, 10**14).map(str),
    fraction=st.none() | st.text("0123456789", max_size=8),
    quotes=st.sampled_from(["", "'", '"']),
)
def test_limits_follow_a_model_in_fractions(whole: str, fraction: str | None, quotes: str):
    text = whole if fraction is None else f"{whole}.{fraction}"
    legal = fraction is None or 1 <= len(fraction) <= 6
    micros = Fraction(text if legal else "0") * SECOND
    if legal and 0 < micros <= MICROS_MAX:
        assert limit_of(f"{quotes}{text}{quotes}") == micros
        assert Decimal(limit_of(text)) == Decimal(text).scaleb(6)
    else:
        assert len(problems(budget(limit=f"{quotes}{text}{quotes}"))) == 1


# -- windows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        *[(text, MINUTE) for text in ["60", "60.0", "60.000000", "60s", "60.0s", "1m", "1.0m"]],
        ("1.5h", 90 * MINUTE),
        ("0.1m", 6 * SECOND),
        ("0.000001", 1),
        ("0.000001s", 1),
        ("0.5d", 12 * HOUR),
        ("366d", SPAN_MAX),
        ("31622400", SPAN_MAX),
        ("8784h", SPAN_MAX),
        ("0.00000000002d", None),
        ("0.00000000125d", 108),
    ],
)
def test_a_span_is_read_exactly(text: str, micros: int | None):
    if micros is None:
        with pytest.raises(InvalidInput, match="whole number of microseconds"):
            parse_span(text)
    else:
        assert parse_span(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            " ",
            "s",
            "60 s",
            " 60",
            "60 ",
            "60\n",
            "60sec",
            "250ms",
            "1H",
            "1M",
            "1w",
            "1y",
            "1h30m",
            "1:30",
            "60,0",
        ],
        *[
            "-60",
            "+60",
            "-0",
            "0",
            "0s",
            "0.0d",
            "060",
            "00",
            ".5",
            "5.",
            "1e3",
            "NaN",
            "inf",
            "0x3c",
            "1_000",
            "６０",
            "٦٠",
        ],
        *["367d", "366.0000001d", "31622401", "31622400.000001", "9" * 18, "9" * 5000, "0.0000001", "1.0000001s"],
    ],
    ids=_id,
)
def test_a_span_that_is_none_is_refused(text: str):
    with pytest.raises(InvalidInput, match=r"; write a number with a unit") as caught:
        parse_span(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [60, 60.0, None, b"60", True])
def test_a_span_is_text(value: object):
    with pytest.raises(InvalidInput, match="not text"):
        parse_span(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0s"),
        (1, "0.000001s"),
        (SECOND, "1s"),
        (3 * SECOND // 2, "1.5s"),
        (10 * SECOND, "10s"),
        (MINUTE, "60s"),
        (90 * SECOND, "90s"),
        (2 * MINUTE, "2m"),
        (90 * MINUTE, "90m"),
        (HOUR, "1h"),
        (100 * HOUR, "100h"),
        (DAY, "1d"),
        (SPAN_MAX, "366d"),
        (HOUR + 1, "3600.000001s"),
    ],
)
def test_a_span_is_written_as_people_do(micros: int, text: str):
    assert format_span(micros) == text


@given(st.integers(1, SPAN_MAX) | st.integers(1, 366 * 24 * 3600).map(lambda seconds: seconds * SECOND))
def test_a_span_comes_back_from_its_text(micros: int):
    assert parse_span(format_span(micros)) == micros


@given(
    st.integers(0, 10**9).map(str),
    st.none() | st.text("0123456789", min_size=1, max_size=12),
    st.sampled_from(["", "s", "m", "h", "d"]),
)
def test_spans_follow_a_model_in_fractions(whole: str, fraction: str | None, unit: str):
    text = whole if fraction is None else f"{whole}.{fraction}"
    micros = Fraction(text) * {"": SECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}[unit]
    if micros.denominator == 1 and 0 < micros <= SPAN_MAX:
        assert parse_span(text + unit) == micros
        assert parse_policy(budget(window=text + unit)).budgets[0].limits[0].span == micros
    else:
        with pytest.raises(InvalidInput):
            parse_span(text + unit)


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_a_span(text: str):
    with suppress(InvalidInput):
        assert 0 < parse_span(text) <= SPAN_MAX


# -- mistakes --------------------------------------------------------------------------------------------


def test_every_mistake_is_reported_at_once_with_its_line():
    text = """\
currency: usd
budgets:
  - name: Every
    scop: "*"
    limit: 1,000
    window: 250ms
    window: 1s
  - {scope: campaign:*, limit: -5}
  - scope: "customer:ada@example.com"
    windows:
      - {limit: 1, window: 60}
      - {limit: 2, window: 1m}
      - 7
  - just text
extra: 1
"""
    found = problems(text, "budgets.yaml")
    assert [re.sub(r" .*", "", one) for one in found] == [
        f"budgets.yaml:{line}:" for line in [1, 3, 3, 4, 5, 6, 7, 8, 8, 9, 12, 13, 14, 15]
    ]
    assert all(";" in one for one in found)
    assert "ada" not in "".join(found)


@pytest.mark.usefixtures("either_yaml")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "p:1: the policy is empty; write a mapping"),
        ("\n\n# nothing\n", "p:1: the policy is empty; write a mapping"),
        ("---\n~\n", "p:2: the policy is empty; write a mapping"),
        ("- a", "p:1: the policy is a list; write a mapping"),
        ("budgets", "p:1: the policy is text; write a mapping"),
        ("{}", "p:1: the policy has no 'budgets'; write"),
        ("budgets:", "p:1: budgets has no value; write a list"),
        ("budgets: []", "p:1: budgets is an empty list; write a list"),
        ("budgets: {scope: a}", "p:1: budgets is a mapping; write a list"),
        ("budgets: all", "p:1: budgets is text; write a list"),
        ("budgets:\n  -\n", "p:2: a budget has no value; write a mapping"),
        ("budgets: [[]]", "p:1: a budget is a list; write a mapping"),
        ("budget: []", "p:1: the policy has the unknown key 'budget'; did you mean 'budgets'?"),
        ("? [a]\n: 1\n", "p:1: the policy has a list as a key; the keys are currency, budgets"),
        (budget() + "budgets: []", "p:5: the policy has the key 'budgets' twice; write it once"),
        ("currency: US\n" + budget(), "p:1: currency 'US' is not a currency code; write three capital letters"),
        ("currency: [USD]\n" + budget(), "p:1: currency is a list; write three capital letters"),
        ("currency:\n" + budget(), "p:1: currency has no value; write three capital letters"),
        (budget(scope="meta"), "p:2: scope 'meta' is not a scope pattern; write \"*\" (every spend)"),
        (budget(scope="Platform:meta"), "p:2: scope 'Platform:meta' is not a scope pattern; write"),
        (budget(scope="'platform: meta'"), "p:2: scope 'platform: meta' has a space around its value; write"),
        (budget(scope="campaign:spring-*"), "p:2: scope 'campaign:spring-*' has a * inside its value"),
        (budget(scope="url:http:*"), "p:2: scope 'url:http:*' has a * inside its value"),
        (budget(scope="customer:c1"), "p:2: scope 'customer:…' names one person; write 'customer:*'"),
        (budget(scope="{platform: meta}"), "p:2: scope is a mapping; write"),
        (budget(scope=""), "p:2: scope has no value; write"),
        (budget(scope="*"), "in quotes"),
        (budget(scope="*all"), 'p:2: the alias *all stands for nothing; write &all before it, or "*all"'),
        (budget(window="250ms"), "p:4: window '250ms' is not a length of time; write a number with a unit"),
        (budget(window="0"), "p:4: window '0' is empty; write a number with a unit"),
        (budget(window="367d"), "p:4: window '367d' is too long; write a number with a unit"),
        (budget(window=""), "p:4: window has no value; write a number with a unit"),
        (budget(window="[1]"), "p:4: window is a list; write a number with a unit"),
        ("budgets:\n - {limit: 1, window: 1}", "p:2: the budget has no 'scope'; write"),
        ("budgets:\n - {scope: a:b, limit: 1}", "p:2: the budget has no 'window'; write either"),
        ("budgets:\n - {scope: a:b, window: 1}", "p:2: the budget has no 'limit'; write either"),
        ("budgets:\n - {scope: a:b}", "p:2: the budget has no 'limit' and no 'window'; write either"),
        ("budgets:\n - {scope: a:b, windows: []}", "p:2: windows is an empty list; write either"),
        ("budgets:\n - {scope: a:b, windows: }", "p:2: windows has no value; write either"),
        ("budgets:\n - {scope: a:b, windows: {limit: 1}}", "p:2: windows is a mapping; write either"),
        ("budgets:\n - {scope: a:b, windows: [{limit: 1}]}", "p:2: the window has no 'window'; write both"),
        (
            "budgets:\n - {scope: a:b, limit: 1, windows: [{limit: 1, window: 1}]}",
            "p:2: the budget has 'windows' beside 'limit' or 'window'; write either",
        ),
        (
            "budgets:\n - scope: a:b\n   windows: \n   - {limit: 1, window: 60}\n   - {limit: 2, window: 1m}",
            "p:5: another window of this budget (line 4) is also 60s long; write each length once",
        ),
        (
            "budgets:\n - {scope: a:b, windows: [{limit: 1,000, window: 1}]}",
            "p:2: the window has the unknown key '000'",
        ),
        ("budgets:\n - {scope: a:b, <<: {limit: 1}, limit: 1, window: 1}", "p:2: the budget has the merge key '<<'"),
        (
            "budgets:\n - {name: A, scope: a:b, limit: 1, window: 1}",
            "p:2: name 'A' is not a budget's name; write 1 to 64",
        ),
        (
            f"budgets:\n - {{name: {'a' * 65}, scope: a:b, limit: 1, window: 1}}",
            "is not a budget's name; write 1 to 64",
        ),
        ("budgets:\n - {name: , scope: a:b, limit: 1, window: 1}", "p:2: name has no value; write 1 to 64"),
        (
            "budgets:\n - {name: a, scope: a:b, limit: 1, window: 1}\n - {name: a, scope: a:c, limit: 1, window: 1}",
            "p:3: the budget on line 2 already has the name 'a'; give each its own 'name'",
        ),
        (
            "budgets: [{scope: a:b, limit: 1, window: 1}, {scope: a:b, limit: 1, window: 2}]",
            "p:1: the budget on line 1 already has the name 'a:b'; give each its own 'name'",
        ),
        (
            budget(limit="!!float 5"),
            "p:3: the tag 'tag:yaml.org,2002:float' is not read; write the value without a tag",
        ),
        (budget(limit="!money 5"), "p:3: the tag '!money' is not read"),
        ("!!map\n" + budget(), "the tag 'tag:yaml.org,2002:map' is not read"),
        ("%YAML 1.1\n---\n" + budget(), "p:1: a line begins with %, a YAML directive; write"),
        (budget() + "---\n" + budget(), "p:5: a second document begins; write one policy"),
        ("budgets: &b [*b]", "p:1: the alias *b contains itself; write the value out"),
        ("budgets: " + "[" * 20 + "]" * 20, "p:1: values are nested too deep; write at most 16 levels"),
        ("a:\n  b: 'x", "is not YAML"),
        ("\ta: 1", "p:1: the text is not YAML"),
        ("a: b: c", "p:1: the text is not YAML"),
        ("a: }", "p:1: the text is not YAML"),
        ('a: "\\UFFFFFFFF"', "p:1: the text is not YAML"),
        ("a: 1\nb: \x00", "p:2: the character U+0000 is not text; write UTF-8"),
        ("a: 1\nb: \ud800", "p:2: the character U+D800 is not text; write UTF-8"),
        ("a: \x1b[31m", "p:1: the character U+001B is not text; write UTF-8"),
    ],
    ids=_id,
)
def test_each_mistake_says_where_what_and_what_instead(text: str, expected: str):
    (problem, *_) = [one for one in problems(text) if expected in one] or problems(text)
    assert expected in problem
    assert "\n" not in problem


def test_an_alias_is_reported_where_it_is_used():
    text = "budgets:\n - {scope: a:b, limit: &l 0, window: 1}\n - {scope: a:c, limit: *l, window: 1}"
    assert [one[:12] for one in problems(text)] == ["p:2: limit '", "p:3: limit '"]


@pytest.mark.parametrize("of", ["[{}]", "{{k: [{}]}}"])
def test_an_alias_counts_as_what_it_stands_for(of: str):
    """Ten lines of aliases of aliases are a thousand million values, and a line each goes deeper than brackets may."""
    for aliases, problem in ((9, "there are too many values"), (1, "values are nested too deep")):
        lines = "".join(f" - &a{n} {of.format(', '.join([f'*a{n - 1}'] * aliases))}\n" for n in range(1, 20))
        (told,) = problems(f"budgets:\n - &a0 x\n{lines}")
        assert problem in told


def test_too_many_of_something_is_refused():
    many = "".join(f"  - {{scope: 'c:{n}', limit: 1, window: 1}}\n" for n in range(BUDGETS_MAX + 1))
    assert problems("budgets:\n" + many) == [f"p:2: budgets holds {BUDGETS_MAX + 1}; write at most {BUDGETS_MAX}"]
    windows = ", ".join(f"{{limit: 1, window: {n}h}}" for n in range(1, WINDOWS_MAX + 2))
    assert problems(f"budgets: [{{scope: a:b, windows: [{windows}]}}]") == [
        f"p:1: windows holds {WINDOWS_MAX + 1}; write at most {WINDOWS_MAX}"
    ]


def test_a_hostile_text_costs_little():
    for text in [
        "[" * TEXT_BYTES_MAX,
        "- " * (TEXT_BYTES_MAX // 2),
        "{" * TEXT_BYTES_MAX,
        "? " * (TEXT_BYTES_MAX // 2),
    ]:
        assert "nested too deep" in problems(text)[0]
    assert "too many values" in problems("- a\n" * 250_000)[0]
    assert "too large" in problems("é" * (TEXT_BYTES_MAX // 2 + 1))[0]
    laughs = "".join(f"  - &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12))
    assert "too many values" in problems("budgets:\n" + laughs)[0]


def test_the_report_stays_readable():
    found = problems("budgets:\n" + "  - x\n" * 500)
    assert len(found) == PROBLEMS_MAX + 1
    assert found[-1] == f"p: and {500 - PROBLEMS_MAX} more"
    assert len(problems(budget(limit="'" + "x" * 100_000 + "'"))[0]) < 400
    assert len(problems("? " + "x" * 100_000 + "\n: 1")[0]) < 400


_WORDS = st.sampled_from(
    [
        *(
            "budgets",
            "scope",
            "limit",
            "window",
            "windows",
            "name",
            "currency",
            "campaign:*",
            "60s",
            "1h",
            "500",
            "0.1",
        ),
        *(
            ":",
            ": ",
            "- ",
            "\n",
            "\n  ",
            "\n    ",
            "{",
            "}",
            "[",
            "]",
            ",",
            '"*"',
            "*",
            "&a ",
            "*a",
            "!!int ",
            "'",
            '"',
        ),
        *(
            "#",
            "|",
            ">",
            "%",
            "---",
            "...",
            "<<",
            "?",
            "~",
            "\t",
            "\ufeff",
            "\x00",
            "é",
            "\u2028",
            "\\U00110000",
            "NaN",
        ),
    ]
)


@given(st.text(max_size=200) | st.lists(_WORDS, max_size=60).map("".join))
@pytest.mark.usefixtures("either_yaml_module")
def test_no_text_raises_anything_but_a_policy_error(text: str):
    found: tuple[str, ...] = ()
    policy = None
    try:
        policy = parse_policy(text)
    except PolicyError as error:
        found = error.problems
    assert policy is not None or found
    assert all(re.match(r"policy:[0-9]+: .+", one) for one in found)
    assert policy is None or Policy.load(policy.dump()) == policy


@pytest.fixture(scope="module", params=["libyaml", "pure"])
def either_yaml_module(request: pytest.FixtureRequest):
    """The same as `either_yaml`, in the scope that hypothesis wants."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "pure":
            patch.delattr(yaml, "CSafeLoader", raising=False)
        yield


# -- dump, load, digest ----------------------------------------------------------------------------------

_values = st.text(min_size=1, max_size=128).filter(
    lambda text: text.isprintable() and text == text.strip() and "*" not in text
)
_patterns = (
    st.just("*")
    | st.sampled_from(["platform:*", "campaign:*", "customer:*"])
    | st.builds("{}:{}".format, st.sampled_from(["platform", "campaign", "x_1"]), _values)
).map(Pattern.parse)
_limits = st.lists(
    st.builds(Limit, st.integers(1, MICROS_MAX), st.integers(1, SPAN_MAX)),
    min_size=1,
    max_size=4,
    unique_by=lambda x: x.span,
).map(tuple)
_consents = st.sampled_from(["", "none", "marketing"]) | st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
_budgets = st.builds(Budget, st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,63}", fullmatch=True), _patterns, _limits, _consents)
policies = st.builds(
    Policy,
    st.lists(_budgets, min_size=1, max_size=5, unique_by=lambda one: one.name).map(tuple),
    st.from_regex(r"[A-Z]{3}", fullmatch=True),
)


@given(policies)
def test_a_policy_comes_back_from_its_dump(policy: Policy):
    data = policy.dump()
    assert Policy.load(data) == policy
    assert Policy.load(data).dump() == data
    assert parse_policy(data.decode(), currency="XXX") == policy
    assert policy.digest == hashlib.sha256(data).hexdigest()[:16] == Policy.load(data).digest


def test_the_recorded_form_never_changes():
    policy = Policy(
        (
            Budget("all", Pattern("*"), (Limit(500_000_000, MINUTE),)),
            Budget("campaign:*", Pattern("campaign:*"), (Limit(100_000, HOUR), Limit(1, 3 * SECOND // 2))),
        ),
        "EUR",
    )
    assert policy.dump() == (
        b'{"budgets":[{"name":"all","scope":"*","windows":[{"limit":"500.00","window":"60s"}]},'
        b'{"name":"campaign:*","scope":"campaign:*","windows":[{"limit":"0.10","window":"1h"},'
        b'{"limit":"0.000001","window":"1.5s"}]}],"currency":"EUR"}'
    )
    assert policy.digest == "c3257d5f31bcf1ca"


def test_consent_stands_in_the_recorded_form_where_a_budget_asks_for_it():
    asking = Policy((Budget("all", Pattern("*"), (Limit(500_000_000, MINUTE),), "marketing"),), "EUR")
    assert asking.dump() == (
        b'{"budgets":[{"consent":"marketing","name":"all","scope":"*","windows":[{"limit":"500.00","window":"60s"}]}],'
        b'"currency":"EUR"}'
    )


def test_the_ledger_reads_policies_that_a_file_may_not_hold():
    for policy in [Policy(()), single_budget(0, 400 * DAY), Policy((Budget("Ü", Pattern("customer:c"), ()),))]:
        assert Policy.load(policy.dump()) == policy


@pytest.mark.parametrize(
    "data",
    [
        *[b"", b"{", b"\xff", b"null", b"5", b"[]", b"{}", b'{"budgets":[]}', b'{"budgets":{},"currency":"USD"}'],
        *[
            b'{"budgets":[],"currency":5}',
            b'{"budgets":[],"currency":"USD","x":1}',
            b'{"budgets":[5],"currency":"USD"}',
        ],
        b"[" * 200_000,
        b'{"budgets":[{"name":"a","scope":"*","windows":[{"limit":0.1,"window":"60s"}]}],"currency":"USD"}',
        b'{"budgets":[{"name":"a","scope":"*","windows":[{"limit":"NaN","window":"60s"}]}],"currency":"USD"}',
        b'{"budgets":[{"name":"a","scope":"*","windows":[{"limit":"1","window":"1w"}]}],"currency":"USD"}',
        b'{"budgets":[{"name":"a","scope":"?","windows":[{"limit":"1","window":"1s"}]}],"currency":"USD"}',
        b'{"budgets":[{"name":"a","scope":"*","windows":[],"consent":null}],"currency":"USD"}',
        b'{"budgets":[{"name":"a","scope":"*","windows":[],"consents":"x"}],"currency":"USD"}',
        b'{"budgets":' + b"9" * 5000 + b',"currency":"USD"}',
    ],
    ids=_id,
)
def test_what_dump_did_not_write_is_refused(data: bytes):
    with pytest.raises(PolicyError, match="recorded policy"):
        Policy.load(data)


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["budgets", "currency", "name", "scope", "windows", "limit", "window"]), x
            )
        ),
    ).map(lambda x: json.dumps(x).encode())
)
def test_no_bytes_raise_anything_but_a_policy_error(data: bytes):
    with suppress(PolicyError):
        assert isinstance(Policy.load(data), Policy)


# -- queries ---------------------------------------------------------------------------------------------


def test_budgets_for_names_the_budgets_and_the_scopes_they_meter():
    policy = parse_policy(
        """
        budgets:
          - {name: all, scope: "*", limit: 1, window: 1s}
          - {name: meta, scope: "platform:meta", limit: 1, window: 1h}
          - {name: each, scope: "campaign:*", limit: 1, window: 1d}
        """
    )

    def found(*scopes: str) -> list[tuple[str, str]]:
        return [(budget.name, instance) for budget, instance in policy.budgets_for(scopes)]

    assert found() == [("all", "*")]
    assert found("platform:google") == [("all", "*")]
    assert found("campaign:s1", "platform:meta") == [("all", "*"), ("meta", "platform:meta"), ("each", "campaign:s1")]
    assert policy.span_max == DAY
    assert Policy(()).span_max == 0


CONSENTING = """
budgets:
  - {scope: "*", limit: 1, window: 1s}
  - {scope: "platform:meta", limit: 1, window: 1h, consent: targeting}
  - {scope: "campaign:*", limit: 1, window: 1h, consent: marketing}
  - {scope: "platform:receipts", limit: 1, window: 1h, consent: none}
"""


@pytest.mark.parametrize(
    ("scopes", "purpose", "needed"),
    [
        ([], "", set()),
        ([], "marketing", {"marketing"}),
        (["platform:meta"], "", {"targeting"}),
        (["platform:meta"], "targeting", {"targeting"}),
        (["platform:meta"], "analytics", {"targeting", "analytics"}),
        (["campaign:a", "platform:meta"], "", {"targeting", "marketing"}),
        (["platform:receipts"], "", set()),
        (["platform:receipts"], "marketing", set()),
        (["campaign:a", "platform:receipts"], "", {"marketing"}),
        (["campaign:a", "platform:receipts"], "analytics", {"marketing"}),
    ],
)
def test_what_a_person_must_have_consented_to(scopes, purpose, needed):
    """What any budget asks for adds up; `none` takes back what the caller said, and never what a budget asks for."""
    policy = parse_policy(CONSENTING)
    assert needed == policy.purposes_for(scopes, purpose)
    assert policy.asks_consent
    assert not Policy(policy.budgets[:1]).asks_consent


@pytest.mark.parametrize("word", ["Marketing", "1st", "mark eting", "a-b", "x" * 33, "''", "'*'", "é"])
def test_a_purpose_that_is_none_is_reported_with_its_line(word):
    """Such a word would refuse every spend, and nobody would know why."""
    (problem,) = problems(f'budgets:\n  - scope: "*"\n    limit: 1\n    window: 1s\n    consent: {word}\n')
    assert problem.startswith("p:5: consent ")
    assert problem.endswith("write the purpose, such as marketing, or none when these spends need no consent")


@pytest.mark.parametrize("value", ["[marketing]", "{a: b}"])
def test_a_budget_asks_for_one_purpose(value):
    (problem,) = problems(f'budgets:\n  - scope: "*"\n    limit: 1\n    window: 1s\n    consent: {value}\n')
    assert problem.startswith("p:5: ")


# -- what the documentation shows ------------------------------------------------------------------------

_BLOCKS = re.findall(
    r"^```yaml\n(.*?)^```", (ROOT / "docs/policy.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("block", _BLOCKS, ids=range(len(_BLOCKS)))
def test_every_block_of_the_documentation_is_a_policy(block: str):
    assert parse_policy(block, "docs/policy.md").budgets


def test_the_first_block_of_the_documentation_means_what_is_said_of_it():
    assert parse_policy(_BLOCKS[0]) == Policy(
        (
            Budget("everything", Pattern("*"), (Limit(500 * SECOND, MINUTE),)),
            Budget("platform:meta", Pattern("platform:meta"), (Limit(250_500_000, HOUR),)),
            Budget("each-campaign", Pattern("campaign:*"), (Limit(100 * SECOND, HOUR), Limit(1000 * SECOND, 7 * DAY))),
        )
    )


def test_the_block_about_consent_means_what_its_table_says():
    policy = parse_policy(next(block for block in _BLOCKS if "consent" in block))
    rows = [
        ([], set(), {"marketing"}),
        (["platform:meta"], {"targeting"}, {"targeting", "marketing"}),
        (["platform:mail_receipts"], set(), set()),
    ]
    for scopes, without, with_purpose in rows:
        assert (without, with_purpose) == (policy.purposes_for(scopes, ""), policy.purposes_for(scopes, "marketing"))


def test_the_mistakes_in_the_documentation_are_the_ones_reported():
    text = 'budgets:\n\n  - scope: "*"\n    limit: 1,000\n    windw: 60s\n'
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "budgets.yaml")
    assert f"```text\n{caught.value}\n```" in (ROOT / "docs/policy.md").read_text(encoding="utf-8")


def test_the_example_is_a_policy():
    policy = parse_policy((ROOT / "examples/budgets.yaml").read_text(encoding="utf-8"), "budgets.yaml")
    patterns = {one.pattern.text for one in policy.budgets}
    assert {"*", "platform:meta", "campaign:*", "customer:*"} <= patterns
    assert {len(one.limits) for one in policy.budgets} == {1, 2}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (57.5, "57.5 s"), (599, "599.0 s"), (720, "12.0 min"), (12_600, "3.5 h"), (2_592_000, "30.0 d")],
)
def test_a_wait_is_written_as_a_person_reads_it(seconds, shown):
    """Seconds while they are few, then the unit that says most."""
    assert shown == format_wait(round(seconds * 1_000_000))
