"""What an adapter is told."""

from __future__ import annotations

import pytest

from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.flow.platforms.credentials import Credentials


def test_all_that_is_missing_or_wrong_is_said_at_once() -> None:
    account = Account(account="not a number", settings={"versoin": "v1", "version": "latest"})
    told = Credentials("meta", account, {"B": "höher"})
    told.secret("A", "a token")
    told.text("B", "an id")
    told.setting("version", "v2", r"v\d+", "write v and a number")
    told.account(r"\d+", "write digits")
    told.settings_known({"version"})
    with pytest.raises(ConfigurationError) as caught:
        told.require()
    assert [
        "platform meta: A is not set; it holds a token",
        "platform meta: B holds characters that no header can carry; it holds an id",
        "platform meta: version is 'latest'; write v and a number",
        "platform meta: account is 'not a number'; write digits",
        "platform meta: setting 'versoin' is not known; did you mean 'version'?",
    ] == list(caught.value.problems)


@pytest.mark.parametrize("url", ["http://ads.example", "ftp://127.0.0.1", "ads.example"])
def test_tokens_go_nowhere_in_clear(url: str) -> None:
    told = Credentials("meta", Account(account="1"), {"META_URL": url})
    told.address("META_URL", "https://graph.example")
    with pytest.raises(ConfigurationError):
        told.require()


def test_the_plan_comes_before_the_environment_and_the_environment_before_the_default() -> None:
    for settings, environ, expected in [
        ({"version": "v3"}, {"V": "v2"}, "v3"),
        ({}, {"V": "v2"}, "v2"),
        ({}, {}, "v1"),
    ]:
        told = Credentials("meta", Account(account="1", settings=settings), environ)
        assert expected == told.setting("version", "v1", r"v\d", "write v and a digit", environ="V")
        assert "http://127.0.0.1:1" == told.address("U", "http://127.0.0.1:1/")
        told.require()
