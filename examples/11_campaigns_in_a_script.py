"""Campaigns on three platforms from one plan, in a script: no server, and a sandbox instead of money.

The worst case of each day is held at the guard before a platform may spend, and settled by the platform's own report. The
script stops in the middle and goes on, as a machine that was switched off would: nothing happens twice.
"""

import tempfile
from datetime import date
from pathlib import Path

from kiki import BudgetGuard, CampaignRunner
from kiki.flow.sandbox.local import LocalSandbox

PLAN = """\
plan: spring-sale
currency: USD
starts: 2026-12-01
ends: 2026-12-03
budget: $3,000.00 total
platforms: sandbox
campaigns:
  - {name: search, platform: google_ads, budget: $100/day, bid: $1.20}
  - {name: social, platform: meta, budget: $200/day, bid: {ltv: 2%, ceiling: $4}}
  - {name: video, platform: tiktok, budget: $50/day, days: [tue, thu]}
"""

with (
    tempfile.TemporaryDirectory() as folder,
    LocalSandbox(first_day=date(2026, 11, 30), day_seconds=1.5) as sandbox,
    BudgetGuard.open(Path(folder) / "shield.db", limit="2000", window="30d") as guard,
):
    file, store = Path(folder) / "spring.yaml", Path(folder) / "flow.db"
    file.write_text(PLAN)

    with CampaignRunner.open(store, guard=guard, sandbox=sandbox.url) as runner:
        preview = runner.preview(file)
        print("would do:", ", ".join(f"{change.step} {change.campaign}" for change in preview.changes))
        run = runner.start(file)
        status = runner.wait(run, seconds=1.5)
        print("stopped in the middle:", status.state)

    with CampaignRunner.open(store, guard=guard, sandbox=sandbox.url) as runner:
        print("the same plan is the same run:", runner.start(file) == run)
        status = runner.wait(run)
        print("then:", status.state, "with", len(status.lanes), "campaigns, held:", status.held)
        told = [event.event for event in runner.events(run, most=10_000)]
        print("told:", told.count("flow.reserved"), "reservations,", told.count("flow.settled"), "settled days")
        print("findings:", len(runner.reconcile(run).findings))

    theirs = {each["name"].rpartition("/")[2]: each["billed"] for each in sandbox.books()["campaigns"]}
    print("the platforms say the same:", theirs == {lane.campaign: lane.spent_total for lane in status.lanes})
    print("holds left open:", len(guard.holds()))
