from __future__ import annotations

import os
from pathlib import Path

import pytest

from kiki.value.whole_file import write_whole


def test_a_file_is_replaced_whole_with_the_rights_of_any_new_file(tmp_path: Path):
    target = tmp_path / "a.html"
    target.write_bytes(b"before")
    old = os.umask(0o027)
    try:
        assert target == write_whole(target, b"after")
    finally:
        os.umask(old)
    assert b"after" == target.read_bytes()
    assert 0o640 == target.stat().st_mode & 0o777
    assert [target] == list(tmp_path.iterdir())


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path):
    target = tmp_path / "a"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(target, b"after")
    assert [target] == list(tmp_path.iterdir())


def test_a_folder_that_is_missing_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a", b"")
