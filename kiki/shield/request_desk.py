"""`RequestDesk`: data subject requests from receipt to proof, in a script or beside a guard."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Unpack

from kiki.clock import SECOND, to_iso
from kiki.errors import (
    Conflict,
    IdentityDenied,
    InvalidInput,
    KikiError,
    LegallyHeld,
    NotFound,
    Unavailable,
    Unreadable,
)
from kiki.ledger.ledger import CHECKPOINTS, read_entries
from kiki.shield.change import Change, Turn
from kiki.shield.consent import CUSTOMER_LENGTH_MAX, parse_customer_id
from kiki.shield.consent import parse_text as text_of
from kiki.shield.consent_change import moment_of, person_of
from kiki.shield.consent_store import ConsentStore
from kiki.shield.deadline import DAY, Regime, WorkCalendar, answer_due, extension_until, parse_regimes
from kiki.shield.decider import Decider
from kiki.shield.dsr import (
    DETAILS_LENGTH_MAX,
    Kind,
    State,
    Step,
    follow,
    parse_article,
    parse_kind,
    parse_request_id,
    parse_state,
)
from kiki.shield.erasing import begin_erasing, end_erasing, erasing_person
from kiki.shield.hold_change import hold_change, lift_change
from kiki.shield.identity import (
    ATTEMPTS_MAX,
    CODE_DIGITS,
    CODE_LIFE,
    IdentityChannel,
    code_text,
    is_right_code,
    new_code,
    parse_code,
    require_code_left,
)
from kiki.shield.legal_hold import LEGAL_HOLD, LegalHold, holds_prefix, parse_reference, read_hold
from kiki.shield.own_data import AuditViewData, ConsentData, EvidenceData, KeyData, PackageData, WindowData
from kiki.shield.request_change import (
    Asked,
    Clocks,
    Created,
    RequestDetails,
    create_change,
    read_details,
    step_change,
    take_step,
)
from kiki.shield.request_intake import REGIMES, Given, asked
from kiki.shield.request_package import discard_package, open_package, package_path
from kiki.shield.request_proof import make_request_proof
from kiki.shield.request_record import RequestRecord
from kiki.shield.request_run import RequestRun
from kiki.shield.subject_data import Progress, Registry, SubjectData, Task
from kiki.shield.subject_request import REQUEST, REQUEST_KEY, SubjectRequest, read_request, request_key

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
        self._channel = channel
        self._scratch = None if packages is not None else tempfile.TemporaryDirectory(prefix="kiki-requests-")
        self.packages = Path(self._scratch.name) if packages is None and self._scratch else Path(packages or ".")
        own: list[SubjectData] = [
            ConsentData(self.consents, retention_days),
            EvidenceData(decider, retention_days),
            PackageData(decider, self.packages),
        ]
        if audit_view is not None:
            own.append(AuditViewData(audit_view, decider.clock, retention_days))
        if not decider.window.restorable:
            own.append(WindowData(decider))
        self.registry = Registry([*systems, *own], KeyData(decider, self._permit))
        self._running: set[str] = set()
        self._lock = threading.Lock()

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
        created: Created = self._submit(change)
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
        return self.record(self._request(request), opened=True)

    def list(
        self,
        *,
        state: State | str | None = None,
        kind: Kind | str | None = None,
        customer: str | None = None,
        due_before: datetime | int | None = None,
        is_open: bool | None = None,
    ) -> list[RequestRecord]:
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
        for request in self.requests():
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

    def requests(self) -> Iterator[SubjectRequest]:
        """Every request, in the order of receipt, as its facts add up; memory does not grow with their number."""
        for _, value in self.decider.ledger.store.scan(REQUEST):
            request = read_request(value)
            if request is not None:
                yield request

    def record(self, request: SubjectRequest, *, is_new: bool = False, opened: bool = False) -> RequestRecord:
        """What a caller is told about a request; with `opened`, what was sealed, too."""
        found = self.clocks.of(request, self.decider.clock())
        person = self._person(request)
        return RequestRecord(
            request=request,
            customer=(person or "").removeprefix("customer:"),
            deadlines=found,
            due_at=answer_due(found),
            details=self._details(request) if opened or is_new else None,
            is_new=is_new,
        )

    # -- identity ------------------------------------------------------------------------------------

    def send_code(self, request: str, *, actor: str = "") -> RequestRecord:
        """Send a one-time code to the channel that the person was known by; the same answer when there is none.

        Raises `Conflict` when too many were sent, or no channel is configured here.
        """
        if self._channel is None:
            raise Conflict(
                "no channel is configured that could carry a code",
                hint="let an operator verify the identity: kiki dsr verify, or give RequestDesk a channel",
            )
        known = self._request(request)
        person = self._person(known)
        code = new_code(secrets.randbelow(10**CODE_DIGITS))
        digest = self.decider.subjects.keyed_hash(code_text(known.id, code))
        done = self._step(
            known.id,
            Step.CODE_SENT,
            check=lambda found, _: require_code_left(found),
            digest=digest,
            until=self.decider.clock() + CODE_LIFE,
            actor=actor,
        )
        if person is not None:
            self._channel.send(person.removeprefix("customer:"), code, known.id)
        return self.record(done)

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
        known = self._request(request)
        proof = text_of(agent_proof, "proof of the agent", CUSTOMER_LENGTH_MAX)
        details = self._details(known) or RequestDetails()
        if details.agent and not (proof and method == "operator"):
            raise Conflict(
                "an agent acts for the person: the permission has to be seen by an operator",
                hint="verify as an operator, and name the proof: --agent-proof",
            )
        if method == "operator":
            if not actor:
                raise InvalidInput("an operator vouches by name: give actor")
        elif method == "code":
            self._answer_code(known, parse_code(code), actor)
        else:
            raise InvalidInput(f"{method[:40]!r} is no way to verify identity: write code or operator")
        said = RequestDetails(note=text_of(note, "note", DETAILS_LENGTH_MAX, lines=True), agent_proof=proof)
        return self.record(self._step(known.id, Step.VERIFIED, note=said, outcome=method, actor=actor))

    def _answer_code(self, known: SubjectRequest, code: str, actor: str) -> None:
        digest = self.decider.subjects.keyed_hash(code_text(known.id, code))

        def act(turn: Turn) -> bool:
            found = read_request(turn.get(REQUEST, request_key(known.id)))
            if found is None:
                return False
            after = follow(found.id, found.state, Step.CODE_FAILED)
            if is_right_code(found, digest, turn.now):
                return True
            take_step(turn, found, Step.CODE_FAILED, after, self.clocks, actor=actor)
            return False

        if not self._submit(Change(act)):
            raise IdentityDenied(
                "the code is wrong", hint=f"{ATTEMPTS_MAX} wrong answers end a code; a new one can be sent then"
            )

    def pause(self, request: str, *, note: str = "", actor: str = "") -> RequestRecord:
        """The person was asked for proof of identity, and the clock of GDPR waits for it, if asked without delay."""
        return self.record(self._step(request, Step.PAUSED, note=self._noted(note), actor=actor))

    def resume(self, request: str, *, note: str = "", actor: str = "") -> RequestRecord:
        """The clock goes on: proof came, or none is waited for any more."""
        return self.record(self._step(request, Step.RESUMED, note=self._noted(note), actor=actor))

    # -- working on it -------------------------------------------------------------------------------

    def acknowledge(self, request: str, *, actor: str = "") -> RequestRecord:
        """The person was told that the request was received (CCPA: within 10 business days)."""
        return self.record(self._step(request, Step.ACKNOWLEDGED, actor=actor))

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

        chosen = named or self._request(request).regimes
        words = " ".join(chosen)
        return self.record(
            self._step(request, Step.EXTENDED, note=self._noted(reason), check=check, regime=words, actor=actor)
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
        assignee = text_of(to, "assignee")
        return self.record(self._step(request, Step.ASSIGNED, outcome=assignee, actor=actor))

    def refuse(self, request: str, article: str, reason: str, *, actor: str = "") -> RequestRecord:
        """Close it without doing it, under a legal provision; the person is told why and where to complain."""
        if not reason.strip():
            raise InvalidInput("a refusal needs its reasons: say what the person was told (GDPR 12(4))")
        provision = parse_article(article)
        return self.record(self._step(request, Step.REFUSED, note=self._noted(reason), article=provision, actor=actor))

    def cancel(self, request: str, reason: str = "", *, actor: str = "") -> RequestRecord:
        """Close it because the person took it back."""
        return self.record(self._step(request, Step.CANCELLED, note=self._noted(reason), actor=actor))

    # -- running -------------------------------------------------------------------------------------

    def run(self, request: str, progress: Progress | None = None, *, actor: str = "") -> RequestRecord:
        """Run it over every system, as far as it goes now: closed, or waiting with reasons and its next attempt.

        It may be called again at any time, after a crash, too. Raises `Conflict` when the identity is not verified,
        or when somebody else runs it.
        """
        known = self._request(request)
        with self._only_one(known.id):
            started = self._step(known.id, Step.STARTED, check=self._require_free, actor=actor)
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

    def _run_of(self, started: SubjectRequest, progress: Progress | None, actor: str) -> RequestRun | None:
        """None when nobody knows any more whose request this is."""
        person = self._person(started)
        if person is None:
            return None
        customer = person.removeprefix("customer:")
        task = Task(started.id, started.kind, customer, started.subject, started.purposes)
        return RequestRun(
            self.decider,
            self.clocks,
            self.registry,
            started,
            task,
            matters=self._matters,
            packages=self.packages,
            corrections=(self._details(started) or RequestDetails()).corrections,
            actor=actor,
            progress=progress,
        )

    def _close_erased(self, started: SubjectRequest, actor: str) -> SubjectRequest:
        """The person was erased by another request meanwhile: there is nobody left whose data could be looked for."""
        return self._step(started.id, Step.COMPLETED, state=State.COMPLETED, outcome="subject_erased", actor=actor)

    def run_due(self, progress: Progress | None = None, *, actor: str = "") -> list[RequestRecord]:
        """Run every request that waits and whose next attempt is due, or whose run was broken off here; a service calls it."""
        now, done = self.decider.clock(), []
        for request in self.requests():
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

    def _permit(self, task: Task) -> None:
        """Asked at the last moment before a key is destroyed, while nobody changes anything."""
        if self._matters(task.subject):
            raise LegallyHeld
        begin_erasing(self.decider.subjects, task.subject, task.person)

    # -- what comes out ------------------------------------------------------------------------------

    def package(self, request: str) -> Iterator[bytes]:
        """The zip of a finished request for access or portability, in pieces; raises `NotFound` when it is gone."""
        known = self._request(request)
        person = self.decider.subjects.person_of(known.subject)
        if person is None or not known.package:
            raise NotFound(f"request {known.id} has no package", hint="run it first; a package ends with its person")
        return open_package(package_path(self.packages, known.id), person)

    def tidy(self) -> int:
        """Remove the packages that waited for `PACKAGE_AGE`; how many."""
        now = self.decider.clock()
        closed = (
            request for request in self.requests() if request.package and now > (request.closed_at or now) + PACKAGE_AGE
        )
        return sum(discard_package(package_path(self.packages, request.id)) for request in closed)

    def proof(self, request: str) -> str:
        """The signed proof of what became of a closed request; the same text each time.

        Raises `Conflict` while it is open, `Unavailable` while no checkpoint covers a fact of another replica.
        """
        known = self._request(request)
        signer = self.decider.ledger.signer
        if signer is None:
            raise Conflict("this ledger has no key to sign with", hint="open it as a service does")
        last: dict[str, int] = {}
        for event in known.events:
            last[event.chain] = max(event.seq, last.get(event.chain, -1))
        notes = {chain: self._covering(chain, seq) for chain, seq in last.items()} if known.closed_at else {}
        return make_request_proof(known, self.clocks.of(known, self.decider.clock()), notes, signer)

    def _covering(self, chain: str, seq: int) -> bytes:
        """The first checkpoint of a chain that covers an entry."""
        ledger = self.decider.ledger
        if chain == ledger.chain and not any(ledger.store.scan(CHECKPOINTS, seq.to_bytes(8, "big"))):
            ledger.checkpoint()
        reader = self.decider.reader_of(chain)
        found = None if reader is None else next(reader.scan(CHECKPOINTS, seq.to_bytes(8, "big")), None)
        if found is None:
            raise Unavailable(f"no checkpoint of chain {chain} covers entry {seq} yet", retry_after=10.0)
        return found[1]

    # -- legal holds ---------------------------------------------------------------------------------

    def hold(self, reference: str, customer: str | None = None, *, actor: str = "") -> LegalHold:
        """Put a legal hold on a customer, or on everybody: nothing of them is erased, and no entry is pruned."""
        person = None if customer is None else person_of(parse_customer_id(customer))
        held: LegalHold = self._submit(hold_change(parse_reference(reference), person, text_of(actor, "actor")))
        return held

    def lift(self, reference: str, customer: str | None = None, *, actor: str = "") -> list[RequestRecord]:
        """Lift a hold; the deletions that it stopped, which can be run now. Raises `NotFound`."""
        subject, matter = "", parse_reference(reference)
        if customer is not None:
            person = self.decider.subjects.find(person_of(parse_customer_id(customer)))
            if person is None:
                raise NotFound(f"there is no legal hold {matter!r} on this customer")
            subject = person.reference
        held = [each.id for each in self.requests() if matter in each.held and subject in {"", each.subject}]
        change = lift_change(matter, subject, held, self.clocks, text_of(actor, "actor"))
        reopened: list[SubjectRequest] = self._submit(change)
        return [self.record(each) for each in reopened]

    def holds(self) -> list[LegalHold]:
        """The holds that are on, those on everybody first."""
        return [read_hold(key, value) for key, value in self.decider.ledger.store.scan(LEGAL_HOLD)]

    def customer_of(self, hold: LegalHold) -> str:
        """Whom a hold is on; empty: everybody, or somebody who is erased."""
        return ((hold.subject and self.decider.subjects.identity(hold.subject)) or "").removeprefix("customer:")

    def _matters(self, subject: str) -> list[str]:
        found = []
        for prefix in (holds_prefix(""), holds_prefix(subject)):
            for key, _ in self.decider.ledger.store.scan(LEGAL_HOLD, prefix):
                if not key.startswith(prefix):
                    break
                found.append(key[len(prefix) :].decode())
        return list(dict.fromkeys(found))

    # -- inside --------------------------------------------------------------------------------------

    def _request(self, request: str) -> SubjectRequest:
        number = parse_request_id(request)
        found = read_request(self.decider.ledger.store.get(REQUEST, request_key(number)))
        if found is None:
            raise NotFound(f"there is no request {number}", hint="list them: kiki dsr list")
        return found

    def _person(self, request: SubjectRequest) -> str | None:
        """The scope text of the person; None once erased, as soon as the erasure is complete."""
        subjects = self.decider.subjects
        return subjects.identity(request.subject) or erasing_person(subjects, request.subject)

    def _details(self, request: SubjectRequest) -> RequestDetails | None:
        chain, seq = request.place
        reader = self.decider.reader_of(chain)
        entry = None if reader is None else next(read_entries(reader, seq, seq), None)
        if entry is None or not entry.sealed:
            return None
        try:
            return read_details(self.decider.subjects.open(entry.sealed[0]))
        except Unreadable:
            return None

    def _step(self, request: str, step: Step, **fields: Any) -> SubjectRequest:
        fields["actor"] = text_of(fields.get("actor"), "actor")
        done: SubjectRequest = self._submit(step_change(parse_request_id(request), step, self.clocks, **fields))
        return done

    def _noted(self, note: str) -> RequestDetails | None:
        said = text_of(note, "note", DETAILS_LENGTH_MAX, lines=True)
        return RequestDetails(note=said) if said else None

    def _submit(self, change: Change) -> Any:
        return self.decider.group.submit(change).result()

    def close(self) -> None:
        """Forget what was only kept for this desk; the guard stays open."""
        if self._scratch is not None:
            self._scratch.cleanup()


def _urgency(record: RequestRecord) -> tuple[bool, int]:
    closed = record.request.closed_at
    return closed is not None, (record.due_at or 0) if closed is None else -closed
