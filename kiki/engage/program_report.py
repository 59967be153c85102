"""What all playbooks together earned beyond the people whom none of them reaches: the global holdout, by intention to treat.

Everybody counts once, from the first time they entered any journey: the held out enter as the others do, and get
nothing. Who is held out by one playbook alone counts as reached: that is how the programme was run.
"""

from __future__ import annotations

from collections import Counter

from kiki.engage.action_log import ActionLog
from kiki.engage.customer_store import CustomerStore
from kiki.engage.effect import effect
from kiki.engage.holdout import PARTS, Holdout
from kiki.engage.journey_book import JourneyBook
from kiki.engage.moments import Moments
from kiki.engage.playbook import Playbook
from kiki.engage.playbook_report import SENT, JourneyReport, Report
from kiki.errors import InvalidInput
from kiki.money import MICROS

PROGRAM = "all playbooks"


def program_report(playbook: Playbook, store: CustomerStore, everywhere: Holdout, *, alpha: float = 0.05) -> Report:
    """As of now; how long outcomes count, the margin and what channels cost are this playbook's."""
    if not everywhere.parts:
        raise InvalidInput("nobody is held out of all playbooks", hint="KIKI_ENGAGE_HOLDOUT says how many are: 5 %")
    now, span = store.clock(), max(journey.goal_span for journey in playbook.journeys)
    book, log = JourneyBook(store.database, store.clock), ActionLog(store.database, store.clock)
    first = book.first_entries()
    began = min((at for _, at in first.values()), default=now)
    earned, costs = book.earnings(playbook.margin_rate, began, now), {n: r.cost for n, r in playbook.channels.items()}
    sent = [action for action in log.all() if action.state in SENT]
    spent: Counter[str] = Counter()
    for action in sent:
        if action.person in first and action.decided_at <= first[action.person][1] + span:
            spent[action.person] += costs.get(action.channel, 0)
    held = {person for person, (customer, _) in first.items() if everywhere.holds(customer)}
    sides: dict[bool, list[float]] = {True: [], False: []}
    for person, (_, at) in first.items():
        if at + span <= now:
            margin = sum(gained for when, gained in earned.get(person, ()) if at < when <= at + span)
            sides[person in held].append(float(margin - spent[person]))
    reached, others = Moments.of(sides[False]), Moments.of(sides[True])
    found = JourneyReport(
        journey=PROGRAM,
        assigned=len(first),
        held_out=len(held),
        open_windows=len(first) - reached.persons - others.persons,
        goal="order",
        goal_days=span / (24 * 3600 * MICROS),
        effect=effect(
            reached,
            others,
            held_out_share=everywhere.parts / PARTS,
            alpha=alpha,
            assigned=(len(first) - len(held), len(held)),
        ),
        treated_mean=reached.mean,
        held_out_mean=others.mean,
        messages=dict(Counter(str(action.state) for action in sent)),
        offers=dict(Counter(f"{action.playbook}/{action.offer}" for action in sent)),
        violations=sum(action.person in held for action in sent),
    )
    return Report(PROGRAM, playbook.version, now, playbook.currency, [found])
