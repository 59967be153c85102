"""The wire: what is written can be read back, what is wrong is refused with a sentence, repeats are the same bytes."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki import errors, members
from kiki.clock import to_iso
from kiki.errors import (
    InvalidInput,
    InvalidKey,
    InvalidMoney,
    InvalidScope,
    KikiError,
    PolicyError,
    SpendDenied,
    Unavailable,
)
from kiki.shield import (
    wire,
    wire_answer,
    wire_call,
    wire_moment,
    wire_problem,
    wire_schema,
    wire_simulation,
)
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import (
    check_call,
    commit_call,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    spend_many_call,
)
from kiki.shield.decision import Decision, Outcome
from kiki.shield.fact import Decided, Halted, Refused, Settled
from kiki.shield.scope import parse_scopes
from kiki.shield.simulation import Simulation
from kiki.shield.window import MeterStatus, OpenHold, Verb
from kiki.web.reply import describe_error
from kiki.web.request import parse_json

CHAIN, CURRENCY = "c0ffee0000000000", "USD"
HOLD = "0123456789abcdef" * 2

micros = st.integers(1, 2**63 - 1)
moments = st.integers(0, 4_000_000_000_000_000)
spans = st.integers(1, 366 * 24 * 3600 * 1_000_000)
kinds = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
values = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(lambda text: text != "*")
scope_objects = st.dictionaries(kinds, values, max_size=4)
keys = st.one_of(st.none(), st.text("abcdefgh-0123 ü", min_size=1, max_size=40))


def money(amount: int) -> str:
    return f"{amount // 1_000_000}.{amount % 1_000_000:06d}"


@st.composite
def outcomes(draw) -> Outcome:
    """An outcome as the decider makes it, admitted or refused for any reason."""
    verb = draw(st.sampled_from([Verb.CHECK, Verb.SPEND, Verb.RESERVE, Verb.RECORD]))
    amount, at = draw(micros), draw(moments)
    refused = []
    if draw(st.booleans()):
        budget = draw(st.sampled_from(["", "default", "meta"]))
        refused = [
            Refused(
                0,
                draw(st.sampled_from(list(Reason))),
                budget,
                draw(st.sampled_from(["", "*", "platform:meta"])),
                draw(spans) if budget else 0,
                draw(micros) if budget else 0,
                draw(st.integers(-(2**40), 2**62)),
                draw(st.one_of(st.none(), moments)),
            )
        ]
    fact = Decided(verb, at, "", draw(st.integers(0, 2**40)), [[]], [amount], refused)
    return Decision(draw(st.integers(0, 2**40)), fact).outcome()


# -- answers there and back --------------------------------------------------------------------------


@given(outcomes())
def test_an_outcome_is_read_as_it_was_written(outcome: Outcome):
    """The client sees every attribute that the guard's own outcome has."""
    read = wire.parse(wire_answer.outcome_bytes(outcome, CHAIN, CURRENCY), wire.OutcomeReply)
    assert read == wire_answer.outcome_reply(outcome, CHAIN, CURRENCY)
    for name in ("event_id", "allowed", "amount", "decided_at", "reason", "budget", "remaining", "retry_at"):
        assert getattr(read, name) == getattr(outcome, name), name
    assert read.retry_after == outcome.retry_after
    if not outcome.allowed:
        assert (str(read.denied()), vars(read.denied())) == (str(outcome.denied()), vars(outcome.denied()))


@given(outcomes().filter(lambda outcome: not outcome.allowed))
def test_a_refusal_is_a_problem_that_holds_its_outcome(outcome: Outcome):
    """A 403 says everything a 200 with a refused outcome would have said."""
    data = wire_answer.refusal_bytes(outcome, CHAIN, CURRENCY, "/v1/spends")
    assert wire.parse(data, wire.RefusalProblem).outcome() == wire_answer.outcome_reply(outcome, CHAIN, CURRENCY)
    found = json.loads(data)
    assert (found["type"], found["status"], found["code"]) == ("urn:kiki:error:spend_denied", 403, "spend_denied")
    assert {"title", "detail", "instance", "reason", "event_id", "chain", "amount", "decided_at"} <= set(found)


