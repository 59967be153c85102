"""What callers send to SyncShield, there and back: bodies and queries as calls, and calls as bodies.

The shapes are those of the table in `wire`. What is not listed there is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from kiki.clock import SECOND
from kiki.errors import (
    InvalidInput,
    InvalidKey,
    InvalidMoney,
    InvalidScope,
)
from kiki.members import (
    Query,
    kind_of,
    limit_of,
    list_of,
    quoted,
    read_members,
    read_query,
    text_of,
)
from kiki.money import format_micros, parse_micros
from kiki.shield.call import (
    Call,
    Switch,
    check_call,
    commit_call,
    parse_key,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    spend_many_call,
    switch,
)
from kiki.shield.evidence_words import OUTCOMES
from kiki.shield.scope import Pattern, parse_scopes
from kiki.shield.window import Verb
from kiki.shield.wire import KEY_HEADER
from kiki.shield.wire_answer import scopes_object
from kiki.shield.wire_moment import micros_or_none, parse_moment, seconds_of

STATUS_LIMIT = 1000
DECISIONS_LIMIT = 100
DECISIONS_LIMIT_MAX = 1000
POLICY_LENGTH_MAX = 1_000_000

# -- calls, from what was sent -----------------------------------------------------------------------


SPEND_MEMBERS = ("amount", "currency", "scopes", "key", "purpose")
RECORD_MEMBERS = ("amount", "currency", "scopes", "key")
BATCH_MEMBERS = ("amounts", "spends", "currency", "scopes", "key", "purpose")
ITEM_MEMBERS = ("amount", "scopes")
CHECK_MEMBERS = ("amount", "currency", "scopes", "ltv", "purpose")
RESERVE_MEMBERS = ("amount", "currency", "scopes", "key", "seconds", "purpose")
COMMIT_MEMBERS = ("amount", "currency")
HALT_MEMBERS = ("pattern", "note")
SIMULATE_MEMBERS = ("policy", "since")


def spend_body(body: object, currency: str, key: str | None = None) -> Call:
    """The spend in a body; `key` is the `Idempotency-Key` header, None without one."""
    found = read_members(body, SPEND_MEMBERS, required=("amount",))
    _same_currency(found, currency)
    return spend_call(_amount(found), _scopes(found), _one_key(found, key), _purpose(found))


def batch_body(body: object, currency: str, key: str | None = None) -> Call:
    """The batch in a body: `amounts`, or `spends` with scopes of their own."""
    found = read_members(body, BATCH_MEMBERS)
    _same_currency(found, currency)
    if ("amounts" in found) == ("spends" in found):
        raise InvalidInput("a batch has either 'amounts', a list of amounts, or 'spends', a list of {amount, scopes}")
    shared, given_key = _scopes(found), _one_key(found, key)
    if "amounts" in found:
        amounts = list_of(found, "amounts")
        for index, amount in enumerate(amounts):
            if type(amount) is not str:
                _checked_amount(amount, f"item {index}: ")
        return spend_many_call(amounts, shared, given_key, _purpose(found))
    items: list[Any] = []
    for index, item in enumerate(list_of(found, "spends")):
        try:
            own = read_members(item, ITEM_MEMBERS, required=("amount",))
            amount = _amount(own)
            items.append((amount, _scopes(own)) if "scopes" in own else amount)
        except InvalidInput as error:
            raise type(error)(f"item {index}: {error}") from None
    return spend_many_call(items, shared, given_key, _purpose(found))


def check_body(body: object, currency: str) -> Call:
    """The check in a body, which may be empty: whether anything would fit."""
    found = read_members(body, CHECK_MEMBERS)
    _same_currency(found, currency)
    if "ltv" in found:
        _checked_amount(found["ltv"], "ltv: ")
    amount = _amount(found) if "amount" in found else None
    return check_call(amount, _scopes(found), found.get("ltv"), _purpose(found))


def reserve_body(body: object, hold: str, currency: str, key: str | None = None) -> Call:
    """The reservation in a body; `hold` is the fresh id that it will have."""
    found = read_members(body, RESERVE_MEMBERS, required=("amount",))
    _same_currency(found, currency)
    span = parse_seconds(found["seconds"]) if "seconds" in found else None
    return reserve_call(_amount(found), hold, span, _scopes(found), _one_key(found, key), _purpose(found))


def commit_body(hold: str, body: object, currency: str) -> Call:
    """The commit of a reservation."""
    found = read_members(body, COMMIT_MEMBERS, required=("amount",))
    _same_currency(found, currency)
    return commit_call(hold, _amount(found))


def release_body(hold: str, body: object = None) -> Call:
    """The release of a reservation; its body is nothing or `{}`."""
    if body is not None:
        read_members(body, ())
    return release_call(hold)


def record_body(body: object, currency: str, key: str | None = None) -> Call:
    """The record in a body."""
    found = read_members(body, RECORD_MEMBERS, required=("amount",))
    _same_currency(found, currency)
    return record_call(_amount(found), _scopes(found), _one_key(found, key))


def halt_body(body: object) -> Switch:
    """The halt in a body."""
    found = read_members(body, HALT_MEMBERS, required=("pattern",))
    return switch(text_of(found, "pattern"), on=True, note=text_of(found, "note") if "note" in found else "")


def simulate_body(body: object) -> tuple[str, datetime | None]:
    """The YAML text of a policy and the moment from which it is asked to judge."""
    found = read_members(body, SIMULATE_MEMBERS, required=("policy",))
    policy = text_of(found, "policy")
    if len(policy) > POLICY_LENGTH_MAX:
        raise InvalidInput(f"a policy is at most {POLICY_LENGTH_MAX} characters long")
    try:
        policy.encode()
    except UnicodeEncodeError:
        raise InvalidInput("'policy' is not text: it holds half of a surrogate pair") from None
    return policy, parse_moment(text_of(found, "since")) if "since" in found else None


def spend_query(query: Query, currency: str, key: str | None = None) -> Call:
    """The spend of the guide's `/spend?amount=`."""
    single, scopes = read_query(query, ("amount", "currency", "purpose"), many="scope")
    if "amount" not in single:
        raise InvalidMoney("Invalid amount: it is missing; write /spend?amount=12.34")
    _same_currency(single, currency)
    try:
        return spend_call(single["amount"], scopes, key, single.get("purpose"))
    except InvalidMoney as error:
        raise InvalidMoney(f"Invalid amount: {error}") from None


