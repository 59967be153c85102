"""Who is where in which journey, who was assigned to which side, and what was last said about whom.

Entering a journey and being assigned to a side of its experiment are one commit: nobody is in one without the other.
A step that was worked on moves on from the place where it was found, so two workers move nobody twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from kiki.clock import Clock, wall_micros
from kiki.engage.database import Database, read_in

TREATED: Final = "treated"
HELD_OUT: Final = "held_out"

ACTIVE: Final = "active"
ENDED: Final = "ended"
CONTROL: Final = "control"
"""The state of whoever is held out: in the journey for the record, and never sent anything."""


class Entrant(NamedTuple):
    """Somebody who enters."""

    person: str
    entry: int
    """What makes this entry one and no other: the moment of the event, or that of the look."""
    arm: str
    propensity: float
    """The chance of this side."""
    before: int = 0
    """What they earned in the same span before, in micros: for the adjustment of the effect."""
    step: int = 0
    due: int = 0
    features: bytes = b""
    """What was known of them then, packed: what is learned from."""


class Traveller(NamedTuple):
    """Somebody who is in a journey and due."""

    person: str
    entry: int
    entered_at: int
    step: int
    due: int


class Assignment(NamedTuple):
    """Somebody's side in an experiment."""

    person: str
    entry: int
    arm: str
    propensity: float
    at: int
    before: int
    features: bytes


class LastEntry(NamedTuple):
    """What is known of somebody's entries into a journey."""

    at: int
    times: int
    is_active: bool


