"""The compliance report counts what was recorded, and nothing else; its periods end now; its score is a share of probes."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.clock import SECOND, to_iso
from kiki.errors import InvalidInput
from kiki.shield.compliance_report import (
    ComplianceReport,
    Period,
    Probe,
    RequestLine,
    Tally,
    Verdict,
    period_between,
    period_of,
    report_of,
    score_of,
)
from kiki.shield.fact import (
    BreachDeclared,
    ConsentChanged,
    Decided,
    Halted,
    LegalHeld,
    Opened,
    PolicyUsed,
    Pruned,
    Refused,
    RequestChanged,
    Settled,
)

DAY = 86_400 * SECOND
START = 1_800_000_000 * SECOND - 1_800_000_000 * SECOND % DAY
SUBJECT = "0" * 32


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("name", "now", "since"),
    [
        ("daily", "2026-03-01T12:00:00", "2026-02-28T12:00:00"),
        ("weekly", "2026-03-01T12:00:00", "2026-02-22T12:00:00"),
        ("monthly", "2026-03-31T12:00:00", "2026-02-28T12:00:00"),
        ("monthly", "2028-03-31T12:00:00", "2028-02-29T12:00:00"),
        ("monthly", "2026-01-15T12:00:00", "2025-12-15T12:00:00"),
        ("quarterly", "2026-05-31T12:00:00", "2026-02-28T12:00:00"),
        ("quarterly", "2026-02-28T12:00:00", "2025-11-28T12:00:00"),
        ("yearly", "2028-02-29T12:00:00", "2027-02-28T12:00:00"),
        ("yearly", "2026-12-31T00:00:00", "2025-12-31T00:00:00"),
    ],
)
def test_a_named_period_ends_now_and_goes_back_by_the_calendar(name: str, now: str, since: str):
    assert Period(name, micros(since), micros(now)) == period_of(name, micros(now))


@given(now=st.integers(START - 20_000 * DAY, START + 20_000 * DAY))
def test_longer_names_mean_longer_periods(now: int):
    lengths = [now - period_of(name, now).since for name in ("daily", "weekly", "monthly", "quarterly", "yearly")]
    assert sorted(set(lengths)) == lengths
    assert 28 * DAY <= lengths[2] <= 31 * DAY
    assert 365 * DAY <= lengths[4] <= 366 * DAY


@pytest.mark.parametrize("name", ["", "hourly", "Monthly", "month", "x" * 1000])
def test_other_names_are_refused_with_the_list(name: str):
    with pytest.raises(InvalidInput, match="daily, weekly, monthly, quarterly, yearly"):
        period_of(name, START)


@pytest.mark.parametrize(("since", "until"), [(START, START), (START + 1, START), (START, START + 3661 * DAY)])
def test_a_period_by_moments_has_a_length_that_makes_sense(since: int, until: int):
    with pytest.raises(InvalidInput):
        period_between(since, until)


def decided(amounts: int, refused: dict[int, str] | None = None) -> Decided:
    why = [Refused(index, reason) for index, reason in (refused or {}).items()]
    return Decided("spend", START, "", 0, [[]], [SECOND] * amounts, why)


def consent(state: str, purpose: str = "marketing", **more) -> ConsentChanged:
    return ConsentChanged(START, SUBJECT, purpose, state, "consent", **more)


def step(kind: str, word: str, state: str, request: str = "DSR-1-00000000", **more) -> RequestChanged:
    return RequestChanged(START, request, SUBJECT, kind, word, state, **more)


def told(facts, period: Period | None = None, **more) -> ComplianceReport:
    tally = Tally()
    for at, fact in facts:
        tally.add(at, fact)
    given = {"now": START + DAY, "chains": ["c"], "probes": [], "consents": {}, "requests": []} | more
    return report_of(tally, period or Period("daily", START, START + DAY), **given)


def test_an_empty_ledger_gives_zeros_and_every_member_of_the_original():
    report = told([])
    assert {
        "generated_at": to_iso(START + DAY),
        "period": "daily",
        "total_events": 0,
        "security_events": 0,
        "consent_changes": 0,
        "data_deletions": 0,
        "data_access_requests": 0,
        "data_breaches": 0,
        "compliance_score": 0.0,
        "frameworks": ["GDPR", "CCPA", "ISO 27001"],
        "findings": [],
        "recommendations": [],
    } == {name: getattr(report, name) for name in list(ComplianceReport.__struct_fields__)[:12]}


def test_every_amount_is_an_event_and_every_other_fact_is_one():
    facts = [decided(3), decided(1, {0: "halted"}), Settled("commit", START, "", 0, "0" * 32, 1, 1), consent("granted")]
    report = told((START, fact) for fact in facts)
    assert report.total_events == 6
    assert report.security_events == 0
    assert report.consent_changes == 1


def test_security_events_are_those_that_change_who_may_do_what():
    facts = [
        Halted(START, "*", True),
        PolicyUsed(START, b"{}"),
        Opened(START, "1", "local"),
        LegalHeld(START, "", True),
        Pruned(START, 256, 2555),
        BreachDeclared(START, "INC-1", START),
        decided(1),
        consent("granted"),
        step("ACCESS", "received", "received"),
    ]
    assert told((START, fact) for fact in facts).security_events == 6


def test_decisions_are_counted_by_day_and_outcome():
    facts = [
        (START, decided(5, {1: "budget_exhausted", 2: "outcome_unknown"})),
        (START + 2 * DAY - 1, decided(2, {0: "consent_missing"})),
        (START + 2 * DAY, decided(1)),
    ]
    report = told(facts, Period("custom", START, START + 4 * DAY))
    assert [(3, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 0)] == [
        (each.approved, each.denied, each.unknown) for each in report.decisions
    ]
    assert report.decisions[0].day == to_iso(START)[:10]


def test_consent_said_again_at_pruning_is_no_change():
    report = told([(START, consent("granted")), (START, consent("granted", carried=True))])
    assert report.consent_changes == 1


def test_consent_is_told_by_purpose_and_day_beside_how_it_stands():
    facts = [
        (START, consent("granted")),
        (START, consent("revoked")),
        (START + DAY, consent("granted", "analytics")),
    ]
    report = told(facts, consents={"marketing": Counter(granted=7), "profiling": {"denied": 2}})
    assert ["analytics", "marketing", "profiling"] == [each.purpose for each in report.consents]
    analytics, marketing, profiling = report.consents
    assert ([], {"denied": 2}) == (profiling.days, profiling.states)
    assert {"granted": 7} == marketing.states
    assert [(1, 0, 1)] == [(day.granted, day.denied, day.revoked) for day in marketing.days]
    assert to_iso(START + DAY)[:10] == analytics.days[0].day


def test_requests_are_counted_when_they_are_received_and_when_they_are_completed():
    facts = [
        step("ACCESS", "received", "received"),
        step("ACCESS", "received", "received"),
        step("ACCESS", "verified", "verified"),
        step("DELETION", "received", "received"),
        step("DELETION", "erased", "running"),
        step("DELETION", "completed", "completed_with_exceptions"),
        step("DELETION", "reopened", "verified"),
        step("DELETION", "completed", "completed"),
        step("DELETION", "completed", "completed", "DSR-2-00000000"),
        step("DELETION", "refused", "refused"),
    ]
    report = told((START, fact) for fact in facts)
    assert 2 == report.data_access_requests
    assert {"ACCESS": 2, "DELETION": 1} == report.requests.received
    assert {"DELETION": 2} == report.requests.completed


def test_a_deletion_counts_once_the_persons_key_is_destroyed():
    facts = [
        step("DELETION", "erased", "running", system="consents", count=3),
        step("DELETION", "completed", "completed_with_exceptions"),
    ]
    assert 0 == told((START, fact) for fact in facts).data_deletions
    facts.append(step("DELETION", "erased", "running", system="keys", count=1))
    facts.append(step("DELETION", "erased", "running", system="keys", count=0))
    assert 1 == told((START, fact) for fact in facts).data_deletions


def line(name: str, received: int, due: int | None, closed: int | None = None) -> RequestLine:
    return RequestLine(
        request=name,
        kind="ACCESS",
        state="verified" if closed is None else "completed",
        received_at=to_iso(received),
        due_at=None if due is None else to_iso(due),
        closed_at=None if closed is None else to_iso(closed),
    )


def test_open_requests_are_listed_by_urgency_and_old_closed_ones_are_not():
    now = START + DAY
    lines = [
        line("later", START - 9 * DAY, now + 5 * DAY),
        line("late", START - 40 * DAY, now - DAY),
        line("closed before", START - 40 * DAY, now, START - 9 * DAY),
        line("closed now", START - 40 * DAY, now, START),
        line("no law", START, None),
    ]
    report = told([], requests=lines)
    assert ["late", "later", "no law", "closed now"] == [each.request for each in report.requests.lines]
    assert (3, 1) == (report.requests.open, report.requests.overdue)


def test_a_request_that_was_closed_late_stays_late():
    assert line("a", START, START + DAY, START + 2 * DAY).is_overdue(to_iso(START + 9 * DAY))
    assert not line("a", START, START + DAY, START + DAY).is_overdue(to_iso(START + 9 * DAY))


def test_telling_more_about_a_breach_is_no_second_breach():
    facts = [
        (START, BreachDeclared(START, "INC-1", START)),
        (START, BreachDeclared(START, "INC-1", START, START + SECOND, 12)),
        (START, BreachDeclared(START, "INC-2", START)),
    ]
    report = told(facts)
    assert 2 == report.data_breaches
    assert [(12, to_iso(START + SECOND)), (None, None)] == [
        (each.affected, each.notified_at) for each in report.breaches
    ]
    assert to_iso(START + 3 * DAY) == report.breaches[0].authority_due_at


def probe(verdict: Verdict, name: str = "p") -> Probe:
    return Probe(name=name, controls="A.1", verdict=verdict, said=f"said {verdict}", advice="do this")


@given(st.lists(st.sampled_from(list(Verdict)), max_size=20))
def test_the_score_is_the_share_of_what_ran(verdicts: list[Verdict]):
    score = score_of([probe(verdict) for verdict in verdicts])
    ran = [each for each in verdicts if each is not Verdict.SKIPPED]
    assert 0 <= score <= 100
    assert (score == 100) == (bool(ran) and set(ran) == {Verdict.PASSED})
    assert (score == 0) == (Verdict.PASSED not in ran)


def test_a_finding_is_a_probe_that_passed_and_a_recommendation_one_that_failed():
    report = told([], probes=[probe(Verdict.PASSED), probe(Verdict.FAILED), probe(Verdict.SKIPPED)])
    assert ["said passed (A.1)"] == report.findings
    assert ["said failed: do this (A.1)"] == report.recommendations
    assert 50.0 == report.compliance_score


def test_a_report_survives_its_journey_as_json():
    report = told(
        [(START, decided(1)), (START, consent("granted")), (START, BreachDeclared(START, "INC-1", START))],
        probes=[probe(Verdict.PASSED)],
        requests=[line("a", START, START + DAY)],
        consents={"marketing": {"granted": 1}},
    )
    assert report == msgspec.json.decode(msgspec.json.encode(report), type=ComplianceReport)
