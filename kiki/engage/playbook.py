"""What a marketing team decides once, and the service follows: a playbook, read and checked. Pure.

Spans and moments are microseconds, money is micros, shares are parts of a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec

from kiki.engage.segment import Condition

SMS: Final = "sms"
DAY: Final = 24 * 3600 * 1_000_000
MARGIN: Final = "margin"
GOAL: Final = "goal"
"""What a split learns from: what people bring, or whether they reach the goal of the journey."""
FLOOR: Final = 50_000
"""What each way of a split that learns keeps where the playbook says nothing: 5 %."""
QUIET_SMS: Final = (21 * 60, 8 * 60)
"""Where a playbook says nothing: no SMS from 21:00 to 8:00 where the person is."""


class QuietHours(msgspec.Struct, frozen=True):
    """When nobody is disturbed, in minutes after local midnight; may go over midnight."""

    begins: int
    ends: int

    def holds(self, minute: int) -> bool:
        """Whether this minute of the day is quiet."""
        if self.begins == self.ends:
            return False
        if self.begins < self.ends:
            return self.begins <= minute < self.ends
        return minute >= self.begins or minute < self.ends


class ChannelRule(msgspec.Struct, frozen=True):
    """What one channel costs, and when it is quiet."""

    cost: int = 0
    """Of one message."""
    quiet: QuietHours | None = None


class Cap(msgspec.Struct, frozen=True):
    """At most so many marketing messages to one person."""

    messages: int
    span: int
    """Rolling; of a calendar span, its longest length."""
    calendar: str = ""
    """`day`, `week` or `month`: counted from its beginning where the person is."""
    channel: str = ""
    """Empty: over all channels."""


FIELDS: Final = (
    *("customer", "first_name", "last_name", "email", "phone", "country", "locale", "segment"),
    *("offer", "discount", "unsubscribe_url"),
)
"""What may be said in a message."""


class MessageText(msgspec.Struct, frozen=True):
    """What a person reads, with places for what is known of them."""

    channel: str
    text: str
    subject: str = ""
    html: str = ""


class Offer(msgspec.Struct, frozen=True):
    """One thing that can be said to a customer: an arm."""

    message: str
    cost: int = 0
    """Expected, beside that of the channel: what a discount gives away. Reserved before the message is sent."""
    discount: float = 0.0
    """Per cent, for the message and the record."""
    gain: int | None = None
    """Expected incremental margin before costs, believed until it is measured. None: nothing is believed."""


class Send(msgspec.Struct, frozen=True, tag="send"):
    """Say the best of some offers, or nothing."""

    name: str
    offers: tuple[str, ...]


class Wait(msgspec.Struct, frozen=True, tag="wait"):
    """Go on after a span."""

    span: int


class WaitFor(msgspec.Struct, frozen=True, tag="wait_for"):
    """Go on when an event came, or leave the journey when it did not within a span; or the other way round."""

    event: str
    span: int
    ends: bool = True
    """The event ends the journey; False: only who had the event goes on."""


class Split(msgspec.Struct, frozen=True, tag="split"):
    """Go one of several ways by chance, the same way each time for the same person."""

    name: str
    shares: tuple[int, ...]
    """Of one that learns: what it begins with."""
    targets: tuple[int, ...]
    learns: bool = False
    """Thompson sampling: each day the ways that brought more get more of those who are new."""
    floor: int = 0
    """Of one that learns: what each way keeps, in parts of a million."""
    reward: str = MARGIN


class Jump(msgspec.Struct, frozen=True, tag="jump"):
    """Go on elsewhere."""

    target: int


Step = Send | Wait | WaitFor | Split | Jump


class Journey(msgspec.Struct, frozen=True):
    """A way through some steps, flattened: a place in it is one number."""

    name: str
    steps: tuple[Step, ...]
    segment: str = ""
    """Who enters, at each look."""
    event: str = ""
    """Or: what somebody does to enter; then only members of `segment`, where there is one."""
    again_after: int | None = None
    """When the same person may enter again; None: never, and for an event each time."""
    exit_event: str = ""
    """What ends the journey wherever somebody is in it."""
    goal_event: str = "order"
    goal_span: int = 30 * DAY
    """How long after entering outcomes count, for everybody, also for those who are held out."""


class Playbook(msgspec.Struct, frozen=True):
    """All of it."""

    name: str
    currency: str
    journeys: tuple[Journey, ...]
    offers: Mapping[str, Offer]
    messages: Mapping[str, MessageText]
    segments: Mapping[str, Condition] = {}
    channels: Mapping[str, ChannelRule] = {}
    caps: tuple[Cap, ...] = ()
    cooldown: int = 0
    holdout: int = 100_000
    """Parts of a million: 10 %."""
    explore: int = 100_000
    """Of those who get something, how many get an offer by chance, so that the others can be learnt about."""
    horizon: int = 90 * DAY
    """Churn is no purchase within it."""
    margin_rate: int = 1_000_000
    """Of an order's amount, where the order does not tell its margin; parts of a million."""
    purpose: str = "marketing"
    zone: str = ""
    """For who has none, unless their country has others. Empty: only what no zone that may be theirs forbids."""

    @property
    def version(self) -> str:
        """Twelve digits that change with anything in it."""
        return sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]

    def journey(self, name: str) -> Journey | None:
        """The journey of that name."""
        return next((each for each in self.journeys if each.name == name), None)

    def channel_of(self, offer: str) -> str:
        """On which channel an offer is said."""
        return self.messages[self.offers[offer].message].channel

    def cost_of(self, offer: str) -> int:
        """What saying an offer is expected to cost in all."""
        channel = self.channels.get(self.channel_of(offer))
        return self.offers[offer].cost + (channel.cost if channel is not None else 0)

    def quiet_on(self, channel: str) -> QuietHours | None:
        """The quiet hours of a channel."""
        rule = self.channels.get(channel)
        if rule is not None and rule.quiet is not None:
            return rule.quiet
        return QuietHours(*QUIET_SMS) if channel == SMS else None
