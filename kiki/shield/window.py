"""What a budget window is asked and what it answers; the local and the Redis window speak this.

A window decides: it takes money atomically over every budget that matches, by one clock of its own, and
keeps holds and halts. It writes no ledger. One call is one `Ask`, which may carry many amounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from kiki.errors import KikiError
from kiki.shield.budget import Refusal
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes


class Verb(StrEnum):
    """What a call wants."""

    CHECK = "check"
    """Would it fit? Takes nothing."""
    SPEND = "spend"
    """Take it, or refuse."""
    RESERVE = "reserve"
    """Set it aside until it is committed, released or past its deadline; or refuse."""
    RECORD = "record"
    """It was spent elsewhere: count it, even over the limit."""
    COMMIT = "commit"
    """A hold became a spend of `amounts[0]`, at most what was held."""
    RELEASE = "release"
    """A hold came to nothing."""


class Ask(msgspec.Struct):
    """One call on a window. Amounts in micros, spans in microseconds."""

    verb: Verb
    amounts: list[int]
    scopes: tuple[Scopes, ...] = ((),)
    """One for all amounts, or one for each; a person stands as a reference."""
    key: str = ""
    """For a shared window: the idempotency key as it was given; empty without one."""
    request: bytes = b""
    """For a shared window: all that the call asks for; the same key with another request is a conflict."""
    hold: str = ""
    """The id of the hold to make, commit or release."""
    hold_span: int | None = None
    """How long a new hold may stay open; None: until it is resolved."""
    persons: Mapping[str, str] = msgspec.field(default_factory=dict)
    """For each reference in `scopes` the scope as it was given, for windows that share names across processes."""


class Answer(msgspec.Struct):
    """What a window decided, at its own time and place in its own sequence."""

    at: int = 0
    sequence: int = 0
    epoch: str = ""
    refusals: dict[int, Refusal] = msgspec.field(default_factory=dict)
    """By index into the ask's amounts; an index that is absent was admitted."""
    charged: int = 0
    """For COMMIT and RELEASE: the spend that the window counted at `at`."""
    reserved: int = 0
    """For COMMIT and RELEASE: what the hold was worth."""
    deadline: int | None = None
    late: bool = False
    """For COMMIT and RELEASE: the deadline had passed, so the whole hold was spent then."""
    hold: str = ""
    """For RESERVE: the id of the hold, of the first answer when it is repeated."""
    repeated: bool = False
    """The window knew the key already and answered as the first time."""
    error: KikiError | None = None
    """Nothing was decided, and why."""


class OpenHold(msgspec.Struct, frozen=True):
    """A hold that is neither resolved nor expired."""

    id: str
    amount: int
    scopes: Scopes
    deadline: int | None
    made_at: int


class MeterStatus(msgspec.Struct, frozen=True):
    """One window of one budget on one scope, now. Money in micros."""

    budget: str
    scope: str
    limit: int
    span: int
    spent: int
    held: int
    room_at: int | None
    """When the next money comes back; None when nothing is spent."""

    @property
    def remaining(self) -> int:
        """What still fits; below zero only after `record` went over the limit."""
        return self.limit - self.spent - self.held


class Window(Protocol):
    """Where budgets are counted. Implementations need no lock: one caller at a time."""

    @property
    def kind(self) -> str:
        """`local` or `redis`."""
        ...

    @property
    def restorable(self) -> bool:
        """True when only one process counts here, so that its ledger alone tells what is counted: see `Restorable`."""
        ...

    @property
    def epoch(self) -> str:
        """Which life of a shared window decides; empty for a local one."""
        ...

    @property
    def under_epoch(self) -> tuple[str, int] | None:
        """The window and the epoch of it in which `take` answered last, where a database says which epoch holds."""
        ...

    def take(self, asks: Sequence[Ask]) -> list[Answer]:
        """Decide the asks in order, each against the state that the ones before it left.

        MUST answer every ask. MUST NOT raise for one bad ask (its answer carries the error); raises
        `WindowUnavailable` when nothing can be decided at all. An answer with the reason
        OUTCOME_UNKNOWN says that the money may have been taken.
        """
        ...

    def halt(self, pattern: str, *, on: bool, persons: Mapping[str, str] | None = None) -> None:
        """Refuse (or admit again) every new spend and reservation that the scope pattern concerns.

        `persons` gives the scope as it was given for a pattern that holds a reference, as in an ask.
        """
        ...

    def halts(self) -> list[str]:
        """The patterns that are halted now."""
        ...

    def status(self, budget: str | None = None, scope: str | None = None, limit: int = 1000) -> list[MeterStatus]:
        """What the meters say now, the policy's order first, at most `limit` of them."""
        ...

    def holds(self) -> Iterable[OpenHold]:
        """Every open hold."""
        ...

    def own_holds(self) -> Iterable[OpenHold]:
        """The open holds of this process that nobody but it can resolve: one its ledger does not know is an orphan."""
        ...

    def use(self, policy: Policy) -> None:
        """Decide by another policy from now on. What a restorable window had counted is restored by its owner."""
        ...

    def ready(self) -> str | None:
        """None when a spend can be decided, else why not, in a sentence."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