def test_an_outcome_on_the_wire_has_these_members():
    """The shape that the documentation promises, nothing absent that has a value."""
    fact = Decided("spend", 1_000_000, "", 0, [[]], [10_000_000])
    assert json.loads(wire_answer.outcome_bytes(Decision(1, fact).outcome(), CHAIN, CURRENCY)) == {
        "event_id": "0000000000010000",
        "chain": CHAIN,
        "verb": "spend",
        "allowed": True,
        "amount": "10.00",
        "currency": "USD",
        "decided_at": "1970-01-01T00:00:01.000000Z",
    }
    refused = Refused(0, Reason.BUDGET_EXHAUSTED, "default", "*", 60_000_000, 500_000_000, 5_000_000, 31_500_000)
    fact = msgspec.structs.replace(fact, refused=[refused])
    found = json.loads(wire_answer.outcome_bytes(Decision(1, fact).outcome(), CHAIN, CURRENCY))
    assert found.pop("explanation")
    assert list(found)[7:] == [
        "reason",
        "budget",
        "scope",
        "limit",
        "window_seconds",
        "remaining",
        "retry_at",
        "retry_after",
    ]
    assert (found["limit"], found["window_seconds"], found["remaining"]) == ("500.00", 60, "5.00")
    assert (found["retry_at"], found["retry_after"]) == ("1970-01-01T00:00:31.500000Z", 30.5)


def test_a_repeat_has_the_same_bytes():
    """The second answer to a key is the first one, to the byte."""
    with BudgetGuard.open(limit="500") as guard:
        first, second = (guard.decide(spend_call("600", {"platform": "meta"}, "k")) for _ in range(2))
    assert (first.repeated, second.repeated) == (False, True)
    assert first.outcome() == second.outcome()
    for dump in (wire_answer.outcome_bytes, wire_answer.refusal_bytes):
        assert dump(first.outcome(), CHAIN, CURRENCY) == dump(second.outcome(), CHAIN, CURRENCY)


@given(st.lists(micros, min_size=1, max_size=8), st.sets(st.integers(0, 7)))
def test_a_batch_is_read_as_it_was_written(amounts: list[int], refused: set[int]):
    """Counts and places of the refused ones hold."""
    facts = [Refused(index, Reason.HALTED) for index in sorted(refused) if index < len(amounts)]
    decision = Decision(7, Decided("spend", 1, "", 0, [[]], amounts, facts))
    reply = wire_answer.batch_reply(decision, CHAIN, CURRENCY)
    assert wire.parse(wire.dump(reply), wire.BatchReply) == reply
    assert (reply.admitted, reply.refused) == (len(amounts) - len(facts), len(facts))
    assert [each.allowed for each in reply.outcomes] == [index not in refused for index in range(len(amounts))]


@given(micros, moments, st.one_of(st.none(), moments), st.booleans())
def test_reservations_and_settlements_are_read_as_they_were_written(
    amount: int, at: int, deadline: int | None, late: bool
):
    reserved = Decision(3, Decided("reserve", at, "", 0, [[]], [amount], hold=HOLD, deadline=deadline))
    reply = wire_answer.reservation_reply(reserved, CHAIN, CURRENCY)
    assert wire.parse(wire.dump(reply), wire.ReservationReply) == reply
    assert "deadline" in json.loads(wire.dump(reply))
    settled = wire_answer.settlement_reply(
        Decision(4, Settled("commit", at, "", 0, HOLD, 0, amount, [], late, amount)), CHAIN
    )
    assert wire.parse(wire.dump(settled), wire.SettlementReply) == settled
    halted = wire_answer.halt_reply(Decision(5, Halted(at, "platform:meta", late)), CHAIN)
    assert wire.parse(wire.dump(halted), wire.HaltReply) == halted


