"""Coupon codes that are good once: issued, given to a person, locked for an order, redeemed, rolled back.

A code is random and too long to be guessed. Every step is one conditional write on the code's row, so of two who lock
the same code at once one gets it. A lock ends by itself; the same lock key is the same lock, so every step may be said
again. A code that was given to somebody is good for nobody else.
"""

from __future__ import annotations

import re
import secrets
from enum import StrEnum
from typing import Final, NamedTuple

from kiki.clock import SECOND, to_iso
from kiki.engage.loyalty_ledger import LoyaltyLedger
from kiki.errors import CodeDenied, InvalidInput, NotFound
from kiki.shield.call import parse_key

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Without what looks alike."""
CODE_CHARS: Final = 12
"""58 bits: whoever tries a million codes a second against a million that are out finds one in nine years."""
LOCK: Final = 30 * 60 * SECOND
_POOL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_AT_ONCE: Final = 1000
_COUNT_MAX: Final = 1_000_000


class CodeState(StrEnum):
    """Where a code stands."""

    FREE = "free"
    LOCKED = "locked"
    REDEEMED = "redeemed"
    VOID = "void"


class Refusal(StrEnum):
    """Why a code does not count."""

    UNKNOWN = "unknown"
    LOCKED = "locked"
    REDEEMED = "redeemed"
    VOID = "void"
    ENDED = "ended"
    ANOTHERS = "anothers"
    """It was given to somebody else."""


class Code(NamedTuple):
    """A code as it stands."""

    code: str
    pool: str
    state: CodeState
    ends_at: int | None
    locked_until: int
    order: str


_READ: Final = "SELECT code, pool, state, person, ends_at, lock_key, locked_until, order_id FROM loyalty_codes"
# What a lock can be put on: free, a lock that ran out, or the caller's own.
_LOCKABLE: Final = (
    "(state = 'free' OR (state = 'locked' AND (locked_until <= ? OR lock_key = ?))) "
    "AND (ends_at IS NULL OR ends_at > ?) AND (person = '' OR person = ?)"
)


class CouponBook:
    """The codes of a ledger of points, in the same database. Thread-safe."""

    def __init__(self, ledger: LoyaltyLedger) -> None:
        self._ledger = ledger
        self._database = ledger.database

    def issue(self, pool: str, count: int, *, ends_at: int | None = None) -> list[str]:
        """New codes of a pool; raises `InvalidInput`."""
        _require_pool(pool)
        now = self._ledger.clock()
        if type(count) is not int or not 0 < count <= _COUNT_MAX:
            raise InvalidInput(f"{str(count)[:40]} codes cannot be issued: write a whole number from 1 to {_COUNT_MAX}")
        if ends_at is not None and ends_at <= now:
            raise InvalidInput("codes that ended already are of no use: write a later end")
        made: list[str] = []
        while len(made) < count:
            some = [_random() for _ in range(min(_AT_ONCE, count - len(made)))]
            with self._database.writing() as tx:
                for code in some:
                    made += [
                        row[0]
                        for row in tx.run(
                            "INSERT INTO loyalty_codes "
                            "(code, pool, state, person, ends_at, lock_key, locked_until, order_id, changed_at) "
                            "VALUES (?, ?, 'free', '', ?, '', 0, '', ?) ON CONFLICT DO NOTHING RETURNING code",
                            (code, pool, ends_at, now),
                        )
                    ]
        return made

    def give(self, pool: str, customer: str) -> str:
        """The customer's own code of a pool, the same one whenever it is asked for; raises `NotFound` when none is left."""
        _require_pool(pool)
        person = self._ledger.reference(customer, may_make=True)
        now = self._ledger.clock()
        with self._database.writing() as tx:
            # Whoever holds the account's row gives: two calls for one customer cannot take two codes.
            tx.run(
                f"SELECT person FROM loyalty_accounts WHERE person = ?{self._database.for_update}",  # noqa: S608  # our own word
                (person,),
            )
            own = tx.run(f"{_READ} WHERE pool = ? AND person = ? ORDER BY code LIMIT 1", (pool, person))
            if own:
                return str(own[0][0])
            skip = " FOR UPDATE SKIP LOCKED" if self._database.is_shared else ""
            found = tx.run(
                "UPDATE loyalty_codes SET person = ?, changed_at = ? WHERE code = (SELECT code FROM loyalty_codes "  # noqa: S608  # our own word
                "WHERE pool = ? AND state = 'free' AND person = '' AND (ends_at IS NULL OR ends_at > ?) "
                f"LIMIT 1{skip}) RETURNING code",
                (person, now, pool, now),
            )
        if not found:
            raise NotFound(f"the pool {pool!r} has no code left", hint=f"kiki loyalty codes issue {pool} --count 1000")
        return str(found[0][0])

    def validate(self, code: str, customer: str = "") -> Code:
        """The code, if the customer could lock it now; raises `CodeDenied` with the reason."""
        text, person, now = normal(code), self._person(customer), self._ledger.clock()
        found = self._database.read(f"{_READ} WHERE code = ?", (text,))
        if reason := self._refusal(found[0] if found else None, person, now, ""):
            raise _denied(text, reason)
        return _code(found[0], now)

    def lock(self, code: str, *, key: str, customer: str = "", lasts: int = LOCK) -> Code:
        """Keep the code for one order, for `lasts` microseconds; raises `CodeDenied`.

        The same `key` locks it again, and longer.
        """
        text, person, now = normal(code), self._person(customer), self._ledger.clock()
        if lasts <= 0:
            raise InvalidInput("a lock lasts for some time")
        with self._database.writing() as tx:
            got = tx.run(
                "UPDATE loyalty_codes SET state = 'locked', lock_key = ?, locked_until = ?, changed_at = ? "  # noqa: S608  # our own words
                f"WHERE code = ? AND {_LOCKABLE} RETURNING code",
                (parse_key(key), now + lasts, now, text, now, key, now, person),
            )
            found = tx.run(f"{_READ} WHERE code = ?", (text,))
        if not got:
            raise _denied(text, self._refusal(found[0] if found else None, person, now, key) or Refusal.LOCKED)
        return _code(found[0], now)

    def unlock(self, code: str, *, key: str) -> bool:
        """Give the lock up; whether there was one under this key."""
        with self._database.writing() as tx:
            done = tx.run(
                "UPDATE loyalty_codes SET state = 'free', lock_key = '', locked_until = 0, changed_at = ? "
                "WHERE code = ? AND state = 'locked' AND lock_key = ? RETURNING code",
                (self._ledger.clock(), normal(code), parse_key(key)),
            )
        return bool(done)

    def redeem(self, code: str, *, key: str, order: str = "", customer: str = "") -> Code:
        """Use the code up, from its lock or at once; raises `CodeDenied`. Said again with the key it is done already."""
        text, person, now = normal(code), self._person(customer), self._ledger.clock()
        with self._database.writing() as tx:
            got = tx.run(
                "UPDATE loyalty_codes SET state = 'redeemed', lock_key = ?, order_id = ?, changed_at = ? "  # noqa: S608  # our own words
                f"WHERE code = ? AND {_LOCKABLE} RETURNING code",
                (parse_key(key), order, now, text, now, key, now, person),
            )
            found = tx.run(f"{_READ} WHERE code = ?", (text,))
        if not got:
            if found and found[0][2] == CodeState.REDEEMED and found[0][5] == key:
                return _code(found[0], now)
            raise _denied(text, self._refusal(found[0] if found else None, person, now, key) or Refusal.REDEEMED)
        return _code(found[0], now)

    def roll_back(self, code: str, *, key: str) -> bool:
        """The order was cancelled: the code that this key redeemed is good again; whether something changed."""
        with self._database.writing() as tx:
            done = tx.run(
                "UPDATE loyalty_codes SET state = 'free', lock_key = '', locked_until = 0, order_id = '', changed_at = ? "
                "WHERE code = ? AND state = 'redeemed' AND lock_key = ? RETURNING code",
                (self._ledger.clock(), normal(code), parse_key(key)),
            )
            found = tx.run(f"{_READ} WHERE code = ?", (normal(code),))
        if not found:
            raise _denied(normal(code), Refusal.UNKNOWN)
        return bool(done)

    def void(self, code: str) -> bool:
        """Make a code that is not redeemed good for nobody; whether something changed."""
        with self._database.writing() as tx:
            done = tx.run(
                "UPDATE loyalty_codes SET state = 'void', lock_key = '', locked_until = 0, changed_at = ? "
                "WHERE code = ? AND state IN ('free', 'locked') RETURNING code",
                (self._ledger.clock(), normal(code)),
            )
        return bool(done)

    def counts(self) -> dict[str, dict[str, int]]:
        """By pool how many codes there are in each state."""
        found: dict[str, dict[str, int]] = {}
        rows = self._database.read("SELECT pool, state, count(*) FROM loyalty_codes GROUP BY pool, state ORDER BY 1, 2")
        for pool, state, count in rows:
            found.setdefault(pool, {})[state] = count
        return found

    def _person(self, customer: str) -> str:
        return (self._ledger.reference(customer) or "nobody") if customer else ""

    @staticmethod
    def _refusal(row: tuple[object, ...] | None, person: str, now: int, key: str) -> Refusal | None:
        if row is None:
            return Refusal.UNKNOWN
        _, _, state, owner, ends_at, lock_key, locked_until, _ = row
        if state == CodeState.REDEEMED:
            return Refusal.REDEEMED
        if state == CodeState.VOID:
            return Refusal.VOID
        if isinstance(ends_at, int) and ends_at <= now:
            return Refusal.ENDED
        if owner not in {"", person}:
            return Refusal.ANOTHERS
        if state == CodeState.LOCKED and isinstance(locked_until, int) and locked_until > now and lock_key != key:
            return Refusal.LOCKED
        return None


