"""The compliance report: what the ledger holds about a period, and what probes found. Pure.

Every number is counted from entries that were recorded in [since, until); none is a constant.

| member | counts |
|---|---|
| total_events | every row of the audit: the lines of `kiki audit export --format jsonl` |
| security_events | turns of the kill switch, policies, openings of the ledger, legal holds, pruning, declared breaches |
| consent_changes | what persons said about a purpose: granted, denied, revoked |
| data_deletions | persons whose key was destroyed at the end of a DELETION request: nothing of them opens any more |
| data_access_requests | ACCESS requests that were received |
| data_breaches | breaches that somebody declared: kiki keeps the register of GDPR 33(5), it does not detect any |
| compliance_score | the share of the probes that passed, of those that could run, in percent with one decimal |
| findings | one sentence for each probe that passed: what it has shown |
| recommendations | one for each probe that failed: what it found, and what to do |

The moments in it are RFC 3339, since it is read by people and by other programs; days are days of UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from kiki.clock import SECOND, to_datetime, to_iso
from kiki.errors import InvalidInput
from kiki.shield.breach import NOTICE_SPAN
from kiki.shield.budget import Reason
from kiki.shield.consent import State
from kiki.shield.dsr import Kind, Step
from kiki.shield.fact import (
    BreachDeclared,
    ConsentChanged,
    Decided,
    Fact,
    Halted,
    LegalHeld,
    Opened,
    PolicyUsed,
    Pruned,
    RequestChanged,
)

FRAMEWORKS: Final = ("GDPR", "CCPA", "ISO 27001")
PERIODS: Final = ("daily", "weekly", "monthly", "quarterly", "yearly")
KEYS: Final = "keys"
"""The system whose erasure makes a person unreadable, as `kiki.shield.own_data.KeyData` is called."""
CUSTOM: Final = "custom"
"""The name of a period that was given by its moments."""
DAYS_MAX: Final = 3660
REQUESTS_LISTED_MAX: Final = 1000

_DAY: Final = 86_400 * SECOND
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS: Final = {"daily": 1, "weekly": 7}
_MONTHS: Final = {"monthly": 1, "quarterly": 3, "yearly": 12}
_SECURITY: Final = (Halted, PolicyUsed, Opened, LegalHeld, Pruned, BreachDeclared)


# -- which period ------------------------------------------------------------------------------------


class Period(NamedTuple):
    """From one moment on, until before another, in microseconds since the epoch."""

    name: str
    since: int
    until: int


def period_of(name: str, now: int) -> Period:
    """The period of that name which ends now: the last 24 hours, 7 days, or 1, 3 or 12 calendar months.

    A month back from the 31st is the last day of a shorter month. Raises `InvalidInput` for other names.
    """
    if name in _DAYS:
        return Period(name, now - _DAYS[name] * _DAY, now)
    if name not in _MONTHS:
        raise InvalidInput(f"{name[:40]!r} is not a period: write one of {', '.join(PERIODS)}, or from= and to=")
    moment = to_datetime(now)
    year, month = divmod(moment.year * 12 + moment.month - 1 - _MONTHS[name], 12)
    first_after = date(year + (month + 1) // 12, (month + 1) % 12 + 1, 1)
    day = min(moment.day, (first_after - timedelta(days=1)).day)
    since = moment.replace(year=year, month=month + 1, day=day)
    return Period(name, (since - _EPOCH) // timedelta(microseconds=1), now)


def period_between(since: int, until: int) -> Period:
    """A period given by its moments; raises `InvalidInput` unless the first is before the second."""
    if since >= until:
        raise InvalidInput("the period's beginning must be before its end")
    if until - since > DAYS_MAX * _DAY:
        raise InvalidInput(f"a period is at most {DAYS_MAX} days long")
    return Period(CUSTOM, since, until)


# -- what the report says ----------------------------------------------------------------------------


class Verdict(StrEnum):
    """How a probe ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It could not run: what it looks at is not there. It counts neither way."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was really looked at just now."""

    name: str
    controls: str
    """What it is evidence for; ISO/IEC 27001 in the numbering of 2013 and of 2022."""
    verdict: Verdict
    said: str
    """Passed: what it has shown. Failed: what it found. Skipped: why."""
    advice: str = ""
    """Failed: what to do."""


