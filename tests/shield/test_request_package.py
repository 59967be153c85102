"""The sealed copy of a person's data: what goes in comes out, and nothing that was altered does."""

from __future__ import annotations

import io
import json
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from kiki.errors import NotFound, SystemUnavailable, Unreadable
from kiki.ledger.subjects import Person
from kiki.shield.dsr import Kind
from kiki.shield.request_package import PIECE_BYTES, Packing, discard_package, open_package, package_path
from kiki.shield.subject_data import Document, Task

PERSON = Person("ab" * 16, bytes(range(32)))
TASK = Task("DSR-1-00000000", Kind.ACCESS, '<c-1 & "co">', PERSON.reference)


def packed(folder: Path, documents: list[Document]) -> tuple[Path, bytes]:
    path = package_path(folder, TASK.request)
    with Packing(path, PERSON, TASK, 0) as packing:
        for document in documents:
            packing.add("shop", document)
        return path, packing.finish()


def opened(path: Path) -> bytes:
    return b"".join(open_package(path, PERSON))


def test_what_goes_in_comes_out_with_its_digests(tmp_path: Path):
    path, digest = packed(tmp_path / "made", [Document("a.json", [b"{", b"}"], 1), Document("b.csv", [])])
    data = opened(path)
    assert digest == sha256(data).digest()
    package = zipfile.ZipFile(io.BytesIO(data))
    assert (None, b"{}") == (package.testzip(), package.read("shop/a.json"))
    files = {file["name"]: file for file in json.loads(package.read("manifest.json"))["files"]}
    assert {"system": "shop", "size": 2, "sha256": sha256(b"{}").hexdigest(), "records": 1} == {
        name: value for name, value in files["shop/a.json"].items() if name != "name"
    }
    assert (0o700, 0o600) == ((tmp_path / "made").stat().st_mode & 0o777, path.stat().st_mode & 0o777)


def test_the_summary_says_whose_it_is_and_shows_no_markup_of_theirs(tmp_path: Path):
    path, _ = packed(tmp_path, [Document("<script>.txt", [b"x"])])
    package = zipfile.ZipFile(io.BytesIO(opened(path)))
    page = package.read("summary.html").decode()
    assert "&lt;c-1 &amp; &quot;co&quot;&gt;" in page
    assert "<script" not in page


def page_of(folder: Path, *documents: Document) -> str:
    path, _ = packed(folder, list(documents))
    return zipfile.ZipFile(io.BytesIO(opened(path))).read("summary.html").decode()


def test_the_summary_shows_small_tables_without_their_empty_columns(tmp_path: Path):
    page = page_of(tmp_path, Document("said.csv", [b"purpose,note,said_at\n", b'"<b>mail</b>",,2026\n'], 1))
    assert "<th>purpose</th><th>said at</th>" in page
    assert "<td>&lt;b&gt;mail&lt;/b&gt;</td><td>2026</td>" in page
    assert "note" not in page


@pytest.mark.parametrize(
    "text",
    [b"", b"a,b\n", b"\xff\xfe,x\n1,2\n", b"a\n1,2\n", b'a\n"open\n', b"a\n" + b"x" * 70_000, b"a\n" + b"x" * 200_000],
)
def test_what_is_no_small_table_is_named_only(tmp_path: Path, text: bytes):
    page = page_of(tmp_path, Document("odd.csv", [text]))
    assert '<a href="shop/odd.csv">' in page
    assert "<th>a</th>" not in page


def test_a_long_table_says_that_it_shows_its_first_rows(tmp_path: Path):
    page = page_of(tmp_path, Document("long.csv", [b"a\n", *(b"row %d\n" % at for at in range(101))]))
    assert ("row 99</td>" in page, "row 100</td>" in page, "The first rows of" in page) == (True, False, True)


def test_what_counts_itself_is_asked_after_it_was_read(tmp_path: Path):
    read = []
    path, _ = packed(
        tmp_path,
        [
            Document("a.jsonl", (read.append(part) or part for part in (b"1\n", b"2\n")), lambda: len(read)),
            Document("b", []),
        ],
    )
    files = json.loads(zipfile.ZipFile(io.BytesIO(opened(path))).read("manifest.json"))["files"]
    assert [2, None] == [file["records"] for file in files]


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b\\c", "..", "", "x" * 300, "Zoë", "\0"])
def test_a_name_leads_nowhere_outside_its_folder(tmp_path: Path, name: str):
    path, _ = packed(tmp_path, [Document(name, [b"x"]), Document(name, [b"y"])])
    names = zipfile.ZipFile(io.BytesIO(opened(path))).namelist()
    assert 4 == len(set(names))
    for each in names[:2]:
        folder, _, file = each.partition("/")
        assert ("shop", False) == (folder, "/" in file or "\\" in file or file.startswith("."))


def test_more_than_memory_would_like_goes_through_in_pieces(tmp_path: Path):
    noise = [sha256(bytes([number])).digest() * (1 << 13) for number in range(16)]
    path, _ = packed(tmp_path, [Document("big", (part for part in noise))])
    pieces = list(open_package(path, PERSON))
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert b"".join(noise) == zipfile.ZipFile(io.BytesIO(b"".join(pieces))).read("shop/big")


def test_any_flipped_bit_any_missing_and_any_swapped_piece_is_noticed(tmp_path: Path):
    import random

    noise = random.Random(7).randbytes(3 * PIECE_BYTES)
    path, _ = packed(tmp_path, [Document("big", [noise])])
    whole = path.read_bytes()
    pieces, at = [], 0
    while at < len(whole):
        end = at + 4 + int.from_bytes(whole[at : at + 4], "big")
        pieces.append(whole[at:end])
        at = end
    assert len(pieces) > 3
    broken = [whole[:-1], whole + b"\0", whole[:3], b"", b"".join(pieces[:-1]), b"".join([*pieces, pieces[-1]])]
    broken += [b"".join([pieces[1], pieces[0], *pieces[2:]]), b"".join([pieces[0], *pieces[2:]])]
    chosen = random.Random(1)
    for _ in range(60):
        place = chosen.randrange(len(whole))
        broken.append(whole[:place] + bytes([whole[place] ^ 1 << chosen.randrange(8)]) + whole[place + 1 :])
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(Unreadable):
            opened(path)


def test_another_key_opens_nothing(tmp_path: Path):
    path, _ = packed(tmp_path, [Document("a", [b"x"])])
    with pytest.raises(Unreadable):
        b"".join(open_package(path, Person(PERSON.reference, bytes(32))))


def test_what_breaks_off_leaves_no_file(tmp_path: Path):
    def breaks():
        yield b"x"
        raise SystemUnavailable("gone")

    with pytest.raises(SystemUnavailable):
        packed(tmp_path, [Document("a", breaks())])
    assert [] == list(tmp_path.iterdir())


def test_a_leftover_of_a_killed_run_does_not_stand_in_the_way(tmp_path: Path):
    path = package_path(tmp_path, TASK.request)
    path.with_suffix(".part").write_bytes(b"half")
    packed(tmp_path, [])
    assert [path] == list(tmp_path.iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SystemUnavailable, match="No space left"):
        packed(tmp_path, [Document("a", [b"x"])])
    assert [] == list(tmp_path.iterdir())


def test_what_is_not_there_is_not_found_and_needs_no_removal(tmp_path: Path):
    path = package_path(tmp_path, TASK.request)
    with pytest.raises(NotFound):
        open_package(path, PERSON)
    assert not discard_package(path)
