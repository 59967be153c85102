"""What a check has to look at again in another order: kept in memory while it is little, then in an unnamed file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Final

import msgspec

from kiki.shield.audit_money import Money

_MEMORY_BYTES: Final = 1 << 20
_LENGTH_BYTES: Final = 4


class Spooled(msgspec.Struct, array_like=True):
    """A fact about money with the place that decided it."""

    money: Money
    chain: int
    policy: int
    """Which of the policies was in force for that chain."""


class Spool:
    """Facts in the order in which they came; removed from the disk when it is closed, or with the process."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 - lives as long as this does
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Spooled).decode

    def append(self, fact: Spooled) -> None:
        """Keep one more."""
        data = self._encode(fact)
        self._file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def __iter__(self) -> Iterator[Spooled]:
        self._file.seek(0)
        while length := self._file.read(_LENGTH_BYTES):
            yield self._decode(self._file.read(int.from_bytes(length, "big")))

    def close(self) -> None:
        """Forget everything."""
        self._file.close()
