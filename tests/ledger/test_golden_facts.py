"""Facts are forever: what any version wrote is read as what it meant, and written again as the same bytes.

`python -m tests.ledger.test_golden_facts` writes the files that are missing and changes none that is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import Sealed, decode_entry, encode_entry
from kiki.shield.budget import Reason
from kiki.shield.fact import (
    BreachDeclared,
    ConsentChanged,
    ConsentUsed,
    Decided,
    Fact,
    Halted,
    LegalHeld,
    Noted,
    Opened,
    PolicyUsed,
    Pruned,
    Refused,
    RequestChanged,
    Settled,
    decode_fact,
)

GOLDEN = Path(__file__).parents[1] / "shield" / "golden"
AT = 1_795_305_600_000_001
HOLD = "0123456789abcdef" * 2
PERSON = "customer:" + "fedcba9876543210" * 2

REFERENCE = "fedcba9876543210" * 2

# One file for each; a file that is here stays for ever, and a fact that grew gets a new file beside the old.
VERSION_1 = {
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


SEALED = [Sealed(bytes(range(16)), bytes(range(24)), bytes(range(32)), b"ciphertext")]

VERSION_2 = {
    "opened-2": Opened(AT, "0.2.0", "redis", "e1", "0123456789abcdef"),
    "policy-2": PolicyUsed(AT, b'{"budgets":[],"currency":"USD"}', "ops"),
    "spend-2": Decided(
        "spend",
        AT,
        "",
        0,
        [["platform:meta", PERSON]],
        [100_000_000],
        key=bytes(range(16)),
        network="203.0.113.0/24",
        purpose="marketing",
        consents=[ConsentUsed(REFERENCE, "marketing", "0123456789abcdef", 41, given=True)],
    ),
    "spend-many-2": Decided(
        "spend",
        AT,
        "e1",
        7,
        [[PERSON], []],
        [1, 2],
        [Refused(0, Reason.CONSENT_MISSING, scope=PERSON, purpose="profiling")],
        actor="svc",
        repeated=True,
        network="2001:db8:1::/48",
        consents=[ConsentUsed(REFERENCE, "profiling")],
    ),
    "refused-2": Decided(
        "spend", AT, "", 0, [[]], [5], [Refused(0, Reason.BUDGET_EXHAUSTED, "all", "*", 1, 2, 3, AT + 60_000_000)]
    ),
    "check-2": Decided("check", AT, "", 0, [[]], [1], ltv=600_000_000),
    "reserve-2": Decided("reserve", AT, "", 0, [["campaign:a"]], [80_000_000], hold=HOLD, deadline=AT + 1, hold_span=1),
    "record-2": Decided("record", AT, "", 0, [[]], [700_000_000], key=b"\xff" * 16),
    "commit-2": Settled(
        *("commit", AT, "", 3, HOLD, 64_200_000, 80_000_000, [["campaign:a"]]),
        actual=64_200_000,
        key=bytes(16),
        network="192.0.2.0/24",
    ),
    "release-2": Settled("release", AT, "", 0, HOLD, 0, 80_000_000, actor="ops"),
    "expire-2": Settled("expire", AT, "", 0, HOLD, 80_000_000, 80_000_000, [[]]),
    "late-2": Settled("commit", AT, "", 0, HOLD, 0, 80_000_000, [[]], late=True, actual=1),
    "halted-2": Halted(AT, PERSON, False, "ops", "sorry", "203.0.113.0/24"),
    "granted-2": ConsentChanged(
        AT,
        REFERENCE,
        "marketing",
        "granted",
        "consent",
        "v3",
        AT + 1,
        "form",
        bytes(range(32)),
        "DE",
        guardian=True,
        overrides=True,
        previous=["0123456789abcdef", 12],
        actor="svc",
        network="203.0.113.0/24",
        carried=True,
        said_at=AT - 1,
        signal=True,
    ),
    "revoked-2": ConsentChanged(AT, REFERENCE, "marketing", "revoked", "consent", granted_at=AT - 1),
    "request-2": RequestChanged(
        AT,
        "DSR-1795305600-0123abcd",
        REFERENCE,
        "DELETION",
        "erased",
        "running",
        AT + 1,
        "gdpr",
        "ledger",
        "ok",
        "GDPR 17(3)(b)",
        3,
        bytes(range(32)),
        "ops",
        "203.0.113.0/24",
        AT + 2,
        bytes(range(16)),
        readable=True,
        purposes=["marketing", "profiling"],
        run=["0123456789abcdef", 40],
        received_at=AT - 1,
    ),
    "legal-hold-2": LegalHeld(AT, REFERENCE, True, "matter 7", "ops"),
    "pruned-2": Pruned(AT, 512, 2555, "ops"),
    "breach-2": BreachDeclared(AT, "incident 7", AT - 2, AT - 1, 12, "ops", "203.0.113.0/24"),
    "noted": Noted(
        AT, "flow.step_done", ["campaign:spring"], {"attempt": 2}, b"k" * 16, b"c" * 16, "ops", "203.0.113.0/24"
    ),
}


def golden(name):
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text(encoding="ascii"))


@pytest.mark.parametrize("name", VERSION_1)
def test_a_golden_entry_of_version_1_means_what_it_meant(name):
    """Decoding the stored bytes gives the fact; what came to it since has its default."""
    entry = decode_entry(golden(name))
    seq = list(VERSION_1).index(name)
    assert golden(name)[0] == 1
    assert (seq, AT + seq, []) == (entry.seq, entry.recorded_at, entry.sealed)
    assert VERSION_1[name] == decode_fact(entry)


@pytest.mark.parametrize("name", VERSION_2)
def test_a_golden_entry_means_what_it_meant(name):
    """Decoding the stored bytes gives the fact, and encoding that gives the stored bytes."""
    entry = decode_entry(golden(name))
    seq = list(VERSION_2).index(name)
    assert (seq, AT + seq, SEALED * (seq % 3)) == (entry.seq, entry.recorded_at, entry.sealed)
    assert VERSION_2[name] == decode_fact(entry)
    assert golden(name) == encode_entry(entry.seq, entry.recorded_at, decode_fact(entry), entry.sealed)


def test_every_kind_and_every_file_is_here():
    """No kind of fact is without a golden file, and no file is without its meaning."""
    assert set(get_args(Fact)) == {type(fact) for fact in VERSION_2.values()}
    assert sorted([*VERSION_1, *VERSION_2]) == sorted(each.stem for each in GOLDEN.glob("*.hex"))


def test_every_member_of_every_kind_stands_in_a_file():
    """A member that has its default everywhere could be moved or renamed, and no golden file would notice."""
    for kind in get_args(Fact):
        facts = [fact for fact in VERSION_2.values() if type(fact) is kind]
        for field in msgspec.structs.fields(kind):
            default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
            assert any(getattr(fact, field.name) != default for fact in facts), f"{kind.__name__}.{field.name}"


def test_a_fact_of_a_later_kiki_is_read_as_far_as_it_is_known():
    """Facts grow at the end; a reader that does not know what came on top reads the rest."""
    data = golden("pruned-2")
    assert data.count(b"\x95\xa6pruned") == 1
    grown = data.replace(b"\x95\xa6pruned", b"\x96\xa6pruned").replace(b"\xa3ops", b"\xa3ops\xa3new")
    assert VERSION_2["pruned-2"] == decode_fact(decode_entry(grown))


def test_an_unknown_kind_is_corruption():
    """A fact that no version wrote raises with its sequence."""
    data = golden("halted").replace(b"halted", b"melted")
    with pytest.raises(LedgerCorrupt, match="entry 12"):
        decode_fact(decode_entry(data))


def write_missing():
    """A file for each meaning that has none, as this version writes it."""
    for seq, (name, fact) in enumerate(VERSION_2.items()):
        path = GOLDEN / f"{name}.hex"
        if not path.exists():
            data = encode_entry(seq, AT + seq, fact, SEALED * (seq % 3))
            path.write_text(f"{data.hex()}\n", encoding="ascii")


if __name__ == "__main__":
    write_missing()
