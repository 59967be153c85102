"""From what somebody sends as a data subject request to one that is read and checked. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final, TypedDict

from kiki.errors import InvalidInput
from kiki.shield.call import parse_key
from kiki.shield.consent_change import IP_LENGTH_MAX, moment_of
from kiki.shield.consent_words import (
    AGENT_LENGTH_MAX,
    CUSTOMER_LENGTH_MAX,
    SIGNAL_PURPOSES,
    parse_customer_id,
    parse_purpose,
    parse_text,
)
from kiki.shield.deadline import DAY, Regime, parse_regimes
from kiki.shield.dsr import DETAILS_LENGTH_MAX, Kind, parse_kind
from kiki.shield.request_change import Asked, RequestDetails

REGIMES: Final = (Regime.GDPR, Regime.CCPA)
"""The laws of a request that names none: whose law it is may not be known yet, so the earliest clock counts."""
OBJECTION_PURPOSES: Final = ("marketing", "targeting", "profiling")

CORRECTIONS_MAX: Final = 100
FIELD_LENGTH_MAX: Final = 64
VALUE_LENGTH_MAX: Final = 4096
RECEIVED_BEFORE_MAX: Final = 366 * DAY
"""How long ago a request may have come in that is entered now."""


class Given(TypedDict, total=False):
    """What may be told along with a request."""

    regimes: Iterable[Regime | str]
    purposes: Iterable[str]
    """Of an objection or opt-out: what is objected to; by default what usually is."""
    requested_by: str
    details: str
    agent: str
    """Who acts for the person, and must show that they may before identity is verified."""
    agent_proof: str
    corrections: Mapping[str, str]
    """Of a rectification: the fields and their right values. Without any it can be answered, but not be run."""
    received_at: datetime | int | None
    """When it came in, where that is in the past: a letter."""
    ip_address: str
    user_agent: str
    actor: str
    key: str
    """An idempotency key: the same key is the same request."""


def asked(
    customer: str, kind: Kind | str, given: Given, now: int, purposes: Collection[str], regimes: tuple[Regime, ...]
) -> Asked:
    """What somebody sent, read and checked; raises `InvalidInput`. `regimes` are those of a request that names none."""
    wanted = parse_kind(kind)
    corrections = parse_corrections(given.get("corrections"))
    # Without corrections a rectification is received like any other, since its clock runs; it cannot be run.
    if corrections and wanted is not Kind.RECTIFICATION:
        raise InvalidInput(f"a request of the type {wanted} has no corrections")
    named = [parse_purpose(purpose, purposes) for purpose in given.get("purposes") or ()]
    if named and wanted.needs_identity:
        raise InvalidInput(f"a request of the type {wanted} names no purposes")
    if not named and not wanted.needs_identity:
        named = list(SIGNAL_PURPOSES if wanted is Kind.OPT_OUT else OBJECTION_PURPOSES)
    details = RequestDetails(
        customer=parse_customer_id(customer),
        requested_by=parse_text(given.get("requested_by"), "requester", CUSTOMER_LENGTH_MAX),
        details=parse_text(given.get("details"), "text of the request", DETAILS_LENGTH_MAX, lines=True),
        agent=parse_text(given.get("agent"), "name of the agent", CUSTOMER_LENGTH_MAX),
        agent_proof=parse_text(given.get("agent_proof"), "proof of the agent", CUSTOMER_LENGTH_MAX),
        corrections=corrections,
        ip=parse_text(given.get("ip_address"), "network address", IP_LENGTH_MAX),
        agent_software="".join(filter(str.isprintable, given.get("user_agent") or ""))[:AGENT_LENGTH_MAX],
    )
    return Asked(
        customer,
        wanted,
        parse_regimes(given["regimes"]) if given.get("regimes") else regimes,
        tuple(dict.fromkeys(named)),
        details,
        _received_at(given.get("received_at"), now),
        parse_text(given.get("actor"), "actor"),
        parse_key(given.get("key") or None),
    )


def parse_corrections(given: Mapping[str, str] | None) -> dict[str, str]:
    """Fields and their right values; raises `InvalidInput`."""
    if not given:
        return {}
    if len(given) > CORRECTIONS_MAX:
        raise InvalidInput(f"a rectification names at most {CORRECTIONS_MAX} fields")
    return {
        parse_text(name, "name of a field", FIELD_LENGTH_MAX): parse_text(
            value, "value of a field", VALUE_LENGTH_MAX, lines=True
        )
        for name, value in given.items()
    }


def _received_at(given: datetime | int | None, now: int) -> int | None:
    moment = moment_of(given)
    if moment is not None and not now - RECEIVED_BEFORE_MAX <= moment <= now:
        raise InvalidInput("a request came in within the last year, and not in the future: name that moment, or none")
    return moment
