"""Goes through a ledger for the compliance report: every fact of the period, every state of consent, every probe."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from kiki.ledger.ledger import first_recorded_since
from kiki.ledger.store import Reader
from kiki.shield.compliance_report import ComplianceReport, Period, Tally, report_of
from kiki.shield.consent import CONSENT, read_state, state_at, subject_and_purpose
from kiki.shield.evidence import chain_of, read_in_chunks
from kiki.shield.fact import decode_fact
from kiki.shield.probe import Surroundings, look_around

_BREATH_ENTRIES: Final = 256


def survey(around: Surroundings, period: Period) -> ComplianceReport:
    """The report about a period from whatever `around` lets one see; memory grows with days, never with entries.

    It takes a breath now and then, so that whoever decides in the same process need not wait for the interpreter.
    """
    return report_of(
        tally_of(around.reader, period),
        period,
        now=around.now,
        chain=chain_of(around.reader),
        probes=look_around(around),
        consents=consents_of(around.reader, around.now),
        requests=around.requests,
    )


def tally_of(reader: Reader, period: Period) -> Tally:
    """The counts of everything that was recorded in a period."""
    tally = Tally()
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


def _breathe(count: int) -> None:
    if count % _BREATH_ENTRIES == 0:
        time.sleep(0)
