"""From calls to durable decisions: decide, write down, answer. The one way through the shield.

All calls of all threads and coroutines pass here in batches, one batch at a time:

0. changes of consent and the like are made durable in a commit of their own, so that what follows sees them;
1. persons become references, keys are looked up (a known key gets its first answer again), consent is looked at;
2. the window takes what is left, in one step for the whole batch;
3. each answer becomes a fact, and all facts become durable in one commit;
4. only then is anybody answered.

Whatever fails after step 2 stays counted: what cannot be known to have failed counts as spent. Step 1 is `Admission`;
what a decision rests on, and that window and ledger go on together, are the `Books`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from kiki.clock import Clock
from kiki.errors import Conflict, KikiError, LedgerUnavailable, Unavailable
from kiki.ledger.entry import Sealed
from kiki.ledger.group_commit import GroupCommit, Ticket
from kiki.ledger.key_index import known_keys
from kiki.ledger.ledger import CHECKPOINT_SPAN, META, Ledger
from kiki.ledger.store import Reader
from kiki.ledger.subjects import Erasure, Person, Subjects
from kiki.shield.admission import Admission, Admitted
from kiki.shield.books import Books, UnderEpoch
from kiki.shield.call import Call, Switch
from kiki.shield.change import Change, Turn
from kiki.shield.decided_fact import decided_fact, merged
from kiki.shield.decision import Decision
from kiki.shield.fact import ConsentChanged, ConsentUsed, Decided, Halted, Settled
from kiki.shield.origin import Origin
from kiki.shield.persons import names_one, persons_of, referenced
from kiki.shield.policy import Policy
from kiki.shield.projections import settled_key
from kiki.shield.scope import kind_of
from kiki.shield.settlement import SETTLING, settlement
from kiki.shield.window import Answer, Ask, OpenHold, Verb, Window

Work = Call | Switch | Change
DecisionTicket = Ticket[Work, Any]
Answered = Decided | Settled | Halted

_COUNTED_AT_ONCE = (Verb.SPEND, Verb.RECORD)
_TRIM_EVERY = 1000


class Written(NamedTuple):
    """A fact that somebody waits for."""

    ticket: DecisionTicket
    fact: Answered
    sealed: Sequence[Sealed]


class Decider:
    """Owns its books and the right to write decisions into them. Thread-safe through `group`."""

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
        self.ledger = ledger
        self.subjects = subjects
        self.clock = clock
        self.all_chains: Callable[[], list[Reader]] = all_chains or (lambda: [ledger.store])
        """A reader of every chain that lies in the same store, our own among them."""
        self.group: GroupCommit[Work, Decision] = GroupCommit(self._work_off)
        self.books = Books(ledger, window, policy, clock, keys_max)
        self._admission = Admission(self.books, subjects, self.all_chains, ltv_min=ltv_min, ltv_max=ltv_max)
        self._trim_in = 0

    # -- between batches -----------------------------------------------------------------------------

    def use(self, policy: Policy, actor: str = "") -> None:
        """Decide by another policy from now on; what was spent before is counted under it from the ledger.

        When it raises, nothing has changed.
        """
        self.group.exclusively(lambda: self.books.use(policy, actor))

    def tick(self) -> None:
        """What must not wait for the next call: write down expired holds, and recover the ledger if it can be."""
        if self.ledger.failure is not None:
            if self.ledger.failure.recoverable:
                self.group.exclusively(self.books.recover)
            return
        if self.books.orphans_due:
            self.group.exclusively(self.books.release_orphans)
        deadline = self.books.kept.next_deadline()
        if deadline is not None and deadline <= self.clock():
            self.group.exclusively(lambda: self.books.append(self.books.expired(self.clock())))
        self.ledger.checkpoint(older_than=CHECKPOINT_SPAN)

    # -- looking -------------------------------------------------------------------------------------

    def reader_of(self, chain: str) -> Reader | None:
        """A reader of one chain by its id; None when it does not lie in the same store."""
        if chain == self.ledger.chain:
            return self.ledger.store
        return next((reader for reader in self.all_chains() if reader.get(META, b"chain") == chain.encode()), None)

    def open_holds(self) -> list[OpenHold]:
        """The open holds of this chain, as the ledgers know them: another replica may have settled some."""
        holds = list(self.books.kept.holds.values())
        if not self.ledger.store.is_shared:
            return holds
        ended = known_keys(self.all_chains(), [settled_key(hold.id) for hold in holds])
        return [hold for hold in holds if settled_key(hold.id) not in ended]

    @property
    def key_count(self) -> int:
        """How many idempotency keys and hold ids are remembered."""
        return self.books.kept.index.count

    @property
    def hold_count(self) -> int:
        """How many holds of this chain are open."""
        return len(self.books.kept.holds)

    def look(self, call: Call) -> Decision:
        """Answer a check without writing it down."""
        known = {name: person for name in persons_of([call]) if (person := self.subjects.find(name)) is not None}
        scopes, persons = referenced(call.scopes, known)
        now = self.clock()
        consents: list[ConsentUsed] = []
        refused = self._admission.refused(call, scopes, now, consents)
        if refused:
            answer = Answer(now, refusals=refused)
        else:
            with self.books.looking:
                (answer,) = self.books.window.take([Ask(call.verb, call.amounts, scopes, persons=persons)])
            if answer.error is not None:
                raise answer.error
        return Decision(-1, decided_fact(call, scopes, answer, b"", consents))

    # -- deciding ------------------------------------------------------------------------------------

    def _work_off(self, batch: list[DecisionTicket]) -> None:
        # What belongs to the same key or hold as an earlier call of the batch waits until that one is durable.
        while batch:
            batch = self._work_once(batch)

    def _work_once(self, batch: list[DecisionTicket]) -> list[DecisionTicket]:
        now = self.clock()
        self.books.require_writable(now)
        self.books.kept.index.advance(now)
        changes: list[tuple[DecisionTicket, Change]] = []
        switches: list[tuple[DecisionTicket, Switch]] = []
        callers: list[DecisionTicket] = []
        calls: list[Call] = []
        for ticket in batch:
            work = ticket.item
            if isinstance(work, Call):
                callers.append(ticket)
                calls.append(work)
            elif isinstance(work, Switch):
                switches.append((ticket, work))
            else:
                changes.append((ticket, work))
        if changes or switches or any(call.origin is not None for call in calls):
            # Renewed before anything is sealed with it: a key is destroyed by the time at which its use began.
            self.subjects.segment_key()
        if changes:
            self._change(changes, now)
        # References and keys are durable before the first entry that could use them.
        named = [*persons_of(calls), *(turn.pattern for _, turn in switches if names_one(turn))]
        persons = self.subjects.enrol(named) if named else {}
        # Read anew: a change or a new person may have waited for other replicas, longer than consent is held for.
        now = self.clock()
        admitted: list[tuple[DecisionTicket, Admitted]] = []
        later: list[DecisionTicket] = []
        self._admission.begin(calls)
        for ticket, call in zip(callers, calls, strict=True):
            try:
                found = self._admission.admit(call, persons, now)
            except KikiError as error:
                ticket.fail(error)
                continue
            if found is None:
                later.append(ticket)
            elif isinstance(found, Decision):
                ticket.resolve(found)
            else:
                admitted.append((ticket, found))
        written, latest, under_epoch = self._decide(admitted, now)
        written += self._switch(switches, now, persons)
        self._write_down(written, latest, under_epoch)
        self._trim()
        return later

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
                self.books.append(turn.appends)
            if dropped := turn.dropped:
                self.ledger.keep(dropped)
        for fact, _, _ in turn.appends:
            if isinstance(fact, ConsentChanged):
                self.books.consents.changed(fact.subject, fact.purpose)
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
            self.books.consents.forget(erasure.reference)
        return erasure

    # -- deciding ------------------------------------------------------------------------------------

    def _decide(
        self, admitted: list[tuple[DecisionTicket, Admitted]], now: int
    ) -> tuple[list[Written], int, UnderEpoch]:
        """Steps 2 and 3: what is to be written, the latest moment that the window looked at, and in which epoch.

        What was refused before the window was asked stands in any epoch.
        """
        asks = [each.ask for _, each in admitted if not (each.refused and each.is_refused)]
        answers: list[Answer] = []
        under_epoch: UnderEpoch = None
        unavailable: KikiError | None = None
        if asks:
            try:
                with self.books.looking:
                    # A shared window that is rebuilt from now on has not counted this: then it must not be written
                    # down. The epoch is read under the lock, because whoever only looks may rebuild it, too.
                    answers, under_epoch = self.books.window.take(asks), self.books.window.under_epoch
            except Unavailable as error:
                unavailable = error
        given = iter(answers)
        written: list[Written] = []
        latest = now
        for ticket, each in admitted:
            if each.refused and each.is_refused:
                answer = Answer(now, refusals=each.refused)
            elif unavailable is not None:
                ticket.fail(unavailable)
                continue
            else:
                answer = next(given)
                if each.refused:
                    answer = merged(answer, each.refused, len(each.call.amounts))
                latest = max(latest, answer.at)
            try:
                fact = self._fact_of(each, answer)
            except KikiError as error:
                ticket.fail(error)
                continue
            if isinstance(fact, Decision):
                ticket.resolve(fact)
            else:
                written.append(Written(ticket, fact, self._sealed(each.call.origin, each.persons)))
        return written, latest, under_epoch

    def _fact_of(self, each: Admitted, answer: Answer) -> Answered | Decision:
        call = each.call
        if call.verb in SETTLING:
            return settlement(call, answer, self.books.kept, self.clock)
        if answer.error is not None:
            raise answer.error
        if answer.repeated:
            self._require_counted(each, answer)
        return decided_fact(call, each.scopes, answer, each.key, each.consents)

    def _require_counted(self, each: Admitted, answer: Answer) -> None:
        """Raise `Conflict` for the first answer to a key that was taken in an epoch before, and never written down.

        The windows were counted anew from what the chains say, so it is in none of them.
        """
        window = self.books.window
        if window.under_epoch is None or answer.epoch == window.epoch:
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
                with self.books.looking:
                    self.books.window.halt(pattern, on=turn.on, persons={pattern: turn.pattern})
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

    def _sealed(self, origin: Origin | None, persons: Sequence[Person]) -> Sequence[Sealed]:
        """Where a call came from, readable as long as the person it is about is not erased."""
        if origin is None:
            return ()
        if len(persons) == 1:
            return (self.subjects.seal(persons[0], origin.text),)
        return (self.subjects.seal_for_segment(origin.text),)

    # -- writing down --------------------------------------------------------------------------------

    def _write_down(self, written: list[Written], latest: int, under_epoch: UnderEpoch) -> None:
        """Steps 3 and 4: one commit, and then the answers. What ran out on the way stands before what came after it."""
        books, kept = self.books, self.books.kept
        facts = books.expired(latest)
        expired = len(facts)
        facts += [kept.keep(fact, sealed) for _, fact, sealed in written]
        if not facts:
            return
        if not books.window.restorable:
            facts[-1] = kept.meet(facts, latest)
        first = books.append(facts, under_epoch) + expired
        for offset, (ticket, fact, _) in enumerate(written):
            ticket.resolve(Decision(first + offset, fact))

    def _trim(self) -> None:
        self._trim_in -= 1
        if self._trim_in <= 0:
            # A little of what is forgotten leaves at a time; while there is more, with every batch.
            self._trim_in = 1 if self.books.kept.index.trim() else _TRIM_EVERY

    def close(self) -> None:
        """Finish what waits, then let go of window, ledger and directory."""
        self.group.drain()

        def shut() -> None:
            self.books.window.close()
            with suppress(KikiError):
                self.ledger.checkpoint()
            self.ledger.close()
            self.subjects.close()
            self.ledger.failure = LedgerUnavailable("this guard is closed")

        self.group.exclusively(shut)


def new_hold_id() -> str:
    """A fresh id for a hold: 32 hexadecimal digits, not guessable."""
    return secrets.token_hex(16)
