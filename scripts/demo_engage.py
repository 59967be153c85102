"""`make demo-engage`: a month of a simulated shop, from Shopify to a report, in under a minute.

A fake Shopify (a real GraphQL executor over its schema) holds customers and orders. Every simulated day the shop sells, kiki takes in
what is new, plans, and sends to an outbox; what a message does to its reader is decided here, and kiki is not told. Some readers
unsubscribe, some take their consent back, some cannot be reached, and every third evening a run falls into quiet hours.

At the end two things are looked up in the simulation, which knows them, and not in kiki: what the messages really earned, which the report's
interval must hold, and whether anybody was written to who must not be. The exit code is 0 only when both are right.

    demo_engage.py [--customers N] [--seed N] [--keep DIR]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the fake Shopify lies among the tests, where Shopify's own kit judges it

from kiki import BudgetGuard  # noqa: E402
from kiki.engage.channel import Message  # noqa: E402
from kiki.engage.channels.outbox import OutboxChannel, letter  # noqa: E402
from kiki.engage.crm.shopify import ShopifySource  # noqa: E402
from kiki.engage.customer_store import CustomerStore  # noqa: E402
from kiki.engage.database import open_database  # noqa: E402
from kiki.engage.keyring import Keyring  # noqa: E402
from kiki.engage.message_maker import MessageMaker  # noqa: E402
from kiki.engage.playbook_report import Report, report  # noqa: E402
from kiki.engage.playbook_text import parse_playbook  # noqa: E402
from kiki.engage.post_room import PostRoom  # noqa: E402
from kiki.engage.retention_engine import RetentionEngine  # noqa: E402
from kiki.engage.shield_line import GuardLine  # noqa: E402
from kiki.engage.sync import sync  # noqa: E402
from kiki.engage.unsubscribe import UnsubscribeLinks  # noqa: E402
from kiki.settings import Secret  # noqa: E402
from kiki.shield.consent import State  # noqa: E402
from tests.engage.fakes.shopify import TOKEN, FakeShopify  # noqa: E402

DAYS: Final = 30
DAY: Final = 24 * 3600 * 1_000_000
HOUR: Final = 3600 * 1_000_000
START: Final = (
    round((datetime.now(UTC) + timedelta(days=1)).replace(hour=10, minute=0, second=0, microsecond=0).timestamp())
    * 10**6
)
MARGIN: Final = 0.4
MESSAGE_COST: Final = 0.01
BUDGET: Final = "20000"

PLAYBOOK: Final = """
playbook: win-back
currency: CHF
zone: Europe/Zurich            # for those of whom the shop knows no better
holdout: 20%
margin: 40%
cooldown: 20d
caps:
  - {messages: 1, per: 14d}
channels:
  email: {cost: 0.01, quiet_hours: "21:00-08:00"}
segments:
  lapsed: {days_since_purchase: {over: 30}}
messages:
  hello:
    channel: email
    subject: "{{ first_name }}, we have missed you"
    text: "Dear {{ first_name }}, here is a reason to come back.\\n\\n{{ unsubscribe_url }}"
offers:
  come-back: {message: hello, cost: 2.00, gain: 3.00}
journeys:
  win-back:
    enter: {segment: lapsed}
    again_after: 365d
    goal: {event: order, within: 10d}
    steps:
      - {send: come-back, name: first}
"""


class Clock:
    """The simulation's time; never backwards."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        """The moment it is."""
        self.now += 1  # no two moments are the same
        return self.now


@dataclass
class Buyer:
    """Somebody as only the simulation knows them."""

    number: int
    daily: float
    """The chance of a purchase on a day, unaided."""
    pull: float
    """By how much a message raises the chance of one purchase in the days after it."""
    mean: float
    reachable: bool
    consents: bool
    left_at: int | None = None
    """When they unsubscribed or took their consent back."""
    pulled_on: int | None = None
    letters: list[int] = field(default_factory=list)
    orders: int = 0
    spent: float = 0.0


