"""The auditor's replay: whether what the entries say could have been decided by a shield that keeps its promises.

It reads the entries of one or more chains in order, as `kiki.ledger.bundle_verifier` and `chain_verifier` hand them out while they
prove that nobody altered them, and checks three things:

- budgets (`audit_budgets`): no window of a budget in force ever held more than its limit;
- consent (`audit_consents`): every decision about a person rested on the consent then in force;
- form: sequences are dense, entries never recorded backwards, facts can be read, and say nothing that cannot be.

It shares with what decides the reading of facts and policies, and nothing else. Nothing is decrypted: of what is sealed
only the form can be checked. Memory grows with the longest window and with the number of consents, not with the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from kiki.errors import EvidenceInvalid, LedgerCorrupt, PolicyError
from kiki.ledger.entry import UNDECODABLE, VERSIONS, Sealed, decode_entry
from kiki.money import MICROS_MAX
from kiki.shield.audit_budgets import BudgetSums, Checked
from kiki.shield.audit_consents import Consents
from kiki.shield.audit_finding import Findings, Kind
from kiki.shield.audit_lanes import instance
from kiki.shield.audit_money import COMMIT, EXPIRE, RECORD, RELEASE, RESERVE, SPEND, Money, added_up, is_hold
from kiki.shield.audit_report import AuditReport, ChainSpan
from kiki.shield.audit_shared import SharedWindow
from kiki.shield.audit_spool import Spooled
from kiki.shield.fact import ConsentChanged, Decided, Fact, Halted, Opened, PolicyUsed, Pruned, Settled
from kiki.shield.policy import Policy
from kiki.shield.scope import Scopes

CHECK: Final = "check"
UNKNOWN: Final = "outcome_unknown"

_VERBS: Final = frozenset({CHECK, SPEND, RESERVE, RECORD})
_ENDS: Final = frozenset({COMMIT, RELEASE, EXPIRE})
_MOMENT_MAX: Final = 2**62
_SEQ_MAX: Final = 2**47
"""Where a range may begin, so that no sequence in it is too large for the id of an event."""
_SEALED_FORM: Final = (16, 24, 32, 16)
"""How long key id, nonce and commitment are, and the ciphertext at least."""


class _Entry(msgspec.Struct, array_like=True):
    seq: int
    recorded_at: int
    fact: Fact
    sealed: list[Sealed] = []


_decode = msgspec.msgpack.Decoder(_Entry).decode


@dataclass(slots=True)
class _Chain:
    name: str
    number: int
    first: int
    next: int
    sums: BudgetSums
    recorded_at: int = 0
    from_at: int = 0
    entries: int = 0
    sealed: int = 0
    policy: int = -1
    rules: Policy | None = None
    """The policy itself; None before the first one of the range."""
    asks_consent: bool = True
    policy_at: int = -1
    """When the first policy of the range was recorded."""
    counts_alone: bool = False
    halts: dict[str, None] = field(default_factory=dict)


class Learned(msgspec.Struct, frozen=True):
    """What one pass over the evidence tells that a second one should know from the beginning."""

    policies: tuple[tuple[bytes, Policy], ...]
    initial: dict[str, int]
    """For a chain, which of them was in force before its range says so."""


class AuditCheck:
    """One pass: `entry` for every entry, a chain after the other, then `finish`."""

    def __init__(self, learned: Learned | None = None) -> None:
        self._findings = Findings()
        self._checked = Checked()
        self._consents = Consents(self._findings)
        self._shared = SharedWindow()
        self._has_shared = False
        self._names: list[str] = []
        self._chains: dict[str, _Chain] = {}
        self._chain: _Chain | None = None
        # The last place is for "no policy is known yet": -1 finds it.
        known = () if learned is None else learned.policies
        self._policies: list[tuple[bytes, Policy]] = [*known]
        self._initial: dict[str, int] = {} if learned is None else dict(learned.initial)
        self._is_first_pass = learned is None
        self._decisions = 0

    # -- reading -------------------------------------------------------------------------------------

    def entry(self, chain: str, seq: int, data: bytes) -> None:
        """The next entry; `seq` is where whoever stored it says that it belongs."""
        state = self._chain
        if state is None or state.name != chain:
            state = self._chain = self._begin(chain, seq)
        try:
            if data[0] not in VERSIONS:
                raise msgspec.DecodeError("its version is unknown")
            entry = _decode(data[1:])
        except (*UNDECODABLE, IndexError) as error:
            self._unreadable(state, seq, data, error)
            return
        recorded_at = entry.recorded_at
        if seq == state.next == entry.seq and recorded_at >= state.recorded_at and state.entries:
            state.next = seq + 1
            state.entries += 1
            state.recorded_at = recorded_at
        else:
            self._place(state, seq, entry.seq, recorded_at)
        fact = entry.fact
        if type(fact) is Decided:
            self._decided(state, fact, seq, recorded_at)
        elif type(fact) is Settled:
            self._settled(state, fact, seq, recorded_at)
        else:
            self._told(state, fact, seq, recorded_at)
        if entry.sealed:
            state.sealed += len(entry.sealed)
            self._sealed(state, seq, entry.sealed)

    def _begin(self, chain: str, first: int) -> _Chain:
        known = self._chains.get(chain)
        if known is not None:
            return known
        if first >= _SEQ_MAX:
            raise EvidenceInvalid(f"no ledger has {first} entries", place=f"chain {chain}, entry {first}")
        number = len(self._names)
        self._names.append(chain)
        sums = BudgetSums(self._findings, self._checked, [chain], policies=[policy for _, policy in self._policies])
        state = self._chains[chain] = _Chain(chain, number, first, first, sums)
        self._consents.begin(chain, first)
        initial = self._initial.get(chain)
        if initial is not None:
            self._use(state, initial)
        return state

    def _place(self, state: _Chain, seq: int, own_seq: int, recorded_at: int) -> None:
        if seq != state.next or own_seq != seq:
            self._wrong(state, seq, f"it calls itself entry {own_seq} and stands where entry {state.next} belongs")
        if recorded_at < state.recorded_at:
            self._wrong(state, seq, "it was recorded before the entry that stands before it")
        if not state.entries:
            state.from_at = recorded_at
        state.next = seq + 1
        state.entries += 1
        state.recorded_at = max(recorded_at, state.recorded_at)

    def _unreadable(self, state: _Chain, seq: int, data: bytes, error: Exception) -> None:
        try:
            entry = decode_entry(data)
        except LedgerCorrupt as corrupt:
            self._wrong(state, seq, str(corrupt))
            self._place(state, seq, seq, state.recorded_at)
            return
        self._place(state, seq, entry.seq, entry.recorded_at)
        self._wrong(state, seq, f"it holds no fact that this kiki can read: {error}")

    def _sealed(self, state: _Chain, seq: int, parts: Iterable[Sealed]) -> None:
        for part in parts:
            *fixed, least = _SEALED_FORM
            if [len(part.key_id), len(part.nonce), len(part.commitment)] != fixed or len(part.ciphertext) < least:
                self._wrong(state, seq, "a sealed part does not have the form of one")

    def _wrong(self, state: _Chain, seq: int, message: str) -> None:
        self._findings.add(Kind.STRUCTURE, state.name, seq, message)

    # -- facts ---------------------------------------------------------------------------------------

    def _told(self, state: _Chain, fact: Fact, seq: int, recorded_at: int) -> None:
        """A fact that says nothing about money itself."""
        if isinstance(fact, PolicyUsed):
            self._policy(state, fact, seq, recorded_at)
        elif isinstance(fact, ConsentChanged):
            self._consents.changed(fact, state.name, seq, recorded_at)
        elif isinstance(fact, Halted):
            if fact.on:
                state.halts[fact.pattern] = None
            else:
                state.halts.pop(fact.pattern, None)
        elif isinstance(fact, Opened):
            if fact.chain not in {"", state.name}:
                self._wrong(state, seq, f"it says that this is chain {fact.chain}")
        elif isinstance(fact, Pruned) and self._is_first_pass and state.policy_at == recorded_at:
            # What was in force is said again when what said it first is pruned: it was in force before, too.
            self._initial[state.name] = state.policy

    def _policy(self, state: _Chain, fact: PolicyUsed, seq: int, recorded_at: int) -> None:
        try:
            policy = Policy.load(fact.policy)
        except PolicyError as error:
            self._wrong(state, seq, str(error))
            return
        named = (fact.policy, policy)
        number = next((at for at, (name, _) in enumerate(self._policies) if name == fact.policy), None)
        if number is None:
            number = len(self._policies)
            self._policies.append(named)
        if state.policy_at < 0:
            state.policy_at = recorded_at
        self._use(state, number)

    def _use(self, state: _Chain, number: int) -> None:
        name, policy = self._policies[number]
        state.policy, state.rules, state.asks_consent = number, policy, policy.asks_consent
        state.sums.use(name, policy)

    def _decided(self, state: _Chain, fact: Decided, seq: int, recorded_at: int) -> None:
        amounts, scopes = fact.amounts, fact.scopes
        count = len(amounts)
        self._decisions += count
        at = fact.at
        if (
            count == 1 == len(scopes)
            and fact.verb == SPEND
            and 0 <= at <= recorded_at < _MOMENT_MAX
            and 0 <= amounts[0] <= MICROS_MAX
            and not (fact.refused or fact.epoch or state.halts)
            and fact.deadline is None
        ):
            # One spend that was admitted: nearly all that there is, and none of what follows concerns it.
            where = tuple(scopes[0])
            if state.asks_consent or fact.consents or fact.purpose:
                self._consents.decided(fact, (where,), state.rules, state.name, seq, recorded_at)
            state.counts_alone = True
            state.sums.spend(amounts[0], where, at, recorded_at, seq)
            return
        many = len(scopes) > 1
        if (
            fact.verb not in _VERBS
            or not 0 <= fact.at < _MOMENT_MAX
            or not count
            or len(scopes) not in {1, count}
            or (fact.deadline is not None and not fact.at < fact.deadline < _MOMENT_MAX)
        ):
            self._wrong(state, seq, "it is a decision as kiki never writes one")
            return
        unsure: list[tuple[int, Scopes]] = []
        if fact.refused:
            reasons = {each.index: each.reason for each in fact.refused}
            taken = []
            for index, amount in enumerate(amounts):
                reason = reasons.get(index)
                if reason is None:
                    taken.append((amount, tuple(scopes[index if many else 0])))
                elif reason == UNKNOWN:
                    unsure.append((amount, tuple(scopes[index if many else 0])))
        elif many:
            taken = [(amount, tuple(each)) for amount, each in zip(amounts, scopes, strict=True)]
        else:
            # Only a forged sum is larger than what a cell holds, and above every limit all the same.
            taken = [(amounts[0] if count == 1 else min(sum(amounts), MICROS_MAX), tuple(scopes[0]))]
        if not taken and not unsure:
            return
        if not 0 <= amounts[0] <= MICROS_MAX or (count > 1 and not 0 <= min(amounts) <= max(amounts) <= MICROS_MAX):
            self._wrong(state, seq, "an admitted amount is none that kiki accepts")
            return
        admitted = taken + unsure
        if state.asks_consent or fact.consents or fact.purpose:
            named = [each for _, each in admitted]
            self._consents.decided(fact, named, state.rules, state.name, seq, recorded_at)
        if fact.verb == CHECK:
            return
        if len(admitted) > 1:
            taken, unsure = added_up(taken), added_up(unsure)
        if fact.verb == RESERVE and (count != 1 or (not is_hold(fact.hold) and not unsure)):
            self._wrong(state, seq, "it is a reservation as kiki never writes one")
            return
        if fact.verb == RESERVE and not taken:
            # Without an answer there is no reservation that anybody could end.
            return
        money = Money(
            seq,
            fact.at,
            recorded_at,
            fact.verb,
            taken,
            unsure,
            fact.hold,
            fact.deadline,
            0,
            fact.epoch,
            fact.sequence,
        )
        if fact.epoch:
            self._elsewhere(state, money)
            return
        if fact.at > recorded_at:
            self._wrong(state, seq, "it was decided after it was recorded")
        state.counts_alone = True
        if state.halts and fact.verb != RECORD:
            self._halted(state, seq, taken)
        state.sums.apply(money)

    def _halted(self, state: _Chain, seq: int, taken: Iterable[tuple[int, Scopes]]) -> None:
        for _, scopes in taken:
            for pattern in state.halts:
                if instance(pattern, scopes) is not None:
                    message = f"money was admitted while spending on {pattern} was halted"
                    self._findings.add(Kind.HALTED, state.name, seq, message)

    def _settled(self, state: _Chain, fact: Settled, seq: int, recorded_at: int) -> None:
        if (
            fact.verb not in _ENDS
            or not is_hold(fact.hold)
            or not 0 <= fact.at < _MOMENT_MAX
            or not 0 <= fact.charged <= MICROS_MAX
            or (fact.charged and (fact.late or fact.verb == RELEASE))
        ):
            self._wrong(state, seq, "it is the end of a reservation as kiki never writes one")
            return
        if fact.late:
            return  # the deadline had charged all of it
        taken = [(fact.charged, tuple(fact.scopes[0]))] if fact.scopes else []
        money = Money(
            seq,
            fact.at,
            recorded_at,
            fact.verb,
            taken,
            [],
            fact.hold,
            None,
            fact.charged,
            fact.epoch,
            fact.sequence,
        )
        if fact.epoch:
            self._elsewhere(state, money)
        else:
            state.sums.apply(money)

    def _elsewhere(self, state: _Chain, money: Money) -> None:
        """A shared window decided it: its order is known when all chains were read."""
        self._has_shared = True
        # Where the shared window is missing at a start, the process counts alone, and goes on from its own ledger.
        state.sums.take_over(money)
        self._shared.add(Spooled(money, state.number, state.policy))

    # -- the end -------------------------------------------------------------------------------------

    def learned(self) -> Learned | None:
        """What a second pass over the same entries should know from the beginning; None: it would find the same."""
        if not self._is_first_pass:
            return None
        if self._initial or any(chain.sums.late for chain in self._chains.values()):
            return Learned(tuple(self._policies), self._initial)
        return None

    def close(self) -> None:
        """Let go of what was put aside on the disk."""
        self._shared.close()

    def finish(self) -> AuditReport:
        """Everything that was found."""
        if self._has_shared:
            self._shared.judge(self._findings, self._checked, self._names, [*self._policies, (b"", Policy(()))])
        self.close()
        self._consents.finish()
        findings, checked, recorded = self._findings, self._checked, self._checked.recorded
        doubts = findings.of(Kind.DOUBT)
        found = findings.of(*(kind for kind in Kind if kind is not Kind.DOUBT))
        alone = [chain.name for chain in self._chains.values() if chain.counts_alone]
        return AuditReport(
            chains=[
                ChainSpan(
                    chain=chain.name,
                    first=chain.first,
                    entries=chain.entries,
                    from_at=chain.from_at,
                    to_at=chain.recorded_at,
                    sealed=chain.sealed,
                )
                for chain in self._chains.values()
            ],
            decisions=self._decisions,
            admitted=checked.admitted,
            windows=len(checked.windows),
            recorded=recorded.count,
            recorded_micros=recorded.micros,
            recorded_over=recorded.over,
            consents=self._consents.decisions,
            not_covered={
                what: count
                for what, count in {
                    "spends before the first policy of the range": checked.policy_unknown,
                    "ends of reservations made before the range": checked.holds_unknown,
                    "decisions about persons before the first policy of the range": self._consents.policy_unknown,
                    "decisions that rest on consent given before or outside of the range": self._consents.not_covered,
                }.items()
                if count
            },
            counted_apart=alone if len(alone) > 1 else [],
            findings=list(found),
            doubts=list(doubts),
            finding_count=sum(findings.counts.values()) - findings.counts[Kind.DOUBT],
            doubt_count=findings.counts[Kind.DOUBT],
        )


OnEntry = Callable[[str, int, bytes], None]
Result = TypeVar("Result")


def audit(read: Callable[[OnEntry], Result]) -> tuple[Result, AuditReport]:
    """What `read` answers, and what the replay found in the entries that it handed to its argument.

    `read` gives every entry in order, chain after chain. It is called a second time, where the first pass learned of a budget
    that has to be counted from before its policy came into force.
    """
    result, check = _pass(read, None)
    learned = check.learned()
    if learned is not None:
        check.close()
        result, check = _pass(read, learned)
    return result, check.finish()


def _pass(read: Callable[[OnEntry], Result], learned: Learned | None) -> tuple[Result, AuditCheck]:
    check = AuditCheck(learned)
    try:
        return read(check.entry), check
    except BaseException:
        check.close()
        raise
