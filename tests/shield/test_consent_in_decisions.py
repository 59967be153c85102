"""No spend for a person who did not consent to it, and every decision says which consent it looked at."""

from __future__ import annotations

import threading
import time

import apsw
import pytest

from kiki.errors import KeyReused, LedgerUnavailable, SpendDenied
from kiki.ledger.ledger import read_entries
from kiki.ledger.sqlite import SqliteReader
from kiki.ledger.store import Write
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import commit_call, record_call, reserve_call, spend_call, spend_many_call, switch
from kiki.shield.change import Change
from kiki.shield.consent import CONSENT, LEASE_HELD, State, consent_key
from kiki.shield.consent_change import consent_change
from kiki.shield.consent_view import ConsentView
from kiki.shield.decider import new_hold_id
from kiki.shield.evidence_csv import csv_line
from kiki.shield.evidence_row import rows
from kiki.shield.fact import ConsentChanged, ConsentUsed, Decided, decode_fact
from kiki.shield.policy import Policy, parse_policy
from tests.ledger.doubles import SECOND, FakeClock

UNIT = 1_000_000
ALICE, BOB = {"customer": "alice"}, {"customer": "bob"}
POLICY = parse_policy(
    """
    budgets:
      - {scope: "*", limit: 1000, window: 60s}
      - {scope: "platform:meta", limit: 1000, window: 60s, consent: targeting}
      - {scope: "platform:receipts", limit: 1000, window: 60s, consent: none}
    """
)
META, RECEIPTS = {"platform": "meta"}, {"platform": "receipts"}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def guard(clock):
    with BudgetGuard.open(policy=POLICY, clock=clock) as guard:
        yield guard


def batch(guard, *works):
    tickets = [guard.decider.group.submit(work) for work in works]
    guard.decider.group.drain()
    return [ticket.error if ticket.error is not None else ticket.value for ticket in tickets]


def decided(guard):
    return [fact for fact in map(decode_fact, guard.decider.ledger.read()) if isinstance(fact, Decided)]


def reference(guard, name="alice"):
    return guard.decider.subjects.find(f"customer:{name}").reference


def spent(guard):
    return next(each.spent for each in guard.status() if each.budget == "*") / UNIT


# -- each verb -----------------------------------------------------------------------------------------


def test_a_spend_without_consent_is_refused_and_charges_nothing(guard):
    """The error names reason and purpose, and the row says DENIED; with consent it is admitted."""
    with pytest.raises(SpendDenied) as refused:
        guard.spend(10, ALICE, purpose="marketing")
    assert refused.value.reason == "consent_missing"
    assert "marketing" in str(refused.value)
    assert "alice" not in str(refused.value)
    assert spent(guard) == 0
    guard.consents.grant("alice", "marketing")
    assert guard.spend(10, ALICE, purpose="marketing").allowed
    assert spent(guard) == 10
    for other in ("analytics", "profiling"):
        with pytest.raises(SpendDenied):
            guard.spend(10, ALICE, purpose=other)
    with pytest.raises(SpendDenied):
        guard.spend(10, BOB, purpose="marketing")


@pytest.mark.parametrize("said", [None, "deny", "revoke", "expire", "signal"])
def test_whatever_is_no_consent_refuses(guard, clock, said):
    """Never asked, said no, took it back, ran out, or an opt-out signal: all the same to a spend."""
    purpose = "targeting"
    if said == "deny":
        guard.consents.deny("alice", purpose)
    elif said is not None:
        guard.consents.grant("alice", purpose, **({"expires_at": clock() + 10 * SECOND} if said == "expire" else {}))
        assert guard.spend(1, ALICE, purpose=purpose).allowed
    if said == "revoke":
        guard.consents.revoke("alice", purpose)
    elif said == "signal":
        guard.consents.signal("alice", "1")
    elif said == "expire":
        clock.advance(10)
    with pytest.raises(SpendDenied) as refused:
        guard.spend(1, ALICE, purpose=purpose)
    assert refused.value.reason == "consent_missing"


def test_consent_ends_at_its_last_microsecond(guard, clock):
    """An answer from memory is not used longer than the consent holds."""
    end = clock() + 10 * SECOND
    guard.consents.grant("alice", "marketing", expires_at=end)
    clock.now = end - 1
    assert guard.spend(1, ALICE, purpose="marketing").allowed
    clock.now = end
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE, purpose="marketing")


