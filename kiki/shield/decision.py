"""What a caller is told: read from the fact itself, so a repeat is the first answer to the byte. Pure."""

from __future__ import annotations

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.errors import SpendDenied
from kiki.money import format_micros
from kiki.shield.budget import Reason
from kiki.shield.fact import Decided, Halted, Refused, Settled
from kiki.shield.policy import format_span, format_wait
from kiki.shield.window import Verb


def event_id(seq: int, index: int = 0) -> str:
    """The id of one decision within its chain: 12 hexadecimal digits for the entry, 4 for the place in it."""
    return f"{seq:012x}{index:04x}"


class Decision(msgspec.Struct, frozen=True):
    """A durable answer to one call: the entry's sequence and the fact that it holds."""

    seq: int
    fact: Decided | Settled | Halted
    repeated: bool = False
    """This call's idempotency key was seen before; the answer is the first one."""
    chain: str = ""
    """Where the entry lies, when another replica answered first; empty: in our own chain."""

    @property
    def event_id(self) -> str:
        """The id of the (first) decision."""
        return event_id(self.seq)

    def outcomes(self) -> list[Outcome]:
        """One outcome for each amount of a `Decided` fact, in order."""
        fact = self.fact
        if not isinstance(fact, Decided):
            return []
        refused = {refusal.index: refusal for refusal in fact.refused}
        seq, get = self.seq, refused.get
        return [Outcome(seq, index, amount, fact, get(index)) for index, amount in enumerate(fact.amounts)]

    def outcome(self) -> Outcome:
        """The outcome of a call with one amount."""
        fact = self.fact
        if not isinstance(fact, Decided):
            raise TypeError(f"a {type(fact).__name__} fact has no outcome")
        return Outcome(self.seq, 0, fact.amounts[0], fact, fact.refused[0] if fact.refused else None)


class Outcome(msgspec.Struct, frozen=True):
    """What became of one amount. Amounts are decimal text, moments RFC 3339, spans seconds."""

    seq: int
    index: int
    micros: int
    fact: Decided
    refused: Refused | None

    @property
    def allowed(self) -> bool:
        """True when it was admitted."""
        return self.refused is None

    @property
    def event_id(self) -> str:
        """The id of its record in the audit; empty when nothing was written down (`BudgetGuard.check`)."""
        return "" if self.seq < 0 else event_id(self.seq, self.index)

    @property
    def amount(self) -> str:
        """The amount that was asked for."""
        return format_micros(self.micros)

    @property
    def decided_at(self) -> str:
        """When the window decided."""
        return to_iso(self.fact.at)

    @property
    def reason(self) -> str | None:
        """Why it was refused, a word of `Reason`."""
        return self.refused.reason if self.refused else None

    @property
    def budget(self) -> str | None:
        """The budget that refused it."""
        return (self.refused.budget or None) if self.refused else None

    @property
    def remaining(self) -> str | None:
        """What that budget had left for it, at least zero."""
        if self.refused is None or not self.refused.budget:
            return None
        return format_micros(max(0, self.refused.remaining))

    @property
    def retry_at(self) -> int | None:
        """When it would fit if nothing else happens, in microseconds since the epoch."""
        return self.refused.retry_at if self.refused else None

    @property
    def retry_after(self) -> float | None:
        """Seconds from the decision until it would fit."""
        return None if self.retry_at is None else (self.retry_at - self.fact.at) / SECOND

    @property
    def explanation(self) -> str:
        """A sentence: what happened and when it would be otherwise."""
        refused = self.refused
        if refused is None:
            return f"{self.amount} fits" if self.fact.verb == Verb.CHECK else f"{self.amount} was taken"
        return explain(refused, self.micros, self.fact)

    def denied(self) -> SpendDenied:
        """The refusal as an error to raise."""
        return SpendDenied(
            self.explanation,
            reason=self.reason or "",
            budget=self.budget,
            remaining=self.remaining,
            retry_after=self.retry_after,
            event_id=self.event_id or None,
        )


def explain(refused: Refused, micros: int, fact: Decided) -> str:
    """Why an amount was refused, in a sentence."""
    amount = format_micros(micros)
    limit = f"{format_micros(refused.limit)} per {format_span(refused.span)}" if refused.limit else ""
    where = f"budget {refused.budget!r}" + (f" on {refused.scope}" if refused.scope not in ("", "*") else "")
    match refused.reason:
        case Reason.INVALID_INPUT:
            return "the request could not be read"
        case Reason.LTV_BELOW_MINIMUM:
            return "the predicted value is below the minimum"
        case Reason.LTV_ABOVE_MAXIMUM:
            return "the predicted value is above the maximum"
        case Reason.CONSENT_MISSING:
            return f"the customer has not consented to {refused.purpose}"
        case Reason.HALTED:
            return f"spending on {refused.scope} is halted"
        case Reason.OUTCOME_UNKNOWN:
            return f"the shared window did not answer, so {amount} counts as spent; ask again with the same key"
        case Reason.ABOVE_LIMIT:
            return f"{amount} never fits {where}, which allows {limit}"
    left = format_micros(max(0, refused.remaining))
    if fact.verb == Verb.CHECK and micros == 1:
        sentence = f"{where} is exhausted ({limit})"
    else:
        sentence = f"{amount} does not fit {where} ({limit}): {left} left"
    if refused.retry_at is None:
        return f"{sentence}; open reservations must be resolved first"
    return f"{sentence}; it fits in {format_wait(refused.retry_at - fact.at)}"
