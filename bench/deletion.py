"""Forgetting one person among a million: from the run of a verified request to a signed proof, over files on disk."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from bench.measure import Row, shown
from kiki.shield.consent import State
from kiki.shield.consent_change import import_change, said
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_proof import verify_request_proof

PERSONS = int(os.environ.get("BENCH_PERSONS", "1000000"))
AT_ONCE = 20_000
DELETIONS = 5


def _fill(desk: RequestDesk) -> float:
    """One consent, and so one entry, for each person; entries a second."""
    decider, start = desk.decider, time.perf_counter()
    for first in range(0, PERSONS, AT_ONCE):
        many = [
            said(f"customer-{number}", "marketing", State.GRANTED, decider.clock(), version="1")
            for number in range(first, min(first + AT_ONCE, PERSONS))
        ]
        decider.group.submit(import_change(many)).result()
    return PERSONS / (time.perf_counter() - start)


def _forget(desk: RequestDesk, customer: str) -> tuple[float, dict[str, float]]:
    record = desk.create(customer, "DELETION")
    desk.verify_identity(record.id, method="operator", actor="bench")
    parts: dict[str, float] = {}
    begun = [time.perf_counter()]

    def progress(system: str, step: str, outcome: str) -> None:
        now = time.perf_counter()
        if outcome:
            parts[f"{system} {step}"] = now - begun[0]
        begun[0] = now

    start = time.perf_counter()
    done = desk.run(record.id, progress)
    proof = desk.proof(record.id)
    took = time.perf_counter() - start
    assert done.state == "completed", done.state
    assert verify_request_proof(proof, desk.decider.ledger.signer.verifier_key).request == record.id
    assert desk.decider.subjects.find(f"customer:{customer}") is None
    return took, parts


def run() -> list[Row]:
    """All rows of this part."""
    with tempfile.TemporaryDirectory() as folder:
        desk = RequestDesk(
            open_decider(Path(folder) / "shield.db", None),
            packages=Path(folder) / "requests",
            audit_view=Path(folder) / "shield_audit_gdpr.csv",
        )
        rate = _fill(desk)
        runs = [_forget(desk, f"customer-{number * PERSONS // DELETIONS}") for number in range(DELETIONS)]
        took = sorted(seconds for seconds, _ in runs)
        parts = {name: max(found[name] for _, found in runs) for name in runs[0][1]}
        slowest = sorted(parts.items(), key=lambda part: -part[1])[:3]
        desk.close()
        desk.decider.close()
    return [
        Row(f"consents written, {PERSONS:,} persons", shown(rate)),
        Row(
            "deletion, read back and proved, median", f"{took[len(took) // 2]:.2f} s", "< 2 s", took[len(took) // 2] < 2
        ),
        Row("deletion, read back and proved, slowest", f"{took[-1]:.2f} s", "< 60 s", took[-1] < 60),
        *(Row(f"of it: {name}", f"{seconds:.2f} s") for name, seconds in slowest),
    ]