def test_a_check_asks_for_consent_and_makes_nobody_known(guard):
    """A look that is not written down: somebody unknown has not consented, and stays unknown."""
    outcome = guard.check(1, ALICE, purpose="marketing")
    assert (False, "consent_missing") == (outcome.allowed, outcome.reason)
    assert not guard.check(1, ALICE | META).allowed
    assert guard.check(1, ALICE).allowed
    assert guard.decider.subjects.find("customer:alice") is None
    guard.consents.grant("alice", "marketing")
    assert guard.check(1, ALICE, purpose="marketing").allowed
    seq = guard.decider.ledger.next_seq
    guard.check(1, BOB, purpose="marketing")
    assert seq == guard.decider.ledger.next_seq


def test_a_reservation_needs_consent_and_its_end_does_not(guard):
    """What was reserved with consent may be settled after it was revoked: the money is committed elsewhere by then."""
    with pytest.raises(SpendDenied):
        guard.reserve(10, ALICE, purpose="marketing")
    guard.consents.grant("alice", "marketing")
    holds = [guard.reserve(10, ALICE, purpose="marketing") for _ in range(2)]
    guard.consents.revoke("alice", "marketing")
    holds[0].commit(7)
    holds[1].release()
    assert spent(guard) == 7


def test_what_was_spent_elsewhere_is_recorded_whether_or_not(guard):
    guard.record(5, ALICE | META)
    assert spent(guard) == 5
    assert [[]] == [fact.consents for fact in decided(guard)]


def test_who_names_nobody_needs_no_consent(guard):
    """A purpose without a person is only written down."""
    assert guard.spend(1, META, purpose="marketing").allowed
    (fact,) = decided(guard)
    assert ("marketing", []) == (fact.purpose, fact.consents)


def test_without_a_purpose_nobody_is_asked(guard):
    assert guard.spend(1, ALICE).allowed
    assert [[]] == [fact.consents for fact in decided(guard)]


# -- what the policy says ------------------------------------------------------------------------------


def test_a_budget_asks_whatever_the_caller_says(guard):
    """Its purpose comes on top of the caller's; both must be given, and both are written down."""
    guard.consents.grant("alice", "marketing")
    with pytest.raises(SpendDenied) as refused:
        guard.spend(1, ALICE | META)
    assert "targeting" in str(refused.value)
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE | META, purpose="marketing")
    guard.consents.grant("alice", "targeting")
    assert guard.spend(1, ALICE | META).allowed
    assert guard.spend(1, ALICE | META, purpose="marketing").allowed
    assert [["targeting"], ["marketing", "targeting"], ["targeting"], ["marketing", "targeting"]] == [
        [used.purpose for used in fact.consents] for fact in decided(guard)
    ]


def test_none_takes_back_the_callers_purpose(guard):
    """Receipts need no consent to marketing, whoever says that they are for it."""
    assert guard.spend(1, ALICE | RECEIPTS, purpose="marketing").allowed
    (fact,) = decided(guard)
    assert ("marketing", []) == (fact.purpose, fact.consents)


def test_a_new_policy_asks_from_then_on(guard):
    strict = parse_policy("budgets: [{scope: '*', limit: 1000, window: 60s, consent: marketing}]")
    assert guard.spend(1, ALICE).allowed
    guard.use(strict)
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE)
    guard.consents.grant("alice", "marketing")
    assert guard.spend(1, ALICE).allowed
    guard.consents.revoke("alice", "marketing")
    guard.use(Policy(POLICY.budgets[:1]))
    assert guard.spend(1, ALICE).allowed


# -- batches -------------------------------------------------------------------------------------------


def test_of_a_batch_those_are_refused_who_did_not_consent(guard):
    """Each item on its own, at its own place; the others are charged, also when budgets refuse some of them."""
    guard.consents.grant("alice", "marketing")
    items = [(1, BOB), (2, ALICE), (4, {"campaign": "x"}), (2000, ALICE), (8, BOB), (16, ALICE)]
    outcomes = guard.spend_many(items, purpose="marketing")
    assert ["consent_missing", None, None, "above_limit", "consent_missing", None] == [each.reason for each in outcomes]
    assert spent(guard) == 2 + 4 + 16
    (fact,) = decided(guard)
    assert [0, 3, 4] == sorted(each.index for each in fact.refused)
    assert {(reference(guard), True), (reference(guard, "bob"), False)} == {
        (used.subject, used.given) for used in fact.consents
    }
    assert len(fact.consents) == 2, "each person and purpose once, however many items"