class DecisionDay(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions of one day."""

    day: str
    approved: int = 0
    denied: int = 0
    unknown: int = 0
    """The shared window did not answer; the money counts as spent."""


class ConsentDay(msgspec.Struct, frozen=True, kw_only=True):
    """What persons said about one purpose on one day."""

    day: str
    granted: int = 0
    denied: int = 0
    revoked: int = 0


class PurposeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Consent to one purpose: how it stands now, and how it changed."""

    purpose: str
    states: dict[str, int]
    """How many persons are in each state now: granted, denied, revoked, expired."""
    days: list[ConsentDay]
    """Only days on which something was said."""


class RequestLine(msgspec.Struct, frozen=True, kw_only=True):
    """One request against its clock; nothing in it says whose it is."""

    request: str
    kind: str
    state: str
    received_at: str
    due_at: str | None = None
    closed_at: str | None = None

    @property
    def is_open(self) -> bool:
        """True while it waits for somebody."""
        return self.closed_at is None

    def is_overdue(self, now: str) -> bool:
        """Whether it missed its due date, or was closed after it. Moments of one form compare as text."""
        return self.due_at is not None and (self.closed_at or now) > self.due_at


class RequestsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of data subjects."""

    received: dict[str, int]
    """By kind, in the period."""
    completed: dict[str, int]
    open: int
    """Now, whenever they were received."""
    overdue: int
    """Of the open ones."""
    lines: list[RequestLine]
    """Those that are open, or were received or closed in the period; by due date, at most 1000."""


class BreachLine(msgspec.Struct, frozen=True, kw_only=True):
    """A breach that was declared: the register of GDPR 33(5)."""

    reference: str
    declared_at: str
    found_at: str
    authority_due_at: str
    """72 hours after it was found (GDPR 33(1))."""
    notified_at: str | None = None
    affected: int | None = None


class ComplianceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report: first the members of the original, then what they rest on."""

    generated_at: str
    period: str
    total_events: int
    security_events: int
    consent_changes: int
    data_deletions: int
    data_access_requests: int
    data_breaches: int
    compliance_score: float
    frameworks: list[str]
    findings: list[str]
    recommendations: list[str]
    since: str
    until: str
    chain: str
    """The chain of whoever was asked."""
    chains: list[str]
    """Every chain that was counted: those of all replicas that share the store."""
    probes: list[Probe]
    decisions: list[DecisionDay]
    """Every day of the period, also the empty ones."""
    consents: list[PurposeReport]
    requests: RequestsReport
    breaches: list[BreachLine]


# -- counting ----------------------------------------------------------------------------------------


class Tally:
    """Counts facts of a period, one after the other; memory grows with its days, never with its entries."""

    def __init__(self) -> None:
        self.total = 0
        self.security = 0
        self.consent = 0
        self.received: Counter[str] = Counter()
        self.completed: dict[str, set[str]] = {}
        """By kind the ids of requests: one that a legal hold stopped may be completed again once it is lifted."""
        self.erased: set[str] = set()
        """The references of persons whose key was destroyed."""
        self.breaches: dict[str, BreachDeclared] = {}
        self.decided: dict[int, list[int]] = {}
        """Per day since the epoch: approved, denied, unknown."""
        self.said: dict[str, dict[int, Counter[str]]] = {}

    def add(self, recorded_at: int, fact: Fact) -> None:
        """Count one fact that was recorded at that moment."""
        day = recorded_at // _DAY
        if isinstance(fact, Decided):
            self._decided(day, fact)
            return
        self.total += 1
        if isinstance(fact, _SECURITY):
            self.security += 1
        if isinstance(fact, BreachDeclared):
            # Telling more about a breach is no second one, whichever replica was told.
            known = self.breaches.get(fact.reference)
            if known is None or known.at <= fact.at:
                self.breaches[fact.reference] = fact
        elif isinstance(fact, ConsentChanged):
            if not fact.carried:
                self.consent += 1
                self.said.setdefault(fact.purpose, {}).setdefault(day, Counter())[fact.state] += 1
        elif isinstance(fact, RequestChanged):
            if fact.step == Step.RECEIVED:
                self.received[fact.kind] += 1
            elif fact.step == Step.COMPLETED:
                self.completed.setdefault(fact.kind, set()).add(fact.request)
            elif fact.step == Step.ERASED and fact.system == KEYS and fact.count:
                self.erased.add(fact.subject)

    def _decided(self, day: int, fact: Decided) -> None:
        many = len(fact.amounts)
        self.total += many
        counts = self.decided.setdefault(day, [0, 0, 0])
        unknown = sum(each.reason == Reason.OUTCOME_UNKNOWN for each in fact.refused)
        denied = len(fact.refused) - unknown
        counts[0] += many - denied - unknown
        counts[1] += denied
        counts[2] += unknown


def report_of(
    tally: Tally,
    period: Period,
    *,
    now: int,
    chains: Sequence[str],
    probes: Sequence[Probe],
    consents: Mapping[str, Mapping[str, int]],
    requests: Iterable[RequestLine],
) -> ComplianceReport:
    """The report over what was counted in `chains`, that of whoever was asked first.

    `consents` is how many persons are in each state of each purpose now.
    """
    shown = to_iso(now)
    return ComplianceReport(
        generated_at=shown,
        period=period.name,
        total_events=tally.total,
        security_events=tally.security,
        consent_changes=tally.consent,
        data_deletions=len(tally.erased),
        data_access_requests=tally.received[Kind.ACCESS],
        data_breaches=len(tally.breaches),
        compliance_score=score_of(probes),
        frameworks=list(FRAMEWORKS),
        findings=[f"{each.said} ({each.controls})" for each in probes if each.verdict is Verdict.PASSED],
        recommendations=[
            f"{each.said}: {each.advice} ({each.controls})" for each in probes if each.verdict is Verdict.FAILED
        ],
        since=to_iso(period.since),
        until=to_iso(period.until),
        chain=chains[0],
        chains=list(chains),
        probes=list(probes),
        decisions=_decision_days(tally, period),
        consents=_purposes(tally, consents),
        requests=_requests(tally, period, shown, requests),
        breaches=[_breach(each) for each in tally.breaches.values()],
    )


def score_of(probes: Iterable[Probe]) -> float:
    """The share of the probes that passed, of those that could run, in percent with one decimal."""
    ran = [each.verdict for each in probes if each.verdict is not Verdict.SKIPPED]
    return round(100 * ran.count(Verdict.PASSED) / len(ran), 1) if ran else 0.0


def _decision_days(tally: Tally, period: Period) -> list[DecisionDay]:
    first, last = period.since // _DAY, (period.until - 1) // _DAY
    found: list[DecisionDay] = []
    for day in range(first, last + 1):
        approved, denied, unknown = tally.decided.get(day, (0, 0, 0))
        found.append(DecisionDay(day=_date(day), approved=approved, denied=denied, unknown=unknown))
    return found


def _purposes(tally: Tally, consents: Mapping[str, Mapping[str, int]]) -> list[PurposeReport]:
    found: list[PurposeReport] = []
    for purpose in sorted({*consents, *tally.said}):
        days = [
            ConsentDay(
                day=_date(day),
                granted=counts[State.GRANTED],
                denied=counts[State.DENIED],
                revoked=counts[State.REVOKED],
            )
            for day, counts in sorted(tally.said.get(purpose, {}).items())
        ]
        found.append(PurposeReport(purpose=purpose, states=dict(consents.get(purpose, {})), days=days))
    return found


def _requests(tally: Tally, period: Period, now: str, requests: Iterable[RequestLine]) -> RequestsReport:
    since, until = to_iso(period.since), to_iso(period.until)
    lines: list[RequestLine] = []
    waiting = late = 0
    for line in requests:
        if line.is_open:
            waiting += 1
            late += line.is_overdue(now)
        if line.is_open or since <= line.received_at < until or since <= (line.closed_at or "") < until:
            lines.append(line)
    # The open ones first, the most urgent of them on top.
    lines.sort(key=lambda line: (not line.is_open, line.due_at or "9999", line.received_at))
    return RequestsReport(
        received=dict(sorted(tally.received.items())),
        completed={kind: len(found) for kind, found in sorted(tally.completed.items())},
        open=waiting,
        overdue=late,
        lines=lines[:REQUESTS_LISTED_MAX],
    )


def _breach(fact: BreachDeclared) -> BreachLine:
    return BreachLine(
        reference=fact.reference,
        declared_at=to_iso(fact.at),
        found_at=to_iso(fact.found_at),
        authority_due_at=to_iso(fact.found_at + NOTICE_SPAN),
        notified_at=None if fact.notified_at is None else to_iso(fact.notified_at),
        affected=fact.affected,
    )


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()
