"""The whole guard over a real Redis: what the window's own tests cannot see."""

import time
from functools import partial

import pytest

from kiki.clock import SECOND
from kiki.errors import HoldUnknown, LedgerUnavailable, SpendDenied, WindowUnavailable
from kiki.money import MICROS
from kiki.shield import budget_guard
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.opening import open_decider
from kiki.shield.policy import single_budget


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """No answer of Redis comes too late, however busy the machine is."""
    monkeypatch.setattr(budget_guard, "open_decider", partial(open_decider, redis_timeout=30.0))


@pytest.fixture
def opened(tmp_path, redis):
    """Opens guards of the test's Redis, each over a ledger of its own, and closes them."""
    guards = []

    def make(name="one", limit="100", window="60s"):
        guard = BudgetGuard.open(tmp_path / name / "shield.db", limit=limit, window=window, redis=redis.url)
        guards.append(guard)
        return guard

    yield make
    for guard in guards:
        guard.close()


def test_two_guards_share_one_budget(opened):
    """What one spent the other has not, and the refusal says what is left."""
    one, two = opened("one"), opened("two")
    one.spend("70")
    with pytest.raises(SpendDenied) as refused:
        two.spend("40")
    assert refused.value.remaining == "30.00"
    two.spend("30")
    assert [0] == [status.remaining for status in one.status()]


def test_a_key_is_one_spend_for_all_guards(opened):
    """A retry that reaches another process gets the first answer, and takes nothing."""
    one, two = opened("one"), opened("two")
    first, again = one.spend("70", key="k"), two.spend("70", key="k")
    assert (first.decided_at, first.fact.sequence) == (again.decided_at, again.fact.sequence)
    assert (False, True) == (first.fact.repeated, again.fact.repeated)
    assert [30_000_000] == [status.remaining for status in two.status()]


def test_a_hold_is_settled_by_whoever_has_its_id(opened):
    """Also by a process that did not make it."""
    one, two = opened("one"), opened("two")
    hold = one.reserve("70")
    assert two.commit(hold.id, "50").fact.charged == 50_000_000
    assert [50_000_000] == [status.remaining for status in one.status()]
    with pytest.raises(HoldUnknown):
        two.commit("f" * 32, "1")


def test_a_hold_that_ran_out_is_not_remembered(opened):
    """Its guard drops it with the next decision; a late commit is written down and charges nothing more."""
    guard = opened()
    hold = guard.reserve("70", seconds=0.05)
    time.sleep(0.1)
    guard.spend("1")
    assert guard.decider.hold_count == 0
    assert guard.commit(hold.id, "60").fact.late
    assert [29_000_000] == [status.remaining for status in guard.status()]


def test_a_restart_keeps_the_window_and_knows_the_epoch(opened, tmp_path, redis):
    """The shared window goes on, and an emptied Redis is not taken for a new one."""
    guard = opened("one", window="3s")
    guard.spend("100")
    guard.close()
    redis.flush()
    began = time.monotonic()
    again = BudgetGuard.open(tmp_path / "one" / "shield.db", limit="100", window="3s", redis=redis.url)
    while time.monotonic() - began < 60:
        try:
            assert again.spend("100").allowed
            break
        except WindowUnavailable:
            time.sleep(0.1)
    # It may have been over when it was asked, and was not before.
    assert 3 <= time.monotonic() - began < 60
    again.close()


def test_a_reservation_whose_process_died_is_given_back(opened, redis, tmp_path):
    """Taken in Redis, never durable, made without a key: nobody can ask for it, so the next start releases it."""
    guard = opened()
    guard.spend("1")
    store = guard.decider.ledger.store
    store.commit = None  # the process dies between the window's answer and its own commit
    with pytest.raises(Exception, match=r"."):
        guard.reserve("90")
    guard.close()
    again = BudgetGuard.open(tmp_path / "one" / "shield.db", limit="100", redis=redis.url)
    assert [99_000_000] == [status.remaining for status in again.status()]
    again.close()


def test_customers_are_one_budget_for_all_guards_and_nobody_in_redis(tmp_path, redis):
    """Each ledger has its own reference for a person, and still they share that person's budget."""
    from kiki.shield.policy import parse_policy

    policy = parse_policy("budgets: [{scope: 'customer:*', limit: 10, window: 1h}]")
    guards = [BudgetGuard.open(tmp_path / name / "s.db", policy=policy, redis=redis.url) for name in ("one", "two")]
    guards[0].spend("8", {"customer": "jane@example.com"})
    with pytest.raises(SpendDenied):
        guards[1].spend("8", {"customer": "jane@example.com"})
    guards[1].spend("8", {"customer": "joe@example.com"})
    dump = b"".join(path.read_bytes() for path in tmp_path.rglob("*.db*"))
    assert b"jane" not in dump
    assert b"jane" not in repr(redis.command("KEYS *")).encode()
    for guard in guards:
        guard.close()


def test_a_policy_that_cannot_be_written_down_is_not_used(opened, monkeypatch):
    """Neither by the window nor by what asks it."""
    guard = opened(limit="10")
    with monkeypatch.context() as patched:

        def fail(*_):
            raise LedgerUnavailable("the disk is full")

        patched.setattr(guard.decider.ledger, "append_all", fail)
        with pytest.raises(LedgerUnavailable):
            guard.use(single_budget(1000 * MICROS, 60 * SECOND))
    with pytest.raises(SpendDenied):
        guard.spend("11")


@pytest.mark.parametrize("is_away", [False, True])
def test_a_reservation_whose_commit_failed_is_given_back_without_a_restart(opened, monkeypatch, is_away):
    """Its caller was never answered and knows no id; when the window is away just then, a later tick does it."""
    guard = opened()
    guard.spend("1")
    kept = guard.reserve("9")
    decider = guard.decider
    with monkeypatch.context() as broken:
        broken.setattr(decider.ledger.store, "commit", _full)
        with pytest.raises(LedgerUnavailable):
            guard.reserve("90")
    decider.ledger.failure.recoverable = True
    if is_away:
        with monkeypatch.context() as broken:
            broken.setattr(decider.books.window, "own_holds", _away)
            decider.tick()
            decider.tick()
        assert [0] == [status.remaining for status in guard.status()]
    else:
        decider.tick()
    decider.tick()
    assert [90_000_000] == [status.remaining for status in guard.status()]
    assert guard.commit(kept.id, "9").fact.charged == 9_000_000


def _full(_entries, _writes=(), **_epoch):
    raise LedgerUnavailable("disk full")


def _away():
    raise WindowUnavailable("redis is away")
