"""Whether every decision about a person rested on the consent that was then in force. Pure.

A second implementation on purpose: it shares with what decides only how facts and policies are read. What a decision
needed follows from the policy in force and from the purpose that was given; what it rested on stands in the fact as the
place of an entry. That entry must exist, be of that person and purpose, say yes, not have run out, and be the latest that
had been said.

Within a chain the order of entries is exact. Between chains there are clocks, and an enforcer may use what it
read for a lease of two seconds: only what goes beyond both is reported. What lies before the range is counted as not
covered. Memory grows with the number of consent entries, not with that of decisions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.shield.audit_finding import Findings, Kind
from kiki.shield.audit_meter import CLOCKS_APART
from kiki.shield.decision import event_id
from kiki.shield.fact import ConsentChanged, ConsentUsed, Decided
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes

LEASE: Final = 2 * SECOND
"""How long a decision may rest on what was read, and so lie behind the end of a consent."""
GRANTED: Final = "granted"

_CACHED: Final = 100_000
_PURPOSES_CACHED: Final = 16
_PERSONAL: Final = "customer"
_ASKING: Final = frozenset({"spend", "check", "reserve"})
_NO_CONSENT: Final = "none"
_SINCE: Final = "the person had said something else since"

Place = tuple[str, int]
"""Chain and sequence of an entry."""
Need = tuple[str, str]
"""A person and a purpose."""


class _State(msgspec.Struct, gc=False):
    """What one entry says about one person and purpose."""

    subject: str
    purpose: str
    granted: bool
    expires_at: int | None
    recorded_at: int
    last_use: int = 0
    """When the last decision of its own chain was recorded that rests on it, and where that is."""
    last_seq: int = -1
    ended: int | None = None
    """When something else was said instead, as far as it is known."""

    def holds(self, used: ConsentUsed, seq: int, recorded_at: int) -> bool:
        """Whether a decision of its own chain, in entry `seq`, may rest on it."""
        return (
            self.granted
            and self.ended is None
            and used.seq < seq
            and self.subject == used.subject
            and self.purpose == used.purpose
            and (self.expires_at is None or self.expires_at + LEASE > recorded_at)
        )


@dataclass(slots=True)
class _Use:
    """Decisions of one chain that rest on one entry of another."""

    first: int
    last: int
    place: Place
    count: int = 1


class Consents:
    """Follows consents and the decisions that rest on them, chain after chain; `finish` compares across chains."""

    def __init__(self, findings: Findings) -> None:
        self.decisions = 0
        """Admitted decisions that needed a person's consent."""
        self.not_covered = 0
        """Of those, the ones that rest on an entry outside of the range."""
        self.policy_unknown = 0
        """Decisions about a person before the first policy of the range: nobody can tell what they needed."""
        self._findings = findings
        self._states: dict[str, dict[int, _State]] = {}
        """By chain and sequence."""
        self._latest: dict[tuple[str, str, str], _State] = {}
        self._firsts: dict[str, int] = {}
        self._ended: dict[Place, int] = {}
        self._uses: dict[tuple[str, str, int, str, str], _Use] = {}
        self._policy: Policy | None = None
        self._asked: dict[str, set[str]] = {}
        """What the budgets of this policy ask for consent to, by their patterns."""
        self._needs: dict[str, dict[Scopes, tuple[Need, ...]]] = {}
        """What decisions need under this policy, by the purpose that they name."""
        self._words: dict[str, str] = {}

    def begin(self, chain: str, first: int) -> None:
        """A chain of which the range holds the entries from `first` on."""
        self._firsts[chain] = first
        self._states.setdefault(chain, {})

    def changed(self, fact: ConsentChanged, chain: str, seq: int, recorded_at: int) -> None:
        """Somebody said something."""
        key = (chain, fact.subject, fact.purpose)
        before = self._latest.get(key)
        if before is not None:
            before.ended = recorded_at
        purpose = self._words.setdefault(fact.purpose, fact.purpose)
        state = _State(fact.subject, purpose, fact.state == GRANTED, fact.expires_at, recorded_at)
        self._states[chain][seq] = self._latest[key] = state
        if not fact.carried and len(fact.previous) == 2:
            other, at = fact.previous
            if isinstance(other, str) and isinstance(at, int) and other != chain:
                self._ended[other, at] = min(recorded_at, self._ended.get((other, at), recorded_at))

    def decided(
        self, fact: Decided, admitted: Sequence[Scopes], policy: Policy | None, chain: str, seq: int, recorded_at: int
    ) -> None:
        """A decision that admitted something for these scopes."""
        if fact.verb not in _ASKING:
            return
        if policy is not self._policy or len(self._needs) > _PURPOSES_CACHED:
            self._policy, self._asked = policy, _asked_by(policy)
            self._needs.clear()
        known = self._needs.get(fact.purpose)
        if known is None:
            known = self._needs[fact.purpose] = {}
        needed: Collection[Need] | None = known.get(admitted[0]) if len(admitted) == 1 else None
        if needed is None:
            needed = dict.fromkeys(need for scopes in admitted for need in self._needed(scopes, fact.purpose, known))
        if not needed:
            return
        self.decisions += 1
        named = fact.consents
        if len(named) == 1 == len(needed):
            # One person, one purpose, one entry of its own chain that says yes: nearly all that there is.
            only = named[0]
            state = self._states[chain].get(only.seq) if only.given and only.chain == chain else None
            if state is not None and (only.subject, only.purpose) in needed and state.holds(only, seq, recorded_at):
                state.last_use, state.last_seq = recorded_at, seq
                return
        used = {(each.subject, each.purpose): each for each in named} if len(named) > 1 else None
        for subject, purpose in needed:
            if used is not None:
                found = used.get((subject, purpose))
            elif named and named[0].subject == subject and named[0].purpose == purpose:
                found = named[0]
            else:
                found = None
            if found is None:
                problem = "it names no consent"
            elif not found.given:
                problem = "it was admitted although it says itself that there was no consent"
            elif found.seq < 0:
                problem = "it says that there was consent and names no entry"
            elif found.chain != chain:
                self._elsewhere(found, chain, seq, recorded_at)
                continue
            else:
                state = self._states[chain].get(found.seq)
                if state is not None and state.holds(found, seq, recorded_at):
                    state.last_use, state.last_seq = recorded_at, seq
                    continue
                if found.seq < self._firsts[chain]:
                    self.not_covered += 1
                    continue
                problem = _said_otherwise(state, found, seq)
            self._findings.add(Kind.CONSENT, chain, seq, f"{fact.verb} for {purpose} about person {subject}: {problem}")

    def _needed(self, scopes: Scopes, purpose: str, known: dict[Scopes, tuple[Need, ...]]) -> Sequence[Need]:
        """Whose consent a decision for these scopes needs, and to what."""
        if scopes in known:
            return known[scopes]
        asked = self._asked
        purposes = set(asked.get("*", ()))
        persons: list[str] = []
        for scope in scopes:
            kind, colon, value = scope.partition(":")
            if colon:
                if kind == _PERSONAL:
                    persons.append(value)
                if kind in asked:
                    purposes |= asked[kind]
                if scope in asked:
                    purposes |= asked[scope]
        if persons and self._policy is None:
            self.policy_unknown += 1
            return ()
        if purpose and _NO_CONSENT not in purposes:
            purposes.add(purpose)
        purposes.discard(_NO_CONSENT)
        if len(known) >= _CACHED:
            known.clear()
        needed = known[scopes] = tuple((person, each) for each in sorted(purposes) for person in persons)
        return needed

    def _elsewhere(self, used: ConsentUsed, chain: str, seq: int, recorded_at: int) -> None:
        key = (chain, used.chain, used.seq, used.subject, used.purpose)
        use = self._uses.get(key)
        if use is None:
            self._uses[key] = _Use(recorded_at, recorded_at, (chain, seq))
        else:
            use.last, use.place, use.count = recorded_at, (chain, seq), use.count + 1

    def finish(self) -> None:
        """Compare what rests on entries of other chains, once all of them have been seen."""
        for (chain, seq), at in self._ended.items():
            state = self._states.get(chain, {}).get(seq)
            if state is not None:
                state.ended = at if state.ended is None else min(at, state.ended)
                if state.last_use > state.ended + LEASE + CLOCKS_APART:
                    self._add((chain, state.last_seq), state, f"it rests on entry {seq}; {_SINCE}")
        for (_, other, at, subject, purpose), use in self._uses.items():
            if at < self._firsts.get(other, at + 1):
                self.not_covered += use.count
                continue
            used = ConsentUsed(subject, purpose, other, at, given=True)
            state = self._states.get(other, {}).get(at)
            problem = _mismatch(state, used) if state is None else _mismatch(state, used) or _untimely(state, use)
            if problem:
                self._add(use.place, used, f"{problem} (entry {at} of chain {other})")

    def _add(self, place: Place, about: _State | ConsentUsed, problem: str) -> None:
        message = f"a decision for {about.purpose} about person {about.subject}: {problem}"
        self._findings.add(Kind.CONSENT, *place, message)


