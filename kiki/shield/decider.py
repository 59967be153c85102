"""From calls to durable decisions: decide, write down, answer. The one way through the shield.

All calls of all threads and coroutines pass here in batches, one batch at a time:

1. persons become references, and keys are looked up: a known key gets its first answer again;
2. the window takes what is left, in one step for the whole batch;
3. each answer becomes a fact, and all facts become durable in one commit;
4. only then is anybody answered.

Whatever fails after step 2 stays counted: what cannot be known to have failed counts as spent.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any, cast

import msgspec

from kiki import __version__
from kiki.clock import SECOND, Clock
from kiki.errors import (
    CommitExceedsHold,
    HoldClosed,
    HoldUnknown,
    KeyReused,
    KikiError,
    LedgerUnavailable,
    PolicyError,
    Unavailable,
    WindowUnavailable,
)
from kiki.ledger.group_commit import GroupCommit, Ticket
from kiki.ledger.ledger import Append, Ledger
from kiki.ledger.subjects import Subjects
from kiki.money import format_micros
from kiki.shield.budget import Reason, Refusal, judge_ltv
from kiki.shield.call import Call, Switch
from kiki.shield.decision import Decision
from kiki.shield.fact import EXPIRE, Decided, Halted, Opened, PolicyUsed, Refused, Settled
from kiki.shield.policy import Policy
from kiki.shield.projections import Projections
from kiki.shield.replay import Restorable, reach, replay
from kiki.shield.scope import PERSONAL_KINDS, Scopes, kind_of
from kiki.shield.window import Answer, Ask, OpenHold, Verb, Window

DAY = 24 * 3600 * SECOND

_PERSONAL_PREFIXES = tuple(f"{kind}:" for kind in PERSONAL_KINDS)
_SETTLING = (Verb.COMMIT, Verb.RELEASE)

Work = Call | Switch
DecisionTicket = Ticket[Work, Decision]
Answered = Decided | Settled | Halted
Written = tuple[DecisionTicket, Answered]


class _Pending(msgspec.Struct):
    """A call of the batch on its way through the steps."""

    ticket: Ticket[Any, Any]
    call: Call
    ask: Ask
    key: bytes
    refusal: Refusal | None = None
    """Refused before the window was asked."""


class Decider:
    """Owns a window and the right to write decisions into a ledger. Thread-safe through `group`."""

    def __init__(
        self,
        ledger: Ledger,
        subjects: Subjects,
        window: Window,
        policy: Policy,
        clock: Clock,
        *,
        ltv_min: int,
        ltv_max: int,
        keys_max: int,
    ) -> None:
        _require_nobody(policy)
        self.ledger = ledger
        self.subjects = subjects
        self.window = window
        self.policy = policy
        self.clock = clock
        self.ltv_min = ltv_min
        self.ltv_max = ltv_max
        self.keys_max = keys_max
        self.group: GroupCommit[Work, Decision] = GroupCommit(self._work_off)
        self._looking = threading.Lock()
        """Held while the window is used, so that a look at it need not wait for a commit."""
        self._trim_in = 0
        self._recover_at = 0
        self.kept = self._projections()
        self._open()

    # -- starting, reloading, recovering -------------------------------------------------------------

    def _projections(self) -> Projections:
        return Projections(
            self.ledger.store, retention=key_retention(self.policy), keys_max=self.keys_max, now=self.clock()
        )

    def _open(self) -> None:
        if self.window.restorable:
            self.window = self._restored(self.policy)
        else:
            self._release_orphans()
            # In the life of a shared window that we know, whoever turned a halt off meanwhile did it there.
            if self.kept.met is None or self.window.epoch != self.kept.met.epoch:
                for pattern in self.kept.halts():
                    with suppress(WindowUnavailable):
                        self.window.halt(pattern, on=True)
        at = self.clock()
        self.ledger.append_all(
            [
                self.kept.keep(Opened(at, __version__, self.window.kind, self.window.epoch)),
                *self._policy_fact(self.policy, at, ""),
            ]
        )

    def _release_orphans(self) -> None:
        """Give back what a shared window holds for calls that died between its answer and our commit."""
        with suppress(WindowUnavailable):
            orphans = [hold for hold in self.window.own_holds() if hold.id not in self.kept.holds]
            self.window.take([Ask(Verb.RELEASE, [0], hold=hold.id) for hold in orphans])

    def _restored(self, policy: Policy) -> Window:
        """A fresh window under the policy that counts what the ledger says."""
        fresh = cast("Restorable", self.window).renewed(policy)
        replay(self.ledger.store, fresh, self.kept.holds.values(), since=self.clock() - reach(policy))
        for pattern in self.kept.halts():
            fresh.halt(pattern, on=True)
        return fresh

    def _policy_fact(self, policy: Policy, at: int, actor: str) -> list[Append]:
        dump = policy.dump()
        return [] if self.kept.policy() == dump else [self.kept.keep(PolicyUsed(at, dump, actor))]

    def use(self, policy: Policy, actor: str = "") -> None:
        """Decide by another policy from now on; what was spent before is counted under it from the ledger.

        When it raises, nothing has changed.
        """
        _require_nobody(policy)

        def swap() -> None:
            window = self._restored(policy) if self.window.restorable else self.window
            if not window.restorable:
                with self._looking:
                    window.use(policy)
            self.ledger.append_all(self._policy_fact(policy, self.clock(), actor))
            with self._looking:
                self.window, self.policy = window, policy
            self.kept.index.retention = key_retention(policy)

        self.group.exclusively(swap)

    def tick(self) -> None:
        """What must not wait for the next call: write down expired holds, and recover the ledger if it can be."""
        if self.ledger.failure is not None:
            if self.ledger.failure.recoverable:
                self.group.exclusively(self._recover)
            return
        deadline = self.kept.next_deadline()
        if deadline is not None and deadline <= self.clock():
            self.group.exclusively(lambda: self.ledger.append_all(self._expired(self.clock())))

    def _require_ledger(self, now: int) -> None:
        """Raise the ledger's failure, after trying now and then whether it is over."""
        failure = self.ledger.failure
        if failure is None:
            return
        if not failure.recoverable or now < self._recover_at:
            raise failure.with_traceback(None)
        self._recover_at = now + SECOND
        self._recover()

    def _recover(self) -> None:
        """Go on from what the disk has: what was never durable was never answered, and is not counted any more."""
        self.ledger.recover()
        try:
            self.kept = self._projections()
            if self.window.restorable:
                window = self._restored(self.policy)
                with self._looking:
                    self.window = window
        except BaseException as error:
            # The old window still has what was never durable, and lacks what was: it must not decide.
            failure = LedgerUnavailable(f"what is durable could not be read again: {error}")
            failure.recoverable = True
            self.ledger.failure = failure
            raise failure from error
        # A change of policy may have been durable although its commit raised: the last fact names the one in force.
        self.ledger.append_all(self._policy_fact(self.policy, self.clock(), ""))

    # -- looking -------------------------------------------------------------------------------------

    def open_holds(self) -> list[OpenHold]:
        """The open holds of this chain, as its ledger knows them."""
        return list(self.kept.holds.values())

    @property
    def key_count(self) -> int:
        """How many idempotency keys and hold ids are remembered."""
        return self.kept.index.count

    @property
    def hold_count(self) -> int:
        """How many holds of this chain are open."""
        return len(self.kept.holds)

    def look(self, call: Call) -> Decision:
        """Answer a check without writing it down."""
        scopes, persons = self._referenced(call.scopes, make=False)
        refusal = self._judge(call)
        if refusal is not None:
            answer = Answer(self.clock(), refusals={0: refusal})
        else:
            with self._looking:
                (answer,) = self.window.take([Ask(call.verb, call.amounts, scopes, persons=persons)])
            if answer.error is not None:
                raise answer.error
        return Decision(-1, _decided(call, scopes, answer, b""))

    def looking(self) -> threading.Lock:
        """The lock under which the window may be read."""
        return self._looking

    # -- deciding ------------------------------------------------------------------------------------

    def _work_off(self, batch: list[DecisionTicket]) -> None:
        # What belongs to the same key or hold as an earlier call of the batch waits until that one is durable.
        while batch:
            batch = self._work_once(batch)

    def _work_once(self, batch: list[DecisionTicket]) -> list[DecisionTicket]:
        now = self.clock()
        self._require_ledger(now)
        self.kept.index.advance(now)
        pending: list[_Pending] = []
        switches: list[tuple[DecisionTicket, Switch]] = []
        later: list[DecisionTicket] = []
        claimed: set[bytes] = set()
        for ticket in batch:
            work = ticket.item
            if isinstance(work, Switch):
                switches.append((ticket, work))
                continue
            try:
                key = self.subjects.keyed_hash(work.key) if work.key else b""
                claim = bytes.fromhex(work.hold) if work.verb in _SETTLING else key
                if claim:
                    if claim in claimed:
                        later.append(ticket)
                        continue
                    claimed.add(claim)
                prepared = self._prepare(ticket, work, key)
            except KikiError as error:
                ticket.fail(error)
                continue
            if prepared is not None:
                pending.append(prepared)
        # References are durable before the first entry that could use them.
        self.subjects.flush()
        written, latest = self._decide(pending, now)
        written += self._switch(switches, now)
        self._write_down(written, latest)
        self._trim()
        return later

    def _prepare(self, ticket: DecisionTicket, call: Call, key: bytes) -> _Pending | None:
        """Step 1. None when the call is answered already."""
        scopes, persons = self._referenced(call.scopes, make=True)
        ask = Ask(call.verb, call.amounts, scopes, hold=call.hold, hold_span=call.hold_span, persons=persons)
        if key:
            seq = self.kept.index.find(key)
            if seq is not None:
                ticket.resolve(self._first_answer(seq, call, ask))
                return None
        if key or call.verb is Verb.RESERVE:
            self.kept.index.require_room()
        return _Pending(ticket, call, ask, key, self._judge(call))

    def _referenced(self, given: tuple[Scopes, ...], *, make: bool) -> tuple[tuple[Scopes, ...], dict[str, str]]:
        persons: dict[str, str] = {}
        if given == ((),):
            return given, persons

        def reference(scope: str) -> str:
            if not scope.startswith(_PERSONAL_PREFIXES):
                return scope
            found = self.subjects.reference(scope) if make else self.subjects.find(scope)
            named = f"{kind_of(scope)}:{found or '?'}"
            persons[named] = scope
            return named

        return tuple(tuple(map(reference, scopes)) for scopes in given), persons

    def _judge(self, call: Call) -> Refusal | None:
        if call.invalid:
            return Refusal(Reason.INVALID_INPUT)
        if call.ltv is not None:
            return judge_ltv(call.ltv, self.ltv_min, self.ltv_max)
        return None

    def _decide(self, pending: list[_Pending], now: int) -> tuple[list[Written], int]:
        """Steps 2 and 3: what is to be written, and the latest moment that the window looked at."""
        asked = [each for each in pending if each.refusal is None]
        answers: list[Answer] = []
        unavailable: KikiError | None = None
        if asked:
            try:
                answers = self._take(asked)
            except Unavailable as error:
                unavailable = error
        given = iter(answers)
        written: list[Written] = []
        latest = now
        for each in pending:
            call = each.call
            if each.refusal is not None:
                answer = Answer(now, refusals=dict.fromkeys(range(len(call.amounts)), each.refusal))
            elif unavailable is not None:
                each.ticket.fail(unavailable)
                continue
            else:
                answer = next(given)
                latest = max(latest, answer.at)
            try:
                fact = self._fact_of(each, answer)
            except KikiError as error:
                each.ticket.fail(error)
                continue
            if isinstance(fact, Decision):
                each.ticket.resolve(fact)
            else:
                written.append((each.ticket, fact))
        return written, latest

    def _take(self, asked: list[_Pending]) -> list[Answer]:
        asks = [each.ask for each in asked]
        secret = self.window.shared_secret
        for retry in (True, False):
            if secret is not None:
                for each in asked:
                    if each.key:
                        each.ask.key = blake2b(each.call.key.encode(), key=secret, digest_size=16).digest()
                        each.ask.fingerprint = _fingerprint(each.call, secret)
            try:
                with self._looking:
                    return self.window.take(asks)
            except WindowUnavailable:
                # A new life of a shared window has a new secret: nothing was decided, so hash again.
                if not retry or secret is None or secret == self.window.shared_secret:
                    raise
                secret = self.window.shared_secret
        raise AssertionError("unreachable")

    def _fact_of(self, each: _Pending, answer: Answer) -> Answered | Decision:
        call = each.call
        if call.verb not in _SETTLING:
            if answer.error is not None:
                raise answer.error
            return _decided(call, each.ask.scopes, answer, each.key)
        if answer.repeated or isinstance(answer.error, HoldUnknown):
            settled = self._settled_before(call, answer)
            if settled is not None:
                return settled
        if answer.error is not None:
            raise answer.error
        hold = self.kept.holds.get(call.hold)
        return _settled(
            call,
            answer,
            scopes=[list(hold.scopes)] if hold else [],
            reserved=answer.reserved,
            charged=answer.charged,
            late=answer.late,
        )

    def _settled_before(self, call: Call, answer: Answer) -> Answered | Decision | None:
        """For a hold that is no longer open: the first answer, or what a late settlement comes to."""
        seq = self.kept.settlement_of(call.hold)
        if seq is not None:
            fact = self.kept.fact(seq)
            if isinstance(fact, Settled) and fact.verb != EXPIRE:
                if fact.verb == call.verb and fact.actual == call.amounts[0]:
                    return Decision(seq, fact, repeated=True)
                done = "released" if fact.verb == Verb.RELEASE else f"committed with {format_micros(fact.actual)}"
                raise HoldClosed(f"reservation {call.hold} was already {done}")
        made = self.kept.making_of(call.hold)
        reserved = self.kept.fact(made) if made is not None else None
        if answer.repeated or not isinstance(reserved, Decided) or reserved.deadline is None or reserved.refused:
            return None
        if call.amounts[0] > reserved.amounts[0]:
            raise CommitExceedsHold(
                f"{format_micros(call.amounts[0])} is more than the {format_micros(reserved.amounts[0])} that was "
                "reserved, all of which was spent at the deadline",
                hint="record what went beyond it",
            )
        answer.at = answer.at or self.clock()
        return _settled(call, answer, scopes=list(reserved.scopes), reserved=reserved.amounts[0], charged=0, late=True)

    def _switch(self, switches: list[tuple[DecisionTicket, Switch]], now: int) -> list[Written]:
        written: list[Written] = []
        for ticket, turn in switches:
            try:
                pattern = self._pattern(turn.pattern)
                with self._looking:
                    self.window.halt(pattern, on=turn.on, persons={pattern: turn.pattern})
            except KikiError as error:
                ticket.fail(error)
                continue
            written.append((ticket, Halted(now, pattern, turn.on, turn.actor, turn.note)))
        return written

    def _pattern(self, pattern: str) -> str:
        if not pattern.startswith(_PERSONAL_PREFIXES) or pattern.endswith(":*"):
            return pattern
        reference = self.subjects.reference(pattern)
        self.subjects.flush()
        return f"{kind_of(pattern)}:{reference}"

    # -- writing down --------------------------------------------------------------------------------

    def _write_down(self, written: list[Written], latest: int) -> None:
        """Steps 3 and 4: one commit, and then the answers. What ran out on the way stands before what came after it."""
        facts = self._expired(latest)
        expired = len(facts)
        facts += [self.kept.keep(fact) for _, fact in written]
        if not facts:
            return
        if not self.window.restorable:
            facts[-1] = self.kept.meet(facts, latest)
        try:
            first = self.ledger.append_all(facts) + expired
        except BaseException as error:
            if self.ledger.failure is None:
                # Not the disk: a fact that cannot be written. Window and projections have run ahead of the ledger.
                failure = LedgerUnavailable(f"a decision could not be written down: {error}")
                failure.recoverable = True
                self.ledger.failure = failure
            raise
        for offset, (ticket, fact) in enumerate(written):
            ticket.resolve(Decision(first + offset, fact))

    def _expired(self, now: int) -> list[Append]:
        """The window charges an expired hold by itself, at its deadline; the ledger says so before what came later."""
        if not self.window.restorable:
            return []
        return [
            self.kept.keep(
                Settled(
                    verb=EXPIRE,
                    at=deadline,
                    epoch="",
                    sequence=0,
                    hold=hold.id,
                    charged=hold.amount,
                    reserved=hold.amount,
                    scopes=[list(hold.scopes)],
                )
            )
            for deadline, hold in self.kept.expired(now)
        ]

    def _trim(self) -> None:
        self._trim_in -= 1
        if self._trim_in <= 0:
            # A little of what is forgotten leaves at a time; while there is more, with every batch.
            self._trim_in = 1 if self.kept.index.trim() else _TRIM_EVERY

    def _first_answer(self, seq: int, call: Call, ask: Ask) -> Decision:
        fact = self.kept.fact(seq)
        if (
            isinstance(fact, Decided)
            and fact.verb == call.verb
            and fact.amounts == call.amounts
            and fact.ltv == call.ltv
            and fact.hold_span == call.hold_span
            and [tuple(scopes) for scopes in fact.scopes] == list(ask.scopes)
        ):
            return Decision(seq, fact, repeated=True)
        raise KeyReused(
            "this idempotency key was already used for a different request",
            hint="send the first request again unchanged, or use a new key",
        )

    def close(self) -> None:
        """Finish what waits, then let go of window, ledger and directory."""
        self.group.drain()

        def shut() -> None:
            self.window.close()
            self.ledger.close()
            self.subjects.close()
            self.ledger.failure = LedgerUnavailable("this guard is closed")

        self.group.exclusively(shut)


