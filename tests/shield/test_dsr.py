"""Requests as rules: kinds, states, steps, and the words that callers may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import Conflict, InvalidInput
from kiki.shield.dsr import (
    Kind,
    State,
    Step,
    follow,
    new_request_id,
    parse_article,
    parse_kind,
    parse_request_id,
    parse_state,
    parse_word,
)

OPEN = {state for state in State if state.is_open}
IN_A_RUN = {
    *(Step.LOCATED, Step.RESTRICTED, Step.RECTIFIED, Step.EXPORTED, Step.PACKED, Step.ERASED, Step.KEPT),
    *(Step.CHECKED, Step.FAILED, Step.WAITING, Step.COMPLETED),
}
ASKING = {State.RECEIVED, State.IDENTITY_PENDING, State.PAUSED}
ALLOWED = {
    Step.CODE_SENT: ASKING,
    Step.CODE_FAILED: ASKING,
    Step.VERIFIED: ASKING,
    Step.PAUSED: {State.RECEIVED, State.IDENTITY_PENDING},
    Step.RESUMED: {State.PAUSED},
    Step.ACKNOWLEDGED: OPEN,
    Step.EXTENDED: OPEN,
    Step.ASSIGNED: OPEN,
    Step.STARTED: {State.VERIFIED, State.WAITING, State.RUNNING},
    Step.REFUSED: OPEN - {State.RUNNING},
    Step.CANCELLED: OPEN - {State.RUNNING},
    Step.REOPENED: {State.COMPLETED_WITH_EXCEPTIONS},
    **{step: {State.RUNNING} for step in IN_A_RUN},
}


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.RECEIVED])
@pytest.mark.parametrize("state", State)
def test_a_step_is_taken_where_it_is_allowed_and_nowhere_else(step: Step, state: State):
    if state in ALLOWED[step]:
        assert follow("DSR-1-00000000", state, step) in State
    else:
        with pytest.raises(Conflict, match=f"is {state}:"):
            follow("DSR-1-00000000", state, step)


@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        (State.RECEIVED, Step.CODE_SENT, State.IDENTITY_PENDING),
        (State.PAUSED, Step.CODE_SENT, State.PAUSED),
        (State.RECEIVED, Step.PAUSED, State.PAUSED),
        (State.PAUSED, Step.RESUMED, State.IDENTITY_PENDING),
        (State.PAUSED, Step.VERIFIED, State.VERIFIED),
        (State.WAITING, Step.STARTED, State.RUNNING),
        (State.RUNNING, Step.ERASED, State.RUNNING),
        (State.RUNNING, Step.WAITING, State.WAITING),
        (State.VERIFIED, Step.ASSIGNED, State.VERIFIED),
        (State.WAITING, Step.REFUSED, State.REFUSED),
        (State.COMPLETED_WITH_EXCEPTIONS, Step.REOPENED, State.VERIFIED),
    ],
)
def test_where_a_step_leads(before: State, step: Step, after: State):
    assert after is follow("DSR-1-00000000", before, step)


def test_a_completion_says_itself_whether_there_were_exceptions():
    for after in (State.COMPLETED, State.COMPLETED_WITH_EXCEPTIONS):
        assert after is follow("DSR-1-00000000", State.RUNNING, Step.COMPLETED, after)


def test_the_original_knows_three_states():
    assert {"PENDING", "COMPLETED", "REJECTED"} == {state.outward for state in State}
    assert {"PENDING"} == {state.outward for state in OPEN}
    assert ("REJECTED", "REJECTED") == (State.REFUSED.outward, State.CANCELLED.outward)


def test_only_what_stops_something_needs_no_identity():
    assert {Kind.OBJECTION, Kind.OPT_OUT} == {kind for kind in Kind if not kind.needs_identity}


@pytest.mark.parametrize("text", ["opt_out", "OPT-OUT", " Opt_Out "])
def test_a_kind_is_read_in_any_spelling(text: str):
    assert Kind.OPT_OUT is parse_kind(text)


@given(st.text(max_size=30))
def test_no_text_makes_a_parser_fail_otherwise(text: str):
    for parse in (parse_kind, parse_state, parse_request_id, parse_article, lambda given: parse_word(given, "word")):
        try:
            parse(text)
        except InvalidInput as error:
            assert str(error)  # noqa: PT017  # any other error ends the test


@pytest.mark.parametrize("value", [None, 7, b"ACCESS", [], "x" * 10_000])
def test_what_is_no_text_is_refused(value: object):
    for parse in (parse_kind, parse_state, parse_request_id, parse_article, lambda given: parse_word(given, "word")):
        with pytest.raises(InvalidInput):
            parse(value)


@pytest.mark.parametrize("article", ["GDPR 12(5)", "§ 35 BDSG", "11 CCR 7022(f)(2); 7024", "1798.105(d)(8)"])
def test_provisions_are_written_as_lawyers_do(article: str):
    assert article == parse_article(f"{article} ")


@pytest.mark.parametrize("article", ["", " ", "=cmd()", "a\nb", "x" * 65, "Mr Smith!"])
def test_what_is_no_provision_is_refused(article: str):
    with pytest.raises(InvalidInput):
        parse_article(article)


@given(st.integers(0, 253_402_300_799_999_999), st.binary(min_size=4, max_size=4))
def test_every_new_id_can_be_read(at: int, random: bytes):
    made = new_request_id(at, random)
    assert made == parse_request_id(made)
    assert f"DSR-{at // 1_000_000}-{random.hex()}" == made
