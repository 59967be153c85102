"""From what callers send to a change of consent: read, checked, and written down when its turn comes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple, TypedDict, Unpack

from kiki.errors import InvalidInput, KikiError
from kiki.ledger.subjects import Person
from kiki.shield.change import Change, Turn
from kiki.shield.consent import CONSENT, Basis, Method, State, Statement, consent_key, follow, read_state, writes_of
from kiki.shield.consent_record import ConsentDetails, ConsentRecord, record_of, write_details
from kiki.shield.consent_words import (
    AGENT_LENGTH_MAX,
    CUSTOMER_LENGTH_MAX,
    NOTE_LENGTH_MAX,
    NOTICE_LENGTH_MAX,
    PURPOSES,
    SAID_METHODS,
    SIGNAL_PURPOSES,
    parse_basis,
    parse_customer_id,
    parse_digest,
    parse_method,
    parse_purpose,
    parse_text,
)
from kiki.shield.fact import ConsentChanged
from kiki.shield.network import coarsened

IP_LENGTH_MAX: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MOMENT_MAX: Final = 253_402_300_799_999_999
"""The end of the year 9999: later moments cannot be written as RFC 3339."""


class Given(TypedDict, total=False):
    """What may be told along with a grant, a refusal or a withdrawal."""

    version: str
    """Of the policy or notice that the person was shown."""
    basis: Basis | str | None
    expires_at: datetime | timedelta | int | None
    """A moment, microseconds since the epoch, or a span from now."""
    method: Method | str
    notice: str
    """The text that the person was shown; kept sealed, and its SHA-256 in clear."""
    notice_sha256: str
    """The same without the text."""
    jurisdiction: str
    guardian: str
    """Who speaks for the person."""
    ip_address: str
    user_agent: str
    note: str
    overrides: bool
    """The person was told that the grant contradicts an opt-out signal."""
    said_at: datetime | int | None
    """When it was said, where that is in the past."""
    imported: bool
    """It comes from another system's records."""
    signal: bool
    """The other system has an opt-out signal on record."""
    actor: str
    """Who entered it: the name of a token, or of a user of the system."""


class Said(NamedTuple):
    """What one person says about one purpose, with what is sealed beside it."""

    customer: str
    statement: Statement
    details: ConsentDetails
    actor: str = ""


def person_of(customer: str) -> str:
    """The scope text under which a customer has a reference and a key."""
    return f"customer:{customer}"


def said(
    customer: str,
    purpose: str,
    state: State,
    now: int,
    purposes: Collection[str] = PURPOSES,
    **given: Unpack[Given],
) -> Said:
    """What a caller sent, read and checked; raises `InvalidInput`. Spans are counted from `now`."""
    one = _read(customer, purpose, state, now, purposes, given)
    method = one.statement.method
    # A signal never ends a grant that overrides it: somebody's own no, written down as one, would be lost.
    if method not in SAID_METHODS and not one.statement.imported:
        raise InvalidInput(
            f"{method.value!r} is how kiki itself writes down an opt-out signal or a list; say how the person said this",
            hint="pass a Sec-GPC header on as a signal, and take a list over with an import",
        )
    return one


