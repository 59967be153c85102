"""Changes that are no decisions: one order with all decisions, all or nothing each, and answered only when durable."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import Conflict, HoldUnknown, InvalidInput, LedgerUnavailable, Unreadable
from kiki.ledger.ledger import Append
from kiki.ledger.memory import MemoryStore
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.store import Write
from kiki.ledger.subjects import Subjects
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import spend_call, switch
from kiki.shield.change import Change, Turn
from kiki.shield.fact import Decided, Halted, LegalHeld, decode_fact

SPACE = "shared/legal_hold"


def held(name: str, on: bool = True) -> LegalHeld:
    return LegalHeld(1, "", on, name)


def put(key: bytes, value: bytes | None, name: str = ""):
    """A change that writes one fact with one projection; what it returns is what stood there before."""

    def act(turn):
        before = turn.get(SPACE, key)
        turn.add(held(name or repr(value)), [Write(SPACE, key, value)])
        return before

    return Change(act)


@pytest.fixture
def guard():
    with BudgetGuard.open(limit=1000) as guard:
        yield guard


def batch(guard, *works):
    """All works in one batch: what each was answered or failed with."""
    tickets = [guard.decider.group.submit(work) for work in works]
    guard.decider.group.drain()
    return [ticket.error if ticket.error is not None else ticket.value for ticket in tickets]


def facts(guard, kinds=LegalHeld):
    entries = guard.decider.ledger.read()
    return [fact for fact in map(decode_fact, entries) if isinstance(fact, kinds)]


# -- one turn ----------------------------------------------------------------------------------------


def turn_over(stored):
    store = MemoryStore()
    store.commit([], [Write(SPACE, key, value) for key, value in stored.items()])
    return Turn(5, 100, "c" * 16, store, Subjects(MemoryStore()), {}), store


def test_a_turn_sees_what_it_wrote_and_what_is_durable():
    turn, store = turn_over({b"a": b"1", b"b": b"2"})
    assert (5, "c" * 16, 100) == (turn.now, turn.chain, turn.next_seq)
    assert turn.add(held("x"), [Write(SPACE, b"a", b"9"), Write(SPACE, b"b", None), Write(SPACE, b"c", b"3")]) == 100
    assert turn.next_seq == 101
    keys = [b"a", b"b", b"c", b"d"]
    assert [b"9", None, b"3", None] == [turn.get(SPACE, key) for key in keys]
    assert {b"a": b"9", b"c": b"3"} == turn.get_many(SPACE, keys)
    assert turn.get("shared/other", b"a") is None
    assert [b"1", b"2", None] == [store.get(SPACE, key) for key in keys[:3]], (
        "nothing counts before the batch is durable"
    )


KEYS = st.sampled_from([b"a", b"b", b"c"])
STEPS = st.lists(
    st.tuples(st.just("add"), KEYS, st.sampled_from([None, b"1", b"2"]))
    | st.tuples(st.just("drop"), KEYS, st.none())
    | st.tuples(st.sampled_from(["mark", "undo"]), st.none(), st.none()),
    max_size=30,
)


@given(STEPS, st.dictionaries(KEYS, st.sampled_from([b"1", b"7"])))
def test_undoing_goes_back_to_the_mark(steps, stored):
    """Whatever was added, removed and dropped since, in any order; beside it a plain model that copies everything."""
    turn, store = turn_over(stored)
    marks, model, count = [], dict(stored), 0
    for step, key, value in steps:
        if step == "add":
            turn.add(held("x"), [Write(SPACE, key, value)])
            model[key], count = value, count + 1
        elif step == "drop":
            turn.drop(SPACE, key)
            model[key] = None
        elif step == "mark":
            marks.append((turn.mark(), dict(model), count))
        elif marks:
            mark, model, count = marks.pop()
            turn.undo(mark)
        assert (count, 100 + count) == (len(turn.appends), turn.next_seq)
        assert all(model.get(each) == turn.get(SPACE, each) for each in (b"a", b"b", b"c"))
    # As the decider makes it durable.
    store.commit([], [write for fact in turn.appends for write in (fact.writes(0) if fact.writes else ())])
    store.commit([], turn.dropped)
    assert {key: value for key, value in model.items() if value is not None} == dict(store.scan(SPACE))


# -- through the decider -----------------------------------------------------------------------------


def test_the_result_is_what_act_returned(guard):
    """Once the fact is durable and its projection can be read."""
    ticket = guard.decider.group.submit(put(b"k", b"v"))
    assert not ticket.done
    assert ticket.result() is None
    assert guard.decider.ledger.store.get(SPACE, b"k") == b"v"
    assert guard.decider.group.submit(put(b"k", b"w")).result() == b"v"
    assert [held("b'v'"), held("b'w'")] == facts(guard)


def test_a_change_may_write_nothing(guard):
    """It still sees what is there, and leaves no entry."""
    commits = guard.decider.ledger.store.commits
    assert guard.decider.group.submit(Change(lambda turn: turn.get(SPACE, b"k"))).result() is None
    assert commits == guard.decider.ledger.store.commits


def test_changes_of_one_batch_see_each_other_in_order_and_share_a_commit(guard):
    store = guard.decider.ledger.store
    commits = store.commits
    assert [None, b"1", b"2", None] == batch(guard, put(b"k", b"1"), put(b"k", b"2"), put(b"k", None), put(b"k", b"4"))
    assert commits + 1 == store.commits
    assert ["b'1'", "b'2'", "None", "b'4'"] == [fact.reference for fact in facts(guard)]
    assert store.get(SPACE, b"k") == b"4"


def test_a_change_that_raises_is_undone_alone(guard):
    """Its error goes to its caller as it is; those before and after it in the batch do not notice."""

    def failing(error):
        def act(turn):
            turn.add(held("never"), [Write(SPACE, b"k", b"never"), Write(SPACE, b"n", b"never")])
            turn.drop(SPACE, b"k")
            raise error

        return Change(act)

    conflict = Conflict("not like this")
    found = batch(
        guard, put(b"k", b"1"), failing(conflict), put(b"k", b"2"), failing(ZeroDivisionError("oops")), put(b"j", b"3")
    )
    assert [None, conflict, b"1"] == found[:3]
    assert isinstance(found[3], ZeroDivisionError)
    assert ["b'1'", "b'2'", "b'3'"] == [fact.reference for fact in facts(guard)]
    assert {b"k": b"2", b"j": b"3"} == dict(guard.decider.ledger.store.scan(SPACE))
    assert guard.spend(1).allowed


def test_sequences_are_those_that_were_promised(guard):
    """`next_seq` and what `add` returns are where the facts then stand, also after another change was undone."""
    promised = []

    def act(turn, fail):
        for number in range(3):
            seq = turn.next_seq
            assert seq == turn.add(held(f"{seq}"))
            if not fail:
                promised.append(seq)
            elif number:
                raise InvalidInput("no")

    batch(guard, *(Change(lambda turn, fail=fail: act(turn, fail)) for fail in (False, True, False)), spend_call(1))
    entries = {entry.seq: decode_fact(entry) for entry in guard.decider.ledger.read()}
    assert len(promised) == 6
    assert [held(f"{seq}") for seq in promised] == [entries[seq] for seq in promised]


def test_changes_come_before_the_decisions_of_their_batch(guard):
    """So whoever is answered after a change was acknowledged was decided after it."""
    batch(guard, spend_call(1), switch("platform:x", on=True), put(b"k", b"1"), spend_call(2), put(b"j", b"2"))
    kinds = [type(fact) for fact in facts(guard, (LegalHeld, Decided, Halted))]
    assert [LegalHeld, LegalHeld, Decided, Decided, Halted] == kinds


def test_the_persons_named_have_a_reference_and_a_key_before_the_change_runs(guard):
    """Durable, as those of calls are: the change can seal for them at once."""
    seen = []

    def act(turn):
        person = turn.persons["customer:alice"]
        assert person == guard.decider.subjects.find("customer:alice")
        sealed = turn.subjects.seal(person, b"a note")
        turn.add(LegalHeld(turn.now, person.reference, True), [], [sealed])
        seen.append(person)

    guard.decider.group.submit(Change(act, ["customer:alice", "customer:bob"])).result()
    *_, entry = guard.decider.ledger.read()
    assert guard.decider.subjects.open(entry.sealed[0]) == b"a note"
    assert guard.decider.subjects.find("customer:bob") is not None
    guard.decider.forget("customer:alice")
    with pytest.raises(Unreadable):
        guard.decider.subjects.open(entry.sealed[0])


def test_what_was_dropped_leaves_without_a_fact(guard):
    store = guard.decider.ledger.store
    batch(guard, put(b"a", b"1"), put(b"b", b"1"))
    seq = guard.decider.ledger.next_seq
    batch(guard, Change(lambda turn: turn.drop(SPACE, b"a")))
    assert ({b"b": b"1"}, seq) == (dict(store.scan(SPACE)), guard.decider.ledger.next_seq)
    batch(guard, Change(lambda turn: turn.drop(SPACE, b"b")), put(b"b", b"2"))
    assert {b"b": b"2"} == dict(store.scan(SPACE)), "written again after it was dropped: it stays"


# -- when the disk fails -----------------------------------------------------------------------------


def test_nothing_is_acknowledged_that_is_not_durable(guard):
    """Neither the changes nor the decisions of that batch, and none after it until the ledger recovered."""
    store = guard.decider.ledger.store
    store.recoverable, store.fail = True, "disk full"
    found = batch(guard, put(b"k", b"1"), spend_call(1), put(b"j", b"2"))
    assert [LedgerUnavailable] * 3 == [type(each) for each in found]
    store.fail = None
    assert facts(guard, (LegalHeld, Decided)) == []
    assert dict(store.scan(SPACE)) == {}
    guard.decider.tick()
    assert batch(guard, put(b"k", b"1")) == [None]
    assert guard.status()[0].spent == 0


def test_a_change_whose_persons_cannot_be_enrolled_does_not_run(guard):
    ran = []
    guard.decider.subjects.store.fail = "disk full"
    (failed,) = batch(guard, Change(lambda _: ran.append(1), ["customer:alice"]))
    assert isinstance(failed, LedgerUnavailable)
    assert ran == []


def test_one_that_already_failed_keeps_its_own_error_when_the_disk_fails(guard):
    """The caller who asked for the impossible is told so, and not to try again."""
    guard.decider.ledger.store.fail = "disk full"

    def act(turn):
        raise HoldUnknown("there is none")

    refused, failed = batch(guard, Change(act), put(b"k", b"1"))
    assert (HoldUnknown, LedgerUnavailable) == (type(refused), type(failed))


# -- many at once ------------------------------------------------------------------------------------


def test_many_threads_lose_no_update(tmp_path):
    """A counter that each change reads and writes: every value once, with spends in between, and durable at the end."""
    with BudgetGuard.open(tmp_path / "shield.db", limit=100_000) as guard:

        def act(turn):
            count = int(turn.get(SPACE, b"count") or b"0") + 1
            turn.add(held(str(count)), [Write(SPACE, b"count", str(count).encode())])
            return count

        got, lock = [], threading.Lock()

        def work():
            for number in range(50):
                count = guard.decider.group.submit(Change(act)).result()
                with lock:
                    got.append(count)
                if number % 5 == 0:
                    guard.spend("0.01")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert list(range(1, 401)) == sorted(got)
        assert [str(count) for count in range(1, 401)] == [fact.reference for fact in facts(guard)]
    store = SqliteStore(tmp_path / "shield.db")
    assert store.get(SPACE, b"count") == b"400"
    store.close()


async def test_from_an_event_loop(tmp_path):
    """Awaited like a decision; an error comes out of the await."""
    with BudgetGuard.open(tmp_path / "shield.db", limit=1000) as guard:
        awaited = AsyncGuard(guard)

        def refuse(turn):
            turn.add(held("never"))
            raise Conflict("no")

        found = await asyncio.gather(
            awaited.decide(put(b"k", b"1")),
            awaited.decide(spend_call(1)),
            awaited.decide(Change(refuse)),
            awaited.decide(put(b"k", b"2")),
            return_exceptions=True,
        )
        assert found[0] is None
        assert found[1].outcome().allowed
        assert isinstance(found[2], Conflict)
        assert found[3] == b"1"
        assert ["b'1'", "b'2'"] == [fact.reference for fact in facts(guard)]
        await awaited.close()


def test_a_fact_without_projections_is_written(guard):
    """There need not be anything to look up."""

    def act(turn):
        turn.add(held("bare"))
        assert turn.appends == [Append(held("bare"))]

    batch(guard, Change(act))
    assert [held("bare")] == facts(guard)
