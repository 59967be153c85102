"""How fast evidence is written and checked, and in how much memory: signatures, tree, every entry, budgets and consent.

Each measurement runs in a fresh process, so that its peak memory is its own. Rates are per second of processor time, which
somebody else's work on the same machine lengthens less than the time on the wall: verifying is one thread that never waits.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Row, shown
from kiki.ledger.bundle import write_bundle
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.checkpoint import Signer, log_origin
from kiki.ledger.exhibit import chain_id, prove, stretch, verifier_key
from kiki.ledger.ledger import Append, Ledger
from kiki.ledger.live_verifier import verify_ledger
from kiki.ledger.proof_verifier import verify_proof
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.shield.audit_check import audit
from kiki.shield.fact import ConsentChanged, ConsentUsed, Decided, PolicyUsed
from kiki.shield.policy import Budget, Limit, Policy, single_budget
from kiki.shield.scope import Pattern

START = 1_795_341_600_000_000
ENTRIES = 1_000_000
SEED = bytes(32)
MINUTE = 60_000_000


def write_ledger(path: Path, persons: int) -> None:
    """Spends, 1000 a second; with `persons`, each of one of them, under consent and three budgets."""
    now = START
    ledger = Ledger(SqliteStore(path), lambda: now, SEED)
    policy = single_budget(10**15)
    if persons:
        budgets = [
            Budget("mail", Pattern("channel:mail"), (Limit(10**15, MINUTE), Limit(10**16, 1440 * MINUTE)), "marketing")
        ]
        budgets += [Budget("each", Pattern("customer:*"), (Limit(10**12, MINUTE),)), *policy.budgets]
        policy = Policy(tuple(budgets))
    ledger.append_all([Append(PolicyUsed(now, policy.dump()))])
    names = [f"{number:032x}" for number in range(persons)]
    if persons:
        ledger.append_all([Append(ConsentChanged(now, name, "marketing", "granted", "consent")) for name in names])
    batch: list[Append] = []
    for index in range(ENTRIES - persons - 1):
        now = START + index * 1000
        if persons:
            at = index % persons
            scopes = [["channel:mail", f"customer:{names[at]}"]]
            fact = Decided(
                "spend",
                now,
                "",
                0,
                scopes,
                [10_000],
                consents=[ConsentUsed(names[at], "marketing", ledger.chain, at + 1, given=True)],
            )
        else:
            fact = Decided("spend", now, "", 0, [[]], [10_000])
        batch.append(Append(fact))
        if len(batch) == 1000:
            ledger.append_all(batch)
            batch.clear()
    ledger.append_all(batch)
    ledger.checkpoint()
    ledger.close()


def measure(what: str, path: Path) -> None:
    """Print count, processor seconds and peak memory of one step, for the process that started this one."""
    reader = SqliteReader(path)
    key = verifier_key(reader, SEED)
    bundle = path.with_suffix(".kiki")
    before = time.process_time()
    count = ENTRIES
    # As `kiki audit verify` does: millions of small objects live as long as the check, and none is part of a cycle.
    gc.disable()
    if what == "bundle":
        with bundle.open("wb") as out:
            write_bundle(out, [stretch(reader).bundle], Signer(log_origin(chain_id(reader)), SEED), at=START)
    elif what == "ledger":
        _, report = audit(lambda on_entry: verify_ledger([reader], key, on_entry=on_entry))
        assert report.holds
    elif what == "file":
        with bundle.open("rb") as file:
            _, report = audit(lambda on_entry: verify_bundle(file, key, on_entry))
        assert report.holds
        assert report.decisions
    else:
        text = prove(reader, ENTRIES // 2, key)
        verify_proof(text, key)
        count = len(text)
    seconds = time.process_time() - before
    # Not ru_maxrss: that remembers the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps([count, seconds, int(status["VmHWM"].split()[0]) / 1024]))


def run() -> list[Row]:
    """All rows of this part."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for persons, name in ((0, "spends"), (100_000, "spends of 100,000 persons under consent and three budgets")):
            path = Path(directory) / f"{persons}.db"
            write_ledger(path, persons)
            for what in ("bundle", "file", "ledger", "proof"):
                code = "import sys; from pathlib import Path; from bench.evidence import measure; "
                code += "measure(sys.argv[1], Path(sys.argv[2]))"
                done = subprocess.run(
                    [sys.executable, "-c", code, what, str(path)],
                    check=True,
                    capture_output=True,
                    text=True,
                    env=os.environ,
                )
                count, seconds, peak = json.loads(done.stdout)
                if what == "proof":
                    label = f"proof of one of {ENTRIES:,} entries, made and checked: {count:,} bytes in"
                    rows.append(Row(label, f"{seconds:.3f} s", "< 50 kB, < 1 s", met=count < 50_000 and seconds < 1))
                    continue
                label = {"bundle": "bundle written", "file": "bundle verified", "ledger": "ledger verified"}[what]
                has_goal = what != "bundle"
                rate = count / seconds
                rows.append(Row(
                    f"{label}, {ENTRIES:,} {name}, peak memory {peak:.0f} MB", shown(rate),
                    "> 100 k/s" if has_goal else "", met=rate > 100_000 if has_goal else None,
                ))  # fmt: skip
    return rows
