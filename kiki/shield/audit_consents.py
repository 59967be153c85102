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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kiki.clock import SECOND, to_iso
from kiki.shield.audit_budgets import instance
from kiki.shield.audit_finding import Findings, Kind
from kiki.shield.audit_meter import CLOCKS_APART
from kiki.shield.decision import event_id
from kiki.shield.fact import ConsentChanged, ConsentUsed, Decided
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes

LEASE: Final = 2 * SECOND
"""How long a decision may rest on what was read, and so lie behind the end of a consent."""
GRANTED: Final = "granted"

_PERSONAL: Final = ("customer:",)
_ASKING: Final = frozenset({"spend", "check", "reserve"})
_NO_CONSENT: Final = "none"
_CACHED: Final = 100_000
_SINCE: Final = "the person had said something else since"

Place = tuple[str, int]
"""Chain and sequence of an entry."""


@dataclass(slots=True)
class _State:
    """What one entry says about one person and purpose."""

    subject: str
    purpose: str
    granted: bool
    expires_at: int | None
    recorded_at: int
    last_use: int = 0
    """When the last decision was recorded that rests on it, and where that is."""
    last_place: Place = ("", -1)
    ended: int | None = None
    """When something else was said instead, as far as it is known."""


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
        self._states: dict[Place, _State] = {}
        self._latest: dict[tuple[str, str, str], int] = {}
        self._firsts: dict[str, int] = {}
        self._ended: dict[Place, int] = {}
        self._uses: dict[tuple[str, str, int, str, str], _Use] = {}
        self._needs: dict[tuple[int, Scopes, str], frozenset[str]] = {}

    def begin(self, chain: str, first: int) -> None:
        """A chain of which the range holds the entries from `first` on."""
        self._firsts[chain] = first

    def changed(self, fact: ConsentChanged, chain: str, seq: int, recorded_at: int) -> None:
        """Somebody said something."""
        key = (chain, fact.subject, fact.purpose)
        before = self._latest.get(key)
        if before is not None:
            self._states[chain, before].ended = recorded_at
        self._states[chain, seq] = _State(
            fact.subject, fact.purpose, fact.state == GRANTED, fact.expires_at, recorded_at
        )
        self._latest[key] = seq
        if not fact.carried and len(fact.previous) == 2:
            other, at = fact.previous
            if isinstance(other, str) and isinstance(at, int) and other != chain:
                self._ended[other, at] = min(recorded_at, self._ended.get((other, at), recorded_at))

    def decided(
        self, fact: Decided, admitted: Iterable[Scopes], policy: Policy | None, chain: str, seq: int, recorded_at: int
    ) -> None:
        """A decision that admitted something for these scopes."""
        if fact.verb not in _ASKING:
            return
        needed: dict[tuple[str, str], None] = {}
        for scopes in admitted:
            named = [scope for scope in scopes if scope.startswith(_PERSONAL)]
            if not named:
                continue
            if policy is None:
                self.policy_unknown += 1
                continue
            for purpose in self._purposes(policy, scopes, fact.purpose):
                needed.update({(scope.partition(":")[2], purpose): None for scope in named})
        if not needed:
            return
        self.decisions += 1
        used = {(each.subject, each.purpose): each for each in fact.consents}
        for subject, purpose in needed:
            problem = self._problem(used.get((subject, purpose)), subject, purpose, chain, seq, recorded_at)
            if problem:
                self._findings.add(
                    Kind.CONSENT, chain, seq, f"{fact.verb} for {purpose} about person {subject}: {problem}"
                )

    def _purposes(self, policy: Policy, scopes: Scopes, purpose: str) -> frozenset[str]:
        key = (id(policy), scopes, purpose)
        known = self._needs.get(key)
        if known is None:
            asked = {
                budget.consent
                for budget in policy.budgets
                if budget.consent and instance(budget.pattern.text, scopes) is not None
            }
            if purpose and _NO_CONSENT not in asked:
                asked.add(purpose)
            if len(self._needs) >= _CACHED:
                self._needs.clear()
            known = self._needs[key] = frozenset(asked - {_NO_CONSENT})
        return known

    def _problem(
        self, used: ConsentUsed | None, subject: str, purpose: str, chain: str, seq: int, recorded_at: int
    ) -> str:
        if used is None:
            return "it names no consent"
        if not used.given:
            return "it was admitted although it says itself that there was no consent"
        if used.seq < 0:
            return "it says that there was consent and names no entry"
        if used.chain != chain:
            self._elsewhere(used, chain, seq, recorded_at)
            return ""
        if used.seq < self._firsts[chain]:
            self.not_covered += 1
            return ""
        name = event_id(used.seq) if used.seq < 2**47 else str(used.seq)
        if used.seq >= seq:
            return f"it rests on entry {name}, which comes after it"
        state = self._states.get((chain, used.seq))
        wrong = _mismatch(state, used)
        if state is None or wrong:
            return wrong
        if self._latest.get((chain, subject, purpose)) != used.seq:
            return f"it rests on entry {name}; {_SINCE}"
        if state.expires_at is not None and state.expires_at + LEASE <= recorded_at:
            return f"the consent it rests on, entry {name}, had ended at {to_iso(state.expires_at)}"
        state.last_use, state.last_place = recorded_at, (chain, seq)
        return ""

    def _elsewhere(self, used: ConsentUsed, chain: str, seq: int, recorded_at: int) -> None:
        key = (chain, used.chain, used.seq, used.subject, used.purpose)
        use = self._uses.get(key)
        if use is None:
            self._uses[key] = _Use(recorded_at, recorded_at, (chain, seq))
        else:
            use.last, use.place, use.count = recorded_at, (chain, seq), use.count + 1

    def finish(self) -> None:
        """Compare what rests on entries of other chains, once all of them have been seen."""
        for place, at in self._ended.items():
            state = self._states.get(place)
            if state is not None:
                state.ended = at if state.ended is None else min(at, state.ended)
                if state.last_use > state.ended + LEASE + CLOCKS_APART:
                    self._add(state.last_place, state, f"it rests on entry {place[1]}; {_SINCE}")
        for (_, other, at, subject, purpose), use in self._uses.items():
            if at < self._firsts.get(other, at + 1):
                self.not_covered += use.count
                continue
            used = ConsentUsed(subject, purpose, other, at, given=True)
            state = self._states.get((other, at))
            problem = _mismatch(state, used) if state is None else _mismatch(state, used) or _untimely(state, use)
            if problem:
                self._add(use.place, used, f"{problem} (entry {at} of chain {other})")

    def _add(self, place: Place, about: _State | ConsentUsed, problem: str) -> None:
        message = f"a decision for {about.purpose} about person {about.subject}: {problem}"
        self._findings.add(Kind.CONSENT, *place, message)


def _mismatch(state: _State | None, used: ConsentUsed) -> str:
    """Why an entry cannot be what a decision rests on; empty when it can."""
    if state is None:
        return f"it rests on entry {used.seq}, which is no consent"
    if (state.subject, state.purpose) != (used.subject, used.purpose):
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
