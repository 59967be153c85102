"""What consent a decision rests on: never older than what this process wrote, or than a lease."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from kiki.ledger.memory import MemoryStore
from kiki.shield.consent import CONSENT, State, Statement, consent_key, follow, read_state, writes_of
from kiki.shield.consent_view import ConsentView

ONE, OTHER = "01" * 16, "02" * 16
NOW = 1_700_000_000_000_000
LEASE = 2_000_000


class Consents:
    """A store in which consent is written as the decider does it, and counted how often it is read."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.reads = 0
        self.seq = 0

    def get_many(self, space, keys):
        self.reads += 1
        return self.store.get_many(space, keys)

    def say(self, state: State, subject: str = ONE, purpose: str = "marketing", at: int = NOW, **more) -> None:
        prior = read_state(self.store.get(CONSENT, consent_key(subject, purpose)))
        fact = follow(Statement(purpose=purpose, state=state, **more), prior, subject, at)
        if fact is not None:
            self.store.commit([], writes_of(fact, "c0ffee", self.seq))
            self.seq += 1


def test_an_answer_is_kept_until_it_changes():
    consents = Consents()
    consents.say(State.GRANTED)
    view = ConsentView(consents, None)
    assert [True] * 3 == [view.look(ONE, "marketing", NOW + day).given for day in range(3)]
    assert consents.reads == 1
    consents.say(State.REVOKED)
    view.changed(ONE, "marketing")
    assert (False, 1) == ((used := view.look(ONE, "marketing", NOW)).given, used.seq)


def test_that_nothing_is_known_is_kept_too():
    consents = Consents()
    view = ConsentView(consents, None)
    assert [False, False] == [view.look(ONE, "marketing", NOW).given for _ in range(2)]
    assert consents.reads == 1


def test_consent_runs_out_in_memory_too():
    consents = Consents()
    consents.say(State.GRANTED, expires_at=NOW + 10)
    view = ConsentView(consents, None)
    assert [True, True, False, False] == [view.look(ONE, "marketing", at).given for at in range(NOW + 8, NOW + 12)]


def test_what_others_write_is_seen_when_the_lease_ends():
    consents = Consents()
    consents.say(State.GRANTED)
    view = ConsentView(consents, LEASE)
    assert view.look(ONE, "marketing", NOW).given
    consents.say(State.REVOKED)
    assert [True, False] == [view.look(ONE, "marketing", at).given for at in (NOW + LEASE - 1, NOW + LEASE)]


def test_a_clock_that_steps_back_makes_no_lease_longer():
    consents = Consents()
    consents.say(State.GRANTED)
    view = ConsentView(consents, LEASE)
    assert view.look(ONE, "marketing", NOW).given
    consents.say(State.REVOKED)
    assert not view.look(ONE, "marketing", NOW - 1).given


def test_forgetting_a_person_forgets_every_purpose_and_nobody_else():
    consents = Consents()
    for subject in (ONE, OTHER):
        for purpose in ("marketing", "analytics"):
            consents.say(State.GRANTED, subject, purpose)
    view = ConsentView(consents, None)
    pairs = [(subject, purpose) for subject in (ONE, OTHER) for purpose in ("marketing", "analytics")]
    view.look_many(pairs, NOW)
    view.forget(ONE)
    consents.reads = 0
    view.look(OTHER, "marketing", NOW)
    assert consents.reads == 0
    view.look(ONE, "marketing", NOW)
    assert consents.reads == 1
    view.clear()
    view.look(OTHER, "marketing", NOW)
    assert consents.reads == 2


def test_many_are_looked_up_in_one_read_and_answered_in_order():
    consents = Consents()
    consents.say(State.GRANTED, ONE)
    view = ConsentView(consents, None)
    asked = [(OTHER, "marketing"), (ONE, "marketing"), (OTHER, "marketing")]
    assert [False, True, False] == [used.given for used in view.look_many(asked, NOW)]
    assert consents.reads == 1


def test_memory_is_bounded_whatever_is_asked():
    """Also when one person is asked about purposes without end."""
    view = ConsentView(Consents(), None, states_max=100)
    for number in range(1000):
        view.look(ONE, f"p{number}", NOW)
        view.look(f"{number:032x}", "marketing", NOW)
    held = sum(len(known) for generation in (view._young, view._old) for known in generation.values())
    assert held <= 102


def test_what_is_asked_about_often_stays_in_memory():
    consents = Consents()
    view = ConsentView(consents, None, states_max=20)
    for number in range(100):
        view.look(f"{number:032x}", "marketing", NOW)
        reads = consents.reads
        view.look(ONE, "marketing", NOW)
        assert number == 0 or reads == consents.reads


def test_a_read_that_began_before_a_change_is_not_kept_after_it():
    consents = Consents()
    consents.say(State.GRANTED)

    class Slow(Consents):
        def get_many(self, space, keys):
            found = consents.store.get_many(space, keys)
            consents.say(State.REVOKED)
            view.changed(ONE, "marketing")
            return found

    view = ConsentView(Slow(), None)
    view.look(ONE, "marketing", NOW)
    view._reader = consents
    assert not view.look(ONE, "marketing", NOW).given


def test_nobody_sees_consent_after_its_revocation_was_told_under_concurrency():
    consents = Consents()
    view = ConsentView(consents, None)
    over = threading.Event()
    told: list[int] = [0]
    wrong: list[tuple[int, int]] = []

    def look() -> None:
        while not over.is_set():
            known = told[0]
            used = view.look(ONE, "marketing", NOW)
            # What was read is at least as new as what had been told before the look began.
            if used.seq < known - 1:
                wrong.append((used.seq, known))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(3000):
        consents.say(State.GRANTED if number % 2 == 0 else State.REVOKED)
        view.changed(ONE, "marketing")
        told[0] = consents.seq
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []


steps = st.lists(
    st.tuples(st.sampled_from(["say", "look", "wait"]), st.sampled_from([ONE, OTHER]), st.integers(0, 3)), max_size=40
)


@given(steps, st.sampled_from([None, LEASE]))
def test_a_view_answers_as_the_store_does_or_as_it_did_within_the_lease(steps, lease):
    """With a lease nobody tells the view of changes; without one everybody does."""
    consents = Consents()
    view = ConsentView(consents, lease, states_max=2)
    now = NOW
    history: dict[str, list[tuple[int, bool]]] = {ONE: [(0, False)], OTHER: [(0, False)]}
    for step, subject, number in steps:
        if step == "say":
            state = State.GRANTED if number % 2 else State.REVOKED
            consents.say(state, subject, at=now)
            history[subject].append((now, state is State.GRANTED))
            if lease is None:
                view.changed(subject, "marketing")
        elif step == "look":
            allowed = {history[subject][-1][1]}
            if lease is not None:
                ends = [at for at, _ in history[subject][1:]] + [now]
                allowed |= {given for (_, given), end in zip(history[subject], ends, strict=True) if end > now - lease}
            assert view.look(subject, "marketing", now).given in allowed
        else:
            now += number * LEASE // 3
