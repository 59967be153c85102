"""The log of messages: every one is durable before it is sent, and each person, playbook and step has at most one.

    reserved ──► sending ──► done
       │            ├──────► refused
       │            └──────► unknown ──► done | refused      by the provider's word, or by looking there
       └──► dropped

`reserved` counts against the caps from its first moment. Whoever takes it to `sending` looks at suppression in the same
transaction, so an opt-out that was acknowledged before is always seen. What is found in `sending` after its owner is
gone may have been sent: it becomes `unknown`, keeps its money, and is never sent again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from kiki.clock import Clock, wall_micros
from kiki.engage.database import Database, Row, Statements, read_in
from kiki.engage.event import Delivery, DeliveryState
from kiki.outbound.outcome import Fate, Outcome


class State(StrEnum):
    """Where a message is in its life."""

    RESERVED = "reserved"
    """Decided and counted; nothing was sent."""
    SENDING = "sending"
    """Handed to the channel by somebody who has not said yet what became of it."""
    DONE = "done"
    """The provider took it."""
    REFUSED = "refused"
    """It was certainly not taken, or it did not arrive."""
    UNKNOWN = "unknown"
    """It may have been sent; it waits for the provider's word."""
    DROPPED = "dropped"
    """A last look before sending said no."""


COUNTED: Final = (State.RESERVED, State.SENDING, State.DONE, State.UNKNOWN)
"""These count against caps."""
_COUNTED: Final = ", ".join(f"'{state}'" for state in COUNTED)
FATES: Final = {Fate.DONE: State.DONE, Fate.REFUSED: State.REFUSED, Fate.UNKNOWN: State.UNKNOWN}
_COLUMNS: Final = (
    *("action", "dedup", "playbook", "step", "person", "channel", "offer", "state", "reason", "cost", "propensity"),
    *("decided_at", "counted_at", "taken_at", "taken_by", "ended_at", "hold", "settled", "provider_id", "delivery"),
)
_READ: Final = ", ".join(_COLUMNS)


class Action(NamedTuple):
    """One message, as the log has it."""

    action: str
    dedup: str
    playbook: str
    step: str
    person: str
    channel: str
    offer: str
    state: State
    reason: str
    cost: int
    propensity: float
    decided_at: int
    counted_at: int
    taken_at: int | None
    taken_by: str
    ended_at: int | None
    hold: str
    settled: bool
    provider_id: str
    delivery: str


class Limit(NamedTuple):
    """A cap for one person, as it is counted in the same transaction that reserves."""

    messages: int
    since: int
    channel: str = ""


class Wanted(NamedTuple):
    """A message that a place is asked for."""

    playbook: str
    step: str
    person: str
    channel: str
    offer: str
    cost: int
    dedup: str
    limits: Sequence[Limit] = ()
    propensity: float = 1.0


class Claim(NamedTuple):
    """A message that somebody is about to send."""

    action: str
    hold: str
    """The reservation of its money. What is killed before the claim has one under the action's key, too."""
    may: Callable[[Statements], bool] | None = None
    """The last look at suppression, in the transaction of the claim."""


