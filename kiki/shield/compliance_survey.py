"""Goes through a ledger for the compliance report: every fact of the period, every state of consent, every probe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final

from kiki.clock import to_iso
from kiki.ledger.ledger import first_recorded_since
from kiki.ledger.store import Reader
from kiki.shield.compliance_report import ComplianceReport, Period, RequestLine, Tally, report_of
from kiki.shield.consent import CONSENT, read_state, state_at, subject_and_purpose
from kiki.shield.evidence import chain_of, read_in_chunks
from kiki.shield.fact import decode_fact
from kiki.shield.legal_hold import LEGAL_HOLD, holds_prefix
from kiki.shield.probe import Surroundings, look_around
from kiki.shield.subject_request import REQUEST, SubjectRequest, read_request

_BREATH_ENTRIES: Final = 256


def survey(around: Surroundings, period: Period) -> ComplianceReport:
    """The report about a period from whatever `around` lets one see; memory grows with days, never with entries.

    It takes a breath now and then, so that whoever decides in the same process need not wait for the interpreter.
    """
    readers = (around.reader, *around.others)
    return report_of(
        tally_of(readers, period),
        period,
        now=around.now,
        chains=[chain_of(reader) for reader in readers],
        probes=look_around(around),
        consents=consents_of(around.reader, around.now),
        requests=around.requests,
    )


def tally_of(readers: Iterable[Reader], period: Period) -> Tally:
    """The counts of everything that was recorded in a period, in any of the chains."""
    tally = Tally()
    for reader in readers:
        end = reader.next_seq()
        first = first_recorded_since(reader, period.since)
        for count, entry in enumerate(read_in_chunks(reader, first, end - 1), 1):
            if entry.recorded_at >= period.until:
                break
            tally.add(entry.recorded_at, decode_fact(entry))
            _breathe(count)
    return tally


def consents_of(reader: Reader, now: int) -> dict[str, Counter[str]]:
    """How many persons are in each state of each purpose now."""
    found: dict[str, Counter[str]] = {}
    for count, (key, value) in enumerate(reader.scan(CONSENT), 1):
        _, purpose = subject_and_purpose(key)
        found.setdefault(purpose, Counter())[state_at(read_state(value), now)] += 1
        _breathe(count)
    return found


def request_lines(reader: Reader) -> list[RequestLine]:
    """Every request with the due date that was last written down for it."""
    found: list[RequestLine] = []
    for _, value in reader.scan(REQUEST):
        request = read_request(value)
        if request is not None:
            due = next((each.fact.due_at for each in reversed(request.events) if each.fact.due_at is not None), None)
            found.append(line_of(request, due))
    return found


def everything_is_held(reader: Reader) -> bool:
    """Whether a legal hold on everybody is on."""
    return any(key.startswith(holds_prefix("")) for key, _ in islice(reader.scan(LEGAL_HOLD), 1))


def line_of(request: SubjectRequest, due_at: int | None) -> RequestLine:
    """A request as the report shows it."""
    return RequestLine(
        request=request.id,
        kind=request.kind.value,
        state=request.state.value,
        received_at=to_iso(request.received_at),
        due_at=None if due_at is None else to_iso(due_at),
        closed_at=None if request.closed_at is None else to_iso(request.closed_at),
    )


def _breathe(count: int) -> None:
    if count % _BREATH_ENTRIES == 0:
        time.sleep(0)