@pytest.mark.parametrize("consenting", [[], ["alice"], ["bob"], ["alice", "bob"]])
@pytest.mark.parametrize("shared", [True, False])
def test_batches_of_every_kind(guard, consenting, shared):
    """One scope for all items or one each, nobody, some or all of them admitted."""
    for name in consenting:
        guard.consents.grant(name, "marketing")
    if shared:
        outcomes = guard.spend_many([1, 2, 3], ALICE, purpose="marketing")
        expected = ["alice" in consenting] * 3
    else:
        outcomes = guard.spend_many([(1, ALICE), (2, BOB), (3, ALICE)], purpose="marketing")
        expected = ["alice" in consenting, "bob" in consenting, "alice" in consenting]
    assert expected == [each.allowed for each in outcomes]
    assert sum(amount for amount, allowed in zip((1, 2, 3), expected, strict=True) if allowed) == spent(guard)


def test_a_restart_counts_what_a_mixed_batch_admitted(tmp_path, clock):
    """The refused items of a batch are not counted when the ledger is told again."""
    with BudgetGuard.open(tmp_path / "shield.db", policy=POLICY, clock=clock) as guard:
        guard.consents.grant("alice", "marketing")
        guard.spend_many([(1, BOB), (2, ALICE), (4, BOB), (8, ALICE)], purpose="marketing")
        assert spent(guard) == 10
    with BudgetGuard.open(tmp_path / "shield.db", policy=POLICY, clock=clock) as guard:
        assert spent(guard) == 10


# -- what is written down ------------------------------------------------------------------------------


def test_the_entry_names_the_consent_it_rested_on(guard):
    """Chain and sequence of the fact that said so, for what was admitted and for what was refused."""
    guard.spend(1, ALICE)
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE, purpose="marketing")
    granted = guard.consents.grant("alice", "marketing")
    guard.spend(1, ALICE, purpose="marketing")
    guard.consents.revoke("alice", "marketing")
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE, purpose="marketing")
    entries = {entry.seq: decode_fact(entry) for entry in guard.decider.ledger.read()}
    said = [seq for seq, fact in entries.items() if isinstance(fact, ConsentChanged)]
    who, chain = reference(guard), guard.decider.ledger.chain
    assert granted.seq == said[0]
    assert [
        [],
        [ConsentUsed(who, "marketing")],
        [ConsentUsed(who, "marketing", chain, said[0], given=True)],
        [ConsentUsed(who, "marketing", chain, said[1], given=False)],
    ] == [fact.consents for fact in entries.values() if isinstance(fact, Decided)]


def test_the_row_shows_the_consent_and_no_name(guard):
    """What an auditor sees of it, by reference."""
    guard.consents.grant("alice", "marketing")
    guard.spend(1, ALICE, purpose="marketing")
    with pytest.raises(SpendDenied):
        guard.spend(1, BOB, purpose="marketing")
    entries = [entry for entry in guard.decider.ledger.read() if isinstance(decode_fact(entry), Decided)]
    (given,), (missing,) = (rows(entry, guard.decider.ledger.chain) for entry in entries)
    assert [(reference(guard), "marketing", True)] == [
        (each["customer"], each["purpose"], each["given"]) for each in given.as_dict()["consents"]
    ]
    assert (missing.outcome, missing.reason_code, missing.purpose) == ("DENIED", "consent_missing", "marketing")
    line = csv_line(missing, 2555)
    assert "DENIED" in line
    assert "Consent is missing" in line
    assert not [name for name in ("alice", "bob") if name in f"{given.as_dict()}{missing.as_dict()}{line}"]


# -- repeats -------------------------------------------------------------------------------------------


def test_a_repeat_gets_the_first_answer_whatever_was_said_since(guard):
    """Revoked since: what was spent is spent. Granted since: what was refused under that key stays refused."""
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE, "refused", purpose="marketing")
    guard.consents.grant("alice", "marketing")
    first = guard.spend(1, ALICE, "admitted", purpose="marketing")
    with pytest.raises(SpendDenied) as again:
        guard.spend(1, ALICE, "refused", purpose="marketing")
    assert again.value.reason == "consent_missing"
    guard.consents.revoke("alice", "marketing")
    assert first.event_id == guard.spend(1, ALICE, "admitted", purpose="marketing").event_id
    assert spent(guard) == 1


