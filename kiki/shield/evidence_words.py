"""The closed vocabulary of evidence: what a verb and a reason code say in words, in every row alike. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from kiki.shield.budget import Reason
from kiki.shield.fact import EXPIRE
from kiki.shield.window import Verb

APPROVED, DENIED, UNKNOWN = "APPROVED", "DENIED", "UNKNOWN"
OUTCOMES = (APPROVED, DENIED, UNKNOWN)
NOTED = "NOTED"

HALT, RESUME, POLICY, OPEN = "halt", "resume", "policy", "open"
CONSENT, REQUEST, LEGAL_HOLD, PRUNE, BREACH = "consent", "request", "legal_hold", "prune", "breach"
PRIVACY = (CONSENT, REQUEST, LEGAL_HOLD, PRUNE, BREACH)
"""What is done about a person's rights: the outcome is in the row."""
NOTE = "note"
LATE = "late"
"""The reason code of a commit or release whose deadline had passed."""
_RECEIVED = "received"
"""The first step of a request, which the original called create_request."""


class Words(NamedTuple):
    """What stands in a row because of its verb and its reason code; empty where the row itself says it."""

    outcome: str
    reason: str
    level: str
    event_type: str
    action: str = ""
    resource: str = ""


_TURNED = {HALT: "Spending halted", RESUME: "Halt taken back", POLICY: "Policy in force", OPEN: "Ledger opened"}
_PRIVACY = {
    CONSENT: Words("", "User consent update", "CRITICAL", "consent_change", "update_consent"),
    REQUEST: Words("", "GDPR/CCPA data subject request", "CRITICAL", "data_subject_request", "process_request"),
    LEGAL_HOLD: Words("", "Legal hold", "CRITICAL", "admin_action", "legal_hold"),
    PRUNE: Words("", "Retention ended", "CRITICAL", "data_deletion", "prune"),
    BREACH: Words("", "Breach declared", "CRITICAL", "data_breach", "declare"),
}
_WITHIN = {Verb.CHECK: "Within safe parameters", Verb.RECORD: "Spent elsewhere and counted"}
_REFUSED = {
    Reason.INVALID_INPUT: "Request could not be read",
    Reason.LTV_BELOW_MINIMUM: "Below minimum threshold",
    Reason.LTV_ABOVE_MAXIMUM: "Safety ceiling exceeded",
    Reason.CONSENT_MISSING: "Consent is missing",
    Reason.HALTED: "Spending is halted",
    Reason.ABOVE_LIMIT: "Budget limit exceeded",
    Reason.BUDGET_EXHAUSTED: "Budget limit exceeded",
    Reason.OUTCOME_UNKNOWN: "Outcome unknown and counted as spent",
}
_SETTLED = {
    Verb.COMMIT: "Reservation committed",
    Verb.RELEASE: "Reservation released",
    EXPIRE: "Reservation expired and counted as spent",
}
_SETTLED_LATE = "Reservation had expired and was already counted as spent"


@lru_cache(maxsize=256)
def words(verb: str, code: str) -> Words:
    """What a verb says under a reason code, empty for none."""
    if verb in _TURNED:
        outcome = APPROVED if verb in (HALT, RESUME) else ""
        return Words(outcome, _TURNED[verb], "CRITICAL", "admin_action", verb)
    if verb == NOTE:
        return Words(NOTED, "Said by another service", "INFO", "service_note")
    if verb in _PRIVACY:
        said = _PRIVACY[verb]
        if code == _RECEIVED:
            return said._replace(reason=f"{said.reason} initiated", action="create_request")
        return said
    outcome, reason = APPROVED, "Within budget"
    if verb in _SETTLED:
        reason = _SETTLED_LATE if code == LATE else _SETTLED[verb]
    elif code:
        outcome = UNKNOWN if code == Reason.OUTCOME_UNKNOWN else DENIED
        # A word that a later version wrote is shown as it is.
        reason = _REFUSED[Reason(code)] if code in _REFUSED else code
    elif verb in _WITHIN:
        reason = _WITHIN[Verb(verb)]
    if verb == Verb.CHECK:
        return Words(outcome, reason, "INFO", "bid_validation", "validate_bid", "ltv_prediction")
    return Words(outcome, reason, "INFO" if outcome == APPROVED else "WARNING", "budget_decision", verb, "budget")
