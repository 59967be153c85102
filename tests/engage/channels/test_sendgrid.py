from __future__ import annotations

import time

import pytest
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Content as KitContent
from sendgrid.helpers.mail import CustomArg, Header, Mail

from kiki.clock import SECOND
from kiki.engage.channel import Content, Message
from kiki.engage.channels.sendgrid import SendGridChannel, mail
from kiki.outbound.outcome import Fate
from kiki.settings import Secret
from tests.engage.fakes.sendgrid import FakeSendGrid
from tests.engage.fakes.service import SHORT_SECONDS, Answer, Fault, once_taken
from tests.servers import free_port

LINK = "https://engage.example/v1/unsubscribe/token"
MESSAGE = Message(
    action="act-1",
    channel="email",
    to="ann@example.com",
    content=Content(text="Dear Ann", subject="Hello", html="<p>Dear Ann</p>"),
    customer="c-17",
    playbook="win-back",
    unsubscribe_url=LINK,
)


@pytest.fixture
def sendgrid():
    with FakeSendGrid() as fake:
        yield fake


def channel(sendgrid, key="SG.key", timeout_seconds=60.0):
    return sendgrid.closing(
        SendGridChannel(
            Secret(key), "shop@example.com", from_name="Shop", base_url=sendgrid.url, timeout_seconds=timeout_seconds
        )
    )


def test_a_message_is_taken_and_carries_its_way_out(sendgrid):
    outcome = channel(sendgrid).send(MESSAGE)
    assert (Fate.DONE, True) == (outcome.fate, bool(outcome.value["provider_id"]))
    [taken] = sendgrid.mails
    assert ["text/plain", "text/html"] == [part["type"] for part in taken["content"]]
    assert {"List-Unsubscribe": f"<{LINK}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"} == taken["headers"]
    assert all(LINK in part["value"] for part in taken["content"])


def test_sendgrid_learns_the_opaque_action_and_nothing_else(sendgrid):
    """What stands in custom arguments and categories can never be erased there."""
    channel(sendgrid).send(MESSAGE)
    [taken] = sendgrid.mails
    assert {"kiki_action": "act-1"} == taken["custom_args"]
    assert {"from", "subject", "personalizations", "content", "custom_args", "headers"} == set(taken)
    assert "c-17" not in str(taken)


def test_the_kit_makes_the_same_mail_and_the_fake_takes_the_kits(sendgrid):
    ours = mail(MESSAGE, {"email": "shop@example.com", "name": "Shop"})
    plain, html = ours["content"]
    kits = Mail(from_email=("shop@example.com", "Shop"), to_emails="ann@example.com", subject="Hello")
    kits.add_content(KitContent("text/html", html["value"]))
    kits.add_content(KitContent("text/plain", plain["value"]))
    kits.add_custom_arg(CustomArg("kiki_action", "act-1"))
    for name, value in ours["headers"].items():
        kits.add_header(Header(name, value))
    assert ours == kits.get()
    reply = SendGridAPIClient("SG.key", host=sendgrid.url).send(kits)
    assert (202, 1) == (reply.status_code, len(sendgrid.mails))


def test_marketing_without_a_way_out_is_not_sent(sendgrid):
    bare = Message(action="a", channel="email", to="ann@example.com", content=MESSAGE.content)
    outcome = channel(sendgrid).send(bare)
    assert (Fate.REFUSED, "invalid", []) == (outcome.fate, outcome.code, sendgrid.calls)
    receipt = Message(action="a", channel="email", to="ann@example.com", content=MESSAGE.content, is_transactional=True)
    assert channel(sendgrid).send(receipt).is_done
    assert "headers" not in sendgrid.mails[0]


@pytest.mark.parametrize("fault", list(Fault)[:3])
def test_what_was_not_answered_is_unknown_and_not_sent_again(sendgrid, fault):
    sendgrid.faults.append(fault)
    seconds = SHORT_SECONDS if fault is Fault.SILENCE_AFTER_TAKING else 60.0
    outcome = once_taken(sendgrid, lambda: channel(sendgrid, timeout_seconds=seconds).send(MESSAGE))
    assert (Fate.UNKNOWN, 1, 1) == (outcome.fate, len(sendgrid.mails), len(sendgrid.calls))


def test_a_server_that_is_not_there_has_sent_nothing():
    line = SendGridChannel(Secret("SG.key"), "shop@example.com", base_url=f"http://127.0.0.1:{free_port()}")
    outcome = line.send(MESSAGE)
    line.close()
    assert (Fate.REFUSED, "unavailable") == (outcome.fate, outcome.code)


def test_too_often_says_until_when(sendgrid):
    reset = int(time.time()) + 600
    sendgrid.faults.append(
        Answer(
            429,
            {"errors": [{"message": "too many requests"}]},
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)},
        )
    )
    line = channel(sendgrid)
    outcome = line.send(MESSAGE)
    assert (Fate.REFUSED, "throttled", reset * SECOND) == (outcome.fate, outcome.code, outcome.retry_at)
    # Until then the account is left alone.
    again = line.send(MESSAGE)
    assert ("throttled", 1) == (again.code, len(sendgrid.calls))


def test_a_bad_address_and_a_bad_key_have_names_and_no_person(sendgrid):
    outcome = channel(sendgrid).send(
        Message(action="a", channel="email", to="nobody at all", content=MESSAGE.content, unsubscribe_url=LINK)
    )
    assert ("invalid_address", True) == (outcome.code, "nobody" not in outcome.message)
    assert "unauthorized" == channel(sendgrid, key="SG.other").send(MESSAGE).code
    assert "SG." not in repr(channel(sendgrid)) + str(channel(sendgrid, key="SG.other").send(MESSAGE))
