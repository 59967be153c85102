"""Scopes have one form however they were written, and a pattern picks out exactly what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidScope
from kiki.shield.scope import ACCEPTED, SCOPES_MAX, VALUE_LENGTH_MAX, Pattern, kind_of, parse_scopes


def _id(value: object) -> str:
    """A short name for a case: some inputs are megabytes, and some numbers Python refuses to print."""
    return ascii(value[:24])[1:-1] if isinstance(value, str) else type(value).__name__


kinds = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
values = st.text(min_size=1, max_size=VALUE_LENGTH_MAX).filter(lambda text: text.isprintable() and text != "*")
mappings = st.dictionaries(kinds, values, max_size=SCOPES_MAX)


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        (None, ()),
        ({}, ()),
        ([], ()),
        ((), ()),
        ({"platform": "meta"}, ("platform:meta",)),
        (["platform:meta"], ("platform:meta",)),
        (("platform:meta", "campaign:s1"), ("campaign:s1", "platform:meta")),
        ({"platform:meta", "campaign:s1"}, ("campaign:s1", "platform:meta")),
        (["platform:meta", "platform:meta"], ("platform:meta",)),
        (["url:https://example.com:8080/a"], ("url:https://example.com:8080/a",)),
        (["url:a:*"], ("url:a:*",)),
        ({"campaign": "Frühling 2026 🌱"}, ("campaign:Frühling 2026 🌱",)),
        ({"a": "x" * VALUE_LENGTH_MAX}, ("a:" + "x" * VALUE_LENGTH_MAX,)),
    ],
)
def test_scopes_have_one_form(given_: object, canonical: tuple[str, ...]):
    assert parse_scopes(given_) == canonical


def test_any_iterable_will_do():
    assert parse_scopes(f"{kind}:x" for kind in "ba") == ("a:x", "b:x")


@given(mappings, st.randoms(use_true_random=False))
def test_the_form_is_idempotent_and_knows_no_order(scopes: dict[str, str], chance):
    canonical = parse_scopes(scopes)
    assert parse_scopes(canonical) == canonical
    assert list(canonical) == sorted(set(canonical))
    shuffled = [f"{kind}:{value}" for kind, value in scopes.items()] * 2
    chance.shuffle(shuffled)
    assert parse_scopes(shuffled) == canonical
    assert parse_scopes(dict(chance.sample(list(scopes.items()), len(scopes)))) == canonical
    assert {kind_of(scope) for scope in canonical} == set(scopes)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        *[(given_, "must be a mapping or a list") for given_ in ["platform:meta", "", b"a:b", b"", 0, 5, False, 1.5]],
        *[([item], "is not a scope") for item in ["meta", "", "*", 5, None, b"a:b", ["a", "b"], 10**5000]],
        *[([item], "is not a scope kind") for item in [":x", "Platform:x", "1a:x", "_a:x", "a-b:x", " a:x", "é:x"]],
        *[([item], "is not a scope kind") for item in ["a" * 33 + ":x", "a\n:x", "a:x".upper()]],
        *[([item], "is not a value") for item in ["a:", "a:*", "a:\n", "a:x\x00", "a:\ud800", "a:\u2028", "a:\u200e"]],
        ([f"a:{'x' * (VALUE_LENGTH_MAX + 1)}"], "is not a value"),
        *[({"a": value}, "is not a value") for value in [None, 5, True, b"x", ["x"], {}, 10**5000]],
        *[({kind: "x"}, "is not a scope kind") for kind in [None, 5, b"a", "", ("a",), 10**5000]],
        (["a:1", "a:2"], "given twice with different values"),
        ({f"a{n}": "x" for n in range(SCOPES_MAX + 1)}, "are too many"),
    ],
    ids=_id,
)
def test_what_is_no_scope_is_refused(given_: object, said: str):
    with pytest.raises(InvalidScope, match=said) as caught:
        parse_scopes(given_)
    assert ACCEPTED in str(caught.value)
    assert len(str(caught.value)) < 400


@given(
    st.none() | st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()) | st.integers() | st.binary()
)
def test_no_input_raises_anything_but_invalid_scope(given_: object):
    try:
        canonical = parse_scopes(given_)
    except InvalidScope:
        return
    assert parse_scopes(canonical) == canonical


# -- patterns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "everything", "each", "kind"),
    [
        ("*", True, False, None),
        ("platform:meta", False, False, "platform"),
        ("campaign:*", False, True, "campaign"),
        ("url:a:*", False, False, "url"),  # the * is part of a value here
        ("url:*:b", False, False, "url"),
    ],
)
def test_a_pattern_is_one_of_three_things(text: str, everything: bool, each: bool, kind: str | None):
    pattern = Pattern.parse(text)
    assert pattern.text == text
    assert (pattern.is_everything, pattern.is_each, pattern.kind) == (everything, each, kind)


@pytest.mark.parametrize("text", ["", "meta", "*:*", "*:x", ":*", ":", "a:", "A:*", "A:x", "a:\n", "**", "a b:*", " *"])
def test_what_is_no_pattern_is_refused(text: str):
    with pytest.raises(InvalidScope, match="is not a scope pattern: write"):
        Pattern.parse(text)


@pytest.mark.parametrize(
    ("text", "scopes", "instance"),
    [
        ("*", (), "*"),
        ("*", ("platform:meta",), "*"),
        ("platform:meta", (), None),
        ("platform:meta", ("platform:meta",), "platform:meta"),
        ("platform:meta", ("campaign:a", "platform:meta"), "platform:meta"),
        ("platform:meta", ("platform:metal",), None),
        ("platform:meta", ("xplatform:meta",), None),
        ("campaign:*", (), None),
        ("campaign:*", ("platform:meta",), None),
        ("campaign:*", ("campaign:a", "platform:meta"), "campaign:a"),
        ("campaign:*", ("campaign2:a",), None),
        ("a:*", ("ab:x", "b:a:x"), None),
        ("url:a:*", ("url:a:b",), None),
        ("url:a:*", ("url:a:*",), "url:a:*"),
    ],
)
def test_an_instance_is_the_scope_that_is_metered(text: str, scopes: tuple[str, ...], instance: str | None):
    assert Pattern.parse(text).instance(scopes) == instance


@given(mappings, kinds, values)
def test_instances_follow_their_definition(scopes: dict[str, str], kind: str, value: str):
    canonical = parse_scopes(scopes)
    assert Pattern.parse("*").instance(canonical) == "*"
    for each in [kind, *scopes]:
        expected = f"{each}:{scopes[each]}" if each in scopes else None
        assert Pattern.parse(f"{each}:*").instance(canonical) == expected
    for text in [f"{kind}:{value}", *canonical]:
        assert Pattern.parse(text).instance(canonical) == (text if text in canonical else None)
