"""What a SyncShield says of itself: the original's `/health`, the readiness of its parts, and the gauges of its metrics."""

from __future__ import annotations

from collections.abc import Sequence

from kiki.clock import to_iso, wall_micros
from kiki.shield.audit_view_process import AuditViewProcess
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.evidence_keeper import EvidenceKeeper
from kiki.shield.metrics import METERS_MAX
from kiki.shield.scope import PERSONAL_KINDS
from kiki.shield.window import MeterStatus
from kiki.web import Check, Reply, Request, json_reply


class Health:
    """Looks at a guard and at what runs beside it, and touches nothing."""

    def __init__(
        self,
        guard: BudgetGuard,
        audit_view: AuditViewProcess | None,
        keeper: EvidenceKeeper | None,
        *,
        redis_expected: bool,
    ) -> None:
        self._guard = guard
        self._audit_view = audit_view
        self._keeper = keeper
        self._redis_expected = redis_expected

    async def told(self, _: Request) -> Reply:
        """The answer to `/health`."""
        decider = self._guard.decider
        # These three words are the original's. They say here that decisions are being written down durably.
        keeping = decider.ledger.failure is None
        window = decider.books.window
        return json_reply(
            {
                "status": "healthy",
                "service": "syncshield",
                "gdpr_compliant": keeping,
                "iso27001_active": keeping,
                "ccpa_compliant": keeping,
                "redis_connected": window.kind == "redis" and window.ready() is None,
                "timestamp": to_iso(wall_micros()),
            }
        )

    async def checks(self) -> Sequence[Check]:
        """Every part that must work before a spend can be decided."""
        decider = self._guard.decider
        window, failure, locked = decider.books.window, decider.ledger.failure, decider.subjects.failure
        waiting = window.ready()
        kept = f"{window.kind} window"
        if self._redis_expected and window.kind == "local":
            kept += "; Redis did not answer at start, so it is not used until a restart"
        return [
            Check("ledger", failure is None, str(failure) if failure else f"chain {decider.ledger.chain}"),
            Check("keys", locked is None, str(locked) if locked else "the key store is open"),
            Check("window", waiting is None, waiting or kept),
        ]

    def gauges(self) -> dict[str, float]:
        """What is as it is now, by name."""
        decider = self._guard.decider
        gauges = {
            "ledger_ok": float(decider.ledger.failure is None),
            "ledger_entries": float(decider.ledger.next_seq),
            "window_ready": float(decider.books.window.ready() is None),
            "idempotency_keys": float(decider.key_count),
            "open_holds": float(decider.hold_count),
        }
        if self._audit_view is not None:
            gauges["audit_view_running"] = float(self._audit_view.is_running())
        if self._keeper is not None:
            gauges.update(self._keeper.gauges())
        return gauges

    def shown_meters(self) -> list[MeterStatus]:
        """The meters that may be shown as metrics: none that names a person."""
        # A window over the network is not asked on the loop; its figures are at /v1/budgets.
        if self._guard.decider.books.window.kind != "local":
            return []
        # One budget at a time: a budget of each customer must not take the place of the others.
        shown: list[MeterStatus] = []
        for budget in self._guard.policy.budgets:
            if budget.pattern.kind not in PERSONAL_KINDS and len(shown) < METERS_MAX:
                shown += self._guard.status(budget.name, limit=METERS_MAX - len(shown))
        return shown
