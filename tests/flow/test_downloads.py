"""Files that platforms hand out: where they are fetched, without what, and how much of them."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Mapping

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kiki.flow.platforms import downloads
from kiki.flow.platforms.downloads import Downloads, gunzipped, unzipped
from kiki.outbound.exchange import Reply
from kiki.outbound.outcome import Outcome


async def fetched(status: int, api: str | None = None) -> tuple[Reply | Outcome, list[Mapping[str, str]]]:
    got: list[Mapping[str, str]] = []

    async def file(request: web.Request) -> web.Response:
        got.append(dict(request.headers))
        return web.Response(status=status, text="rows")

    app = web.Application()
    app.router.add_get("/file", file)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here = f"http://127.0.0.1:{runner.addresses[0][1]}"
    files = Downloads(api or here)
    try:
        return await files.fetch(f"{here}/file"), got
    finally:
        await files.close()
        await runner.cleanup()


async def test_a_file_is_fetched_with_nobodys_credentials() -> None:
    file, got = await fetched(200)
    assert isinstance(file, Reply)
    assert b"rows" == file.content
    assert not [name for name in got[0] if name.lower() in {"authorization", "cookie", "developertoken", "ttd-auth"}]


@pytest.mark.parametrize("status", [400, 403, 404, 410, 500, 503])
async def test_an_address_that_has_had_its_time_is_asked_for_again(status: int) -> None:
    file, _ = await fetched(status)
    assert isinstance(file, Outcome)
    assert "unavailable" == file.code
    assert file.is_transient


async def test_a_platform_out_there_cannot_send_us_to_this_machine() -> None:
    file, got = await fetched(200, api="https://api.example")
    assert isinstance(file, Outcome)
    assert ("unreadable", []) == (file.code, got)


@given(st.binary(max_size=200))
def test_what_was_packed_comes_out_and_nonsense_does_not(content: bytes) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.csv", content)
    assert content == unzipped(packed.getvalue())
    assert content == gunzipped(gzip.compress(content))
    for broken in (content, packed.getvalue()[: len(content) // 2], gzip.compress(content)[:-9]):
        assert unzipped(broken) is None
        assert gunzipped(broken) in {None, b""}


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "UNPACKED_BYTES_MAX", 1000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.csv", bytes(1001))
    assert unzipped(packed.getvalue()) is None
    assert gunzipped(gzip.compress(bytes(1001))) is None
    assert bytes(1000) == gunzipped(gzip.compress(bytes(1000)))


def test_an_archive_of_several_files_is_no_report() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", b"a")
        archive.writestr("b.csv", b"b")
    assert unzipped(packed.getvalue()) is None
