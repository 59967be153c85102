"""What SyncEngage counts, under the original's names and its own. Nobody is named in a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kiki.engage.trigger import Answer


class EngageMetrics:
    """Counters of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._triggers = Counter(
            "syncengage_triggers", "Triggers that were answered, by type.", ["type"], registry=registry
        )
        self._predictions = Histogram(
            "syncengage_ltv_predictions",
            "Lifetime values that were predicted.",
            registry=registry,
            buckets=(10, 50, 100, 200, 300, 500, 1000, 2500, 5000, 10_000),
        )
        self._risk = Gauge(
            "syncengage_churn_risk", "Customers asked about, by level of risk.", ["level"], registry=registry
        )
        self._sync = Histogram(
            "syncengage_crm_sync_duration_ms",
            "How long a look at the source of customers took.",
            registry=registry,
            buckets=(10, 50, 100, 500, 1000, 5000, 30_000, 120_000, 600_000),
        )
        self._denied = Counter(
            "kiki_engage_denied", "Triggers that the shield denied or could not answer.", registry=registry
        )
        self._fallbacks = Counter("kiki_engage_value_fallbacks", "Values that are no forecast.", registry=registry)
        self._messages = Counter(
            "kiki_engage_messages", "Messages, by what became of them in the run.", ["state"], registry=registry
        )
        self._verdicts = Counter(
            "kiki_engage_verdicts", "Decisions about people, by verdict.", ["verdict"], registry=registry
        )
        self._webhooks = Counter(
            "kiki_engage_webhooks",
            "Calls of providers, by what was done with them.",
            ["provider", "result"],
            registry=registry,
        )
        self._runs = Counter("kiki_engage_runs", "Runs of playbooks, by how they ended.", ["result"], registry=registry)

    def answered(self, answer: Answer, *, allowed: bool) -> None:
        """A trigger was answered."""
        self._predictions.observe(answer.predicted_ltv)
        self._risk.labels(answer.risk).inc()
        if answer.is_fallback:
            self._fallbacks.inc()
        if not allowed:
            self._denied.inc()
        elif answer.trigger.trigger_type:
            self._triggers.labels(answer.trigger.trigger_type).inc()

    def synced(self, seconds: float) -> None:
        """The source was looked at."""
        self._sync.observe(seconds * 1000)

    def ran(self, verdicts: dict[str, int], messages: dict[str, int]) -> None:
        """A playbook was run."""
        self._runs.labels("done").inc()
        for verdict, count in verdicts.items():
            self._verdicts.labels(verdict).inc(count)
        for state, count in messages.items():
            self._messages.labels(state).inc(count)

    def failed(self) -> None:
        """A run was broken off."""
        self._runs.labels("failed").inc()

    def called(self, provider: str, result: str) -> None:
        """A provider called: `taken`, `refused`."""
        self._webhooks.labels(provider, result).inc()