def check_query(query: Query, currency: str) -> Call:
    """The check of the guide's `/check?ltv=`; with an amount it may come without one."""
    single, scopes = read_query(query, ("ltv", "amount", "currency", "purpose"), many="scope")
    _same_currency(single, currency)
    if "ltv" not in single and "amount" not in single:
        raise InvalidInput("Missing LTV parameter: write /check?ltv=600, or /check?amount=12.34, or both")
    if "ltv" in single:
        try:
            parse_micros(single["ltv"], zero=True)
        except InvalidMoney as error:
            raise InvalidMoney(f"Invalid LTV value: {error}") from None
    try:
        return check_call(single.get("amount"), scopes, single.get("ltv"), single.get("purpose"))
    except InvalidMoney as error:
        raise InvalidMoney(f"Invalid amount: {error}") from None


class BudgetsQuery(msgspec.Struct, frozen=True):
    """What somebody wants to see of the budgets."""

    budget: str | None = None
    scope: str | None = None
    limit: int = STATUS_LIMIT


class DecisionsQuery(msgspec.Struct, frozen=True):
    """Which part of the audit somebody wants to see; [since, until) in microseconds since the epoch."""

    after: str | None = None
    limit: int = DECISIONS_LIMIT
    since: int | None = None
    until: int | None = None
    outcome: str | None = None
    scope: str | None = None


def budgets_query(query: Query) -> BudgetsQuery:
    """The query of `GET /v1/budgets`."""
    single, _ = read_query(query, ("budget", "scope", "limit"))
    return BudgetsQuery(
        _named(single, "budget"), _scope_text(single), limit_of(single, default=STATUS_LIMIT, most=STATUS_LIMIT)
    )


def resume_query(query: Query) -> Switch:
    """The query of `DELETE /v1/halts`."""
    single, _ = read_query(query, ("pattern",))
    if "pattern" not in single:
        raise InvalidScope(
            "the pattern is missing: write /v1/halts?pattern=platform:meta, or ?pattern=* for all spends"
        )
    return switch(single["pattern"], on=False)


def decisions_query(query: Query) -> DecisionsQuery:
    """The query of `GET /v1/decisions`."""
    single, _ = read_query(query, ("after", "limit", "since", "until", "outcome", "scope"))
    return DecisionsQuery(
        parse_event_id(single["after"]) if "after" in single else None,
        limit_of(single, default=DECISIONS_LIMIT, most=DECISIONS_LIMIT_MAX),
        micros_or_none(single.get("since")),
        micros_or_none(single.get("until")),
        parse_outcome_word(single["outcome"]) if "outcome" in single else None,
        parse_scopes([single["scope"]])[0] if "scope" in single else None,
    )


def parse_outcome_word(text: str) -> str:
    """A word of `OUTCOMES`, in whatever case it was written."""
    word = text.upper()
    if word not in OUTCOMES:
        raise InvalidInput(f"{quoted(text)} is not an outcome: write one of {', '.join(OUTCOMES)}")
    return word


def parse_event_id(text: str) -> str:
    """The id of a decision: 16 hexadecimal digits."""
    if re.fullmatch(r"[0-9a-f]{16}", text):
        return text
    raise InvalidInput(f"{quoted(text)} is not an event id: that is 16 hexadecimal digits")


