"""Budgets counted in a Redis that many processes share: one script call for each batch of asks.

`redis_window.lua` decides, by the server's clock, atomically over every budget of the batch; this file speaks
to it, and holds what a process must know to distrust a Redis that lost something. The state, the steps and why
no failure admits too much are in docs/design/redis-window.md.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec

from kiki import tracing
from kiki.clock import SECOND, Clock, steady_clock
from kiki.errors import InvalidMoney, KikiError, WindowUnavailable
from kiki.money import format_micros
from kiki.shield.budget import SLOTS, MeterRule, Reason, Refusal
from kiki.shield.policy import Policy
from kiki.shield.redis_connection import Address, NotReached, OutcomeUnknown, RedisConnection, Refused
from kiki.shield.redis_lanes import RedisLanes, is_personal, window_name
from kiki.shield.redis_script import (
    SUM_MAX,
    Batch,
    Call,
    Reply,
    StoredHold,
    encoded,
    error_of,
    evaluate,
    moment,
    refusal_of,
    stored_holds,
)
from kiki.shield.scope import Pattern
from kiki.shield.window import Answer, Ask, MeterStatus, OpenHold, Verb
from kiki.shield.window_rebuild import NOBODY, EpochAuthority

_TRACED_AS = {"db.system.name": "redis", "db.operation.name": "EVALSHA"}

DAY = 24 * 3600 * SECOND

_ADMITTING = frozenset({Verb.CHECK, Verb.SPEND, Verb.RESERVE})
_WHY = {
    "new": "the shared budget windows were set up just now, and what was spent before cannot be known",
    "emptied": "Redis lost the shared budget windows",
    "older": "Redis came back with an older copy of the shared budget windows",
    "damaged": "a part of the shared budget windows is gone from Redis",
    "clock": "the clock of Redis jumped",
    "replaced": "another process set up new shared budget windows while this one still had spends in the old ones",
    "rebuilding": "the shared budget windows are being counted anew from the ledgers",
}

# How far the server's clock may run ahead of ours, at once and for each microsecond that passed.
_AHEAD_MAX = SECOND // 2
_DRIFT = 1000

_ROUNDS_MAX = 6
_ADOPTED_AT_ONCE = 500
_RESTORED_AT_ONCE = 50
_LISTED_AT_ONCE = 1000
_DELAY_FIRST = 0.2
_DELAY_MAX = 2.0


class KnownEpoch(NamedTuple):
    """What a process remembers of the shared window from its own ledger."""

    epoch: str
    sequence: int
    """The highest that it was answered in that epoch."""
    at: int = 0
    """The window's time of that answer; 0: not known. An epoch that was over before all windows is no loss."""


class _Own(msgspec.Struct):
    """What is needed to count a hold of this process again when Redis forgot it."""

    deadline: int | None
    salt: str
    windows: Sequence[str]
    scopes: Sequence[str]
    persons: Mapping[str, str] | None
    """None: made by an earlier run of this process, which knew who it was."""


