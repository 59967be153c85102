"""The shield asked in this process and over HTTP: the same answers."""

from __future__ import annotations

import pytest

from kiki.engage.shield_line import ClientLine, GuardLine, Reserved, decided_note
from kiki.errors import ShieldUnreachable
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.policy import parse_policy
from kiki.shield.shield_client import ShieldClient
from tests.engage.running import RunningShield

POLICY = parse_policy("""
budgets:
  - {name: all, scope: "*", limit: 100, window: 1h}
  - {name: each, scope: "campaign:*", limit: 10, window: 1h}
""")
SCOPES = {"customer": "c-1", "campaign": "book", "platform": "email"}


@pytest.fixture(params=["guard", "client"])
def line(request):
    guard = BudgetGuard.open(policy=POLICY)
    guard.consents.grant("c-1", "marketing")
    if request.param == "guard":
        yield GuardLine(guard)
    else:
        shield = RunningShield(guard)
        with ShieldClient(shield.url) as client:
            yield ClientLine(client)
        shield.close()
    guard.close()


def test_consent_and_money(line):
    assert line.consents(["c-1", "c-2"], "marketing") == [True, False]
    assert line.room(["campaign:book", "platform:email"]) in {10_000_000, 100_000_000}
    first = line.reserve(4_000_000, SCOPES, "k", "marketing")
    assert first.hold
    assert line.reserve(4_000_000, SCOPES, "k", "marketing") == first
    assert line.room(["campaign:book"]) == 6_000_000
    assert line.reserve(7_000_000, SCOPES, "other", "marketing").refusal == "budget_exhausted"
    line.commit(first.hold, 4_000_000)
    line.commit(first.hold, 4_000_000)  # again, after a crash: nothing happens
    line.release(first.hold)
    assert line.room(["campaign:book"]) == 6_000_000
    assert line.reserve(1, {**SCOPES, "customer": "c-2"}, "x", "marketing").refusal == "consent_missing"
    assert line.reserve(0, SCOPES, "y", "marketing") == Reserved()
    assert line.reserve(0, {**SCOPES, "customer": "c-2"}, "z", "marketing").refusal == "consent_missing"


def test_it_tells_its_currency(line):
    assert line.currency() == "USD"


def test_more_notes_than_fit_into_one_call(line):
    line.note(
        [decided_note("engage.decided", f"c-{n}", {"campaign": "book"}, {"verdict": "chosen"}) for n in range(501)]
    )


def test_a_shield_that_is_not_there_raises():
    with ShieldClient("http://127.0.0.1:1", retries=0) as client, pytest.raises(ShieldUnreachable):
        ClientLine(client).consents(["c-1"], "marketing")
