"""Points and codes as a system that holds personal data: what requests of persons find, copy and erase there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from kiki.clock import to_iso
from kiki.engage.loyalty_ledger import LoyaltyLedger
from kiki.shield.subject_data import Document, Erased, Found, Task, Verification
from kiki.shield.subject_request import Kept

FIGURES_ARTICLE: Final = "GDPR 11(1)"


class LoyaltyData:
    """A `SubjectData`: erasing removes what leads to the account, whose sums stay in the books of points."""

    name = "loyalty"
    depends_on: Collection[str] = ()

    def __init__(self, ledger: LoyaltyLedger | str | Path) -> None:
        """A ledger that is open, or where one is or may be one day: then it is looked for at every task."""
        self._ledger = ledger

    @contextmanager
    def _opened(self) -> Iterator[LoyaltyLedger | None]:
        if isinstance(self._ledger, LoyaltyLedger):
            yield self._ledger
            return
        ledger = LoyaltyLedger.open_if_there(self._ledger)
        try:
            yield ledger
        finally:
            if ledger is not None:
                ledger.close()

    def locate(self, task: Task) -> Found:
        """Entries of the person."""
        with self._opened() as ledger:
            count = 0 if ledger is None else len(ledger.history(task.customer))
        return Found(count, ("loyalty points",) if count else ())

    def restrict(self, task: Task) -> None:
        """Nothing: points are used only when the person spends them."""

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        """Nothing: numbers of points and orders are no fields that a person corrects."""
        return 0

    def export(self, task: Task) -> Iterator[Document]:
        """Every entry, and the balance."""
        with self._opened() as ledger:
            entries = [] if ledger is None else ledger.history(task.customer)
            if ledger is None or not entries:
                return
            balance = ledger.balance(task.customer)
        told: dict[str, Any] = {
            "available": balance.available,
            "pending": balance.pending,
            "held": balance.held,
            "entries": [each._asdict() | {"at": to_iso(each.at)} for each in entries],
        }
        yield Document("loyalty.json", [msgspec.json.encode(told)], len(entries))

    def erase(self, task: Task) -> Erased:
        """Remove the way from the person to the account; the numbers stay, and are nobody's."""
        with self._opened() as ledger:
            count = 0 if ledger is None else ledger.forget(task.customer)
        kept = [Kept("points_ledger", FIGURES_ARTICLE, None, count, readable=False)] if count else []
        return Erased(count, kept)

    def verify(self, task: Task) -> Verification:
        """Nothing may lead to an account."""
        with self._opened() as ledger:
            return Verification(0 if ledger is None else int(ledger.knows(task.customer)), 1)
