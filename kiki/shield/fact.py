"""What the shield writes down for ever: one struct per kind of fact. Pure.

Facts are arrays whose first element is the kind. They may grow at the end, with a default; nothing is ever
renamed, reordered or removed, and a golden file of each must still be read. Money is in micros, moments in
microseconds since the epoch, persons are references, idempotency keys keyed hashes.
"""

from __future__ import annotations

import msgspec

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import UNDECODABLE, Entry

EXPIRE = "expire"
"""The verb of a `Settled` fact that nobody asked for: the deadline of a hold passed."""


class Opened(msgspec.Struct, array_like=True, tag="opened", frozen=True):
    """A guard took this ledger over."""

    at: int
    software: str
    window: str
    """`local` or `redis`."""
    epoch: str = ""
    chain: str = ""
    """The id of this chain, so that the entries themselves say which one they belong to."""


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
    purpose: str = ""
    """What the person's consent was missing for."""


class ConsentUsed(msgspec.Struct, array_like=True, frozen=True):
    """Which state of a person's consent a decision looked at."""

    subject: str
    purpose: str
    chain: str = ""
    """Where the entry of that state lies; empty: nothing was ever said."""
    seq: int = -1
    given: bool = False


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
    network: str = ""
    """Where the call came from, coarsened to a /24 or /48."""
    purpose: str = ""
    """What the person's consent was needed for."""
    consents: list[ConsentUsed] = []
    """The consent that the decision rested on, for each person and purpose that it needed one for."""


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
    network: str = ""


class Halted(msgspec.Struct, array_like=True, tag="halted", frozen=True):
    """The kill switch of a scope pattern was turned on or off."""

    at: int
    pattern: str
    on: bool
    actor: str = ""
    note: str = ""
    """In the words of whoever did it; empty where the pattern names a person: then it is sealed beside the fact."""
    network: str = ""


class ConsentChanged(msgspec.Struct, array_like=True, tag="consent", frozen=True):
    """A person gave, refused or withdrew consent for one purpose. Who and from where is sealed beside it."""

    at: int
    subject: str
    purpose: str
    state: str
    """A word of `kiki.shield.consent.State`."""
    basis: str
    version: str = ""
    """Of the policy or notice that the person was shown."""
    expires_at: int | None = None
    method: str = ""
    notice: bytes = b""
    """SHA-256 of the notice text that was shown."""
    jurisdiction: str = ""
    guardian: bool = False
    """Somebody else speaks for the person; who is sealed."""
    overrides: bool = False
    """A grant against a standing opt-out signal, after the person was told of the conflict."""
    previous: list[str | int] = []
    """Chain and sequence of the state that this follows; empty for the first."""
    actor: str = ""
    network: str = ""
    carried: bool = False
    """The state is older: it is said again before the entry that first said it is pruned."""
    said_at: int | None = None
    """When the person said it, where that is earlier than `at`: a paper form, an import."""
    granted_at: int | None = None
    """Of a withdrawal: when the consent was given that ends here."""
    signal: bool = False
    """An opt-out signal stands against this purpose."""


class RequestChanged(msgspec.Struct, array_like=True, tag="request", frozen=True):
    """A data subject request was received, or took a step. Names, notes and addresses are sealed beside it."""

    at: int
    request: str
    """Its id, `DSR-<unix seconds>-<8 hexadecimal digits>`."""
    subject: str
    kind: str
    """A word of `kiki.shield.dsr.Kind`."""
    step: str
    """A word of `kiki.shield.dsr.Step`."""
    state: str
    """A word of `kiki.shield.dsr.State`: what the request is in afterwards."""
    due_at: int | None = None
    """When the answer is due, as far as was known at this step."""
    regime: str = ""
    """The laws that the request comes under, words of `kiki.shield.deadline.Regime` divided by a space."""
    system: str = ""
    """The store or system that the step is about."""
    outcome: str = ""
    """Why or how, in a word: how identity was checked, what stays, what failed."""
    article: str = ""
    """The legal provision that a refusal, exception or extension rests on."""
    count: int = 0
    """Records that were found, exported, erased or left."""
    digest: bytes = b""
    """SHA-256 of what was handed over, or the keyed hash of a code that was sent."""
    actor: str = ""
    network: str = ""
    until: int | None = None
    """When it ends: the life of a code, an exception, the wait for the next attempt."""
    key: bytes = b""
    """The keyed hash of the idempotency key that the request came with."""
    readable: bool = False
    """Of what stays: somebody can still read the person in it."""
    purposes: list[str] = []
    """Of an objection or opt-out: what was objected to."""
    run: list[str | int] = []
    """Of a step of a run: chain and sequence of the entry that started the run."""
    received_at: int | None = None
    """Of the first step: when the request came in, where that is earlier than `at`: a letter."""


class LegalHeld(msgspec.Struct, array_like=True, tag="legal_hold", frozen=True):
    """A legal hold was put on or lifted: on one person, or on all evidence."""

    at: int
    subject: str
    """Empty: everything."""
    on: bool
    reference: str = ""
    """The matter, in the words of whoever ordered it; no personal data belongs here."""
    actor: str = ""


class Pruned(msgspec.Struct, array_like=True, tag="pruned", frozen=True):
    """Entries below `before` were removed at the end of their retention; the tree still covers them."""

    at: int
    before: int
    retention_days: int
    actor: str = ""


class BreachDeclared(msgspec.Struct, array_like=True, tag="breach", frozen=True):
    """Somebody declared a breach of personal data, or told more about one: the register of GDPR 33(5)."""

    at: int
    reference: str
    """The incident, in the words of whoever declares it; no personal data belongs here."""
    found_at: int
    """When it became known: from here the authority's 72 hours run."""
    notified_at: int | None = None
    """When the authority was told."""
    affected: int | None = None
    """How many persons it concerns, as far as that is known."""
    actor: str = ""
    network: str = ""


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """Another service says what it did. It decides nothing."""

    at: int
    event: str
    """The service and what happened, such as `flow.step_done`."""
    scopes: list[str] = []
    """What it concerns; persons by reference."""
    detail: dict[str, str | int | bool] = {}
    """More about it; sealed beside the fact where the scopes name a person."""
    key: bytes = b""
    content: bytes = b""
    """A hash of all of it, keyed with the person's key where the scopes name one."""
    actor: str = ""
    network: str = ""


Fact = (
    Opened
    | PolicyUsed
    | Decided
    | Settled
    | Halted
    | ConsentChanged
    | RequestChanged
    | LegalHeld
    | Pruned
    | BreachDeclared
    | Noted
)

_decoder: msgspec.msgpack.Decoder[Fact] = msgspec.msgpack.Decoder(Fact)


def decode_fact(entry: Entry) -> Fact:
    """The shield's fact in an entry; raises `LedgerCorrupt` when it is none."""
    try:
        return _decoder.decode(entry.fact)
    except UNDECODABLE as error:
        raise LedgerCorrupt(f"entry {entry.seq} holds no fact of the shield: {error}") from error
