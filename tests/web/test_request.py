"""The strict readers: queries, JSON bodies, Accept."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.web.request import pairs, parse_json, prefers_json, wants_json


def read(raw: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs(SimpleNamespace(raw_query=raw)):
        found.setdefault(name, []).append(value)
    return found


class TestQuery:
    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ("", {}),
            ("amount=100", {"amount": ["100"]}),
            ("a=1&b=2&a=3", {"a": ["1", "3"], "b": ["2"]}),
            ("a&b=&=c&&", {"a": [""], "b": [""], "": ["c"]}),
            ("a=b=c", {"a": ["b=c"]}),
            ("a=1+2%2B3%26", {"a": ["1 2+3&"]}),
            ("%61=1", {"a": ["1"]}),
            ("k=caf%C3%A9", {"k": ["café"]}),
            ("k=café", {"k": ["café"]}),
            ("a;b=1", {"a;b": ["1"]}),
        ],
    )
    def test_what_it_holds(self, raw, expected):
        assert read(raw) == expected

    @pytest.mark.parametrize(
        "raw", ["a=%", "a=%4", "a=%zz", "%=1", "a=%ff", "a=%c3", "a=\udcff", "a=%ed%a0%80", "a=%+4"]
    )
    def test_what_is_no_utf8_or_no_escape_is_refused(self, raw):
        with pytest.raises(InvalidInput):
            read(raw)

    @given(st.dictionaries(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3), max_size=5))
    def test_what_was_quoted_is_read_back(self, params):
        raw = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}" for name, values in params.items() for value in values
        )
        assert read(raw) == params


class TestJson:
    def test_numbers_are_exact(self):
        value = parse_json(b'{"a": 0.1, "b": 1e2, "c": 12, "d": -0.0, "e": [1E-7]}')
        assert value == {
            "a": Decimal("0.1"),
            "b": Decimal("1e2"),
            "c": 12,
            "d": Decimal("-0.0"),
            "e": [Decimal("1E-7")],
        }
        assert {type(value["a"]), type(value["b"]), type(value["c"])} == {Decimal, int}

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (b"", "empty"),
            (b" ", "not valid JSON"),
            (b"{", "not valid JSON"),
            (b'{"a":1}x', "not valid JSON"),
            (b"{'a':1}", "not valid JSON"),
            (b'{"a":"\n"}', "not valid JSON"),
            (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
            (b'{"a":"\xff"}', "not valid UTF-8 .byte 6"),
            ('{"a":1}'.encode("utf-16"), "not valid UTF-8"),
            (b'{"a":1,"a":1}', "'a' is given twice"),
            (b'{"x":{"b":1,"c":2,"b":3}}', "'b' is given twice"),
            (b'{"a":NaN}', "NaN"),
            (b'{"a":Infinity}', "Infinity"),
            (b'{"a":-Infinity}', "-Infinity"),
            (b'{"a":' + b"9" * 41 + b"}", "more than 40 digits"),
            (b'{"a":' + b"9" * 10_000 + b"}", "more than 40 digits"),
            (b'{"a":0.' + b"1" * 64 + b"}", "too long"),
            (b'{"a":1e9999999999999999999999}', "too long or too large"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"a":' * 50_000, "nested too deeply"),
            (b'{"a":"\\ud800"}', "surrogate"),
            (b'{"\\udfff":1}', "surrogate"),
            (b"[]", "must be a JSON object"),
            (b"1", "must be a JSON object"),
            (b"null", "must be a JSON object"),
            (b'"text"', "must be a JSON object"),
        ],
    )
    def test_what_is_not_strict_is_refused_with_a_reason(self, body, told):
        with pytest.raises(InvalidInput, match=told):
            parse_json(body)

    def test_edges_that_are_fine(self):
        assert parse_json(b'{"a":' + b"9" * 40 + b"}")["a"] == 10**40 - 1
        assert parse_json(b'{"a":-' + b"9" * 40 + b"}")["a"] == 1 - 10**40
        assert parse_json(b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}
        assert parse_json(b'{"a":1e400}') == {"a": Decimal("1e400")}
        assert parse_json(b"[1]", lists=True) == [1]
        assert parse_json(b"{}", lists=True) == {}

    @given(
        st.dictionaries(
            st.text(),
            st.recursive(
                st.none() | st.booleans() | st.integers(-(10**39), 10**39) | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=10,
            ),
            max_size=4,
        ),
        st.booleans(),
    )
    def test_what_json_wrote_is_read_back(self, value, ascii_only):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value

    @given(st.binary(max_size=200))
    def test_any_bytes_are_an_object_or_a_refusal(self, body):
        with contextlib.suppress(InvalidInput):
            assert isinstance(parse_json(body), dict)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", False),
        ("", False),
        ("text/plain", False),
        ("application/json", True),
        ("APPLICATION/JSON", True),
        ("application/problem+json", True),
        ("application/*", True),
        ("application/json; charset=utf-8", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("application/json, text/plain, */*", True),
        ("text/plain, application/json", False),
        ("application/json;q=0.5, text/plain", False),
        ("application/json;q=0.9, text/plain;q=0.8", True),
        ("application/json;q=0.5, */*;q=0.1", True),
        ("application/json, */*", True),
        ("application/json;q=0.1, */*;q=1", False),
        ("text/*;q=0.3, application/json;q=0.4", True),
        ("application/json;q=0", False),
        ("application/json;q=nonsense", False),
        ("image/png", False),
        (";;,,q=,", False),
    ],
)
def test_accept(accept, expected):
    """JSON only for who prefers it; text is what everybody else gets."""
    assert prefers_json(accept) is expected
    request = SimpleNamespace(headers={"Accept": accept})
    assert [wants_json(request), wants_json(request)] == [expected, expected]


@given(st.text())
def test_any_accept_header_is_answered(accept):
    assert prefers_json(accept) in {True, False}
