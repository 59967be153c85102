"""Sends messages, each at most once: reserve, look once more, send, and write down what became of it.

The order, and what is found when the process is killed after each step:

1. the place in the log, which counts against the caps          → tried again
2. the money, under the action's own key                        → tried again: the same key is the same money
3. the last look: quiet hours, the shield's consent, suppression
4. `sending`, in the same transaction as the look at suppression
5. the channel                                                  → `unknown`: it may have been sent
6. its outcome                                                  → settled later
7. the money is committed (done) or free (refused); an `unknown` message keeps it

Nothing is sent when the shield does not answer. What may have been accepted is never sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from kiki.clock import Clock, wall_micros
from kiki.engage.action_log import Action, ActionLog, Claim, Limit, State, Wanted
from kiki.engage.address import address_on, source_forbids
from kiki.engage.channel import Channel, Message
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import Statements
from kiki.engage.event import OptOut, OptOutReason
from kiki.engage.message_maker import MessageMaker
from kiki.engage.playbook import Playbook
from kiki.engage.profile import Profile
from kiki.engage.quiet_hours import is_quiet, plausible_zones
from kiki.engage.shield_line import Shield
from kiki.engage.zones import zones_by_country
from kiki.errors import InvalidInput, KikiError
from kiki.outbound.outcome import Fate, Outcome, unknown
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.engage")

SUPPRESSED: Final = "suppressed"
INVALID_ADDRESS: Final = "invalid_address"
LATE: Final = 24 * 3600 * 1_000_000
"""What could not be sent for a day is not sent any more: its moment is over."""

LOST: Final = 15 * 60 * 1_000_000
"""No channel takes so long for one message: whoever was sending it is gone."""
FRESH: Final = 1_000_000
"""For so long after its decision a message is on its first attempt."""

RESERVED_AT_ONCE: Final = 500

Links = Callable[[str], str]
"""The unsubscribe link of an action."""


class Post(NamedTuple):
    """One message that was decided."""

    person: str
    offer: str
    step: str
    dedup: str
    limits: Sequence[Limit] = ()
    propensity: float = 1.0


class Sent(NamedTuple):
    """What became of messages, by what makes each one and no other; None: a cap was reached meanwhile."""

    actions: dict[str, Action | None]
    failure: BaseException | None
    """What ended the work early."""


class _Ready(NamedTuple):
    """A message with its money, about to be claimed."""

    action: Action
    message: Message
    hold: str
    may: Callable[[Statements], bool]


class Sender:
    """Thread-safe. `worker` is a name that no other process has at the same time."""

    def __init__(
        self,
        store: CustomerStore,
        log: ActionLog,
        shield: Shield,
        channels: Mapping[str, Channel],
        links: Links,
        *,
        worker: str = "engage",
        workers: int = 8,
        clock: Clock = wall_micros,
    ) -> None:
        self._store = store
        self.log = log
        self._shield = shield
        self.channels = channels
        self._links = links
        self._worker = worker
        self._workers = workers
        self._clock = clock

    # -- sending -------------------------------------------------------------------------------------

    def send(self, maker: MessageMaker, *posts: Post) -> Sent:
        """Send messages, or go on with them: what became of each that was worked on.

        What keeps the shield or the store from answering ends the work: then nothing was sent of what is not told, and it
        may be tried again.
        """
        playbook = maker.playbook
        sent = Sent({}, None)
        for first in range(0, len(posts), RESERVED_AT_ONCE):
            some = posts[first : first + RESERVED_AT_ONCE]
            actions = self.log.reserve(  # (1)
                *(
                    Wanted(
                        playbook.name,
                        post.step,
                        post.person,
                        playbook.channel_of(post.offer),
                        post.offer,
                        playbook.cost_of(post.offer),
                        post.dedup,
                        post.limits,
                        post.propensity,
                    )
                    for post in some
                )
            )
            capped = {post.dedup: None for post, action in zip(some, actions, strict=True) if action is None}
            found = self.go_on(maker, *(action for action in actions if action is not None))
            sent = Sent({**sent.actions, **capped, **found.actions}, found.failure)
            if found.failure is not None:
                break
        return sent

    def go_on(self, maker: MessageMaker, *actions: Action) -> Sent:
        """Do what is left to do for messages that are reserved; another state stays as it is."""
        found: dict[str, Action | None] = {each.dedup: each for each in actions if each.state is not State.RESERVED}
        waiting = [each for each in actions if each.state is State.RESERVED]
        with ThreadPoolExecutor(self._workers, thread_name_prefix="kiki-engage") as pool:
            # As many at once as are sent at the same time: between the last look and the channel nothing waits.
            for first in range(0, len(waiting), self._workers):
                some = waiting[first : first + self._workers]
                failure = self._go_on_together(pool, maker, some, found)
                if failure is not None:
                    return Sent(found, failure)
        return Sent(found, None)

    def _go_on_together(
        self, pool: ThreadPoolExecutor, maker: MessageMaker, some: Sequence[Action], found: dict[str, Action | None]
    ) -> BaseException | None:
        tried = [pool.submit(self._prepare, maker, action) for action in some]
        failure = next((error for each in tried if (error := each.exception()) is not None), None)
        prepared = [each.result() for each in tried if each.exception() is None]
        ready = {each.action.action: each for each in prepared if isinstance(each, _Ready)}
        found.update((each.dedup, each) for each in prepared if isinstance(each, Action))
        if not ready:
            return failure
        taken = self.log.take(self._worker, *(Claim(name, each.hold, each.may) for name, each in ready.items()))  # (4)
        for name, each in ready.items():
            if name not in taken:
                known = self.log.get(name)
                # Another worker has it, or it must not be sent.
                is_ours = known is None or known.state is State.RESERVED
                found[each.action.dedup] = self._dropped(each.action, SUPPRESSED, each.hold) if is_ours else known
        sending = [each for name, each in ready.items() if name in taken]
        outcomes = list(pool.map(lambda each: self._sent(each.message), sending))  # (5)
        self._end(sending, outcomes)  # (6)
        now_known = self.log.get_many([each.action.action for each in sending]) if sending else {}
        found.update((each.action.dedup, now_known.get(each.action.action, each.action)) for each in sending)
        return failure

    def _prepare(self, maker: MessageMaker, action: Action) -> _Ready | Action:
        """Everything before the claim; the action where it is dropped."""
        profile = self._store.profile_of(action.person)
        refusal = self._why_not(maker.playbook, action, profile)
        message: Message | None = None
        if profile is not None and not refusal:
            try:
                message = maker.message(profile, action, self._links(action.action))
            except InvalidInput as error:
                log_event(logger, logging.WARNING, "a message cannot be made", action=action.action, problem=str(error))
                refusal = "template"
        if profile is None or message is None:
            return self._dropped(action, refusal or "unknown_customer", action.hold)
        scopes = {"campaign": action.playbook, "platform": action.channel, "customer": profile.customer}
        key = f"engage:{action.action}"
        reserved = self._shield.reserve(action.cost, scopes, key, maker.playbook.purpose)  # (2)
        if reserved.refusal:
            return self._dropped(action, reserved.refusal, action.hold)
        # The answer to a repeated key may be as old as the first: then consent is asked for by itself.  (3)
        is_old = self._clock() - action.decided_at > FRESH
        if is_old and not self._shield.consents([profile.customer], maker.playbook.purpose)[0]:
            return self._dropped(action, "no_consent", reserved.hold)
        customer, channel, to = profile.customer, action.channel, message.to

        def may(tx: Statements) -> bool:
            return not self._store.suppressions.holds(tx, customer, channel, to)

        return _Ready(action, message, reserved.hold, may)

    def _why_not(self, playbook: Playbook, action: Action, profile: Profile | None) -> str:
        """What stopped being true since the decision; empty: nothing."""
        if profile is None:
            return "unknown_customer"
        if action.offer not in playbook.offers:
            return "offer_gone"
        if action.channel not in self.channels:
            return "channel_missing"
        if self._clock() - action.decided_at > LATE:
            return "late"
        if profile.is_test:
            return "test_customer"
        if source_forbids(profile, action.channel):
            return "source_forbids"
        if not address_on(profile, action.channel):
            return "no_address"
        quiet = playbook.quiet_on(action.channel)
        zones = plausible_zones(profile.zone, profile.country, playbook.zone, zones_by_country())
        return "quiet" if quiet is not None and is_quiet(quiet, self._clock(), zones) else ""

    def _sent(self, message: Message) -> Outcome:
        try:
            return self.channels[message.channel].send(message)
        except Exception as error:  # a channel that breaks its promise may have sent the message
            log_event(logger, logging.ERROR, "a channel failed", action=message.action, exc_info=error)
            return unknown("channel_failed", type(error).__name__)

    def _end(self, sending: Sequence[_Ready], outcomes: Sequence[Outcome]) -> None:
        ended: dict[str, Outcome] = {}
        told: list[OptOut] = []
        for each, outcome in zip(sending, outcomes, strict=True):
            if outcome.fate is Fate.REFUSED and outcome.is_transient:
                self.log.put_back(each.action.action)
                continue
            ended[each.action.action] = outcome
            if outcome.fate is Fate.REFUSED and outcome.code in {SUPPRESSED, INVALID_ADDRESS}:
                # The provider knows better than we do that this person or address must be left alone.
                told.append(
                    OptOut(
                        id=f"action:{each.action.action}:{outcome.code}",
                        at=self._clock(),
                        reason=OptOutReason.STOPPED if outcome.code == SUPPRESSED else OptOutReason.BOUNCED,
                        channel=each.action.channel,
                        address=each.message.to,
                    )
                )
        if told:
            self._store.keep("engage", told)
        if ended:
            self.log.end(ended)

    def _dropped(self, action: Action, reason: str, hold: str) -> Action:
        self.log.drop(action.action, reason, hold)
        return self.log.get(action.action) or action

    # -- afterwards ----------------------------------------------------------------------------------

    def recover(self) -> int:
        """At a start: what this worker was sending when it was killed may have been sent. How many."""
        return self.log.give_up(self._worker, 0)

    def give_up_others(self) -> int:
        """What some worker took long ago, and never told what became of it, may have been sent, too. How many."""
        return self.log.give_up(None, self._clock() - LOST)

    def resume(self, maker: MessageMaker) -> list[Action]:
        """Go on with messages of a playbook that were reserved and not sent: after a crash, or a provider's trouble."""
        found = self.go_on(maker, *self.log.in_state(State.RESERVED, playbook=maker.playbook.name))
        if found.failure is not None:
            raise found.failure
        return [action for action in found.actions.values() if action is not None]

    def settle(self) -> int:
        """Commit or release the money of what has ended; how many."""
        count = 0
        while waiting := self.log.unsettled():
            for action in waiting:
                if action.state is State.DONE:
                    self._shield.commit(action.hold, action.cost)
                else:
                    self._shield.release(action.hold)
            self.log.settled([action.action for action in waiting])
            count += len(waiting)
        return count

    def reconcile(self, maker: MessageMaker) -> list[Action]:
        """Look up unknown messages where the provider can be asked; those that are known now."""
        self.give_up_others()
        found = []
        for action in self.log.in_state(State.UNKNOWN, playbook=maker.playbook.name):
            find = getattr(self.channels.get(action.channel), "find", None)
            profile = self._store.profile_of(action.person)
            if find is None or profile is None or action.taken_at is None or action.offer not in maker.playbook.offers:
                continue
            try:
                message = maker.message(profile, action, self._links(action.action))
                outcome: Outcome = find(message, action.taken_at, self._clock())
            except KikiError:
                continue
            if outcome.fate is not Fate.UNKNOWN:
                self.log.end({action.action: outcome})
                found.append(self.log.get(action.action) or action)
        return found
