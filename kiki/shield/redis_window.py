"""Budgets counted in a Redis that many processes share: one script call for each batch of asks.

`redis_window.lua` decides, by the server's clock, atomically over every budget of the batch; this file asks it, and
sees to it that what this process has open is counted in each new epoch. The state, the steps and why no failure admits
too much are in docs/design/redis-window.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from kiki import tracing
from kiki.clock import SECOND, Clock, steady_clock
from kiki.errors import InvalidMoney, KikiError, WindowUnavailable
from kiki.money import format_micros
from kiki.shield.budget import MeterRule, Reason, Refusal
from kiki.shield.policy import Policy
from kiki.shield.redis_connection import Address, NotReached, OutcomeUnknown, RedisConnection, Refused
from kiki.shield.redis_epoch import AskAgain, Bounds, KnownEpoch, RedisEpoch
from kiki.shield.redis_lanes import RedisLanes, window_name
from kiki.shield.redis_link import RedisLink
from kiki.shield.redis_own_holds import OwnHolds
from kiki.shield.redis_script import (
    SUM_MAX,
    Batch,
    Reply,
    StateKeys,
    StoredHold,
    encoded,
    error_of,
    moment,
    refusal_of,
    stored_holds,
)
from kiki.shield.scope import Pattern
from kiki.shield.window import Answer, Ask, MeterStatus, OpenHold, Verb
from kiki.shield.window_rebuild import NOBODY, EpochAuthority

DAY = 24 * 3600 * SECOND

_TRACED_AS = {"db.system.name": "redis", "db.operation.name": "EVALSHA"}
_ADMITTING = frozenset({Verb.CHECK, Verb.SPEND, Verb.RESERVE})
_ADOPTED_AT_ONCE = 500
_RESTORED_AT_ONCE = 50
_LISTED_AT_ONCE = 1000


class RedisWindow:
    """The window of many processes. One caller at a time; a thread of its own brings a lost Redis back.

    Made without I/O: `connect` is the usual way. `chain` names this process's ledger and stays the same over restarts.
    With an `authority`, a lost state is counted anew from every ledger instead of waited out. `clock` replaces the
    server's TIME in tests. Raises `PolicyError` for limits that it cannot count.
    """

    kind = "redis"
    restorable = False

    def __init__(
        self,
        policy: Policy,
        address: Address,
        *,
        chain: str,
        known: KnownEpoch | None = None,
        prefix: str = "kiki",
        timeout: float = 0.25,
        scopes_max: int = 1_000_000,
        keys_max: int = 10_000_000,
        key_retention: int = DAY,
        local_clock: Clock | None = None,
        clock: Clock | None = None,
        authority: EpochAuthority | None = None,
    ) -> None:
        self.address = address
        self.chain = chain
        self.authority = authority
        self._on_new_epoch: Callable[[], Iterable[OpenHold]] | None = None
        self._taken_in = 0
        self._rebuild_at = 0
        self._rebuilding = False
        self._local = local_clock or steady_clock()
        self._keys = StateKeys.under(prefix)
        self._bounds = Bounds(scopes_max, keys_max, key_retention)
        self._lanes = RedisLanes(policy, secrets.token_hex(32))
        self._own = OwnHolds(self._lanes)
        self._own_halts: dict[str, str] = {}
        self._epoch = RedisEpoch(
            chain,
            known,
            self._keys,
            self._lanes,
            self._bounds,
            is_loopback=address.is_loopback,
            local_clock=self._local,
            clock=clock,
            on_moved=self._bring_back,
        )
        self._link = RedisLink(address, timeout, self._keys.meta, self._greet)

    @classmethod
    def connect(cls, policy: Policy, address: Address, **options: Any) -> Self:
        """A window that has met its Redis, or goes on trying to in the background.

        Raises `WindowUnavailable` when nothing answers at a loopback address: the caller falls back to a
        `LocalWindow`. A Redis that answers and refuses (no password, still loading) is no reason to fall back.
        """
        window = cls(policy, address, **options)
        try:
            window._link.meet()
        except WindowUnavailable as error:
            if address.is_loopback and not isinstance(error, Refused):
                window.close()
                raise
            window._link.trip(error)
        return window

    # -- what the guard may know ---------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """The life of the shared windows that this process counts in; empty before it met one."""
        return self._epoch.id

    @property
    def under_epoch(self) -> tuple[str, int] | None:
        """The epoch in which `take` answered last: what its decisions are written down under."""
        return None if self.authority is None else (self.authority.window, self._taken_in)

    def on_new_epoch(self, tell: Callable[[], Iterable[OpenHold]]) -> None:
        """Ask `tell` for the holds that this process has open before anything is decided in an epoch that is new to it.

        It is called from within `take`, for the first time in the next one; what it tells is counted again if need be.
        """
        self._on_new_epoch = tell
        self._epoch.adopt_due = True

    @property
    def policy(self) -> Policy:
        """What is decided by."""
        return self._lanes.policy

    def ready(self) -> str | None:
        """None when a spend can be decided, else why not, in a sentence."""
        unusable = self._link.down or self._link.evicting
        if unusable is not None:
            return str(unusable)
        left = self._epoch.quarantine_left()
        return self._epoch.quarantined(left) if left > 0 else None

    # -- policy --------------------------------------------------------------------------------------

    def use(self, policy: Policy) -> None:
        """Decide by this policy from now on. A window that no process counted before begins empty."""
        self._lanes.use(policy)
        # Holds are counted on windows that the new policy brings, too.
        self._epoch.adopt_due = True

    # -- deciding ------------------------------------------------------------------------------------

    def take(self, asks: Sequence[Ask]) -> list[Answer]:
        """Decide the asks in order, in one script call.

        Raises `WindowUnavailable` when certainly nothing was decided. When Redis may have decided without our
        learning it, spends and reservations are answered OUTCOME_UNKNOWN and the rest with the error.
        """
        try:
            return self._take(asks)
        except AskAgain:
            # A new life of the shared windows has a new secret: nothing was decided, so hash again.
            return self._take(asks)

    def _take(self, asks: Sequence[Ask]) -> list[Answer]:
        self._prepare()
        self._lanes.forget_many()
        batch = Batch()
        answers: list[Answer | None] = [None] * len(asks)
        sent: list[int] = []
        encoded: list[Any] = []
        closed = self._link.evicting
        for index, ask in enumerate(asks):
            if closed is not None and ask.verb in _ADMITTING:
                answers[index] = Answer(epoch=self._epoch.id, error=closed)
                continue
            try:
                encoded.append(self._encoded(ask, batch))
            except KikiError as error:
                answers[index] = Answer(epoch=self._epoch.id, error=error)
                continue
            sent.append(index)
        if sent:
            try:
                reply = self._run(batch, encoded, self._lanes.secret)
            except OutcomeUnknown as error:
                for index in sent:
                    answers[index] = self._unknown(asks[index], error)
            else:
                self._taken_in = reply.authority
                self._decoded(asks, sent, reply, answers)
        return [answer for answer in answers if answer is not None]

    def _prepare(self) -> None:
        """Fail at once while Redis is away; else see to it that the epoch in force knows our holds and halts."""
        self._link.require()
        if self._epoch.adopt_due:
            self._bring_back()
        if self.authority is not None and not self._rebuilding and not self._is_counted():
            self._rebuild(self.authority)

    def _is_counted(self) -> bool:
        """Whether the epoch in force was counted from the ledgers, to the end."""
        return bool(self._epoch.number) and self._epoch.quarantine_left() <= 0

    def _greet(self, connection: RedisConnection) -> None:
        """Settle with the script which epoch is in force; at the first contact, find what an earlier run left open."""
        was_met = self._epoch.is_met
        self._epoch.settled(connection, Batch())
        if not was_met:
            flat = connection.call("HGETALL", self._keys.holds)
            for hold_id, hold in stored_holds(flat, self._epoch.server_now()):
                if hold.chain == self.chain:
                    self._own.found(hold_id, hold)

    def _rebuild(self, authority: EpochAuthority) -> None:
        """Count what all ledgers say instead of waiting until it is out of every window."""
        now = self._local()
        if now < self._rebuild_at:
            return  # it failed a moment ago: the quarantine keeps everybody safe meanwhile
        self._rebuild_at = now + SECOND
        self._rebuilding = True
        try:
            with authority.turn():
                self._look()
                if self._is_counted():
                    return  # another process did it just now
                number = authority.raise_epoch()
                self._run(Batch(), renew=self._epoch.id)
                epoch = self._epoch.id
                past = authority.past(self._epoch.server_now(), self.policy)
                self.adopt_holds(past.holds, past.persons, are_open=True)
                for pattern in past.halts:
                    self._halt(pattern, past.persons.get(pattern, pattern), on=True)
                windows = self._lanes.counted(past)
                for start in range(0, len(windows), _RESTORED_AT_ONCE):
                    self._run(Batch(), restore=windows[start : start + _RESTORED_AT_ONCE])
                if self._epoch.id != epoch:
                    raise WindowUnavailable(f"{self._epoch.why()}; it begins again", retry_after=1.0)
                self._run(Batch(), lift=number)
        except OutcomeUnknown as error:
            raise NotReached(str(error), retry_after=error.retry_after) from error
        finally:
            self._rebuilding = False

    def _bring_back(self) -> None:
        """Set in the epoch in force what this process has halted, and count what it holds open."""
        try:
            for pattern, named in list(self._own_halts.items()):
                self._halt(pattern, named, on=True)
            self._epoch.adopt_due = False
            if self._on_new_epoch is not None:
                self.adopt_holds(self._on_new_epoch())
        except BaseException as error:
            self._epoch.adopt_due = True
            if isinstance(error, OutcomeUnknown):
                raise NotReached(str(error), retry_after=error.retry_after) from error
            if isinstance(error, InvalidMoney):
                raise WindowUnavailable(str(error)) from error
            raise

    def _encoded(self, ask: Ask, batch: Batch) -> Any:
        lanes = [self._lanes.lane(scopes, ask.persons) for scopes in ask.scopes]
        if not ask.key:
            return encoded(ask, lanes, batch)
        return encoded(ask, lanes, batch, self._lanes.digest(ask.key.encode()), self._lanes.digest(ask.request))

    def _unknown(self, ask: Ask, error: WindowUnavailable) -> Answer:
        answer = Answer(at=self._epoch.server_now(), epoch=self._epoch.id)
        if ask.verb in (Verb.SPEND, Verb.RESERVE):
            answer.refusals = dict.fromkeys(range(len(ask.amounts)), Refusal(Reason.OUTCOME_UNKNOWN))
        else:
            answer.error = error
        return answer

    def _decoded(self, asks: Sequence[Ask], sent: Sequence[int], reply: Reply, answers: list[Answer | None]) -> None:
        now, epoch = reply.now, reply.epoch
        first = reply.sequence - len(sent) + 1
        for place, index in enumerate(sent):
            given: Any = reply.answers[place]
            answer = answers[index] = Answer(now, first + place, epoch)
            if given != 0:
                self._read(asks[index], given, answer, reply)

    def _read(self, ask: Ask, given: Any, answer: Answer, reply: Reply) -> None:
        kind = given[0]
        if kind == 4:
            answer.repeated = True
            answer.at, answer.sequence, answer.epoch = given[1], given[2], given[3]
            given = given[4]
            if given == 0:
                return
            kind = given[0]
        if kind == 1:
            answer.refusals = {each[0]: refusal_of(each, self._lanes.referenced(each[3])) for each in given[1]}
        elif kind == 2:
            answer.hold, answer.deadline = given[1], moment(given[2])
            self._own.made(answer.hold, answer.deadline, ask, reply.now)
        elif kind == 3:
            answer.reserved, answer.charged, answer.deadline = given[1], given[2], moment(given[3])
            self._own.ended(ask.hold)
        else:
            answer.error = self._error(ask, given, reply)

    def _error(self, ask: Ask, given: list[Any], reply: Reply) -> KikiError:
        if given[1] == "quarantine":
            left = (reply.ready_at - reply.now) / SECOND
            return WindowUnavailable(self._epoch.quarantined(left), retry_after=left)
        return error_of(ask, given, scopes_max=self._bounds.scopes_max, keys_max=self._bounds.keys_max)

    # -- holds ---------------------------------------------------------------------------------------

    def adopt_holds(
        self, holds: Iterable[OpenHold], persons: Mapping[str, str] = NOBODY, *, are_open: bool = False
    ) -> None:
        """Count holds, unless they are counted already, even over a limit. `persons` gives who references stand for.

        Idempotent by hold id; what was resolved or ran out meanwhile stays so, unless every ledger says that they
        `are_open`: then the end of one was never written down. Raises `WindowUnavailable`.
        """
        waiting = []
        for hold in holds:
            names, scopes = self._own.windows_of(hold, persons)
            deadline = -1 if hold.deadline is None else hold.deadline
            waiting.append((hold.id, hold.amount, deadline, hold.made_at, names, scopes, are_open))
        for start in range(0, len(waiting), _ADOPTED_AT_ONCE):
            reply = self._run(Batch(), adopt=waiting[start : start + _ADOPTED_AT_ONCE])
            if "sum" in reply.answers:
                raise InvalidMoney(f"the open reservations sum up to more than {format_micros(SUM_MAX)}")

    def holds(self) -> Iterable[OpenHold]:
        """Every open hold of every process, expired ones excluded."""
        return [self._open_hold(hold_id, hold) for hold_id, hold in self._stored_holds()]

    def own_holds(self) -> list[OpenHold]:
        """The open holds that were made through this process's chain without a key.

        One that the chain's ledger does not know was reserved by a call whose answer was lost, and nobody can
        ask for it again: the owner releases it. With a key the caller may come back for it.
        """
        return [
            self._open_hold(hold_id, hold)
            for hold_id, hold in self._stored_holds()
            if hold.chain == self.chain and not hold.keyed
        ]

    def _stored_holds(self) -> list[tuple[str, StoredHold]]:
        self._prepare()
        self._look()
        return stored_holds(self._link.read("HGETALL", self._keys.holds), self._epoch.server_now())

    def _open_hold(self, hold_id: str, hold: StoredHold) -> OpenHold:
        scopes = tuple(self._lanes.referenced(scope) for scope in hold.scopes)
        return OpenHold(hold_id, hold.amount, scopes, moment(hold.deadline), hold.made_at)

    # -- halts ---------------------------------------------------------------------------------------

    def halt(self, pattern: str, *, on: bool, persons: Mapping[str, str] | None = None) -> None:
        """Turn the kill switch for a scope pattern on or off, for every process.

        `persons` gives the scope of a pattern that names a person, as in an ask. When this raises, a halt is
        not confirmed; it is set again as soon as Redis answers.
        """
        pattern = Pattern.parse(pattern).text
        named = (persons or {}).get(pattern, pattern)
        if on:
            self._own_halts[pattern] = named
        else:
            self._own_halts.pop(pattern, None)
        try:
            self._prepare()
            self._halt(pattern, named, on=on)
        except WindowUnavailable:
            self._epoch.adopt_due = True
            raise

    def _halt(self, pattern: str, named: str, *, on: bool) -> None:
        self._run(Batch(), halt=(self._lanes.shared_pattern(pattern, named), on))

    def halts(self) -> list[str]:
        """The patterns that are halted now, whoever halted them."""
        self._prepare()
        names: list[bytes] = self._link.read("HKEYS", self._keys.halts)
        return sorted(self._lanes.referenced(name.decode()) for name in names)

    # -- looking -------------------------------------------------------------------------------------

    def status(self, budget: str | None = None, scope: str | None = None, limit: int = 1000) -> list[MeterStatus]:
        """What the meters say now: budgets over everything first, those of one scope next, at most `limit`."""
        self._prepare()
        found: list[MeterStatus] = []
        looked: list[tuple[MeterRule, str]] = []
        seen: set[str] = set()
        for rule, name in self._meters(scope):
            if budget is not None and rule.budget != budget:
                continue
            if (window := window_name(rule, name)) not in seen:
                seen.add(window)
                looked.append((rule, name))
            if len(looked) >= limit:
                break
        for start in range(0, len(looked), _LISTED_AT_ONCE):
            part = looked[start : start + _LISTED_AT_ONCE]
            reply = self._look([window_name(rule, name) for rule, name in part])
            for (rule, name), (used, held, room_at) in zip(part, reply.answers, strict=True):
                shown = self._lanes.referenced(name)
                found.append(MeterStatus(rule.budget, shown, rule.limit, rule.span, used, held, moment(room_at)))
        return found

    def _meters(self, scope: str | None) -> Iterator[tuple[MeterRule, str]]:
        if scope is None or scope == "*":
            yield from self._lanes.over_everything()
        if scope == "*":
            return
        if scope is not None:
            yield from self._lanes.of_scope(scope)
            return
        yield from self._lanes.of_named_scopes()
        start = 0
        while self._lanes.has_each:
            # By rank, so a window may be missed when others leave meanwhile: this is a look, not an account.
            stop = start + _LISTED_AT_ONCE - 1
            page: list[bytes] = self._link.read("ZREVRANGE", self._keys.live, start, stop)
            yield from self._lanes.of_windows(raw.decode() for raw in page)
            if len(page) < _LISTED_AT_ONCE:
                return
            start += _LISTED_AT_ONCE

    def _look(self, names: Sequence[str] = ()) -> Reply:
        return self._run(Batch(), look=names)

    # -- the script ----------------------------------------------------------------------------------

    def _run(self, batch: Batch, asks: Sequence[Any] = (), salt: str = "", **parts: Any) -> Reply:
        """One question to the script, under the epoch in force; a failure opens the breaker."""
        try:
            with tracing.child("redis EVALSHA", tracing.Kind.CLIENT, _TRACED_AS):
                return self._epoch.settled(self._link.connection, batch, asks, salt, **parts)
        except WindowUnavailable as error:
            if not isinstance(error, AskAgain):
                self._link.trip(error)
            raise

    def close(self) -> None:
        """Let go of the connection and stop trying."""
        self._link.close()
