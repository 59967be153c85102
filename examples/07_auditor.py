"""An auditor's check: one file and one key, offline. Everything holds; one altered byte, or one spend too many, does not."""

import io
import tempfile
from pathlib import Path

from kiki import BudgetGuard, SpendDenied
from kiki.errors import EvidenceInvalid
from kiki.ledger.bundle import write_bundle
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.checkpoint import Signer, log_origin
from kiki.ledger.entry import encode_entry
from kiki.ledger.exhibit import chain_id, seal, stretch, verifier_key
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.audit_check import OnEntry, audit
from kiki.shield.fact import Decided

folder = Path(tempfile.mkdtemp())

# -- the operator decides, and hands out a key once and a file when asked ----------------------------

with BudgetGuard.open(folder / "shield.db", limit="100", window="60s") as guard:
    guard.consents.grant("customer-7", "marketing", version="2026-11")
    guard.spend("60", {"platform": "meta"})
    guard.spend("30", {"customer": "customer-7"}, purpose="marketing")
    try:
        guard.spend("20")
    except SpendDenied as denied:
        print("refused:", denied)
    seed = guard.decider.subjects.signing_seed

# The same as `kiki audit key` and `kiki audit bundle -o evidence.kiki`.
seal(folder / "shield.db", seed)
reader = SqliteReader(folder / "shield.db")
key = verifier_key(reader, seed)
bundle = io.BytesIO()
write_bundle(bundle, [stretch(reader).bundle], Signer(log_origin(chain_id(reader)), seed), at=1_800_000_000_000_000)
evidence = bundle.getvalue()

# -- the auditor has only these two; the same as `kiki audit verify evidence.kiki --key KEY` ---------

verified, report = audit(lambda on_entry: verify_bundle(io.BytesIO(evidence), key, on_entry))
print("trusted:", verified.trusted, "| entries:", verified.entries, "| findings:", report.finding_count)
print("decisions:", report.decisions, "| resting on consent:", report.consents, "| holds:", report.holds)

# One bit of one entry.
altered = bytearray(evidence)
altered[evidence.index(b"platform:meta")] ^= 1
try:
    verify_bundle(io.BytesIO(altered), key)
except EvidenceInvalid as error:
    print("altered:", str(error).partition(", byte")[0].partition(", ")[2])

# One spend that the budget never admitted, in a history that is signed anew: the sums say so.
entries = [*reader.entries()]
last = report.chains[0].to_at
entries.append((len(entries), encode_entry(len(entries), last, Decided("spend", last, "", 0, [[]], [40_000_000]))))


def replayed(on_entry: OnEntry) -> None:
    for seq, data in entries:
        on_entry(report.chains[0].chain, seq, data)


_, forged = audit(replayed)
over = forged.findings[0].overrun
print(f"forged: {over.spent // 1_000_000} of {over.limit // 1_000_000} in one window of budget {over.budget!r}")
reader.close()
