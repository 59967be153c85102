"""What a playbook earned beyond its control group, journey by journey: intention to treat, with an always-valid interval.

Everybody who was assigned counts on their side for the same span from their assignment. Margin is after what the
channels cost; what a discount took away is in the amounts of the orders already. Pure but for the two books it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kiki.clock import to_iso
from kiki.engage.action_log import Action, ActionLog, State
from kiki.engage.assignment_export import Assignment as ExportRow
from kiki.engage.customer_store import CustomerStore
from kiki.engage.effect import Effect, effect
from kiki.engage.journey_book import HELD_OUT, TREATED, Assignment, JourneyBook, experiment_of
from kiki.engage.moments import Moments
from kiki.engage.playbook import Journey, Playbook
from kiki.money import MICROS

SENT = frozenset({State.SENDING, State.DONE, State.UNKNOWN})


class JourneyReport(NamedTuple):
    """One journey's experiment."""

    journey: str
    assigned: int
    held_out: int
    open_windows: int
    """People whose span is not over: on neither side yet."""
    goal: str
    goal_days: float
    effect: Effect
    treated_mean: float
    """Margin of a person, in micros."""
    held_out_mean: float
    messages: dict[str, int]
    """By state."""
    offers: dict[str, int]
    """Messages that were or may have been sent, by offer."""
    violations: int
    """Messages to people of the control group. Never anything but 0."""


class Report(NamedTuple):
    """All journeys of a playbook."""

    playbook: str
    version: str
    at: int
    currency: str
    journeys: list[JourneyReport]


class _Person(NamedTuple):
    assignment: Assignment
    margin: int
    is_over: bool
    visits: int


def report(
    playbook: Playbook, store: CustomerStore, held_out_share: float, *, alpha: float = 0.05, now: int | None = None
) -> Report:
    """The report as of now."""
    at = store.clock() if now is None else now
    log, book = ActionLog(store.database, store.clock), JourneyBook(store.database, store.clock)
    actions = log.of_playbook(playbook.name)
    made = [_journey(playbook, journey, book, actions, at, held_out_share, alpha) for journey in playbook.journeys]
    return Report(playbook.name, playbook.version, at, playbook.currency, made)


def export_rows(playbook: Playbook, store: CustomerStore) -> Iterator[ExportRow]:
    """Every assignment with its outcome, for analysis elsewhere."""
    log, book = ActionLog(store.database, store.clock), JourneyBook(store.database, store.clock)
    now, actions = store.clock(), log.of_playbook(playbook.name)
    for journey in playbook.journeys:
        for each in _people(playbook, journey, book, actions, now):
            assigned = each.assignment
            yield ExportRow(
                assigned.person,
                experiment_of(playbook.name, journey.name),
                assigned.arm,
                assigned.propensity,
                assigned.at,
                each.is_over,
                each.margin,
                each.visits,
            )


def _journey(
    playbook: Playbook,
    journey: Journey,
    book: JourneyBook,
    actions: list[Action],
    now: int,
    held_out_share: float,
    alpha: float,
) -> JourneyReport:
    people = list(_people(playbook, journey, book, actions, now))
    sides = {arm: [each for each in people if each.assignment.arm == arm] for arm in (TREATED, HELD_OUT)}
    ended = {arm: [each for each in side if each.is_over] for arm, side in sides.items()}
    moments = {
        arm: Moments.of([float(e.margin) for e in side], [float(e.assignment.before) for e in side])
        for arm, side in ended.items()
    }
    mine = [action for action in actions if action.step.startswith(f"{journey.name}/")]
    control = {(each.assignment.person, str(each.assignment.entry)) for each in sides[HELD_OUT]}
    sent = [action for action in mine if action.state in SENT]
    return JourneyReport(
        journey=journey.name,
        assigned=len(people),
        held_out=len(sides[HELD_OUT]),
        open_windows=len(people) - sum(map(len, ended.values())),
        goal=journey.goal_event,
        goal_days=journey.goal_span / (24 * 3600 * MICROS),
        effect=effect(
            moments[TREATED],
            moments[HELD_OUT],
            held_out_share=min(max(held_out_share, 1e-6), 1 - 1e-6),
            alpha=alpha,
            assigned=(len(sides[TREATED]), len(sides[HELD_OUT])),
        ),
        treated_mean=moments[TREATED].mean,
        held_out_mean=moments[HELD_OUT].mean,
        messages=dict(Counter(str(action.state) for action in mine)),
        offers=dict(Counter(action.offer for action in sent)),
        violations=sum((action.person, action.dedup.rpartition("/")[2]) in control for action in sent),
    )


def _people(
    playbook: Playbook, journey: Journey, book: JourneyBook, actions: list[Action], now: int
) -> Iterator[_Person]:
    assigned = book.assignments(experiment_of(playbook.name, journey.name))
    if not assigned:
        return
    earned = book.earnings(playbook.margin_rate, min(each.at for each in assigned), now)
    visits = book.moments_of("visited", min(each.at for each in assigned), now)
    spent: Counter[tuple[str, str]] = Counter()
    costs: Mapping[str, int] = {name: rule.cost for name, rule in playbook.channels.items()}
    for action in actions:
        if action.state in SENT and action.step.startswith(f"{journey.name}/"):
            spent[action.person, action.dedup.rpartition("/")[2]] += costs.get(action.channel, 0)
    for each in assigned:
        ends = each.at + journey.goal_span
        margin = sum(margin for at, margin in earned.get(each.person, ()) if each.at < at <= ends)
        seen = sum(each.at < at <= ends for at in visits.get(each.person, ()))
        yield _Person(each, margin - spent[each.person, str(each.entry)], ends <= now, seen)


def report_json(found: Report) -> dict[str, Any]:
    """A report as programs read it; money in units of the currency, as numbers for people to compute with."""
    return {
        "playbook": found.playbook,
        "version": found.version,
        "at": to_iso(found.at),
        "currency": found.currency,
        "journeys": [_journey_json(each) for each in found.journeys],
    }


def _journey_json(each: JourneyReport) -> dict[str, Any]:
    known = each.effect
    told: dict[str, Any] = {
        **{
            name: getattr(each, name)
            for name in ("journey", "assigned", "held_out", "open_windows", "goal", "goal_days")
        },
        "treated_mean": each.treated_mean / MICROS,
        "held_out_mean": each.held_out_mean / MICROS,
        "effect": None,
        "balance_p": known.balance_p,
        "messages": each.messages,
        "offers": each.offers,
        "violations": each.violations,
    }
    if known.is_known and known.value is not None:
        told["effect"] = {
            "per_person": known.value / MICROS,
            "low": known.low / MICROS,
            "high": known.high / MICROS,
            "always_valid_p": known.p,
            "total": None if known.total is None else known.total / MICROS,
            "is_shown": known.is_shown,
            "variance_kept": known.variance_kept,
        }
    return told
