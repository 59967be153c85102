"""Lists of consent: read and written again as they were, a bad line costs itself, and a second run changes nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput, LedgerUnavailable
from kiki.shield.consent import Basis, Method, State
from kiki.shield.consent_change import Given
from kiki.shield.consent_csv import COLUMNS, parse_header, parse_when, row_of, said_of_row
from kiki.shield.consent_files import Format, ImportReport, export_consents, import_consents
from kiki.shield.consent_json import (
    SCHEMA,
    Party,
    Receipt,
    read_record,
    record_json,
    said_of_record,
)
from kiki.shield.consent_store import ConsentStore
from kiki.shield.consent_words import SAID_METHODS
from kiki.shield.enforcer import Enforcer
from tests.ledger.doubles import FakeClock

ROOT = Path(__file__).parents[2]
NOW = 1_700_000_000_000_000
DAY = 24 * 3600 * 1_000_000


@pytest.fixture
def store():
    with ConsentStore.open(clock=FakeClock()) as opened:
        yield opened


def bring(store: ConsentStore, text: str, form: Format = Format.CSV, **more) -> ImportReport:
    report = ImportReport()
    import_consents(store, io.StringIO(text, newline=""), form, report=report, **more)
    return report


def told(report: ImportReport) -> tuple[int, int, int, int, int]:
    return report.rows, report.changed, report.unchanged, report.suppressed, report.bad


def carried_out(store: ConsentStore, form: Format, **more) -> str:
    parts: list[str] = []
    export_consents(store, parts.append, form, **more)
    return "".join(parts)


# -- CSV ---------------------------------------------------------------------------------------------


def test_a_short_list_is_enough(store: ConsentStore):
    report = bring(store, "customer_id,purpose,state\nc-1,marketing,granted\nc-2,analytics,denied\n")
    assert ((2, 2, 0, 0, 0), 3) == (told(report), report.durable_line)
    assert store.check("c-1", "marketing")
    assert Method.IMPORT == store.status("c-2")["analytics"].method


def test_the_columns_of_the_system_before_this_one_are_understood(store: ConsentStore):
    bring(store, "Status,customer_id,consent_type,expires_at,Legal_Basis\nGRANTED,c-1,marketing,2023-12-01,Consent\n")
    assert store.check("c-1", "marketing")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "customer_id' is missing"),
        ("customer_id,purpose", "state' is missing"),
        ("customer_id,purpose,state,expires", "'expires' is not known"),
        ("customer_id,purpose,state,status", "stands twice"),
        ("c-1,marketing,granted", "'c-1' is not known"),
        ('"customer_id', "not CSV"),
    ],
)
def test_a_file_whose_first_line_makes_no_sense_is_refused_whole(store: ConsentStore, header, words):
    with pytest.raises(InvalidInput, match=words):
        bring(store, f"{header}\nc-1,marketing,granted\n" if header else "")


def test_a_bad_line_is_named_and_costs_only_itself(store: ConsentStore):
    lines = [
        "customer_id,purpose,state,said_at,expires_at,note",
        "c-1,marketing,granted,,,",
        ",marketing,granted,,,",
        f"{'x' * 1024},marketing,granted,,,",
        "c-4,spam,granted,,,",
        "c-5,marketing,perhaps,,,",
        "c-6,marketing,granted,yesterday,,",
        "c-7,marketing,granted,2099-01-01,,",
        "c-8,marketing,granted,2023-01-01,2022-01-01,",
        "c-9,marketing,granted",
        "c-10,marketing,granted,,,,,",
        "",
        "c-12,marketing,granted,,,\udcff",
        "c-13,marketing,granted,2022-01-01,2023-01-01,ran out",
        'c-14,marketing,granted,,,"two',
        'lines"',
        "c-16,marketing,revoked,2023-02-30,,",
    ]
    report = bring(store, "\n".join(lines) + "\n")
    assert [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 17] == [problem.line for problem in report.problems]
    assert (14, 3, 11) == (report.rows, report.changed, report.bad)
    assert not any("x" * 20 in problem.message for problem in report.problems)
    assert ["c-1", "c-13", "c-14"] == sorted(record.customer for record in store.records())


def test_a_quote_that_is_never_closed_is_told_and_what_came_before_is_kept(store: ConsentStore):
    report = bring(
        store, 'customer_id,purpose,state\nc-1,marketing,granted\nc-2,"marketing,granted\nc-3,marketing,granted\n'
    )
    assert (1, [4]) == (report.changed, [problem.line for problem in report.problems])


def test_a_second_run_changes_nothing_with_moments_and_without(store: ConsentStore):
    text = (
        "customer_id,purpose,state,said_at\n"
        "c-1,marketing,granted,2023-01-01\nc-1,marketing,revoked,2023-02-01\nc-1,marketing,granted,2023-03-01\n"
        "c-2,marketing,granted,\nc-3,marketing,revoked,\n"
    )
    first = bring(store, text)
    before = store.decider.ledger.next_seq
    second = bring(store, text)
    assert ((5, 5, 0, 0, 0), (5, 0, 5, 0, 0)) == (told(first), told(second))
    assert before == store.decider.ledger.next_seq


def test_an_old_list_never_outranks_what_the_customer_said_since(store: ConsentStore):
    store.grant("c-1", "marketing")
    store.revoke("c-1", "marketing")
    store.signal("c-2")
    text = "customer_id,purpose,state,said_at\nc-1,marketing,granted,2020-01-01\nc-1,marketing,granted,\nc-2,targeting,granted,2020-01-01\n"
    assert (3, 0, 2, 0, 1) == told(bring(store, text))
    assert not store.check("c-1", "marketing")


def test_an_erased_person_is_not_brought_back(store: ConsentStore):
    store.grant("c-1", "marketing")
    store.decider.forget("customer:c-1")
    report = bring(store, "customer_id,purpose,state\nc-1,marketing,granted\nc-2,marketing,granted\n")
    assert (2, 1, 0, 1, 0) == told(report)
    assert {} == store.status("c-1")
    assert store.decider.subjects.find("customer:c-1") is None


def test_an_import_goes_on_behind_a_line(store: ConsentStore):
    text = "customer_id,purpose,state\n" + "".join(f"c-{number},marketing,granted\n" for number in range(10))
    report = bring(store, text, after_line=6)
    assert (5, 11) == (report.changed, report.durable_line)
    assert not store.check("c-4", "marketing")
    assert store.check("c-5", "marketing")


def test_progress_tells_what_is_durable_batch_by_batch(store: ConsentStore):
    lines: list[tuple[int, int]] = []
    text = "customer_id,purpose,state\n" + "".join(f"c-{number},marketing,granted\n" for number in range(25))
    bring(store, text, batch_max=10, progress=lambda report: lines.append((report.durable_line, report.changed)))
    assert [(11, 10), (21, 20), (26, 25)] == lines


def test_when_the_disk_is_full_the_report_tells_how_far_it_is(store: ConsentStore):
    text = "customer_id,purpose,state\n" + "".join(f"c-{number},marketing,granted\n" for number in range(25))
    disk = store.decider.ledger.store
    report = ImportReport()

    def fill(now: ImportReport) -> None:
        disk.fail = "no space left"

    with pytest.raises(LedgerUnavailable):
        import_consents(store, io.StringIO(text), Format.CSV, report=report, batch_max=10, progress=fill)
    assert (11, 10) == (report.durable_line, report.changed)


def test_an_import_that_takes_consent_back_waits_for_those_who_hold_it():
    with ConsentStore.open() as store:
        store.grant("c-1", "marketing")
        enforcer = Enforcer(lambda customer, purpose: store.lease(customer, purpose, "worker-1"))
        assert enforcer.allows("c-1", "marketing")
        bring(store, "customer_id,purpose,state\nc-1,marketing,revoked\n")
        assert not enforcer.allows("c-1", "marketing")


def test_spreadsheets_find_no_formula(store: ConsentStore):
    store.grant("=HYPERLINK(1)", "marketing", note="@SUM(1)")
    text = carried_out(store, Format.CSV)
    assert "\n'=HYPERLINK(1),marketing" in text
    assert ",'@SUM(1)," in text


# -- there and back ----------------------------------------------------------------------------------

printable = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=12)
customers = printable.filter(lambda text: text not in {"", "*"})
moments = st.integers(NOW - 1000 * DAY, NOW - 1)


@st.composite
def given_along(draw) -> Given:
    made: Given = {
        "version": draw(printable),
        "basis": draw(st.sampled_from(Basis)),
        "method": draw(st.sampled_from(SAID_METHODS)),
        "jurisdiction": draw(printable),
        "guardian": draw(printable),
        "ip_address": draw(st.sampled_from(["", "203.0.113.7", "2001:db8::1"])),
        "user_agent": draw(printable),
        "note": draw(st.text(st.sampled_from("ab='\"+-,\n;\r\t "), max_size=10)),
        "overrides": draw(st.booleans()),
        "said_at": draw(moments),
    }
    if draw(st.booleans()):
        made["expires_at"] = NOW + draw(st.integers(1, 1000 * DAY))
    return made


statements = st.lists(
    st.tuples(
        customers,
        st.sampled_from(["marketing", "analytics"]),
        st.sampled_from([State.GRANTED, State.DENIED, State.REVOKED]),
        given_along(),
    ),
    max_size=5,
)


def filled(said, clock: FakeClock) -> ConsentStore:
    store = ConsentStore.open(clock=clock)
    for customer, purpose, state, along in said:
        store.say(store.said(customer, purpose, state, **along))
    return store


def plain(store: ConsentStore, *, history: bool) -> dict[str, list[dict]]:
    """Everything that is known of everybody, without the places in the ledger and the times of writing."""
    found = {}
    for customer in {record.customer for record in store.records()}:
        records = store.history(customer) if history else store.status(customer).values()
        found[customer] = sorted(
            (
                {
                    name: value
                    for name, value in record.as_dict().items()
                    if name not in {"at", "event_id", "granted_at"} and (history or name != "notice_text")
                }
                for record in records
            ),
            key=lambda each: (each["purpose"], each["said_at"]),
        )
    return found


@given(statements)
def test_what_is_exported_as_csv_is_imported_as_it_was(said):
    clock = FakeClock(NOW)
    with filled(said, clock) as one, ConsentStore.open(clock=clock) as other:
        text = carried_out(one, Format.CSV)
        report = bring(other, text)
        assert (0, report.rows) == (report.bad, report.changed)
        assert plain(one, history=False) == plain(other, history=False)
        assert sorted(text.splitlines()) == sorted(carried_out(other, Format.CSV).splitlines())


@given(statements)
def test_what_is_exported_as_records_is_imported_with_its_history(said):
    clock = FakeClock(NOW)
    with filled(said, clock) as one, ConsentStore.open(clock=clock) as other:
        text = carried_out(one, Format.JSON)
        report = bring(other, text, Format.JSON)
        assert 0 == report.bad
        assert plain(one, history=True) == plain(other, history=True)


@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), printable), max_size=4))
def test_any_row_is_read_or_refused_with_a_sentence(rows):
    for row in rows:
        full = {name: row.get(name, "") for name in COLUMNS}
        with suppress(InvalidInput):
            said_of_row(full, NOW, ["marketing"])


@given(st.text(max_size=200))
def test_any_text_is_imported_or_refused_with_a_sentence(text):
    with ConsentStore.open(clock=FakeClock(NOW)) as store:
        for form in Format:
            with suppress(InvalidInput):
                bring(store, text, form)


# -- records of ISO/IEC TS 27560 ---------------------------------------------------------------------


def test_a_record_has_the_parts_of_the_standard(store: ConsentStore):
    store.grant(
        "c-1", "marketing", version="3", notice="We write on Fridays.", expires_at=timedelta(days=1), guardian="Ada"
    )
    store.revoke("c-1", "marketing")
    controller = Party(party_id="controller", party_role="pii_controller", party_name="Example Ltd")
    found = json.loads(carried_out(store, Format.JSON, controller=controller, withdrawal="https://example.org/stop"))
    assert (SCHEMA, "c-1") == (found["schema_version"], found["pii_principal_id"])
    assert found["record_id"].startswith("urn:kiki:consent:")
    assert {
        "purpose": "marketing",
        "lawful_basis": "consent",
        "withdrawal_method": "https://example.org/stop",
        "pii_controllers": ["controller"],
        "privacy_rights": ["access", "rectification", "erasure", "portability", "objection", "withdrawal"],
    } == found["pii_processing"]
    assert [{"party_id": "controller", "party_role": "pii_controller", "party_name": "Example Ltd"}] == found[
        "party_identification"
    ]
    assert [("given", "explicit", "guardian"), ("withdrawn", "explicit", "pii_principal")] == [
        (event["event_state"], event["event_type"], event["expressed_by"]) for event in found["events"]
    ]
    assert "We write on Fridays." == found["events"][0]["notice"]["text"]


def test_a_receipt_is_a_copy_with_an_id_and_a_moment_of_its_own(store: ConsentStore):
    store.grant("c-1", "marketing")
    receipt = store.receipt("c-1", "marketing")
    again = store.receipt("c-1", "marketing")
    assert receipt.record == again.record
    assert receipt.receipt_id != again.receipt_id
    assert receipt == msgspec.json.decode(msgspec.json.encode(receipt), type=Receipt)


def test_records_of_others_are_read_and_what_we_do_not_know_is_left_alone(store: ConsentStore):
    foreign = {
        "schema_version": "ISO/IEC TS 27560:2023",
        "record_id": "42",
        "pii_principal_id": "c-1",
        "pii_processing": {"purpose": "marketing", "storage_locations": ["EU"]},
        "codes_of_conduct": ["x"],
        "events": [
            {"event_time": "2023-02-01T00:00:00Z", "event_state": "withdrawn"},
            {"event_time": "2023-01-01T00:00:00+01:00", "event_state": "given", "validity_duration": "P1Y"},
        ],
    }
    assert (1, 2, 0, 0, 0) == told(bring(store, json.dumps(foreign) + "\n\n", Format.JSON))
    assert ["granted", "revoked"] == [record.state for record in store.history("c-1")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no consent record"),
        ("null", "no consent record"),
        ("[]", "no consent record"),
        ("{}", "missing required field"),
        ('{"schema_version": "2"}', "missing required field"),
        ("[" * 100_000, "no consent record"),
        (
            '{"schema_version":"KI-CR-v1.1.0","record_id":"1","pii_principal_id":"c","pii_processing":{"purpose":"x"},"events":[]}',
            "write 'ISO/IEC TS 27560:2023'",
        ),
    ],
)
def test_what_is_no_record_is_refused(text, words):
    with pytest.raises(InvalidInput, match=words):
        read_record(text)


def test_a_bad_event_refuses_its_whole_record(store: ConsentStore):
    store.grant("c-1", "marketing")
    record = record_json(store.history("c-1"))
    bad = msgspec.structs.replace(record.events[0], event_state="maybe")
    with pytest.raises(InvalidInput, match="given, refused, withdrawn"):
        said_of_record(msgspec.structs.replace(record, events=[*record.events, bad]), NOW, store.purposes)


def test_an_array_of_records_is_refused_with_the_way_out(store: ConsentStore):
    with pytest.raises(InvalidInput, match="one record a line"):
        bring(store, "[{}]", Format.JSON)


# -- killed ------------------------------------------------------------------------------------------

IMPORTER = """
import sys
from kiki.shield.consent_files import Format, ImportReport, import_consents
from kiki.shield.consent_store import ConsentStore

