"""What a process must remember of the holds that it made in shared windows, to count them again where Redis forgot them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kiki.shield.redis_lanes import RedisLanes, is_personal
from kiki.shield.redis_script import StoredHold, moment
from kiki.shield.window import Ask, OpenHold

_LOOKED_THROUGH_EVERY = 10_000


class _Own(msgspec.Struct):
    deadline: int | None
    secret: str
    windows: Sequence[str]
    scopes: Sequence[str]
    persons: Mapping[str, str] | None
    """None: made by an earlier run of this process, which knew who it was."""


class OwnHolds:
    """The holds of this process by their ids, with the windows that count them."""

    def __init__(self, lanes: RedisLanes) -> None:
        self._lanes = lanes
        self._holds: dict[str, _Own] = {}

    def made(self, hold_id: str, deadline: int | None, ask: Ask, now: int) -> None:
        """Remember a hold that was made just now."""
        lane = self._lanes.lane(ask.scopes[0], ask.persons)
        names = [name for name, _ in lane.windows]
        self._holds[hold_id] = _Own(deadline, self._lanes.secret, names, lane.scopes, ask.persons)
        if len(self._holds) % _LOOKED_THROUGH_EVERY == 0:
            self._holds = {hold: own for hold, own in self._holds.items() if own.deadline is None or own.deadline > now}

    def found(self, hold_id: str, hold: StoredHold) -> None:
        """Remember a hold that an earlier run of this process made."""
        self._holds[hold_id] = _Own(moment(hold.deadline), self._lanes.secret, hold.windows, hold.scopes, None)

    def ended(self, hold_id: str) -> None:
        """Forget a hold that was resolved."""
        self._holds.pop(hold_id, None)

    def windows_of(self, hold: OpenHold, persons: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """The windows that count a hold of whomever, and its scopes, under the names that hold now.

        `persons` gives who its references stand for, where that is known from elsewhere.
        """
        own = self._holds.get(hold.id)
        if persons or own is None or own.persons is not None or own.secret != self._lanes.secret:
            lane = self._lanes.lane(hold.scopes, persons or (own and own.persons) or {})
            return [name for name, _ in lane.windows], list(lane.scopes)
        # Made by an earlier run: its persons are known by the names that Redis had for them.
        lane = self._lanes.lane(tuple(scope for scope in hold.scopes if not is_personal(scope)), {})
        return list(dict.fromkeys([*own.windows, *(name for name, _ in lane.windows)])), list(own.scopes)