def _read(customer: str, purpose: str, state: State, now: int, purposes: Collection[str], given: Given) -> Said:
    guardian = parse_text(given.get("guardian"), "guardian", CUSTOMER_LENGTH_MAX)
    method = given.get("method")
    expires_at = given.get("expires_at")
    notice = parse_text(given.get("notice"), "text of the notice", NOTICE_LENGTH_MAX, lines=True)
    digest = parse_digest(given.get("notice_sha256"))
    if notice:
        shown = sha256(notice.encode()).digest()
        if digest not in {b"", shown}:
            raise InvalidInput("the SHA-256 of the notice is not that of its text")
        digest = shown
    details = ConsentDetails(
        customer=parse_customer_id(customer),
        ip=parse_text(given.get("ip_address"), "network address", IP_LENGTH_MAX),
        # An agent is whatever a browser sends: it is kept as far as it can be, and stops nobody.
        agent="".join(filter(str.isprintable, given.get("user_agent") or ""))[:AGENT_LENGTH_MAX],
        note=parse_text(given.get("note"), "note", NOTE_LENGTH_MAX, lines=True),
        notice=notice,
        guardian=guardian,
    )
    basis = given.get("basis")
    statement = Statement(
        purpose=parse_purpose(purpose, purposes),
        state=state,
        basis=parse_basis(basis) if basis else None,
        version=parse_text(given.get("version"), "version"),
        expires_at=moment_of(now + expires_at // _MICROSECOND if isinstance(expires_at, timedelta) else expires_at),
        method=parse_method(method) if method else _usual_method(given, guardian),
        notice=digest,
        jurisdiction=parse_text(given.get("jurisdiction"), "jurisdiction"),
        guardian=bool(guardian),
        overrides=given.get("overrides", False),
        said_at=moment_of(given.get("said_at")),
        imported=given.get("imported", False),
        signal=given.get("signal", False),
    )
    return Said(customer, statement, details, given.get("actor", ""))


def _usual_method(given: Given, guardian: str) -> Method:
    if given.get("imported"):
        return Method.IMPORT
    return Method.GUARDIAN if guardian else Method.API


def moment_of(given: datetime | int | None) -> int | None:
    """What a caller gives as a moment, in microseconds since the epoch; raises `InvalidInput`."""
    if given is None:
        return None
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise InvalidInput("a moment needs a time zone: write datetime(..., tzinfo=UTC)")
        given = (given - _EPOCH) // _MICROSECOND
    if type(given) is not int or not 0 <= given <= _MOMENT_MAX:
        raise InvalidInput("a moment is an aware datetime or microseconds since 1970, up to the year 9999")
    return given


def consent_change(one: Said) -> Change:
    """A change whose result is the `ConsentRecord` that holds afterwards."""
    return Change(lambda turn: _act(turn, one), [person_of(one.customer)])


def consent_changes(many: Sequence[Said]) -> Change:
    """A change of many, durable together; its result has a `ConsentRecord` for each, or the error that refused it."""
    return Change(lambda turn: [_tried(turn, one) for one in many], [person_of(one.customer) for one in many])


def signal_change(customer: str, now: int, **given: Unpack[Given]) -> Change:
    """What an opt-out signal (GPC) of a known customer changes; its result is a record for each purpose."""
    given["method"] = Method.GPC
    many = [_read(customer, purpose, State.DENIED, now, PURPOSES, given) for purpose in SIGNAL_PURPOSES]
    return Change(lambda turn: [_act(turn, one) for one in many], [person_of(customer)])


def import_change(many: Sequence[Said]) -> Change:
    """A change of many, durable together; its result tells for each whether it `Wrote` something, or the error."""
    return Change(lambda turn: _imported(turn, many), [person_of(one.customer) for one in many])


class Wrote(NamedTuple):
    """What became of one statement of an import."""

    changed: bool
    takes_back: bool
    """It says no where there may have been a yes."""


def _imported(turn: Turn, many: Sequence[Said]) -> list[Wrote | KikiError]:
    persons = [turn.persons[person_of(one.customer)] for one in many]
    keys = [consent_key(person.reference, one.statement.purpose) for person, one in zip(persons, many, strict=True)]
    values = turn.get_many(CONSENT, keys)
    done: list[Wrote | KikiError] = []
    for key, person, one in zip(keys, persons, many, strict=True):
        try:
            fact, value = _written(turn, one, person, values.get(key))
        except KikiError as error:
            done.append(error)
            continue
        if value is not None:
            values[key] = value
        done.append(Wrote(fact is not None, fact is not None and fact.granted_at is not None))
    return done


def _tried(turn: Turn, one: Said) -> ConsentRecord | KikiError:
    try:
        return _act(turn, one)
    except KikiError as error:
        return error


def _act(turn: Turn, one: Said) -> ConsentRecord:
    person, purpose = turn.persons[person_of(one.customer)], one.statement.purpose
    value = turn.get(CONSENT, consent_key(person.reference, purpose))
    fact, value = _written(turn, one, person, value)
    details = one.details if fact is not None else None
    return record_of(
        one.customer,
        person.reference,
        purpose,
        read_state(value),
        turn.now,
        details=details,
        changed=fact is not None,
    )


def _written(turn: Turn, one: Said, person: Person, value: bytes | None) -> tuple[ConsentChanged | None, bytes | None]:
    """The fact that a statement adds after the projected `value`, if any, and the value that holds then."""
    network = coarsened(one.details.ip) if one.details.ip else ""
    fact = follow(one.statement, read_state(value), person.reference, turn.now, actor=one.actor, network=network)
    if fact is None:
        return None, value
    (write,) = writes_of(fact, turn.chain, turn.next_seq)
    turn.add(fact, [write], [turn.subjects.seal(person, write_details(one.details))])
    return fact, write.value
