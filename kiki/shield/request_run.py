"""One run of a request over every system, step by step: each is written down before the next one begins.

Whatever stops a run, a failing system, `kill -9` or a full disk, the next one goes on behind the last step that is
in the ledger. A step may then be taken a second time; systems are built for that. What failed is written down with its
reason, what depends on it is left for later, and the request waits for the next attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from kiki.clock import SECOND
from kiki.errors import KikiError, LedgerUnavailable, LegallyHeld, NotFound, StillWorking
from kiki.shield.change import Change
from kiki.shield.decider import Decider
from kiki.shield.dsr import Kind, State, Step
from kiki.shield.legal_hold import ARTICLE
from kiki.shield.request_change import Clocks, RequestDetails, Taken, run_change
from kiki.shield.request_package import Packing, package_path
from kiki.shield.subject_data import Erased, Progress, Registry, SubjectData, Task
from kiki.shield.subject_request import LEGAL_HOLD, SubjectRequest, SystemOutcome
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.shield")

RETRY_FIRST: Final = 60 * SECOND
RETRY_MOST: Final = 6 * 3600 * SECOND
_NOTE_LENGTH_MAX: Final = 500


class RequestRun:
    """Runs one request that was started. One thread uses it."""

    def __init__(
        self,
        decider: Decider,
        clocks: Clocks,
        registry: Registry,
        request: SubjectRequest,
        task: Task,
        *,
        matters: Callable[[str], Sequence[str]],
        packages: Path,
        corrections: Mapping[str, str],
        actor: str = "",
        progress: Progress | None = None,
    ) -> None:
        """`matters` tells the legal holds on a person at this moment."""
        assert request.run is not None
        self._decider = decider
        self._clocks = clocks
        self._registry = registry
        self._request = request
        self._run = request.run
        self._task = task
        self._matters = matters
        self._packages = packages
        self._corrections = corrections
        self._actor = actor
        self._progress = progress or (lambda _system, _step, _outcome: None)
        self._failed: set[str] = set()
        self._retry_after = 0

    def finish(self) -> SubjectRequest:
        """Go on as far as it goes; the request as it is then: closed, or waiting for its next attempt."""
        kind = self._request.kind
        if kind is Kind.DELETION:
            self._delete()
        elif kind in {Kind.ACCESS, Kind.PORTABILITY}:
            self._hand_over()
        else:
            step, is_done, act = (
                (Step.RECTIFIED, _is_rectified, self._rectify)
                if kind is Kind.RECTIFICATION
                else (Step.RESTRICTED, _is_restricted, self._restrict)
            )
            self._each(self._registry.all, step, is_done, act)
        if self._request.state is State.RUNNING:
            self._close() if self._is_done() else self._wait()
        return self._request

    # -- the kinds -----------------------------------------------------------------------------------

    def _delete(self) -> None:
        registry = self._registry
        self._each(registry.all, Step.RESTRICTED, _is_restricted, self._restrict)
        self._each(registry.all, Step.LOCATED, lambda outcome: outcome.located is not None, self._locate)
        try:
            self._each(registry.systems, Step.ERASED, _is_erased, self._erase)
            self._each(registry.systems, Step.CHECKED, lambda outcome: outcome.checked, self._check)
            if all(_is_cleared(self._request.outcome(system.name)) for system in registry.systems):
                # From here on nobody can tell any more whose request this is.
                self._each([registry.keys], Step.ERASED, _is_erased, self._erase)
                self._each([registry.keys], Step.CHECKED, lambda outcome: outcome.checked, self._check)
        except LegallyHeld:
            self._keep_all()

    def _hand_over(self) -> None:
        self._each(self._registry.all, Step.LOCATED, lambda outcome: outcome.located is not None, self._locate)
        person = self._decider.subjects.person_of(self._task.subject)
        if person is None:
            raise NotFound("the person was erased meanwhile: there is nothing left to hand over")
        if self._failed:
            return
        path = package_path(self._packages, self._request.id)
        with Packing(path, person, self._task, self._decider.clock()) as packing:
            taken: list[Taken] = []
            for system in self._registry.all:
                done = self._tried(system, Step.EXPORTED, partial(self._export, system, packing))
                if done is None:
                    return
                taken += done
            # Nothing counts as handed over before all of it lies in one file on the disk.
            digest = packing.finish()
        self._write([*taken, Taken(Step.PACKED, records=len(packing.files), digest=digest)])

    # -- the steps of one system ---------------------------------------------------------------------

    def _restrict(self, system: SubjectData) -> list[Taken]:
        system.restrict(self._task)
        return [Taken(Step.RESTRICTED, system.name)]

    def _locate(self, system: SubjectData) -> list[Taken]:
        found = system.locate(self._task)
        return [Taken(Step.LOCATED, system.name, found.records)]

    def _rectify(self, system: SubjectData) -> list[Taken]:
        return [Taken(Step.RECTIFIED, system.name, system.rectify(self._task, self._corrections))]

    def _export(self, system: SubjectData, packing: Packing) -> list[Taken]:
        count = sum(packing.add(system.name, document).records or 0 for document in system.export(self._task))
        return [Taken(Step.EXPORTED, system.name, count or self._request.outcome(system.name).located or 0)]

    def _erase(self, system: SubjectData) -> list[Taken]:
        if not all(_is_erased(self._request.outcome(name)) for name in self._registry.dependents_of(system.name)):
            return []  # not a failure: it waits for those that depend on it
        if self._matters(self._task.subject):
            raise LegallyHeld
        erased: Erased = system.erase(self._task)
        located = self._request.outcome(system.name).located or 0
        kept = [
            Taken(
                Step.KEPT,
                system.name,
                # What becomes unreadable as a whole is all that was located.
                one.records or (0 if one.readable else located),
                one.reason,
                one.article,
                one.until,
                readable=one.readable,
            )
            for one in erased.kept
        ]
        return [*kept, Taken(Step.ERASED, system.name, erased.records)]

    def _check(self, system: SubjectData) -> list[Taken]:
        if not _is_erased(self._request.outcome(system.name)):
            return []
        return [Taken(Step.CHECKED, system.name, system.verify(self._task).left)]

    def _keep_all(self) -> None:
        """A legal hold stands: what was not erased yet is kept for its sake, and the outcome says so."""
        matters = self._matters(self._task.subject)
        if not matters:
            return  # lifted at this very moment: the next run erases
        left = [system for system in self._registry.all if not _is_erased(self._request.outcome(system.name))]
        self._failed.clear()
        self._write(
            [
                Taken(
                    Step.KEPT,
                    system.name,
                    self._request.outcome(system.name).located or 0,
                    LEGAL_HOLD,
                    ARTICLE,
                    readable=True,
                    purposes=matters,
                )
                for system in left
            ]
        )
        for system in left:
            self._progress(system.name, Step.KEPT, ", ".join(matters))

    # -- doing, and what comes of it -----------------------------------------------------------------

    def _each(
        self,
        systems: Sequence[SubjectData],
        step: Step,
        is_done: Callable[[SystemOutcome], bool],
        act: Callable[[SubjectData], list[Taken]],
    ) -> None:
        for system in systems:
            if system.name in self._failed or is_done(self._request.outcome(system.name)):
                continue
            taken = self._tried(system, step, partial(act, system))
            if taken:
                self._write(taken)
                self._progress(system.name, step, "done" if step is Step.RESTRICTED else str(taken[-1].records))
                if step is Step.CHECKED and taken[-1].records:
                    self._failed.add(system.name)

    def _tried(self, system: SubjectData, step: Step, act: Callable[[], list[Taken]]) -> list[Taken] | None:
        """What a system did; None when it failed, which is written down."""
        self._progress(system.name, step, "")
        try:
            return act()
        except (LegallyHeld, LedgerUnavailable):
            raise
        except KikiError as error:
            self._fail(system, step, error.code, str(error))
            retry_after = getattr(error, "retry_after", None)
            if isinstance(error, StillWorking) and retry_after:
                self._retry_after = max(self._retry_after, round(retry_after * SECOND))
        except Exception as error:
            # Somebody else's code: whatever it raises, the other systems are gone through all the same. Its words
            # may name the person, so they are sealed, and the log has the kind only.
            self._fail(system, step, "error", f"{type(error).__name__}: {error}")
            log_event(
                logger,
                logging.ERROR,
                "a system failed in a way that it did not say",
                system=system.name,
                step=step.value,
                request=self._request.id,
                error=type(error).__name__,
            )
        return None

    def _fail(self, system: SubjectData, step: Step, code: str, words: str) -> None:
        self._failed.add(system.name)
        note = RequestDetails(note=f"{step}: {words}"[:_NOTE_LENGTH_MAX])
        self._write([Taken(Step.FAILED, system.name, outcome=code, note=note)])
        self._progress(system.name, Step.FAILED, words)

    def _write(self, taken: Sequence[Taken]) -> None:
        change: Change = run_change(self._request.id, self._run, taken, self._clocks, self._actor)
        done: Any = self._decider.group.submit(change).result()
        self._request = done

    # -- the end -------------------------------------------------------------------------------------

    def _is_done(self) -> bool:
        """Whether every system has done all that this kind of request asks of it. Nothing else closes a request."""
        kind = self._request.kind
        is_done = {
            Kind.DELETION: lambda outcome: _is_cleared(outcome) and outcome.restricted,
            Kind.RECTIFICATION: _is_rectified,
            Kind.OBJECTION: _is_restricted,
            Kind.OPT_OUT: _is_restricted,
        }.get(kind, lambda outcome: outcome.exported is not None)
        if kind in {Kind.ACCESS, Kind.PORTABILITY} and not self._request.package:
            return False
        return all(is_done(self._request.outcome(system.name)) for system in self._registry.all)

    def _close(self) -> None:
        state = State.COMPLETED_WITH_EXCEPTIONS if self._request.has_exceptions else State.COMPLETED
        self._write([Taken(Step.COMPLETED, state=state)])

    def _wait(self) -> None:
        backoff = min(RETRY_MOST, RETRY_FIRST << min(self._request.attempts, 20))
        self._write([Taken(Step.WAITING, until=self._decider.clock() + (self._retry_after or backoff))])

    def give_up(self) -> SubjectRequest:
        """Leave the request waiting, after an error that ended the run; what stands in the ledger stays done."""
        with suppress(KikiError):
            if self._request.state is State.RUNNING:
                self._wait()
        return self._request


def _is_restricted(outcome: SystemOutcome) -> bool:
    return outcome.restricted


def _is_rectified(outcome: SystemOutcome) -> bool:
    return outcome.rectified is not None


def _is_erased(outcome: SystemOutcome) -> bool:
    # What was found again is to be erased again.
    return outcome.erased is not None and not outcome.left


def _is_cleared(outcome: SystemOutcome) -> bool:
    """Erased and read back, or kept by a hold."""
    return (_is_erased(outcome) and outcome.checked) or any(kept.reason == LEGAL_HOLD for kept in outcome.kept)
