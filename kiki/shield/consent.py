"""What a person has said about one purpose, and what follows from saying something else. Pure.

A state is the last thing said: granted, denied (asked, and said no) or revoked (said yes, then no). That a grant
has run out is never written down; it is derived from the time. Whatever a person says is kept as a fact of its
own, so the history of one person and purpose is a chain of facts, each naming the one before it.

    said before      grant               deny        revoke      opt-out signal (GPC)
    nothing          granted             denied      revoked     denied
    granted          granted, if new     denied      revoked     denied; stays when the grant overrides the signal
    denied, revoked  granted             denied      revoked     denied
    a signal stands  needs `overrides`   denied      revoked     stays

An opt-out signal stands until the end: a later grant holds against it only when the person was told of the
conflict (`overrides`), and stops doing so when that grant is withdrawn or runs out (11 CCR 7025(c)).

Saying again what holds already writes no fact: it would prove nothing new, and a page that posts on every visit
would grow a history without bound. Anything that differs (version, expiry, notice, method, ...) is a new fact.

Something said in the past, as an import brings it, never outranks what was said later, and what was said at
the same moment only when it withdraws. So running an import twice changes nothing, and an old list of consents
cannot take back a revocation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.errors import ConsentConflict, InvalidInput
from kiki.ledger.projected import projected
from kiki.ledger.store import SHARED, Write
from kiki.shield.fact import ConsentChanged, ConsentUsed

CONSENT: Final = SHARED + "consent"
"""The space of what each person said last about each purpose, by `consent_key`."""

LEASE: Final = 2 * SECOND
"""Whoever revokes waits at most this long for those who still hold the consent."""
LEASE_HELD: Final = LEASE * 95 // 100
"""For how long an answer about consent may be used, counted from before it was asked for.

It is a little shorter than `LEASE`, so that clocks which run at slightly different speeds do no harm.
"""

_SUBJECT_BYTES: Final = 16


class State(StrEnum):
    """What is known about one person and purpose."""

    GRANTED = "granted"
    DENIED = "denied"
    REVOKED = "revoked"
    EXPIRED = "expired"
    """Granted once, for a time that is over. Derived, never written down."""
    NONE = "none"
    """Nothing was ever said. Derived, never written down."""


class Basis(StrEnum):
    """The legal basis of processing, GDPR article 6(1)(a) to (f)."""

    CONSENT = "consent"
    CONTRACT = "contract"
    LEGAL_OBLIGATION = "legal_obligation"
    VITAL_INTERESTS = "vital_interests"
    PUBLIC_TASK = "public_task"
    LEGITIMATE_INTERESTS = "legitimate_interests"


class Method(StrEnum):
    """How something was said."""

    API = "api"
    FORM = "form"
    BUTTON = "button"
    EMAIL = "email"
    PHONE = "phone"
    PAPER = "paper"
    IN_PERSON = "in_person"
    OPERATOR = "operator"
    REQUEST = "request"
    """A data subject request: an objection or an opt-out."""
    GUARDIAN = "guardian"
    GPC = "gpc"
    """The browser sent `Sec-GPC: 1`."""
    IMPORT = "import"


class ConsentState(msgspec.Struct, array_like=True, frozen=True):
    """What was said last, as it is projected from its fact. Moments are microseconds since the epoch."""

    state: str
    at: int
    """When it was written down."""
    expires_at: int | None
    version: str
    basis: str
    method: str
    chain: str
    """Where the entry lies that says so."""
    seq: int
    overrides: bool
    signal: bool
    """An opt-out signal stands against this purpose."""
    said_at: int
    """When it was said: `at`, or earlier where it came by an import."""
    granted_at: int | None
    """When the consent was given that holds, or that ended here."""
    notice: bytes
    jurisdiction: str
    guardian: bool
    network: str


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What one person says about one purpose, read and checked."""

    purpose: str
    state: State
    """`GRANTED`, `DENIED` or `REVOKED`."""
    basis: Basis | None = None
    """None: that of what was said before, or consent."""
    version: str = ""
    expires_at: int | None = None
    method: Method = Method.API
    notice: bytes = b""
    jurisdiction: str = ""
    guardian: bool = False
    overrides: bool = False
    said_at: int | None = None
    """When it was said, where that is in the past; None: now."""
    imported: bool = False
    """It comes from another system's records: it tells what was, and never outranks what is known better."""
    signal: bool = False
    """Another system has an opt-out signal on record."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ConsentState).decode


# -- where it is kept --------------------------------------------------------------------------------


def consent_key(subject: str, purpose: str) -> bytes:
    """Under which the state of one person and purpose is kept; all of one person's lie together."""
    return bytes.fromhex(subject) + purpose.encode()


def subject_and_purpose(key: bytes) -> tuple[str, str]:
    """What `consent_key` was made of."""
    return key[:_SUBJECT_BYTES].hex(), key[_SUBJECT_BYTES:].decode()


def read_state(value: bytes | None) -> ConsentState | None:
    """The state in a projected value; None: nothing was ever said."""
    return None if value is None else projected(_decode, value, "a consent")


