"""What the shield writes down for ever: one struct per kind of fact. Pure.

Facts are arrays whose first element is the kind. They may grow at the end, with a default; nothing is ever
renamed, reordered or removed, and a golden file of each must still be read. Money is in micros, moments in
microseconds since the epoch, persons are references, idempotency keys keyed hashes.
"""

from __future__ import annotations

import msgspec

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import Entry

EXPIRE = "expire"
"""The verb of a `Settled` fact that nobody asked for: the deadline of a hold passed."""


class Opened(msgspec.Struct, array_like=True, tag="opened", frozen=True):
    """A guard took this ledger over."""

    at: int
    software: str
    window: str
    """`local` or `redis`."""
    epoch: str = ""


class PolicyUsed(msgspec.Struct, array_like=True, tag="policy", frozen=True):
    """From here on decisions follow this policy (as `Policy.dump` writes it)."""

    at: int
    policy: bytes
    actor: str = ""


class Refused(msgspec.Struct, array_like=True, frozen=True):
    """Why one amount of a call was not admitted."""

    index: int
    reason: str
    budget: str = ""
    scope: str = ""
    span: int = 0
    limit: int = 0
    remaining: int = 0
    retry_at: int | None = None


class Decided(msgspec.Struct, array_like=True, tag="decided", frozen=True):
    """The answer to one call of check, spend, reserve or record: one decision for each amount."""

    verb: str
    at: int
    """The window's deciding time."""
    epoch: str
    """Which life of a shared window decided; empty for a local one."""
    sequence: int
    """The decision's place in the window's own order."""
    scopes: list[list[str]]
    """One for all amounts, or one for each."""
    amounts: list[int]
    refused: list[Refused] = []
    """The amounts that were not admitted; all others were."""
    key: bytes = b""
    hold: str = ""
    deadline: int | None = None
    ltv: int | None = None
    """Of a check, the predicted value in micros."""
    actor: str = ""
    """The name of the token that asked; empty when nobody had to say."""
    repeated: bool = False
    """A shared window had this decision already; it is counted once."""
    hold_span: int | None = None
    """Of a reservation, how long it was asked to last, in microseconds."""


class Settled(msgspec.Struct, array_like=True, tag="settled", frozen=True):
    """A hold ended: committed, released, or past its deadline."""

    verb: str
    """`commit`, `release` or `expire`."""
    at: int
    epoch: str
    sequence: int
    hold: str
    charged: int
    """The spend that counts at `at`."""
    reserved: int
    scopes: list[list[str]] = []
    late: bool = False
    """The deadline had passed and charged the whole hold; `charged` is what came on top, 0."""
    actual: int = 0
    """What the caller says it spent."""
    key: bytes = b""
    actor: str = ""


class Halted(msgspec.Struct, array_like=True, tag="halted", frozen=True):
    """The kill switch of a scope pattern was turned on or off."""

    at: int
    pattern: str
    on: bool
    actor: str = ""
    note: str = ""


Fact = Opened | PolicyUsed | Decided | Settled | Halted

_decoder: msgspec.msgpack.Decoder[Fact] = msgspec.msgpack.Decoder(Fact)


def decode_fact(entry: Entry) -> Fact:
    """The shield's fact in an entry; raises `LedgerCorrupt` when it is none."""
    try:
        return _decoder.decode(entry.fact)
    except msgspec.DecodeError as error:
        raise LedgerCorrupt(f"entry {entry.seq} holds no fact of the shield: {error}") from error
