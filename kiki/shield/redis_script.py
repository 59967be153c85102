"""What is said to `redis_window.lua` and what it answers: the messages, and the call that carries them.

The script counts in doubles, so a window's sum has a bound (`SUM_MAX`). Spans, moments and sums are integers; -1 stands for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kiki.errors import CapacityReached, CommitExceedsHold, Conflict, HoldUnknown, InvalidMoney, KeyReused, KikiError
from kiki.money import format_micros
from kiki.shield.budget import Reason, Refusal
from kiki.shield.redis_connection import RedisConnection, Refused, ScriptMissing
from kiki.shield.window import Ask, Verb

SUM_MAX = 2**53 - 1
"""The largest sum a window may hold, in micros: the script counts in doubles."""

_SCRIPT = (Path(__file__).parent / "redis_window.lua").read_text(encoding="utf-8")
_SHA = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_CODES = {Verb.CHECK: 1, Verb.SPEND: 2, Verb.RESERVE: 3, Verb.RECORD: 4, Verb.COMMIT: 5, Verb.RELEASE: 6}
_REASONS = {1: Reason.HALTED, 2: Reason.ABOVE_LIMIT, 3: Reason.BUDGET_EXHAUSTED}


class StateKeys(NamedTuple):
    """The keys of the shared state, as the script takes them: one hash tag, so that a cluster keeps them together."""

    meta: str
    live: str
    grave: str
    scopes: str
    holds: str
    deadlines: str
    halts: str
    outcomes: str
    outcomes_before: str

    @classmethod
    def under(cls, prefix: str) -> StateKeys:
        """The keys of one shared window."""
        names = ("meta", "live", "grave", "scopes", "holds", "deadlines", "halts", "keys:1", "keys:2")
        return cls(*(f"{{{prefix}}}:{name}" for name in names))

    @property
    def window_prefix(self) -> str:
        """With which the key of every window begins."""
        return self.meta.removesuffix("meta") + "w:"


class Call(msgspec.Struct):
    """What the script is handed."""

    known: str
    mine: int
    known_at: int
    outdated: bool
    loopback: bool
    distrust: bool
    ceiling: int
    fresh: str
    salt: str
    chain: str
    now: int
    slots: int
    span_max: int
    scopes_max: int
    keys_max: int
    retention: int
    windows: list[tuple[str, int]]
    lanes: list[tuple[list[int], Sequence[str]]]
    asks: Sequence[Any] = ()
    adopt: Sequence[Any] = ()
    look: Sequence[str] = ()
    halt: Sequence[Any] = ()
    renew: str = ""
    restore: Sequence[Any] = ()
    lift: int = 0


class Reply(msgspec.Struct, array_like=True):
    """What the script answers."""

    status: str
    now: int
    epoch: str
    sequence: int
    ready_at: int
    salt: str
    why: str
    halts: int
    answers: list[Any]
    authority: int = 0
    """The authority's number of this epoch, once it was counted from the ledgers; 0 before."""


class StoredHold(msgspec.Struct, array_like=True):
    """A hold as it stands in Redis."""

    amount: int
    deadline: int
    made_at: int
    chain: str
    windows: list[str]
    scopes: list[str]
    keyed: bool = False


class Lane(NamedTuple):
    """Where a spend with certain scopes is counted."""

    windows: tuple[tuple[str, int], ...]
    """Name and limit of every window."""
    scopes: tuple[str, ...]


class Batch:
    """The windows and lanes of one call, each once."""

    def __init__(self) -> None:
        self.windows: list[tuple[str, int]] = []
        self.lanes: list[tuple[list[int], Sequence[str]]] = []
        self._places: dict[str, int] = {}
        self._lanes: dict[Lane, int] = {}

    def place(self, lane: Lane) -> int:
        """The lane's number in this call."""
        found = self._lanes.get(lane)
        if found is None:
            places = []
            for window in lane.windows:
                place = self._places.setdefault(window[0], len(self.windows))
                if place == len(self.windows):
                    self.windows.append(window)
                places.append(place)
            found = self._lanes[lane] = len(self.lanes)
            self.lanes.append((places, lane.scopes))
        return found