_TRIM_EVERY = 1000


def key_retention(policy: Policy) -> int:
    """How long an idempotency key is remembered at least: the longest window, and never less than a day."""
    return max(DAY, policy.span_max)


def new_hold_id() -> str:
    """A fresh id for a hold: 32 hexadecimal digits, not guessable."""
    return secrets.token_hex(16)


def _require_nobody(policy: Policy) -> None:
    # A budget over one person would stand in the ledger in clear, and the person's reference would never match it.
    named = [
        budget.name for budget in policy.budgets if budget.pattern.kind in PERSONAL_KINDS and not budget.pattern.is_each
    ]
    if named:
        raise PolicyError(
            f"budget {name!r} names one person; write the scope as kind:* for each person on their own"
            for name in named
        )


def _fingerprint(call: Call, secret: bytes) -> bytes:
    parts = [call.verb, call.amounts, call.scopes, call.hold_span, call.ltv]
    return blake2b(msgspec.msgpack.encode(parts), key=secret, digest_size=16).digest()


def _settled(
    call: Call, answer: Answer, *, scopes: list[list[str]], reserved: int, charged: int, late: bool
) -> Settled:
    return Settled(
        verb=call.verb,
        at=answer.at,
        epoch=answer.epoch,
        sequence=answer.sequence,
        hold=call.hold,
        charged=charged,
        reserved=reserved,
        scopes=scopes,
        late=late,
        actual=call.amounts[0],
        actor=call.actor,
    )


def _decided(call: Call, scopes: Iterable[Scopes], answer: Answer, key: bytes) -> Decided:
    refusals = answer.refusals
    return Decided(
        verb=call.verb,
        at=answer.at,
        epoch=answer.epoch,
        sequence=answer.sequence,
        scopes=[list(each) for each in scopes],
        amounts=call.amounts,
        refused=[_refused(index, refusal) for index, refusal in refusals.items()] if refusals else [],
        key=key,
        hold=answer.hold,
        deadline=answer.deadline,
        ltv=call.ltv,
        actor=call.actor,
        repeated=answer.repeated,
        hold_span=call.hold_span,
    )


def _refused(index: int, refusal: Refusal) -> Refused:
    return Refused(
        index,
        refusal.reason,
        refusal.budget or "",
        refusal.scope or "",
        refusal.span,
        refusal.limit,
        refusal.remaining,
        refusal.retry_at,
    )
