"""What every channel does, whatever a provider answers: an outcome, never an exception, and never more than one attempt."""

from __future__ import annotations

import pytest

from kiki.engage.channel import Content, Message
from kiki.engage.channels.sendgrid import SendGridChannel
from kiki.engage.channels.twilio import TwilioChannel
from kiki.engage.channels.webhook import WebhookChannel
from kiki.outbound.outcome import Fate, Outcome
from kiki.settings import Secret
from tests.engage.fakes.service import SHORT_SECONDS, Answer, FakeService, Fault, once_taken

MESSAGE = Message(
    action="act-1",
    channel="x",
    to="+15551234567",
    content=Content(text="Hi", subject="Hi"),
    unsubscribe_url="https://engage.example/v1/unsubscribe/token",
)
BODIES = (
    b"", b"null", b"[]", b"{}", b'"x"', b"\xff", b"<html>", b'{"errors": 7}', b'{"errors": [7]}', b'{"errors": [{"field": 7}]}',
    b'{"code": [1]}', b'{"code": {}}', b'{"sid": null}', b'{"messages": [7]}', b'{"messages": [{"sid": 7}]}', b"[" * 5_000,
)  # fmt: skip


class Mad(FakeService):
    answer = Answer(200, b"")

    def handle(self, _call):
        return self.answer


CHANNELS = {
    "sendgrid": lambda url, **time: SendGridChannel(Secret("k"), "shop@example.com", base_url=url, **time),
    "twilio": lambda url, **time: TwilioChannel(
        "AC1", Secret("t"), "+1555", public_url="https://k.example", base_url=url, **time
    ),
    "webhook": lambda url, **time: WebhookChannel(f"{url}/in", Secret("x" * 32), **time),
}


@pytest.fixture(params=CHANNELS)
def kind(request):
    return request.param


@pytest.fixture
def made(kind):
    with Mad() as mad:
        yield mad, mad.closing(CHANNELS[kind](mad.url, timeout_seconds=60.0))


@pytest.mark.parametrize("status", [200, 201, 202, 400, 404, 409])
def test_nonsense_is_an_outcome(made, status):
    mad, channel = made
    for body in BODIES:
        mad.answer = Answer(status, body)
        outcome = channel.send(MESSAGE)
        assert isinstance(outcome, Outcome)
        assert outcome.fate is not Fate.DONE or status < 300
        assert outcome.fate is Fate.REFUSED or status < 300
        if isinstance(channel, TwilioChannel):
            assert Fate.UNKNOWN is channel.find(MESSAGE, 0, 0).fate


@pytest.mark.parametrize("fault", list(Fault)[:3])
def test_what_was_taken_and_not_answered_is_unknown_after_one_attempt(kind, fault):
    with Mad() as mad:
        mad.faults.append(fault)
        seconds = SHORT_SECONDS if fault is Fault.SILENCE_AFTER_TAKING else 60.0
        attempt = lambda: mad.closing(CHANNELS[kind](mad.url, timeout_seconds=seconds)).send(MESSAGE)
        assert (Fate.UNKNOWN, 1) == (once_taken(mad, attempt).fate, len(mad.calls))


def test_a_number_of_attempts_is_the_number_of_messages(made):
    mad, channel = made
    for status in (500, 502, 503, 408, 302, 400):
        mad.answer = Answer(status, b"{}")
        channel.send(MESSAGE)
    assert len(mad.calls) <= 6
