"""Whom to write to, in a script: customers, consents, a playbook, a plan with reasons, messages in an outbox.

Everything is in this process and in one directory: the guard that holds consents and budgets, the customers, and an outbox in place of
a mail provider. Nobody without consent, over the budget or held out gets anything, and running it again sends nothing twice.
"""

import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kiki import BudgetGuard
from kiki.engage.channels.outbox import OutboxChannel, letters
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.event import OptOut, OptOutReason
from kiki.engage.keyring import Keyring
from kiki.engage.playbook_report import report
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.shield_line import GuardLine
from kiki.engage.unsubscribe import UnsubscribeLinks
from kiki.settings import Secret

# Quiet hours would make this script's outcome depend on the time of day at which you run it.
text = Path(__file__).with_name("win-back.yaml").read_text().replace(', quiet_hours: "21:00-08:00"', "")
playbook = parse_playbook(text)
now = datetime.now(UTC)


def days_ago(days: int) -> int:
    return round((now - timedelta(days=days)).timestamp() * 1_000_000)


with (
    tempfile.TemporaryDirectory() as folder,
    BudgetGuard.open(Path(folder) / "shield.db", limit="45", window="30d") as guard,
):
    store = CustomerStore(open_database(Path(folder) / "engage.db"), Keyring.of_guard(guard.decider))
    customers = [
        Profile(
            customer=f"c-{number:02}",
            email=f"c{number}@example.com",
            first_name=f"Ann {number}",
            last_purchase=days_ago(70 if number else 3),
            purchase_count=2,
        )
        for number in range(40)
    ]
    store.keep(
        "shop", [*customers, OptOut(id="o-1", at=days_ago(5), reason=OptOutReason.UNSUBSCRIBED, customer="c-02")]
    )
    for customer in customers:
        if customer.customer != "c-01":
            guard.consents.grant(customer.customer, "marketing")

    links = UnsubscribeLinks("http://127.0.0.1:8083", [Secret("a secret of this script")])
    outbox = Path(folder) / "outbox"
    engine = RetentionEngine(store, GuardLine(guard), {"email": OutboxChannel(outbox)}, links.url)

    plan = engine.plan(playbook)
    print(f"{plan.customers} customers, {len(plan.lines)} concerned")
    why = {line.customer: str(line.verdict) for line in plan.lines}
    print(f"c-01: {why['c-01']}; c-02: {why['c-02']}; c-00 is not in the segment: {'c-00' not in why}")

    run = engine.run(playbook)
    spent = Counter(letter.message.customer for letter in letters(outbox))
    print(
        f"{run.entered} entered; {sum(spent.values())} messages to {len(spent)} people; nobody got two: {max(spent.values()) == 1}"
    )
    print(f"the first two of the list got none: {not {'c-01', 'c-02'} & set(spent)}")
    (meter,) = guard.status()
    print(f"the budget of 45 holds: {meter.spent + meter.held <= 45_000_000}")
    print(f"a second run sends {sum(engine.run(playbook).messages.values())}")

    (journey,) = report(playbook, store, engine.held_out_share(playbook)).journeys
    print(f"the report knows an effect already: {journey.effect.is_known}; to the control group: {journey.violations}")
    store.close()
