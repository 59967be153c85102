"""`kiki loyalty`, as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app


@pytest.fixture
def loyalty(tmp_path: Path):
    (tmp_path / "loyalty.yaml").write_text("tiers: [{name: silver, points: 500}, {name: gold, points: 2000}]\n")

    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["loyalty", *arguments, "--data-dir", str(tmp_path)])
        assert result.exit_code == code, result.output
        return result.stdout

    return call


def test_points_as_in_the_docs(loyalty):
    earn = ("earn", "customer-7", "--amount", "612.90", "--order", "1001", "--key", "payment-1001")
    assert loyalty(*earn) == "earn +612 (entry 1): 612 points\n"
    assert loyalty(*earn) == "earn +612 (entry 1) (done before: the same key): 612 points\n"
    refused = loyalty("spend", "customer-7", "1000", code=3)
    assert refused == "refused: 1000 points are asked for, and 612 can be spent\n"
    assert loyalty("spend", "customer-7", "200", "--hold") == "hold -200 (entry 2): 412 points, 200 held\n"
    assert loyalty("commit", "customer-7", "2") == "commit +0 (entry 3): 412 points\n"
    assert loyalty("tier", "customer-7").splitlines()[0] == "silver: 612 points count"
    assert loyalty("refund", "customer-7", "--order", "1001") == "refund -612 (entry 4): -200 points\n"
    assert loyalty("refund", "customer-7", "--order", "1001") == "nothing of order 1001 was left to reverse\n"
    assert loyalty("balance", "customer-7").startswith("-200 points (a debt")
    assert [line.split()[2:] for line in loyalty("history", "customer-7").splitlines()] == [
        ["+612", "earn", "order", "1001"],
        ["-200", "hold"],
        ["+0", "commit", "of", "2"],
        ["-612", "refund", "of", "1"],
    ]
    assert loyalty("expire") == "0 entries written\n"
    assert loyalty("check") == "1 accounts, 4 entries, -200 points, debts of 200: all sums hold\n"


def test_json_is_one_object_a_line(loyalty):
    told = json.loads(loyalty("earn", "c", "5", "--json"))
    assert (told["done"], told["repeated"], told["entry"]["points"], told["balance"]["available"]) == (
        True,
        False,
        5,
        5,
    )
    told = json.loads(loyalty("spend", "c", "6", "--json", code=3))
    assert told == {
        "done": False,
        "code": "points_short",
        "explanation": "6 points are asked for, and 5 can be spent",
        "available": 5,
    }
    assert (
        json.loads(
            loyalty(
                "release",
                "c",
                str(json.loads(loyalty("spend", "c", "5", "--hold", "--json"))["entry"]["place"]),
                "--json",
            )
        )["balance"]["available"]
        == 5
    )
    assert len([json.loads(line) for line in loyalty("history", "c", "--json").splitlines()]) == 3
    assert json.loads(loyalty("balance", "c", "--json"))["held"] == 0
    assert json.loads(loyalty("tier", "c", "--json"))["next_tier"] == "silver"
    assert json.loads(loyalty("expire", "--json")) == {"entries": 0}
    assert json.loads(loyalty("check", "--json"))["problems"] == []


def test_codes_as_in_the_docs(loyalty):
    first, second = loyalty("codes", "issue", "winback", "--count", "2", "--ends", "30d").split()
    own = loyalty("codes", "give", "winback", "customer-7").strip()
    assert own in {first, second}
    assert "given to another customer" in loyalty("codes", "validate", own, code=3)
    other = ({first, second} - {own}).pop()
    assert loyalty("codes", "validate", other.lower()) == f"{other}: free (winback)\n"
    assert loyalty("codes", "lock", own, "--key", "1003", "--customer", "customer-7") == f"{own}: locked (winback)\n"
    assert loyalty("codes", "unlock", own, "--key", "1003") == "unlocked\n"
    told = json.loads(
        loyalty("codes", "redeem", own, "--key", "1003", "--customer", "customer-7", "--order", "9", "--json")
    )
    assert (told["state"], told["order"]) == ("redeemed", "9")
    told = json.loads(loyalty("codes", "redeem", own, "--key", "other", "--json", code=3))
    assert (told["done"], told["reason"]) == (False, "redeemed")
    assert loyalty("codes", "rollback", own, "--key", "1003") == "rolled back\n"
    assert loyalty("codes", "void", other) == "void\n"
    assert json.loads(loyalty("codes", "list", "--json")) == {"winback": {"free": 1, "void": 1}}
    assert loyalty("codes", "list") == "winback: 1 free, 1 void\n"
    assert "no such code" in loyalty("codes", "rollback", "2" * 12, "--key", "k", code=3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("earn", "c"),
        ("earn", "c", "5", "--amount", "5"),
        ("earn", "c", "-5"),
        ("earn", "c", "--amount", "five"),
        ("earn", "", "5"),
        ("earn", "c", "5", "--key", ""),
        ("spend", "c", "0"),
        ("refund", "c"),
        ("refund", "c", "1", "--order", "1"),
        ("refund", "c", "--order", "1", "--points", "5"),
        ("codes", "issue", "Bad Pool", "--count", "1"),
        ("codes", "issue", "a", "--count", "1", "--ends", "soon"),
        ("codes", "issue", "a", "--count", "1", "--ends", "2020-01-01"),
        ("codes", "issue", "a", "--count", "1", "--ends", "9999-12-31"),
        ("codes", "issue", "a", "--count", "1", "--ends", "999999w"),
        ("codes", "lock", "x", "--key", "k", "--minutes", "0"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(loyalty, arguments: tuple[str, ...]):
    loyalty("earn", "c", "1", "--key", "first")
    loyalty(*arguments, code=2)


def test_a_program_that_cannot_be_read_is_told_by_its_lines(loyalty, tmp_path: Path):
    (tmp_path / "bad.yaml").write_text("points_per_unit: x\ntiers: 5\n")
    result = CliRunner().invoke(
        app, ["loyalty", "balance", "c", "--program", str(tmp_path / "bad.yaml"), "--data-dir", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "line 1: 'points_per_unit'" in result.stderr
    assert "line 2: a tier is text" in result.stderr
    loyalty("balance", "c", "--program", str(tmp_path / "missing.yaml"), code=2)


def test_a_shared_database_is_used_where_one_is_named(postgres: str, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", postgres)
    for expected in (False, True):
        result = CliRunner().invoke(app, ["loyalty", "earn", "c", "5", "--key", "k", "--json"])
        assert json.loads(result.stdout)["repeated"] is expected