class JourneyBook:
    """Thread-safe."""

    def __init__(self, database: Database, clock: Clock = wall_micros) -> None:
        """`database` holds the tables already: `CustomerStore` makes them."""
        self.database = database
        self.clock = clock

    def last_entries(self, playbook: str, journey: str) -> dict[str, LastEntry]:
        """By person when they last entered, how often they did, and whether they are still in it."""
        rows = self.database.read(
            "SELECT person, max(entered_at), count(*), max(CASE WHEN state = 'active' THEN 1 ELSE 0 END) "
            "FROM engage_journeys WHERE playbook = ? AND journey = ? GROUP BY person",
            (playbook, journey),
        )
        return {person: LastEntry(int(at), int(count), bool(active)) for person, at, count, active in rows}

    def enter(self, playbook: str, journey: str, entrants: Iterable[Entrant]) -> int:
        """Let people in, each entry once; how many were new."""
        now, made = self.clock(), 0
        experiment = experiment_of(playbook, journey)
        with self.database.writing() as tx:
            for each in entrants:
                state = ACTIVE if each.arm == TREATED else CONTROL
                new = tx.run(
                    "INSERT INTO engage_journeys (playbook, journey, person, entry, entered_at, step, due, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING person",
                    (playbook, journey, each.person, each.entry, now, each.step, each.due, state),
                )
                if new:
                    made += 1
                    tx.run(
                        "INSERT INTO engage_assignments (experiment, person, entry, arm, propensity, at, before, features) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                        (
                            experiment,
                            each.person,
                            each.entry,
                            each.arm,
                            each.propensity,
                            now,
                            each.before,
                            each.features,
                        ),
                    )
        return made

    def due(self, playbook: str, journey: str, limit: int = 1_000_000) -> list[Traveller]:
        """Who is to be looked at now."""
        rows = self.database.read(
            "SELECT person, entry, entered_at, step, due FROM engage_journeys "
            "WHERE playbook = ? AND journey = ? AND state = 'active' AND due <= ? ORDER BY due, person LIMIT ?",
            (playbook, journey, self.clock(), limit),
        )
        return [Traveller(person, int(entry), int(at), int(step), int(due)) for person, entry, at, step, due in rows]

    def waiting(self, playbook: str, journey: str, steps: Collection[int]) -> list[Traveller]:
        """Who waits at one of these steps for something that may come before they are due."""
        if not steps:
            return []
        marks = ", ".join("?" * len(steps))
        rows = self.database.read(
            "SELECT person, entry, entered_at, step, due FROM engage_journeys "  # noqa: S608
            f"WHERE playbook = ? AND journey = ? AND state = 'active' AND due > ? AND step IN ({marks})",
            (playbook, journey, self.clock(), *steps),
        )
        return [Traveller(person, int(entry), int(at), int(step), int(due)) for person, entry, at, step, due in rows]

    def places_of(self, person: str) -> list[tuple[str, str, int, str]]:
        """Playbook, journey, since when and state of everything a person entered."""
        rows = self.database.read(
            "SELECT playbook, journey, entered_at, state FROM engage_journeys WHERE person = ? ORDER BY entered_at",
            (person,),
        )
        return [(playbook, journey, int(at), state) for playbook, journey, at, state in rows]

    def occupancy(self, playbook: str) -> list[dict[str, object]]:
        """How many people are in each state of each journey."""
        rows = self.database.read(
            "SELECT journey, state, count(*) FROM engage_journeys WHERE playbook = ? GROUP BY journey, state "
            "ORDER BY journey, state",
            (playbook,),
        )
        return [{"journey": journey, "state": state, "people": int(count)} for journey, state, count in rows]

    def move(
        self, playbook: str, journey: str, moves: Iterable[tuple[Traveller, int, int]], end: Collection[Traveller] = ()
    ) -> None:
        """Move people to a step and when they are due there, and let others leave; only from where they were found."""
        with self.database.writing() as tx:
            tx.many(
                "UPDATE engage_journeys SET step = ?, due = ? "
                "WHERE playbook = ? AND journey = ? AND person = ? AND entry = ? AND step = ? AND state = 'active'",
                [(step, due, playbook, journey, who.person, who.entry, who.step) for who, step, due in moves],
            )
            tx.many(
                "UPDATE engage_journeys SET state = 'ended' "
                "WHERE playbook = ? AND journey = ? AND person = ? AND entry = ? AND state = 'active'",
                [(playbook, journey, who.person, who.entry) for who in end],
            )

    def cancel(self, person: str) -> int:
        """Let somebody leave every journey."""
        with self.database.writing() as tx:
            rows = tx.run(
                "UPDATE engage_journeys SET state = 'ended' WHERE person = ? AND state = 'active' RETURNING journey",
                (person,),
            )
        return len(rows)

    def happened(self, event: str, people: Mapping[str, int], until: int) -> set[str]:
        """Who of these had an event after the moment beside their name, and not after `until`."""
        query = "SELECT person, at FROM engage_events WHERE kind = ? AND at > ? AND at <= ? AND person IN"
        rows = read_in(self.database, query, (event, min(people.values(), default=0), until), people)
        return {person for person, at in rows if at > people[person]}

    def occurrences(self, event: str, since: int, until: int) -> list[tuple[str, int]]:
        """Who had an event in a span, each with its moment."""
        rows = self.database.read(
            "SELECT person, at FROM engage_events WHERE kind = ? AND at > ? AND at <= ? AND person <> '' ORDER BY at, id",
            (event, since, until),
        )
        return [(person, int(at)) for person, at in rows]

    def moments_of(self, event: str, since: int, until: int) -> dict[str, list[int]]:
        """By person the moments of an event in a span."""
        found: dict[str, list[int]] = {}
        for person, at in self.occurrences(event, since, until):
            found.setdefault(person, []).append(at)
        return found

    def counts(self, event: str, since: int, until: int) -> dict[str, int]:
        """By person how often an event happened in a span."""
        rows = self.database.read(
            "SELECT person, count(*) FROM engage_events WHERE kind = ? AND at > ? AND at <= ? GROUP BY person",
            (event, since, until),
        )
        return {person: int(count) for person, count in rows}

    def bought(self) -> dict[str, tuple[int, int]]:
        """By person how many orders and what for, less what was given back: of whom no source told a total."""
        rows = self.database.read(
            "SELECT e.person, sum(CASE WHEN e.kind = 'order' THEN 1 ELSE 0 END), sum(e.amount) FROM engage_events e "
            "JOIN engage_profiles p ON p.person = e.person WHERE p.purchase_count = 0 AND p.total_spend = 0 "
            "AND e.kind IN ('order', 'refund') GROUP BY e.person"
        )
        return {person: (int(count), max(0, int(amount))) for person, count, amount in rows}

    # -- experiments ---------------------------------------------------------------------------------

    def assignments(self, experiment: str, before: int | None = None) -> list[Assignment]:
        """Everybody who was assigned, in the order of it; `before`: only until a moment."""
        which, values = ("", ()) if before is None else (" AND at <= ?", (before,))
        rows = self.database.read(
            f"SELECT person, entry, arm, propensity, at, before, features FROM engage_assignments WHERE experiment = ?{which} "  # noqa: S608
            "ORDER BY at, person",
            (experiment, *values),
        )
        return [Assignment(p, int(e), arm, float(c), int(at), int(b), bytes(f)) for p, e, arm, c, at, b, f in rows]

    def first_entries(self) -> dict[str, tuple[str, int]]:
        """By person their customer's id and when they first entered any journey, on whichever side; the erased are no more."""
        rows = self.database.read(
            "SELECT a.person, p.customer, min(a.at) FROM engage_assignments a "
            "JOIN engage_profiles p ON p.person = a.person GROUP BY a.person, p.customer ORDER BY a.person"
        )
        return {person: (customer, int(at)) for person, customer, at in rows}

    def earnings(self, margin_rate: int, since: int, until: int) -> dict[str, list[tuple[int, int]]]:
        """By person the moments and margins of orders (refunds below zero) in a span, in micros."""
        rows = self.database.read(
            "SELECT person, at, amount, margin FROM engage_events WHERE kind IN ('order', 'refund') AND at > ? AND at <= ? "
            "ORDER BY at, id",
            (since, until),
        )
        found: dict[str, list[tuple[int, int]]] = {}
        for person, at, amount, margin in rows:
            earned = int(margin) if margin is not None else int(amount) * margin_rate // 1_000_000
            found.setdefault(person, []).append((int(at), earned))
        return found

    # -- splits that learn ---------------------------------------------------------------------------

    def keep_ways(self, split: str, ways: Iterable[tuple[str, int, int, int]]) -> None:
        """Keep person, way, share and moment of people; who went before keeps that way."""
        with self.database.writing() as tx:
            tx.many(
                "INSERT INTO engage_ways (split, person, way, share, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(split, *each) for each in ways],
            )

    def ways(self, split: str) -> list[tuple[str, int, int, int]]:
        """Everybody who went through a split: person, way, share and moment."""
        rows = self.database.read(
            "SELECT person, way, share, at FROM engage_ways WHERE split = ? ORDER BY at, person", (split,)
        )
        return [(person, int(way), int(share), int(at)) for person, way, share, at in rows]

    def ways_of(self, split: str, persons: Iterable[str]) -> dict[str, int]:
        """By person the way they went."""
        query = "SELECT person, way FROM engage_ways WHERE split = ? AND person IN"
        return {person: int(way) for person, way in read_in(self.database, query, (split,), persons)}

    # -- what is remembered --------------------------------------------------------------------------

    def recall(self, name: str) -> bytes | None:
        """What was remembered under a name."""
        rows = self.database.read("SELECT value FROM engage_meta WHERE name = ?", (name,))
        return bytes(rows[0][0]) if rows else None

    def remember(self, name: str, value: bytes) -> None:
        """Keep a value under a name."""
        with self.database.writing() as tx:
            tx.run(
                "INSERT INTO engage_meta (name, value) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, value),
            )

    def remember_first(self, name: str, value: bytes) -> None:
        """Keep a value under a name that has none yet; whoever came first stands."""
        with self.database.writing() as tx:
            tx.run("INSERT INTO engage_meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))

    # -- verdicts ------------------------------------------------------------------------------------

    def news(self, playbook: str, verdicts: Mapping[str, str]) -> dict[str, str]:
        """Those verdicts that differ from what was last kept about the person."""
        query = "SELECT person, verdict FROM engage_verdicts WHERE playbook = ? AND person IN"
        known: dict[str, str] = dict(read_in(self.database, query, (playbook,), verdicts))
        return {person: verdict for person, verdict in verdicts.items() if known.get(person) != verdict}

    def keep_verdicts(self, playbook: str, verdicts: Mapping[str, str]) -> None:
        """Remember what was said about each of these people."""
        now = self.clock()
        with self.database.writing() as tx:
            tx.many(
                "INSERT INTO engage_verdicts (playbook, person, verdict, at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (playbook, person) DO UPDATE SET verdict = excluded.verdict, at = excluded.at",
                [(playbook, person, verdict, now) for person, verdict in sorted(verdicts.items())],
            )

    def verdicts_of(self, person: str) -> Sequence[tuple[str, str, int]]:
        """Playbook, verdict and since when, of a person."""
        rows = self.database.read(
            "SELECT playbook, verdict, at FROM engage_verdicts WHERE person = ? ORDER BY at", (person,)
        )
        # A name with a colon is no playbook's: what was written back is remembered beside the verdicts.
        return [(playbook, verdict, int(at)) for playbook, verdict, at in rows if ":" not in playbook]


def experiment_of(playbook: str, journey: str) -> str:
    """The name of a journey's experiment: its holdout against everybody else."""
    return f"{playbook}/{journey}"
