"""Our proofs of webhooks against the providers' own kits: 10,000 generated calls each, some spoilt on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from bench.measure import Row
from kiki.clock import SECOND
from tests.engage.webhooks.signers import Case, hubspot_case, sendgrid_case, twilio_case

CALLS = 10_000
NOW = 1_795_000_000 * SECOND
TOO_OLD = -26 * 3600
TOO_EARLY = 310


def run() -> list[Row]:
    rows = [
        *_agreement("SendGrid", lambda rng: sendgrid_case(rng, now=NOW)),
        *_agreement("HubSpot", hubspot_case),
        *_agreement("Twilio", twilio_case),
    ]
    rows += [
        _stricter("SendGrid, 26 hours old", lambda rng: sendgrid_case(rng, now=NOW, offset_seconds=TOO_OLD)),
        _stricter("SendGrid, from the future", lambda rng: sendgrid_case(rng, now=NOW, offset_seconds=TOO_EARLY)),
        _stricter("HubSpot, from the future", lambda rng: hubspot_case(rng, offset_seconds=TOO_EARLY)),
    ]
    return rows


def _agreement(name: str, make: Callable[[Random], Case]) -> list[Row]:
    differences = accepted = 0
    seconds = 0.0
    for seed in range(CALLS):
        case = make(Random(seed))
        began = time.perf_counter()
        ours = case.we_accept
        seconds += time.perf_counter() - began
        accepted += ours
        differences += ours != case.kit_accepts
    return [
        Row(
            f"{name}: calls of {CALLS:,} on which we and its kit differ ({accepted:,} accepted)",
            str(differences),
            "0",
            differences == 0,
        ),
        Row(f"{name}: one call proved and read", f"{seconds / CALLS * 1e6:.0f} µs"),
    ]


def _stricter(name: str, make: Callable[[Random], Case]) -> Row:
    trusted = [case for case in (make(Random(seed)) for seed in range(CALLS)) if case.kit_accepts]
    ours = sum(case.we_accept for case in trusted)
    return Row(f"{name}: of {len(trusted):,} calls that its kit accepts, we accept", str(ours), "0", ours == 0)