@given(
    st.builds(
        MeterStatus,
        st.just("default"),
        st.just("platform:meta"),
        micros,
        spans,
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**62),
        st.one_of(st.none(), moments),
    )
)
def test_a_budgets_status_comes_back_as_the_same_value(meter: MeterStatus):
    """What `record` pushed over the limit included."""
    reply = wire_answer.budgets_reply([meter], ["*"], currency=CURRENCY, window="local", at=5)
    read = wire.parse(wire.dump(reply), wire.BudgetsReply)
    assert (read, read.meters()) == (reply, [meter])


@given(micros, scope_objects, st.one_of(st.none(), moments), moments)
def test_an_open_hold_comes_back_as_the_same_value(amount: int, scopes: dict[str, str], deadline: int | None, at: int):
    hold = OpenHold(HOLD, amount, parse_scopes(scopes), deadline, at)
    read = wire.parse(wire.dump(wire_answer.reservations_reply([hold])), wire.ReservationsReply)
    assert [each.hold() for each in read.reservations] == [hold]


@given(st.lists(st.integers(0, 2**40), min_size=9, max_size=9), st.dictionaries(values, st.integers(1, 99)))
def test_a_simulation_comes_back_as_the_same_value(figures: list[int], by_budget: dict[str, int]):
    simulation = Simulation(*figures)
    simulation.refused_by_budget.update(by_budget)
    assert wire_simulation.parse_simulation(json.loads(json.dumps(simulation.as_dict()))) == simulation


@given(moments)
def test_a_moment_comes_back_to_the_microsecond(moment: int):
    assert wire_moment.moment_micros(to_iso(moment)) == moment


# -- calls there and back ----------------------------------------------------------------------------


def sent(body: object) -> object:
    """A body as the service reads it."""
    return parse_json(json.dumps(body).encode())


@given(micros, scope_objects, keys)
def test_a_call_is_read_as_it_was_written(amount: int, scopes: dict[str, str], key: str | None):
    """Client and service mean the same spend, record, check, reservation and commit."""
    text = money(amount)
    spend = spend_call(text, scopes, key)
    assert wire_call.spend_body(sent(wire_call.call_json(spend, CURRENCY)), CURRENCY) == spend
    record = record_call(text, scopes, key)
    assert wire_call.record_body(sent(wire_call.call_json(record)), CURRENCY) == record
    check = check_call(text, scopes, "600.5")
    assert wire_call.check_body(sent(wire_call.call_json(check)), CURRENCY) == check
    commit = commit_call(HOLD, text)
    assert wire_call.commit_body(HOLD, sent(wire_call.call_json(commit)), CURRENCY) == commit
    release = release_call(HOLD)
    assert wire_call.release_body(HOLD, sent(wire_call.call_json(release))) == release == wire_call.release_body(HOLD)


@given(micros, st.one_of(st.none(), spans))
def test_a_reservations_span_is_exact(amount: int, span: int | None):
    reserve = reserve_call(money(amount), HOLD, span, {"platform": "meta"}, "k")
    assert wire_call.reserve_body(sent(wire_call.call_json(reserve)), HOLD, CURRENCY) == reserve


@given(st.lists(st.tuples(micros, scope_objects), min_size=1, max_size=4), scope_objects, keys)
def test_a_batch_call_is_read_as_it_was_written(items, shared: dict[str, str], key: str | None):
    """With shared scopes, and with scopes of their own."""
    for call in (
        spend_many_call([money(amount) for amount, _ in items], shared, key),
        spend_many_call([(money(amount), scopes) for amount, scopes in items], None, key),
    ):
        assert wire_call.batch_body(sent(wire_call.batch_json(call, CURRENCY)), CURRENCY) == call


