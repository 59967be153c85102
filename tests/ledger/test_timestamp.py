"""Timestamps from OpenSSL's authority: verified before they are kept, and by OpenSSL afterwards."""

from __future__ import annotations

import time

import pytest

from kiki.errors import AnchorUnavailable, SettingsError, TimestampInvalid
from kiki.ledger.timestamp import TimestampService, read_roots, verify_timestamp
from tests.ledger.timestamp_authority import TimestampAuthority, running_authority

NOTE = b"kiki/5f0c2a9b7d3e4f10\n42\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\xe2\x80\x94 kiki AAAA\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_authority(tmp_path_factory.mktemp("tsa")) as authority:
        yield authority


@pytest.fixture
def authority(running):
    running.mood = "honest"
    running.queries.clear()
    return running


@pytest.fixture
def service(authority):
    return TimestampService(authority.url, read_roots(authority.root_file))


def test_a_stamp_holds_here_and_for_openssl(authority, service):
    response = service.stamp(NOTE)
    stamped = verify_timestamp(response, NOTE, [authority.root])
    assert abs(stamped - time.time_ns() // 1000) < 60_000_000
    assert authority.accepts(NOTE, response)
    assert not authority.accepts(NOTE + b"x", response)


def test_the_note_itself_is_not_sent(authority, service):
    """Only its hash: a timestamp service learns nothing."""
    service.stamp(NOTE)
    ((media_type, query),) = authority.queries
    assert "application/timestamp-query" == media_type
    assert b"kiki" not in query


@pytest.mark.parametrize(
    ("mood", "error", "message"),
    [
        ("another", TimestampInvalid, "does not hold"),
        ("refusing", TimestampInvalid, "refused: rejection"),
        ("garbage", TimestampInvalid, "no response of a timestamp service"),
        ("broken", AnchorUnavailable, "answered 500"),
    ],
)
def test_an_authority_that_misbehaves_is_believed_nothing(authority, service, mood, error, message):
    authority.mood = mood
    with pytest.raises(error, match=message) as caught:
        service.stamp(NOTE)
    assert "secret" not in str(caught.value)


def test_an_old_answer_is_not_taken_for_a_new_one(authority, service):
    """The nonce is new each time."""
    service.stamp(NOTE)
    authority.mood = "replay"
    with pytest.raises(TimestampInvalid, match="Nonce"):
        service.stamp(NOTE)


def test_a_stamp_over_something_else_does_not_hold(service, authority):
    response = service.stamp(NOTE)
    with pytest.raises(TimestampInvalid, match="does not hold"):
        verify_timestamp(response, NOTE + b"x", [authority.root])


def test_a_stamp_of_a_stranger_does_not_hold(service, tmp_path):
    response = service.stamp(NOTE)
    stranger = TimestampAuthority(tmp_path)
    for roots in ([stranger.root], read_roots(None), []):
        with pytest.raises(TimestampInvalid):
            verify_timestamp(response, NOTE, roots)


def test_no_altered_byte_of_a_stamp_is_accepted_for_another_time_or_note(service, authority):
    """Not every byte is signed (a certificate beside it may differ), but what it says must stay the same."""
    response = service.stamp(NOTE)
    expected = verify_timestamp(response, NOTE, [authority.root])
    refused = 0
    for place in range(0, len(response), 3):
        altered = response[:place] + bytes([response[place] ^ 1]) + response[place + 1 :]
        try:
            assert expected == verify_timestamp(altered, NOTE, [authority.root])
        except TimestampInvalid:
            refused += 1
    assert refused > len(response) // 3 * 0.9


def test_the_roots_that_every_https_call_trusts_are_the_default():
    assert len(read_roots(None)) > 50


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_refused(tmp_path, content):
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="cannot be read as certificates"):
        read_roots(path)
