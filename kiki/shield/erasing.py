"""Who is being erased at this moment: known for as long as the erasure lasts, so that a crash does not end it halfway.

Once a person's key is destroyed nobody can tell from the request whose it was, and yet what is left of the directory
must be removed and read back. So the name is kept beside the keys, sealed, from just before the key is destroyed
until the request is closed; then its bytes are erased, too.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kiki.errors import Unreadable
from kiki.ledger.entry import Sealed
from kiki.ledger.projected import projected
from kiki.ledger.store import SHARED, Write
from kiki.ledger.subjects import Subjects

ERASING: Final = SHARED + "erasing"
"""In the key store: from the reference of a person to the sealed name."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sealed).decode


def begin_erasing(subjects: Subjects, subject: str, person: str) -> None:
    """Remember whose erasure began, durably. Nobody else may change the key store meanwhile."""
    sealed = subjects.seal_for_segment(person.encode())
    subjects.store.commit([], [Write(ERASING, bytes.fromhex(subject), _encode(sealed))])


def erasing_person(subjects: Subjects, subject: str) -> str | None:
    """The scope text of a person whose erasure began and has not ended; None for everybody else."""
    value = subjects.store.get(ERASING, bytes.fromhex(subject))
    if value is None:
        return None
    try:
        return subjects.open(projected(_decode, value, "an erasure that goes on")).decode()
    except Unreadable:
        return None


def erasing(subjects: Subjects) -> list[str]:
    """The references of everybody whose erasure began and has not ended."""
    return [key.hex() for key, _ in subjects.store.scan(ERASING)]


def end_erasing(subjects: Subjects, subject: str) -> None:
    """Forget the name for good. Nobody else may change the key store meanwhile."""
    if subjects.store.get(ERASING, bytes.fromhex(subject)) is not None:
        subjects.store.erase(ERASING, [bytes.fromhex(subject)])
