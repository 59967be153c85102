"""Points and codes as a system that holds personal data: what requests of persons find, copy and erase there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from kiki.clock import to_iso
from kiki.engage.loyalty_ledger import LoyaltyLedger
from kiki.shield.subject_data import Document, Erased, Found, Task, Verification
from kiki.shield.subject_request import Kept


class LoyaltyData:
    """A `SubjectData`: erasing removes what leads to the account, whose sums stay in the books of points."""

    name = "loyalty"
    depends_on: Collection[str] = ()

    def __init__(self, ledger: LoyaltyLedger) -> None:
        self._ledger = ledger

    def locate(self, task: Task) -> Found:
        """Entries of the person."""
        count = len(self._ledger.history(task.customer))
        return Found(count, ("loyalty points",) if count else ())

    def restrict(self, task: Task) -> None:
        """Nothing: points are used only when the person spends them."""

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        """Nothing: numbers of points and orders are no fields that a person corrects."""
        return 0

    def export(self, task: Task) -> Iterator[Document]:
        """Every entry, and the balance."""
        entries = self._ledger.history(task.customer)
        if not entries:
            return
        balance = self._ledger.balance(task.customer)
        told: dict[str, Any] = {
            "available": balance.available,
            "pending": balance.pending,
            "held": balance.held,
            "entries": [each._asdict() | {"at": to_iso(each.at)} for each in entries],
        }
        yield Document("loyalty.json", [msgspec.json.encode(told)], len(entries))

    def erase(self, task: Task) -> Erased:
        """Remove the way from the person to the account; the numbers stay, and are nobody's."""
        count = self._ledger.forget(task.customer)
        kept = [Kept("points_ledger", "GDPR recital 26", None, count, readable=False)] if count else []
        return Erased(count, kept)

    def verify(self, task: Task) -> Verification:
        """Nothing may lead to an account."""
        return Verification(int(self._ledger.knows(task.customer)), 1)
