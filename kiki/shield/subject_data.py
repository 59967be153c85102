"""What every system that holds personal data must be able to do for its data subjects.

A request is run over all systems of a `Registry`; a system that is not registered is not gone through, so whoever
adds a store adds its `SubjectData`. Each method may be called again after a crash or a failure, with the same task,
and must then do only what is left to do. What it cannot do now it raises as `KikiError`; `StillWorking` says when to
ask again. What it may not erase it names as `Kept`, with the legal provision.

The order of a deletion: every system stops using the data (`restrict`), tells what it has (`locate`), erases it,
those that depend on others before them and the keys last, and is read back (`verify`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, Protocol

from kiki.errors import SystemsError
from kiki.shield.dsr import Kind
from kiki.shield.subject_request import Kept


class Task(NamedTuple):
    """For which person and request a system is to do something."""

    request: str
    """The request's id; with the name of the method and the round it is the idempotency key of the call."""
    kind: Kind
    customer: str
    """The customer's id."""
    subject: str
    """The person's reference in the ledger: random, 32 hexadecimal digits."""
    purposes: Sequence[str] = ()
    """Of an objection or opt-out: what must stop. Empty: everything."""
    round: int = 0
    """How often the request had to begin again: something was found after its erasure, or a legal hold was lifted."""

    @property
    def person(self) -> str:
        """The scope text of the person."""
        return f"customer:{self.customer}"

    def __repr__(self) -> str:
        return f"Task({self.request})"


class Found(NamedTuple):
    """What a system has about a person."""

    records: int
    classes: Sequence[str] = ()
    """Categories of data: consents, orders, emails."""


class Document(NamedTuple):
    """One file of an export; `parts` are read once, so it may be larger than memory."""

    name: str
    """A file name without directories: orders.json."""
    parts: Iterable[bytes]
    records: int | Callable[[], int] | None = None
    """How many it holds, or what says so once the parts were read; None: nobody knows."""


class Erased(NamedTuple):
    """What a system erased, and what it keeps by right."""

    records: int
    kept: Sequence[Kept] = ()


class Verification(NamedTuple):
    """What a system still finds when it is read back."""

    left: int
    """Records of the person beside those that are kept by right."""
    checked: int = 0
    """How many places were looked into."""


class SubjectData(Protocol):
    """A system that holds personal data."""

    @property
    def name(self) -> str:
        """What it is called in requests: a word of a-z, 0-9 and _."""
        ...

    @property
    def depends_on(self) -> Collection[str]:
        """Systems that this one needs in order to find its data: it is erased before them."""
        ...

    def locate(self, task: Task) -> Found:
        """What there is."""
        ...

    def restrict(self, task: Task) -> None:
        """Stop using the data, for the task's purposes."""
        ...

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        """Set these fields to these values where the system has them; how many records changed."""
        ...

    def export(self, task: Task) -> Iterator[Document]:
        """A copy of everything, for the person to read."""
        ...

    def erase(self, task: Task) -> Erased:
        """Erase everything that need not be kept."""
        ...

    def verify(self, task: Task) -> Verification:
        """Look again, independently of what `erase` said."""
        ...


class Registry:
    """All systems that know persons. `keys` is the one whose erasure makes everything of ours unreadable: it goes last."""

    def __init__(self, systems: Iterable[SubjectData], keys: SubjectData) -> None:
        """Raises `SystemsError` for a name that comes twice, one that is not there, or systems that need each other."""
        by_name: dict[str, SubjectData] = {}
        problems: list[str] = []
        for system in (*systems, keys):
            if system.name in by_name:
                problems.append(f"the name {system.name} is used twice")
            by_name[system.name] = system
        for system in by_name.values():
            problems += [
                f"{system.name} depends on {name}, which is not registered"
                for name in system.depends_on
                if name not in by_name
            ]
        if problems:
            raise SystemsError(problems)
        before: dict[str, set[str]] = {name: set() for name in by_name}
        for system in by_name.values():
            for name in system.depends_on:
                before[name].add(system.name)
        try:
            order = list(TopologicalSorter(before).static_order())
        except CycleError as error:
            raise SystemsError([f"these depend on each other: {' -> '.join(reversed(error.args[1]))}"]) from None
        self.keys = keys
        self.systems: tuple[SubjectData, ...] = tuple(by_name[name] for name in order if name != keys.name)
        """All but the keys, those that depend on others before them."""

    @property
    def all(self) -> tuple[SubjectData, ...]:
        """Every system in the order of erasure, the keys last."""
        return (*self.systems, self.keys)

    def dependents_of(self, name: str) -> set[str]:
        """The systems that must be done before this one is erased; before the keys, all of them."""
        if name == self.keys.name:
            return {system.name for system in self.systems}
        return {system.name for system in self.systems if name in system.depends_on}


Progress = Callable[[str, str, str], None]
"""Told (system, step, how it went) while a request runs."""