@pytest.mark.parametrize("number", ["100", "100.10", "1e2", "0.000001", '"100.10"'])
def test_an_amount_is_text_or_a_number_and_exact(number: str):
    call = wire_call.spend_body(parse_json(f'{{"amount": {number}}}'.encode()), CURRENCY)
    assert call.amounts == [int(Decimal(number.strip('"')) * 1_000_000)]


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        ({}, InvalidMoney, "'amount' is missing"),
        ([], InvalidInput, "expected a JSON object, not a list"),
        (None, InvalidInput, "not null"),
        ({"ammount": 1}, InvalidInput, "did you mean 'amount'?"),
        ({"amount": 1, "scope": {}}, InvalidInput, "did you mean 'scopes'?"),
        ({"amount": 1, "xyz": {}}, InvalidInput, "known are amount"),
        ({"amount": True}, InvalidMoney, "not a boolean"),
        ({"amount": None}, InvalidMoney, "not null"),
        ({"amount": 1.5}, InvalidMoney, "not a number"),
        ({"amount": ["1"]}, InvalidMoney, "not a list"),
        ({"amount": "-1"}, InvalidMoney, "not a positive"),
        ({"amount": 0}, InvalidMoney, "not a positive"),
        ({"amount": "1.0000001"}, InvalidMoney, "too many decimals"),
        ({"amount": Decimal("1e400")}, InvalidMoney, "too large"),
        ({"amount": 10**40}, InvalidMoney, "too large"),
        ({"amount": "NaN"}, InvalidMoney, "not an amount"),
        ({"amount": 1, "currency": "EUR"}, InvalidInput, "every budget is in USD"),
        ({"amount": 1, "currency": "usd"}, InvalidInput, "every budget is in USD"),
        ({"amount": 1, "currency": None}, InvalidInput, "currency is text"),
        ({"amount": 1, "scopes": ["platform:meta"]}, InvalidScope, "not a list"),
        ({"amount": 1, "scopes": None}, InvalidScope, "not null"),
        ({"amount": 1, "scopes": {"Platform": "meta"}}, InvalidScope, "not a scope kind"),
        ({"amount": 1, "scopes": {"platform": 3}}, InvalidScope, "not a value"),
        ({"amount": 1, "key": ""}, InvalidKey, "1 to 255"),
        ({"amount": 1, "key": "x" * 65_000}, InvalidKey, "65000 characters"),
        ({"amount": 1, "key": 5}, InvalidKey, "a key is text"),
    ],
)
def test_a_bad_spend_is_refused_with_a_sentence(body: object, error: type[KikiError], says: str):
    with pytest.raises(error, match=says.replace("?", r"\?")) as caught:
        wire_call.spend_body(body, CURRENCY)
    assert caught.type is error
    assert len(str(caught.value)) < 400


