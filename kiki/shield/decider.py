"""From calls to durable decisions: decide, write down, answer. The one way through the shield.

All calls of all threads and coroutines pass here in batches, one batch at a time:

0. changes of consent and the like are made durable in a commit of their own, so that what follows sees them;
1. persons become references, keys are looked up (a known key gets its first answer again), consent is looked at;
2. the window takes what is left, in one step for the whole batch;
3. each answer becomes a fact, and all facts become durable in one commit;
4. only then is anybody answered.

Whatever fails after step 2 stays counted: what cannot be known to have failed counts as spent.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import msgspec

from kiki import __version__
from kiki.clock import SECOND, Clock
from kiki.errors import (
    CommitExceedsHold,
    Conflict,
    HoldClosed,
    HoldUnknown,
    KikiError,
    LedgerUnavailable,
    Unavailable,
    WindowUnavailable,
)
from kiki.ledger.entry import Sealed
from kiki.ledger.group_commit import GroupCommit, Ticket
from kiki.ledger.key_index import known_keys
from kiki.ledger.ledger import CHECKPOINT_SPAN, META, Append, Ledger
from kiki.ledger.store import Reader
from kiki.ledger.subjects import Erasure, Person, Subjects
from kiki.money import format_micros
from kiki.shield.budget import Reason, Refusal, judge_ltv
from kiki.shield.call import Call, Switch
from kiki.shield.change import Change, Turn
from kiki.shield.consent import LEASE_HELD
from kiki.shield.consent_gate import missing_consents
from kiki.shield.consent_view import ConsentView
from kiki.shield.decided_fact import decided_fact, first_answer, merged, settled_fact, without
from kiki.shield.decision import Decision
from kiki.shield.fact import (
    EXPIRE,
    ConsentChanged,
    ConsentUsed,
    Decided,
    Halted,
    Opened,
    PolicyUsed,
    Settled,
)
from kiki.shield.origin import Origin
from kiki.shield.persons import PERSONAL_PREFIXES, names_one, persons_of, referenced, require_nobody
from kiki.shield.policy import Policy
from kiki.shield.projections import Projections, fact_at, settled_key
from kiki.shield.replay import Restorable, reach, replay
from kiki.shield.scope import Scopes, kind_of
from kiki.shield.window import Answer, Ask, OpenHold, Verb, Window

DAY = 24 * 3600 * SECOND


_SETTLING = (Verb.COMMIT, Verb.RELEASE)


_COUNTED_AT_ONCE = (Verb.SPEND, Verb.RECORD)


Work = Call | Switch | Change


DecisionTicket = Ticket[Work, Any]


Answered = Decided | Settled | Halted


UnderEpoch = tuple[str, int] | None
"""A shared window and the number of the epoch in which it answered; None where nobody numbers epochs."""


class Written(NamedTuple):
    """A fact that somebody waits for."""

    ticket: DecisionTicket
    fact: Answered
    sealed: Sequence[Sealed]


class _Pending(msgspec.Struct):
    """A call of the batch on its way through the steps."""

    ticket: Ticket[Any, Any]
    call: Call
    scopes: tuple[Scopes, ...]
    """With references in the place of persons."""
    ask: Ask
    key: bytes
    persons: Sequence[Person] = ()
    refused: dict[int, Refusal] = {}
    """Amounts refused before the window was asked."""
    consents: list[ConsentUsed] = []

    def is_refused(self) -> bool:
        """True when the window need not be asked at all."""
        return len(self.refused) == len(self.call.amounts)


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
        all_chains: Callable[[], list[Reader]] | None = None,
    ) -> None:
        require_nobody(policy)
        self.ledger = ledger
        self.subjects = subjects
        self.window = window
        self.policy = policy
        self.clock = clock
        self.ltv_min = ltv_min
        self.ltv_max = ltv_max
        self.keys_max = keys_max
        self.all_chains: Callable[[], list[Reader]] = all_chains or (lambda: [ledger.store])
        """A reader of every chain that lies in the same store, our own among them."""
        self.group: GroupCommit[Work, Decision] = GroupCommit(self._work_off)
        self._looking = threading.Lock()
        """Held while the window is used, so that a look at it need not wait for a commit."""
        self._coming_keys = 0
        self._trim_in = 0
        self._recover_at = 0
        self._orphans_due = False
        """A commit failed since the shared window was last looked through for what nobody can ask for again."""
        self.consents = ConsentView(ledger.store, LEASE_HELD if ledger.store.is_shared else None)
        self.kept = self._projections()
        self._open()

    # -- starting, reloading, recovering -------------------------------------------------------------

    def _projections(self) -> Projections:
        return Projections(
            self.ledger.store,
            self.ledger.chain,
            retention=key_retention(self.policy),
            keys_max=self.keys_max,
            now=self.clock(),
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
                self.kept.keep(Opened(at, __version__, self.window.kind, self.window.epoch, self.ledger.chain)),
                *self._policy_fact(self.policy, at, ""),
            ]
        )

    def _release_orphans(self) -> None:
        """Give back what a shared window holds for calls that died between its answer and our commit."""
        with suppress(WindowUnavailable), self._looking:
            orphans = [hold for hold in self.window.own_holds() if hold.id not in self.kept.holds]
            self.window.take([Ask(Verb.RELEASE, [0], hold=hold.id) for hold in orphans])
            self._orphans_due = False

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
        require_nobody(policy)

        def swap() -> None:
            window = self._restored(policy) if self.window.restorable else self.window
            if not window.restorable:
                with self._looking:
                    window.use(policy)
            try:
                self.ledger.append_all(self._policy_fact(policy, self.clock(), actor))
            except BaseException:
                if not window.restorable:
                    with self._looking:
                        window.use(self.policy)
                raise
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
        if self._orphans_due:
            self.group.exclusively(self._release_orphans)
        deadline = self.kept.next_deadline()
        if deadline is not None and deadline <= self.clock():
            self.group.exclusively(self._expire)
        self.ledger.checkpoint(older_than=CHECKPOINT_SPAN)

    def _expire(self) -> None:
        self._append(self._expired(self.clock()))

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
        # What was written when the commit raised may be durable after all.
        self.consents.clear()
        try:
            self.kept = self._projections()
            if self.window.restorable:
                window = self._restored(self.policy)
                with self._looking:
                    self.window = window
            else:
                # What was held for a call that was never answered goes back with the next tick that finds the window.
                self._orphans_due = True
        except BaseException as error:
            # The old window still has what was never durable, and lacks what was: it must not decide.
            failure = LedgerUnavailable(f"what is durable could not be read again: {error}")
            failure.recoverable = True
            self.ledger.failure = failure
            raise failure from error
        # A change of policy may have been durable although its commit raised: the last fact names the one in force.
        self.ledger.append_all(self._policy_fact(self.policy, self.clock(), ""))

    # -- looking -------------------------------------------------------------------------------------

    def reader_of(self, chain: str) -> Reader | None:
        """A reader of one chain by its id; None when it does not lie in the same store."""
        if chain == self.ledger.chain:
            return self.ledger.store
        return next((reader for reader in self.all_chains() if reader.get(META, b"chain") == chain.encode()), None)

    def open_holds(self) -> list[OpenHold]:
        """The open holds of this chain, as the ledgers know them: another replica may have settled some."""
        holds = list(self.kept.holds.values())
        if not self.ledger.store.is_shared:
            return holds
        ended = known_keys(self.all_chains(), [settled_key(hold.id) for hold in holds])
        return [hold for hold in holds if settled_key(hold.id) not in ended]

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
        known = {name: person for name in persons_of([call]) if (person := self.subjects.find(name)) is not None}
        scopes, persons = referenced(call.scopes, known)
        now = self.clock()
        consents: list[ConsentUsed] = []
        refused = self._judge(call) or self._missing(call, scopes, now, consents)
        if refused:
            answer = Answer(now, refusals=refused)
        else:
            with self._looking:
                (answer,) = self.window.take([Ask(call.verb, call.amounts, scopes, persons=persons)])
            if answer.error is not None:
                raise answer.error
        return Decision(-1, decided_fact(call, scopes, answer, b"", consents))

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
        changes: list[tuple[DecisionTicket, Change]] = []
        switches: list[tuple[DecisionTicket, Switch]] = []
        calls: list[tuple[DecisionTicket, Call]] = []
        for ticket in batch:
            work = ticket.item
            if isinstance(work, Call):
                calls.append((ticket, work))
            elif isinstance(work, Switch):
                switches.append((ticket, work))
            else:
                changes.append((ticket, work))
        if changes or switches or any(call.origin is not None for _, call in calls):
            # Renewed before anything is sealed with it: a key is destroyed by the time at which its use began.
            self.subjects.segment_key()
        if changes:
            self._change(changes, now)
        # References and keys are durable before the first entry that could use them.
        named = [*persons_of(call for _, call in calls), *(turn.pattern for _, turn in switches if names_one(turn))]
        persons = self.subjects.enrol(named) if named else {}
        # Read anew: a change or a new person may have waited for other replicas, longer than consent is held for.
        now = self.clock()
        pending: list[_Pending] = []
        later: list[DecisionTicket] = []
        claimed: set[bytes] = set()
        self._coming_keys = 0
        elsewhere = self._known_elsewhere(calls)
        for ticket, call in calls:
            try:
                key = self.subjects.keyed_hash(call.key) if call.key else b""
                claim = bytes.fromhex(call.hold) if call.verb in _SETTLING else key
                if claim:
                    if claim in claimed:
                        later.append(ticket)
                        continue
                    claimed.add(claim)
                if key in elsewhere:
                    reader, seq = elsewhere[key]
                    fact, chain = fact_at(reader, seq), (reader.get(META, b"chain") or b"").decode()
                    ticket.resolve(first_answer(fact, seq, call, referenced(call.scopes, persons)[0], chain))
                    continue
                prepared = self._prepare(ticket, call, key, persons, now)
            except KikiError as error:
                ticket.fail(error)
                continue
            if prepared is not None:
                pending.append(prepared)
        written, latest, under_epoch = self._decide(pending, now)
        written += self._switch(switches, now, persons)
        self._write_down(written, latest, under_epoch)
        self._trim()
        return later

    def _known_elsewhere(self, calls: list[tuple[DecisionTicket, Call]]) -> dict[bytes, tuple[Reader, int]]:
        """Keys that another replica answered, where the shared window may have forgotten them: it was lost before."""
        under = self.window.under_epoch
        if under is None or under[1] <= 1:
            return {}
        keys = [self.subjects.keyed_hash(call.key) for _, call in calls if call.key]
        return known_keys(self.all_chains(), [key for key in keys if self.kept.index.find(key) is None])

    # -- changes -------------------------------------------------------------------------------------

    def _change(self, changes: list[tuple[DecisionTicket, Change]], now: int) -> None:
        """Step 0. What a change adds is durable before anybody hears of it."""
        named = [person for _, change in changes for person in change.persons]
        persons = self.subjects.enrol(named) if named else {}
        done: list[tuple[DecisionTicket, Any]] = []
        with self.ledger.store.shared_turn():
            turn = Turn(now, self.ledger.next_seq, self.ledger.chain, self.ledger.store, self.subjects, persons)
            for ticket, change in changes:
                mark = turn.mark()
                try:
                    done.append((ticket, change.act(turn)))
                except Exception as error:
                    turn.undo(mark)
                    ticket.fail(error)
            if turn.appends:
                self._append(turn.appends)
            if dropped := turn.dropped:
                self.ledger.keep(dropped)
        for fact, _, _ in turn.appends:
            if isinstance(fact, ConsentChanged):
                self.consents.changed(fact.subject, fact.purpose)
        for ticket, result in done:
            ticket.resolve(result)

    def forget(self, person: str, permit: Callable[[], None] | None = None) -> Erasure:
        """Destroy the key of a person and read back that nothing of it is left; the ledger stays as it is.

        `permit` is asked while nobody else decides or changes anything; what it raises, nothing is destroyed for.
        """

        def act() -> Erasure:
            with self.ledger.store.shared_turn():
                if permit is not None:
                    permit()
                return self._forget(person)

        erasure = self.group.exclusively(act)
        found = self.subjects.read_back(erasure)
        if found.traces:
            # A page that was split may keep a stale copy; writing the files anew leaves none.
            self.group.exclusively(self.subjects.store.compact)
            found = self.subjects.read_back(erasure)
        if found.is_gone and not found.traces:
            self.group.exclusively(lambda: self.subjects.conclude(person))
        return found

    def _forget(self, person: str) -> Erasure:
        erasure = self.subjects.forget(person)
        if erasure.reference:
            self.consents.forget(erasure.reference)
        return erasure

    # -- deciding ------------------------------------------------------------------------------------

    def _prepare(
        self,
        ticket: DecisionTicket,
        call: Call,
        key: bytes,
        enrolled: Mapping[str, Person],
        now: int,
    ) -> _Pending | None:
        """Step 1. None when the call is answered already."""
        scopes, persons = referenced(call.scopes, enrolled)
        if key:
            seq = self.kept.index.find(key)
            if seq is not None:
                ticket.resolve(first_answer(self.kept.fact(seq), seq, call, scopes))
                return None
        if key or call.verb is Verb.RESERVE:
            more = bool(key) + (call.verb is Verb.RESERVE)
            # What the calls before it in this batch will have remembered counts too.
            self.kept.index.require_room(self._coming_keys + more)
            self._coming_keys += more
        ask = Ask(call.verb, call.amounts, scopes, hold=call.hold, hold_span=call.hold_span, persons=persons)
        each = _Pending(ticket, call, scopes, ask, key)
        each.refused = self._judge(call)
        if persons:
            each.persons = [enrolled[scope] for scope in persons.values()]
            each.refused = each.refused or self._missing(call, scopes, now, each.consents)
            if each.refused and not each.is_refused():
                each.ask = without(ask, each.refused)
        elif call.verb in _SETTLING and call.origin is not None:
            each.persons = self._held_for(call.hold)
        return each

    def _held_for(self, hold_id: str) -> list[Person]:
        """The persons that an open hold names: whoever settles it names only the hold."""
        hold = self.kept.holds.get(hold_id)
        named = [scope for scope in hold.scopes if scope.startswith(PERSONAL_PREFIXES)] if hold else []
        found = (self.subjects.person_of(scope.partition(":")[2]) for scope in named)
        return [person for person in found if person is not None]

    def _judge(self, call: Call) -> dict[int, Refusal]:
        refusal: Refusal | None = None
        if call.invalid:
            refusal = Refusal(Reason.INVALID_INPUT)
        elif call.ltv is not None:
            refusal = judge_ltv(call.ltv, self.ltv_min, self.ltv_max)
        return {} if refusal is None else dict.fromkeys(range(len(call.amounts)), refusal)

    def _missing(self, call: Call, scopes: tuple[Scopes, ...], now: int, used: list[ConsentUsed]) -> dict[int, Refusal]:
        return missing_consents(
            call, scopes, self.policy, lambda subject, purpose: self.consents.look(subject, purpose, now), used
        )

    def _decide(self, pending: list[_Pending], now: int) -> tuple[list[Written], int, UnderEpoch]:
        """Steps 2 and 3: what is to be written, the latest moment that the window looked at, and in which epoch.

        What was refused before the window was asked stands in any epoch.
        """
        asked = [each for each in pending if not (each.refused and each.is_refused())]
        answers: list[Answer] = []
        under_epoch: UnderEpoch = None
        unavailable: KikiError | None = None
        if asked:
            try:
                answers, under_epoch = self._take(asked)
            except Unavailable as error:
                unavailable = error
        given = iter(answers)
        written: list[Written] = []
        latest = now
        for each in pending:
            if each.refused and each.is_refused():
                answer = Answer(now, refusals=each.refused)
            elif unavailable is not None:
                each.ticket.fail(unavailable)
                continue
            else:
                answer = next(given)
                if each.refused:
                    answer = merged(answer, each.refused, len(each.call.amounts))
                latest = max(latest, answer.at)
            try:
                fact = self._fact_of(each, answer)
            except KikiError as error:
                each.ticket.fail(error)
                continue
            if isinstance(fact, Decision):
                each.ticket.resolve(fact)
            else:
                written.append(Written(each.ticket, fact, self._sealed(each.call.origin, each.persons)))
        return written, latest, under_epoch

    def _sealed(self, origin: Origin | None, persons: Sequence[Person]) -> Sequence[Sealed]:
        """Where a call came from, readable as long as the person it is about is not erased."""
        if origin is None:
            return ()
        if len(persons) == 1:
            return (self.subjects.seal(persons[0], origin.text),)
        return (self.subjects.seal_for_segment(origin.text),)

    def _take(self, asked: list[_Pending]) -> tuple[list[Answer], UnderEpoch]:
        asks = [each.ask for each in asked]
        secret = self.window.shared_secret
        for retry in (True, False):
            if secret is not None:
                for each in asked:
                    if each.key:
                        each.ask.key = blake2b(each.call.key.encode(), key=secret, digest_size=16).digest()
                        each.ask.fingerprint = _fingerprint(each.call, each.refused, secret)
            try:
                with self._looking:
                    # A shared window that is rebuilt from now on has not counted this: then it must not be written
                    # down. The epoch is read under the lock, because whoever only looks may rebuild it, too.
                    return self.window.take(asks), self.window.under_epoch
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
            self._require_counted(each, answer)
            return decided_fact(call, each.scopes, answer, each.key, each.consents)
        if answer.repeated or isinstance(answer.error, HoldUnknown):
            settled = self._settled_before(call, answer)
            if settled is not None:
                return settled
        if answer.error is not None:
            raise answer.error
        hold = self.kept.holds.get(call.hold)
        return settled_fact(
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
        return settled_fact(
            call, answer, scopes=list(reserved.scopes), reserved=reserved.amounts[0], charged=0, late=True
        )

    def _require_counted(self, each: _Pending, answer: Answer) -> None:
        """Raise `Conflict` for the first answer to a key that was taken in an epoch before, and never written down.

        The windows were counted anew from what the chains say, so it is in none of them.
        """
        if not answer.repeated or self.window.under_epoch is None or answer.epoch == self.window.epoch:
            return
        if each.call.verb in _COUNTED_AT_ONCE and not known_keys(self.all_chains(), [each.key]):
            raise Conflict(
                "what was decided under this idempotency key could not be written down, and nothing was spent",
                hint="send the request again with a new key",
            )

    def _switch(
        self, switches: list[tuple[DecisionTicket, Switch]], now: int, enrolled: Mapping[str, Person]
    ) -> list[Written]:
        written: list[Written] = []
        for ticket, turn in switches:
            person = enrolled.get(turn.pattern)
            pattern = turn.pattern if person is None else f"{kind_of(turn.pattern)}:{person.reference}"
            try:
                with self._looking:
                    self.window.halt(pattern, on=turn.on, persons={pattern: turn.pattern})
            except KikiError as error:
                ticket.fail(error)
                continue
            network = turn.origin.network if turn.origin else ""
            # What is said about a person goes with the person; a note on a campaign belongs to nobody.
            note = turn.note if person is None else ""
            sealed = [*self._sealed(turn.origin, () if person is None else (person,))]
            if person is not None and turn.note:
                sealed.append(self.subjects.seal(person, msgspec.msgpack.encode({"note": turn.note})))
            fact = Halted(now, pattern, turn.on, turn.actor, note, network)
            written.append(Written(ticket, fact, sealed))
        return written

    # -- writing down --------------------------------------------------------------------------------

    def _write_down(self, written: list[Written], latest: int, under_epoch: UnderEpoch) -> None:
        """Steps 3 and 4: one commit, and then the answers. What ran out on the way stands before what came after it."""
        facts = self._expired(latest)
        expired = len(facts)
        facts += [self.kept.keep(fact, sealed) for _, fact, sealed in written]
        if not facts:
            return
        if not self.window.restorable:
            facts[-1] = self.kept.meet(facts, latest)
        first = self._append(facts, under_epoch) + expired
        for offset, (ticket, fact, _) in enumerate(written):
            ticket.resolve(Decision(first + offset, fact))

    def _append(self, facts: Sequence[Append], under_epoch: UnderEpoch = None) -> int:
        """One commit; the sequence of its first fact. When it fails, nobody decides before the disk was read again."""
        try:
            return self.ledger.append_all(facts, under_epoch)
        except BaseException as error:
            if self.ledger.failure is None:
                # Not the disk: a fact that cannot be written. Window and projections have run ahead of the ledger.
                failure = LedgerUnavailable(f"a decision could not be written down: {error}")
                failure.recoverable = True
                self.ledger.failure = failure
            raise

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

    def close(self) -> None:
        """Finish what waits, then let go of window, ledger and directory."""
        self.group.drain()

        def shut() -> None:
            self.window.close()
            with suppress(KikiError):
                self.ledger.checkpoint()
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


def _fingerprint(call: Call, refused: Iterable[int], secret: bytes) -> bytes:
    parts = [call.verb, call.amounts, call.scopes, call.hold_span, call.ltv, call.purpose, list(refused)]
    return blake2b(msgspec.msgpack.encode(parts), key=secret, digest_size=16).digest()