def _asked_by(policy: Policy | None) -> dict[str, set[str]]:
    """What budgets ask for consent to: by the scope that they are about, or by its kind for `kind:*`."""
    asked: dict[str, set[str]] = {}
    for budget in () if policy is None else policy.budgets:
        if budget.consent:
            asked.setdefault(budget.pattern.text.removesuffix(":*"), set()).add(budget.consent)
    return asked


def _said_otherwise(state: _State | None, used: ConsentUsed, seq: int) -> str:
    """Why the decision of its own chain in entry `seq` may not rest on a state that does not hold for it."""
    name = event_id(used.seq) if used.seq < 2**47 else str(used.seq)
    if used.seq >= seq:
        return f"it rests on entry {name}, which comes after it"
    wrong = _mismatch(state, used)
    if state is None or wrong:
        return wrong
    if state.ended is not None:
        return f"it rests on entry {name}; {_SINCE}"
    return f"the consent it rests on, entry {name}, had ended at {to_iso(state.expires_at or 0)}"


def _mismatch(state: _State | None, used: ConsentUsed) -> str:
    """Why an entry cannot be what a decision rests on; empty when it can."""
    if state is None:
        return f"it rests on entry {used.seq}, which is no consent"
    if state.subject != used.subject or state.purpose != used.purpose:
        return f"it rests on entry {used.seq}, which is about another person or purpose"
    if not state.granted:
        return f"it rests on entry {used.seq}, in which the person said no"
    return ""


def _untimely(state: _State, use: _Use) -> str:
    """Why decisions of another chain may not rest on an entry, by the clocks; empty when they may."""
    if use.first + CLOCKS_APART < state.recorded_at:
        return "it rests on an entry that was not there yet"
    if state.expires_at is not None and state.expires_at + LEASE + CLOCKS_APART <= use.last:
        return f"the consent it rests on had ended at {to_iso(state.expires_at)}"
    if state.ended is not None and state.ended + LEASE + CLOCKS_APART < use.last:
        return _SINCE
    return ""