class Shop:
    """Sells, and does to readers what messages do."""

    def __init__(self, fake: FakeShopify, count: int, seed: int) -> None:
        self.fake = fake
        self.random = random.Random(seed)
        self.buyers = [self._buyer(number) for number in range(1, count + 1)]
        self._orders = 0
        for buyer in self.buyers:
            away = self.random.uniform(5, 90)
            self._customer(buyer, START - round(away * DAY))
            self._sell(buyer, START - round(away * DAY))

    def _buyer(self, number: int) -> Buyer:
        draw = self.random
        return Buyer(
            number,
            daily=draw.uniform(0.03, 0.07),
            pull=draw.uniform(0.05, 0.25),
            mean=draw.uniform(30, 80),
            reachable=draw.random() > 0.05,
            consents=draw.random() > 0.15,
        )

    def _customer(self, buyer: Buyer, at: int) -> None:
        address = {"emailAddress": f"c{buyer.number}@example.com", "marketingState": "SUBSCRIBED"}
        self.fake.customer(buyer.number, moment(at), defaultEmailAddress=address if buyer.reachable else None)

    def _sell(self, buyer: Buyer, at: int) -> float:
        self._orders += 1
        amount = round(self.random.gammavariate(4, buyer.mean / 4), 2) + 1
        order = self.fake.order(self._orders, buyer.number, moment(at), f"{amount:.2f}")
        buyer.orders += 1
        buyer.spent += amount
        customer = self.fake.customers[f"gid://shopify/Customer/{buyer.number}"]
        customer["updatedAt"] = moment(at)
        customer["numberOfOrders"] = str(buyer.orders)
        customer["amountSpent"] = {"amount": f"{buyer.spent:.2f}", "currencyCode": "CHF"}
        customer["lastOrder"] = order
        return amount

    def pass_day(self, now: int) -> int:
        """Everything that was bought in the day up to a moment; how many orders."""
        sold = 0
        for buyer in self.buyers:
            at = now - self.random.randint(1, DAY - 1)
            if self.random.random() < buyer.daily:
                self._sell(buyer, at)
                sold += 1
            if buyer.pulled_on is not None and now >= buyer.pulled_on:
                self._sell(buyer, now - self.random.randint(1, HOUR))
                buyer.pulled_on = None
                sold += 1
        return sold

    def read(self, buyer: Buyer, now: int) -> bool:
        """What a message does; True when its reader wants no more of them."""
        buyer.letters.append(now)
        if self.random.random() < buyer.pull:
            buyer.pulled_on = now + self.random.randint(1, 7) * DAY
        return self.random.random() < 0.05


class Month:
    """kiki beside the shop, day by day."""

    def __init__(self, folder: Path, count: int, seed: int, fake: FakeShopify) -> None:
        self.clock = Clock(START)
        self.shop = Shop(fake, count, seed)
        self.guard = BudgetGuard.open(
            folder / "shield.db", limit=BUDGET, window="30d", currency="CHF", clock=self.clock
        )
        self.store = CustomerStore(
            open_database(folder / "engage.db"), Keyring.of_guard(self.guard.decider), self.clock
        )
        self.outbox = folder / "outbox"
        self.links = UnsubscribeLinks("http://127.0.0.1:8083", [Secret("a secret of the demo")])
        self.playbook = parse_playbook(PLAYBOOK)
        self.maker = MessageMaker(self.playbook)
        channels = {"email": OutboxChannel(self.outbox, clock=self.clock)}
        self.engine = RetentionEngine(
            self.store, GuardLine(self.guard), channels, self.links.url, holdout=0, workers=16, clock=self.clock
        )
        self.room = PostRoom(self.engine, [], self.links)
        self.source = ShopifySource(
            "shop.myshopify.com",
            Secret(TOKEN),
            base_url=fake.url,
            clock=self.clock,
            sleep=lambda seconds: time.sleep(min(seconds, 0.05)),
        )
        self.seen: set[str] = set()
        self.wrong: list[str] = []
        consents = self.guard.consents
        consents.say_all(
            consents.said(str(buyer.number), "marketing", State.GRANTED) for buyer in self.shop.buyers if buyer.consents
        )

    def live(self) -> None:
        """Thirty days."""
        for day in range(DAYS):
            if day:
                self.clock.now = START + day * DAY
                sold = self.shop.pass_day(self.clock.now)
            else:
                sold = 0
            synced = sync(self.source, self.store)
            plan = self.engine.plan(self.playbook) if day == 0 else None
            if plan is not None:
                told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(plan.counts().items()))
                say(f"the plan of the first day: {told}")
            run = self.engine.run(self.playbook, self.maker)
            self.look_into_outbox()
            if day % 3 == 2:
                self.evening()
            if day % 5 == 0:
                say(
                    f"day {day + 1:>2}: {sold} orders, {synced.profiles} customers and {synced.events} events taken in, "
                    f"{run.entered} entered, {run.messages.get('done', 0)} messages"
                )

    def evening(self) -> None:
        """A run in quiet hours, and consent that is taken back."""
        self.clock.now += 12 * HOUR
        self.engine.run(self.playbook, self.maker)
        self.look_into_outbox(quiet=True)
        for buyer in self.shop.random.sample(self.shop.buyers, 20):
            if buyer.consents and buyer.left_at is None:
                self.guard.consents.revoke(str(buyer.number), "marketing")
                buyer.left_at = self.clock.now

    def look_into_outbox(self, *, quiet: bool = False) -> None:
        """Read what came, as its readers do; note whoever must not have got it."""
        for message in self.new_letters():
            buyer = self.shop.buyers[int(message.customer) - 1]
            self.judge(message, buyer, quiet=quiet)
            if self.shop.read(buyer, self.clock.now):
                self.room.leave(message.unsubscribe_url.rpartition("/")[2])
                buyer.left_at = self.clock.now

    def new_letters(self) -> Iterator[Message]:
        """Messages that were not read yet."""
        for file in sorted(self.outbox.glob("*.json")) if self.outbox.exists() else []:
            if file.stem not in self.seen:
                self.seen.add(file.stem)
                found = letter(self.outbox, file.stem)
                if found is not None:
                    yield found.message

    def judge(self, message: Message, buyer: Buyer, *, quiet: bool) -> None:
        """Whether this person may have got this message, by what the simulation knows."""
        reasons = [
            ("without consent", not buyer.consents),
            ("after they had left", buyer.left_at is not None),
            ("without an address", not buyer.reachable),
            ("to another address", message.to != f"c{buyer.number}@example.com"),
            ("in quiet hours", quiet),
            ("twice within 14 days", any(self.clock.now - at < 14 * DAY for at in buyer.letters)),
        ]
        self.wrong += [f"customer {buyer.number} got a message {what}" for what, is_so in reasons if is_so]

    def truth(self) -> float:
        """What being assigned to the messages was worth for a person, on average, by the simulation's own chances."""
        span = self.playbook.journeys[0].goal_span
        assigned = self.engine.book.assignments("win-back/win-back", self.clock.now - span)
        treated = [each for each in assigned if each.arm == "treated"]
        earned = 0.0
        for each in treated:
            profile = self.store.profile_of(each.person)
            buyer = None if profile is None else self.shop.buyers[int(profile.customer) - 1]
            if buyer is not None and any(0 <= at - each.at < DAY for at in buyer.letters):
                earned += buyer.pull * (buyer.mean + 1) * MARGIN - MESSAGE_COST
        return earned / max(len(treated), 1)

    def close(self) -> None:
        """Let go of everything."""
        self.source.close()
        self.store.close()
        self.guard.close()


