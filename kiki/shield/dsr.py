"""What a data subject request is, what may be done with it in which state, and what its facts add up to. Pure.

    received ──a code is sent──► identity_pending ◄──resumed── paused
        │                           │      └──────paused──────────►│
        └──────────── verified ◄────┴──────────────────────────────┘
                         │ started
                         ▼
        waiting ◄──► running ──► completed, completed_with_exceptions
                                                  │ a legal hold was lifted
                                                  ▼
                                               verified

An open request may be refused (with the provision) or cancelled, unless it is running. A run that cannot finish
everything leaves it waiting, with the reason and the moment of the next attempt; nothing that was skipped or
that failed is ever counted as done. Objections and opt-outs need no proof of identity: what they stop harms nobody.
"""

from __future__ import annotations

import re
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from kiki.clock import SECOND
from kiki.errors import Conflict, InvalidInput

DETAILS_LENGTH_MAX: Final = 4096
ARTICLE_LENGTH_MAX: Final = 64

_ID = re.compile(r"DSR-[0-9]{1,12}-[0-9a-f]{8}", re.ASCII)
_WORD = re.compile(r"[a-z][a-z0-9_]{0,47}", re.ASCII)
_ARTICLE = re.compile(r"[A-Za-z0-9 .,;()§/&:-]{1,64}")


class Kind(StrEnum):
    """What a person asks for."""

    ACCESS = "ACCESS"
    DELETION = "DELETION"
    PORTABILITY = "PORTABILITY"
    RECTIFICATION = "RECTIFICATION"
    OBJECTION = "OBJECTION"
    """No more processing for the purposes named (GDPR 21); of marketing it is absolute."""
    OPT_OUT = "OPT_OUT"
    """No sale and no sharing (CCPA 1798.120)."""

    @property
    def needs_identity(self) -> bool:
        """Whether somebody must prove to be that person first."""
        return self not in {Kind.OBJECTION, Kind.OPT_OUT}