class RedisWindow:
    """The window of many processes. One caller at a time; a thread of its own brings a lost Redis back.

    Made without I/O: `connect` is the usual way. `chain` names this process's ledger and stays the same over
    restarts. With an `authority`, a lost state is counted anew from every ledger instead of waited out. `on_new_epoch` is called from within `take`, before anything is decided in an epoch that is new
    to this process, and returns the holds that this process has open; they are counted again if need be.
    `clock` replaces the server's TIME in tests. Raises `PolicyError` for limits that it cannot count.
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
        on_new_epoch: Callable[[], Iterable[OpenHold]] | None = None,
        clock: Clock | None = None,
        authority: EpochAuthority | None = None,
    ) -> None:
        self.address = address
        self.chain = chain
        self.timeout = timeout
        self.scopes_max = scopes_max
        self.keys_max = keys_max
        self.key_retention = key_retention
        self._on_new_epoch = on_new_epoch
        self._clock = clock
        self.authority = authority
        self._number = 0
        self._taken_in = 0
        self._rebuild_at = 0
        self._rebuilding = False
        self._local = local_clock or steady_clock()
        tag = "{" + prefix + "}:"
        names = ("meta", "live", "grave", "scopes", "holds", "deadlines", "halts", "keys:1", "keys:2")
        self._keys = [tag + name for name in names]
        self._holds_key = tag + "holds"
        self._halts_key = tag + "halts"
        self._live_key = tag + "live"
        self._window_prefix = tag + "w:"
        # What is known of the epoch in force.
        self._known = known.epoch if known else ""
        self._mine = known.sequence if known else 0
        self._known_at = known.at if known else 0
        self._salt = secrets.token_hex(32)
        self._lanes = RedisLanes(policy, self._salt)
        self._ready_at = 0
        self._why = ""
        self._anchor: tuple[int, int] | None = None
        """A local moment, and the latest that the server's clock can have shown then."""
        self._is_met = False
        self._adopt_due = True
        self._own: dict[str, _Own] = {}
        self._own_halts: dict[str, str] = {}
        # The circuit breaker: while `_down` says why, nobody waits for Redis.
        self._down: WindowUnavailable | None = NotReached(f"there is no connection to Redis at {self._hosts()} yet")
        self._evicting: WindowUnavailable | None = None
        self._connection: RedisConnection | None = None
        self._mending = False
        self._mending_lock = threading.Lock()
        self._closed = threading.Event()

    @classmethod
    def connect(cls, policy: Policy, address: Address, **options: Any) -> Self:
        """A window that has met its Redis, or goes on trying to in the background.

        Raises `WindowUnavailable` when nothing answers at a loopback address: the caller falls back to a
        `LocalWindow`. A Redis that answers and refuses (no password, still loading) is no reason to fall back.
        """
        window = cls(policy, address, **options)
        try:
            window._meet()
        except WindowUnavailable as error:
            if address.is_loopback and not isinstance(error, Refused):
                window.close()
                raise
            window._trip(error)
        return window

    def _hosts(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.address.hosts)

    # -- what the guard may know ---------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """The life of the shared windows that this process counts in; empty before it met one."""
        return self._known

    @property
    def sequence(self) -> int:
        """The highest sequence that this process was answered in that epoch."""
        return self._mine

    @property
    def under_epoch(self) -> tuple[str, int] | None:
        """The epoch in which `take` answered last: what its decisions are written down under."""
        return None if self.authority is None else (self.authority.window, self._taken_in)

    @property
    def on_new_epoch(self) -> Callable[[], Iterable[OpenHold]] | None:
        """What tells the holds that this process has open; called before the next decision when it is set."""
        return self._on_new_epoch

    @on_new_epoch.setter
    def on_new_epoch(self, tell: Callable[[], Iterable[OpenHold]] | None) -> None:
        self._on_new_epoch = tell
        self._adopt_due = True

    @property
    def policy(self) -> Policy:
        """What is decided by."""
        return self._lanes.policy

    def ready(self) -> str | None:
        """None when a spend can be decided, else why not, in a sentence."""
        if self._down is not None:
            return str(self._down)
        if self._evicting is not None:
            return str(self._evicting)
        left = self._quarantine_left()
        if left > 0:
            return f"{self._reason()}; nothing is admitted for {left:.1f} s, until the longest window has passed"
        return None

    def _quarantine_left(self) -> float:
        if not self._ready_at or self._anchor is None:
            return 0.0
        local, server = self._anchor
        now = self._clock() if self._clock else server + self._local() - local
        return max(0.0, (self._ready_at - now) / SECOND)

    def _reason(self) -> str:
        return _WHY.get(self._why, "the shared budget windows cannot be trusted yet")

    # -- policy --------------------------------------------------------------------------------------

    def use(self, policy: Policy) -> None:
        """Decide by this policy from now on. A window that no process counted before begins empty."""
        self._lanes.use(policy)
        # Holds are counted on windows that the new policy brings, too.
        self._adopt_due = True

    # -- deciding ------------------------------------------------------------------------------------

    def take(self, asks: Sequence[Ask]) -> list[Answer]:
        """Decide the asks in order, in one script call.

        Raises `WindowUnavailable` when certainly nothing was decided. When Redis may have decided without our
        learning it, spends and reservations are answered OUTCOME_UNKNOWN and the rest with the error.
        """
        try:
            return self._take(asks)
        except _AskAgain:
            # A new life of the shared windows has a new secret: nothing was decided, so hash again.
            return self._take(asks)

    def _take(self, asks: Sequence[Ask]) -> list[Answer]:
        self._prepare()
        self._lanes.forget_many()
        batch = Batch()
        answers: list[Answer | None] = [None] * len(asks)
        sent: list[int] = []
        encoded: list[Any] = []
        closed = self._evicting
        for index, ask in enumerate(asks):
            if closed is not None and ask.verb in _ADMITTING:
                answers[index] = Answer(epoch=self._known, error=closed)
                continue
            try:
                encoded.append(self._encoded(ask, batch))
            except KikiError as error:
                answers[index] = Answer(epoch=self._known, error=error)
                continue
            sent.append(index)
        if sent:
            salt = self._salt
            try:
                reply = self._run(batch, encoded, salt)
            except OutcomeUnknown as error:
                for index in sent:
                    answers[index] = self._unknown(asks[index], error)
            else:
                self._taken_in = reply.authority
                self._decoded(asks, sent, reply, answers)
        return [answer for answer in answers if answer is not None]

    def _prepare(self) -> None:
        """Fail at once while Redis is away; else see to it that the epoch in force knows our holds and halts."""
        if self._down is not None:
            raise self._down
        connection = self._connection
        if connection is None or connection.is_stale():
            # Hung up while idle, a restart perhaps: nothing was sent, so meeting it anew loses nothing.
            try:
                self._meet()
            except WindowUnavailable as error:
                self._trip(error)
                raise
        if self._adopt_due:
            self._bring_back()
        if self.authority is not None and not self._rebuilding and (not self._number or self._quarantine_left() > 0):
            self._rebuild(self.authority)

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
                if self._number and self._quarantine_left() <= 0:
                    return  # another process did it just now
                number = authority.raise_epoch()
                self._run(Batch(), renew=self._known)
                epoch = self._known
                past = authority.past(self._server_now(), self.policy)
                self.adopt_holds(past.holds, past.persons, are_open=True)
                for pattern in past.halts:
                    named = past.persons.get(pattern, pattern)
                    self._run(Batch(), halt=(self._lanes.shared_pattern(pattern, named), True))
                windows = self._lanes.counted(past)
                for start in range(0, len(windows), _RESTORED_AT_ONCE):
                    self._run(Batch(), restore=windows[start : start + _RESTORED_AT_ONCE])
                if self._known != epoch:
                    raise WindowUnavailable(f"{self._reason()}; it begins again", retry_after=1.0)
                self._run(Batch(), lift=number)
        except OutcomeUnknown as error:
            raise NotReached(str(error), retry_after=error.retry_after) from error
        finally:
            self._rebuilding = False

    def _bring_back(self) -> None:
        try:
            for pattern, named in list(self._own_halts.items()):
                self._run(Batch(), halt=(self._lanes.shared_pattern(pattern, named), True))
            self._adopt_due = False
            if self._on_new_epoch is not None:
                self.adopt_holds(self._on_new_epoch())
        except OutcomeUnknown as error:
            self._adopt_due = True
            raise NotReached(str(error), retry_after=error.retry_after) from error
        except InvalidMoney as error:
            self._adopt_due = True
            raise WindowUnavailable(str(error)) from error
        except BaseException:
            self._adopt_due = True
            raise

    def _encoded(self, ask: Ask, batch: Batch) -> Any:
        lanes = [self._lanes.lane(scopes, ask.persons) for scopes in ask.scopes]
        if not ask.key:
            return encoded(ask, lanes, batch)
        return encoded(ask, lanes, batch, self._lanes.digest(ask.key.encode()), self._lanes.digest(ask.request))

    def _unknown(self, ask: Ask, error: WindowUnavailable) -> Answer:
        answer = Answer(at=self._server_now(), epoch=self._known)
        if ask.verb in (Verb.SPEND, Verb.RESERVE):
            answer.refusals = dict.fromkeys(range(len(ask.amounts)), Refusal(Reason.OUTCOME_UNKNOWN))
        else:
            answer.error = error
        return answer

    def _server_now(self) -> int:
        if self._clock is not None:
            return self._clock()
        if self._anchor is None:
            return self._local()
        return self._anchor[1] + self._local() - self._anchor[0]

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
            lane = self._lanes.lane(ask.scopes[0], ask.persons)
            names = [name for name, _ in lane.windows]
            self._own[answer.hold] = _Own(answer.deadline, self._salt, names, lane.scopes, ask.persons)
            self._forget_expired(reply.now)
        elif kind == 3:
            answer.reserved, answer.charged, answer.deadline = given[1], given[2], moment(given[3])
            self._own.pop(ask.hold, None)
        else:
            answer.error = self._error(ask, given, reply)

    def _forget_expired(self, now: int) -> None:
        if len(self._own) % 10_000 == 0:
            self._own = {hold: own for hold, own in self._own.items() if own.deadline is None or own.deadline > now}

    def _error(self, ask: Ask, given: list[Any], reply: Reply) -> KikiError:
        if given[1] == "quarantine":
            left = (reply.ready_at - reply.now) / SECOND
            return WindowUnavailable(
                f"{self._reason()}; nothing is admitted for {left:.1f} s, until the longest window has passed",
                retry_after=left,
            )
        return error_of(ask, given, scopes_max=self.scopes_max, keys_max=self.keys_max)

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
            names, scopes = self._windows_of(hold, persons)
            deadline = -1 if hold.deadline is None else hold.deadline
            waiting.append((hold.id, hold.amount, deadline, hold.made_at, names, scopes, are_open))
        for start in range(0, len(waiting), _ADOPTED_AT_ONCE):
            reply = self._run(Batch(), adopt=waiting[start : start + _ADOPTED_AT_ONCE])
            if "sum" in reply.answers:
                raise InvalidMoney(f"the open reservations sum up to more than {format_micros(SUM_MAX)}")

    def _windows_of(self, hold: OpenHold, persons: Mapping[str, str]) -> tuple[list[str], list[str]]:
        own = self._own.get(hold.id)
        if persons:
            lane = self._lanes.lane(hold.scopes, persons)
            return [name for name, _ in lane.windows], list(lane.scopes)
        if own is None or own.persons is not None or own.salt != self._salt:
            lane = self._lanes.lane(hold.scopes, (own and own.persons) or {})
            return [name for name, _ in lane.windows], list(lane.scopes)
        # Made by an earlier run: its persons are known by the names that Redis had for them.
        lane = self._lanes.lane(tuple(scope for scope in hold.scopes if not is_personal(scope)), {})
        return list(dict.fromkeys([*own.windows, *(name for name, _ in lane.windows)])), list(own.scopes)

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
        flat = self._plain(self._connected(), "HGETALL", self._holds_key)
        return stored_holds(flat, self._server_now())

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
            self._run(Batch(), halt=(self._lanes.shared_pattern(pattern, named), on))
        except WindowUnavailable:
            self._adopt_due = True
            raise

    def halts(self) -> list[str]:
        """The patterns that are halted now, whoever halted them."""
        self._prepare()
        names: list[bytes] = self._plain(self._connected(), "HKEYS", self._halts_key)
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
            page: list[bytes] = self._plain(self._connected(), "ZREVRANGE", self._live_key, start, stop)
            yield from self._lanes.of_windows(raw.decode() for raw in page)
            if len(page) < _LISTED_AT_ONCE:
                return
            start += _LISTED_AT_ONCE

    def _look(self, names: Sequence[str] = ()) -> Reply:
        return self._run(Batch(), look=names)

    # -- the script ----------------------------------------------------------------------------------

    def _run(self, batch: Batch, asks: Sequence[Any] = (), salt: str = "", **parts: Any) -> Reply:
        """One script call that decides, and a further one for each time that it says it could not yet.

        `salt` is what the asks were encoded with: when another one came into force, they must be asked anew.
        """
        try:
            with tracing.child("redis EVALSHA", tracing.Kind.CLIENT, _TRACED_AS):
                return self._settled(self._connected(), batch, asks, salt, **parts)
        except WindowUnavailable as error:
            if not isinstance(error, _AskAgain):
                self._trip(error)
            raise

    def _settled(
        self, connection: RedisConnection, batch: Batch, asks: Sequence[Any] = (), salt: str = "", **parts: Any
    ) -> Reply:
        distrust = False
        for _ in range(_ROUNDS_MAX):
            asked_at = self._local()
            reply = self._call(connection, batch, asks, distrust=distrust, **parts)
            if reply.status == "ahead":
                # A call that was held up on its way looks the same to the script; here the two differ.
                ceiling = self._ceiling(self._local())
                distrust = ceiling is not None and reply.now > ceiling
                continue
            distrust = False
            if reply.status == "moved":
                self._anchor = None
                self._note(reply, asked_at)
                if asks:
                    # What we hold open is counted in the new epoch before anything of ours is admitted there.
                    self._bring_back()
                    if reply.salt != salt:
                        raise _AskAgain(f"{self._reason()}; ask again", retry_after=0.0)
                continue
            self._note(reply, asked_at)
            self._mine = reply.sequence
            return reply
        raise WindowUnavailable(
            f"the shared budget windows at {self._hosts()} keep changing", hint="look for two Redis servers behind it"
        )

    def _call(
        self,
        connection: RedisConnection,
        batch: Batch,
        asks: Sequence[Any],
        *,
        distrust: bool,
        adopt: Sequence[Any] = (),
        look: Sequence[str] = (),
        halt: Sequence[Any] = (),
        renew: str = "",
        restore: Sequence[Any] = (),
        lift: int = 0,
    ) -> Reply:
        local = self._local()
        ceiling = self._ceiling(local)
        span_max = self.policy.span_max
        call = Call(
            known=self._known,
            mine=self._mine,
            known_at=self._known_at,
            outdated=not self._is_met and 0 < self._known_at < local - span_max,
            loopback=self.address.is_loopback,
            distrust=distrust,
            ceiling=-1 if ceiling is None or distrust else ceiling,
            # Never the same twice: a lost reply may hide that it was used.
            fresh=secrets.token_hex(8),
            salt=self._salt,
            chain=self.chain,
            now=-1 if self._clock is None else self._clock(),
            slots=SLOTS,
            span_max=span_max,
            scopes_max=self.scopes_max,
            keys_max=self.keys_max,
            retention=max(self.key_retention, span_max),
            windows=batch.windows,
            lanes=batch.lanes,
            asks=asks,
            adopt=adopt,
            look=look,
            halt=halt,
            renew=renew,
            restore=restore,
            lift=lift,
        )
        return evaluate(connection, call, self._keys, self._window_prefix)

    def _note(self, reply: Reply, asked_at: int) -> None:
        """Remember what a reply says about the epoch and the clock."""
        if reply.epoch != self._known:
            self._known, self._mine, self._adopt_due = reply.epoch, 0, True
        self._is_met = True
        if reply.salt != self._salt:
            self._salt = reply.salt
            self._lanes.share(reply.salt)
        self._ready_at, self._why, self._number = reply.ready_at, reply.why, reply.authority
        # The anchor only ever gets tighter, so that a clock cannot creep ahead unseen.
        ceiling = self._ceiling(asked_at)
        if ceiling is None or reply.now < ceiling - _AHEAD_MAX:
            self._anchor = (asked_at, reply.now)

    def _ceiling(self, local: int) -> int | None:
        """The latest that the server's clock may show at the local moment; None before the first contact."""
        if self._anchor is None:
            return None
        since, server = self._anchor
        elapsed = max(0, local - since)
        return server + elapsed + elapsed // _DRIFT + _AHEAD_MAX

    # -- the connection ------------------------------------------------------------------------------

    def _connected(self) -> RedisConnection:
        if self._connection is None:
            raise self._down or NotReached(f"there is no connection to Redis at {self._hosts()}")
        return self._connection

    def _plain(self, connection: RedisConnection, *arguments: Any) -> Any:
        """A command that only reads."""
        try:
            return connection.call(*arguments)
        except WindowUnavailable as error:
            self._trip(error)
            raise

    def _meet(self) -> None:
        """Connect, look at the eviction policy, and settle with the script which epoch is in force."""
        connection = RedisConnection(self.address, self.timeout)
        try:
            connection.open(self._keys[0])
            evicting = _eviction(connection)
            was_met = self._is_met
            self._settled(connection, Batch())
            if not was_met:
                flat = connection.call("HGETALL", self._holds_key)
                for hold_id, hold in stored_holds(flat, self._server_now()):
                    if hold.chain == self.chain:
                        self._own[hold_id] = _Own(moment(hold.deadline), self._salt, hold.windows, hold.scopes, None)
        except OutcomeUnknown as error:
            connection.close()
            raise NotReached(str(error), retry_after=error.retry_after) from error
        except BaseException:
            connection.close()
            raise
        if self._closed.is_set():
            connection.close()
            raise NotReached("the shared window was closed")
        if self._connection is not None:
            self._connection.close()
        self._connection = connection
        self._evicting = evicting
        self._down = None
        if evicting is not None:
            self._mend_later()

    def _trip(self, error: WindowUnavailable) -> None:
        """Open the breaker: nobody waits for Redis until the thread in the background has met it again."""
        self._down = NotReached(str(error), retry_after=error.retry_after or _DELAY_MAX, hint=error.hint)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._mend_later()

    def _mend_later(self) -> None:
        with self._mending_lock:
            if not self._mending and not self._closed.is_set():
                self._mending = True
                threading.Thread(target=self._mend, name="kiki-redis", daemon=True).start()

    def _mend(self) -> None:
        delay = _DELAY_FIRST
        while not self._closed.wait(delay * random.uniform(0.75, 1.25)):
            try:
                if self._down is not None:
                    self._meet()
                elif self._evicting is not None:
                    self._evicting = self._eviction_now()
            except WindowUnavailable as error:
                if self._down is not None:
                    self._down = NotReached(str(error), retry_after=error.retry_after or delay, hint=error.hint)
            with self._mending_lock:
                if self._down is None and self._evicting is None:
                    self._mending = False
                    return
            delay = min(_DELAY_MAX, delay * 2)

    def _eviction_now(self) -> WindowUnavailable | None:
        connection = RedisConnection(self.address, self.timeout)
        try:
            connection.open(self._keys[0])
            return _eviction(connection)
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the connection and stop trying."""
        self._closed.set()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._down = NotReached("the shared window was closed")


class _AskAgain(WindowUnavailable):
    """The epoch changed while a batch was under way; nothing of it was decided."""


def _eviction(connection: RedisConnection) -> WindowUnavailable | None:
    """Why this Redis must not hold budgets: it would drop them when its memory is full. Read from INFO, never CONFIG."""
    info: bytes = connection.call("INFO", "memory")
    for line in info.decode(errors="replace").splitlines():
        name, _, policy = line.partition(":")
        if name == "maxmemory_policy" and policy.strip().startswith("allkeys-"):
            return WindowUnavailable(
                f"Redis at {connection.name} has the eviction policy {policy.strip()} and may drop budgets, "
                "so nothing is admitted",
                hint="set maxmemory-policy noeviction (volatile-* will do as well)",
                retry_after=_DELAY_MAX,
            )
    return None
