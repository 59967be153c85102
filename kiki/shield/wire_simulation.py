"""The figures of a simulated policy, as they come back from the wire. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kiki.shield.simulation import Simulation
from kiki.shield.wire import any_micros


def parse_simulation(found: Mapping[str, Any]) -> Simulation:
    """The figures that `Simulation.as_dict` wrote; raises `ValueError`, `TypeError` or `KeyError` for others."""
    simulation = Simulation()
    for name in ("decisions", "admitted", "refused", "newly_refused", "newly_admitted"):
        setattr(simulation, name, int(found[name]))
    for name in ("admitted", "refused", "newly_refused", "newly_admitted"):
        setattr(simulation, f"{name}_micros", any_micros(found[f"{name}_amount"]))
    simulation.refused_by_budget.update({str(name): int(count) for name, count in found["refused_by_budget"].items()})
    return simulation
