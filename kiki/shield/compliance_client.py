"""The compliance report and the register of breaches of a SyncShield behind HTTP, in two colours: `client.compliance.report()`."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from kiki.shield.compliance_report import ComplianceReport
from kiki.shield.conversation import Conversation, Flow
from kiki.shield.http_line import AsyncLine, Line
from kiki.shield.wire_compliance import BreachReply
from kiki.shield.wire_moment import iso_of

REPORT_SECONDS: Final = 300.0


def _report(
    line: Conversation, period: str | None, since: datetime | None, until: datetime | None
) -> Flow[ComplianceReport]:
    params = [("period", period), ("from", iso_of(since)), ("to", iso_of(until))]
    reply = yield from line.ask("GET", "/v1/compliance/report", params=params, seconds=REPORT_SECONDS)
    return line.read(reply, ComplianceReport)


def _breach(
    line: Conversation,
    reference: str,
    found_at: datetime | None,
    notified_at: datetime | None,
    affected: int | None,
) -> Flow[BreachReply]:
    given = {"found_at": iso_of(found_at), "notified_at": iso_of(notified_at), "affected": affected}
    told = {name: value for name, value in given.items() if value is not None}
    return line.post("/v1/breaches", {"reference": reference, **told}, BreachReply)


class Compliance:
    """The compliance report of a service, and its register of breaches."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def report(
        self, period: str | None = None, *, since: datetime | None = None, until: datetime | None = None
    ) -> ComplianceReport:
        """The report of a named period up to now (by default the last month), or between two moments."""
        return self._line.drive(_report(self._line, period, since, until))

    def declare_breach(
        self,
        reference: str,
        *,
        found_at: datetime | None = None,
        notified_at: datetime | None = None,
        affected: int | None = None,
    ) -> BreachReply:
        """Write down a breach of personal data, or more about one that was declared under this reference."""
        return self._line.drive(_breach(self._line, reference, found_at, notified_at, affected))


class AsyncCompliance:
    """The compliance report of a service, and its register of breaches."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line

    async def report(
        self, period: str | None = None, *, since: datetime | None = None, until: datetime | None = None
    ) -> ComplianceReport:
        """The report of a named period up to now (by default the last month), or between two moments."""
        return await self._line.drive(_report(self._line, period, since, until))

    async def declare_breach(
        self,
        reference: str,
        *,
        found_at: datetime | None = None,
        notified_at: datetime | None = None,
        affected: int | None = None,
    ) -> BreachReply:
        """Write down a breach of personal data, or more about one that was declared under this reference."""
        return await self._line.drive(_breach(self._line, reference, found_at, notified_at, affected))
