"""Takes in what a source has: page by page, each kept with the place to go on from."""

from __future__ import annotations

from typing import Final, NamedTuple

from kiki.engage.customer_store import CustomerStore
from kiki.engage.source import Source

PROBLEMS_MAX: Final = 100


class Synced(NamedTuple):
    """What a look at a source brought."""

    source: str
    pages: int
    profiles: int
    events: int
    repeated: int
    erased: int
    gone: int
    problems: tuple[str, ...] = ()
    """What could not be read of records, each with its id: the first hundred."""


def sync(source: Source, store: CustomerStore) -> Synced:
    """Everything new since the last look; raises what the source raises, and goes on from there the next time."""
    pages = profiles = events = repeated = erased = gone = 0
    problems: list[str] = []
    for page in source.changes(store.cursor(source.name)):
        kept = store.keep(source.name, page.records, page.cursor, page.gone)
        pages += 1
        profiles += kept.profiles
        events += kept.events
        repeated += kept.repeated
        erased += kept.erased
        gone += len(page.gone)
        problems += page.problems[: PROBLEMS_MAX - len(problems)]
    return Synced(source.name, pages, profiles, events, repeated, erased, gone, tuple(problems))
