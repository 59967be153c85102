"""Facts are forever: what any version wrote is read as what it meant, and written again as the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import decode_entry, encode_entry
from kiki.shield.budget import Reason
from kiki.shield.fact import Decided, Fact, Halted, Opened, PolicyUsed, Refused, Settled, decode_fact

GOLDEN = Path(__file__).parents[1] / "shield" / "golden"
AT = 1_795_305_600_000_001
HOLD = "0123456789abcdef" * 2
PERSON = "customer:" + "fedcba9876543210" * 2

# One file for each; a file that is here stays for ever, and a fact that grew gets a new file beside the old.
WRITTEN = {
    "opened": Opened(AT, "0.1.0", "redis", "e1"),
    "policy": PolicyUsed(AT, b"budgets: []\n", "ops"),
    "spend": Decided("spend", AT, "", 0, [["platform:meta", PERSON]], [100_000_000], key=bytes(range(16))),
    "spend-many": Decided(
        "spend",
        AT,
        "e1",
        7,
        [["campaign:a"], []],
        [1, 2**63 - 1],
        [Refused(1, Reason.ABOVE_LIMIT, "all", "*", 60_000_000, 500_000_000, -5), Refused(0, Reason.HALTED, scope="*")],
        actor="svc",
        repeated=True,
    ),
    "refused": Decided(
        "spend", AT, "", 0, [[]], [5], [Refused(0, Reason.BUDGET_EXHAUSTED, "all", "*", 1, 2, 3, AT + 60_000_000)]
    ),
    "check": Decided("check", AT, "", 0, [[]], [1], ltv=600_000_000),
    "reserve": Decided("reserve", AT, "", 0, [["campaign:a"]], [80_000_000], hold=HOLD, deadline=AT + 1, hold_span=1),
    "record": Decided("record", AT, "", 0, [[]], [700_000_000], key=b"\xff" * 16),
    "commit": Settled("commit", AT, "", 3, HOLD, 64_200_000, 80_000_000, [["campaign:a"]], actual=64_200_000),
    "release": Settled("release", AT, "", 0, HOLD, 0, 80_000_000, actor="ops"),
    "expire": Settled("expire", AT, "", 0, HOLD, 80_000_000, 80_000_000, [[]]),
    "late": Settled("commit", AT, "", 0, HOLD, 0, 80_000_000, [[]], late=True, actual=1, key=bytes(16)),
    "halted": Halted(AT, "campaign:*", True, "ops", "runaway"),
}


def golden(name):
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text(encoding="ascii"))


@pytest.mark.parametrize("name", WRITTEN)
def test_a_golden_entry_means_what_it_meant(name):
    """Decoding the stored bytes gives the fact, and encoding that gives the stored bytes."""
    entry = decode_entry(golden(name))
    seq = list(WRITTEN).index(name)
    assert (seq, AT + seq, []) == (entry.seq, entry.recorded_at, entry.sealed)
    assert WRITTEN[name] == decode_fact(entry)
    assert golden(name) == encode_entry(entry.seq, entry.recorded_at, decode_fact(entry))


def test_every_kind_and_every_file_is_here():
    """No kind of fact is without a golden file, and no file is without its meaning."""
    assert set(get_args(Fact)) == {type(fact) for fact in WRITTEN.values()}
    assert sorted(WRITTEN) == sorted(each.stem for each in GOLDEN.glob("*.hex"))


def test_a_fact_of_a_later_kiki_is_read_as_far_as_it_is_known():
    """Facts grow at the end; a reader that does not know what came on top reads the rest."""
    data = golden("halted")
    assert data.count(b"\x96\xa6halted") == 1
    grown = data.replace(b"\x96\xa6halted", b"\x97\xa6halted").replace(b"\xa7runaway\x90", b"\xa7runaway\xa3new\x90")
    assert WRITTEN["halted"] == decode_fact(decode_entry(grown))


def test_an_unknown_kind_is_corruption():
    """A fact that no version wrote raises with its sequence."""
    data = golden("halted").replace(b"halted", b"melted")
    with pytest.raises(LedgerCorrupt, match="entry 12"):
        decode_fact(decode_entry(data))
