"""What can be said of a call before the window is asked: a repeat is answered, an improper call is refused, the rest is made ready.

Persons become references, keys are looked up, consent is looked at. Whoever has the turn of deciding calls; nothing
here is written and no money is counted, but a key that is let through has room in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from kiki.ledger.key_index import known_keys
from kiki.ledger.ledger import META
from kiki.ledger.store import Reader
from kiki.ledger.subjects import Person, Subjects
from kiki.shield.books import Books
from kiki.shield.budget import Reason, Refusal, judge_ltv
from kiki.shield.call import Call
from kiki.shield.consent_gate import missing_consents
from kiki.shield.decided_fact import first_answer, request_of, without
from kiki.shield.decision import Decision
from kiki.shield.fact import ConsentUsed
from kiki.shield.persons import referenced
from kiki.shield.projections import fact_at
from kiki.shield.scope import PERSONAL_PREFIXES, Scopes
from kiki.shield.settlement import SETTLING
from kiki.shield.window import Ask, Verb


class Admitted(msgspec.Struct):
    """A call that is ready for the window, or refused as a whole without it."""

    call: Call
    scopes: tuple[Scopes, ...]
    """With references in the place of persons."""
    ask: Ask
    key: bytes
    persons: Sequence[Person] = ()
    refused: dict[int, Refusal] = {}
    """Amounts refused before the window is asked."""
    consents: list[ConsentUsed] = []

    @property
    def is_refused(self) -> bool:
        """True when the window need not be asked at all."""
        return len(self.refused) == len(self.call.amounts)


class Admission:
    """Admits the calls of one batch after the other, under the limits of lifetime value and what the books know."""

    def __init__(
        self,
        books: Books,
        subjects: Subjects,
        all_chains: Callable[[], list[Reader]],
        *,
        ltv_min: int,
        ltv_max: int,
    ) -> None:
        self._books = books
        self._subjects = subjects
        self._all_chains = all_chains
        self._ltv_min = ltv_min
        self._ltv_max = ltv_max
        self._claimed: set[bytes] = set()
        """The keys and holds of the batch."""
        self._coming_keys = 0
        self._elsewhere: dict[bytes, tuple[Reader, int]] = {}

    def begin(self, calls: Sequence[Call]) -> None:
        """A new batch: all that was admitted before is written down."""
        self._claimed.clear()
        self._coming_keys = 0
        self._elsewhere = self._known_elsewhere(calls)

    def admit(self, call: Call, persons: Mapping[str, Person], now: int) -> Admitted | Decision | None:
        """The call made ready, or its first answer again; None when one of the batch must be durable before it.

        Raises what is wrong with the call, which concerns no other.
        """
        key = self._subjects.keyed_hash(call.key) if call.key else b""
        claim = bytes.fromhex(call.hold) if call.verb in SETTLING else key
        if claim:
            if claim in self._claimed:
                return None
            self._claimed.add(claim)
        scopes, named = referenced(call.scopes, persons)
        if key:
            if key in self._elsewhere:
                reader, seq = self._elsewhere[key]
                chain = (reader.get(META, b"chain") or b"").decode()
                return first_answer(fact_at(reader, seq), seq, call, scopes, chain)
            known = self._books.kept.index.find(key)
            if known is not None:
                return first_answer(self._books.kept.fact(known), known, call, scopes)
        makes_hold = call.verb is Verb.RESERVE
        if key or makes_hold:
            more = bool(key) + makes_hold
            # What the calls before it in this batch will have remembered counts too.
            self._books.kept.index.require_room(self._coming_keys + more)
            self._coming_keys += more
        ask = Ask(call.verb, call.amounts, scopes, hold=call.hold, hold_span=call.hold_span, persons=named)
        each = Admitted(call, scopes, ask, key)
        if call.invalid or call.ltv is not None:
            each.refused = self._judged(call)
        if named:
            each.persons = [persons[scope] for scope in named.values()]
            each.refused = each.refused or self._missing(call, scopes, now, each.consents)
            if each.refused and not each.is_refused:
                each.ask = without(ask, each.refused)
        elif call.verb in SETTLING and call.origin is not None:
            each.persons = self._held_for(call.hold)
        if key and not self._books.window.restorable:
            each.ask.key, each.ask.request = call.key, request_of(call, each.refused)
        return each

    def refused(self, call: Call, scopes: tuple[Scopes, ...], now: int, used: list[ConsentUsed]) -> dict[int, Refusal]:
        """The amounts of a call that are refused without the window; the consents looked at go to `used`."""
        judged = self._judged(call) if call.invalid or call.ltv is not None else {}
        return judged or self._missing(call, scopes, now, used)

    def _judged(self, call: Call) -> dict[int, Refusal]:
        refusal: Refusal | None = None
        if call.invalid:
            refusal = Refusal(Reason.INVALID_INPUT)
        elif call.ltv is not None:
            refusal = judge_ltv(call.ltv, self._ltv_min, self._ltv_max)
        return {} if refusal is None else dict.fromkeys(range(len(call.amounts)), refusal)

    def _missing(self, call: Call, scopes: tuple[Scopes, ...], now: int, used: list[ConsentUsed]) -> dict[int, Refusal]:
        look = self._books.consents.look
        return missing_consents(
            call, scopes, self._books.policy, lambda subject, purpose: look(subject, purpose, now), used
        )

    def _held_for(self, hold_id: str) -> list[Person]:
        """The persons that an open hold names: whoever settles it names only the hold."""
        hold = self._books.kept.holds.get(hold_id)
        named = [scope for scope in hold.scopes if scope.startswith(PERSONAL_PREFIXES)] if hold else []
        found = (self._subjects.person_of(scope.partition(":")[2]) for scope in named)
        return [person for person in found if person is not None]

    def _known_elsewhere(self, calls: Sequence[Call]) -> dict[bytes, tuple[Reader, int]]:
        """Keys that another replica answered, where the shared window may have forgotten them: it was lost before."""
        under = self._books.window.under_epoch
        if under is None or under[1] <= 1:
            return {}
        keys = [self._subjects.keyed_hash(call.key) for call in calls if call.key]
        return known_keys(self._all_chains(), [key for key in keys if self._books.kept.index.find(key) is None])
