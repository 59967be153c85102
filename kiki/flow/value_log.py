"""What became of each value that was uploaded, so that none is sent again that a platform has.

An order is written down as on its way before it is sent, and its fate as soon as that is known: whoever is killed in
between leaves `unknown` behind, which may only be sent again as what it was. Orders, clicks and values are hashed, and
customers are not kept at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from kiki.clock import Clock
from kiki.errors import Conflict, RunTaken
from kiki.flow.executor import claim
from kiki.flow.run_database import RunDatabase, in_parts
from kiki.flow.run_tables import values
from kiki.outbound.outcome import Fate

_SENDING: Final = "sending"


class Kept(NamedTuple):
    """What is known of one order."""

    fate: Fate
    content: bytes
    first_at: int
    """When it was first sent, of those times that may have had an effect."""


class Untold(NamedTuple):
    """The fate of an order that the ledger does not have yet."""

    order: bytes
    purpose: str
    fate: Fate
    at: int


def digest(*parts: str) -> bytes:
    """16 bytes that stand for these texts."""
    return blake2b("\0".join(("kiki.flow.values", *parts)).encode(), digest_size=16).digest()


class ValueLog:
    """The fates of values by place, which is a campaign on a platform; any thread may call it."""

    def __init__(self, database: RunDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @contextmanager
    def alone(self, place: bytes) -> Iterator[None]:
        """One upload to a place at a time, of all processes; what a killed one had on its way is unknown from now on.

        Raises `Conflict` while there is another.
        """
        try:
            let_go = claim(self._database.engine, f"values-{place.hex()}")
        except RunTaken:
            raise Conflict(
                "values of this campaign are being uploaded just now",
                hint="wait for that; what it sends is not sent twice",
            ) from None
        try:
            on_its_way = (values.c.place == place) & (values.c.fate == _SENDING)
            with self._database.writing() as connection:
                connection.execute(sa.update(values).where(on_its_way).values(fate=Fate.UNKNOWN.value, told=0))
            yield
        finally:
            let_go()

    def known(self, place: bytes, orders: Collection[bytes]) -> dict[bytes, Kept]:
        """What is known of these orders; one that is missing was never sent."""
        with self._database.reading() as connection:
            return _kept(connection, place, orders)

    def send(self, place: bytes, contents: Mapping[bytes, bytes], purpose: str) -> set[bytes]:
        """These orders, and what is said of them, are on their way from now on; those that may have been there before."""
        now = self._clock()
        with self._database.writing() as connection:
            before = _kept(connection, place, contents)
            # What is sent anew after a refusal is first sent now.
            first = {order: kept.first_at for order, kept in before.items() if kept.fate is Fate.UNKNOWN}
            for some in in_parts([*before]):
                connection.execute(sa.delete(values).where(_among(place, some)))
            rows = [
                {
                    "place": place,
                    "order_hash": order,
                    "content": content,
                    "purpose": purpose,
                    "fate": _SENDING,
                    "first_at": first.get(order, now),
                    "at": now,
                    "told": 1,
                }
                for order, content in contents.items()
            ]
            connection.execute(sa.insert(values), rows)
        return {*first}

    def settle(self, place: bytes, fates: Mapping[bytes, Fate]) -> None:
        """What became of orders that were on their way."""
        now = self._clock()
        with self._database.writing() as connection:
            for fate in Fate:
                for some in in_parts([order for order, found in fates.items() if found is fate]):
                    changed = sa.update(values).where(_among(place, some))
                    connection.execute(changed.values(fate=fate.value, at=now, told=0))

    def untold(self, place: bytes) -> list[Untold]:
        """The fates that the ledger does not have yet, in a fixed order."""
        columns = (values.c.order_hash, values.c.purpose, values.c.fate, values.c.at)
        wanted = sa.select(*columns).where(values.c.place == place, values.c.told == 0).order_by(values.c.order_hash)
        with self._database.reading() as connection:
            return [Untold(bytes(row[0]), row[1], Fate(row[2]), row[3]) for row in connection.execute(wanted)]

    def told(self, place: bytes, orders: Sequence[bytes]) -> None:
        """The ledger has the fates of these orders."""
        with self._database.writing() as connection:
            for some in in_parts(orders):
                connection.execute(sa.update(values).where(_among(place, some)).values(told=1))


def _kept(connection: sa.Connection, place: bytes, orders: Collection[bytes]) -> dict[bytes, Kept]:
    columns = (values.c.order_hash, values.c.fate, values.c.content, values.c.first_at)
    found: dict[bytes, Kept] = {}
    for some in in_parts([*orders]):
        for order, fate, content, first_at in connection.execute(sa.select(*columns).where(_among(place, some))):
            # What is on its way may be there already.
            known = Fate.UNKNOWN if fate == _SENDING else Fate(fate)
            found[bytes(order)] = Kept(known, bytes(content), first_at)
    return found


def _among(place: bytes, orders: Sequence[bytes]) -> Any:
    return (values.c.place == place) & values.c.order_hash.in_(orders)
