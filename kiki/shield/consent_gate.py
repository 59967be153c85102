"""Whether what a call names persons for is consented to: the consents that it needs, and the refusals where one is missing. Pure."""

from __future__ import annotations

from collections.abc import Callable

from kiki.shield.budget import Reason, Refusal
from kiki.shield.call import Call
from kiki.shield.fact import ConsentUsed
from kiki.shield.persons import UNKNOWN
from kiki.shield.policy import Policy
from kiki.shield.scope import PERSONAL_PREFIXES, Scopes
from kiki.shield.window import Verb

_ASKING = (Verb.SPEND, Verb.CHECK, Verb.RESERVE)
"""Money that was spent elsewhere is written down whether or not somebody consented."""


def missing_consents(
    call: Call,
    scopes: tuple[Scopes, ...],
    policy: Policy,
    look: Callable[[str, str], ConsentUsed],
    used: list[ConsentUsed],
) -> dict[int, Refusal]:
    """Which amounts name a person who has not consented to what they are for; every consent looked at goes to `used`.

    `look` gives what a reference said last about a purpose.
    """
    if call.verb not in _ASKING or not (call.purpose or policy.asks_consent):
        return {}
    refused: dict[int, Refusal] = {}
    looked: dict[tuple[str, str], ConsentUsed] = {}
    for index in range(len(call.amounts)):
        each = scopes[index if len(scopes) > 1 else 0]
        named = [scope for scope in each if scope.startswith(PERSONAL_PREFIXES)]
        if not named:
            continue
        for purpose in sorted(policy.purposes_for(each, call.purpose)):
            for scope in named:
                subject = scope.partition(":")[2]
                found = looked.get((subject, purpose))
                if found is None:
                    # Whoever has no reference has said nothing.
                    found = ConsentUsed(subject, purpose) if subject == UNKNOWN else look(subject, purpose)
                    looked[subject, purpose] = found
                if not found.given:
                    refused.setdefault(index, Refusal(Reason.CONSENT_MISSING, scope=scope, purpose=purpose))
    used += looked.values()
    return refused
