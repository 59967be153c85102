"""SyncFlow's numbers for Prometheus, some under the names that the first version's dashboards read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kiki.clock import wall_micros
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.run_rows import RUNNING
from kiki.outbound.breaker import BreakerState

RUNS_SHOWN: Final = 50
"""Plans with a line of their own; what runs beyond them is counted, not named."""


class FlowMetrics(Collector):
    """Read from the runner whenever somebody asks."""

    def __init__(self, runner: CampaignRunner) -> None:
        self._runner = runner

    def describe(self) -> Iterable[Metric]:
        """Nothing by heart: the store is asked when numbers are."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The families with their samples of now."""
        rows = self._runner.runs()
        runs = GaugeMetricFamily("kiki_flow_runs", "Runs by state.", labels=["state"])
        for state, count in sorted(Counter(row.state for row in rows).items()):
            runs.add_metric([state], count)
        held = GaugeMetricFamily("kiki_flow_runs_held", "Runs that this runner executes.")
        held.add_metric([], len(self._runner.held))
        troubles = GaugeMetricFamily("kiki_flow_accounts_unreachable", "Accounts that cannot be used at all.")
        troubles.add_metric([], len(self._runner.troubles))
        yield from (runs, held, troubles)
        yield from self._money([row.run for row in rows if row.state == RUNNING][:RUNS_SHOWN])
        yield self._breakers()

    def _money(self, names: list[str]) -> Iterable[Metric]:
        spent = GaugeMetricFamily("syncflow_budget_spent_micros", "What settled days of a plan cost.", labels=["plan"])
        held = GaugeMetricFamily(
            "syncflow_budget_held_micros", "What is set aside for its other days.", labels=["plan"]
        )
        limit = GaugeMetricFamily("syncflow_budget_limit_micros", "The plan's total budget.", labels=["plan"])
        unknown = GaugeMetricFamily("kiki_flow_unknown_calls", "Calls that were not answered.", labels=["platform"])
        alerts = GaugeMetricFamily("kiki_flow_alerts", "Things that somebody should look at.", labels=["plan"])
        calls: Counter[str] = Counter()
        for name in names:
            status = self._runner.status(name)
            spent.add_metric([status.plan], status.spent)
            held.add_metric([status.plan], status.held)
            alerts.add_metric([status.plan], len(status.alerts))
            if status.budget is not None:
                limit.add_metric([status.plan], status.budget)
            for lane in status.lanes:
                calls[lane.platform] += lane.unknown
        for platform, count in sorted(calls.items()):
            unknown.add_metric([platform], count)
        return spent, held, limit, unknown, alerts

    def _breakers(self) -> Metric:
        found = GaugeMetricFamily(
            "syncflow_circuit_breaker_state_count", "Breakers of accounts by state.", labels=["platform", "state"]
        )
        now = wall_micros()
        counted: Counter[tuple[str, str]] = Counter()
        for platform, breakers in self._runner.breakers():
            for state in BreakerState:
                counted[platform, state.value] += sum(each.state(now) is state for each in breakers.values())
        for (platform, word), count in sorted(counted.items()):
            found.add_metric([platform, word], count)
        return found
