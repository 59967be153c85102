"""What came of an auditor's replay. Pure."""

from __future__ import annotations

import msgspec

from kiki.clock import to_iso
from kiki.money import format_micros
from kiki.shield.audit_finding import Finding


class ChainSpan(msgspec.Struct, kw_only=True):
    """What was read of one chain."""

    chain: str
    first: int
    entries: int
    from_at: int
    """When its first and last entries were recorded, in microseconds since the epoch."""
    to_at: int
    sealed: int
    """How many sealed parts it holds."""


class AuditReport(msgspec.Struct, kw_only=True):
    """What came of it. Money in micros."""

    chains: list[ChainSpan]
    decisions: int
    admitted: int
    windows: int
    """How many windows of budgets were compared with their limits."""
    recorded: int
    """How often money was written down that had been spent elsewhere, how much, and how often that went over a limit."""
    recorded_micros: int
    recorded_over: int
    consents: int
    """Decisions that needed a person's consent."""
    not_covered: dict[str, int]
    """What could not be judged because it rests on something outside of the range: description to number."""
    counted_apart: list[str]
    """Chains that each counted their budgets on their own, where there are several."""
    findings: list[Finding]
    doubts: list[Finding]
    finding_count: int
    doubt_count: int

    @property
    def holds(self) -> bool:
        """True when nothing was found. Doubts prove nothing."""
        return not self.finding_count

    @property
    def entries(self) -> int:
        """How many entries there were in all chains."""
        return sum(chain.entries for chain in self.chains)

    def as_dict(self) -> dict[str, object]:
        """For machines: money as decimal text, moments as RFC 3339."""
        return {
            "holds": self.holds,
            "entries": self.entries,
            "chains": [
                {
                    "chain": chain.chain,
                    "first": chain.first,
                    "entries": chain.entries,
                    "from": to_iso(chain.from_at),
                    "to": to_iso(chain.to_at),
                    "sealed": chain.sealed,
                }
                for chain in self.chains
            ],
            "decisions": self.decisions,
            "admitted": self.admitted,
            "windows": self.windows,
            "consents": self.consents,
            "recorded": {
                "count": self.recorded,
                "amount": format_micros(self.recorded_micros),
                "over": self.recorded_over,
            },
            "not_covered": self.not_covered,
            "counted_apart": self.counted_apart,
            "findings": [each.as_dict() for each in self.findings],
            "finding_count": self.finding_count,
            "doubts": [each.as_dict() for each in self.doubts],
            "doubt_count": self.doubt_count,
        }