def test_the_purpose_belongs_to_the_request(guard):
    """The same key for another purpose, or for none, is another request."""
    guard.consents.grant("alice", "marketing")
    guard.spend(1, ALICE, "k", purpose="marketing")
    for other in ("analytics", None):
        with pytest.raises(KeyReused):
            guard.spend(1, ALICE, "k", purpose=other)


# -- order ---------------------------------------------------------------------------------------------


def say(guard, state):
    return consent_change(guard.consents.said("alice", "marketing", state))


def test_a_change_counts_for_every_decision_of_its_own_batch(guard):
    """Also for one that was submitted before it: both come after the change in the ledger."""
    spends = [spend_call(amount, ALICE, purpose="marketing") for amount in (1, 2, 4)]
    first, _, second = batch(guard, spends[0], say(guard, State.GRANTED), spends[1])
    assert [True, True] == [first.outcome().allowed, second.outcome().allowed]
    found = batch(guard, spends[2], say(guard, State.REVOKED))
    assert not found[0].outcome().allowed
    assert spent(guard) == 3
    check_order(guard.decider.ledger.read())


def check_order(entries):
    """Every decision rests on the last thing said before it, and is admitted only by a consent in force: read by hand."""
    latest, count = {}, 0
    for entry in entries:
        fact = decode_fact(entry)
        if isinstance(fact, ConsentChanged):
            latest[fact.subject, fact.purpose] = (entry.seq, fact.state == "granted")
        elif isinstance(fact, Decided):
            for used in fact.consents:
                assert latest.get((used.subject, used.purpose), (-1, False)) == (used.seq, used.given)
                assert used.given == (not fact.refused)
                count += 1
    return count


def test_a_revoke_that_was_acknowledged_is_seen_by_every_later_spend(tmp_path):
    """Threads that spend, threads that grant and revoke, on a real disk: no spend begun after a revoke is admitted."""
    with BudgetGuard.open(tmp_path / "shield.db", limit="100000") as guard:
        stop, broken, admitted = threading.Event(), [], []
        given = {"alice": False, "bob": False}
        changing = {name: threading.Lock() for name in given}

        def spend(name):
            while not stop.is_set():
                # No lock around the spend: it may race with a change, and then either answer is right.
                epoch_before, was_given = epochs[name], given[name]
                try:
                    guard.spend("0.01", {"customer": name}, purpose="marketing")
                    allowed = True
                    admitted.append(name)
                except SpendDenied:
                    allowed = False
                if epochs[name] == epoch_before and epoch_before % 2 == 0 and allowed != was_given:
                    broken.append((name, allowed, was_given))

        def change(name, times):
            for number in range(times):
                end = time.monotonic() + 60
                while number == 1 and name not in admitted and time.monotonic() < end:
                    time.sleep(0.001)  # the first consent is made use of, however late the spenders begin
                with changing[name]:
                    epochs[name] += 1  # odd: under way
                    if given[name]:
                        guard.consents.revoke(name, "marketing")
                    else:
                        guard.consents.grant(name, "marketing")
                    given[name] = not given[name]
                    epochs[name] += 1

        epochs = dict.fromkeys(given, 0)
        spenders = [threading.Thread(target=spend, args=(name,)) for name in given for _ in range(3)]
        changers = [threading.Thread(target=change, args=(name, 60)) for name in given]
        for thread in spenders + changers:
            thread.start()
        for thread in changers:
            thread.join(60)
        stop.set()
        for thread in spenders:
            thread.join(60)
        assert broken == []
        assert admitted
    reader = SqliteReader(tmp_path / "shield.db")
    assert check_order(read_entries(reader)) > 50
    reader.close()


def test_a_consent_whose_commit_failed_is_not_acted_upon(guard):
    """Granted, and the disk was full: the caller was told 503, and after recovery nobody consented."""
    store = guard.decider.ledger.store
    store.recoverable, store.fail = True, "disk full"
    with pytest.raises(LedgerUnavailable):
        guard.consents.grant("alice", "marketing")
    store.fail = None
    guard.decider.tick()
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE, purpose="marketing")


