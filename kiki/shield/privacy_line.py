"""What hangs on both clients beside the budgets' verbs: `consents`, `requests`, `compliance`, `evidence`.

Loaded where it is used: most scripts only spend.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from kiki.shield.http_line import AsyncLine, Line

if TYPE_CHECKING:
    from kiki.shield.compliance_client import AsyncCompliance, Compliance
    from kiki.shield.consent_client import AsyncConsents, Consents
    from kiki.shield.evidence_client import AsyncEvidence, Evidence
    from kiki.shield.request_client import AsyncRequests, Requests


class PrivacyLine(Line):
    """A line with everything that concerns persons and proofs."""

    @cached_property
    def consents(self) -> Consents:
        """Who consented to what."""
        from kiki.shield.consent_client import Consents

        return Consents(self)

    @cached_property
    def requests(self) -> Requests:
        """Requests of data subjects, and legal holds."""
        from kiki.shield.request_client import Requests

        return Requests(self)

    @cached_property
    def compliance(self) -> Compliance:
        """The compliance report and the register of breaches."""
        from kiki.shield.compliance_client import Compliance

        return Compliance(self)

    @cached_property
    def evidence(self) -> Evidence:
        """Checkpoints, proofs and bundles."""
        from kiki.shield.evidence_client import Evidence

        return Evidence(self)


class AsyncPrivacyLine(AsyncLine):
    """The same on an event loop."""

    @cached_property
    def consents(self) -> AsyncConsents:
        """Who consented to what."""
        from kiki.shield.consent_client import AsyncConsents

        return AsyncConsents(self)

    @cached_property
    def requests(self) -> AsyncRequests:
        """Requests of data subjects, and legal holds."""
        from kiki.shield.request_client import AsyncRequests

        return AsyncRequests(self)

    @cached_property
    def compliance(self) -> AsyncCompliance:
        """The compliance report and the register of breaches."""
        from kiki.shield.compliance_client import AsyncCompliance

        return AsyncCompliance(self)

    @cached_property
    def evidence(self) -> AsyncEvidence:
        """Checkpoints, proofs and bundles."""
        from kiki.shield.evidence_client import AsyncEvidence

        return AsyncEvidence(self)