def moment(micros: int) -> str:
    """As Shopify writes one."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def say(text: str) -> None:
    """One line of the story."""
    print(text, flush=True)


def verdict(month: Month, found: Report) -> list[str]:
    """Everything that is not as it must be."""
    (journey,) = found.journeys
    effect, truth = journey.effect, month.truth()
    wrong = list(month.wrong[:10])
    wrong += [f"{journey.violations} messages went to the control group"] if journey.violations else []
    if not effect.is_known or effect.value is None:
        return [*wrong, "the report knows too little for an interval"]
    low, high = effect.low / 1e6, effect.high / 1e6
    say(
        f"\nthe report: {effect.value / 1e6:+.2f} CHF a person, between {low:+.2f} and {high:+.2f}, after what the messages cost"
    )
    say(f"the truth:  {truth:+.2f} CHF, which only the simulation knows")
    if not low <= truth <= high:
        wrong.append(f"the interval from {low:.2f} to {high:.2f} does not hold the true effect of {truth:.2f}")
    if not effect.is_balanced:
        wrong.append("the sides are not as large as they were drawn")
    if not month.seen:
        wrong.append("nobody got a message")
    return wrong


def main() -> int:
    """Run the month; 0 when everything is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, FakeShopify(speed=100_000) as fake:
        folder = given.keep or Path(temporary)
        month = Month(folder, given.customers, given.seed, fake)
        say(f"a shop of {given.customers} customers; kiki sees Shopify, consents and its own outbox, and nothing else")
        month.live()
        found = report(month.playbook, month.store, month.engine.held_out_share(month.playbook))
        (journey,) = found.journeys
        say(
            f"\n{journey.assigned} people took part, {journey.held_out} of them held out; {len(month.seen)} messages; "
            f"windows still open: {journey.open_windows}"
        )
        wrong = verdict(month, found)
        (meter,) = month.guard.status()
        say(f"the budget: {meter.spent / 1e6:.2f} of {BUDGET} CHF spent, {meter.held / 1e6:.2f} held")
        month.close()
    say(f"{time.monotonic() - began:.0f} seconds")
    for each in wrong:
        say(f"WRONG: {each}")
    say("nobody was written to who must not be, and the interval holds the truth" if not wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
