"""Who is held out, and who gets which arm: by a keyed hash of the person, so that it needs no memory. Pure.

The same person is on the same side after every restart, in every process and however the work is divided. A share that
is raised keeps those who were held out and adds others. Only whoever has the key can tell on which side somebody is;
what comes out is a side, never a name. Give it the customer's stable id: an e-mail address changes, and the person
would be drawn again.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from decimal import Decimal
from itertools import accumulate
from typing import Final, NamedTuple

from kiki.errors import InvalidInput

PARTS: Final = 1_000_000
"""A share is a whole number of these."""

GLOBAL: Final = "global"
"""The salt of the holdout that no playbook reaches."""

_DRAWS: Final = 1 << 64
_KEY_LEAST: Final = 16
_ACCEPTED: Final = "write a share such as 0.05 or 5%, from 0 to 1 with at most six decimals"


def parse_share(given: object) -> int:
    """The share in parts of a million, from text (0.05, 5%), a Decimal, an int or a float; raises `InvalidInput`."""
    if isinstance(given, bool) or not isinstance(given, str | int | float | Decimal):
        raise InvalidInput(f"{given!r} is not a share: {_ACCEPTED}")
    text = str(given).strip()
    percent = text.endswith("%")
    try:
        number = Decimal(text.removesuffix("%").strip()) if len(text) <= 40 else Decimal("NaN")
    except ArithmeticError:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 <= number <= (100 if percent else 1):
        raise InvalidInput(f"{text[:40]!r} is not a share: {_ACCEPTED}")
    parts = number * (PARTS // 100 if percent else PARTS)
    if parts != int(parts):
        raise InvalidInput(f"{text[:40]!r} has too many decimals: {_ACCEPTED}")
    return int(parts)


def draw(key: bytes, salt: str, person: str) -> int:
    """The person's place among 2**64, evenly spread, another one under each salt; raises `InvalidInput` for a short key."""
    if len(key) < _KEY_LEAST:
        raise InvalidInput(f"the key of an assignment has at least {_KEY_LEAST} bytes")
    name = salt.encode()
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    text = len(name).to_bytes(4, "big") + name + person.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key[:64]).digest(), "big")


class Holdout(NamedTuple):
    """A share of all persons who get nothing, so that there is something to compare with."""

    key: bytes
    parts: int
    """How many of a million are held out."""
    salt: str = GLOBAL

    @classmethod
    def of_playbook(cls, key: bytes, parts: int, playbook: str) -> Holdout:
        """The holdout of one playbook: drawn apart from the global one and from those of other playbooks."""
        return cls(key, parts, f"playbook:{playbook}")

    def holds(self, person: str) -> bool:
        """Whether the person is held out."""
        return draw(self.key, self.salt, person) * PARTS < self.parts * _DRAWS

    def __repr__(self) -> str:
        return f"Holdout({self.salt!r}, {self.parts} of {PARTS})"


class Split:
    """Persons divided among arms by weight: an experiment with any number of arms."""

    def __init__(self, key: bytes, salt: str, shares: Mapping[str, int]) -> None:
        """`shares` are parts of a million by arm and fill it; raises `InvalidInput`."""
        if not shares or any(parts < 0 for parts in shares.values()) or sum(shares.values()) != PARTS:
            raise InvalidInput(f"the shares of the arms {', '.join(shares) or '(none)'} do not add up to 1")
        self._key = key
        self._salt = f"split:{salt}"
        self.shares = dict(shares)
        self._arms = tuple(shares)
        self._ends = tuple(accumulate(shares.values()))

    def arm_of(self, person: str) -> str:
        """The person's arm; its propensity is its share."""
        place = draw(self._key, self._salt, person) * PARTS // _DRAWS
        return self._arms[bisect_right(self._ends, place)]

    def propensity(self, arm: str) -> float:
        """The chance with which anybody gets this arm."""
        return self.shares[arm] / PARTS