class State(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    IDENTITY_PENDING = "identity_pending"
    """A code was sent, or proof was asked for."""
    VERIFIED = "verified"
    """It may be run."""
    RUNNING = "running"
    PAUSED = "paused"
    """It waits for proof of identity, and the person was told so."""
    WAITING = "waiting"
    """A run could not finish everything; it goes on at the next attempt."""
    COMPLETED = "completed"
    COMPLETED_WITH_EXCEPTIONS = "completed_with_exceptions"
    """Done, but for what a law obliges or allows to keep; each is named."""
    REFUSED = "refused"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """True while something is left to do."""
        return self not in {State.COMPLETED, State.COMPLETED_WITH_EXCEPTIONS, State.REFUSED, State.CANCELLED}

    @property
    def outward(self) -> str:
        """The original's word: PENDING, COMPLETED or REJECTED."""
        if self in {State.COMPLETED, State.COMPLETED_WITH_EXCEPTIONS}:
            return "COMPLETED"
        return "PENDING" if self.is_open else "REJECTED"


class Step(StrEnum):
    """What a fact says was done."""

    RECEIVED = "received"
    CODE_SENT = "code_sent"
    CODE_FAILED = "code_failed"
    VERIFIED = "verified"
    PAUSED = "paused"
    RESUMED = "resumed"
    ACKNOWLEDGED = "acknowledged"
    """The person was told that the request was received."""
    EXTENDED = "extended"
    ASSIGNED = "assigned"
    STARTED = "started"
    LOCATED = "located"
    RESTRICTED = "restricted"
    RECTIFIED = "rectified"
    EXPORTED = "exported"
    PACKED = "packed"
    ERASED = "erased"
    KEPT = "kept"
    """Something stays in a system, with the provision that it rests on."""
    CHECKED = "checked"
    """A system was read back after its erasure; `count` is what was left."""
    FAILED = "failed"
    WAITING = "waiting"
    COMPLETED = "completed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    REOPENED = "reopened"


_OPEN: Final = frozenset(state for state in State if state.is_open)
_ASKING: Final = frozenset({State.RECEIVED, State.IDENTITY_PENDING, State.PAUSED})
_RUNNING: Final = frozenset({State.RUNNING})

_FROM: Final = MappingProxyType(
    {
        Step.CODE_SENT: _ASKING,
        Step.CODE_FAILED: _ASKING,
        Step.VERIFIED: _ASKING,
        Step.PAUSED: frozenset({State.RECEIVED, State.IDENTITY_PENDING}),
        Step.RESUMED: frozenset({State.PAUSED}),
        Step.ACKNOWLEDGED: _OPEN,
        Step.EXTENDED: _OPEN,
        Step.ASSIGNED: _OPEN,
        Step.STARTED: frozenset({State.VERIFIED, State.WAITING, State.RUNNING}),
        Step.REFUSED: _OPEN - _RUNNING,
        Step.CANCELLED: _OPEN - _RUNNING,
        Step.REOPENED: frozenset({State.COMPLETED_WITH_EXCEPTIONS}),
        **dict.fromkeys(
            (
                *(Step.LOCATED, Step.RESTRICTED, Step.RECTIFIED, Step.EXPORTED, Step.PACKED, Step.ERASED, Step.KEPT),
                *(Step.CHECKED, Step.FAILED, Step.WAITING, Step.COMPLETED),
            ),
            _RUNNING,
        ),
    }
)
"""In which states a step may be taken."""

_TO: Final = MappingProxyType(
    {
        Step.VERIFIED: State.VERIFIED,
        Step.PAUSED: State.PAUSED,
        Step.RESUMED: State.IDENTITY_PENDING,
        Step.STARTED: State.RUNNING,
        Step.WAITING: State.WAITING,
        Step.REFUSED: State.REFUSED,
        Step.CANCELLED: State.CANCELLED,
        Step.REOPENED: State.VERIFIED,
    }
)
"""The state that a step leads to, where it does not stay as it is."""


# -- what follows ------------------------------------------------------------------------------------


def follow(request: str, before: State, step: Step, after: State | None = None) -> State:
    """The state of a request after a step, `after` where the step does not say it.

    Raises `Conflict` where the step may not be taken.
    """
    allowed = _FROM[step]
    if before not in allowed:
        hint = None
        if before is State.RUNNING and step in {Step.REFUSED, Step.CANCELLED}:
            hint = "wait until the run has ended"
        elif step is Step.STARTED and before in _ASKING:
            hint = "the identity of the person has to be verified first"
        raise Conflict(
            f"request {request} is {before}: it cannot be {_DONE.get(step, step)}"
            f" (that needs one that is {', '.join(sorted(allowed))})",
            hint=hint,
        )
    if step is Step.CODE_SENT and before is State.RECEIVED:
        return State.IDENTITY_PENDING
    return _TO.get(step) or after or before


_DONE: Final = MappingProxyType({Step.STARTED: "run", Step.CODE_SENT: "sent a code", Step.CODE_FAILED: "verified"})


# -- reading what callers send -----------------------------------------------------------------------


def parse_kind(given: object) -> Kind:
    """A kind of request, in any case and with `-` for `_`; raises `InvalidInput` that lists them."""
    folded = given.strip().upper().replace("-", "_") if isinstance(given, str) else given
    if isinstance(folded, str) and folded in list(Kind):
        return Kind(folded)
    shown = repr(given[:40]) if isinstance(given, str) else f"a value of the type {type(given).__name__}"
    raise InvalidInput(f"{shown} is not a type of request: write one of {', '.join(Kind)}")


def parse_state(given: object) -> State:
    """A state, to filter by; raises `InvalidInput` that lists them."""
    folded = given.strip().lower() if isinstance(given, str) else given
    if isinstance(folded, str) and folded in list(State):
        return State(folded)
    raise InvalidInput(f"that is not a state of a request: write one of {', '.join(State)}")


def parse_request_id(given: object) -> str:
    """The id of a request; raises `InvalidInput`."""
    if isinstance(given, str) and _ID.fullmatch(given):
        return given
    raise InvalidInput("the id of a request is written DSR-<seconds>-<8 hexadecimal digits>")


def parse_word(given: object, what: str) -> str:
    """A word of a vocabulary that others may extend, which stands in clear; raises `InvalidInput`."""
    if isinstance(given, str) and _WORD.fullmatch(given):
        return given
    raise InvalidInput(f"the {what} is one word of a-z, 0-9 and _ that begins with a letter, for example tax_records")


def parse_article(given: object) -> str:
    """A legal provision, which stands in clear, such as `GDPR 17(3)(e)`; raises `InvalidInput`."""
    if isinstance(given, str) and given.strip() and _ARTICLE.fullmatch(given):
        return given.strip()
    raise InvalidInput(
        f"name the legal provision in at most {ARTICLE_LENGTH_MAX} letters, digits and . , ( ) § / & : - , for example "
        "GDPR 12(5)"
    )


def new_request_id(at: int, random: bytes) -> str:
    """The id of a request received at a moment; `random` is 4 random bytes."""
    return f"DSR-{at // SECOND}-{random.hex()}"
