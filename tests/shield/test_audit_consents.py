"""Every decision about a person rests on the consent that was then in force, or is named."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kiki.errors import Denied
from kiki.ledger.entry import decode_entry
from kiki.shield.audit_finding import Kind
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.evidence import chain_of
from kiki.shield.fact import (
    ConsentChanged,
    ConsentUsed,
    Decided,
    Refused,
    decode_fact,
)
from kiki.shield.policy import Policy
from tests.ledger.doubles import SECOND, FakeClock
from tests.shield.audit_chain import T0, UNIT, A, B, Chain, audited, budget, of_reader

ASKS = Policy((budget("mail", "channel:mail", (1000, 60), consent="marketing"), budget("all", "*", (5000, 60))))


def say(chain, state, at, subject=A, purpose="marketing", previous=(), **more):
    fact = ConsentChanged(
        T0 + round(at * SECOND), subject, purpose, state, "consent", previous=list(previous), **more
    )  # fmt: skip
    return chain.add(fact)


def mail(chain, at, *consents, verb="spend", subject=A, **more):
    fact = Decided(
        verb, T0 + round(at * SECOND), "", 0, [[f"customer:{subject}", "channel:mail"]], [UNIT],
        consents=list(consents), **more,
    )  # fmt: skip
    return chain.add(fact)


def used(seq, chain="c0", subject=A, purpose="marketing", given=True):
    return ConsentUsed(subject, purpose, chain, seq, given)


@pytest.fixture
def asking():
    chain = Chain()
    chain.policy(ASKS)
    return chain


def test_a_decision_that_rests_on_the_consent_in_force_is_fine(asking):
    grant = say(asking, "granted", 1)
    for verb in ("spend", "check"):
        mail(asking, 2, used(grant), verb=verb)
    renewed = say(asking, "granted", 3, expires_at=T0 + 10 * SECOND)
    mail(asking, 9, used(renewed))
    report = audited(asking)
    assert ([], 3, {}) == (report.findings, report.consents, report.not_covered)


def test_what_was_refused_for_want_of_consent_needs_none(asking):
    mail(asking, 2, used(-1, "", given=False), refused=[Refused(0, Reason.CONSENT_MISSING)])
    assert ([], 0) == (audited(asking).findings, audited(asking).consents)


@pytest.mark.parametrize(
    ("consents", "said"),
    [
        ([], "names no consent"),
        ([used(1, purpose="analytics")], "names no consent"),
        ([used(1, given=False)], "says itself that there was no consent"),
        ([used(-1)], "names no entry"),
        ([used(0)], "is no consent"),
        ([used(2)], "another person or purpose"),
        ([used(3)], "in which the person said no"),
        ([used(4)], "had said something else since"),
        ([used(99)], "comes after it"),
        ([used(6)], "had ended at 2023-11-14T22:13:26"),
    ],
)
def test_a_decision_against_consent_is_found(asking, consents, said):
    say(asking, "granted", 1)
    say(asking, "granted", 1, subject=B)
    say(asking, "denied", 1)
    say(asking, "granted", 2)
    say(asking, "revoked", 3)
    say(asking, "granted", 4, expires_at=T0 + 6 * SECOND)
    seq = mail(asking, 9, *consents)
    (finding,) = audited(asking).findings
    assert (Kind.CONSENT, seq) == (finding.kind, finding.seq)
    assert said in finding.message


def test_a_purpose_of_the_call_is_asked_for_unless_the_budget_says_none(asking):
    mail(asking, 2, used(1), purpose="analytics")
    mail(asking, 2, subject=B, purpose="analytics", verb="record")
    assert 2 == len(audited(asking).findings)
    chain = Chain()
    chain.policy(Policy((budget("all", "*", (5000, 60), consent="none"),)))
    mail(chain, 1, purpose="analytics")
    assert [] == audited(chain).findings


def test_consent_before_the_range_is_not_covered_and_not_passed_over():
    chain = Chain(first=256)
    chain.policy(ASKS)
    mail(chain, 1, used(9))
    mail(chain, 1, used(9, chain="gone"))
    report = audited(chain)
    assert [] == report.findings
    assert {"decisions that rest on consent given before or outside of the range": 2} == report.not_covered
    chain = Chain(first=256)
    mail(chain, 1)
    assert {
        "decisions about persons before the first policy of the range",
        "spends before the first policy of the range",
    } == set(audited(chain).not_covered)


def test_consent_that_lies_in_another_chain_is_followed_there():
    one, two = Chain("c1"), Chain("c2")
    for chain in (one, two):
        chain.policy(ASKS)
    grant = say(two, "granted", 1)
    revoke = say(two, "revoked", 30, previous=("c2", grant))
    mail(one, 31.5, used(grant, "c2"))
    assert [] == audited(one, two).findings
    assert [] == audited(two, one).findings
    for consents, at, said in (
        (used(grant, "c2"), 60, "had said something else since"),
        (used(revoke, "c2"), 60, "in which the person said no"),
        (used(0, "c2"), 60, "is no consent"),
    ):
        more = Chain("c1")
        more.bodies = [*one.bodies]
        seq = mail(more, at, consents)
        (finding,) = audited(more, two).findings
        assert ("c1", seq) == (finding.chain, finding.seq)
        assert said in finding.message


def test_consent_of_this_chain_that_was_withdrawn_in_another_is_found():
    one, two = Chain("c1"), Chain("c2")
    for chain in (one, two):
        chain.policy(ASKS)
    grant = say(one, "granted", 1)
    say(two, "revoked", 10, previous=("c1", grant))
    mail(one, 12, used(grant, "c1"))
    assert [] == audited(one, two).findings
    seq = mail(one, 40, used(grant, "c1"))
    assert [("c1", seq)] == [(each.chain, each.seq) for each in audited(one, two).findings]


def test_consents_of_a_real_guard_are_never_reported():
    clock = FakeClock(T0)
    with BudgetGuard.open(None, policy=ASKS, clock=clock) as guard:
        for number in range(6):
            clock.advance(1)
            with suppress(Denied):
                guard.spend(1, ["customer:c-1", "channel:mail"])
            with suppress(Denied):
                guard.spend(1, ["customer:c-1"], purpose="analytics")
            (guard.consents.grant if number % 2 else guard.consents.revoke)("c-1", "marketing")
        reader = guard.decider.ledger.store
        report = of_reader(reader)
        assert (2, []) == (report.consents, report.findings)


CUSTOMERS = st.sampled_from(["c-1", "c-2", "c-3"])
PURPOSES = st.sampled_from(["marketing", "analytics"])
SAID = st.one_of(
    st.tuples(st.just("grant"), CUSTOMERS, PURPOSES, st.sampled_from([None, 1, 5, 60])),
    st.tuples(st.just("revoke"), CUSTOMERS, PURPOSES),
    st.tuples(st.just("spend"), st.lists(CUSTOMERS, min_size=1, max_size=3), st.sampled_from([None, "analytics"])),
    st.tuples(st.just("check"), CUSTOMERS, st.sampled_from([None, "analytics"])),
    st.tuples(st.just("advance"), st.sampled_from([0, 0.5, 1, 4.9, 60])),
    st.tuples(st.just("forget"), CUSTOMERS),
)


@settings(max_examples=60, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(SAID, min_size=5, max_size=50))
def test_whatever_persons_say_a_guard_that_listens_is_never_accused(steps):
    """Grants that run out, revocations, batches of several persons, erasures; and without its consent each decision is."""
    clock = FakeClock(T0)
    with BudgetGuard.open(None, policy=ASKS, clock=clock) as guard:
        for what, *given in steps:
            with suppress(Denied):
                if what == "grant":
                    customer, purpose, seconds = given
                    expires = None if seconds is None else clock.now + seconds * SECOND
                    guard.consents.grant(customer, purpose, expires_at=expires)
                elif what == "revoke":
                    guard.consents.revoke(*given)
                elif what == "spend":
                    items = [(1, [f"customer:{customer}", "channel:mail"]) for customer in given[0]]
                    guard.spend_many(items, purpose=given[1])
                elif what == "check":
                    guard.check(1, [f"customer:{given[0]}", "channel:mail"], purpose=given[1])
                elif what == "advance":
                    clock.advance(*given)
                else:
                    guard.decider.forget(f"customer:{given[0]}")
        reader = guard.decider.ledger.store
        report = of_reader(reader)
        assert [] == report.findings
        chain = Chain(chain_of(reader))
        needed = 0
        for _, body in reader.entries():
            fact = decode_fact(decode_entry(body))
            if isinstance(fact, Decided) and len(fact.refused) < len(fact.amounts):
                needed += 1
                fact = msgspec.structs.replace(fact, consents=[each for each in fact.consents if not each.given])
            chain.add(fact, at=decode_entry(body).recorded_at)
        assert {needed, report.consents} == {len({each.seq for each in audited(chain).findings})}
