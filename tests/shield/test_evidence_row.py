"""Each kind of fact as a line of the CSV and as an object of JSON; nothing that anybody wrote breaks a line."""

from __future__ import annotations

import csv
import io
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.ledger.entry import Entry, decode_entry, encode_entry
from kiki.shield import evidence_csv
from kiki.shield.evidence_csv import COLUMNS, CSV_HEADER, csv_line, csv_lines
from kiki.shield.evidence_row import rows
from kiki.shield.evidence_words import OUTCOMES
from kiki.shield.fact import Decided, Halted, Opened, PolicyUsed, Refused, Settled

AT = 1_795_341_600_000_001  # 2026-11-22T10:00:00.000001Z
PERSON = "0123456789abcdef0123456789abcdef"
HOLD = "f" * 32
CHAIN = "00112233aabbccdd"


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    yield from in_zone(monkeypatch, "UTC")


def in_zone(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    evidence_csv._local.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    evidence_csv._local.cache_clear()


def entry_of(fact, seq: int = 7) -> Entry:
    return decode_entry(encode_entry(seq, AT + 5, fact))


def refused(reason: str, index: int = 0, **more) -> Refused:
    return Refused(index, reason, **more)


def check(ltv: int | None, *why: Refused, amount: int = 1, scopes=()) -> Decided:
    return Decided("check", AT, "", 1, [list(scopes)], [amount], list(why), ltv=ltv)


def spend(amounts: list[int], scopes: list[list[str]], *why: Refused, verb: str = "spend", **more) -> Decided:
    return Decided(verb, AT, "", 1, scopes, amounts, list(why), **more)


META = [["platform:meta"]]
SOMEBODY = [[f"customer:{PERSON}", "platform:meta"]]
BID = ",INFO,bid_validation,,,validate_bid,ltv_prediction,"
CASES = {
    "check passes": (check(600_000_000), f"{BID}APPROVED,Within safe parameters,,[predicted_ltv=600.00],2555"),
    "check of a customer": (
        check(600_000_000, scopes=[f"customer:{PERSON}"]),
        (
            f",INFO,bid_validation,,{PERSON},validate_bid,ltv_prediction,APPROVED,Within safe parameters,,"
            "[customer_id predicted_ltv=600.00],2555"
        ),
    ),
    "check of an amount": (
        check(None, amount=5_000_000, scopes=META[0]),
        f"{BID}APPROVED,Within safe parameters,,[amount=5.00 platform:meta],2555",
    ),
    "check too high": (
        check(10_000_000_001, refused("ltv_above_maximum")),
        f"{BID}DENIED,Safety ceiling exceeded,,[predicted_ltv=10000.000001],2555",
    ),
    "check too low": (
        check(0, refused("ltv_below_minimum")),
        f"{BID}DENIED,Below minimum threshold,,[predicted_ltv=0.00],2555",
    ),
    "check over budget": (
        check(600_000_000, refused("budget_exhausted", budget="default")),
        f"{BID}DENIED,Budget limit exceeded,,[predicted_ltv=600.00],2555",
    ),
    "check not readable": (
        check(None, refused("invalid_input"), amount=0),
        f"{BID}DENIED,Request could not be read,,[],2555",
    ),
    "spend": (
        spend([100_000_000], META),
        ",INFO,budget_decision,,,spend,budget,APPROVED,Within budget,,[amount=100.00 platform:meta],2555",
    ),
    "spend of a customer": (
        spend([100_500_000], SOMEBODY),
        (
            f",INFO,budget_decision,,{PERSON},spend,budget,APPROVED,Within budget,,"
            "[customer_id amount=100.50 platform:meta],2555"
        ),
    ),
    "spend refused": (
        spend([100_000_000], [[]], refused("budget_exhausted", budget="default")),
        ",WARNING,budget_decision,,,spend,budget,DENIED,Budget limit exceeded,,[amount=100.00],2555",
    ),
    "spend never fits": (
        spend([100_000_000], [[]], refused("above_limit", budget="default")),
        ",WARNING,budget_decision,,,spend,budget,DENIED,Budget limit exceeded,,[amount=100.00],2555",
    ),
    "spend halted": (
        spend([100_000_000], META, refused("halted", scope="platform:meta")),
        ",WARNING,budget_decision,,,spend,budget,DENIED,Spending is halted,,[amount=100.00 platform:meta],2555",
    ),
    "spend not readable": (
        spend([0], [[]], refused("invalid_input")),
        ",WARNING,budget_decision,,,spend,budget,DENIED,Request could not be read,,[],2555",
    ),
    "spend unknown": (
        spend([100_000_000], [[]], refused("outcome_unknown")),
        ",WARNING,budget_decision,,,spend,budget,UNKNOWN,Outcome unknown and counted as spent,,[amount=100.00],2555",
    ),
    "a later version's reason": (
        spend([1], [[]], refused("=moon, phase")),
        ',WARNING,budget_decision,,,spend,budget,DENIED,"\'=moon, phase",,[amount=0.000001],2555',
    ),
    "reserve": (
        spend([80_000_000], [[]], verb="reserve", hold=HOLD),
        ",INFO,budget_decision,,,reserve,budget,APPROVED,Within budget,,[amount=80.00],2555",
    ),
    "record": (
        spend([80_000_000], [[]], verb="record"),
        ",INFO,budget_decision,,,record,budget,APPROVED,Spent elsewhere and counted,,[amount=80.00],2555",
    ),
    "commit": (
        Settled("commit", AT, "", 1, HOLD, 64_200_000, 80_000_000, META, actual=64_200_000),
        ",INFO,budget_decision,,,commit,budget,APPROVED,Reservation committed,,[amount=64.20 platform:meta],2555",
    ),
    "late commit": (
        Settled("commit", AT, "", 1, HOLD, 0, 80_000_000, late=True, actual=64_200_000),
        (
            ",INFO,budget_decision,,,commit,budget,APPROVED,Reservation had expired and was already counted as spent,,"
            "[amount=64.20],2555"
        ),
    ),
    "release": (
        Settled("release", AT, "", 1, HOLD, 0, 80_000_000, SOMEBODY),
        (
            f",INFO,budget_decision,,{PERSON},release,budget,APPROVED,Reservation released,,"
            "[customer_id amount=0.00 platform:meta],2555"
        ),
    ),
    "expire": (
        Settled("expire", AT, "", 0, HOLD, 80_000_000, 80_000_000),
        ",INFO,budget_decision,,,expire,budget,APPROVED,Reservation expired and counted as spent,,[amount=80.00],2555",
    ),
    "halt": (
        Halted(AT, "*", on=True, note="Bob, call me"),
        ",CRITICAL,admin_action,,,halt,*,APPROVED,Spending halted,,[scopes],2555",
    ),
    "resume": (
        Halted(AT, 'campaign:"a", b', on=False),
        ',CRITICAL,admin_action,,,resume,"campaign:""a"", b",APPROVED,Halt taken back,,[scopes],2555',
    ),
    "halt of a person": (
        Halted(AT, f"customer:{PERSON}", on=True),
        f",CRITICAL,admin_action,,{PERSON},halt,customer,APPROVED,Spending halted,,[scopes],2555",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_has_its_line(name: str):
    fact, line = CASES[name]
    expected = f"2026-11-22T10:00:00Z,0000000000070000{line}\n"
    assert csv_lines(entry_of(fact), CHAIN, 2555) == [expected]
    assert [csv_line(row, 2555) for row in rows(entry_of(fact), CHAIN)] == [expected]


def test_the_header_is_the_originals():
    assert CSV_HEADER == (
        "timestamp,event_id,level,event_type,user_id_hash,customer_id_hash,action,resource,outcome,reason,"
        "ip_address,data_accessed,retention_days\n"
    )


def test_a_batch_has_a_line_for_each_amount_with_scopes_of_its_own():
    fact = spend(
        [1_000_000, 2_000_000, 3_000_000], [["platform:meta"], [], [f"customer:{PERSON}"]], refused("halted", 1)
    )
    lines = csv_lines(entry_of(fact, 0xABC), CHAIN, 30)
    assert [line.split(",")[1] for line in lines] == ["000000000abc0000", "000000000abc0001", "000000000abc0002"]
    assert [line.split(",")[8] for line in lines] == ["APPROVED", "DENIED", "APPROVED"]
    assert [line.split(",")[11] for line in lines] == [
        "[amount=1.00 platform:meta]",
        "[amount=2.00]",
        "[customer_id amount=3.00]",
    ]
    assert all(line.endswith(",30\n") for line in lines)


@pytest.mark.parametrize("fact", [Opened(AT, "1.0", "local"), PolicyUsed(AT, b"{}")])
def test_what_decides_nothing_has_no_line(fact):
    (row,) = rows(entry_of(fact), CHAIN)
    assert csv_lines(entry_of(fact), CHAIN, 2555) == []
    assert not row.is_decision
    with pytest.raises(ValueError, match="no decision"):
        csv_line(row, 2555)


@pytest.mark.parametrize(
    ("zone", "text"),
    [("Asia/Kolkata", "2026-11-22T15:30:00+05:30"), ("EST5EDT", "2026-11-22T05:00:00-05:00"), ("UTC", None)],
)
def test_the_timestamp_has_the_local_offset(monkeypatch, zone, text):
    zoned = in_zone(monkeypatch, zone)
    next(zoned)
    (line,) = csv_lines(entry_of(spend([1], [[]])), CHAIN, 2555)
    next(zoned, None)
    assert line.split(",")[0] == (text or "2026-11-22T10:00:00Z")


def test_who_asked_is_the_same_within_a_chain_and_not_a_plain_hash():
    fact = spend([1], [[]], actor="bidder")
    (one,), (two,), (other,) = (
        [line.split(",")[4] for line in csv_lines(entry_of(fact, seq), chain, 2555)]
        for seq, chain in ((1, CHAIN), (2, CHAIN), (1, "another"))
    )
    assert one == two != other
    assert len(one) == 32
    assert "bidder" not in one


def test_a_person_in_clear_would_never_get_out():
    for fact in (
        spend([1, 2], [["customer:alice", "platform:meta"], ["customer:alice"]]),
        Settled("commit", AT, "", 1, HOLD, 1, 2, [["customer:alice"]]),
        Halted(AT, "customer:alice", on=True),
    ):
        found = rows(entry_of(fact), CHAIN)
        assert "alice" not in "".join(csv_lines(entry_of(fact), CHAIN, 2555))
        assert "alice" not in str([row.as_dict() for row in found])
        assert {row.customer for row in found} == {""}


def test_json_says_what_it_knows_and_nothing_else():
    why = refused("budget_exhausted", budget="daily", remaining=-5, retry_at=AT + 1_500_000)
    fact = spend([100_000_000], SOMEBODY, why, actor="bidder", ltv=None)
    (row,) = rows(entry_of(fact), CHAIN)
    assert row.as_dict() == {
        "event_id": "0000000000070000",
        "chain": CHAIN,
        "at": "2026-11-22T10:00:00.000001Z",
        "recorded_at": "2026-11-22T10:00:00.000006Z",
        "verb": "spend",
        "outcome": "DENIED",
        "reason": "Budget limit exceeded",
        "reason_code": "budget_exhausted",
        "scopes": SOMEBODY[0],
        "customer": PERSON,
        "actor": "bidder",
        "budget": "daily",
        "amount": "100.00",
        "remaining": "0.00",
        "retry_at": "2026-11-22T10:00:01.500001Z",
    }


@pytest.mark.parametrize(
    ("fact", "more"),
    [
        (
            Settled("commit", AT, "", 1, HOLD, 0, 80_000_000, late=True, actual=0),
            {
                "verb": "commit",
                "reason_code": "late",
                "late": True,
                "hold": HOLD,
                "amount": "0.00",
                "charged": "0.00",
                "reserved": "80.00",
                "actual": "0.00",
            },
        ),
        (
            spend([2], [[]], verb="reserve", hold=HOLD, deadline=AT, repeated=True),
            {"hold": HOLD, "deadline": "2026-11-22T10:00:00.000001Z", "repeated": True, "amount": "0.000002"},
        ),
        (Halted(AT, "platform:meta", on=True, note="too hot"), {"note": "too hot", "scopes": ["platform:meta"]}),
        (PolicyUsed(AT, b'{"budgets":[]}', "ops"), {"verb": "policy", "policy": '{"budgets":[]}', "actor": "ops"}),
        (Opened(AT, "1.0", "redis", "e1"), {"verb": "open", "software": "1.0", "window": "redis", "epoch": "e1"}),
    ],
)
def test_json_of_the_other_kinds(fact, more):
    (row,) = rows(entry_of(fact), CHAIN)
    found = row.as_dict()
    assert {key: found.get(key) for key in more} == more
    msgspec.json.encode(found)


text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.sampled_from(
    ["=1+1", "@x", "-2", "+3", 'a"b', "a,b", "é 😀", "a\r\nb", "\t=x", " ", '"', "]"]
)
scopes = st.lists(
    st.tuples(st.sampled_from(["platform", "campaign", "customer", "x"]), text).map(":".join)
    | st.just(f"customer:{PERSON}"),
    max_size=4,
)
REASONS = ["invalid_input", "budget_exhausted", "outcome_unknown", "halted", "=later"]


@st.composite
def decided(draw):
    amounts = draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5))
    own = draw(st.booleans())
    return Decided(
        draw(st.sampled_from(["check", "spend", "reserve", "record"])),
        AT,
        "",
        1,
        [draw(scopes) for _ in amounts] if own else [draw(scopes)],
        amounts,
        [Refused(index, draw(st.sampled_from(REASONS))) for index in draw(st.sets(st.integers(0, len(amounts) - 1)))],
        ltv=draw(st.none() | st.integers(0, 2**63 - 1)),
        actor=draw(st.just("") | text),
    )


facts = (
    decided()
    | st.builds(Halted, st.just(AT), text | scopes.map("".join), st.booleans(), text, text)
    | st.builds(
        Settled,
        st.sampled_from(["commit", "release", "expire"]),
        st.just(AT),
        st.just(""),
        st.just(1),
        st.just(HOLD),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        scopes.map(lambda each: [each]),
        st.booleans(),
    )
)


@given(facts)
def test_whatever_was_written_a_decision_is_one_line_of_thirteen_harmless_fields(fact):
    lines = csv_lines(entry_of(fact), CHAIN, 2555)
    found = rows(entry_of(fact), CHAIN)
    assert lines == [csv_line(row, 2555) for row in found]
    assert len(lines) == len(getattr(fact, "amounts", [0]))
    whole = "".join(lines)
    assert whole.count("\n") == len(lines)
    assert whole.replace("\n", "").isprintable()
    parsed = list(csv.reader(io.StringIO(whole), strict=True))
    assert len(parsed) == len(lines)
    for row, fields in zip(found, parsed, strict=True):
        named = dict(zip(COLUMNS, fields, strict=True))
        assert not [field for field in fields if field[:1] in {"=", "+", "-", "@", "\t", "\r"} and field]
        assert named["event_id"] == row.event_id
        assert named["customer_id_hash"] in {"", PERSON}
        assert named["outcome"] in OUTCOMES
        assert named["ip_address"] == ""
        assert row.chain == CHAIN
    msgspec.json.encode([row.as_dict() for row in found])


@given(st.lists(scopes, min_size=1, max_size=3))
def test_a_reference_stands_in_its_column_only(each):
    fact = spend([1] * len(each), each)
    for line in csv_lines(entry_of(fact), CHAIN, 2555):
        assert line.count(PERSON) <= 1