def test_a_key_may_come_twice_when_it_is_the_same():
    """In the body and in the header; different ones contradict each other."""
    assert wire_call.spend_body({"amount": 1, "key": "a"}, CURRENCY, "a").key == "a"
    assert wire_call.spend_body({"amount": 1}, CURRENCY, "a").key == "a"
    assert wire_call.spend_body({"amount": 1}, CURRENCY).key == ""
    with pytest.raises(InvalidKey, match="differ"):
        wire_call.spend_body({"amount": 1, "key": "a"}, CURRENCY, "b")
    with pytest.raises(InvalidKey):
        wire_call.spend_body({"amount": 1}, CURRENCY, "")


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda: wire_call.batch_body({}, CURRENCY), "either 'amounts'"),
        (lambda: wire_call.batch_body({"amounts": ["1"], "spends": []}, CURRENCY), "either 'amounts'"),
        (lambda: wire_call.batch_body({"amounts": []}, CURRENCY), "a batch of 0"),
        (lambda: wire_call.batch_body({"amounts": "1"}, CURRENCY), "is a list, not text"),
        (lambda: wire_call.batch_body({"amounts": ["1", True]}, CURRENCY), "item 1: an amount"),
        (lambda: wire_call.batch_body({"amounts": ["1", "x"]}, CURRENCY), "item 1: 'x'"),
        (lambda: wire_call.batch_body({"amounts": ["1"] * 10_001}, CURRENCY), "10001"),
        (
            lambda: wire_call.batch_body({"spends": [{"amount": "1"}, {"amonut": 1}]}, CURRENCY),
            "item 1: .*did you mean",
        ),
        (lambda: wire_call.batch_body({"spends": [3]}, CURRENCY), "item 0: expected a JSON object"),
        (lambda: wire_call.check_body({"ltv": None}, CURRENCY), "ltv: an amount"),
        (lambda: wire_call.check_body({"ltv": 1.5}, CURRENCY), "ltv: an amount"),
        (lambda: wire_call.check_body({"amount": None}, CURRENCY), "not null"),
        (lambda: wire_call.reserve_body({"amount": 1, "seconds": 0}, HOLD, CURRENCY), "positive number"),
        (lambda: wire_call.reserve_body({"amount": 1, "seconds": -1}, HOLD, CURRENCY), "positive number"),
        (
            lambda: wire_call.reserve_body({"amount": 1, "seconds": Decimal("1e999999")}, HOLD, CURRENCY),
            "positive number",
        ),
        (lambda: wire_call.reserve_body({"amount": 1, "seconds": 1e8}, HOLD, CURRENCY), "366 days"),
        (lambda: wire_call.reserve_body({"amount": 1, "seconds": "5"}, HOLD, CURRENCY), "not text"),
        (lambda: wire_call.reserve_body({"amount": 1, "seconds": True}, HOLD, CURRENCY), "not a boolean"),
        (lambda: wire_call.commit_body("x", {"amount": 1}, CURRENCY), "reservation id"),
        (lambda: wire_call.commit_body(HOLD, {}, CURRENCY), "missing"),
        (lambda: wire_call.release_body(HOLD, {"amount": 1}), "takes no members"),
        (lambda: wire_call.halt_body({"pattern": 5}), "is text"),
        (lambda: wire_call.halt_body({"pattern": "meta"}), "not a scope pattern"),
        (lambda: wire_call.halt_body({"pattern": "*", "note": "x" * 300}), "note"),
        (lambda: wire_call.simulate_body({"policy": ["x"]}), "is text"),
        (lambda: wire_call.simulate_body({"policy": "\ud800"}), "surrogate"),
        (lambda: wire_call.simulate_body({"policy": "", "since": "yesterday"}), "RFC 3339"),
        (lambda: wire_call.resume_query([]), "missing"),
        (lambda: wire_call.spend_query([], CURRENCY), "Invalid amount"),
        (lambda: wire_call.spend_query([("amount", "x")], CURRENCY), "Invalid amount"),
        (lambda: wire_call.spend_query([("amount", "1"), ("amount", "2")], CURRENCY), "given twice"),
        (lambda: wire_call.spend_query([("amount", "1"), ("scopes", "a:b")], CURRENCY), "did you mean 'scope'"),
        (lambda: wire_call.check_query([], CURRENCY), "Missing LTV parameter"),
        (lambda: wire_call.check_query([("ltv", "NaN")], CURRENCY), "Invalid LTV value"),
        (lambda: wire_call.check_query([("ltv", "5"), ("amount", "x")], CURRENCY), "Invalid amount"),
        (lambda: wire_call.budgets_query([("limit", "0")]), "from 1 to 1000"),
        (lambda: wire_call.budgets_query([("limit", "٣")]), "from 1 to 1000"),
        (lambda: wire_call.decisions_query([("after", "zz")]), "16 hexadecimal"),
        (lambda: wire_call.decisions_query([("outcome", "maybe")]), "APPROVED"),
        (lambda: wire_call.decisions_query([("since", "2026-11-22T10:00:00 00:00")]), "%2B"),
        (lambda: wire_call.decisions_query([("scope", "meta")]), "not a scope"),
        (lambda: members.require_no_query([("a", "b")]), "takes no parameters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(read, says: str):
    with pytest.raises(InvalidInput, match=says):
        read()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["amount", "scopes", "key", "ltv", "seconds", "amounts", "spends", "policy", "pattern"]) | st.text(max_size=5), inner, max_size=4)))  # fmt: skip
