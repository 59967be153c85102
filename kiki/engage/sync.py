"""Takes in what a source has: page by page, each kept with the place to go on from."""

from __future__ import annotations

from typing import NamedTuple

from kiki.engage.customer_store import CustomerStore
from kiki.engage.source import Source


class Synced(NamedTuple):
    """What a look at a source brought."""

    source: str
    pages: int
    profiles: int
    events: int
    repeated: int
    erased: int
    gone: int


def sync(source: Source, store: CustomerStore) -> Synced:
    """Everything new since the last look; raises what the source raises, and goes on from there the next time."""
    pages = profiles = events = repeated = erased = gone = 0
    for page in source.changes(store.cursor(source.name)):
        kept = store.keep(source.name, page.records, page.cursor, page.gone)
        pages += 1
        profiles += kept.profiles
        events += kept.events
        repeated += kept.repeated
        erased += kept.erased
        gone += len(page.gone)
    return Synced(source.name, pages, profiles, events, repeated, erased, gone)
