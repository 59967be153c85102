"""The requests that `kiki dsr` works on: those of a running service, or of a ledger that no service has open.

Which of them it is, `kiki.cli.place` decides.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from kiki.cli.consent_ledger import actor
from kiki.cli.options import data_directory, open_client
from kiki.cli.place import is_ledger, open_ledger_alone

if TYPE_CHECKING:
    from kiki.shield.request_client import Requests
    from kiki.shield.request_desk import RequestDesk
    from kiki.shield.request_intake import Given
    from kiki.shield.subject_data import Progress
    from kiki.shield.wire_request_answer import HoldReply, RequestReply

LOOK_SECONDS = 0.5


@contextlib.contextmanager
def open_requests(
    ledger: Path | None, url: str | None, token_file: Path | None, *, may_make: bool = False
) -> Iterator[Local | Remote]:
    """The requests, wherever they are."""
    if is_ledger(ledger, url):
        with _of_ledger(ledger, may_make=may_make) as access:
            yield access
    else:
        with open_client(url, token_file) as client:
            yield Remote(client.requests)


@contextlib.contextmanager
def _of_ledger(given: Path | None, *, may_make: bool) -> Iterator[Local]:
    from kiki.cli.wiring import request_desk
    from kiki.settings import RequestSettings

    settings = RequestSettings.parse(os.environ)
    folder = data_directory(given)
    if folder.suffix == ".db" or folder.is_file():
        folder = folder.parent
    with (
        open_ledger_alone(given, may_make=may_make) as store,
        contextlib.closing(request_desk(store, folder, settings, os.environ)) as desk,
    ):
        yield Local(desk)


class Local:
    """A desk in this process."""

    def __init__(self, desk: RequestDesk) -> None:
        from kiki.shield.wire_request_answer import hold_reply, request_reply

        self._desk = desk
        self._reply = request_reply
        self._hold_reply = hold_reply
        self._actor = actor() or "operator"

    def create(self, customer: str, kind: str, **given: Unpack[Given]) -> RequestReply:
        """Take in a request."""
        given["actor"] = self._actor
        return self._reply(self._desk.create(customer, kind, **given))

    def list(self, **wanted: Any) -> Sequence[RequestReply]:
        """Those that fit."""
        return [self._reply(record) for record in self._desk.list(**wanted)]

    def get(self, request: str) -> RequestReply:
        """One request."""
        return self._reply(self._desk.get(request))

    def vouch(self, request: str, agent_proof: str, note: str) -> RequestReply:
        """The identity was checked by whoever types this."""
        return self._reply(
            self._desk.verify_identity(
                request, method="operator", agent_proof=agent_proof, actor=self._actor, note=note
            )
        )

    def run(self, request: str, progress: Progress) -> RequestReply:
        """Run one."""
        return self._reply(self._desk.run(request, progress, actor=self._actor))

    def run_due(self, progress: Progress) -> Sequence[RequestReply]:
        """Run every one whose next attempt is due."""
        return [self._reply(record) for record in self._desk.run_due(progress, actor=self._actor)]

    def step(self, name: str, request: str, **told: Any) -> RequestReply:
        """Take a step by its name, which both sides share."""
        return self._reply(getattr(self._desk, name)(request, **told, actor=self._actor))

    def write_package(self, request: str, file: Path) -> None:
        """Write the person's copy to a new file."""
        from kiki.shield.new_file import new_file

        with new_file(file) as out:
            for piece in self._desk.package(request):
                out.write(piece)

    def proof(self, request: str) -> str:
        """The signed proof."""
        return self._desk.proof(request)

    def hold(self, reference: str, customer: str | None) -> None:
        """Put a legal hold on."""
        self._desk.hold(reference, customer, actor=self._actor)

    def lift(self, reference: str, customer: str | None) -> Sequence[RequestReply]:
        """Lift a legal hold; what can be run now."""
        return [self._reply(record) for record in self._desk.lift(reference, customer, actor=self._actor)]

    def holds(self) -> Sequence[HoldReply]:
        """The legal holds that are on."""
        holds = self._desk.holds
        return [self._hold_reply(hold, holds.customer_of(hold)) for hold in holds.all()]


class Remote:
    """A desk behind HTTP."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def create(self, customer: str, kind: str, **given: Unpack[Given]) -> RequestReply:
        """Take in a request."""
        return self._requests.create(customer, kind, **given)

    def list(self, **wanted: Any) -> Sequence[RequestReply]:
        """Those that fit."""
        return self._requests.list(**wanted).requests

    def get(self, request: str) -> RequestReply:
        """One request."""
        return self._requests.get(request)

    def vouch(self, request: str, agent_proof: str, note: str) -> RequestReply:
        """The identity was checked by whoever types this."""
        return self._requests.vouch(request, actor() or "operator", agent_proof=agent_proof, note=note)

    def run(self, request: str, progress: Progress) -> RequestReply:
        """Run one."""
        seen: dict[str, dict[str, object]] = {}
        # What was done before is no news: of a request that is closed, nothing is run again.
        _tell_news(seen, self._requests.get(request), lambda *_: None)
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(self._requests.run, request)
            while not run.done():
                wait([run], LOOK_SECONDS)
                _tell_news(seen, self._requests.get(request), progress)
        return run.result()

    def run_due(self, progress: Progress) -> Sequence[RequestReply]:
        """Run every one whose next attempt is due."""
        from kiki.shield.wire_moment import moment_micros

        now = time.time_ns() // 1000
        waiting = self._requests.list(state="waiting").requests
        due = [one for one in waiting if not one.next_attempt_at or moment_micros(one.next_attempt_at) <= now]
        return [self.run(one.request_id, progress) for one in due]

    def step(self, name: str, request: str, **told: Any) -> RequestReply:
        """Take a step by its name, which both sides share."""
        reply: RequestReply = getattr(self._requests, name)(request, **told)
        return reply

    def write_package(self, request: str, file: Path) -> None:
        """Write the person's copy to a new file."""
        self._requests.download(request, file)

    def proof(self, request: str) -> str:
        """The signed proof."""
        return self._requests.proof(request)

    def hold(self, reference: str, customer: str | None) -> None:
        """Put a legal hold on."""
        self._requests.hold(reference, customer)

    def lift(self, reference: str, customer: str | None) -> Sequence[RequestReply]:
        """Lift a legal hold; what can be run now."""
        return self._requests.lift(reference, customer)

    def holds(self) -> Sequence[HoldReply]:
        """The legal holds that are on."""
        return self._requests.holds()


_TOLD = (("restricted", "done"), ("located", ""), ("rectified", ""), ("exported", ""), ("erased", ""), ("failure", ""))


def _tell_news(seen: dict[str, dict[str, object]], reply: RequestReply, progress: Progress) -> None:
    """What a service has done since the last look."""
    for name, system in reply.systems.items():
        known = seen.setdefault(name, {})
        for field, word in _TOLD:
            value = getattr(system, field)
            if value not in {None, "", False} and known.get(field) != value:
                known[field] = value
                progress(name, "failed" if field == "failure" else field, word or str(value))