class ActionLog:
    """Thread-safe."""

    def __init__(self, database: Database, clock: Clock = wall_micros) -> None:
        """`database` holds the tables already: `CustomerStore` makes them."""
        self.database = database
        self.clock = clock

    # -- reserving -----------------------------------------------------------------------------------

    def reserve(self, *wanted: Wanted) -> list[Action | None]:
        """A place for each of these messages, in one commit; the same one again for the same `dedup`.

        None for who has reached a cap, counted in the same transaction.
        """
        with self.database.writing() as tx:
            return [self._reserve(tx, each) for each in wanted]

    def _reserve(self, tx: Statements, wanted: Wanted) -> Action | None:
        now = self.clock()
        known = tx.run(f"SELECT {_READ} FROM engage_actions WHERE dedup = ?", (wanted.dedup,))  # noqa: S608
        if known:
            return action_of(known[0])
        if self.database.is_shared:
            # Two workers that count the same person's messages take turns.
            tx.run("SELECT person FROM engage_profiles WHERE person = ? FOR UPDATE", (wanted.person,))
        own = [limit for limit in wanted.limits if limit.channel in {"", wanted.channel}]
        if any(self._is_reached(tx, wanted.person, limit) for limit in own):
            return None
        values = (
            *(secrets.token_hex(16), wanted.dedup, wanted.playbook, wanted.step, wanted.person, wanted.channel),
            *(
                wanted.offer,
                State.RESERVED,
                "",
                wanted.cost,
                wanted.propensity,
                now,
                now,
                None,
                "",
                None,
                "",
                0,
                "",
                "",
            ),
        )
        marks = ", ".join("?" * len(_COLUMNS))
        made = tx.run(
            f"INSERT INTO engage_actions ({_READ}) VALUES ({marks}) "  # noqa: S608
            f"ON CONFLICT (dedup) DO NOTHING RETURNING {_READ}",
            values,
        )
        if not made:  # another worker was first, after we looked
            made = tx.run(f"SELECT {_READ} FROM engage_actions WHERE dedup = ?", (wanted.dedup,))  # noqa: S608
        return action_of(made[0])

    @staticmethod
    def _is_reached(tx: Statements, person: str, limit: Limit) -> bool:
        counted = tx.run(
            f"SELECT count(*) FROM engage_actions WHERE person = ? AND counted_at >= ? "  # noqa: S608
            f"AND state IN ({_COUNTED}) AND (? = '' OR channel = ?)",
            (person, limit.since, limit.channel, limit.channel),
        )
        return int(counted[0][0]) >= limit.messages

    def take(self, worker: str, *claims: Claim) -> set[str]:
        """Take messages to `sending`, in one commit: those that nobody else has, and whose last look says yes."""
        with self.database.writing() as tx:
            return {claim.action for claim in claims if self._take(tx, worker, claim)}

    def _take(self, tx: Statements, worker: str, claim: Claim) -> bool:
        rows = tx.run(
            f"SELECT person FROM engage_actions WHERE action = ? AND state = 'reserved'{self.database.for_update}",  # noqa: S608
            (claim.action,),
        )
        if not rows:
            return False
        if self.database.is_shared:
            # An opt-out takes the same row: it is either seen here, or it was acknowledged after this commit.
            tx.run("SELECT person FROM engage_profiles WHERE person = ? FOR UPDATE", (rows[0][0],))
        if claim.may is not None and not claim.may(tx):
            return False
        now = self.clock()
        taken = tx.run(
            "UPDATE engage_actions SET state = 'sending', taken_at = ?, taken_by = ?, counted_at = ?, hold = ? "
            "WHERE action = ? AND state = 'reserved' RETURNING action",
            (now, worker, now, claim.hold, claim.action),
        )
        return bool(taken)

    # -- ending --------------------------------------------------------------------------------------

    def end(self, ended: Mapping[str, Outcome]) -> None:
        """Write down what became of messages that are being sent. A provider's word that came first stands."""
        now = self.clock()
        with self.database.writing() as tx:
            tx.many(
                "UPDATE engage_actions SET state = ?, reason = ?, ended_at = ?, "
                "provider_id = CASE WHEN provider_id = '' THEN ? ELSE provider_id END "
                "WHERE action = ? AND state IN ('sending', 'unknown')",
                [
                    (
                        str(FATES[outcome.fate]),
                        "" if outcome.fate is Fate.DONE else outcome.code or "unknown",
                        now,
                        str(outcome.value.get("provider_id", "")),
                        action,
                    )
                    for action, outcome in ended.items()
                ],
            )

    def drop(self, action: str, reason: str, hold: str = "") -> None:
        """Write down that a message is not sent after all, and which reservation is free by that."""
        with self.database.writing() as tx:
            tx.run(
                "UPDATE engage_actions SET state = 'dropped', reason = ?, ended_at = ?, "
                "hold = CASE WHEN ? = '' THEN hold ELSE ? END WHERE action = ? AND state = 'reserved'",
                (reason, self.clock(), hold, hold, action),
            )

    def put_back(self, action: str) -> None:
        """Let a message that the provider certainly did not take be tried again later; its money stays reserved."""
        with self.database.writing() as tx:
            tx.run(
                "UPDATE engage_actions SET state = 'reserved', taken_at = NULL, taken_by = '' "
                "WHERE action = ? AND state = 'sending'",
                (action,),
            )

    def give_up(self, worker: str | None, before: int) -> int:
        """What somebody was sending who is gone may have been sent: it is `unknown`. How many.

        `worker`: everything of that name, which is ours and starts now. None: whatever was taken before a moment.
        """
        whose, values = ("taken_by = ?", (worker,)) if worker is not None else ("taken_at < ?", (before,))
        with self.database.writing() as tx:
            rows = tx.run(
                f"UPDATE engage_actions SET state = 'unknown', reason = 'worker_lost', ended_at = ? "  # noqa: S608
                f"WHERE state = 'sending' AND {whose} RETURNING action",
                (self.clock(), *values),
            )
        return len(rows)

    def told(self, delivery: Delivery) -> Action | None:
        """A provider's word: closes an unknown message, and is otherwise kept where it says more than the last one.

        A message counts as done once it was taken by the provider; that it then did not arrive makes it `refused`. Words
        come twice and in any order: a lower rank changes nothing.
        """
        failed = delivery.state is DeliveryState.FAILED
        state = State.REFUSED if failed else State.DONE
        with self.database.writing() as tx:
            rows = tx.run(
                f"UPDATE engage_actions SET state = ?, delivery = ?, delivery_rank = ?, reason = ?, "  # noqa: S608
                "provider_id = CASE WHEN provider_id = '' THEN ? ELSE provider_id END, "
                "ended_at = COALESCE(ended_at, ?) "
                f"WHERE action = ? AND state IN ('sending', 'unknown', 'done') AND delivery_rank < ? RETURNING {_READ}",
                (
                    *(state, delivery.state, delivery.state.rank, (delivery.code or "failed") if failed else ""),
                    *(delivery.provider_id, self.clock(), delivery.action, delivery.state.rank),
                ),
            )
        return action_of(rows[0]) if rows else None

    def settled(self, actions: Sequence[str]) -> None:
        """Note that the money of messages is committed or free."""
        with self.database.writing() as tx:
            tx.many("UPDATE engage_actions SET settled = 1 WHERE action = ?", [(action,) for action in actions])

    # -- looking -------------------------------------------------------------------------------------

    def get(self, action: str) -> Action | None:
        """One message."""
        rows = self.database.read(f"SELECT {_READ} FROM engage_actions WHERE action = ?", (action,))  # noqa: S608
        return action_of(rows[0]) if rows else None

    def get_many(self, actions: Sequence[str]) -> dict[str, Action]:
        """Some messages."""
        query = f"SELECT {_READ} FROM engage_actions WHERE action IN"  # noqa: S608
        return {row[0]: action_of(row) for row in read_in(self.database, query, (), actions)}

    def find(self, dedup: str) -> Action | None:
        """The message of a person, playbook and step."""
        rows = self.database.read(f"SELECT {_READ} FROM engage_actions WHERE dedup = ?", (dedup,))  # noqa: S608
        return action_of(rows[0]) if rows else None

    def in_state(self, state: State, limit: int = 10_000, playbook: str | None = None) -> list[Action]:
        """Messages in a state, the oldest first."""
        which, values = ("", ()) if playbook is None else (" AND playbook = ?", (playbook,))
        rows = self.database.read(
            f"SELECT {_READ} FROM engage_actions WHERE state = ?{which} ORDER BY decided_at, action LIMIT ?",  # noqa: S608
            (state, *values, limit),
        )
        return [action_of(row) for row in rows]

    def unsettled(self, limit: int = 1000) -> list[Action]:
        """Ended messages whose reserved money was not settled yet."""
        rows = self.database.read(
            f"SELECT {_READ} FROM engage_actions WHERE settled = 0 AND hold <> '' "  # noqa: S608
            "AND state IN ('done', 'refused', 'dropped') ORDER BY decided_at LIMIT ?",
            (limit,),
        )
        return [action_of(row) for row in rows]

    def of_person(self, person: str) -> list[Action]:
        """Every message to a person, the oldest first."""
        rows = self.database.read(
            f"SELECT {_READ} FROM engage_actions WHERE person = ? ORDER BY decided_at, action",  # noqa: S608
            (person,),
        )
        return [action_of(row) for row in rows]

    def of_step(self, playbook: str, step: str) -> dict[str, Action]:
        """Every message of a step, by what makes it one and no other."""
        rows = self.database.read(
            f"SELECT {_READ} FROM engage_actions WHERE playbook = ? AND step = ?",  # noqa: S608
            (playbook, step),
        )
        return {row[1]: action_of(row) for row in rows}

    def of_playbook(self, playbook: str) -> list[Action]:
        """Every message of a playbook, the oldest first."""
        rows = self.database.read(
            f"SELECT {_READ} FROM engage_actions WHERE playbook = ? ORDER BY decided_at, action",  # noqa: S608
            (playbook,),
        )
        return [action_of(row) for row in rows]

    def all(self) -> list[Action]:
        """Every message of all playbooks, the oldest first."""
        rows = self.database.read(f"SELECT {_READ} FROM engage_actions ORDER BY decided_at, action")  # noqa: S608
        return [action_of(row) for row in rows]

    def recent(self, since: int) -> list[tuple[str, str, int, str]]:
        """Person, channel, moment and playbook of what counts against caps since a moment."""
        rows = self.database.read(
            f"SELECT person, channel, counted_at, playbook FROM engage_actions "  # noqa: S608
            f"WHERE counted_at >= ? AND state IN ({_COUNTED})",
            (since,),
        )
        return [(person, channel, int(at), playbook) for person, channel, at, playbook in rows]

    def last_contacts(self) -> dict[str, int]:
        """By person the last message that counts."""
        rows = self.database.read(
            f"SELECT person, max(counted_at) FROM engage_actions WHERE state IN ({_COUNTED}) GROUP BY person"  # noqa: S608
        )
        return {person: int(at) for person, at in rows}

    def counts(self, playbook: str | None = None) -> Mapping[str, int]:
        """How many messages are in each state."""
        which, values = ("", ()) if playbook is None else (" WHERE playbook = ?", (playbook,))
        rows = self.database.read(f"SELECT state, count(*) FROM engage_actions{which} GROUP BY state", values)  # noqa: S608
        return {state: int(count) for state, count in rows}


def action_of(row: Row) -> Action:
    """A stored row as an action."""
    made = Action(*row)
    return made._replace(state=State(made.state), settled=bool(made.settled))
