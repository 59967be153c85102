"""A model file is read back to the last bit, and what was edited, cut off or is too new is refused with a reason."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import KikiError, ModelInvalid
from kiki.value import model_file
from kiki.value.model_file import FORMAT_VERSION, content_hash, read_model_file, write_model_file

CONTENT = {"model": "bg-nbd", "parameters": {"r": 0.1 + 0.2, "alpha": 1e-300}, "notes": ["ünïcode 😀", ""]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "m.json"
    write_model_file(target, CONTENT)
    return target


def changed(path: Path, **members) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def refusal(path: Path) -> ModelInvalid:
    with pytest.raises(ModelInvalid) as caught:
        read_model_file(path)
    return caught.value


def test_what_was_written_is_read_with_its_hash(path: Path):
    found = read_model_file(path)
    assert (CONTENT, content_hash(CONTENT)) == (found.content, found.sha256)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_any_content_comes_back_to_the_last_bit(tmp_path_factory, content):
    target = tmp_path_factory.getbasetemp() / "any.json"
    stated = write_model_file(target, content)
    found = read_model_file(target)
    assert (content, stated) == (found.content, found.sha256)
    assert repr(content) == repr(found.content)  # 0.0 is not -0.0, 1 is not 1.0


def test_the_order_of_names_does_not_change_the_hash():
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})


def test_a_file_that_was_only_laid_out_anew_still_loads(path: Path):
    path.write_text(json.dumps(json.loads(path.read_text()), indent=8, sort_keys=True, ensure_ascii=False))
    assert CONTENT == read_model_file(path).content


def test_another_digit_in_a_parameter_is_an_edit(path: Path):
    path.write_text(path.read_text().replace("0.30000000000000004", "0.30000000000000005"))
    assert CONTENT == read_model_file(path).content  # the same float64
    path.write_text(path.read_text().replace("0.30000000000000005", "0.3"))
    error = refusal(path)
    assert "m.json was edited after it was written" in str(error)
    assert "fit again" in (error.hint or "")


def test_every_member_that_is_missing_or_odd_is_refused(path: Path):
    whole = json.loads(path.read_text())
    for name in ("format", "format_version", "content_sha256", "content"):
        for value in (None, [], {}, "x", True, -1):
            path.write_text(json.dumps(whole | {name: value}))
            refusal(path)
        path.write_text(json.dumps({key: each for key, each in whole.items() if key != name}))
        refusal(path)


def test_a_newer_format_names_both_versions_and_the_way_out(path: Path):
    changed(path, format_version=FORMAT_VERSION + 1, kiki_version="99.1")
    error = refusal(path)
    assert f"format {FORMAT_VERSION + 1}, written by kiki 99.1" in str(error)
    assert "update kiki" in (error.hint or "")
    changed(path, format_version=FORMAT_VERSION + 1, kiki_version=None)
    assert f"format {FORMAT_VERSION + 1}, written by a kiki that does not say which; this is kiki" in str(refusal(path))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"format": "x"}',
        b'{"format": "kiki value model", "format_version": 1, "content": {"a": NaN}, "content_sha256": ""}',
        b'{"format": "kiki value model", "format_version": 1, "content": {"a": 1e999}, "content_sha256": ""}',
        b'{"format": "kiki value model", "format": "kiki value model"}',
        b"[" * 100_000,
        b'{"format": ' + b"9" * 10_000 + b"}",
        b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_model_file_is_refused(path: Path, data: bytes):
    path.write_bytes(data)
    refusal(path)


@given(st.integers(0, 10**6))
def test_a_file_that_was_cut_off_is_refused(tmp_path_factory, place: int):
    target = tmp_path_factory.getbasetemp() / "cut.json"
    write_model_file(target, CONTENT)
    whole = target.read_bytes().rstrip()
    target.write_bytes(whole[: place % len(whole)])
    refusal(target)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path):
    assert "there is no model file" in str(refusal(tmp_path / "none.json"))
    assert "cannot be read" in str(refusal(tmp_path))


def test_a_huge_file_is_not_read_into_memory(path: Path, monkeypatch):
    monkeypatch.setattr(model_file, "_LARGEST", 100)
    assert "larger than" in str(refusal(path))


@pytest.mark.parametrize("bad", [math.nan, math.inf, object(), {1, 2}])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(path: Path, bad):
    with pytest.raises(ModelInvalid):
        write_model_file(path, {"a": bad})
    assert CONTENT == read_model_file(path).content
    assert ["m.json"] == [each.name for each in path.parent.iterdir()]


def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path):
    with pytest.raises(KikiError, match="cannot be written"):
        write_model_file(tmp_path / "none" / "m.json", CONTENT)
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(KikiError, match="cannot be written"):
        write_model_file(tmp_path / "taken.json", CONTENT)
    assert ["taken.json"] == [each.name for each in tmp_path.iterdir()]
