"""One decision as evidence: a row read from facts, and what it says to machines (JSON). Holds nothing.

A person appears as the random reference of the ledger and as nothing else.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.ledger.entry import Entry
from kiki.money import format_micros
from kiki.shield.budget import Reason
from kiki.shield.decision import event_id
from kiki.shield.dsr import State
from kiki.shield.evidence_words import (
    APPROVED,
    BREACH,
    CONSENT,
    DENIED,
    HALT,
    LATE,
    LEGAL_HOLD,
    NOTE,
    NOTED,
    OPEN,
    POLICY,
    PRUNE,
    REQUEST,
    RESUME,
    UNKNOWN,
    words,
)
from kiki.shield.fact import (
    EXPIRE,
    BreachDeclared,
    ConsentChanged,
    Decided,
    Halted,
    LegalHeld,
    Noted,
    Opened,
    PolicyUsed,
    Pruned,
    RequestChanged,
    Settled,
    decode_fact,
)
from kiki.shield.scope import PERSONAL_PREFIXES, is_reference
from kiki.shield.window import Verb


class Row(msgspec.Struct, gc=False):
    """One decision, or what was done about a person's rights; None or empty where it says nothing.

    Money in micros, moments in microseconds since the epoch.
    """

    event_id: str
    chain: str
    at: int
    """When the window decided."""
    recorded_at: int
    """When the ledger took it in; filters go by this, because it never decreases."""
    verb: str
    """A word of `Verb`, or `expire`, `halt`, `resume`, `policy`, `open`, `consent`, `request`, `legal_hold`, `prune`,
    `breach`, `note`."""
    outcome: str
    """One of `OUTCOMES`; of consent and requests their state, of a note `NOTED`; empty for `policy` and `open`, which decide nothing."""
    reason_code: str = ""
    """A word of `Reason`, or `late`."""
    amount: int | None = None
    """What was asked for; of a commit, what the caller says it spent."""
    scopes: list[str] = []
    """Of a halt, its pattern."""
    customer: str = ""
    """The random reference of the person concerned: 32 hexadecimal digits."""
    actor: str = ""
    ltv: int | None = None
    budget: str = ""
    remaining: int | None = None
    retry_at: int | None = None
    hold: str = ""
    deadline: int | None = None
    charged: int | None = None
    reserved: int | None = None
    actual: int | None = None
    late: bool = False
    repeated: bool = False
    network: str = ""
    """Where the call came from, coarsened to a /24 or /48."""
    purpose: str = ""
    resource: str = ""
    """Of consent the purpose, of a request its kind, of a note its event."""
    consents: list[dict[str, object]] | None = None
    """The entries of consent that the decision rested on."""
    detail: dict[str, object] | None = None
    """What only JSON carries: the note of a halt, the text of a policy, who opened the ledger."""

    @property
    def reason(self) -> str:
        """The reason in words, from a closed vocabulary."""
        return words(self.verb, self.reason_code).reason

    @property
    def is_decision(self) -> bool:
        """True for everything that the CSV holds: all but openings and policies."""
        return self.outcome != ""

    def as_dict(self) -> dict[str, object]:
        """For JSON: money as decimal text, moments RFC 3339; what says nothing is left out."""
        found: dict[str, object] = {
            "event_id": self.event_id,
            "chain": self.chain,
            "at": _iso(self.at),
            "recorded_at": _iso(self.recorded_at),
            "verb": self.verb,
            "reason": self.reason,
        }
        for name in _WORD_FIELDS:
            if value := getattr(self, name):
                found[name] = value
        for name in _MONEY_FIELDS:
            if (micros := getattr(self, name)) is not None:
                found[name] = format_micros(micros)
        if self.retry_at is not None:
            found["retry_at"] = _iso(self.retry_at)
        if self.deadline is not None:
            found["deadline"] = _iso(self.deadline)
        if self.consents:
            found["consents"] = self.consents
        if self.detail:
            found.update(self.detail)
        return found


_WORD_FIELDS = (
    *("outcome", "reason_code", "scopes", "customer", "actor", "budget", "hold", "late", "repeated"),
    *("network", "purpose", "resource"),
)
_MONEY_FIELDS = ("amount", "ltv", "remaining", "charged", "reserved", "actual")


def rows(entry: Entry, chain: str = "") -> list[Row]:
    """The rows of an entry in order: one for each amount that was decided, one for any other fact."""
    fact, seq, recorded_at = decode_fact(entry), entry.seq, entry.recorded_at
    if isinstance(fact, Decided):
        return _decided(fact, seq, recorded_at, chain)
    if isinstance(fact, Settled):
        return [_settled(fact, seq, recorded_at, chain)]
    if isinstance(fact, Halted):
        scopes, customer = _shown([fact.pattern])
        verb = HALT if fact.on else RESUME
        row = Row(event_id(seq), chain, fact.at, recorded_at, verb, APPROVED, "", None, scopes, customer, fact.actor)
        row.detail = {"note": fact.note} if fact.note else None
        row.network = fact.network
        return [row]
    if isinstance(fact, Noted):
        return [_noted(fact, seq, recorded_at, chain)]
    if not isinstance(fact, Opened | PolicyUsed):
        return [_privacy(fact, seq, recorded_at, chain)]
    row = Row(event_id(seq), chain, fact.at, recorded_at, OPEN if isinstance(fact, Opened) else POLICY, "")
    if isinstance(fact, PolicyUsed):
        row.actor = fact.actor
        row.detail = {"policy": fact.policy.decode("utf-8", "replace")}
    else:
        row.detail = {"software": fact.software, "window": fact.window}
        if fact.epoch:
            row.detail["epoch"] = fact.epoch
    return [row]


def _privacy(
    fact: ConsentChanged | RequestChanged | LegalHeld | Pruned | BreachDeclared, seq: int, recorded_at: int, chain: str
) -> Row:
    row = Row(event_id(seq), chain, fact.at, recorded_at, "", "", actor=fact.actor)
    if isinstance(fact, ConsentChanged):
        row.verb, row.outcome, row.resource = CONSENT, fact.state.upper(), fact.purpose
        row.detail = {"method": fact.method, "version": fact.version, "legal_basis": fact.basis}
    elif isinstance(fact, RequestChanged):
        row.verb, row.outcome = REQUEST, State(fact.state).outward
        row.resource, row.reason_code = fact.kind, fact.step
        row.detail = {"request": fact.request, "system": fact.system, "result": fact.outcome, "article": fact.article}
    elif isinstance(fact, LegalHeld):
        row.verb, row.outcome, row.resource = (
            LEGAL_HOLD,
            "ON" if fact.on else "OFF",
            "person" if fact.subject else "all",
        )
        row.detail = {"matter": fact.reference}
    elif isinstance(fact, Pruned):
        row.verb, row.outcome, row.resource = PRUNE, "DELETED", "evidence"
        row.detail = {"before": event_id(fact.before)}
    else:
        row.verb, row.outcome, row.resource = BREACH, "DECLARED", fact.reference
        row.network = fact.network
        row.detail = {"found_at": _iso(fact.found_at)}
        if fact.notified_at is not None:
            row.detail["notified_at"] = _iso(fact.notified_at)
        if fact.affected is not None:
            row.detail["affected"] = str(fact.affected)
    if isinstance(fact, Pruned | BreachDeclared):
        return row
    row.customer = fact.subject
    if not isinstance(fact, LegalHeld):
        row.network = fact.network
    return row


def _noted(fact: Noted, seq: int, recorded_at: int, chain: str) -> Row:
    scopes, customer = _shown(fact.scopes)
    row = Row(event_id(seq), chain, fact.at, recorded_at, NOTE, NOTED, "", None, scopes, customer, fact.actor)
    row.resource, row.network = fact.event, fact.network
    row.detail = {"detail": fact.detail} if fact.detail else None
    return row


def least_shown(verb: str) -> int:
    """A check that named no amount asks for the smallest one, and a request that could not be read has none."""
    return 2 if verb == Verb.CHECK else 1


def _decided(fact: Decided, seq: int, recorded_at: int, chain: str) -> list[Row]:
    refused = {each.index: each for each in fact.refused} if fact.refused else {}
    verb, at, actor, ltv, hold, deadline = fact.verb, fact.at, fact.actor, fact.ltv, fact.hold, fact.deadline
    given, repeated = fact.scopes, fact.repeated
    many = len(given) > 1
    scopes, customer = _shown(given[0]) if given else ([], "")
    least = least_shown(verb)
    consents = [
        {"customer": each.subject, "purpose": each.purpose, "chain": each.chain, "given": each.given}
        | ({"event_id": event_id(each.seq)} if each.seq >= 0 else {})
        for each in fact.consents
    ]
    found: list[Row] = []
    for index, amount in enumerate(fact.amounts):
        if many:
            scopes, customer = _shown(given[index])
        row = Row(
            f"{seq:012x}{index:04x}",
            chain,
            at,
            recorded_at,
            verb,
            APPROVED,
            "",
            amount if amount >= least else None,
            scopes,
            customer,
            actor,
            ltv,
        )
        if refused and index in refused:
            why = refused[index]
            row.reason_code = why.reason
            row.outcome = UNKNOWN if why.reason == Reason.OUTCOME_UNKNOWN else DENIED
            row.budget = why.budget
            row.remaining = max(0, why.remaining) if why.budget else None
            row.retry_at = why.retry_at
        if hold:
            row.hold, row.deadline = hold, deadline
        if repeated:
            row.repeated = True
        row.network, row.purpose = fact.network, fact.purpose
        if consents:
            row.consents = [each for each in consents if not customer or each["customer"] == customer]
        found.append(row)
    return found


def _settled(fact: Settled, seq: int, recorded_at: int, chain: str) -> Row:
    scopes, customer = _shown(fact.scopes[0]) if fact.scopes else ([], "")
    return Row(
        event_id(seq),
        chain,
        fact.at,
        recorded_at,
        fact.verb,
        APPROVED,
        LATE if fact.late else "",
        fact.charged if fact.verb == EXPIRE else fact.actual,
        scopes,
        customer,
        fact.actor,
        hold=fact.hold,
        charged=fact.charged,
        reserved=fact.reserved,
        actual=None if fact.verb == EXPIRE else fact.actual,
        late=fact.late,
        network=fact.network,
    )


def _shown(scopes: list[str]) -> tuple[list[str], str]:
    """The scopes as evidence may show them, and the person's reference among them.

    The guard writes references only; should a person ever stand in clear, nothing of it gets out here.
    """
    customer = ""
    for place, scope in enumerate(scopes):
        if scope.startswith(PERSONAL_PREFIXES):
            kind, _, value = scope.partition(":")
            if is_reference(value):
                customer = value
            elif value != "*":
                scopes = [*scopes[:place], f"{kind}:?", *scopes[place + 1 :]]
    return scopes, customer


@lru_cache(maxsize=1024)
def _utc(second: int) -> str:
    return to_iso(second * SECOND)[:20]


def _iso(micros: int) -> str:
    """`to_iso`, sooner for moments of the same second."""
    return f"{_utc(micros // SECOND)}{micros % SECOND:06d}Z"