def writes_of(fact: ConsentChanged, chain: str, seq: int) -> list[Write]:
    """The projection of a fact that is entry `seq` of `chain`: the one rule for writing it and for rebuilding it."""
    state = ConsentState(
        state=fact.state,
        at=fact.at,
        expires_at=fact.expires_at,
        version=fact.version,
        basis=fact.basis,
        method=fact.method,
        chain=chain,
        seq=seq,
        overrides=fact.overrides,
        signal=fact.signal,
        said_at=_said_at(fact),
        granted_at=_said_at(fact) if fact.state == State.GRANTED else fact.granted_at,
        notice=fact.notice,
        jurisdiction=fact.jurisdiction,
        guardian=fact.guardian,
        network=fact.network,
    )
    return [Write(CONSENT, consent_key(fact.subject, fact.purpose), _encode(state))]


def carried(fact: ConsentChanged, now: int) -> ConsentChanged:
    """The same said again at `now`, because the entry that said it first is pruned."""
    return msgspec.structs.replace(fact, at=now, said_at=_said_at(fact), carried=True)


def _said_at(fact: ConsentChanged) -> int:
    return fact.at if fact.said_at is None else fact.said_at


# -- what holds --------------------------------------------------------------------------------------


def in_force(state: ConsentState | None, now: int) -> bool:
    """Whether the person's consent holds now."""
    return state is not None and state.state == State.GRANTED and (state.expires_at is None or now < state.expires_at)


def state_at(state: ConsentState | None, now: int) -> State:
    """The state in a word, with what only time tells."""
    if state is None:
        return State.NONE
    if state.state == State.GRANTED and not in_force(state, now):
        return State.EXPIRED
    return State(state.state)


def used_of(subject: str, purpose: str, state: ConsentState | None, now: int) -> ConsentUsed:
    """What a decision of this moment writes down about the consent it rests on."""
    if state is None:
        return ConsentUsed(subject, purpose)
    return ConsentUsed(subject, purpose, state.chain, state.seq, in_force(state, now))


# -- what follows from saying something --------------------------------------------------------------


def follow(
    statement: Statement,
    prior: ConsentState | None,
    subject: str,
    now: int,
    *,
    actor: str = "",
    network: str = "",
) -> ConsentChanged | None:
    """The fact that a statement makes after `prior`; None when it changes nothing (see the top of this file).

    Raises `ConsentConflict` for a grant against a standing signal, `InvalidInput` for moments that cannot be.
    """
    _require_moments(statement, now)
    grants = statement.state is State.GRANTED
    if prior is not None and _changes_nothing(statement, prior, now):
        return None
    signal = prior is not None and prior.signal
    overrides = False
    if grants:
        # Whoever renews a grant that holds against the signal was told of the conflict when it was given.
        overrides = statement.overrides or (prior is not None and prior.overrides and in_force(prior, now))
        if signal and not overrides:
            raise ConsentConflict(
                f"an opt-out signal (Global Privacy Control) stands against {statement.purpose}; a grant holds "
                "against it only when the person was told of the conflict",
                hint="tell the person, and if consent is given all the same, grant with overrides",
            )
    return ConsentChanged(
        at=now,
        subject=subject,
        purpose=statement.purpose,
        state=statement.state,
        basis=statement.basis or (prior.basis if prior is not None else Basis.CONSENT),
        # What is withdrawn is what was given: under that version and law.
        version=statement.version or ("" if grants or prior is None else prior.version),
        expires_at=statement.expires_at if grants else None,
        method=statement.method,
        notice=statement.notice,
        jurisdiction=statement.jurisdiction or (prior.jurisdiction if prior is not None else ""),
        guardian=statement.guardian,
        overrides=overrides,
        previous=[] if prior is None else [prior.chain, prior.seq],
        actor=actor,
        network=network,
        said_at=statement.said_at,
        granted_at=None if grants or prior is None else prior.granted_at,
        signal=signal or statement.signal or statement.method is Method.GPC,
    )


def _require_moments(statement: Statement, now: int) -> None:
    said, expires = statement.said_at, statement.expires_at
    if said is not None and said > now:
        raise InvalidInput(f"it was said at {to_iso(said)}, which lies in the future; leave it out for now")
    if expires is None or statement.state is not State.GRANTED:
        return
    if said is not None and expires <= said:
        raise InvalidInput(f"consent that expires at {to_iso(expires)} was over when it was given, at {to_iso(said)}")
    # An import tells what was: consent that has run out meanwhile is part of it, and nothing rests on it.
    if expires <= now and not statement.imported:
        raise InvalidInput(f"consent cannot expire at {to_iso(expires)}: that is in the past; name a later moment")


def _changes_nothing(statement: Statement, prior: ConsentState, now: int) -> bool:
    grants = statement.state is State.GRANTED
    if statement.said_at is not None:
        return (statement.said_at, not grants) <= (prior.said_at, prior.state != State.GRANTED)
    if statement.method is Method.GPC:
        return prior.signal or (prior.overrides and in_force(prior, now))
    if statement.imported:
        if grants and prior.state != State.GRANTED:
            raise InvalidInput(
                f"the customer said no to {statement.purpose} at {to_iso(prior.said_at)}, and nothing tells whether "
                "this consent is newer; give the moment when it was given"
            )
        # Without a moment a list may take consent back, and nothing else.
        return grants or prior.state != State.GRANTED
    if not grants:
        return prior.state == statement.state
    return in_force(prior, now) and (
        prior.version == statement.version
        and prior.expires_at == statement.expires_at
        and prior.method == statement.method
        and prior.notice == statement.notice
        and prior.guardian == statement.guardian
        and statement.basis in {None, prior.basis}
        and statement.jurisdiction in {"", prior.jurisdiction}
        and (prior.overrides or not statement.overrides)
    )
