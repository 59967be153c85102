"""From calls to durable decisions: decide, write down, answer. The one way through the shield.

All calls of all threads and coroutines pass here in batches, one batch at a time:

1. persons become references, and keys are looked up: a known key gets its first answer again;
2. the window takes what is left, in one step for the whole batch;
3. each answer becomes a fact, and all facts become durable in one commit;
4. only then is anybody answered.

Whatever fails after step 2 stays counted: what cannot be known to have failed counts as spent.
"""

from __future__ import annotations

import heapq
import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import msgspec

from kiki import __version__
from kiki.clock import SECOND, Clock
from kiki.errors import (
    HoldClosed,
    HoldUnknown,
    InvalidInput,
    KeyReused,
    KikiError,
    LedgerCorrupt,
    Unavailable,
    WindowUnavailable,
)
from kiki.ledger.group_commit import GroupCommit, Ticket
from kiki.ledger.key_index import KeyIndex, key_write
from kiki.ledger.ledger import Append, Ledger, Writes
from kiki.ledger.store import Reader, Write
from kiki.ledger.subjects import Subjects
from kiki.money import format_micros
from kiki.shield.budget import Reason, Refusal, judge_ltv
from kiki.shield.call import Call, Switch
from kiki.shield.decision import Decision
from kiki.shield.fact import EXPIRE, Decided, Fact, Halted, Opened, PolicyUsed, Refused, Settled, decode_fact
from kiki.shield.policy import Policy
from kiki.shield.replay import Restorable, replay
from kiki.shield.scope import PERSONAL_KINDS, Scopes, kind_of
from kiki.shield.window import Answer, Ask, OpenHold, Verb, Window

DAY = 24 * 3600 * SECOND

HOLDS = "hold"
"""Open holds of this chain, so that one made long ago is found without reading the whole ledger."""
HALTS = "halt"
"""The scope patterns halted by this chain."""
EPOCH = "epoch"
"""The life of the shared window that this chain met last, and the highest sequence it saw there."""
POLICY = "policy"
"""The policy last used, to see whether it changed."""

_SETTLED = b"settled"
_TRIM_EVERY = 1000
_PERSONAL_PREFIXES = tuple(f"{kind}:" for kind in PERSONAL_KINDS)

Work = Call | Switch
DecisionTicket = Ticket[Work, Decision]
Answered = Decided | Settled | Halted
Written = tuple[DecisionTicket, Answered]


class MetEpoch(NamedTuple):
    """The life of a shared window that a chain met last, and the highest sequence and latest moment it saw there."""

    epoch: str
    sequence: int
    at: int


