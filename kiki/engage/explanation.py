"""Why one customer gets what they get: what is known of them, every gate, and what was said and done before."""

from __future__ import annotations

from typing import Any

import numpy as np

from kiki.clock import to_iso
from kiki.engage.decision import ORDER, gates
from kiki.engage.journey_steps import sends
from kiki.engage.playbook import Playbook
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.segment import members
from kiki.errors import NotFound


def explain(engine: RetentionEngine, customer: str, playbooks: list[Playbook]) -> dict[str, Any]:
    """As JSON; raises `NotFound`. Without names and addresses: those are for requests of the person."""
    store = engine.store
    person = store.person(customer)
    if person is None:
        raise NotFound(
            f"there is no customer {customer[:40]!r}",
            hint="kiki engage sync takes customers in; a service lists them at /v1/profiles",
        )
    return {
        "customer_id": customer,
        "playbooks": [_of_playbook(engine, customer, playbook) for playbook in playbooks],
        "verdicts": [
            {"playbook": playbook, "verdict": verdict, "since": to_iso(at)}
            for playbook, verdict, at in engine.book.verdicts_of(person)
        ],
        "journeys": [
            {"playbook": playbook, "journey": journey, "entered_at": to_iso(at), "state": state}
            for playbook, journey, at, state in engine.book.places_of(person)
        ],
        "messages": [
            {
                "action": action.action,
                "playbook": action.playbook,
                "step": action.step,
                "channel": action.channel,
                "offer": action.offer,
                "state": str(action.state),
                "reason": action.reason,
                "decided_at": to_iso(action.decided_at),
                "delivery": action.delivery,
            }
            for action in engine.log.of_person(person)
        ],
    }


def _of_playbook(engine: RetentionEngine, customer: str, playbook: Playbook) -> dict[str, Any]:
    look = engine.look(playbook, {customer})
    people, standing = look.people, look.standing
    standing.held_out = np.array([engine.is_held_out(playbook, each) for each in people.customers], dtype=bool)
    channels = dict.fromkeys(
        playbook.channel_of(offer) for journey in playbook.journeys for step in sends(journey) for offer in step.offers
    )
    return {
        "playbook": playbook.name,
        "segments": [
            name for name, condition in playbook.segments.items() if members(condition, people, playbook.segments)[0]
        ],
        "held_out": bool(standing.held_out[0]),
        "consent": bool(standing.consent[0]),
        "stopped_by": {
            channel: None if code == 0 else str(ORDER[code])
            for channel in channels
            if (code := int(gates(playbook, channel, people, standing)[0])) >= 0
        },
        "value": None if np.isnan(people.value[0]) else round(float(people.value[0]) / 1e6, 2),
        "value_is_fallback": bool(look.roster.fallbacks),
        "churn": None if np.isnan(people.churn[0]) else round(float(people.churn[0]), 4),
    }
