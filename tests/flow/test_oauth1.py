"""Our OAuth 1.0a signatures and those of oauthlib, which X's own package signs with, on many requests."""

from __future__ import annotations

import re
from urllib.parse import unquote

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from oauthlib.oauth1 import Client

from kiki.clock import SECOND
from kiki.flow.platforms.oauth1 import OAuth1
from kiki.settings import Secret

NOW = 1_796_000_000
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
TOKENS = st.text("abcXYZ019-_&=+/ %", min_size=1, max_size=20)


def ours(secrets: tuple[str, str, str, str], nonce: str) -> OAuth1:
    consumer_key, consumer_secret, token, token_secret = secrets
    return OAuth1(
        consumer_key,
        Secret(consumer_secret),
        token,
        Secret(token_secret),
        clock=lambda: NOW * SECOND,
        nonce=lambda: nonce,
    )


def theirs(secrets: tuple[str, str, str, str], nonce: str) -> Client:
    consumer_key, consumer_secret, token, token_secret = secrets
    return Client(
        consumer_key,
        client_secret=consumer_secret,
        resource_owner_key=token,
        resource_owner_secret=token_secret,
        nonce=nonce,
        timestamp=str(NOW),
    )


def signed(header: str) -> dict[str, str]:
    assert header.startswith("OAuth ")
    return {name: unquote(value) for name, value in re.findall(r'(\w+)="([^"]*)"', header)}


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(TOKENS, TOKENS, TOKENS, TOKENS),
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.sampled_from(["https://ads-api.x.com", "http://127.0.0.1:8123", "https://ADS-api.x.com:443", "http://h:80"]),
    st.lists(st.tuples(WORDS.filter(bool), WORDS), max_size=5),
)
def test_a_query_is_signed_as_oauthlib_signs_it(
    secrets: tuple[str, str, str, str], method: str, origin: str, params: list[tuple[str, str]]
) -> None:
    url = str(httpx.Request(method, f"{origin}/12/accounts/18ce54d4x5t/campaigns", params=params).url)
    _, headers, _ = theirs(secrets, "n0nce").sign(url.replace("+", "%20"), method)
    assert signed(headers["Authorization"]) == signed(ours(secrets, "n0nce").header(method, url))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(WORDS.filter(bool), WORDS, min_size=1, max_size=5))
async def test_a_form_is_signed_too_and_json_is_not(form: dict[str, str]) -> None:
    secrets = ("key", "secret", "token", "other")
    request = httpx.Request("POST", "https://ads-api.x.com/12/x", data=form)
    await ours(secrets, "n").apply(request)
    _, headers, _ = theirs(secrets, "n").sign(
        "https://ads-api.x.com/12/x",
        "POST",
        request.content.decode(),
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert signed(headers["Authorization"]) == signed(request.headers["Authorization"])
    plain = httpx.Request("POST", "https://ads-api.x.com/12/x", json=form)
    await ours(secrets, "n").apply(plain)
    assert signed(plain.headers["Authorization"]) == signed(ours(secrets, "n").header("POST", str(plain.url)))


async def test_what_the_rfc_signs() -> None:
    # RFC 5849, 1.2: photos.example.net.
    signer = OAuth1(
        "dpf43f3p2l4k3l03",
        Secret("kd94hf93k423kf44"),
        "nnch734d00sl2jdk",
        Secret("pfkkdhi9sl3r4s00"),
        clock=lambda: 137_131_202 * SECOND,
        nonce=lambda: "chapoH",
    )
    url = "http://photos.example.net/photos?file=vacation.jpg&size=original"
    _, headers, _ = Client(
        "dpf43f3p2l4k3l03",
        "kd94hf93k423kf44",
        "nnch734d00sl2jdk",
        "pfkkdhi9sl3r4s00",
        nonce="chapoH",
        timestamp="137131202",
    ).sign(url)
    assert signed(headers["Authorization"]) == signed(signer.header("GET", url))


def test_secrets_never_show() -> None:
    signer = ours(("key", "consumer-s3cret", "token", "token-s3cret"), "n")
    assert "s3cret" not in repr(signer) + signer.header("GET", "https://ads-api.x.com/12/accounts")
    assert [Secret("consumer-s3cret"), Secret("token-s3cret")] == list(signer.secrets)
