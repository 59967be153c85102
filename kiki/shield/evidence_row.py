"""One decision as evidence: a row for people (CSV) and for machines (JSON). Reads facts, holds nothing.

The CSV has the thirteen columns of the system before this one, and exactly one row for each decision, each
turn of the kill switch and each note of another service. Everything in it is a closed vocabulary, an amount, a scope, or a reference: a person
appears as the random reference of the ledger, in `customer_id_hash` and nowhere else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.ledger.entry import Entry
from kiki.money import MICROS, format_micros
from kiki.shield.budget import Reason
from kiki.shield.decision import event_id
from kiki.shield.dsr import State
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
from kiki.shield.scope import PERSONAL_KINDS
from kiki.shield.window import Verb

APPROVED, DENIED, UNKNOWN = "APPROVED", "DENIED", "UNKNOWN"
OUTCOMES = (APPROVED, DENIED, UNKNOWN)

COLUMNS = (
    *("timestamp", "event_id", "level", "event_type", "user_id_hash", "customer_id_hash", "action", "resource"),
    *("outcome", "reason", "ip_address", "data_accessed", "retention_days"),
)
CSV_HEADER = ",".join(COLUMNS) + "\n"

HALT, RESUME, POLICY, OPEN = "halt", "resume", "policy", "open"
CONSENT, REQUEST, LEGAL_HOLD, PRUNE, BREACH = "consent", "request", "legal_hold", "prune", "breach"
NOTE = "note"
LATE = "late"
"""The reason code of a commit or release whose deadline had passed."""

_WITHIN = {Verb.CHECK: "Within safe parameters", Verb.RECORD: "Spent elsewhere and counted"}
_REFUSED = {
    Reason.INVALID_INPUT: "Request could not be read",
    Reason.LTV_BELOW_MINIMUM: "Below minimum threshold",
    Reason.LTV_ABOVE_MAXIMUM: "Safety ceiling exceeded",
    Reason.CONSENT_MISSING: "Consent is missing",
    Reason.HALTED: "Spending is halted",
    Reason.ABOVE_LIMIT: "Budget limit exceeded",
    Reason.BUDGET_EXHAUSTED: "Budget limit exceeded",
    Reason.OUTCOME_UNKNOWN: "Outcome unknown and counted as spent",
}
_SETTLED = {
    Verb.COMMIT: "Reservation committed",
    Verb.RELEASE: "Reservation released",
    EXPIRE: "Reservation expired and counted as spent",
}
_SETTLED_LATE = "Reservation had expired and was already counted as spent"
_TURNED = {HALT: "Spending halted", RESUME: "Halt taken back", POLICY: "Policy in force", OPEN: "Ledger opened"}

_PERSONAL_PREFIXES = tuple(f"{kind}:" for kind in sorted(PERSONAL_KINDS))
_is_reference = re.compile("[0-9a-f]{32}").fullmatch
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Privacy(NamedTuple):
    """How a fact about a person's rights stands in the CSV."""

    reason: str
    event_type: str
    action: str


class _Words(NamedTuple):
    """What a verb and a reason code say in every row alike."""

    outcome: str
    reason: str
    head: str
    """`,level,event_type,`"""
    middle: str
    """`,action,resource,outcome,reason,`; of a halt or a privacy fact, up to the action."""


