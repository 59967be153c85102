"""What stands under a key of a projection, read as what wrote it says that it is. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import UNDECODABLE

Value = TypeVar("Value")


def projected(decode: Callable[[bytes], Value], value: bytes, what: str) -> Value:
    """The decoded value; raises `LedgerCorrupt` when somebody else changed it. `what` names it without anybody's id."""
    try:
        return decode(value)
    except (*UNDECODABLE, TypeError) as error:
        raise LedgerCorrupt(
            f"{what} that the ledger keeps cannot be read: {error}",
            hint="somebody changed the database; restore it from a backup",
        ) from error
