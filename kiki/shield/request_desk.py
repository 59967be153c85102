"""`RequestDesk`: data subject requests from receipt to proof, in a script or beside a guard."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Unpack

from kiki.clock import SECOND, to_iso
from kiki.errors import Conflict, InvalidInput, KikiError, LegallyHeld, NotFound
from kiki.shield.change import Turn
from kiki.shield.consent_change import moment_of, person_of
from kiki.shield.consent_store import ConsentStore
from kiki.shield.consent_words import parse_customer_id, parse_text
from kiki.shield.deadline import DAY, Regime, WorkCalendar, answer_due, extension_until, parse_regimes
from kiki.shield.decider import Decider
from kiki.shield.dsr import Kind, State, Step, parse_article, parse_kind, parse_state
from kiki.shield.erasing import begin_erasing, end_erasing, erasing
from kiki.shield.identity import IdentityChannel
from kiki.shield.identity_check import IdentityCheck
from kiki.shield.legal_hold import LegalHold
from kiki.shield.legal_holds import LegalHolds
from kiki.shield.own_data import AuditViewData, ConsentData, EvidenceData, KeyData, PackageData, WindowData
from kiki.shield.request_book import RequestBook, noted
from kiki.shield.request_change import Asked, Clocks, Created, RequestDetails, create_change
from kiki.shield.request_intake import REGIMES, Given, asked
from kiki.shield.request_package import discard_package, open_package, package_path
from kiki.shield.request_record import RequestRecord
from kiki.shield.request_run import RequestRun
from kiki.shield.subject_data import Progress, Registry, SubjectData, Task
from kiki.shield.subject_request import REQUEST, REQUEST_KEY, REQUEST_OPEN, SubjectRequest, open_key, read_request

PACKAGE_AGE: Final = 30 * DAY
"""How long a copy waits for the person to take it."""
RUN_LEASE: Final = 300_000_000
"""A run of another replica that has written nothing for five minutes is taken over."""


class RequestDesk:
    """Takes in requests of data subjects, keeps their clocks, and runs them over every system that knows the person.

    Thread-safe. A call that changes something returns once that is on disk. `systems` are yours; those of kiki are
    always gone through, too.
    """

    def __init__(
        self,
        decider: Decider,
        systems: Iterable[SubjectData] = (),
        *,
        consents: ConsentStore | None = None,
        channel: IdentityChannel | None = None,
        packages: Path | None = None,
        audit_view: Path | None = None,
        calendars: Mapping[Regime, WorkCalendar] | None = None,
        regimes: Iterable[Regime | str] = REGIMES,
        retention_days: int = 2555,
    ) -> None:
        """`packages` is where copies wait for the person, sealed; None: where they are forgotten with this desk.

        Raises `SystemsError` when the systems do not fit together.
        """
        self.decider = decider
        self.consents = consents or ConsentStore(decider)
        self.clocks = Clocks(calendars or MappingProxyType({}))
        self.regimes = parse_regimes(regimes)
        self.book = RequestBook(decider, self.clocks)
        self.holds = LegalHolds(self.book)
        self._identity = IdentityCheck(self.book, channel)
        # Made when there is something to put into it: most desks never need it.
        self._scratch = Path(tempfile.gettempdir()) / f"kiki-requests-{secrets.token_hex(8)}"
        self.packages = packages or self._scratch
        own: list[SubjectData] = [
            ConsentData(self.consents, retention_days),
            EvidenceData(decider, retention_days),
            PackageData(decider, self.packages),
        ]
        if audit_view is not None:
            own.append(AuditViewData(audit_view, decider.clock, retention_days))
        if not decider.books.window.restorable:
            own.append(WindowData(decider))
        self.registry = Registry([*systems, *own], KeyData(decider, self._permit))
        self._running: set[str] = set()
        self._lock = threading.Lock()
        self._end_erasures()

    # -- coming in -----------------------------------------------------------------------------------

    def create(self, customer: str, kind: Kind | str, **given: Unpack[Given]) -> RequestRecord:
        """Take in a request. While one of the same person and kind is open, that one is answered.

        An objection or opt-out is in force when this returns. Raises `InvalidInput`, or `KeyReused` for an
        idempotency key that made another request.
        """
        wanted = asked(customer, kind, given, self.decider.clock(), self.consents.purposes, self.regimes)
        known = self._known(wanted)
        if known is not None:
            return self.record(known)
        change = create_change(wanted, self.clocks, lambda: secrets.token_bytes(4), self.consents.purposes)
        created: Created = self.book.submit(change)
        since = self.consents.leases.now()
        for record in created.consents:
            self.consents.settled(record, since)
        return self.record(created.request, is_new=created.is_new)

    def _known(self, asked: Asked) -> SubjectRequest | None:
        """The request of this key, of somebody who is erased: looking for it must not make the person known again."""
        if not asked.key or self.decider.subjects.find(person_of(asked.customer)) is not None:
            return None
        store = self.decider.ledger.store
        number = store.get(REQUEST_KEY, self.decider.subjects.keyed_hash(asked.key))
        request = None if number is None else read_request(store.get(REQUEST, number))
        if request is None or request.kind is not asked.kind:
            return None  # the change decides
        return request if self.decider.subjects.person_of(request.subject) is None else None

    # -- looking -------------------------------------------------------------------------------------

    def get(self, request: str) -> RequestRecord:
        """One request as it stands; raises `NotFound`."""
        return self.record(self.book.find(request), opened=True)

    def list(
        self,
        *,
        state: State | str | None = None,
        kind: Kind | str | None = None,
        customer: str | None = None,
        due_before: datetime | int | None = None,
        is_open: bool | None = None,
    ) -> Sequence[RequestRecord]:
        """The requests that fit, those that are due first first; the closed ones after them, the latest first."""
        in_state = None if state is None else parse_state(state)
        of_kind = None if kind is None else parse_kind(kind)
        until = moment_of(due_before)
        subject = None
        if customer is not None:
            person = self.decider.subjects.find(person_of(parse_customer_id(customer)))
            if person is None:
                return []
            subject = person.reference
        found: list[RequestRecord] = []
        for request in self.book.all():
            if (
                (in_state is None or request.state is in_state)
                and (of_kind is None or request.kind is of_kind)
                and (subject is None or request.subject == subject)
                and (is_open is None or request.state.is_open is is_open)
            ):
                record = self.record(request)
                if until is None or (request.state.is_open and record.due_at is not None and record.due_at < until):
                    found.append(record)
        return sorted(found, key=_urgency)

    def record(self, request: SubjectRequest, *, is_new: bool = False, opened: bool = False) -> RequestRecord:
        """What a caller is told about a request; with `opened`, what was sealed, too."""
        found = self.clocks.of(request, self.decider.clock())
        person = self.book.person(request)
        return RequestRecord(
            request=request,
            customer=(person or "").removeprefix("customer:"),
            deadlines=found,
            due_at=answer_due(found),
            details=self.book.details(request) if opened or is_new else None,
            is_new=is_new,
        )

    # -- identity ------------------------------------------------------------------------------------

    def send_code(self, request: str, *, actor: str = "") -> RequestRecord:
        """Send a one-time code to the channel that the person was known by; the same answer when there is none.

        Raises `Conflict` when too many were sent, or no channel is configured here.
        """
        return self.record(self._identity.send_code(request, actor=actor))

    def verify_identity(
        self,
        request: str,
        *,
        method: str = "code",
        code: str = "",
        agent_proof: str = "",
        actor: str = "",
        note: str = "",
    ) -> RequestRecord:
        """Accept the proof of identity: the code that was sent, or the word of an operator who checked it.

        Whoever acts for the person must have shown that they may: then an operator names the proof. Raises
        `IdentityDenied` for a wrong code, which counts.
        """
        return self.record(
            self._identity.verify(request, method=method, code=code, agent_proof=agent_proof, actor=actor, note=note)
        )

    def pause(self, request: str, *, note: str = "", actor: str = "") -> RequestRecord:
        """The person was asked for proof of identity, and the clock of GDPR waits for it, if asked without delay."""
        return self.record(self.book.step(request, Step.PAUSED, note=noted(note), actor=actor))

    def resume(self, request: str, *, note: str = "", actor: str = "") -> RequestRecord:
        """The clock goes on: proof came, or none is waited for any more."""
        return self.record(self.book.step(request, Step.RESUMED, note=noted(note), actor=actor))

    # -- working on it -------------------------------------------------------------------------------

    def acknowledge(self, request: str, *, actor: str = "") -> RequestRecord:
        """The person was told that the request was received (CCPA: within 10 business days)."""
        return self.record(self.book.step(request, Step.ACKNOWLEDGED, actor=actor))

    def extend(
        self, request: str, reason: str, *, regimes: Iterable[Regime | str] | None = None, actor: str = ""
    ) -> RequestRecord:
        """The person was told that it takes longer, and why: two months more under GDPR, 45 days under CCPA.

        Raises `Conflict` when it is too late for that, was done before, or no law of the request allows it.
        """
        if not reason.strip():
            raise InvalidInput("an extension needs its reasons: say what the person was told")
        named = None if regimes is None else parse_regimes(regimes)

        def check(found: SubjectRequest, turn: Turn) -> None:
            for regime in named or found.regimes:
                self._require_extendable(found, regime, turn.now)

        chosen = named or self.book.find(request).regimes
        words = " ".join(chosen)
        return self.record(
            self.book.step(request, Step.EXTENDED, note=noted(reason), check=check, regime=words, actor=actor)
        )

    def _require_extendable(self, found: SubjectRequest, regime: Regime, now: int) -> None:
        until = extension_until(self.clocks.of(found, now), regime)
        if regime in found.extended:
            raise Conflict(f"request {found.id} was extended under {regime.upper()} before: that is allowed once")
        if regime not in found.regimes or until is None:
            raise Conflict(f"request {found.id} cannot be extended under {regime.upper()}")
        if now > until:
            raise Conflict(
                f"it is too late to extend request {found.id} under {regime.upper()}: the person had to be told by "
                f"{to_iso(until)}",
                hint="answer it now; what is late stays visible",
            )

    def assign(self, request: str, to: str, *, actor: str = "") -> RequestRecord:
        """Somebody of the staff takes care of it; empty: nobody in particular."""
        assignee = parse_text(to, "assignee")
        return self.record(self.book.step(request, Step.ASSIGNED, outcome=assignee, actor=actor))

    def refuse(self, request: str, article: str, reason: str, *, actor: str = "") -> RequestRecord:
        """Close it without doing it, under a legal provision; the person is told why and where to complain."""
        if not reason.strip():
            raise InvalidInput("a refusal needs its reasons: say what the person was told (GDPR 12(4))")
        provision = parse_article(article)
        return self.record(self.book.step(request, Step.REFUSED, note=noted(reason), article=provision, actor=actor))

    def cancel(self, request: str, reason: str = "", *, actor: str = "") -> RequestRecord:
        """Close it because the person took it back."""
        return self.record(self.book.step(request, Step.CANCELLED, note=noted(reason), actor=actor))

    # -- running -------------------------------------------------------------------------------------

    def run(self, request: str, progress: Progress | None = None, *, actor: str = "") -> RequestRecord:
        """Run it over every system, as far as it goes now: closed, or waiting with reasons and its next attempt.

        It may be called again at any time, after a crash or when it is done, too. Raises `Conflict` when the identity is not verified,
        or when somebody else runs it.
        """
        known = self.book.find(request)
        if known.state.outward == "COMPLETED":
            return self.record(known)
        self._require_corrections(known)
        with self._only_one(known.id):
            started = self.book.step(known.id, Step.STARTED, check=self._require_free, actor=actor)
            run = self._run_of(started, progress, actor)
            if run is None:
                return self.record(self._close_erased(started, actor))
            try:
                done = run.finish()
            except KikiError:
                run.give_up()
                raise
            if not done.state.is_open:
                self._settle(done)
            return self.record(done)

    def _require_corrections(self, known: SubjectRequest) -> None:
        """Handing nothing over to be corrected would close a request of which nothing was done."""
        if known.kind is not Kind.RECTIFICATION or not known.state.is_open or self.book.person(known) is None:
            return
        details = self.book.details(known)
        if details is None or not details.corrections:
            raise Conflict(
                f"request {known.id} names no fields and values to correct",
                hint="agree on them with the person, cancel this request, and create it again with corrections",
            )

    def _run_of(self, started: SubjectRequest, progress: Progress | None, actor: str) -> RequestRun | None:
        """None when nobody knows any more whose request this is."""
        person = self.book.person(started)
        if person is None:
            return None
        customer = person.removeprefix("customer:")
        task = Task(started.id, started.kind, customer, started.subject, started.purposes, started.rounds)
        return RequestRun(
            self.decider,
            self.clocks,
            self.registry,
            started,
            task,
            matters=self.holds.on,
            packages=self.packages,
            corrections=(self.book.details(started) or RequestDetails()).corrections,
            actor=actor,
            progress=progress,
        )

    def _close_erased(self, started: SubjectRequest, actor: str) -> SubjectRequest:
        """The person was erased without this request: nobody knows any more whom to look for, so it is not done."""
        self.book.step(started.id, Step.WAITING, until=started.touched_at, actor=actor)
        return self.book.step(started.id, Step.CANCELLED, outcome="subject_erased", actor=actor)

    def run_due(self, progress: Progress | None = None, *, actor: str = "") -> Sequence[RequestRecord]:
        """Run every request that waits and whose next attempt is due, or whose run was broken off here; a service calls it."""
        now, done = self.decider.clock(), []
        for request in self.book.all():
            is_due = request.state is State.WAITING and (request.next_attempt_at or 0) <= now
            was_broken_off = request.state is State.RUNNING and request.id not in self._running
            if is_due or was_broken_off:
                with suppress(Conflict):
                    done.append(self.run(request.id, progress, actor=actor))
        return done

    def _require_free(self, found: SubjectRequest, turn: Turn) -> None:
        """A run of this chain that is still marked was broken off: this process would know it otherwise."""
        if found.state is State.RUNNING and found.run is not None and found.run[0] != turn.chain:
            left = found.touched_at + RUN_LEASE - turn.now
            if left > 0:
                raise Conflict(
                    f"another replica runs request {found.id}", hint=f"if it died, try again in {left // SECOND + 1} s"
                )

    @contextmanager
    def _only_one(self, request: str) -> Iterator[None]:
        with self._lock:
            if request in self._running:
                raise Conflict(f"request {request} is running already", hint="wait until that run has ended")
            self._running.add(request)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(request)

    def _settle(self, done: SubjectRequest) -> None:
        """After the end: the facts are covered by a checkpoint, and whose erasure it was is forgotten."""
        self.decider.ledger.checkpoint()
        if done.kind is Kind.DELETION:
            self.decider.group.exclusively(lambda: end_erasing(self.decider.subjects, done.subject))

    def _end_erasures(self) -> None:
        """Forget whose erasures were over when a process died before it could."""
        subjects, store = self.decider.subjects, self.decider.ledger.store
        over = [one for one in erasing(subjects) if store.get(REQUEST_OPEN, open_key(one, Kind.DELETION)) is None]
        for subject in over:
            self.decider.group.exclusively(partial(end_erasing, subjects, subject))

    def _permit(self, task: Task) -> None:
        """Asked at the last moment before a key is destroyed, while nobody changes anything."""
        if self.holds.on(task.subject):
            raise LegallyHeld
        begin_erasing(self.decider.subjects, task.subject, task.person)

    # -- what comes out ------------------------------------------------------------------------------

    def package(self, request: str) -> Iterator[bytes]:
        """The zip of a finished request for access or portability, in pieces; raises `NotFound` when it is gone."""
        known = self.book.find(request)
        person = self.decider.subjects.person_of(known.subject)
        if person is None or not known.package:
            raise NotFound(f"request {known.id} has no package", hint="run it first; a package ends with its person")
        return open_package(package_path(self.packages, known.id), person)

    def tidy(self) -> int:
        """Remove the packages that waited for `PACKAGE_AGE`; how many."""
        now = self.decider.clock()
        closed = (
            request for request in self.book.all() if request.package and now > (request.closed_at or now) + PACKAGE_AGE
        )
        return sum(discard_package(package_path(self.packages, request.id)) for request in closed)

    def proof(self, request: str) -> str:
        """The signed proof of what became of a closed request, which names nobody; the same text each time.

        Raises `Conflict` while it is open, `Unavailable` while no checkpoint covers a fact of another replica.
        """
        return self.book.proof(request)

    # -- legal holds ---------------------------------------------------------------------------------

    def hold(self, reference: str, customer: str | None = None, *, actor: str = "") -> LegalHold:
        """Put a legal hold on a customer, or on everybody: nothing of them is erased, and no entry is pruned."""
        return self.holds.put(reference, customer, actor=actor)

    def lift(self, reference: str, customer: str | None = None, *, actor: str = "") -> Sequence[RequestRecord]:
        """Lift a hold; the deletions that it stopped, which can be run now. Raises `NotFound`."""
        return [self.record(each) for each in self.holds.lift(reference, customer, actor=actor)]

    def close(self) -> None:
        """Forget what was only kept for this desk; the guard stays open."""
        shutil.rmtree(self._scratch, ignore_errors=True)


def _urgency(record: RequestRecord) -> tuple[bool, int]:
    closed = record.request.closed_at
    return closed is not None, (record.due_at or 0) if closed is None else -closed
