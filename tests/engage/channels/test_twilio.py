from __future__ import annotations

import time

import pytest
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from kiki.clock import SECOND
from kiki.engage.channel import Content, Message
from kiki.engage.channels.twilio import TwilioChannel
from kiki.engage.event import DeliveryState
from kiki.outbound.outcome import Fate
from kiki.settings import Secret
from tests.engage.fakes.service import SHORT_SECONDS, Answer, Fault, once_taken
from tests.engage.fakes.twilio import ACCOUNT, FakeTwilio, refusal
from tests.engage.webhooks.signers import Form, twilio_call, twilio_reader

TEXT = "Dear Ann & Bob, 10% off: +1 coupon = yours; tschüss"
MESSAGE = Message(action="act 1/&", channel="sms", to="+15551234567", content=Content(text=TEXT))


class LoopbackClient(TwilioHttpClient):
    """The kit's own client, sent to the fake instead of api.twilio.com."""

    def __init__(self, url):
        super().__init__()
        self._url = url

    def request(self, method, url, *args, **options):
        return super().request(method, url.replace("https://api.twilio.com", self._url), *args, **options)


@pytest.fixture
def twilio():
    with FakeTwilio() as fake:
        yield fake


def channel(twilio, token="token", sender="+15550001111", timeout_seconds=60.0):
    return twilio.closing(
        TwilioChannel(
            ACCOUNT,
            Secret(token),
            sender,
            public_url="https://kiki.example/",
            base_url=twilio.url,
            timeout_seconds=timeout_seconds,
        )
    )


def kit(twilio):
    client = LoopbackClient(twilio.url)
    twilio.closing(client.session)
    return Client(ACCOUNT, "token", http_client=client)


def test_what_is_written_is_what_arrives(twilio):
    """The original glued the form together: a plus became a blank and the text ended at the ampersand."""
    outcome = channel(twilio).send(MESSAGE)
    [taken] = twilio.messages
    assert (Fate.DONE, taken["sid"]) == (outcome.fate, outcome.value["provider_id"])
    assert (TEXT, "+15551234567", "+15550001111") == (taken["body"], taken["to"], taken["from"])


def test_the_kit_sends_the_same_fields(twilio):
    channel(twilio).send(MESSAGE)
    kit(twilio).messages.create(
        to=MESSAGE.to, from_="+15550001111", body=TEXT, status_callback=next(iter(twilio.callbacks.values()))
    )
    ours, kits = (call.form for call in twilio.calls)
    assert ours == kits
    assert [TEXT, TEXT] == [one.body for one in kit(twilio).messages.list(to=MESSAGE.to)]


def test_the_callback_names_the_action_and_is_proven(twilio):
    channel(twilio).send(MESSAGE)
    [url] = twilio.callbacks.values()
    form = Form({"MessageSid": ["SM1"], "MessageStatus": ["delivered"]})
    assert RequestValidator("twilio-auth-token").compute_signature(url, form)
    [told] = twilio_reader().read(twilio_call(url, form), 0)
    assert ("act 1/&", DeliveryState.DELIVERED) == (told.action, told.state)


def test_a_messaging_service_is_named_as_one(twilio):
    channel(twilio, sender="MG" + "2" * 32).send(MESSAGE)
    assert "MG" + "2" * 32 == twilio.calls[0].form["MessagingServiceSid"]
    assert "From" not in twilio.calls[0].form


def test_a_number_that_said_stop_is_suppressed_and_asked_once(twilio):
    twilio.opted_out.add(MESSAGE.to)
    outcome = channel(twilio).send(MESSAGE)
    assert (Fate.REFUSED, "suppressed", 1) == (outcome.fate, outcome.code, len(twilio.calls))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refusal(400, 21211, "The 'To' number +1555 is not valid"), "invalid_address"),
        (refusal(400, 21614, "not a mobile number"), "invalid_address"),
        (refusal(400, 21408, "region"), "invalid"),
        (refusal(401, 20003, "Authenticate"), "unauthorized"),
        (refusal(429, 20429, "Too Many Requests"), "throttled"),
    ],
)
def test_errors_have_our_names_and_repeat_no_number(twilio, answer, code):
    twilio.faults += [answer, answer]
    outcome = channel(twilio).send(MESSAGE)
    assert (Fate.REFUSED, code) == (outcome.fate, outcome.code)
    assert "+1555" not in outcome.message


@pytest.mark.parametrize("fault", [*Fault, Answer(503, {})])
def test_what_was_not_answered_is_unknown_and_found_again(twilio, fault):
    seconds = SHORT_SECONDS if fault is Fault.SILENCE_AFTER_TAKING else 60.0
    sent_at = time.time_ns() // 1000
    twilio.faults.append(fault)
    assert Fate.UNKNOWN is once_taken(twilio, lambda: channel(twilio, timeout_seconds=seconds).send(MESSAGE)).fate
    assert 1 == len(twilio.calls)
    found = channel(twilio).find(MESSAGE, sent_at, sent_at + SECOND)
    if isinstance(fault, Answer):  # it was never taken: the list cannot say so for certain
        assert (Fate.UNKNOWN, "not_found_yet") == (found.fate, found.code)
    else:
        assert (Fate.DONE, twilio.messages[0]["sid"]) == (found.fate, found.value["provider_id"])


def test_finding_follows_every_page(twilio):
    line = channel(twilio)
    sent_at = time.time_ns() // 1000
    line.send(MESSAGE)
    for number in range(7):
        line.send(Message(action=f"b{number}", channel="sms", to=MESSAGE.to, content=Content(text=f"other {number}")))
    twilio.page_size_max = 2
    assert line.find(MESSAGE, sent_at, sent_at).is_done
    assert Fate.UNKNOWN is line.find(MESSAGE, sent_at + 3600 * SECOND, sent_at).fate


def test_a_text_that_no_sms_can_hold_is_not_sent(twilio):
    for text in ("", " ", "x" * 1601):
        outcome = channel(twilio).send(Message(action="a", channel="sms", to=MESSAGE.to, content=Content(text=text)))
        assert "invalid" == outcome.code
    assert [] == twilio.calls
