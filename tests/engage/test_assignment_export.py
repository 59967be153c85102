from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kiki.engage.assignment_export import COLUMNS, Assignment, pseudonym, write_csv, write_parquet
from kiki.errors import InvalidInput

KEY = b"sixteen bytes ok"
PEOPLE = [
    Assignment(f"ada-{number}@example.org", "winback", "offer", 0.95, 1_700_000_000_000_000, True, -1_500_000, number)
    for number in range(5)
]


def test_both_formats_hold_the_same_and_name_nobody(tmp_path: Path):
    text = io.StringIO()
    assert write_csv(text, PEOPLE, KEY) == 5
    assert write_parquet(tmp_path / "out.parquet", iter(PEOPLE), KEY) == 5
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert tuple(rows[0]) == COLUMNS == tuple(table[0])
    assert [{name: str(value) for name, value in row.items()} for row in table] == rows
    assert rows[0]["margin_micros"] == "-1500000"
    assert rows[0]["person"] == pseudonym(KEY, "ada-0@example.org")
    assert b"ada" not in text.getvalue().encode() + (tmp_path / "out.parquet").read_bytes()


def test_two_exports_cannot_be_joined_without_their_key():
    assert pseudonym(KEY, "x") == pseudonym(KEY, "x") != pseudonym(KEY + b"!", "x")
    with pytest.raises(InvalidInput, match="16 bytes"):
        pseudonym(b"short", "x")


def test_nobody_makes_an_empty_table(tmp_path: Path):
    text = io.StringIO()
    assert (write_csv(text, [], KEY), write_parquet(tmp_path / "out.parquet", [], KEY)) == (0, 0)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
