"""`CampaignRunner`: campaigns on many ad platforms from one plan, each step once, in a script or a service.

    with BudgetGuard.open("kiki-data/shield.db", policy="budgets.yaml") as guard:
        with CampaignRunner.open("kiki-data/flow.db", guard=guard) as runner:
            run = runner.start("spring-sale.yaml")
            runner.wait(run)

Killed at any moment and started again with the same store, it goes on where it was. Any thread may call it; the work is
done on an event loop of its own thread.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from kiki.clock import Clock, wall_micros
from kiki.errors import ConfigurationError, Conflict, InvalidInput, PlanChanged, RunTaken
from kiki.flow.conversion import Conversion, check_conversions
from kiki.flow.customer_value import CustomerValue
from kiki.flow.guard_line import GuardLine, line_to
from kiki.flow.journal_engine import GRACE_SECONDS, LEASE_SECONDS, POLL_SECONDS, Runner
from kiki.flow.lane import APPROVE, CANCEL, PAUSE, RESUME
from kiki.flow.lane_world import AdviceMaker, SandboxOf, Worlds
from kiki.flow.plan import Plan
from kiki.flow.plan_file import read_conversions, read_plan
from kiki.flow.preview import Preview, preview
from kiki.flow.progress import Progress, begin, follow
from kiki.flow.reconcile import Reconciliation, reconcile
from kiki.flow.run_rows import RUNNING, RunRow, Told
from kiki.flow.run_status import RunStatus, status_of
from kiki.flow.run_store import RunStore
from kiki.flow.value_upload import Upload, Uploaded

if TYPE_CHECKING:
    from kiki.outbound.breaker import Breaker
    from kiki.shield.budget_guard import BudgetGuard
    from kiki.shield.shield_client import AsyncShieldClient
    from kiki.value.ltv_client import AsyncLtvClient

Value = TypeVar("Value")

EXECUTOR: Final = "runner"
_ACTOR_MAX: Final = 64
_LOOK_SECONDS: Final = 0.05
_REMEMBERED: Final = 100
_CHANGED_HINT: Final = "cancel that run first, wait until it has ended, and start this plan then"


class CampaignRunner:
    """Runs of plans in one store. Steps are done while `work` is on; everything else is written down at once."""

    def __init__(
        self,
        store: RunStore,
        guard: BudgetGuard | AsyncShieldClient | GuardLine,
        *,
        executor: str = EXECUTOR,
        sandbox: str | SandboxOf | None = None,
        values: AsyncLtvClient | None = None,
        environ: Mapping[str, str] | None = None,
        advise: AdviceMaker | None = None,
        clock: Clock = wall_micros,
        lease_seconds: float = LEASE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`executor` is this runner's stable name: only one process may bear it at a time.

        An `AsyncShieldClient` becomes the runner's own and is closed with it; a `BudgetGuard` stays open.

        `sandbox` is the address of a sandbox for plans that say `platforms: sandbox`, or gives one for each. `values` tells what customers are
        worth; without it the old rule does. Credentials of platforms are in `environ`. A run of a runner that is gone is
        taken over once its lease is over and `grace_seconds` have passed, the longest time for which a call may still
        have an effect.
        """
        self.store = store
        self._guard = line_to(guard)
        self._executor = executor
        self._sandbox = sandbox
        self._values = values
        self._environ = os.environ if environ is None else environ
        self._advise = advise
        self._clock = clock
        self._seconds = {"lease_seconds": lease_seconds, "grace_seconds": grace_seconds, "poll_seconds": poll_seconds}
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._worlds: Worlds | None = None
        self._engine: Runner | None = None
        self._working: Future[None] | None = None
        self._turn = threading.Lock()
        self._reading = threading.Lock()
        self._progress: dict[str, Progress] = {}

    @classmethod
    def open(
        cls,
        where: str | Path | None = None,
        *,
        guard: BudgetGuard | AsyncShieldClient | GuardLine,
        clock: Clock = wall_micros,
        **options: Any,
    ) -> Self:
        """A runner over the store at `where`: a SQLite file, a `postgresql://` address, or None, forgotten at the end."""
        own = None
        if where is None:
            own = tempfile.TemporaryDirectory(prefix="kiki-flow-")
            where = Path(own.name) / "flow.db"
        store = RunStore.open(where, clock)
        runner = cls(store, guard, clock=clock, **options)
        runner._own = own
        return runner

    # -- runs ----------------------------------------------------------------------------------------

    def start(self, plan: Plan | str | Path, *, again: bool = False) -> str:
        """Write a run of this plan down; its id. The same plan is the same run, however often it is started.

        A plan of the same name that says something else, while a run of it is open, is `PlanChanged`: the run goes on
        under its own plan. `again` starts a plan anew whose run has ended.
        """
        plan = plan if isinstance(plan, Plan) else read_plan(plan)
        mine = [row for row in self.store.runs() if row.plan_name == plan.name]
        changed = _changed(plan, mine)
        if changed is not None:
            raise PlanChanged(changed, hint=_CHANGED_HINT)
        same = [row for row in mine if row.version == plan.version]
        if same and not (again and same[0].state != RUNNING):
            return same[0].run
        run = f"{plan.name}-{plan.version[:8]}" + (f"-{len(same) + 1}" if same else "")
        self.store.create(run, plan)
        return run

    def preview(self, plan: Plan | str | Path) -> Preview:
        """What running this plan would do, asked of its platforms and the guard; nothing is changed anywhere."""
        plan = plan if isinstance(plan, Plan) else read_plan(plan)
        mine = [row for row in self.store.runs() if row.plan_name == plan.name]
        earlier = [self.plan(row.run) for row in mine]
        changed = _changed(plan, mine)
        changed = changed and f"{changed}: {_CHANGED_HINT}"
        same = next((row.run for row in mine if row.state == RUNNING and row.version == plan.version), "")
        return self.call(preview(plan, self.worlds, self._guard, earlier, open_run=same, changed=changed))

    def require_credentials(self, plan: Plan) -> None:
        """Raises `ConfigurationError` with what a plan's platforms lack in the environment; nothing is asked of them."""
        problems = self.call(self.worlds.lacking(plan))
        if problems:
            raise ConfigurationError(
                problems, hint="set what is missing; --detach leaves the run to a runner that has it"
            )

    def pause(self, run: str, campaign: str | None = None, *, actor: str = "") -> int:
        """Let a run, or one campaign of it, spend nothing more until `resume`; how many campaigns were told."""
        return self._tell(run, PAUSE, campaign, actor)

    def resume(self, run: str, campaign: str | None = None, *, actor: str = "") -> int:
        """Take a pause back."""
        return self._tell(run, RESUME, campaign, actor)

    def cancel(self, run: str, campaign: str | None = None, *, actor: str = "") -> int:
        """End a run, or one campaign of it, for good: it is paused at once, and its books are settled."""
        return self._tell(run, CANCEL, campaign, actor)

    def approve(self, run: str, *, actor: str = "") -> int:
        """Let a run begin that waits for a person's approval."""
        return self._tell(run, APPROVE, None, actor)

    def adopt(self, executor: str) -> list[str]:
        """Free the runs of a runner that is gone for good, at once: the caller's word that it is dead. The runs.

        Raises `RunTaken` while a process is that executor.
        """
        try:
            self.store.claim(executor)()
        except RunTaken as error:
            hint = "its runs are no orphans; a runner that is stopped gives them back at once"
            raise RunTaken(f"{error}: it is not gone", hint=hint) from None
        return self.store.release_owner(executor)

    def reconcile(self, run: str, *, act: bool = True) -> Reconciliation:
        """Lay our books, the platforms' and the guard's side by side; what an ended campaign left open is brought to an end.

        Without `act` it is only said.
        """
        found = self.status(run)
        asked = reconcile(run, self.plan(run), found.lanes, self.worlds, self._guard, self._clock(), act=act)
        return self.call(asked)

    def upload_values(
        self,
        plan: Plan | str | Path,
        campaign: str,
        values: Sequence[Conversion] | str | Path,
        *,
        purpose: str | None = None,
        dry_run: bool = False,
    ) -> Uploaded:
        """Tell a campaign's platform what conversions turned out to be worth: a CSV file of them, or what a program made.

        Only customers who consent to `purpose` (without it, to that of the plan's `audience`) are told of, and each order is
        sent until the platform has it, and then no more. A `dry_run` sends nothing and says what would be sent.
        """
        plan = plan if isinstance(plan, Plan) else read_plan(plan)
        log, now = self.store.values, self._clock()
        upload = Upload(plan, campaign, purpose, guard=self._guard, log=log, clock=self._clock)
        given = (
            read_conversions(values, plan, now) if isinstance(values, str | Path) else check_conversions(values, now)
        )
        with nullcontext() if dry_run else log.alone(upload.place):
            return self.call(upload.run(given, self.worlds, dry_run=dry_run))

    def runs(self) -> list[RunRow]:
        """Every run, newest first."""
        return self.store.runs()

    def plan(self, run: str) -> Plan:
        """The plan that a run was started with; raises `NotFound`."""
        return self.store.plan(run)[0]

    def status(self, run: str) -> RunStatus:
        """How a run stands; raises `NotFound`."""
        row, plan = self.store.run(run), self.plan(run)
        with self._reading:
            progress = follow(self._progress.get(run) or begin(plan), self._told_since(run), plan)
            self._remember(run, progress)
            lanes = {one.campaign: one for one in self.store.lanes(run)}
            return status_of(row, plan, msgspec.convert(msgspec.to_builtins(progress), Progress), lanes)

    def events(self, run: str, after: int = 0, most: int = 1000) -> list[Told]:
        """What a run told after that number, oldest first: every step and decision; raises `NotFound`."""
        self.store.run(run)
        return self.store.story(run, after, most)

    # -- working -------------------------------------------------------------------------------------

    def work(self) -> None:
        """Execute runs from now on, in the background. Raises `RunTaken` when another process is this executor."""
        with self._turn:
            if self._working is None:
                loop = self._running_loop()
                self._engine = asyncio.run_coroutine_threadsafe(self._make_engine(), loop).result()
                let_go = self.store.claim(self._executor)
                self._working = asyncio.run_coroutine_threadsafe(self._engine.work(), loop)
                self._working.add_done_callback(lambda _: let_go())

    def wait(self, run: str, seconds: float | None = None) -> RunStatus:
        """Work until a run has ended, or for `seconds`; how it stands then. What ended the work is raised."""
        self.work()
        until = float("inf") if seconds is None else time.monotonic() + seconds
        while self.store.run(run).state == RUNNING and time.monotonic() < until:
            if self._working is not None and self._working.done():
                self._working.result()
                raise RunTaken("this runner stopped working")
            time.sleep(_LOOK_SECONDS)
        return self.status(run)

    def call(self, work: Coroutine[Any, Any, Value]) -> Value:
        """The result of something asynchronous on the runner's loop."""
        return self.submit(work).result()

    def submit(self, work: Coroutine[Any, Any, Value]) -> Future[Value]:
        """The same, not waited for."""
        return asyncio.run_coroutine_threadsafe(work, self._running_loop())

    @property
    def worlds(self) -> Worlds:
        """The platforms as lanes reach them; to be used on the runner's loop."""
        self._running_loop()
        assert self._worlds is not None
        return self._worlds

    @property
    def guard(self) -> GuardLine:
        """The line to the guard; to be used on the runner's loop."""
        return self._guard

    @property
    def executor(self) -> str:
        """The name that this runner works under."""
        return self._executor

    @property
    def is_working(self) -> bool:
        """Whether runs are executed now."""
        return self._working is not None and not self._working.done()

    @property
    def troubles(self) -> dict[str, str]:
        """Accounts that cannot be used at all, and why."""
        return {} if self._worlds is None else dict(self._worlds.troubles)

    def breakers(self) -> list[tuple[str, Mapping[str, Breaker]]]:
        """The breakers of every account that was used, with its platform; by class of operation."""
        opened = [] if self._worlds is None else self._worlds.opened()
        lines = [(platform.name, getattr(platform, "line", None)) for platform in opened]
        return [(name, line.breakers) for name, line in lines if line is not None]

    @property
    def held(self) -> dict[str, int]:
        """The runs that it executes now, with their epochs."""
        return {} if self._engine is None else self._engine.held

    def close(self) -> None:
        """Stop between two steps, give the runs back so that others may go on at once, and close the store."""
        if self._loop is not None and self._thread is not None:
            if self._engine is not None:
                asyncio.run_coroutine_threadsafe(self._engine.drain(), self._loop).result()
            if self._working is not None:
                self._working.exception()
            if self._worlds is not None:
                asyncio.run_coroutine_threadsafe(self._worlds.close(), self._loop).result()
            asyncio.run_coroutine_threadsafe(self._guard.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None
        self.store.close()
        if self._own is not None:
            self._own.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CampaignRunner({self._executor!r})"

    # -- inside --------------------------------------------------------------------------------------

    def _told_since(self, run: str) -> Iterator[tuple[int, int, str, str, Mapping[str, Any]]]:
        known = self._progress.get(run)
        for told in self.store.story(run, 0 if known is None else known.number):
            yield told.number, told.at, told.lane.removeprefix(f"{run}/"), told.event, told.detail

    def _remember(self, run: str, progress: Progress) -> None:
        """What was read of a story is not read again; the oldest is forgotten."""
        self._progress.pop(run, None)
        self._progress[run] = progress
        while len(self._progress) > _REMEMBERED:
            del self._progress[next(iter(self._progress))]

    def _tell(self, run: str, kind: str, campaign: str | None, actor: str) -> int:
        row = self.store.run(run)
        if campaign is not None:
            self.plan(run).campaign(campaign)
        if len(actor) > _ACTOR_MAX:
            raise InvalidInput(f"an actor's name has at most {_ACTOR_MAX} characters")
        if row.state != RUNNING:
            raise Conflict(f"run {run} has ended: {row.state}")
        return self.store.send(run, {"kind": kind, "actor": actor}, campaign)

    async def _make_engine(self) -> Runner:
        return Runner(self.store, self._executor, self.worlds.run_lane, clock=self._clock, **self._seconds)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="kiki-flow", daemon=True)
            self._thread.start()
            self._worlds = Worlds(
                self.store,
                self._guard,
                CustomerValue(self._values),
                self._environ,
                sandbox=self._sandbox,
                clock=self._clock,
                advise=self._advise,
            )
            self._loop = loop
        return self._loop


def _changed(plan: Plan, rows: Iterable[RunRow]) -> str | None:
    """Which run of the plan's name is open under another version; None when none is."""
    for row in rows:
        if row.state == RUNNING and row.version != plan.version:
            return f"run {row.run} of plan {plan.name!r} is open under version {row.version}, and this plan is {plan.version}"
    return None
