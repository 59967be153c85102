from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.template import MessageTemplate
from kiki.errors import ConfigurationError, InvalidInput


def rendered(text="hello", fields=None, **parts):
    return MessageTemplate(text=text, **parts).render(fields or {})


def test_a_message_with_its_fields():
    content = rendered(
        "Dear {{ first_name }}, {{ discount }} % off.",
        {"first_name": "Ann", "discount": 20},
        subject="For {{ first_name }}",
        html="<p>Dear {{ first_name }}</p>",
    )
    assert ("Dear Ann, 20 % off.", "For Ann", "<p>Dear Ann</p>") == (content.text, content.subject, content.html)


def test_html_is_escaped_and_text_is_not():
    fields = {"first_name": '<script>"&'}
    content = rendered("{{ first_name }}", fields, html="<a title='{{ first_name }}'>{{ first_name | upper }}</a>")
    assert '<script>"&' == content.text
    assert "<a title='&lt;script&gt;&#34;&amp;'>&lt;SCRIPT&gt;&#34;&amp;</a>" == content.html


@pytest.mark.parametrize("fields", [{}, {"first_name": ""}, {"first_name": None}])
def test_a_gap_is_an_error_that_names_the_field(fields):
    with pytest.raises(InvalidInput, match="'first_name' is missing"):
        rendered("Dear {{ first_name }}", fields)
    with pytest.raises(InvalidInput, match="html: the field 'first_name'"):
        rendered("hello", fields, html="{{ first_name }}")


def test_what_may_be_missing_says_so():
    text = "Dear {{ first_name | default('friend') }}{% if last_name %} {{ last_name }}{% endif %}"
    assert "Dear friend" == rendered(text, {"first_name": "", "last_name": None}).text
    with pytest.raises(InvalidInput, match="last_name"):  # a name that nobody knows is a mistake even in a question
        rendered(text, {"first_name": "Ann"})


def test_a_subject_stays_one_line():
    assert (
        "Hi Ann Bcc: all@example.com"
        == rendered("x", {"first_name": "Ann\r\nBcc: all@example.com"}, subject="Hi {{ first_name }}").subject
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ first_name", "line 1"),
        ("ok\n{% if %}", "line 2"),
        ("{{ first_name.__class__ }}", "no attributes"),
        ("{{ first_name.upper() }}", "nothing can be called"),
        ("{{ lipsum() }}", "nothing can be called"),
        ("{% include 'a' %}", "include"),
        ("{% import 'a' as b %}", "import"),
        ("{% set a = 1 %}", "set is not possible"),
        ("{{ 2 ** 9 }}", "is not possible"),
        ("{{ first_name | safe }}", "safe"),
        ("{{ first_name | tojson }}", "tojson"),
        ("{% for a in products %}{% for b in products %}{% endfor %}{% endfor %}", "loop within a loop"),
        ("{% macro a() %}{% endmacro %}", "macro"),
        ("{% with a = first_name ~ first_name %}{{ a ~ a }}{% endwith %}", "with is not possible"),
        ("{% filter upper %}{% for a in products %}{{ text }}{% endfor %}{% endfilter %}", "filter is not possible"),
        ("{{ a" + " ~ a" * 1000 + " }}", "fields are named 1001 times"),
    ],
)
def test_what_a_template_may_not_say(source, problem):
    with pytest.raises(ConfigurationError, match="template: ") as caught:
        MessageTemplate(text=source)
    assert problem in str(caught.value)


def test_every_mistake_is_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        MessageTemplate(text="", subject="{{ a", html="{{ b() }}")
    assert 3 == len(caught.value.problems)


@pytest.mark.parametrize("source", ["{{ 'ab' * 99999999 }}", "{{ first_name['__class__'] }}", "{{ 'a' % 1 }}"])
def test_tricks_at_run_time_are_refused(source):
    with pytest.raises((InvalidInput, ConfigurationError)):
        rendered(source, {"first_name": "Ann"})


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 | round(999999, 'ceil') }}",
        "{{ 1 | round(-999999) }}",
        "{{ long | join(long) }}",
        "{{ long | sort | join(long) }}",
        "{{ [long, long] | join(long) | join(long) }}",
        "{{ '1e999' | float | int }}",
        "{{ 'ab' | truncate(-1) }}",
    ],
)
def test_what_would_never_end_or_fit_is_refused(source):
    with pytest.raises(InvalidInput):
        rendered(source, {"long": "y" * 10_000})


def test_join_and_round_do_what_they_should():
    assert "tea, cups" == rendered("{{ products | join(', ') }}", {"products": ("tea", "cups")}).text
    assert "&lt;b&gt; c" == rendered("x", {"a": ("<b>", "c")}, html="{{ a | join(' ') }}").html
    assert "2.35 3.0" == rendered("{{ 2.345678 | round(2) }} {{ 2.1 | round(0, 'ceil') }}").text


def test_a_message_has_an_end():
    with pytest.raises(InvalidInput, match="longer than"):
        rendered("{% for one in products %}{{ long }}{% endfor %}", {"products": ("a",) * 100, "long": "y" * 10_000})


def test_loops_over_lists():
    text = "{% for one in products %}{{ loop.index }}. {{ one }}{% if not loop.last %}, {% endif %}{% endfor %}"
    assert "1. tea, 2. cups" == rendered(text, {"products": ("tea", "cups")}).text


def test_a_misspelt_field_gets_advice():
    template = MessageTemplate(text="Dear {{ frist_name }}", name="win-back")
    assert ["win-back: there is no field 'frist_name'; did you mean 'first_name'?"] == template.unknown_fields(
        {"first_name", "code"}
    )


def test_values_are_plain():
    with pytest.raises(InvalidInput, match="holds a dict"):
        rendered("{{ a }}", {"a": {"b": 1}})


@given(st.text(alphabet="{}%#|ab.'\"()[] \n*+~-1_", max_size=40), st.text(max_size=10))
def test_no_text_breaks_the_renderer(source, value):
    with contextlib.suppress(ConfigurationError, InvalidInput):
        rendered(source, {"a": value, "b": 3}, html=source)
