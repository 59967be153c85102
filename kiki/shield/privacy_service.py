"""What SyncShield serves beside budgets: consent, data subject requests, the compliance report, and evidence.

`ShieldService` mounts it: it has the guard, the listener and the life; this has the routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kiki.clock import wall_micros
from kiki.errors import KikiError
from kiki.ledger.shipper import Lag
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.compliance_routes import ComplianceRoutes
from kiki.shield.compliance_survey import everything_is_held, request_lines
from kiki.shield.consent_routes import ConsentRoutes
from kiki.shield.evidence import chain_of
from kiki.shield.evidence_routes import EvidenceRoutes
from kiki.shield.note_routes import NoteRoutes
from kiki.shield.probe import Surroundings
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_routes import RequestRoutes
from kiki.telemetry import log_event
from kiki.web import Route

logger = logging.getLogger("kiki.shield")

_WORK_SECONDS = 30.0

RETENTION_DAYS = 2555


class Deployment(NamedTuple):
    """Where and how a service runs, as far as the privacy routes show it or need it."""

    data_dir: Path | None = None
    """None: the ledger lies in no directory of this machine."""
    master_key_file: Path | None = None
    retention_days: int = RETENTION_DAYS


class PrivacyService:
    """The routes over one guard; `asynchronous` gives its awaited form once the service has started.

    `lag` says how far the archive is behind, where there is one; `desk` runs the requests, over kiki's own stores if
    it is None.
    """

    def __init__(
        self,
        guard: BudgetGuard,
        asynchronous: Callable[[], AsyncGuard],
        deployment: Deployment | None = None,
        lag: Callable[[], Lag] | None = None,
        desk: RequestDesk | None = None,
    ) -> None:
        self._guard = guard
        self._lag = lag
        self._deployment = found = deployment or Deployment()
        decider = guard.decider
        self._consents = ConsentRoutes(guard.consents, asynchronous)
        self._evidence = EvidenceRoutes(
            decider.ledger, asynchronous, all_chains=decider.all_chains, lag=lag, scratch=found.data_dir
        )
        self._desk = desk or RequestDesk(decider, consents=guard.consents, retention_days=found.retention_days)
        self._requests = RequestRoutes(self._desk)
        self._working: asyncio.Task[None] | None = None
        self._compliance = ComplianceRoutes(self._surroundings, asynchronous, decider.clock)
        self._notes = NoteRoutes(asynchronous)

    def routes(self) -> Sequence[Route]:
        """All of them."""
        return [
            *self._consents.routes(),
            *self._requests.routes(),
            *self._compliance.routes(),
            *self._evidence.routes(),
            *self._notes.routes(),
        ]

    def start(self) -> None:
        """Begin to run the requests that are due; on the loop, when the guard can be asked."""
        self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            try:
                await self._requests.work()
            except KikiError as error:
                log_event(logger, logging.WARNING, "requests could not be run", code=error.code, detail=str(error))
            except Exception:
                logger.exception("the work on requests failed")
            await asyncio.sleep(_WORK_SECONDS)

    def stop(self) -> None:
        """Begin no more runs; one that goes on ends with the guard, and the next start goes on behind its last step."""
        if self._working is not None:
            self._working.cancel()
        self._desk.close()

    def _surroundings(self) -> Surroundings:
        decider, deployment = self._guard.decider, self._deployment
        ledger = decider.ledger
        return Surroundings(
            reader=ledger.store,
            others=[
                other
                for other in decider.all_chains()
                if chain_of(other) not in {"", ledger.chain} and other.next_seq()
            ],
            now=decider.clock(),
            wall=wall_micros(),
            retention_days=deployment.retention_days,
            requests=request_lines(ledger.store),
            on_hold=everything_is_held(ledger.store),
            subjects=decider.subjects,
            verifier_key=None if ledger.signer is None else ledger.signer.verifier_key,
            failure=None if ledger.failure is None else str(ledger.failure),
            data_dir=deployment.data_dir,
            master_key_file=deployment.master_key_file,
            lag=None if self._lag is None else self._lag(),
            has_archive=self._lag is not None,
        )
