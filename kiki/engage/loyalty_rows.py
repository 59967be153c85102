"""An account as rows: read so that nobody else changes it meanwhile, written back in one go."""

from __future__ import annotations

from typing import Final

from kiki.engage.database import Row, Statements
from kiki.engage.loyalty_account import Account, Entry, Kind, Lot, Taking
from kiki.errors import Conflict, NotFound

ENTRIES: Final = "SELECT place, kind, points, at, about, order_id, asked FROM loyalty_entries WHERE person = ?"


def load(tx: Statements, person: str, for_update: str, about: int = 0) -> Account:
    """The account, kept from others until the transaction ends; of what is over only what `about` needs."""
    row = tx.run(
        f"SELECT last_place, last_at, debt FROM loyalty_accounts WHERE person = ?{for_update}",  # noqa: S608  # our own word
        (person,),
    )
    if not row:
        raise NotFound("this customer has no account any more")
    takings = {
        place: Taking(place, points, Kind(state), until, {}, returned)
        for place, points, state, until, returned in tx.run(
            "SELECT place, points, state, until, returned FROM loyalty_takings "
            "WHERE person = ? AND (state = 'hold' OR place = ?)",
            (person, about),
        )
    }
    for place, taking in takings.items():
        parts = tx.run("SELECT lot, points FROM loyalty_parts WHERE person = ? AND taking = ?", (person, place))
        taking.parts = dict(parts)
    wanted = sorted({about, *(lot for taking in takings.values() for lot in taking.parts)})
    marks = ", ".join("?" * len(wanted))
    lots = {
        row[0]: Lot(*row)
        for row in tx.run(
            "SELECT place, points, opens_at, ends_at, remaining, expired, returned, forgiven FROM loyalty_lots "  # noqa: S608  # marks
            f"WHERE person = ? AND (remaining > 0 OR place IN ({marks}))",
            (person, *wanted),
        )
    }
    return Account(lots, takings, debt=row[0][2], last_place=row[0][0], last_at=row[0][1])


def keep(tx: Statements, person: str, account: Account, before: int, keys: dict[int, tuple[str, str]]) -> None:
    """Write down what changed; raises `Conflict` where the account is not where it was read."""
    added = sum(entry.points for entry in account.entries)
    moved = tx.run(
        "UPDATE loyalty_accounts SET last_place = ?, last_at = ?, debt = ?, total = total + ? "
        "WHERE person = ? AND last_place = ? RETURNING person",
        (account.last_place, account.last_at, account.debt, added, person, before),
    )
    if not moved:
        raise Conflict("the account was changed meanwhile; ask again with the same key")
    tx.many(
        "INSERT INTO loyalty_entries (person, place, kind, points, at, about, order_id, call_key, asked) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(person, *_values(entry), *keys.get(entry.place, (None, ""))) for entry in account.entries],
    )
    lots = [account.lots[place] for place in sorted(account.changed_lots)]
    tx.many(
        "INSERT INTO loyalty_lots "
        "(person, place, points, opens_at, ends_at, remaining, expired, returned, forgiven) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (person, place) DO UPDATE SET "
        "remaining = excluded.remaining, expired = excluded.expired, returned = excluded.returned, "
        "forgiven = excluded.forgiven",
        [
            (
                person,
                lot.place,
                lot.points,
                lot.opens_at,
                lot.ends_at,
                lot.left,
                lot.expired,
                lot.returned,
                lot.forgiven,
            )
            for lot in lots
        ],
    )
    takings = [account.takings[place] for place in sorted(account.changed_takings)]
    tx.many(
        "INSERT INTO loyalty_takings (person, place, points, state, until, returned) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (person, place) DO UPDATE SET state = excluded.state, returned = excluded.returned",
        [(person, each.place, each.points, each.state.value, each.until, each.returned) for each in takings],
    )
    tx.many(
        "INSERT INTO loyalty_parts (person, taking, lot, points) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (person, taking, lot) DO UPDATE SET points = excluded.points",
        [(person, each.place, lot, points) for each in takings for lot, points in each.parts.items()],
    )


def entry_of(row: Row) -> Entry:
    """The entry of a row of `ENTRIES`."""
    place, kind, points, at, about, order, _ = row
    return Entry(place, Kind(kind), points, at, about, order)


def _values(entry: Entry) -> tuple[object, ...]:
    return (entry.place, entry.kind.value, entry.points, entry.at, entry.about, entry.order)
