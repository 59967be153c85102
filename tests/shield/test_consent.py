"""The rules of consent: what holds, what follows from saying something, what is read from callers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import ConsentConflict, InvalidInput
from kiki.shield.consent import (
    CONSENT,
    Basis,
    ConsentState,
    Method,
    State,
    Statement,
    consent_key,
    follow,
    in_force,
    read_state,
    state_at,
    subject_and_purpose,
    used_of,
    writes_of,
)
from kiki.shield.consent_words import (
    PURPOSES,
    SIGNAL_PURPOSES,
    parse_basis,
    parse_customer_id,
    parse_digest,
    parse_method,
    parse_purpose,
    parse_purposes,
    parse_state,
    parse_text,
    signal_of,
)
from kiki.shield.fact import ConsentUsed

SUBJECT = "0123456789abcdef" * 2
NOW = 1_700_000_000_000_000
DAY = 24 * 3600 * 1_000_000

GRANTED, DENIED, REVOKED = State.GRANTED, State.DENIED, State.REVOKED


def says(state: State = GRANTED, **more) -> Statement:
    return Statement(purpose="targeting", state=state, **more)


def gpc() -> Statement:
    return says(DENIED, method=Method.GPC)


def after(*statements: Statement, at: int = NOW, step: int = 1) -> ConsentState | None:
    """What holds after these were said, one microsecond after the other."""
    state, seq = None, 0
    for statement in statements:
        fact = follow(statement, state, SUBJECT, at)
        if fact is not None:
            (write,) = writes_of(fact, "c0ffee", seq)
            assert (CONSENT, consent_key(SUBJECT, "targeting")) == (write.space, write.key)
            state, seq = read_state(write.value), seq + 1
        at += step
    return state


# -- what holds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "word", "holds"),
    [
        ([], State.NONE, False),
        ([says()], GRANTED, True),
        ([says(DENIED)], DENIED, False),
        ([says(REVOKED)], REVOKED, False),
        ([says(), says(REVOKED)], REVOKED, False),
        ([says(), says(DENIED)], DENIED, False),
        ([says(REVOKED), says()], GRANTED, True),
        ([gpc()], DENIED, False),
        ([says(), gpc()], DENIED, False),
        ([gpc(), says(overrides=True)], GRANTED, True),
        ([gpc(), says(overrides=True), gpc()], GRANTED, True),
        ([says(overrides=True), gpc()], GRANTED, True),
        ([gpc(), says(overrides=True), says(REVOKED), gpc()], REVOKED, False),
        ([gpc(), says(overrides=True), says(version="2")], GRANTED, True),
    ],
)
def test_the_last_word_holds(said, word, holds):
    state = after(*said)
    assert (word, holds) == (state_at(state, NOW + 99), in_force(state, NOW + 99))


def test_consent_ends_at_its_expiry_and_not_a_microsecond_later():
    state = after(says(expires_at=NOW + DAY))
    assert [True, True, False] == [in_force(state, at) for at in (NOW, NOW + DAY - 1, NOW + DAY)]
    assert State.EXPIRED is state_at(state, NOW + DAY)


def test_a_decision_notes_the_entry_it_rested_on():
    state = after(says(), says(REVOKED))
    assert ConsentUsed(SUBJECT, "targeting", "c0ffee", 1, given=False) == used_of(SUBJECT, "targeting", state, NOW)
    assert ConsentUsed(SUBJECT, "targeting", "", -1, given=False) == used_of(SUBJECT, "targeting", None, NOW)


def test_the_key_of_a_person_and_purpose_can_be_read_back():
    assert (SUBJECT, "data_sharing") == subject_and_purpose(consent_key(SUBJECT, "data_sharing"))


# -- what is written down ----------------------------------------------------------------------------


def test_a_withdrawal_names_what_it_ends():
    given_at = after(says(version="3", basis=Basis.CONTRACT, jurisdiction="EU"))
    fact = follow(says(REVOKED), given_at, SUBJECT, NOW + 5)
    assert ("3", "contract", "EU", ["c0ffee", 0], NOW, None) == (
        fact.version,
        fact.basis,
        fact.jurisdiction,
        fact.previous,
        fact.granted_at,
        fact.expires_at,
    )


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (says(), says()),
        (says(version="3", expires_at=NOW + DAY), says(version="3", expires_at=NOW + DAY)),
        (says(basis=Basis.CONTRACT), says()),
        (says(REVOKED), says(REVOKED, method=Method.EMAIL)),
        (says(DENIED), says(DENIED)),
        (gpc(), gpc()),
    ],
)
def test_saying_the_same_again_writes_nothing(first, again):
    assert follow(again, after(first), SUBJECT, NOW + 5) is None


@pytest.mark.parametrize(
    "again",
    [
        says(version="4"),
        says(expires_at=NOW + DAY),
        says(basis=Basis.CONTRACT),
        says(method=Method.FORM),
        says(notice=bytes(32)),
        says(guardian=True),
        says(jurisdiction="EU"),
        says(overrides=True),
    ],
)
def test_what_differs_is_written_down(again):
    assert follow(again, after(says()), SUBJECT, NOW + 5) is not None


def test_consent_that_ran_out_can_be_given_again():
    state = after(says(expires_at=NOW + DAY))
    assert follow(says(), state, SUBJECT, NOW + 2 * DAY) is not None


# -- the opt-out signal ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [[gpc()], [gpc(), says(REVOKED)], [gpc(), says(overrides=True), says(REVOKED)], [says(), gpc()]]
)
def test_a_grant_against_a_standing_signal_needs_to_override_it(said):
    with pytest.raises(ConsentConflict, match="opt-out signal"):
        follow(says(), after(*said), SUBJECT, NOW + 9)
    fact = follow(says(overrides=True), after(*said), SUBJECT, NOW + 9)
    assert (True, True) == (fact.overrides, fact.signal)


def test_an_override_ends_with_the_grant_that_had_it():
    state = after(gpc(), says(overrides=True, expires_at=NOW + DAY))
    with pytest.raises(ConsentConflict):
        follow(says(), state, SUBJECT, NOW + 2 * DAY)


def test_a_signal_is_exactly_one():
    assert [True, True, False, False, False, False] == [
        signal_of(values) for values in (["1"], ["0", "1"], ["01"], ["true"], [" 1"], [])
    ]
    assert set(SIGNAL_PURPOSES) < set(PURPOSES)


# -- moments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (says(expires_at=NOW), "in the past"),
        (says(expires_at=NOW - DAY), "in the past"),
        (says(said_at=NOW + 1), "in the future"),
        (says(said_at=NOW - DAY, expires_at=NOW - DAY), "was over when it was given"),
    ],
)
def test_moments_that_cannot_be_are_refused(statement, words):
    with pytest.raises(InvalidInput, match=words):
        follow(statement, None, SUBJECT, NOW)


def test_an_import_may_tell_of_consent_that_has_run_out():
    state = after(says(said_at=NOW - 2 * DAY, expires_at=NOW - DAY, imported=True))
    assert State.EXPIRED is state_at(state, NOW)


def test_an_old_list_cannot_take_back_a_revocation():
    known = after(says(), says(REVOKED))
    assert follow(says(said_at=NOW - DAY, imported=True), known, SUBJECT, NOW + 9) is None
    with pytest.raises(InvalidInput, match="give the moment"):
        follow(says(imported=True), known, SUBJECT, NOW + 9)


def test_a_list_without_moments_may_take_consent_back():
    assert REVOKED == after(says(), says(REVOKED, imported=True)).state


said_in_the_past = st.builds(
    Statement,
    purpose=st.just("targeting"),
    state=st.sampled_from([GRANTED, DENIED, REVOKED]),
    version=st.sampled_from(["", "1", "2"]),
    said_at=st.integers(NOW - 5, NOW - 1),
    imported=st.just(True),
)


@given(st.lists(said_in_the_past, max_size=8))
def test_an_import_run_twice_changes_nothing(statements):
    once = after(*statements)
    for statement in statements:
        assert follow(statement, once, SUBJECT, NOW + 99) is None


@given(st.lists(said_in_the_past, max_size=6).flatmap(lambda said: st.tuples(st.just(said), st.permutations(said))))
def test_whether_imported_consent_holds_does_not_depend_on_the_order_of_the_lines(both):
    one, other = (after(*said, step=0) for said in both)
    assert in_force(one, NOW) == in_force(other, NOW)


anything = st.builds(
    Statement,
    purpose=st.just("targeting"),
    state=st.sampled_from([GRANTED, DENIED, REVOKED]),
    version=st.sampled_from(["", "1"]),
    expires_at=st.none() | st.integers(NOW + 1, NOW + 20),
    method=st.sampled_from([Method.API, Method.FORM]),
    overrides=st.booleans(),
) | st.just(gpc())


@given(st.lists(anything, max_size=12))
def test_consent_holds_exactly_when_the_last_word_is_yes(statements):
    """A plain model: the last word that was accepted, and whether a signal stands unanswered."""
    state, said, overridden, signal = None, None, False, False
    for at, statement in enumerate(statements, NOW):
        holds = said is not None and said.state is GRANTED and (said.expires_at is None or at < said.expires_at)
        if statement.method is Method.GPC:
            if not signal and not (holds and overridden):
                said = statement
            signal = signal or said is statement
        elif statement.state is GRANTED:
            overrides = statement.overrides or (overridden and holds)
            if signal and not overrides:
                with pytest.raises((ConsentConflict, InvalidInput)):
                    follow(statement, state, SUBJECT, at)
                continue
            if statement.expires_at is not None and statement.expires_at <= at:
                with pytest.raises(InvalidInput):
                    follow(statement, state, SUBJECT, at)
                continue
            said, overridden = statement, overrides
        else:
            said, overridden = statement, False
        fact = follow(statement, state, SUBJECT, at)
        if fact is not None:
            state = read_state(writes_of(fact, "c0ffee", at)[0].value)
        holds = said is not None and said.state is GRANTED and (said.expires_at is None or at < said.expires_at)
        assert (holds, signal) == (in_force(state, at), state is not None and state.signal)


@given(st.lists(anything, min_size=1, max_size=12))
def test_the_history_is_one_chain(statements):
    state, seq = None, 0
    for at, statement in enumerate(statements, NOW):
        try:
            fact = follow(statement, state, SUBJECT, at)
        except (ConsentConflict, InvalidInput):
            continue
        if fact is None:
            continue
        assert fact.previous == ([] if state is None else ["c0ffee", seq - 1])
        state, seq = read_state(writes_of(fact, "c0ffee", seq)[0].value), seq + 1


def test_a_state_survives_its_encoding():
    state = after(says(version="3", expires_at=NOW + DAY, notice=bytes(range(32)), guardian=True))
    assert state == read_state(msgspec.msgpack.encode(state))


# -- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "x" * 257, "a" * 1024, "two\nlines", "nul\0", "*", None, 7, b"c-1", "\ud800"])
def test_bad_customer_ids_are_refused_without_being_repeated(given):
    with pytest.raises(InvalidInput) as caught:
        parse_customer_id(given)
    assert "customer id" in str(caught.value)
    assert not (isinstance(given, str) and len(given) > 1 and given in str(caught.value))


@pytest.mark.parametrize("given", ["c", "x" * 256, "müller@example.org", " spaced ", "=1+1", "顧客"])
def test_good_customer_ids_stay_as_they_are(given):
    assert given == parse_customer_id(given)


@pytest.mark.parametrize("given", ["", "Marketing", "spam", None, 1, "marketing "])
def test_an_unknown_purpose_is_refused_with_the_list(given):
    with pytest.raises(InvalidInput, match="marketing, analytics, targeting, profiling, data_sharing"):
        parse_purpose(given)


def test_configured_purposes_come_on_top():
    assert (*PURPOSES, "newsletter") == parse_purposes(["newsletter", "marketing"])
    assert "newsletter" == parse_purpose("newsletter", parse_purposes(["newsletter"]))
    for bad in ("", "News", "1st", "a-b", "x" * 33, "none"):
        with pytest.raises(InvalidInput, match="cannot name a purpose"):
            parse_purposes([bad])


def test_words_are_read_as_people_write_them_and_otherwise_refused_with_the_list():
    assert Basis.LEGITIMATE_INTERESTS is parse_basis("Legitimate interest")
    assert Basis.CONSENT is parse_basis("Consent")
    assert GRANTED is parse_state("GRANTED")
    assert Method.PAPER is parse_method("paper")
    for parse, wrong, words in (
        (parse_basis, "because", "legitimate_interests"),
        (parse_basis, 1, "consent"),
        (parse_state, "expired", "granted, denied, revoked"),
        (parse_state, None, "granted"),
        (parse_method, "telepathy", "api, form"),
        (parse_method, [], "api, form"),
        (parse_digest, "00", "64 hexadecimal"),
    ):
        with pytest.raises(InvalidInput, match=words):
            parse(wrong)


def test_texts_are_bounded_and_printable():
    assert ["", "v3", "two\nlines"] == [
        parse_text(None, "x"),
        parse_text("v3", "x"),
        parse_text("two\nlines", "x", lines=True),
    ]
    for bad in ("x" * 65, "a\nb", "\x1b[0m", 3):
        with pytest.raises(InvalidInput, match="the version is not acceptable"):
            parse_text(bad, "version")
