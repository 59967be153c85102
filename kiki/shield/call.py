"""What somebody asks of the guard, read and checked. Pure: bad input ends here, before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from kiki.errors import InvalidInput, InvalidKey, InvalidMoney, InvalidScope
from kiki.money import parse_micros
from kiki.shield.origin import Origin
from kiki.shield.scope import Pattern, Scopes, parse_scopes
from kiki.shield.window import Verb

Amount = str | int | Decimal
ScopesGiven = Mapping[str, str] | Iterable[str] | None

KEY_LENGTH_MAX = 255
BATCH_MAX = 10_000
HOLD_SPAN_MAX = 366 * 24 * 3600 * 1_000_000

_PURPOSE = re.compile(r"[a-z][a-z0-9_]{0,31}")
KEY_ACCEPTED = f"an idempotency key is 1 to {KEY_LENGTH_MAX} printable characters"


class Call(msgspec.Struct):
    """One request on its way to the window: an entry of the ledger once it is answered."""

    verb: Verb
    amounts: list[int] = []
    scopes: tuple[Scopes, ...] = ((),)
    """As given; persons in clear, so a call is never stored or logged."""
    key: str = ""
    hold: str = ""
    hold_span: int | None = None
    ltv: int | None = None
    invalid: bool = False
    """It could not be read; it is only written down as refused."""
    actor: str = ""
    purpose: str = ""
    """What the persons named must have consented to."""
    origin: Origin | None = None


class Switch(msgspec.Struct):
    """Turn the kill switch of a scope pattern on or off."""

    pattern: str
    on: bool
    actor: str = ""
    note: str = ""
    origin: Origin | None = None


def parse_key(key: object) -> str:
    """The idempotency key, or empty when there is none; raises `InvalidKey`."""
    if key is None:
        return ""
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isprintable():
        what = f"a key of {len(key)} characters" if isinstance(key, str) else f"a {type(key).__name__}"
        raise InvalidKey(f"{what} is not acceptable: {KEY_ACCEPTED}")
    return key


def parse_purpose(purpose: object) -> str:
    """What a spend is for, in the words of consent; empty when nobody says. Raises `InvalidInput`."""
    if purpose is None:
        return ""
    if isinstance(purpose, str) and _PURPOSE.fullmatch(purpose):
        return purpose
    raise InvalidInput("a purpose is 1 to 32 of a-z, 0-9 and _, beginning with a letter, for example marketing")


def spend_call(amount: Amount, scopes: ScopesGiven = None, key: str | None = None, purpose: str | None = None) -> Call:
    """A call that takes `amount`; persons named in the scopes must have consented to `purpose`."""
    return Call(
        Verb.SPEND, [parse_micros(amount)], (parse_scopes(scopes),), parse_key(key), purpose=parse_purpose(purpose)
    )


def spend_many_call(
    amounts: Iterable[Amount | tuple[Amount, ScopesGiven]],
    scopes: ScopesGiven = None,
    key: str | None = None,
    purpose: str | None = None,
) -> Call:
    """A call that takes many amounts, each on its own; an item may be (amount, scopes) with scopes of its own."""
    micros: list[int] = []
    own: dict[int, Scopes] = {}
    if isinstance(amounts, str | bytes):
        raise InvalidInput("a batch is a list of amounts, not one text")
    for index, item in enumerate(amounts):
        try:
            if type(item) is tuple:
                if len(item) != 2:
                    raise InvalidInput("write an amount, or a pair of amount and scopes")
                amount, given = item
                own[index] = parse_scopes(given)
            else:
                amount = item  # type: ignore[assignment]  # not a tuple, so an amount
            micros.append(parse_micros(amount))
        except InvalidInput as error:
            raise type(error)(f"item {index}: {error}") from None
    if not 1 <= len(micros) <= BATCH_MAX:
        raise InvalidMoney(f"a batch of {len(micros)} amounts is not acceptable: send 1 to {BATCH_MAX}")
    shared = parse_scopes(scopes)
    each = (shared,) if not own else tuple(own.get(index, shared) for index in range(len(micros)))
    return Call(Verb.SPEND, micros, each, parse_key(key), purpose=parse_purpose(purpose))


def check_call(
    amount: Amount | None = None,
    scopes: ScopesGiven = None,
    ltv: Amount | None = None,
    purpose: str | None = None,
) -> Call:
    """A call that asks whether `amount` would fit; without one, whether anything would."""
    return Call(
        Verb.CHECK,
        [1 if amount is None else parse_micros(amount)],
        (parse_scopes(scopes),),
        ltv=None if ltv is None else parse_micros(ltv, zero=True),
        purpose=parse_purpose(purpose),
    )


def reserve_call(
    amount: Amount,
    hold: str,
    hold_span: int | None,
    scopes: ScopesGiven = None,
    key: str | None = None,
    purpose: str | None = None,
) -> Call:
    """A call that sets `amount` aside under the id `hold`, for at most `hold_span` microseconds."""
    if hold_span is not None and not 0 < hold_span <= HOLD_SPAN_MAX:
        raise InvalidInput("a reservation lasts more than 0 seconds and at most 366 days, or has no deadline at all")
    return Call(
        Verb.RESERVE,
        [parse_micros(amount)],
        (parse_scopes(scopes),),
        parse_key(key),
        hold,
        hold_span,
        purpose=parse_purpose(purpose),
    )


def commit_call(hold: str, amount: Amount) -> Call:
    """A call that turns a hold into a spend of `amount`, which may be zero."""
    return Call(Verb.COMMIT, [parse_micros(amount, zero=True)], hold=parse_hold(hold))


def release_call(hold: str) -> Call:
    """A call that ends a hold of which nothing was spent."""
    return Call(Verb.RELEASE, [0], hold=parse_hold(hold))


def record_call(amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> Call:
    """A call that counts money already spent elsewhere."""
    return Call(Verb.RECORD, [parse_micros(amount)], (parse_scopes(scopes),), parse_key(key))


def invalid_call(verb: Verb) -> Call:
    """A call that could not be read: it leaves a row in the audit and no trace of what was sent."""
    return Call(verb, [0], invalid=True)


def switch(pattern: str, *, on: bool, note: str = "") -> Switch:
    """A turn of the kill switch."""
    if len(note) > KEY_LENGTH_MAX or not note.isprintable():
        raise InvalidInput(f"a note is at most {KEY_LENGTH_MAX} printable characters")
    if not isinstance(pattern, str):
        raise InvalidScope("a scope pattern is text: write '*', 'kind:value' or 'kind:*'")
    return Switch(Pattern.parse(pattern).text, on, note=note)


def parse_hold(hold: object) -> str:
    """The id of a hold: 32 hexadecimal digits; raises `InvalidInput`."""
    if isinstance(hold, str) and len(hold) == 32 and all(digit in "0123456789abcdef" for digit in hold):
        return hold
    raise InvalidInput("a reservation id is the 32 hexadecimal digits that reserve answered")