def test_any_value_is_a_call_or_refused(value: object):
    """Whatever JSON holds, each reader answers with a call or with InvalidInput."""
    for read in (
        lambda: wire_call.spend_body(value, CURRENCY),
        lambda: wire_call.batch_body(value, CURRENCY),
        lambda: wire_call.check_body(value, CURRENCY),
        lambda: wire_call.reserve_body(value, HOLD, CURRENCY),
        lambda: wire_call.commit_body(HOLD, value, CURRENCY),
        lambda: wire_call.halt_body(value),
        lambda: wire_call.simulate_body(value),
    ):
        with contextlib.suppress(InvalidInput):
            read()


# -- the guide's texts, problems, schemas ------------------------------------------------------------


def test_the_guides_texts():
    """`/spend` and `/check` say what they said before, and why not."""
    with BudgetGuard.open(limit="500") as guard:
        taken, refused = (
            guard.decide(wire_call.spend_query([("amount", text)], CURRENCY)).outcome() for text in ("10", "600")
        )
    assert wire_answer.spend_text(taken) == "Spend recorded: 10.00"
    assert wire_answer.spend_text(refused) == f"Spend refused: {refused.explanation}\n"
    assert (wire_answer.check_text(taken), wire_answer.check_text(refused)) == (
        "Compliance check passed",
        "Bid validation failed\n",
    )


def test_the_guides_queries():
    call = wire_call.spend_query([("amount", "10"), ("scope", "platform:meta"), ("scope", "campaign:a")], CURRENCY, "k")
    assert call == spend_call("10", ["platform:meta", "campaign:a"], "k")
    assert wire_call.check_query([("ltv", "600")], CURRENCY) == check_call(ltv="600")


def made(kind: type[KikiError]) -> KikiError:
    """An error of that kind with everything that it can carry."""
    if issubclass(kind, SpendDenied):
        return kind("no", reason="halted", budget="b", remaining="1.00", retry_after=2.5, event_id="0" * 16)
    if issubclass(kind, errors.ConsentDenied):
        return kind("no", purpose="marketing", state="none")
    if issubclass(kind, errors.CodeDenied):
        return kind("no", reason="expired")
    if issubclass(kind, errors.PointsShort):
        return kind("no", available=7)
    if issubclass(kind, errors.EvidenceInvalid):
        return kind("no", place="entry 7", hint="look")
    if issubclass(kind, errors.ConfigurationError):
        return kind(["line 1: a", "line 2: b"], hint="look")
    if issubclass(kind, Unavailable):
        return kind("no", retry_after=2.5, hint="wait")
    return kind("no", hint="look")


def kinds_of(kind: type[KikiError] = KikiError) -> list[type[KikiError]]:
    return [
        kind,
        *(each for child in kind.__subclasses__() if child.__module__ == "kiki.errors" for each in kinds_of(child)),
    ]


@pytest.mark.parametrize("kind", [kind for kind in kinds_of() if kind is not errors.MissingExtra])
def test_every_error_comes_back_as_itself(kind: type[KikiError]):
    """With its message, its hint and its facts."""
    error = made(kind)
    back = wire_problem.error_of(
        wire_problem.parse_problem(json.dumps(describe_error(error, 500, "/x")).encode()) or {}
    )
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_a_problem_names_every_mistake_of_a_policy():
    assert describe_error(PolicyError(["a", "b"]), 400)["problems"] == ["a", "b"]


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"code": 5}', b"<html>", b"\xff", b"[" * 5000])
def test_what_is_no_problem_is_none(data: bytes):
    assert wire_problem.parse_problem(data) is None


def test_every_schema_that_is_named_is_there():
    """The components of the OpenAPI document refer to one another and to nothing else."""
    schemas = wire_schema.schemas()

    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert references(schemas) <= set(schemas)
    assert {"OutcomeReply", "SpendBody", "Problem", "BudgetsReply"} <= set(schemas)
    json.dumps(schemas)
