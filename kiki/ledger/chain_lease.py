"""A chain for a process that has no name of its own: the first of a pattern's numbered names that nobody owns.

A Deployment's pods have another name each time. A chain that only one of them ever owned would never be archived to its end, nor
lose what is past its retention; so the next pod goes on with it.
"""

from __future__ import annotations

from contextlib import closing
from typing import Final

from kiki.errors import LedgerLocked
from kiki.ledger import postgres_statements as statements
from kiki.ledger.postgres import SCHEMA, lock_key
from kiki.ledger.postgres_connection import ANSWER_SECONDS, CONNECT_SECONDS, Session

NUMBERS: Final = 1000
"""So many processes of one pattern are enough for anybody."""


def free_chain(url: str, pattern: str, begin: int = 0) -> tuple[str, int]:
    """The first name from a number on that nobody owns now, and its number; it is claimed by opening a store of that name."""
    with closing(Session(url, connect_timeout=CONNECT_SECONDS, answer_timeout=ANSWER_SECONDS)) as session:
        for number in range(begin, NUMBERS):
            name = f"{pattern.removesuffix('*')}{number}"
            key = lock_key(SCHEMA, f"chain/{name}")
            if session.query(statements.TRY_LOCK, [key])[0][0]:
                session.query(statements.UNLOCK, [key])
                return name, number
    raise LedgerLocked(f"all {NUMBERS} chains {pattern} are owned", hint="stop what is not needed any more")
