"""What the shield counts for Prometheus. Labels are closed vocabularies: no scope of a person, no key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from kiki.money import MICROS
from kiki.shield.decision import Decision
from kiki.shield.fact import Decided, Halted
from kiki.shield.policy import format_span
from kiki.shield.window import MeterStatus

METERS_MAX = 100


class ShieldMetrics:
    """Decisions by verb and reason, and gauges that are read when somebody scrapes."""

    def __init__(self, gauges: Callable[[], dict[str, float]], meters: Callable[[], list[MeterStatus]]) -> None:
        """`gauges` gives name → value without the prefix `kiki_shield_`; `meters` the windows to show."""
        self._decisions: Counter[tuple[str, str]] = Counter()
        self._gauges = gauges
        self._meters = meters

    def count(self, decision: Decision) -> None:
        """Count every amount of a decision; a repeat is no new decision."""
        fact = decision.fact
        if decision.repeated or isinstance(fact, Halted):
            return
        if isinstance(fact, Decided):
            for refused in fact.refused:
                self._decisions[fact.verb, refused.reason] += 1
            admitted = len(fact.amounts) - len(fact.refused)
            if admitted:
                self._decisions[fact.verb, "admitted"] += admitted
        else:
            self._decisions[fact.verb, "late" if fact.late else "settled"] += 1

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not read the window to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics as Prometheus wants them."""
        decisions = CounterMetricFamily(
            "kiki_shield_decisions", "Durable decisions, by verb and outcome.", labels=("verb", "outcome")
        )
        for (verb, outcome), count in list(self._decisions.items()):
            decisions.add_metric((verb, outcome), count)
        yield decisions
        labels = ("budget", "scope", "window")
        families = {
            name: GaugeMetricFamily(f"kiki_shield_budget_{name}", f"Money {name} in the window.", labels=labels)
            for name in ("limit", "spent", "held")
        }
        for meter in self._meters():
            where = (meter.budget, meter.scope, format_span(meter.span))
            for name, family in families.items():
                family.add_metric(where, getattr(meter, name) / MICROS)
        yield from families.values()
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"kiki_shield_{name}", name.replace("_", " "), value=value)
