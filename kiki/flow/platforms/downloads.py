"""Reports that a platform hands out as files at another address: fetched without the account's tokens, unpacked with a limit.

Such an address is signed by itself. The token of the account has no business there, and some stores refuse it.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from typing import Final
from urllib.parse import urlsplit

from kiki.outbound.exchange import INVALID, NOT_FOUND, UNAUTHORIZED, UNAVAILABLE, UNREADABLE, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.outcome import Outcome, refused
from kiki.settings import is_loopback

TIMEOUT_SECONDS: Final = 60.0
UNPACKED_BYTES_MAX: Final = 256 * 1024 * 1024


class Downloads:
    """Fetches files for one account of a platform whose API is at `url`."""

    def __init__(self, url: str) -> None:
        self._loopback = is_loopback(urlsplit(url).hostname or "")
        self._line = Line(url, timeout_seconds=TIMEOUT_SECONDS)

    async def fetch(self, url: str) -> Reply | Outcome:
        """The file there; plain HTTP is followed only to this machine, and only by what plays a platform on it."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (self._loopback and is_loopback(parts.hostname or "")):
            return refused(UNREADABLE, "the platform names no https:// address for its report")
        file = await self._line.send(Request(method="GET", path=url, write=False))
        if isinstance(file, Outcome) and file.code in {UNAUTHORIZED, NOT_FOUND, INVALID}:
            # Nobody's credentials are wrong: the address has had its time, and the platform gives another one.
            return refused(UNAVAILABLE, "the report's file is no longer at its address")
        return file

    async def close(self) -> None:
        """Give connections free."""
        await self._line.close()


def unzipped(content: bytes) -> bytes | None:
    """The one file in a ZIP archive; None: it is none, or too long."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (member,) = archive.infolist()
            with archive.open(member) as file:
                return _within_limit(file.read(UNPACKED_BYTES_MAX + 1))
    except (zipfile.BadZipFile, ValueError, OSError, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return None


def gunzipped(content: bytes) -> bytes | None:
    """What was compressed with gzip; None: it was not, or is too long."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return _within_limit(file.read(UNPACKED_BYTES_MAX + 1))
    except (OSError, zlib.error, EOFError):
        return None


def _within_limit(content: bytes) -> bytes | None:
    return content if len(content) <= UNPACKED_BYTES_MAX else None
