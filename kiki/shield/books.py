"""The books of one process: its ledger, and what follows from it, the window that counts and the projections that find.

They agree whenever somebody decides. So they are opened together, go on under another policy together, and begin
again together from what the disk has when a commit failed. Nothing here decides, and one caller at a time comes here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from kiki import __version__
from kiki.clock import SECOND, Clock
from kiki.errors import LedgerUnavailable, WindowUnavailable
from kiki.ledger.ledger import Append, Ledger
from kiki.shield.consent import LEASE_HELD
from kiki.shield.consent_view import ConsentView
from kiki.shield.fact import EXPIRE, Opened, PolicyUsed, Settled
from kiki.shield.persons import require_nobody
from kiki.shield.policy import Policy
from kiki.shield.projections import Projections
from kiki.shield.replay import Restorable, reach, replay
from kiki.shield.window import Ask, Verb, Window

DAY = 24 * 3600 * SECOND

UnderEpoch = tuple[str, int] | None
"""A shared window and the number of the epoch in which it answered; None where nobody numbers epochs."""


class Books:
    """A ledger and all that is derived from it, in agreement."""

    def __init__(self, ledger: Ledger, window: Window, policy: Policy, clock: Clock, keys_max: int) -> None:
        require_nobody(policy)
        self.ledger = ledger
        self.window = window
        self.policy = policy
        self.looking = threading.Lock()
        """Held while the window is used, so that a look at it need not wait for a commit."""
        self.orphans_due = False
        """A commit failed since the shared window was last looked through for what nobody can ask for again."""
        self.consents = ConsentView(ledger.store, LEASE_HELD if ledger.store.is_shared else None)
        self._clock = clock
        self._keys_max = keys_max
        self._recover_at = 0
        self.kept = self._projections()
        self._open()

    def _projections(self) -> Projections:
        return Projections(
            self.ledger.store,
            self.ledger.chain,
            retention=key_retention(self.policy),
            keys_max=self._keys_max,
            now=self._clock(),
        )

    def _open(self) -> None:
        if self.window.restorable:
            self.window = self._restored(self.policy)
        else:
            self.release_orphans()
            # In the life of a shared window that we know, whoever turned a halt off meanwhile did it there.
            if self.kept.met is None or self.window.epoch != self.kept.met.epoch:
                for pattern in self.kept.halts():
                    with suppress(WindowUnavailable):
                        self.window.halt(pattern, on=True)
        at = self._clock()
        self.ledger.append_all(
            [
                self.kept.keep(Opened(at, __version__, self.window.kind, self.window.epoch, self.ledger.chain)),
                *self._policy_fact(self.policy, at, ""),
            ]
        )

    def _restored(self, policy: Policy) -> Window:
        """A fresh window under the policy that counts what the ledger says."""
        fresh = cast("Restorable", self.window).renewed(policy)
        replay(self.ledger.store, fresh, self.kept.holds.values(), since=self._clock() - reach(policy))
        for pattern in self.kept.halts():
            fresh.halt(pattern, on=True)
        return fresh

    def release_orphans(self) -> None:
        """Give back what a shared window holds for calls that died between its answer and our commit."""
        with suppress(WindowUnavailable), self.looking:
            orphans = [hold for hold in self.window.own_holds() if hold.id not in self.kept.holds]
            self.window.take([Ask(Verb.RELEASE, [0], hold=hold.id) for hold in orphans])
            self.orphans_due = False

    # -- policy --------------------------------------------------------------------------------------

    def use(self, policy: Policy, actor: str) -> None:
        """Go on under another policy; what was spent before is counted under it. When it raises, nothing has changed."""
        require_nobody(policy)
        window = self._restored(policy) if self.window.restorable else self.window
        if not window.restorable:
            with self.looking:
                window.use(policy)
        try:
            self.ledger.append_all(self._policy_fact(policy, self._clock(), actor))
        except BaseException:
            if not window.restorable:
                with self.looking:
                    window.use(self.policy)
            raise
        with self.looking:
            self.window, self.policy = window, policy
        self.kept.index.retention = key_retention(policy)

    def _policy_fact(self, policy: Policy, at: int, actor: str) -> list[Append]:
        dump = policy.dump()
        return [] if self.kept.policy() == dump else [self.kept.keep(PolicyUsed(at, dump, actor))]

    # -- writing down --------------------------------------------------------------------------------

    def expired(self, now: int) -> list[Append]:
        """The ends of holds whose deadline has passed, as facts to be written before what came later.

        A window of our own charges such a hold by itself; what became of one in a shared window, this ledger cannot say.
        """
        if not self.window.restorable:
            return []
        return [
            self.kept.keep(
                Settled(
                    verb=EXPIRE,
                    at=deadline,
                    epoch="",
                    sequence=0,
                    hold=hold.id,
                    charged=hold.amount,
                    reserved=hold.amount,
                    scopes=[list(hold.scopes)],
                )
            )
            for deadline, hold in self.kept.expired(now)
        ]

    def append(self, facts: Sequence[Append], under_epoch: UnderEpoch = None) -> int:
        """One commit; the sequence of its first fact. When it fails, nobody decides before the disk was read again."""
        try:
            return self.ledger.append_all(facts, under_epoch)
        except BaseException as error:
            if self.ledger.failure is None:
                # Not the disk: a fact that cannot be written. Window and projections have run ahead of the ledger.
                self.ledger.failure = _recoverable(f"a decision could not be written down: {error}")
            raise

    # -- after a failure -----------------------------------------------------------------------------

    def require_writable(self, now: int) -> None:
        """Raise the ledger's failure, after trying now and then whether it is over."""
        failure = self.ledger.failure
        if failure is None:
            return
        if not failure.recoverable or now < self._recover_at:
            raise failure.with_traceback(None)
        self._recover_at = now + SECOND
        self.recover()

    def recover(self) -> None:
        """Go on from what the disk has: what was never durable was never answered, and is not counted any more."""
        self.ledger.recover()
        # What was written when the commit raised may be durable after all.
        self.consents.clear()
        try:
            self.kept = self._projections()
            if self.window.restorable:
                window = self._restored(self.policy)
                with self.looking:
                    self.window = window
            else:
                # What was held for a call that was never answered goes back with the next tick that finds the window.
                self.orphans_due = True
        except BaseException as error:
            # The old window still has what was never durable, and lacks what was: it must not decide.
            self.ledger.failure = _recoverable(f"what is durable could not be read again: {error}")
            raise self.ledger.failure from error
        # A change of policy may have been durable although its commit raised: the last fact names the one in force.
        self.ledger.append_all(self._policy_fact(self.policy, self._clock(), ""))


def key_retention(policy: Policy) -> int:
    """How long an idempotency key is remembered at least: the longest window, and never less than a day."""
    return max(DAY, policy.span_max)


def _recoverable(why: str) -> LedgerUnavailable:
    failure = LedgerUnavailable(why)
    failure.recoverable = True
    return failure
