"""Where customers come from: the one protocol of shops, CRMs, databases and files. Pure.

Reading is by pages. The cursor of a page is kept in the same transaction as its records, so a reader that was killed
goes on after the last page that was kept; a record that comes twice is recognised by its id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Protocol

from kiki.engage.event import Event
from kiki.engage.profile import Profile
from kiki.outbound.outcome import Outcome

Record = Profile | Event


class Page(NamedTuple):
    """Some records, and from where to go on when they are kept."""

    records: tuple[Record, ...]
    cursor: str
    """Opaque text of at most 4,000 characters; the next call of `changes` gets it back, also after a restart."""
    gone: tuple[str, ...] = ()
    """Ids of customers that the source no longer has."""
    problems: tuple[str, ...] = ()
    """What could not be read of records on this page, each with the record's id: told, and no reason to stop for the rest."""


class Source(Protocol):
    """A system that knows customers. Raises `KikiError` when it cannot go on; what was yielded before stands."""

    @property
    def name(self) -> str:
        """`shopify`, `hubspot`, `salesforce`, `postgres`, `csv`: begins the ids of its events."""
        ...

    def changes(self, since: str) -> Iterator[Page]:
        """Everything new since a cursor; since `""`, everything there is."""
        ...

    def upsert(self, updates: Mapping[str, Mapping[str, str]]) -> Mapping[str, Outcome]:
        """Write fields of ours (`kiki_segment`, `kiki_churn`) back to these customers: no other field is changed.

        An outcome for each customer, in as few calls as the system allows.
        """
        ...

    def tag(self, customer: str, tags: Collection[str]) -> Outcome:
        """Add tags; the ones that are there stay."""
        ...

    def check(self) -> tuple[str, ...]:
        """What is wrong with the access, for `kiki doctor`: a missing scope, an expired version. Empty: nothing."""
        ...

    def close(self) -> None:
        """Give connections free."""
        ...
