"""Signed calls: only the call that was signed, only now, only once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import Unauthenticated
from kiki.shield.signed_call import REPLAY_SECONDS, check, signed_headers

NOW = 1_795_409_064
NONCE = "9f86d081884c7d659a2feaa0c55ad015"
SECRET = b"0123456789abcdef"
HEADERS = signed_headers(SECRET, "POST", "/erase", b"{}", now=NOW, nonce=NONCE)


def test_the_published_vector():
    """What docs/requests.md gives receivers to test themselves against."""
    assert {
        "Kiki-Timestamp": "1795409064",
        "Kiki-Nonce": "9f86d081884c7d659a2feaa0c55ad015",
        "Kiki-Signature": "v1=9c976ad85a12af429116de1300c672863a3790c7ea87658279aa5cb804b0f496",
    } == HEADERS


def test_a_call_is_good_once():
    seen: dict[str, int] = {}
    check(SECRET, "POST", "/erase", HEADERS, b"{}", now=NOW, seen=seen)
    with pytest.raises(Unauthenticated, match="before"):
        check(SECRET, "POST", "/erase", HEADERS, b"{}", now=NOW, seen=seen)


@pytest.mark.parametrize("seconds", [-REPLAY_SECONDS, REPLAY_SECONDS])
def test_a_call_is_good_for_five_minutes_and_remembered_as_long(seconds: int):
    seen: dict[str, int] = {}
    check(SECRET, "POST", "/erase", HEADERS, b"{}", now=NOW + seconds, seen=seen)
    with pytest.raises(Unauthenticated):
        check(SECRET, "POST", "/erase", HEADERS, b"{}", now=NOW + REPLAY_SECONDS, seen=seen)
    with pytest.raises(Unauthenticated, match="seconds from now"):
        check(SECRET, "POST", "/erase", HEADERS, b"{}", now=NOW + REPLAY_SECONDS + 1, seen=seen)


def test_nonces_are_forgotten_once_their_calls_are_too_old():
    seen = {"old": NOW - 1, "new": NOW}
    check(SECRET, "POST", "/erase", HEADERS, b"{}", now=NOW, seen=seen)
    assert {"new", NONCE} == set(seen)


def test_a_signature_that_is_no_text_is_none():
    """Bytes of a header that are no UTF-8 arrive as lone surrogates."""
    for name in HEADERS:
        with pytest.raises(Unauthenticated):
            check(SECRET, "POST", "/erase", HEADERS | {name: "v1=\udcff"}, b"{}", now=NOW, seen={})


@pytest.mark.parametrize(
    ("method", "path", "body", "secret"),
    [
        ("GET", "/erase", b"{}", SECRET),
        ("POST", "/verify", b"{}", SECRET),
        ("POST", "/erase", b"{} ", SECRET),
        ("POST", "/erase", b"{}", SECRET + b"0"),
    ],
)
def test_another_call_is_not_this_one(method: str, path: str, body: bytes, secret: bytes):
    seen: dict[str, int] = {}
    with pytest.raises(Unauthenticated):
        check(secret, method, path, HEADERS, body, now=NOW, seen=seen)
    assert {} == seen


@given(
    headers=st.dictionaries(st.sampled_from(list(HEADERS)), st.text(max_size=80)),
    now=st.integers(NOW - 1000, NOW + 1000),
)
def test_garbage_is_refused_and_never_remembered(headers, now):
    seen: dict[str, int] = {}
    with pytest.raises(Unauthenticated):
        check(SECRET, "POST", "/erase", HEADERS | headers if len(headers) > 2 else headers, b"{}", now=now, seen=seen)
    assert {} == seen


@given(place=st.integers(0, 66), letter=st.characters())
def test_any_other_signature_is_wrong(place, letter):
    given_signature = HEADERS["Kiki-Signature"]
    changed = given_signature[:place] + letter + given_signature[place + 1 :]
    if changed != given_signature:
        with pytest.raises(Unauthenticated):
            check(SECRET, "POST", "/erase", HEADERS | {"Kiki-Signature": changed}, b"{}", now=NOW, seen={})
