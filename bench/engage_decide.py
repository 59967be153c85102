"""How many customers a second the gates, the estimate and the allocation decide about: one look at 200,000 of them.
Everything that `decide` is given lies in memory: consents, suppressions, contacts of the last week, zones. Two offers compete for a budget
that has room for a third of the people.
"""

from __future__ import annotations

import time

import numpy as np

from bench.measure import Row, shown
from kiki.engage.decision import Contacts, Decisions, Explorers, Standing, decide
from kiki.engage.holdout import Holdout, draw
from kiki.engage.people import people_of
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.segment import members
from kiki.engage.zones import zones_by_country

DAY = 24 * 3600 * 1_000_000
CUSTOMERS = 200_000
ROUNDS = 3
NOW = 1_790_000_000_000_000
KEY = b"0" * 32
PLAYBOOK = parse_playbook("""
playbook: bench
currency: USD
cooldown: 2d
caps:
  - {messages: 2, per: 7d}
  - {messages: 1, per: day, channel: email}
channels:
  email: {quiet_hours: "21:00-08:00"}
segments:
  lapsed: {all: [{days_since_purchase: {over: 30}}, {any: [{purchases: {at_least: 2}}, {value: {over: 50}}]}]}
messages:
  mail: {channel: email, subject: s, text: t}
offers:
  free: {message: mail, cost: 0.50}
  dear: {message: mail, cost: 4.00}
journeys:
  j: {enter: {segment: lapsed}, steps: [{send: [free, dear]}]}
""")


def run() -> list[Row]:
    count = CUSTOMERS
    zones = ["Europe/Vienna", "America/New_York", "Asia/Tokyo", "Australia/Sydney", "", "America/Sao_Paulo"]
    countries = ["AT", "US", "JP", "AU", "CH", "BR"]
    profiles = [
        Profile(
            customer=f"c-{number:07}",
            email="a@example.com",
            zone=zones[number % 6],
            country=countries[number % 6],
            purchase_count=number % 5,
            last_purchase=NOW - (number % 120) * DAY,
        )
        for number in range(count)
    ]
    people = people_of(profiles, NOW)
    people.value = np.random.default_rng(1).gamma(2, 40, count) * 1e6
    at = np.random.default_rng(2)
    contacts = count // 3
    standing = Standing(
        consent=at.random(count) < 0.8,
        suppressed={"email": at.random(count) < 0.03},
        held_out=np.zeros(count, dtype=bool),
        contacts=Contacts(
            at.integers(0, count, contacts),
            ["email"] * contacts,
            NOW - at.integers(0, 7 * DAY, contacts),
            at.random(contacts) < 0.5,
        ),
        zones_by_country=zones_by_country(),
    )
    gain = (at.gamma(2, 3, (count, 2)) * 1e6).astype(np.int64) - np.array([500_000, 4_000_000])

    def place(customer: str) -> tuple[float, int]:
        number = draw(KEY, "explore", customer)
        return (number >> 11) / (1 << 53), number & 0x7FF

    everywhere, own = Holdout(KEY, 50_000), Holdout.of_playbook(KEY, 100_000, "bench")

    def look() -> Decisions:
        members(PLAYBOOK.segments["lapsed"], people, PLAYBOOK.segments)
        standing.held_out = np.array(
            [everywhere.holds(each) or own.holds(each) for each in people.customers], dtype=bool
        )
        room = count * 1_000_000 // 3
        explorers = Explorers(0.1, place)
        return decide(PLAYBOOK, ("free", "dear"), people, standing, gain, room=room, explorers=explorers)

    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = look()
        best = min(best, time.perf_counter() - began)
    chosen = int((found.codes == 0).sum())
    what = f"gates, holdout, segment, exploration and allocation for {count:,} customers ({chosen:,} chosen)"
    return [Row(f"{what}: decided", shown(count / best), "> 50 k/s", count / best > 50_000)]