_PRIVACY = {
    CONSENT: _Privacy("User consent update", "consent_change", "update_consent"),
    REQUEST: _Privacy("GDPR/CCPA data subject request", "data_subject_request", "process_request"),
    LEGAL_HOLD: _Privacy("Legal hold", "admin_action", "legal_hold"),
    PRUNE: _Privacy("Retention ended", "data_deletion", "prune"),
    BREACH: _Privacy("Breach declared", "data_breach", "declare"),
}
_NOTE_REASON = "Said by another service"
_RECEIVED = "received"
"""The first step of a request, which the original called create_request."""


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
        return _words(self.verb, self.reason_code).reason

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

    def as_csv(self, retention_days: int) -> str:
        """The row as one line of the CSV, its line feed included."""
        verb = self.verb
        outcome, reason, head, middle = _words(verb, self.reason_code)
        if not outcome:
            raise ValueError(f"a {verb} is evidence but no decision: it has no row in the CSV")
        customer, named = _told(self.scopes)
        if verb in (HALT, RESUME):
            # A person's pattern is said by its kind: who it is stands in customer_id_hash.
            resource = _field(named[1:] or _kinds(self.scopes))
            middle, data = f"{middle}{resource},{outcome},{reason},", "[scopes]"
        elif verb in _PRIVACY:
            customer, data = self.customer, "[customer_id]" if self.customer else "[]"
            middle = f"{middle}{_field(self.resource)},{_field(self.outcome)},{reason},"
        elif verb == NOTE:
            customer, data = self.customer, "[detail]" if self.detail else "[]"
            middle = f",{_field(self.resource)},{_field(named[1:])},{outcome},{reason},"
        else:
            data = _data(customer, self.ltv, self.amount, named)
        user = _hashed(self.actor, self.chain) if self.actor else ""
        time_text = _local(self.at // SECOND)
        return f"{time_text},{self.event_id}{head}{user},{customer}{middle}{self.network},{data},{retention_days}\n"


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
    row = Row(event_id(seq), chain, fact.at, recorded_at, NOTE, "NOTED", "", None, scopes, customer, fact.actor)
    row.resource, row.network = fact.event, fact.network
    row.detail = {"detail": fact.detail} if fact.detail else None
    return row


def csv_lines(entry: Entry, chain: str, retention_days: int) -> list[str]:
    """The lines of an entry in the CSV: what `Row.as_csv` says of each of its decisions, without the rows."""
    fact = decode_fact(entry)
    if not isinstance(fact, Decided):
        return [row.as_csv(retention_days) for row in rows(entry, chain) if row.is_decision]
    verb, ltv, given, tail = fact.verb, fact.ltv, fact.scopes, f",{retention_days}\n"
    many = len(given) > 1
    customer, named = _told(given[0]) if given else ("", "")
    _, _, head, middle = _words(verb, "")
    refused = {each.index: each.reason for each in fact.refused} if fact.refused else None
    user = _hashed(fact.actor, chain) if fact.actor else ""
    start, network = f"{_local(fact.at // SECOND)},{entry.seq:012x}", fact.network
    least = _least(verb)
    found: list[str] = []
    for index, amount in enumerate(fact.amounts):
        if many:
            customer, named = _told(given[index])
        data = _data(customer, ltv, amount if amount >= least else None, named)
        if refused and index in refused:
            _, _, why_head, why = _words(verb, refused[index])
            found.append(f"{start}{index:04x}{why_head}{user},{customer}{why}{network},{data}{tail}")
        else:
            found.append(f"{start}{index:04x}{head}{user},{customer}{middle}{network},{data}{tail}")
    return found


def _least(verb: str) -> int:
    """A check that named no amount asks for the smallest one, and a request that could not be read has none."""
    return 2 if verb == Verb.CHECK else 1


def _decided(fact: Decided, seq: int, recorded_at: int, chain: str) -> list[Row]:
    refused = {each.index: each for each in fact.refused} if fact.refused else {}
    verb, at, actor, ltv, hold, deadline = fact.verb, fact.at, fact.actor, fact.ltv, fact.hold, fact.deadline
    given, repeated = fact.scopes, fact.repeated
    many = len(given) > 1
    scopes, customer = _shown(given[0]) if given else ([], "")
    least = _least(verb)
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
        if scope.startswith(_PERSONAL_PREFIXES):
            kind, _, value = scope.partition(":")
            if _is_reference(value):
                customer = value
            elif value != "*":
                scopes = [*scopes[:place], f"{kind}:?", *scopes[place + 1 :]]
    return scopes, customer


@lru_cache(maxsize=256)
def _words(verb: str, code: str) -> _Words:
    if verb in _TURNED:
        outcome = APPROVED if verb in (HALT, RESUME) else ""
        return _Words(outcome, _TURNED[verb], ",CRITICAL,admin_action,", f",{verb},")
    if verb == NOTE:
        return _Words("NOTED", _NOTE_REASON, ",INFO,service_note,", "")
    if verb in _PRIVACY:
        reason, event_type, action = _PRIVACY[verb]
        if code == _RECEIVED:
            reason, action = f"{reason} initiated", "create_request"
        return _Words("-", reason, f",CRITICAL,{event_type},", f",{action},")
    outcome, reason = APPROVED, "Within budget"
    if verb in _SETTLED:
        reason = _SETTLED_LATE if code == LATE else _SETTLED[verb]
    elif code:
        outcome = UNKNOWN if code == Reason.OUTCOME_UNKNOWN else DENIED
        # A word that a later version wrote is shown as it is.
        reason = _REFUSED[Reason(code)] if code in _REFUSED else code
    elif verb in _WITHIN:
        reason = _WITHIN[Verb(verb)]
    if verb == Verb.CHECK:
        head, what = ",INFO,bid_validation,", "validate_bid,ltv_prediction"
    else:
        level = "INFO" if outcome == APPROVED else "WARNING"
        head, what = f",{level},budget_decision,", f"{_field(verb)},budget"
    return _Words(outcome, reason, head, f",{what},{outcome},{_field(reason)},")


def _told(scopes: Sequence[str]) -> tuple[str, str]:
    """The person's reference, and the scopes that are nobody's, each after a space."""
    customer = named = ""
    for scope in scopes:
        if not scope.startswith(_PERSONAL_PREFIXES):
            named += f" {scope}"
        elif _is_reference(value := scope.partition(":")[2]):
            customer = value
    return customer, named


def _kinds(scopes: Sequence[str]) -> str:
    return " ".join(scope.partition(":")[0] for scope in scopes)


def _data(customer: str, ltv: int | None, amount: int | None, named: str) -> str:
    """What was looked at, in the brackets of the original."""
    text = f" amount={_text(amount)}{named}" if amount is not None else named
    if ltv is not None:
        text = f" predicted_ltv={_text(ltv)}{text}"
    if customer:
        text = f" customer_id{text}"
    if named and ("," in named or '"' in named or not named.isprintable()):
        return _field(f"[{text[1:]}]")
    return f"[{text[1:]}]"


def _text(micros: int) -> str:
    """`format_micros` of what is not negative, sooner."""
    cents, rest = divmod(micros, 10_000)
    if rest:
        return f"{micros // MICROS}.{micros % MICROS:06d}".rstrip("0")
    return f"{cents // 100}.{cents % 100:02d}"


def _field(text: str) -> str:
    """A field that is one field in every reader, and a text in every spreadsheet."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    if text.startswith(_FORMULA):
        text = f"'{text}"
    if '"' in text or "," in text:
        escaped = text.replace('"', '""')
        return f'"{escaped}"'
    return text


@lru_cache(maxsize=256)
def _hashed(actor: str, chain: str) -> str:
    """Who asked, the same in all rows of a chain. Keyed with the chain's random id, which the CSV does not hold."""
    return blake2b(actor.encode(), key=chain.encode()[:64], digest_size=16).hexdigest()


@lru_cache(maxsize=1024)
def _local(second: int) -> str:
    """RFC 3339 in seconds with the local offset, `Z` for none."""
    moment = time.localtime(second)
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", moment)
    return f"{text[:-5]}Z" if text.endswith("0000") else f"{text[:-2]}:{text[-2:]}"


@lru_cache(maxsize=1024)
def _utc(second: int) -> str:
    return to_iso(second * SECOND)[:20]


def _iso(micros: int) -> str:
    """`to_iso`, sooner for moments of the same second."""
    return f"{_utc(micros // SECOND)}{micros % SECOND:06d}Z"
