"""Points of customers, durable in SQLite or PostgreSQL: what was earned, spent, returned, ended; nothing is ever changed.

Each change of an account is one transaction that holds the account's row and moves it on from the place that it was read
at, so that of many who spend at once each sees what those before left. Every change carries an idempotency key: said
again, it is told again and not done again. A customer is a random reference everywhere but in the one table that leads
there; forgetting somebody removes that row, and the sums stay right.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from kiki.clock import Clock, wall_micros
from kiki.engage.database import Database, Statements, open_database
from kiki.engage.loyalty_account import Account, Balance, Entry, Kind
from kiki.engage.loyalty_program import Program, Standing, standing
from kiki.engage.loyalty_rows import ENTRIES, entry_of, keep, load
from kiki.engage.loyalty_secret import SECRET_BYTES, secret_beside
from kiki.engage.loyalty_tables import SCHEMA_VERSION, TABLES
from kiki.errors import Conflict, InvalidInput, KeyReused, NotFound
from kiki.money import parse_micros
from kiki.shield.call import parse_key
from kiki.shield.consent_words import parse_customer_id

SCHEMA_LOCK: Final = 7_274_052
_ORDER_CHARS_MAX: Final = 200
_SWEEP: Final = 500


class Receipt(NamedTuple):
    """What became of a change."""

    entry: Entry
    balance: Balance
    """After it; of a repeat, as it is now."""
    repeated: bool
    """Whether the key was used before: nothing was done again."""


class LoyaltyLedger:
    """The points of all customers. Thread-safe; any number of processes may have it open."""

    def __init__(
        self,
        database: Database,
        program: Program | None = None,
        *,
        clock: Clock = wall_micros,
        hashed: Callable[[str], bytes] | None = None,
    ) -> None:
        """`hashed` is a keyed hash of customers' ids; without it the ledger has a secret of its own."""
        self.database = database
        self.program = program or Program()
        self.clock = clock
        with database.writing() as tx:
            if database.is_shared:
                tx.run("SELECT pg_advisory_xact_lock(?)", (SCHEMA_LOCK,))
            for statement in TABLES:
                tx.run(statement)
            own = [] if hashed else [("secret", secrets.token_hex(SECRET_BYTES))]
            for name, value in (("schema", str(SCHEMA_VERSION)), *own):
                tx.run("INSERT INTO loyalty_meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
            found = dict(tx.run("SELECT name, value FROM loyalty_meta"))
            self._hashed = hashed or _keyed(bytes.fromhex(found["secret"]))
            check = self._hashed("loyalty:check").hex()
            tx.run("INSERT INTO loyalty_meta (name, value) VALUES ('hash', ?) ON CONFLICT DO NOTHING", (check,))
            known = tx.run("SELECT value FROM loyalty_meta WHERE name = 'hash'")[0][0]
        if found["schema"] != str(SCHEMA_VERSION):
            raise InvalidInput(f"this ledger of points has version {found['schema']}, not {SCHEMA_VERSION}")
        if known != check:
            raise InvalidInput(
                "this ledger of points was written with other keys: nobody in it would be found",
                hint="open it with the key (loyalty.key) or the key store that lay beside it",
            )

    @classmethod
    def open(cls, where: str | Path | None, program: Program | None = None, *, clock: Clock = wall_micros) -> Self:
        """The ledger in a SQLite file, in the PostgreSQL of a `postgresql://` address, or (None) in memory.

        Beside a file lies the secret that ids are hashed with; PostgreSQL keeps it itself.
        """
        database = open_database(where)
        try:
            hashed = None
            if where is not None and not database.is_shared:
                hashed = _keyed(secret_beside(Path(where), database))
            return cls(database, program, clock=clock, hashed=hashed)
        except BaseException:
            database.close()
            raise

    @classmethod
    def open_if_there(cls, where: str | Path) -> Self | None:
        """The ledger, where somebody has made one; None elsewhere, and nothing is made."""
        if not str(where).startswith(("postgresql://", "postgres://")):
            return cls.open(where) if Path(where).exists() else None
        database = open_database(where)
        try:
            there = database.read("SELECT to_regclass('loyalty_meta')")[0][0] is not None
        finally:
            database.close()
        return cls.open(where) if there else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    # -- changes -------------------------------------------------------------------------------------

    def earn(
        self, customer: str, points: int | None = None, *, key: str, amount: object = None, order: str = ""
    ) -> Receipt:
        """Give points, or what an `amount` of money earns in the customer's tier.

        They can be spent after the program's pending time and end with its expiry. Raises `InvalidInput`.
        """
        if (points is None) == (amount is None):
            raise InvalidInput("say either how many points, or what amount they are earned for")
        micros = None if amount is None else parse_micros(amount)
        program = self.program

        def change(account: Account, now: int, tx: Statements, person: str) -> Entry:
            count = points
            if micros is not None:
                tier = self._standing(tx, person, now).tier if program.tiers else None
                count = program.points_for(micros, tier)
                if not count:
                    raise InvalidInput("that amount earns no whole point")
            opens = max(now, account.last_at) + program.pending
            ends = None if program.expiry is None else opens + program.expiry
            assert count is not None
            return account.earn(count, now, opens_at=opens, ends_at=ends, order=_order(order))

        return self._change(customer, key, ["earn", points, micros, order], change, may_make=True)

    def spend(self, customer: str, points: int, *, key: str, order: str = "") -> Receipt:
        """Take points, those first that end first; raises `PointsShort` when there are fewer."""
        asked = ["spend", points, order]
        return self._change(
            customer, key, asked, lambda account, now, *_: account.spend(points, now, order=_order(order))
        )

    def hold(self, customer: str, points: int, *, key: str, order: str = "", lasts: int | None = None) -> Receipt:
        """Set points aside for an order that is not paid yet, for `lasts` microseconds; raises `PointsShort`."""
        span = self.program.hold if lasts is None else lasts

        def change(account: Account, now: int, *_: Any) -> Entry:
            return account.spend(points, now, order=_order(order), hold_until=max(now, account.last_at) + span)

        return self._change(customer, key, ["hold", points, order, lasts], change)

    def commit(self, customer: str, place: int, *, key: str) -> Receipt:
        """The order of a hold was paid; raises `Conflict` when it is not open any more."""
        asked = ["commit", place]
        return self._change(customer, key, asked, lambda account, now, *_: account.commit(place, now), about=place)

    def release(self, customer: str, place: int, *, key: str) -> Receipt:
        """The order of a hold came to nothing; raises `Conflict` when it is not open any more."""
        asked = ["release", place]
        return self._change(customer, key, asked, lambda account, now, *_: account.release(place, now), about=place)

    def refund(self, customer: str, place: int, *, key: str, points: int | None = None) -> Receipt:
        """Reverse the entry at a place, or some of its points: never more than it moved.

        What was earned is taken back, down to a debt where it was spent; what was spent comes back.
        """
        grace = self.program.grace

        def change(account: Account, now: int, *_: Any) -> Entry:
            return account.refund(place, now, points=points, grace=grace)

        return self._change(customer, key, ["refund", place, points], change, about=place)

    def refund_order(self, customer: str, order: str, *, key: str) -> list[Receipt]:
        """Reverse whatever the customer earned, spent or holds for an order, as far as it is not reversed yet.

        Raises `NotFound` when there is nothing for it.
        """
        parse_key(key)
        found = self.of_order(customer, order)
        if not found:
            raise NotFound(f"nothing was earned or spent by this customer for the order {order!r}")
        receipts = []
        resolved = {entry.about for entry in self.history(customer) if entry.kind is Kind.COMMIT}
        for entry in found:
            is_held = entry.kind is Kind.HOLD and entry.place not in resolved
            call = self.release if is_held else self.refund
            with suppress(Conflict):  # it was reversed, or ran out, before
                receipts.append(call(customer, entry.place, key=f"{key}:{entry.place}"))
        return receipts

    def _change(
        self,
        customer: str,
        key: str,
        asked: list[Any],
        change: Callable[[Account, int, Statements, str], Entry],
        *,
        about: int = 0,
        may_make: bool = False,
    ) -> Receipt:
        said = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
        parse_key(key)
        name = self._name(customer)
        with self.database.writing() as tx:
            person = self._person(tx, name, may_make=may_make)
            account = load(tx, person, self.database.for_update, about)
            first = tx.run(f"{ENTRIES} AND call_key = ?", (person, key))
            if first:
                if first[0][6] != said:
                    raise KeyReused(f"the key {key!r} was used for another change of this customer's points")
                account.advance(self.clock())
                return Receipt(entry_of(first[0]), account.balance(), repeated=True)
            before = account.last_place
            entry = change(account, self.clock(), tx, person)
            keep(tx, person, account, before, {entry.place: (key, said)})
        return Receipt(entry, account.balance(), repeated=False)

    def expire(self, most: int = 100_000) -> int:
        """Write down what ended, and give back what holds kept that ran out; how many entries that made.

        Balances are right without it; reports about all customers are after it.
        """
        written = 0
        while written < most:
            now = self.clock()
            people = self.database.read(
                "SELECT person FROM loyalty_lots WHERE remaining > 0 AND ends_at <= ? "
                "UNION SELECT person FROM loyalty_takings WHERE state = 'hold' AND until <= ? LIMIT ?",
                (now, now, _SWEEP),
            )
            if not people:
                break
            for (person,) in people:
                with self.database.writing() as tx:
                    account = load(tx, person, self.database.for_update)
                    before = account.last_place
                    account.advance(now)
                    keep(tx, person, account, before, {})
                    written += len(account.entries)
        return written

    # -- questions -----------------------------------------------------------------------------------

    def balance(self, customer: str) -> Balance:
        """What the customer has now; nothing for somebody who is not known."""
        with self.database.writing() as tx:
            person = self._find(tx, self._name(customer))
            if person is None:
                return Account().balance()
            account = load(tx, person, self.database.for_update)
        account.advance(self.clock())
        return account.balance()

    def history(self, customer: str) -> list[Entry]:
        """Every entry of the customer, the first one first."""
        found = self.database.read("SELECT person FROM loyalty_people WHERE name = ?", (self._name(customer),))
        if not found:
            return []
        return [entry_of(row) for row in self.database.read(f"{ENTRIES} ORDER BY place", (found[0][0],))]

    def of_order(self, customer: str, order: str) -> list[Entry]:
        """The customer's earnings, spends and holds for one order."""
        return [entry for entry in self.history(customer) if entry.order == order and order]

    def standing(self, customer: str) -> Standing:
        """The customer's tier, what it will be, and what is missing to the next."""
        return standing(self.program, self.history(customer), self.clock())

    def _standing(self, tx: Statements, person: str, now: int) -> Standing:
        return standing(self.program, [entry_of(row) for row in tx.run(f"{ENTRIES} ORDER BY place", (person,))], now)

    def totals(self) -> dict[str, int]:
        """Over all customers: accounts, points outstanding, debts as balances show them now, and entries."""
        with self.database.writing() as tx:
            ((accounts, total),) = tx.run("SELECT count(*), coalesce(sum(total), 0) FROM loyalty_accounts")
            ((entries,),) = tx.run("SELECT count(*) FROM loyalty_entries")
            now, debt = self.clock(), 0
            for (person,) in tx.run("SELECT person FROM loyalty_accounts WHERE debt > 0"):
                account = load(tx, person, "")
                account.advance(now)  # points that opened meanwhile have paid, though no change wrote that down yet
                debt += account.debt
        return {"accounts": accounts, "points": int(total), "debt": debt, "entries": entries}

    def problems(self) -> Iterator[str]:
        """What does not hold: the sum of an account's entries, its lots and its balance are one number; places have no gaps."""
        found = self.database.read(
            "SELECT a.person, a.total, a.debt, a.last_place, "
            "(SELECT coalesce(sum(points), 0) FROM loyalty_entries e WHERE e.person = a.person), "
            "(SELECT count(*) FROM loyalty_entries e WHERE e.person = a.person), "
            "(SELECT coalesce(sum(remaining), 0) FROM loyalty_lots l WHERE l.person = a.person) FROM loyalty_accounts a"
        )
        for person, total, debt, last, summed, count, left in found:
            if not total == summed == left - debt:
                yield f"account {person}: balance {total}, entries {summed}, lots {left} less a debt of {debt}"
            if count != last:
                yield f"account {person}: {count} entries, and the last is number {last}"

    # -- persons -------------------------------------------------------------------------------------

    def knows(self, customer: str) -> bool:
        """Whether something leads from this customer to an account."""
        return bool(self.database.read("SELECT 1 FROM loyalty_people WHERE name = ?", (self._name(customer),)))

    def forget(self, customer: str) -> int:
        """End the customer's points and remove what leads to the account; how many entries nobody owns from then on."""
        name = self._name(customer)
        with self.database.writing() as tx:
            person = self._find(tx, name)
            if person is None:
                return 0
            account = load(tx, person, self.database.for_update)
            before = account.last_place
            account.close(self.clock())
            keep(tx, person, account, before, {})
            # Orders and keys are the shop's own numbers, and would lead back to the person.
            tx.run("UPDATE loyalty_entries SET order_id = '', call_key = NULL, asked = '' WHERE person = ?", (person,))
            tx.run("UPDATE loyalty_codes SET person = '', order_id = '', lock_key = '' WHERE person = ?", (person,))
            tx.run("DELETE FROM loyalty_people WHERE name = ?", (name,))
        return account.last_place

    def reference(self, customer: str, *, may_make: bool = False) -> str | None:
        """What stands for the customer here; None for somebody who is not known."""
        with self.database.writing() as tx:
            return (
                self._person(tx, self._name(customer), may_make=True)
                if may_make
                else self._find(tx, self._name(customer))
            )

    def _name(self, customer: str) -> str:
        return self._hashed(f"loyalty:{parse_customer_id(customer)}").hex()

    @staticmethod
    def _find(tx: Statements, name: str) -> str | None:
        found = tx.run("SELECT person FROM loyalty_people WHERE name = ?", (name,))
        return found[0][0] if found else None

    def _person(self, tx: Statements, name: str, *, may_make: bool) -> str:
        person = self._find(tx, name)
        if person is None and may_make:
            row = (name, secrets.token_hex(16))
            tx.run("INSERT INTO loyalty_people (name, person) VALUES (?, ?) ON CONFLICT DO NOTHING", row)
            person = self._find(tx, name)
        if person is None:
            raise NotFound("this customer has no points and never had", hint="points begin with `earn`")
        if may_make:
            tx.run(
                "INSERT INTO loyalty_accounts (person, last_place, last_at, debt, total) VALUES (?, 0, 0, 0, 0) "
                "ON CONFLICT DO NOTHING",
                (person,),
            )
        return person


def _keyed(secret: bytes) -> Callable[[str], bytes]:
    return lambda text: hmac.digest(secret, text.encode(), hashlib.sha256)


def _order(given: str) -> str:
    if len(given) > _ORDER_CHARS_MAX or not given.isprintable():
        raise InvalidInput(f"an order's number has at most {_ORDER_CHARS_MAX} printable characters")
    return given
