"""What platforms demand for a person (access, erasure) and did not become a request of that person yet."""

from __future__ import annotations

from kiki.engage.database import Database
from kiki.engage.event import PrivacyKind, PrivacyRequest
from kiki.engage.keyring import Keyring


class DemandBook:
    """The demands of one store of customers."""

    def __init__(self, database: Database, keys: Keyring) -> None:
        self._database = database
        self._keys = keys

    def keep(self, request: PrivacyRequest) -> bool:
        """Keep a platform's demand, durable; False when it was told before.

        Its id names the person as a rule, and stays here for good: it is kept as a keyed hash behind the platform's name.
        """
        platform = request.id.partition(":")[0]
        name = f"{platform}:{self._keys.hash('demand', request.id).hex()}"
        with self._database.writing() as tx:
            return bool(
                tx.run(
                    "INSERT INTO engage_privacy_requests (id, kind, customer, at) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO NOTHING RETURNING id",
                    (name, request.kind, request.customer, request.at),
                )
            )

    def waiting(self) -> list[tuple[str, PrivacyRequest]]:
        """Those that became no request yet, oldest first, by their name here."""
        rows = self._database.read(
            "SELECT id, kind, customer, at FROM engage_privacy_requests WHERE request = '' ORDER BY at"
        )
        return [
            (name, PrivacyRequest(id=name, at=at, kind=PrivacyKind(kind), customer=customer))
            for name, kind, customer, at in rows
        ]

    def became(self, demand: str, request: str) -> None:
        """Note which request a demand became; whose it was is forgotten here."""
        with self._database.writing() as tx:
            tx.run("UPDATE engage_privacy_requests SET request = ?, customer = '' WHERE id = ?", (request, demand))