_WORDS: Final = {
    Refusal.UNKNOWN: "there is no such code",
    Refusal.LOCKED: "the code is locked for another order",
    Refusal.REDEEMED: "the code was redeemed already",
    Refusal.VOID: "the code was taken out of use",
    Refusal.ENDED: "the code has ended",
    Refusal.ANOTHERS: "the code was given to another customer",
}


def normal(code: str) -> str:
    """The code as it is kept: people write spaces, dashes and small letters; raises `CodeDenied` for what is none."""
    text = re.sub(r"[\s-]", "", code[:64]).upper()
    if len(text) != CODE_CHARS or set(text) - set(ALPHABET):
        raise _denied(code, Refusal.UNKNOWN)
    return text


def _denied(code: str, reason: Refusal) -> CodeDenied:
    return CodeDenied(f"{code[:40]}: {_WORDS[reason]}", reason=reason.value)


def _random() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARS))


def _code(row: tuple[object, ...], now: int) -> Code:
    code, pool, state, _, ends_at, _, until, order = row
    kept = CodeState(str(state))
    assert isinstance(until, int)
    if kept is CodeState.LOCKED and until <= now:
        kept = CodeState.FREE
    return Code(str(code), str(pool), kept, ends_at if isinstance(ends_at, int) else None, until, str(order))


def shown(code: Code) -> dict[str, object]:
    """The code as JSON values."""
    return {
        "code": code.code,
        "pool": code.pool,
        "state": code.state.value,
        "ends_at": None if code.ends_at is None else to_iso(code.ends_at),
        "locked_until": to_iso(code.locked_until) if code.state is CodeState.LOCKED else None,
        "order": code.order or None,
    }


def _require_pool(pool: str) -> None:
    if not _POOL.fullmatch(pool):
        raise InvalidInput(f"{pool[:40]!r} is no name of a pool: write 1 to 64 of a-z, 0-9, '.', '_' and '-'")
