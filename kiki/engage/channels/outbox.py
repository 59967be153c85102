"""An outbox for development: messages become files instead of being sent.

    <directory>/<action>.json       the message, as it would have gone out
    <directory>/<action>.html       its HTML part, to look at

A message is there whole or not at all, and once: sending it again changes nothing. The files hold addresses; the
directory is for its owner alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from kiki.clock import Clock, wall_micros
from kiki.engage.channel import Message
from kiki.engage.letter import Letter
from kiki.engage.unsubscribe import list_headers, with_way_out
from kiki.outbound.exchange import INVALID, UNAVAILABLE
from kiki.outbound.outcome import Outcome, done, refused

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._:-]{0,199}", re.ASCII)


class OutboxChannel:
    """See `Channel`. `name` is the channel it stands in for."""

    def __init__(self, directory: Path, *, name: str = "email", clock: Clock = wall_micros) -> None:
        self.name = name
        self._directory = directory
        self._clock = clock

    def send(self, message: Message) -> Outcome:
        """See `Channel`."""
        if not _NAME.fullmatch(message.action):
            return refused(INVALID, "not written: the action's id is no file name")
        content, headers = message.content, {}
        if message.unsubscribe_url:
            content = with_way_out(content, message.unsubscribe_url) if self.name == "email" else content
            headers = list_headers(message.unsubscribe_url)
        letter = Letter(at=self._clock(), message=msgspec.structs.replace(message, content=content), headers=headers)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if content.html:
                _write_once(self._directory / f"{message.action}.html", content.html.encode())
            _write_once(self._directory / f"{message.action}.json", msgspec.json.format(msgspec.json.encode(letter)))
        except OSError as error:
            return refused(UNAVAILABLE, f"not written: {error.strerror}")
        return done(provider_id=f"outbox:{message.action}")

    def find(self, message: Message, sent_at: int, now: int) -> Outcome:
        """See `Searchable`: here what is not there was certainly never sent."""
        if (self._directory / f"{message.action}.json").exists():
            return done(provider_id=f"outbox:{message.action}")
        return refused("not_found", "not in the outbox")


def letters(directory: Path, *, most: int = 1_000) -> Iterator[Letter]:
    """What the outbox holds, the newest first."""
    files = sorted(directory.glob("*.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in files[:most]:
        with suppress(OSError, msgspec.DecodeError, UnicodeError):
            yield msgspec.json.decode(file.read_bytes(), type=Letter)


def letter(directory: Path, action: str) -> Letter | None:
    """That message; None when there is none of that name."""
    if not _NAME.fullmatch(action):
        return None
    try:
        return msgspec.json.decode((directory / f"{action}.json").read_bytes(), type=Letter)
    except (OSError, msgspec.DecodeError, UnicodeError):
        return None


def forget(directory: Path, actions: Iterable[str]) -> int:
    """Remove these messages, durably; how many there were."""
    gone = 0
    for action in actions:
        for ending in ("json", "html"):
            file = directory / f"{action}.{ending}"
            if _NAME.fullmatch(action) and file.exists():
                file.unlink()
                gone += ending == "json"
    if gone:
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    return gone


def _write_once(path: Path, content: bytes) -> None:
    """The file with that content, whole or not at all; one that is there stays as it is."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        draft.write_bytes(content)
        draft.chmod(0o600)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