def evaluate(connection: RedisConnection, call: Call, keys: StateKeys) -> Reply:
    """Run the script, which is loaded where Redis does not have it yet."""
    prefix = keys.window_prefix
    windows = [prefix + name for name, _ in call.windows]
    arguments = (len(keys) + len(windows), *keys, *windows, _encode(call), prefix)
    try:
        answer = connection.call("EVALSHA", _SHA, *arguments)
    except ScriptMissing:
        connection.call("SCRIPT", "LOAD", _SCRIPT)
        try:
            answer = connection.call("EVALSHA", _SHA, *arguments)
        except ScriptMissing as error:
            raise Refused(f"Redis at {connection.name} does not keep scripts") from error
    return _decode(answer)


def encoded(ask: Ask, lanes: Sequence[Lane], batch: Batch, key: str = "", request: str = "") -> Any:
    """An ask as the script reads it; `lanes` are of its scopes, in order. Raises `InvalidMoney`.

    `key` and `request` stand for those of the ask and say nothing of them; empty without a key.
    """
    verb = ask.verb
    places: int | list[int] = batch.place(lanes[0]) if len(lanes) == 1 else [batch.place(lane) for lane in lanes]
    if verb is Verb.SPEND or verb is Verb.CHECK:
        amounts: int | list[int] = ask.amounts[0] if len(ask.amounts) == 1 else ask.amounts
        if len(ask.amounts) == 1 and isinstance(places, list):
            places = places[0]
        return (_CODES[verb], places, amounts, key, request) if key else (_CODES[verb], places, amounts)
    amount = ask.amounts[0]
    if amount > SUM_MAX and verb is not Verb.COMMIT and not (verb is Verb.RESERVE and lanes[0].windows):
        raise InvalidMoney(
            f"{format_micros(amount)} is more than {format_micros(SUM_MAX)}, the most that a shared window counts"
        )
    span = -1 if ask.hold_span is None else ask.hold_span
    return (_CODES[verb], places, min(amount, SUM_MAX + 1), key, request, ask.hold, span)


def refusal_of(given: Sequence[Any], scope: str) -> Refusal:
    """Why an amount was refused, of a scope under the name that is shown."""
    _, reason, budget, _, span, limit, remaining, retry_at = given
    if reason == 1:
        return Refusal(Reason.HALTED, scope=scope)
    return Refusal(_REASONS[reason], budget, scope, span, limit, remaining, moment(retry_at))


def error_of(ask: Ask, given: Sequence[Any], *, scopes_max: int, keys_max: int) -> KikiError:
    """Why an ask could not be decided, but for a quarantine, which the window knows more of."""
    match given[1]:
        case "scopes":
            return CapacityReached(
                f"KIKI_SCOPES_MAX allows {scopes_max} live scopes, and they are there: "
                "new scopes are refused, known ones go on",
                hint="raise KIKI_SCOPES_MAX, or use fewer or shorter budgets of the form kind:*",
            )
        case "keys":
            return CapacityReached(
                f"KIKI_KEYS_MAX allows {keys_max} idempotency keys in Redis, and they are there: "
                "new keys are refused, known ones are answered, and calls without a key go on",
                hint="raise KIKI_KEYS_MAX, or send fewer keyed calls per retention",
            )
        case "sum":
            return Conflict(
                f"{format_micros(ask.amounts[0])} would take what is counted for {given[2]!r} past "
                f"{format_micros(SUM_MAX)}, the largest sum that a shared window keeps"
            )
        case "key_reused":
            return KeyReused(
                "this idempotency key was already used for a different request",
                hint="send the first request again unchanged, or use a new key",
            )
        case "hold_exceeded":
            return CommitExceedsHold(
                f"{format_micros(ask.amounts[0])} is more than the {format_micros(given[2])} that was reserved",
                hint="commit at most what was reserved, and record what went beyond it",
            )
        case "hold_exists":
            return Conflict(f"there is an open reservation with the id {ask.hold!r} already")
        case _:
            return HoldUnknown(f"no open reservation has the id {ask.hold!r}")


def moment(given: int) -> int | None:
    """A moment as the script writes it; None for -1."""
    return None if given < 0 else given


def stored_holds(flat: Sequence[bytes], now: int) -> list[tuple[str, StoredHold]]:
    """The holds of a hash that are still open, the oldest first."""
    found = []
    for hold_id, packed in zip(flat[::2], flat[1::2], strict=True):
        hold = _decode_hold(packed)
        if hold.deadline < 0 or hold.deadline > now:
            found.append((hold_id.decode(), hold))
    return sorted(found, key=lambda each: (each[1].made_at, each[0]))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reply).decode
_decode_hold = msgspec.msgpack.Decoder(StoredHold).decode