with ConsentStore.open(sys.argv[1]) as store, open(sys.argv[2]) as source:
    import_consents(
        store, source, Format.CSV, report=ImportReport(), batch_max=50,
        progress=lambda report: print(report.durable_line, flush=True),
    )
"""


def test_an_import_killed_anywhere_is_finished_by_running_it_again(tmp_path: Path):
    """What was told as durable is there after a kill -9, and the second run writes only the rest."""
    source, ledger = tmp_path / "list.csv", tmp_path / "shield.db"
    count = 5000
    source.write_text(
        "customer_id,purpose,state,said_at\n"
        + "".join(f"c-{number},marketing,granted,2023-01-01\n" for number in range(count))
    )
    # It is not given the end of the list, so that it cannot come to it, however late it is killed.
    fed, killed = tmp_path / "fed.csv", threading.Event()
    os.mkfifo(fed)

    def feed() -> None:
        with suppress(BrokenPipeError), fed.open("w") as pipe:
            pipe.writelines(source.read_text().splitlines(keepends=True)[: count - 500])
            pipe.flush()
            killed.wait()

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    importer = subprocess.Popen(
        [sys.executable, "-c", IMPORTER, str(ledger), str(fed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    durable = int(importer.stdout.readline())
    time.sleep(0.05)
    importer.send_signal(signal.SIGKILL)
    durable = max([durable, *map(int, importer.stdout.read().split())])
    importer.wait()
    importer.stdout.close()
    killed.set()
    feeding.join()
    with ConsentStore.open(ledger) as store, source.open() as lines:
        present = sum(1 for _ in store.records(sealed=False))
        assert durable - 1 <= present < count
        report = ImportReport()
        import_consents(store, lines, Format.CSV, report=report)
        assert (count - present, present) == (report.changed, report.unchanged)


def test_the_header_and_the_moments_are_read_alike_by_everybody():
    assert ["customer_id", "purpose", "state"] == parse_header([" Customer_ID", "type", "STATUS "])
    assert parse_when("2023-01-01") == parse_when("2023-01-01T00:00:00Z") == parse_when("2023-01-01T01:00:00+01:00")
    assert len(COLUMNS) == len(row_of_nobody())


def row_of_nobody() -> list[str]:
    with ConsentStore.open() as store:
        store.grant("c-1", "marketing")
        return next(csv.reader([",".join(row_of(record)) for record in store.records()]))
