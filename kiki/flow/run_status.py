"""How a run stands, for people and programs: one value from the store's rows and the run's story. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kiki.flow.plan import Plan
from kiki.flow.progress import Alert, LaneProgress, Progress
from kiki.flow.run_rows import RUNNING, LaneRow, RunRow


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Money in micros of `currency`, moments in microseconds since the epoch."""

    run: str
    plan: str
    version: str
    state: str
    """running, completed, cancelled or failed."""
    currency: str
    sandbox: bool
    made_at: int
    ended_at: int | None
    owner: str
    """The executor that has it; empty when none does."""
    leased_until: int
    budget: int | None
    """What the whole plan may cost."""
    lanes: list[LaneProgress]
    alerts: list[Alert]

    @property
    def is_running(self) -> bool:
        """Whether there is still something to do."""
        return self.state == RUNNING

    @property
    def spent(self) -> int:
        """What all settled days cost."""
        return sum(lane.spent_total for lane in self.lanes)

    @property
    def held(self) -> int:
        """What is set aside for days that are not settled."""
        return sum(lane.held_total for lane in self.lanes)


def status_of(row: RunRow, plan: Plan, progress: Progress, rows: Mapping[str, LaneRow]) -> RunStatus:
    """The status of a run by everything that is known of it."""
    for name, lane in progress.lanes.items():
        known = rows.get(name)
        if known is not None and known.state != RUNNING and not lane.how:
            lane.how = str(known.result.get("how", known.state))
    return RunStatus(
        run=row.run,
        plan=row.plan_name,
        version=row.version,
        state=row.state,
        currency=plan.currency,
        sandbox=plan.sandbox,
        made_at=row.made_at,
        ended_at=row.ended_at,
        owner=row.owner,
        leased_until=row.leased_until,
        budget=plan.budget,
        lanes=list(progress.lanes.values()),
        alerts=progress.alerts,
    )