def _amount(found: Mapping[str, Any]) -> str | int | Decimal:
    amount = found["amount"]
    _checked_amount(amount, "")
    return amount  # type: ignore[no-any-return]  # checked just now


def _checked_amount(amount: object, where: str) -> None:
    # A float cannot come from a JSON body that kiki reads; from elsewhere it is refused rather than guessed at.
    if type(amount) is not str and type(amount) is not int and not isinstance(amount, Decimal):
        raise InvalidMoney(f"{where}an amount is decimal text such as '12.34' or a number, not {kind_of(amount)}")


def _purpose(found: Mapping[str, Any]) -> str | None:
    return text_of(found, "purpose") if "purpose" in found else None


def _scopes(found: Mapping[str, Any]) -> dict[str, str] | None:
    scopes = found.get("scopes")
    if scopes is None and "scopes" not in found:
        return None
    if not isinstance(scopes, dict):
        raise InvalidScope(f"scopes are an object such as {{'platform': 'meta'}}, not {kind_of(scopes)}")
    return scopes


def _one_key(found: Mapping[str, Any], header: str | None) -> str | None:
    if "key" not in found:
        return parse_key(header) or None
    key = found["key"]
    if not isinstance(key, str):
        raise InvalidKey(f"a key is text, not {kind_of(key)}")
    if header is not None and header != key:
        raise InvalidKey(f"the body's key and the {KEY_HEADER} header differ; send one of them, or both alike")
    return parse_key(key)


def _same_currency(found: Mapping[str, Any], currency: str) -> None:
    if "currency" not in found or found["currency"] == currency:
        return
    given = found["currency"]
    if not isinstance(given, str):
        raise InvalidInput(f"a currency is text, not {kind_of(given)}")
    raise InvalidInput(f"the currency {quoted(given)} is not accepted here: every budget is in {currency}")


def parse_seconds(seconds: object) -> int:
    """How long a reservation lasts, from a number of seconds into microseconds; raises `InvalidInput`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal):
        raise InvalidInput(f"'seconds' is a number, not {kind_of(seconds)}")
    # Looked at before any arithmetic: 1e999999 must not be expanded, and NaN has no size.
    if not -1e9 < seconds < 1e9:
        raise InvalidInput("'seconds' must be a positive number of at most 366 days, or absent for no deadline")
    span = round(seconds * SECOND)
    if span <= 0:
        raise InvalidInput("'seconds' must be a positive number of at most 366 days, or absent for no deadline")
    return span


def _named(single: Mapping[str, str], name: str) -> str | None:
    value = single.get(name)
    if value is not None and (not 1 <= len(value) <= 255 or not value.isprintable()):
        raise InvalidInput(f"the parameter {name!r} must be 1 to 255 printable characters")
    return value


def _scope_text(single: Mapping[str, str]) -> str | None:
    return Pattern.parse(single["scope"]).text if "scope" in single else None


# -- the client's side -------------------------------------------------------------------------------


def call_json(call: Call, currency: str | None = None) -> dict[str, Any]:
    """The body that asks for this call; the `…_body` function of its verb reads it back."""
    body: dict[str, Any] = {}
    match call.verb:
        case Verb.RELEASE:
            return body
        case Verb.SPEND if len(call.amounts) > 1 or len(call.scopes) > 1:
            return batch_json(call, currency)
        case Verb.CHECK:
            body["amount"] = format_micros(call.amounts[0])
            if call.ltv is not None:
                body["ltv"] = format_micros(call.ltv)
        case Verb.RESERVE:
            body["amount"] = format_micros(call.amounts[0])
            if call.hold_span is not None:
                body["seconds"] = seconds_of(call.hold_span)
        case _:
            body["amount"] = format_micros(call.amounts[0])
    if call.scopes != ((),):
        body["scopes"] = scopes_object(call.scopes[0])
    return _with_the_rest(body, call, currency)


def batch_json(call: Call, currency: str | None = None) -> dict[str, Any]:
    """The body that asks for a batch; `batch_body` reads it back."""
    amounts = [format_micros(amount) for amount in call.amounts]
    body: dict[str, Any]
    if len(call.scopes) == 1:
        body = {"amounts": amounts}
        if call.scopes != ((),):
            body["scopes"] = scopes_object(call.scopes[0])
    else:
        each = zip(amounts, call.scopes, strict=True)
        body = {"spends": [{"amount": amount, "scopes": scopes_object(scopes)} for amount, scopes in each]}
    return _with_the_rest(body, call, currency)


def _with_the_rest(body: dict[str, Any], call: Call, currency: str | None) -> dict[str, Any]:
    if call.key:
        body["key"] = call.key
    if call.purpose:
        body["purpose"] = call.purpose
    if currency is not None:
        body["currency"] = currency
    return body
