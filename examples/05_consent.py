"""Consent in a script, without any server: what a customer said, what follows from it, and the proof of both."""

import tempfile
from datetime import timedelta
from pathlib import Path

from kiki import BudgetGuard, ConsentStore, SpendDenied
from kiki.errors import ConsentConflict, ConsentDenied

ledger = Path(tempfile.mkdtemp()) / "shield.db"

with ConsentStore.open(ledger) as consents:
    record = consents.grant(
        "customer-7",
        "marketing",
        version="2026-11",
        notice="May we write to you about new offers? You can stop it at any time.",
        method="form",
        expires_at=timedelta(days=365),
        ip_address="203.0.113.77",
    )
    print(f"granted by a {record.method}, seen from {record.network}, audit record {record.event_id}")

    # The same again changes nothing: a page may post on every visit.
    again = consents.grant(
        "customer-7",
        "marketing",
        version="2026-11",
        notice_sha256=record.notice,
        method="form",
        expires_at=record.expires_at,
    )
    print("said again, written again:", again.changed)

    # Whoever acts asks first.
    for purpose in ("marketing", "profiling"):
        try:
            consents.require("customer-7", purpose)
            print(f"{purpose}: go ahead")
        except ConsentDenied as denied:
            print(f"{purpose}: {denied}")

    # A browser that sends `Sec-GPC: 1` opts out of sharing and targeting. A later yes holds against that only when
    # the person was told of the conflict.
    consents.signal("customer-7", "1")
    try:
        consents.grant("customer-7", "targeting")
    except ConsentConflict as conflict:
        print("targeting:", conflict.hint)

# The guard over the same ledger asks the same consent, and each decision names the entry that it rested on.
with BudgetGuard.open(ledger, limit="500", window="60s") as guard:
    guard.spend("1.20", scopes={"customer": "customer-7"}, purpose="marketing")
    guard.consents.revoke("customer-7", "marketing", note="unsubscribed")
    try:
        guard.spend("1.20", scopes={"customer": "customer-7"}, purpose="marketing")
    except SpendDenied as denied:
        print("after the revocation:", denied.reason)

    for past in guard.consents.history("customer-7", "marketing"):
        print(f"{past.event_id} {past.state} {past.version}")
