from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.channel import Content
from kiki.engage.unsubscribe import UnsubscribeLinks, list_headers, opt_out, question_page, with_way_out
from kiki.errors import ConfigurationError, NotFound
from kiki.settings import Secret

KEY, OLDER = Secret("k" * 32), Secret("o" * 32)
LINKS = UnsubscribeLinks("https://engage.example", [KEY, OLDER])


@given(st.text(min_size=1, max_size=50))
def test_a_link_leads_back_to_its_action(action):
    url = LINKS.url(action)
    assert url.startswith("https://engage.example/v1/unsubscribe/")
    assert action == LINKS.action(url.rsplit("/", 1)[1])


def test_links_of_an_older_secret_still_work_and_strangers_do_not():
    token = UnsubscribeLinks("https://engage.example", [OLDER]).token("act-1")
    assert "act-1" == LINKS.action(token)
    with pytest.raises(NotFound):
        UnsubscribeLinks("https://engage.example", [KEY]).action(token)


@given(st.data())
def test_no_other_spelling_of_a_token_is_taken(data):
    token = LINKS.token("act-123")
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCabc019-_=+/. é"))
    forged = token[:place] + letter + token[place + 1 :]
    if forged != token:
        with pytest.raises(NotFound):
            LINKS.action(forged)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_garbage_is_not_found(token):
    with pytest.raises(NotFound):
        LINKS.action(token)


def test_mistakes_of_the_configuration_come_together():
    with pytest.raises(ConfigurationError) as caught:
        UnsubscribeLinks("http://engage.example", [Secret("short")])
    assert 2 == len(caught.value.problems)


def test_the_headers_of_rfc_8058():
    assert {
        "List-Unsubscribe": "<https://e/u/x>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    } == list_headers("https://e/u/x")


def test_a_visible_link_is_added_once_and_before_the_end():
    content = with_way_out(Content(text="Hello", html="<html><body>Hello</body></html>"), "https://e/u/x")
    assert "Hello\n\nUnsubscribe: https://e/u/x\n" == content.text
    assert content.html.endswith('clicktracking="off">Unsubscribe</a></p></body></html>')
    assert content == with_way_out(content, "https://e/u/x")


def test_the_page_asks_and_posts_what_the_rfc_posts():
    assert 'method="post"' in question_page()
    assert 'name="List-Unsubscribe" value="One-Click"' in question_page()


def test_two_clicks_are_one_wish():
    assert opt_out("act-1", 5).id == opt_out("act-1", 9).id