class _Pending(msgspec.Struct):
    """A call of the batch on its way through the steps."""

    ticket: Ticket[Any, Any]
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
        self.ledger = ledger
        self.subjects = subjects
        self.window = window
        self.policy = policy
        self.clock = clock
        self.ltv_min = ltv_min
        self.ltv_max = ltv_max
        self.group: GroupCommit[Work, Decision] = GroupCommit(self._work_off)
        self._looking = threading.Lock()
        """Held while the window is used, so that a look at it need not wait for a commit."""
        self._index = KeyIndex(ledger.store, retention=key_retention(self.policy), capacity=keys_max, now=clock())
        self.met = known_epoch(ledger.store)
        self._holds: dict[str, OpenHold] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._trim_at = 0
        self._open()

    # -- starting and reloading ----------------------------------------------------------------------

    def _open(self) -> None:
        store = self.ledger.store
        for key, value in store.scan(HOLDS):
            seq = int.from_bytes(value, "big")
            fact = self._fact(seq)
            if isinstance(fact, Decided):
                self._remember_hold(OpenHold(key.hex(), fact.amounts[0], _scopes(fact, 0), fact.deadline, fact.at))
        self._restore()
        # In the life of a shared window that we know, whoever turned a halt off meanwhile did it there.
        if self.window.restorable or self.met is None or self.window.epoch != self.met.epoch:
            for pattern, _ in store.scan(HALTS):
                with suppress(WindowUnavailable):
                    self.window.halt(pattern.decode(), on=True)
        at, epoch = self.clock(), self.window.epoch
        self._release_orphans()
        self.ledger.append_all([(Opened(at, __version__, self.window.kind, epoch), None), *self._policy_fact(at, "")])

    def _release_orphans(self) -> None:
        """Give back what a shared window holds for calls that died between its answer and our commit."""
        with suppress(WindowUnavailable):
            orphans = [hold for hold in self.window.own_holds() if hold.id not in self._holds]
            self.window.take([Ask(Verb.RELEASE, [0], hold=hold.id) for hold in orphans])

    def _restore(self) -> None:
        if self.window.restorable:
            window = cast("Restorable", self.window)
            replay(self.ledger.store, window, self._holds.values(), since=self.clock() - self.policy.span_max)

    def _policy_fact(self, at: int, actor: str) -> list[Append]:
        dump = self.policy.dump()
        if self.ledger.store.get(POLICY, b"") == dump:
            return []
        return [(PolicyUsed(at, dump, actor), lambda _: [Write(POLICY, b"", dump)])]

    def use(self, policy: Policy, actor: str = "") -> None:
        """Decide by another policy from now on; what was spent before is counted under it from the ledger."""

        def swap() -> None:
            with self._looking:
                self.window.use(policy)
                self.policy = policy
                self._index.retention = key_retention(self.policy)
                self._restore()
            self.ledger.append_all(self._policy_fact(self.clock(), actor))

        self.group.exclusively(swap)

    def open_holds(self) -> list[OpenHold]:
        """The open holds of this chain, as its ledger knows them."""
        return list(self._holds.values())

    @property
    def key_count(self) -> int:
        """How many idempotency keys and hold ids are remembered."""
        return self._index.count

    @property
    def hold_count(self) -> int:
        """How many holds of this chain are open."""
        return len(self._holds)

    # -- looking -------------------------------------------------------------------------------------

    def look(self, call: Call) -> Decision:
        """Answer a check without writing it down."""
        fact_scopes, persons = self._referenced(call.scopes, make=False)
        refusal = self._judge(call)
        if refusal is not None:
            at, refusals = self.clock(), {0: refusal}
        else:
            with self._looking:
                (answer,) = self.window.take([Ask(call.verb, call.amounts, fact_scopes, persons=persons)])
            if answer.error is not None:
                raise answer.error
            at, refusals = answer.at, answer.refusals
        return Decision(-1, _decided(call, fact_scopes, Answer(at, refusals=refusals), b""))

    def looking(self) -> threading.Lock:
        """The lock under which the window may be read."""
        return self._looking

    # -- deciding ------------------------------------------------------------------------------------

    def _work_off(self, batch: list[DecisionTicket]) -> None:
        if self.ledger.failure is not None:
            raise self.ledger.failure
        now = self.clock()
        self._index.advance(now)
        self._write_down_expired(now)
        pending: list[_Pending] = []
        twins: list[tuple[DecisionTicket, Call, bytes]] = []
        switches: list[tuple[DecisionTicket, Switch]] = []
        keys: set[bytes] = set()
        for ticket in batch:
            work = ticket.item
            if isinstance(work, Switch):
                switches.append((ticket, work))
                continue
            try:
                key = self.subjects.keyed_hash(work.key) if work.key else b""
                if key and key in keys:
                    twins.append((ticket, work, key))
                    continue
                prepared = self._prepare(ticket, work, key)
            except KikiError as error:
                ticket.fail(error)
                continue
            if prepared is not None:
                pending.append(prepared)
                if key:
                    keys.add(key)
        written = self._decide(pending, now)
        if switches:
            written += self._switch(switches, now)
        if written:
            facts: list[Append] = [(fact, self._writes(fact)) for _, fact in written]
            if not self.window.restorable:
                facts[-1] = self._with_epoch(facts, facts[-1])
            first = self.ledger.append_all(facts)
            for offset, (ticket, fact) in enumerate(written):
                ticket.resolve(Decision(first + offset, fact))
        for ticket, call, key in twins:
            self._answer_twin(ticket, call, key)
        self._trim_at -= 1
        if self._trim_at <= 0:
            # A little of what is forgotten leaves at a time; while there is more, with every batch.
            self._trim_at = 1 if self._index.trim() else _TRIM_EVERY

    def _prepare(self, ticket: DecisionTicket, call: Call, key: bytes) -> _Pending | None:
        """Step 1. None when the call is answered already."""
        scopes, persons = self._referenced(call.scopes, make=True)
        ask = Ask(call.verb, call.amounts, scopes, hold=call.hold, hold_span=call.hold_span, persons=persons)
        if key:
            seq = self._index.find(key)
            if seq is not None:
                ticket.resolve(self._first_answer(seq, call, ask))
                return None
            self._index.require_room()
            secret = self.window.shared_secret
            if secret is not None:
                ask.key = blake2b(call.key.encode(), key=secret, digest_size=16).digest()
                ask.fingerprint = _fingerprint(call, secret)
        if call.verb is Verb.RESERVE:
            self._index.require_room()
        return _Pending(ticket, ask, key, self._judge(call))

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

    def _decide(self, pending: list[_Pending], now: int) -> list[Written]:
        """Steps 2 and 3."""
        asked = [each for each in pending if each.refusal is None]
        answers: list[Answer] = []
        unavailable: KikiError | None = None
        if asked:
            try:
                # References are durable before the first entry that could use them.
                self.subjects.flush()
                with self._looking:
                    answers = self.window.take([each.ask for each in asked])
            except Unavailable as error:
                unavailable = error
        given = iter(answers)
        written: list[Written] = []
        for each in pending:
            call = each.ticket.item
            if each.refusal is not None:
                answer = Answer(now, refusals=dict.fromkeys(range(len(call.amounts)), each.refusal))
            elif unavailable is not None:
                each.ticket.fail(unavailable)
                continue
            else:
                answer = next(given)
            try:
                fact = self._fact_of(each, call, answer)
            except KikiError as error:
                each.ticket.fail(error)
                continue
            if isinstance(fact, Decision):
                each.ticket.resolve(fact)
            else:
                written.append((each.ticket, fact))
        return written

    def _fact_of(self, each: _Pending, call: Call, answer: Answer) -> Answered | Decision:
        if answer.error is None and call.hold == "":
            return _decided(call, each.ask.scopes, answer, each.key)
        if call.verb in (Verb.COMMIT, Verb.RELEASE):
            if isinstance(answer.error, HoldUnknown):
                return self._settle_again(call, answer)
            if answer.error is not None:
                raise answer.error
            hold = self._holds.get(call.hold)
            return Settled(
                verb=call.verb,
                at=answer.at,
                epoch=answer.epoch,
                sequence=answer.sequence,
                hold=call.hold,
                charged=answer.charged,
                reserved=answer.reserved,
                scopes=[list(hold.scopes)] if hold else [],
                late=answer.late,
                actual=call.amounts[0],
                actor=call.actor,
            )
        if answer.error is not None:
            raise answer.error
        return _decided(call, each.ask.scopes, answer, each.key)

    def _settle_again(self, call: Call, answer: Answer) -> Answered | Decision:
        """A commit or release of a hold that is no longer open: a repeat, a late one, or a mistake."""
        seq = self._index.find(_settled_key(call.hold))
        if seq is not None:
            fact = self._fact(seq)
            if isinstance(fact, Settled) and fact.verb == call.verb and fact.actual == call.amounts[0]:
                return Decision(seq, fact, repeated=True)
            if isinstance(fact, Settled) and fact.verb != EXPIRE:
                done = "released" if fact.verb == Verb.RELEASE else f"committed with {format_micros(fact.actual)}"
                raise HoldClosed(f"reservation {call.hold} was already {done}")
        made = self._index.find(bytes.fromhex(call.hold))
        reserved = self._fact(made) if made is not None else None
        if not isinstance(reserved, Decided) or reserved.deadline is None or reserved.refused:
            raise HoldUnknown(f"no open reservation has the id {call.hold}")
        if call.amounts[0] > reserved.amounts[0]:
            raise InvalidInput(
                f"{format_micros(call.amounts[0])} is more than the {format_micros(reserved.amounts[0])} that was "
                "reserved, and all of that was spent at the deadline: record what went beyond it"
            )
        return Settled(
            verb=call.verb,
            at=answer.at or self.clock(),
            epoch=answer.epoch,
            sequence=answer.sequence,
            hold=call.hold,
            charged=0,
            reserved=reserved.amounts[0],
            scopes=list(reserved.scopes),
            late=True,
            actual=call.amounts[0],
            actor=call.actor,
        )

    def _writes(self, fact: Answered) -> Writes | None:
        """The projections of a fact, and what is remembered of it in memory."""
        if isinstance(fact, Decided):
            key_space = self._index.remember(fact.key) if fact.key else ""
            if fact.verb == Verb.RESERVE and not fact.refused:
                self._remember_hold(OpenHold(fact.hold, fact.amounts[0], _scopes(fact, 0), fact.deadline, fact.at))
                hold = bytes.fromhex(fact.hold)
                hold_space = self._index.remember(hold)
                return lambda seq: [
                    *([key_write(key_space, fact.key, seq)] if key_space else []),
                    key_write(hold_space, hold, seq),
                    Write(HOLDS, hold, seq.to_bytes(8, "big")),
                ]
            if key_space:
                return lambda seq: [key_write(key_space, fact.key, seq)]
            return None
        if isinstance(fact, Settled):
            self._holds.pop(fact.hold, None)
            settled = _settled_key(fact.hold)
            space = self._index.remember(settled)
            return lambda seq: [Write(HOLDS, bytes.fromhex(fact.hold), None), key_write(space, settled, seq)]
        pattern = fact.pattern.encode()
        return lambda _: [Write(HALTS, pattern, b"1" if fact.on else None)]

    def _with_epoch(self, facts: list[Append], last: Append) -> Append:
        """The last fact of a batch also writes down which life of the shared window we know, and how far."""
        met = self.met or MetEpoch("", 0, 0)
        for fact, _ in facts:
            if isinstance(fact, Decided | Settled) and fact.epoch:
                same = fact.epoch == met.epoch
                met = MetEpoch(
                    fact.epoch,
                    max(met.sequence, fact.sequence) if same else fact.sequence,
                    max(met.at, fact.at) if same else fact.at,
                )
        self.met = met
        fact, writes = last
        value = msgspec.msgpack.encode(self.met)
        return fact, lambda seq: [*(writes(seq) if writes else ()), Write(EPOCH, b"", value)]

    def _remember_hold(self, hold: OpenHold) -> None:
        self._holds[hold.id] = hold
        if hold.deadline is not None:
            heapq.heappush(self._deadlines, (hold.deadline, hold.id))

    def _write_down_expired(self, now: int) -> None:
        """The window charges an expired hold by itself; the ledger says so before the next decision."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, hold_id = heapq.heappop(self._deadlines)
            hold = self._holds.get(hold_id)
            if hold is None or not self.window.restorable:
                continue
            fact = Settled(
                verb=EXPIRE,
                at=deadline,
                epoch="",
                sequence=0,
                hold=hold_id,
                charged=hold.amount,
                reserved=hold.amount,
                scopes=[list(hold.scopes)],
            )
            self.ledger.append_all([(fact, self._writes(fact))])

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

    # -- first answers -------------------------------------------------------------------------------

    def _fact(self, seq: int) -> Fact:
        for entry in self.ledger.read(seq, seq):
            return decode_fact(entry)
        raise LedgerCorrupt(f"a projection names entry {seq}, which the ledger does not have")

    def _first_answer(self, seq: int, call: Call, ask: Ask) -> Decision:
        fact = self._fact(seq)
        same = (
            isinstance(fact, Decided)
            and fact.verb == call.verb
            and fact.amounts == call.amounts
            and fact.ltv == call.ltv
            and [tuple(scopes) for scopes in fact.scopes] == list(ask.scopes)
            and (fact.deadline is None) == (call.hold_span is None)
        )
        if not same or not isinstance(fact, Decided):
            raise KeyReused(
                "this idempotency key was already used for a different request",
                hint="send the first request again unchanged, or use a new key",
            )
        return Decision(seq, fact, repeated=True)

    def _answer_twin(self, ticket: DecisionTicket, call: Call, key: bytes) -> None:
        """The same key came twice in one batch: the second gets what the first got."""
        try:
            seq = self._index.find(key)
            if seq is None:
                raise self.ledger.failure or Unavailable("the first call with this key was not decided; send it again")
            scopes, _ = self._referenced(call.scopes, make=True)
            ticket.resolve(self._first_answer(seq, call, Ask(call.verb, call.amounts, scopes)))
        except KikiError as error:
            ticket.fail(error)

    def tick(self) -> None:
        """What must not wait for the next call: write down expired holds, and recover the ledger if it can be."""
        failure = self.ledger.failure
        if failure is not None:
            if failure.recoverable:
                self.ledger.recover()
            return

        if self._deadlines and self._deadlines[0][0] <= self.clock():
            self.group.exclusively(lambda: self._write_down_expired(self.clock()))

    def close(self) -> None:
        """Finish what waits, then let go of window, ledger and directory."""
        self.group.drain()
        self.window.close()
        self.ledger.close()
        self.subjects.close()


def known_epoch(reader: Reader) -> MetEpoch | None:
    """What this chain knows of the shared window; None: it never met one."""
    value = reader.get(EPOCH, b"")
    return None if value is None else msgspec.msgpack.decode(value, type=MetEpoch)


def key_retention(policy: Policy) -> int:
    """How long an idempotency key is remembered at least: the longest window, and never less than a day."""
    return max(DAY, policy.span_max)


def new_hold_id() -> str:
    """A fresh id for a hold: 32 hexadecimal digits, not guessable."""
    return secrets.token_hex(16)


def _settled_key(hold: str) -> bytes:
    return blake2b(bytes.fromhex(hold), key=_SETTLED, digest_size=16).digest()


def _fingerprint(call: Call, secret: bytes) -> bytes:
    parts = [call.verb, call.amounts, call.scopes, call.hold_span, call.ltv]
    return blake2b(msgspec.msgpack.encode(parts), key=secret, digest_size=16).digest()


def _scopes(fact: Decided, index: int) -> Scopes:
    return tuple(fact.scopes[index if len(fact.scopes) > 1 else 0])


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