def test_a_revocation_that_was_durable_after_all_counts(guard):
    """Its commit raised, so it was not acknowledged; what the disk says holds, whatever was in memory before."""
    guard.consents.grant("alice", "marketing")
    assert guard.spend(1, ALICE, purpose="marketing").allowed
    store = guard.decider.ledger.store
    real = store.commit

    def commit(entries, writes=()):
        real(entries, writes)
        error = LedgerUnavailable("the disk did not say")
        error.recoverable = True
        raise error

    store.commit = commit
    with pytest.raises(LedgerUnavailable):
        guard.consents.revoke("alice", "marketing")
    store.commit = real
    guard.decider.tick()
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE, purpose="marketing")


# -- restarts and erasure ------------------------------------------------------------------------------


def test_consent_survives_a_restart_and_the_loss_of_every_projection(tmp_path, clock):
    """It is rebuilt from the facts, with the places that decisions name."""
    path = tmp_path / "shield.db"
    with BudgetGuard.open(path, policy=POLICY, clock=clock) as guard:
        granted = guard.consents.grant("alice", "marketing")
        guard.consents.grant("bob", "marketing")
        guard.consents.revoke("bob", "marketing")
    database = apsw.Connection(str(path))
    database.execute("DELETE FROM projection WHERE space <> 'meta'")
    database.close()
    with BudgetGuard.open(path, policy=POLICY, clock=clock) as guard:
        assert guard.spend(1, ALICE, purpose="marketing").allowed
        assert granted.seq == decided(guard)[-1].consents[0].seq
        with pytest.raises(SpendDenied):
            guard.spend(1, BOB, purpose="marketing")


def test_the_consent_of_an_erased_person_is_nobodys(guard):
    """Who comes back under the same name is somebody else, who has said nothing; the old decisions stay as they are."""
    guard.consents.grant("alice", "marketing")
    assert guard.spend(1, ALICE, purpose="marketing").allowed
    before, entries = reference(guard), guard.decider.ledger.next_seq
    guard.decider.forget("customer:alice")
    assert not guard.consents.check("alice", "marketing")
    assert not guard.check(1, ALICE, purpose="marketing").allowed
    with pytest.raises(SpendDenied):
        guard.spend(1, ALICE, purpose="marketing")
    assert before != reference(guard)
    (first, second) = decided(guard)
    assert (before, True) == (first.consents[0].subject, first.consents[0].given)
    assert (reference(guard), -1, False) == (
        second.consents[0].subject, second.consents[0].seq, second.consents[0].given
    )  # fmt: skip
    assert entries + 1 == guard.decider.ledger.next_seq, "erasing wrote nothing into the ledger"


def test_an_erasure_between_two_batches_is_seen_by_the_next(guard):
    """Neither the key nor the consent is remembered by the process that had just used both."""
    guard.consents.grant("alice", "marketing")
    for _ in range(3):
        guard.spend(1, ALICE, purpose="marketing")
    guard.decider.forget("customer:alice")
    found = batch(
        guard,
        spend_call(1, ALICE, purpose="marketing"),
        spend_many_call([(1, ALICE)], purpose="marketing"),
        reserve_call(1, new_hold_id(), None, ALICE, purpose="marketing"),
    )
    assert [False] * 3 == [each.outcomes()[0].allowed for each in found]


def test_what_was_held_for_an_erased_person_can_be_settled(guard):
    """The hold is money, and its entry names the reference only."""
    guard.consents.grant("alice", "marketing")
    hold = guard.reserve(10, ALICE, purpose="marketing")
    guard.halt("customer:alice")
    guard.decider.forget("customer:alice")
    assert not isinstance(batch(guard, commit_call(hold.id, 5), switch("customer:alice", on=False))[0], Exception)
    assert isinstance(batch(guard, record_call(1, ALICE))[0].fact, Decided)
    assert spent(guard) == 6


def test_consent_is_not_used_longer_than_its_lease_however_long_a_batch_waited(guard, clock):
    """While a change waits for another replica, a revocation there may be acknowledged: its lease is over by then."""
    guard.consents.grant("alice", "marketing")
    store = guard.decider.ledger.store
    guard.decider.books.consents = ConsentView(store, LEASE_HELD)
    guard.spend(1, ALICE, purpose="marketing")
    key = consent_key(reference(guard), "marketing")

    def revoked_elsewhere(_):
        clock.advance(2)
        store.commit([], [Write(CONSENT, key, None)])

    _, outcome = batch(guard, Change(revoked_elsewhere), spend_call(1, ALICE, purpose="marketing"))
    assert outcome.fact.refused[0].reason == "consent_missing"
