"""What SyncShield serves beside budgets: consent, data subject requests, the compliance report, and evidence.

`ShieldService` mounts it: it has the guard, the listener and the life; this has the routes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kiki.ledger.shipper import Lag
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.consent_routes import ConsentRoutes
from kiki.shield.evidence_routes import EvidenceRoutes
from kiki.web import Route


class PrivacyService:
    """The routes over one guard; `asynchronous` gives its awaited form once the service has started."""

    def __init__(
        self,
        guard: BudgetGuard,
        asynchronous: Callable[[], AsyncGuard],
        *,
        lag: Callable[[], Lag] | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._consents = ConsentRoutes(guard.consents, asynchronous)
        self._evidence = EvidenceRoutes(guard.decider.ledger, asynchronous, lag=lag, scratch=scratch)

    def routes(self) -> Sequence[Route]:
        """All of them."""
        return [*self._consents.routes(), *self._evidence.routes()]
