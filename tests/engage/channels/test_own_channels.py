"""The channels that speak to nobody else's service: the webhook and the outbox."""

from __future__ import annotations

import json
import stat
import threading

import pytest

from kiki.clock import SECOND
from kiki.engage.channel import Content, Message
from kiki.engage.channels.outbox import OutboxChannel, letter, letters
from kiki.engage.channels.webhook import WebhookChannel
from kiki.engage.outbox_page import letter_page, list_page
from kiki.errors import ConfigurationError
from kiki.outbound.outcome import Fate
from kiki.settings import Secret
from kiki.shield.signed_call import check
from tests.engage.fakes.service import Answer, Call, FakeService, Fault

SECRET = "a secret of thirty-two characters"
MESSAGE = Message(
    action="act-1",
    channel="push",
    to="device-9",
    content=Content(text="Dear <Ann>", subject="Hi & bye", html="<b>Dear</b><script>alert(1)</script>"),
    customer="c-1",
    unsubscribe_url="https://engage.example/v1/unsubscribe/token",
)
NOW = 1_795_000_000 * SECOND


class Receiver(FakeService):
    """What a system of one's own does with the calls."""

    def __init__(self):
        super().__init__()
        self.seen = {}
        self.taken = []

    def handle(self, call: Call) -> Answer:
        headers = {"Kiki-Timestamp": "", "Kiki-Nonce": "", "Kiki-Signature": ""}
        headers = {name: call.headers.get(name.lower(), "") for name in headers}
        path = call.path + ("?shop=1" if call.query else "")
        check(SECRET.encode(), call.method, path, headers, call.body, now=NOW // SECOND, seen=self.seen)
        self.taken.append(call.json)
        return Answer(202, {"id": "job-7"})


@pytest.fixture
def receiver():
    with Receiver() as fake:
        yield fake


def webhook(receiver, **options):
    return receiver.closing(
        WebhookChannel(f"{receiver.url}/push?shop=1", Secret(SECRET), name="push", clock=lambda: NOW, **options)
    )


def test_a_signed_call_is_taken_by_who_knows_the_secret(receiver):
    outcome = webhook(receiver).send(MESSAGE)
    assert (Fate.DONE, "job-7") == (outcome.fate, outcome.value["provider_id"])
    assert ("act-1", "c-1", "Dear <Ann>") == tuple(receiver.taken[0][name] for name in ("action", "customer", "text"))
    assert "act-1" == receiver.calls[0].headers["idempotency-key"]


@pytest.mark.parametrize(
    ("answer", "fate", "code"),
    [
        (Answer(409, {"code": "suppressed"}), Fate.REFUSED, "suppressed"),
        (Answer(422, {"code": "nonsense"}), Fate.REFUSED, "invalid"),
        (Answer(500, {}), Fate.UNKNOWN, "server_error"),
        (Answer(302, {}, {"Location": "https://elsewhere.example/"}), Fate.UNKNOWN, "unreadable"),
        (Fault.CUT_AFTER_TAKING, Fate.UNKNOWN, "connection_lost"),
    ],
)
def test_what_a_receiver_says(receiver, answer, fate, code):
    receiver.faults.append(answer)
    outcome = webhook(receiver).send(MESSAGE)
    assert (fate, code, 1) == (outcome.fate, outcome.code, len(receiver.calls))


def test_messages_do_not_go_out_in_clear_or_unsigned():
    with pytest.raises(ConfigurationError) as caught:
        WebhookChannel("http://push.example/", Secret("short"))
    assert 2 == len(caught.value.problems)


def test_many_threads_share_a_line(receiver):
    line = webhook(receiver)
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(line.send(MESSAGE))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 == sum(outcome.is_done for outcome in outcomes) == len(receiver.taken)


def test_the_outbox_keeps_a_message_once(tmp_path):
    box = OutboxChannel(tmp_path / "outbox", clock=lambda: NOW)
    assert box.send(MESSAGE).is_done
    assert box.send(MESSAGE).is_done
    [kept] = letters(tmp_path / "outbox")
    assert ("List-Unsubscribe", "device-9") == (next(iter(kept.headers)), kept.message.to)
    assert MESSAGE.unsubscribe_url in kept.message.content.text
    assert {"act-1.html", "act-1.json"} == {file.name for file in (tmp_path / "outbox").iterdir()}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in (tmp_path / "outbox").iterdir())
    assert "act-1" == json.loads((tmp_path / "outbox" / "act-1.json").read_text())["message"]["action"]


def test_what_is_not_in_the_outbox_was_never_sent(tmp_path):
    box = OutboxChannel(tmp_path)
    assert Fate.REFUSED is box.find(MESSAGE, 0, 0).fate
    box.send(MESSAGE)
    assert box.find(MESSAGE, 0, 0).is_done


@pytest.mark.parametrize("action", ["../etc/passwd", "", ".hidden", "a/b", "a" * 300])
def test_no_action_leads_out_of_the_outbox(tmp_path, action):
    box = OutboxChannel(tmp_path)
    assert "invalid" == box.send(Message(action=action, channel="email", to="x", content=Content(text="x"))).code
    assert letter(tmp_path, action) is None


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"to": "\xff"}'])
def test_a_file_that_is_no_letter_is_passed_over(kept: bytes, tmp_path) -> None:
    (tmp_path / "act-1.json").write_bytes(kept)
    assert letter(tmp_path, "act-1") is None
    assert [] == [*letters(tmp_path)]


def test_a_directory_that_cannot_be_written_refuses(tmp_path):
    (tmp_path / "file").write_text("")
    outcome = OutboxChannel(tmp_path / "file").send(MESSAGE)
    assert (Fate.REFUSED, "unavailable") == (outcome.fate, outcome.code)


def test_the_pages_show_everything_and_run_nothing(tmp_path):
    OutboxChannel(tmp_path, clock=lambda: NOW).send(MESSAGE)
    kept = letter(tmp_path, "act-1")
    assert kept is not None
    page = letter_page(kept)
    assert "<script>" not in page
    assert 'sandbox=""' in page
    assert "Dear &lt;Ann&gt;" in page
    listing = list_page(letters(tmp_path))
    assert ('href="outbox/act-1"' in listing, "Hi &amp; bye" in listing) == (True, True)
    assert "Nothing was sent yet" in list_page([])
