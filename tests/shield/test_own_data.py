"""Our own stores as systems with personal data: what they hand over, and that nothing of a person is left in any byte."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from datetime import UTC, datetime
from hashlib import md5, sha1, sha256
from pathlib import Path

import pytest

from kiki.clock import to_iso
from kiki.ledger.checkpoint import VerifierKey, open_note
from kiki.ledger.ledger import CHECKPOINTS
from kiki.ledger.subjects import SUBJECTS
from kiki.shield.audit_view import AuditView
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.dsr import Kind, State
from kiki.shield.evidence_csv import COLUMNS
from kiki.shield.origin import origin_of
from kiki.shield.own_data import AuditViewData, ConsentData, EvidenceData
from kiki.shield.request_desk import RequestDesk
from kiki.shield.subject_data import Task
from tests.ledger.doubles import FakeClock

CANARY = "canary-7f3a@example.org"
SECRETS = {
    "customer": CANARY,
    "note": "note-canary-51c2",
    "agent": "AgentCanary/9.1",
    "ip": "203.0.113.209",
    "details": "details-canary-88e0",
    "requester": "requester-canary-02aa",
    "key": "key-canary-6b6b",
}


def needles(text: str) -> list[bytes]:
    """The text itself, and every unkeyed hash of it that somebody could look up."""
    data = text.encode()
    found = [data]
    for algorithm in (md5, sha1, sha256):
        digest = algorithm(data)
        found += [digest.digest(), digest.hexdigest().encode()]
    return found


def files_with(folder: Path, needle: bytes) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


@pytest.fixture
def guard(tmp_path: Path):
    with BudgetGuard.open(tmp_path / "data" / "shield.db", limit="1000", window="60s") as opened:
        yield opened


@pytest.fixture
def desk(guard: BudgetGuard, tmp_path: Path):
    desk = RequestDesk(
        guard.decider,
        consents=guard.consents,
        packages=tmp_path / "data" / "requests",
        audit_view=tmp_path / "data" / "shield_audit_gdpr.csv",
    )
    yield desk
    desk.close()


def live(guard: BudgetGuard, folder: Path) -> AuditView:
    view = AuditView(folder / "data" / "shield.db", folder / "data" / "shield_audit_gdpr.csv")
    view.catch_up()
    return view


def plant(guard: BudgetGuard, desk: RequestDesk) -> str:
    """Everything that kiki can know of a person; the id of an access request that was run."""
    for customer in (CANARY, "bystander"):
        guard.consents.grant(
            customer,
            "marketing",
            ip_address=SECRETS["ip"],
            user_agent=SECRETS["agent"],
            note=SECRETS["note"] if customer == CANARY else "",
        )
        guard.spend("1", scopes={"customer": customer}, purpose="marketing", key=f"{SECRETS['key']}-{customer}")
    record = desk.create(
        CANARY,
        "ACCESS",
        details=SECRETS["details"],
        requested_by=SECRETS["requester"],
        ip_address=SECRETS["ip"],
        user_agent=SECRETS["agent"],
        key=SECRETS["key"],
    )
    desk.verify_identity(record.id, method="operator", actor="anna", note=SECRETS["note"])
    assert State.COMPLETED is desk.run(record.id).state
    return record.id


@pytest.mark.parametrize(("days", "until"), [(2555, "2033-11-29"), (2600, "2034-01-11"), (30, "2026-12-29")])
def test_what_stays_is_said_to_stay_until_pruning_lets_it_go(days: int, until: str):
    """From 2555 days on that is seven calendar years, and an outcome that names an earlier day would be wrong."""
    moment = datetime(2026, 11, 29, 12, tzinfo=UTC)
    clock = FakeClock(now=round(moment.timestamp() * 1_000_000))
    with BudgetGuard.open(limit="1", clock=clock) as guard:
        systems = ConsentData(guard.consents, days), EvidenceData(guard.decider, days)
        view = AuditViewData(Path("nowhere/shield_audit_gdpr.csv"), clock, days)
        task = Task("DSR-1-00000000", Kind.DELETION, "c", "ab" * 16)
        for system in (*systems, view):
            assert [until] == [to_iso(kept.until)[:10] for kept in system.erase(task).kept]


def test_before_and_after_a_deletion_no_byte_of_the_person_stands_in_clear(guard, desk, tmp_path):
    request = plant(guard, desk)
    view = live(guard, tmp_path)
    subjects, ledger = guard.decider.subjects, guard.decider.ledger
    reference = subjects.find(f"customer:{CANARY}").reference
    wrapped = subjects.store.get(SUBJECTS, bytes.fromhex(reference))
    lookup = subjects.keyed_hash(f"customer:{CANARY}")
    before = [note for _, note in ledger.store.scan(CHECKPOINTS)]
    package = zipfile.ZipFile(io.BytesIO(b"".join(desk.package(request))))
    assert SECRETS["details"].encode() in package.read("evidence/evidence.jsonl")
    folder = tmp_path / "data"
    for text in SECRETS.values():
        for needle in needles(text):
            assert [] == files_with(folder, needle), text
    deletion = desk.create(CANARY, "DELETION")
    desk.verify_identity(deletion.id, method="operator", actor="anna")
    assert State.COMPLETED is desk.run(deletion.id).state
    view.catch_up()
    view.close()
    for text in SECRETS.values():
        for needle in needles(text):
            assert [] == files_with(folder, needle), text
    # The key as it was wrapped, and the way from the name to the reference, are gone from every file.
    for needle in (lookup, wrapped[10:60]):
        assert [] == files_with(folder, needle)
    assert [] == list((folder / "requests").iterdir())
    # The reference stays, and every checkpoint that was ever issued still verifies.
    assert files_with(folder, reference.encode())
    key = VerifierKey.parse(ledger.signer.verifier_key)
    after = [note for _, note in ledger.store.scan(CHECKPOINTS)]
    assert before == after[: len(before)]
    for note in after:
        open_note(note, key)
    assert guard.consents.check("bystander", "marketing")


def test_evidence_hands_over_the_persons_decisions_and_nobody_elses(guard, desk):
    guard.consents.grant("c-2", "marketing")
    guard.spend_many([("1", {"customer": "c-1"}), ("2", {"customer": "c-2"}), ("3", {"platform": "meta"})])
    other = guard.decider.subjects.find("customer:c-2").reference
    record = desk.create("c-1", "ACCESS", details="mine")
    desk.verify_identity(record.id, method="operator", actor="anna")
    desk.run(record.id)
    package = zipfile.ZipFile(io.BytesIO(b"".join(desk.package(record.id))))
    lines = [json.loads(line) for line in package.read("evidence/evidence.jsonl").splitlines()]
    assert ["1.00"] == [line["amount"] for line in lines if line["verb"] == "spend"]
    assert all(line["customer_id"] == "c-1" and "actor" not in line for line in lines)
    rows = list(csv.DictReader(io.StringIO(package.read("evidence/evidence.csv").decode())))
    assert len(lines) == len(rows)
    assert list(COLUMNS) == list(rows[0])
    for name in package.namelist():
        assert not any(needle in package.read(name) for needle in (b"c-2", other.encode(), b"anna")), name


def test_the_origin_of_a_call_is_handed_over_as_it_was(guard, desk):
    guard.decider.group.submit(_spend_from(guard, "c-1", "198.51.100.23", "curl/8")).result()
    record = desk.create("c-1", "ACCESS")
    desk.verify_identity(record.id, method="operator", actor="anna")
    desk.run(record.id)
    package = zipfile.ZipFile(io.BytesIO(b"".join(desk.package(record.id))))
    first = json.loads(package.read("evidence/evidence.jsonl").splitlines()[0])
    assert [{"ip": "198.51.100.23", "agent": "curl/8"}] == first["sealed"]


def _spend_from(guard, customer: str, ip: str, agent: str):
    from msgspec.structs import replace

    from kiki.shield.call import spend_call

    return replace(spend_call("1", {"customer": customer}, None), origin=origin_of(ip, agent))


TASK = Task("DSR-1-00000000", Kind.DELETION, "c-1", "ab" * 16)


def row(user: str = "", customer: str = "", resource: str = "ltv", reason: str = "") -> str:
    fields = ["2026-11-22T10:00:00Z", "0" * 16, "INFO", "bid", user, customer, "spend", resource, "APPROVED", reason]
    line = io.StringIO()
    csv.writer(line).writerow([*fields, "", "[]", "2555"])
    return line.getvalue()


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (row(), 0),
        (row(customer="ab" * 16), 0),
        (row(customer="c-1"), 1),
        (row(user="c-1"), 1),
        (row(resource="platform:meta customer:c-1"), 1),
        (row(resource="customer:c-10"), 0),
        (row(resource="campaign:c-1"), 0),
        (row(reason="c-1"), 0),
        ("\x00\xff broken ,c-1,\n", 0),
    ],
)
def test_the_audit_view_is_read_back_by_columns_so_that_no_short_id_blocks_an_erasure(tmp_path, line: str, left: int):
    path = tmp_path / "shield_audit_gdpr.csv"
    path.write_text(",".join(COLUMNS) + "\n" + line, encoding="utf-8", errors="surrogateescape")
    (tmp_path / "shield_audit_gdpr.00aa.csv").write_text(row(customer="c-1"))
    data = AuditViewData(path, lambda: 0, 2555)
    assert left + 1 == data.verify(TASK).left
    assert ("ab" * 16 in line) == data.locate(TASK).records


def test_without_an_audit_view_there_is_nothing_to_read(tmp_path):
    data = AuditViewData(tmp_path / "none" / "shield_audit_gdpr.csv", lambda: 0, 2555)
    assert (0, 0) == (data.locate(TASK).records, data.verify(TASK).left)


def test_consent_is_taken_back_before_anything_is_erased(guard, desk):
    guard.consents.grant("c-1", "marketing")
    guard.consents.grant("c-1", "analytics")
    record = desk.create("c-1", "DELETION")
    desk.verify_identity(record.id, method="operator", actor="anna")
    desk.hold("m")
    desk.run(record.id)
    assert not guard.consents.check("c-1", "marketing")
    assert {"request"} == {found.method for found in guard.consents.status("c-1").values()}
