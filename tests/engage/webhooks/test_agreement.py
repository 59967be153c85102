"""Our proofs and the providers' own kits say the same, except where a kit is too trusting."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.clock import SECOND
from kiki.errors import Unauthenticated
from tests.engage.webhooks.signers import hubspot_case, sendgrid_case, twilio_case

NOW = 1_795_000_000 * SECOND
seeds = st.integers(0, 2**32)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_sendgrid_agrees_with_its_kit(seed):
    case = sendgrid_case(Random(seed), now=NOW)
    assert case.kit_accepts == case.we_accept


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_hubspot_agrees_with_its_kit(seed):
    case = hubspot_case(Random(seed))
    assert case.kit_accepts == case.we_accept


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_twilio_agrees_with_its_kit(seed):
    case = twilio_case(Random(seed))
    assert case.kit_accepts == case.we_accept


def test_both_answers_come_often_enough_to_mean_something():
    for make in (lambda rng: sendgrid_case(rng, now=NOW), hubspot_case, twilio_case):
        accepted = sum(make(Random(seed)).we_accept for seed in range(200))
        assert 40 < accepted < 160


@pytest.mark.parametrize("offset", [-26 * 3600, 301, 10**9])
def test_sendgrids_kit_takes_a_replay_and_the_future_and_we_do_not(offset):
    cases = (sendgrid_case(Random(seed), now=NOW, offset_seconds=offset) for seed in range(50))
    trusted = [case for case in cases if case.kit_accepts]
    assert trusted
    for case in trusted:
        with pytest.raises(Unauthenticated, match="seconds"):
            case.reader.read(case.call, case.now)


def test_hubspots_kit_takes_the_future_and_we_do_not():
    cases = (hubspot_case(Random(seed), offset_seconds=310) for seed in range(50))
    trusted = [case for case in cases if case.kit_accepts]
    assert trusted
    for case in trusted:
        with pytest.raises(Unauthenticated, match="in the future"):
            case.reader.read(case.call, case.now)


def test_hubspots_window_ends_after_five_minutes_on_both_sides():
    case = next(made for made in (hubspot_case(Random(seed)) for seed in range(50)) if made.kit_accepts)
    assert abs(case.now - time.time_ns() // 1000) < 60 * SECOND
    sent = int(case.call.headers["x-hubspot-request-timestamp"]) * 1000
    for at, fine in ((sent + 300 * SECOND, True), (sent + 301 * SECOND, False), (sent - 300 * SECOND, True)):
        case.now = at
        assert case.we_accept is fine
