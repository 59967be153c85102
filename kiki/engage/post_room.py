"""What comes in from providers: webhooks, clicks on the way out, demands in a person's name. Durable before the answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from kiki.engage.event import Delivery, PrivacyKind, PrivacyRequest
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.source import Record
from kiki.engage.unsubscribe import UnsubscribeLinks, opt_out
from kiki.engage.webhook import WebhookCall, WebhookReader
from kiki.errors import KikiError, NotFound
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.engage")


class Requests(Protocol):
    """Where requests of persons are made: the shield's, in this process or behind HTTP."""

    def demand(self, customer: str, kind: str, key: str, by: str) -> str:
        """Take in a request that a platform vouches for; its id."""
        ...


class Taken(NamedTuple):
    """What became of a call."""

    new: int
    """How much of it was not told before."""
    has_demands: bool
    """Whether requests of persons are to be made of it: `pass_on`."""


class PostRoom:
    """Thread-safe."""

    def __init__(
        self,
        engine: RetentionEngine,
        readers: Iterable[WebhookReader],
        links: UnsubscribeLinks,
        requests: Requests | None = None,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self.readers: Mapping[str, WebhookReader] = {reader.name: reader for reader in readers}
        self._links = links
        self._requests = requests

    def take(self, provider: str, call: WebhookCall) -> Taken:
        """Keep what a call tells. Raises `NotFound`, `Unauthenticated` and `InvalidInput`.

        What a platform demands is durable and no more: it waits five seconds for the answer, and a shop's whole list of
        customers may take longer. `pass_on` is for afterwards.
        """
        reader = self.readers.get(provider)
        if reader is None:
            raise NotFound(
                f"no webhooks of {provider[:40]!r} are taken here", hint=f"set up: {', '.join(self.readers) or 'none'}"
            )
        told = reader.read(call, self._store.clock())
        demands = [each for each in told if isinstance(each, PrivacyRequest)]
        records: list[Record] = [each for each in told if not isinstance(each, PrivacyRequest)]
        new = sum(self._store.demands.keep(each) for each in demands)
        if records:
            kept = self._store.keep(provider, records)
            new += kept.profiles + kept.events
        # Also of words that were kept before: a process may have died between keeping and applying them.
        self._engine.told(each for each in records if isinstance(each, Delivery))
        return Taken(new, has_demands=bool(demands))

    def leave(self, token: str) -> None:
        """Somebody wants no more messages; raises `NotFound` for a link that is not ours."""
        action = self._links.action(token)
        known = self._engine.log.get(action)
        channel = known.channel if known is not None else "email"
        self._store.keep("engage", [opt_out(action, self._store.clock(), channel=channel)])

    def pass_on(self) -> int:
        """Make requests of persons of what platforms demanded; what cannot be made now is tried again later."""
        if self._requests is None:
            return 0
        done = 0
        for name, demand in self._store.demands.waiting():
            try:
                self._store.demands.became(name, self._make(self._requests, demand))
                done += 1
            except KikiError as error:
                log_event(
                    logger, logging.WARNING, "a platform's demand waits for the shield", demand=name, problem=str(error)
                )
        return done

    def _make(self, requests: Requests, demand: PrivacyRequest) -> str:
        by = demand.id.partition(":")[0]
        if demand.kind is not PrivacyKind.SHOP_DELETION:
            kind = "ACCESS" if demand.kind is PrivacyKind.ACCESS else "DELETION"
            return requests.demand(demand.customer, kind, demand.id, by)
        made = ""
        for customer in self._store.customers_of(by):
            made = requests.demand(customer, "DELETION", f"{demand.id}:{customer}", by)
        return made or "nobody"
