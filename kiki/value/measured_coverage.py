"""How often a model's intervals held the outcome, as the honesty card in its file says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kiki.value.card import HonestyCard
from kiki.value.conformal import STRATA, STRATUM_NAMES

NOT_MEASURED: Final = "the model was fitted without measuring how often its intervals hold (fit it with --model auto)"


@dataclass(frozen=True)
class MeasuredCoverage:
    """Shares of outcomes that were inside an interval; empty where nothing was measured."""

    claimed: bool = False
    """Whether the model claims that its intervals are true about as often as they say."""
    reason: str = NOT_MEASURED
    """Why not; empty when it does."""
    overall: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """By kind ("purchases", "revenue") and level in per cent."""
    revenue_95: tuple[tuple[int, float], ...] = ()
    """The revenue interval of 95 per cent, by the least number of repeat purchases of each stratum, growing."""
    total_accuracy: float | None = None
    """1 less the relative error of the forecast total."""

    def of_customer(self, x: int) -> float:
        """For customers with `x` repeat purchases: how often revenue was inside the interval of 95 per cent; 0 if not known."""
        found = self.overall.get(("revenue", 95), 0.0)
        for least, share in self.revenue_95:
            if x >= least:
                found = share
        return found

    @classmethod
    def of(cls, card: HonestyCard | None) -> MeasuredCoverage:
        """What this card says: of its last origin, which is the nearest to what is forecast now."""
        if card is None:
            return cls()
        if not card.origins:
            return cls(claimed=card.coverage_claimed, reason=card.refusal or "")
        last = card.origins[-1]
        strata = last.by_stratum["revenue"]
        bias = last.metrics["revenue"].bias_percent
        return cls(
            claimed=card.coverage_claimed,
            reason=card.refusal or "",
            overall={
                (kind, level): share
                for kind, metrics in last.metrics.items()
                for level, share in (metrics.coverage or {}).items()
            },
            revenue_95=tuple(
                (least, strata[name][95]) for least, name in zip(STRATA, STRATUM_NAMES, strict=True) if name in strata
            ),
            total_accuracy=None if bias is None else max(1 - abs(bias) / 100, 0.0),
        )
