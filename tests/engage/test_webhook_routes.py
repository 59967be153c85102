"""Calls signed by the providers' own kits, over real HTTP: what was signed is what is checked, to the byte."""

from __future__ import annotations

import json
import time
from functools import partial
from queue import Queue
from threading import Event
from urllib.parse import quote, urlencode

import httpx
import pytest
from twilio.request_validator import RequestValidator

from kiki.engage.webhooks.hubspot import HubSpotReader
from kiki.engage.webhooks.sendgrid import SendGridReader
from kiki.settings import Secret
from kiki.shield.budget_guard import BudgetGuard
from tests.engage.running import RunningEngage
from tests.engage.webhooks.signers import (
    HUBSPOT_SECRET,
    SENDGRID_PUBLIC,
    TWILIO_TOKEN,
    Form,
    hubspot_call,
    sendgrid_call,
    twilio_reader,
)

get, post = (partial(each, timeout=60, trust_env=False) for each in (httpx.get, httpx.post))


class Slow:
    """A shield that takes its time over requests of persons."""

    made: Queue[tuple[str, str]] = Queue()
    may_go_on = Event()

    def demand(self, customer: str, kind: str, _key: str, _by: str) -> str:
        assert self.may_go_on.wait(100)
        self.made.put((customer, kind))
        return "DSR-1"


@pytest.fixture(scope="module")
def engage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("webhooks")
    readers = (twilio_reader(), HubSpotReader(Secret(HUBSPOT_SECRET)), SendGridReader(SENDGRID_PUBLIC))
    with BudgetGuard.open(limit="1000", window="1h") as guard:
        running = RunningEngage(folder, "http://127.0.0.1:1", guard, readers=readers, requests=Slow())
        yield running
        running.close()


def stopped(engage, address, channel):
    with engage.store.database.writing() as tx:
        return engage.store.suppressions.holds(tx, "", channel, address)


@pytest.mark.parametrize("action", ["act-1", "a/b c&d=é+%", "%2F"])
def test_twilios_url_is_checked_as_it_came(engage, action):
    """A server that writes the query anew (%2F as /) would refuse honest calls."""
    url = f"{engage.url}/v1/webhooks/twilio?{urlencode({'action': action})}"
    number = f"+1555123{len(action):04d}"
    form = Form(
        {"MessageSid": [f"SM{len(action)}"], "MessageStatus": ["failed"], "ErrorCode": ["21610"], "To": [number]}
    )
    signature = RequestValidator(TWILIO_TOKEN).compute_signature(url, form)
    fields = {name: one for name, [one] in form.items()}
    reply = post(url, data=fields, headers={"X-Twilio-Signature": signature})
    assert (200, True) == (reply.status_code, stopped(engage, number, "sms"))
    again = post(url, data=fields, headers={"X-Twilio-Signature": signature})
    assert {"kept": 0} == again.json()
    assert 401 == post(url + "x", data=fields, headers={"X-Twilio-Signature": signature}).status_code


def test_hubspots_uri_is_checked_as_it_came(engage):
    url = f"{engage.url}/v1/webhooks/hubspot?to={quote('a:b/c d', safe='')}"
    event = {"eventId": 1, "subscriptionType": "contact.creation", "objectId": 5, "occurredAt": 1_790_000_000_000}
    call = hubspot_call(json.dumps([event]).encode(), time.time_ns() // 1000, url)
    assert 200 == post(url, content=call.body, headers=dict(call.headers)).status_code
    assert 401 == post(url, content=call.body + b" ", headers=dict(call.headers)).status_code


def test_a_platform_that_demands_gets_its_answer_before_the_shield_s(engage):
    event = {
        "eventId": 9,
        "subscriptionType": "contact.privacyDeletion",
        "objectId": 55,
        "occurredAt": 1_790_000_000_000,
    }
    url = f"{engage.url}/v1/webhooks/hubspot"
    call = hubspot_call(json.dumps([event]).encode(), time.time_ns() // 1000, url)
    assert {"kept": 1} == post(url, content=call.body, headers=dict(call.headers)).json()
    assert Slow.made.empty()
    Slow.may_go_on.set()
    assert ("55", "DELETION") == Slow.made.get(timeout=60)


def test_a_spam_report_stops_mail_and_a_repeat_changes_nothing(engage):
    event = {"event": "spamreport", "timestamp": 1_790_000_000, "sg_event_id": "e-9", "email": "ann@example.com"}
    call = sendgrid_call(json.dumps([event]).encode(), int(time.time()))
    url = f"{engage.url}/v1/webhooks/sendgrid"
    assert {"kept": 1} == post(url, content=call.body, headers=dict(call.headers)).json()
    assert stopped(engage, "ann@example.com", "email")
    assert {"kept": 0} == post(url, content=call.body, headers=dict(call.headers)).json()
    stale = sendgrid_call(call.body, int(time.time()) - 26 * 3600)
    assert 401 == post(url, content=stale.body, headers=dict(stale.headers)).status_code


def test_pages_have_one_policy_that_lets_them_be_seen(engage):
    reply = get(f"{engage.url}/v1/unsubscribe/{engage.links.token('act-1')}")
    [policy] = reply.headers.get_list("Content-Security-Policy")
    assert ("style-src 'unsafe-inline'" in policy, "form-action 'self'" in policy) == (True, True)
