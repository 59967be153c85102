"""Chains of entries written by hand, and what the auditor's replay says about them."""

from __future__ import annotations

from kiki.ledger.entry import encode_entry
from kiki.shield.audit_check import audit
from kiki.shield.audit_finding import Kind
from kiki.shield.audit_report import AuditReport
from kiki.shield.evidence import chain_of
from kiki.shield.fact import Decided, Opened, PolicyUsed, Settled
from kiki.shield.policy import Budget, Limit, Policy, single_budget
from kiki.shield.scope import Pattern
from tests.ledger.doubles import SECOND

UNIT = 1_000_000
T0 = 1_700_000_000 * SECOND
A, B = "a" * 32, "b" * 32


def budget(name, pattern, *limits, consent=""):
    return Budget(
        name,
        Pattern.parse(pattern),
        tuple(Limit(units * UNIT, round(seconds * SECOND)) for units, seconds in limits),
        consent,
    )


POLICIES = [
    Policy((budget("all", "*", (100, 60), (300, 600)), budget("each", "campaign:*", (40, 60)))),
    Policy((budget("all", "*", (80, 60)), budget("meta", "platform:meta", (50, 600)))),
    Policy((budget("each", "campaign:*", (60, 7), (90, 600)), budget("platforms", "platform:*", (70, 60)))),
]


class Chain:
    """A chain of entries, written by hand."""

    def __init__(self, name="c0", first=0):
        self.name = name
        self.first = first
        self.bodies: list[bytes] = []
        self.recorded_at = T0

    def add(self, fact, at=None, sealed=()):
        """Append a fact; its sequence."""
        seq = self.first + len(self.bodies)
        self.recorded_at = max(self.recorded_at, getattr(fact, "at", 0) if at is None else at)
        self.bodies.append(encode_entry(seq, self.recorded_at, fact, sealed))
        return seq

    def policy(self, policy, at=T0):
        return self.add(PolicyUsed(at, policy.dump()))

    def spend(self, units, at, *scopes, **more):
        """A spend `at` seconds after the beginning."""
        micros = round(units * UNIT)
        return self.add(
            Decided("spend", T0 + round(at * SECOND), more.pop("epoch", ""), more.pop("sequence", 0), [list(scopes)],
                    [micros], **more)
        )  # fmt: skip

    def reserve(self, units, at, hold, *scopes, seconds=None, epoch="", sequence=0):
        moment = T0 + round(at * SECOND)
        deadline = None if seconds is None else moment + round(seconds * SECOND)
        return self.add(
            Decided("reserve", moment, epoch, sequence, [list(scopes)], [units * UNIT], hold=hold, deadline=deadline)
        )

    def settle(self, verb, at, hold, charged, reserved, *scopes, epoch="", sequence=0, late=False):
        moment = T0 + round(at * SECOND)
        return self.add(
            Settled(verb, moment, epoch, sequence, hold, round(charged * UNIT), reserved * UNIT, [list(scopes)], late)
        )


def audited(*chains: Chain) -> AuditReport:
    def read(on_entry):
        for chain in chains:
            for seq, body in enumerate(chain.bodies, chain.first):
                on_entry(chain.name, seq, body)

    return audit(read)[1]


def of_reader(reader, extra=()) -> AuditReport:
    chain = chain_of(reader)

    def read(on_entry):
        for seq, body in [*reader.entries(), *extra]:
            on_entry(chain, seq, body)

    return audit(read)[1]


def kinds(report: AuditReport) -> list[Kind]:
    return [finding.kind for finding in report.findings]


def begun() -> Chain:
    """A chain with a budget of 100 a minute over everything."""
    chain = Chain()
    chain.add(Opened(T0, "1", "local", "", "c0"))
    chain.policy(single_budget(100 * UNIT, 60 * SECOND))
    return chain
