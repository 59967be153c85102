"""Where `kiki campaign` finds its runs, its guard and its platforms.

Runs are in `flow.db` of the data directory or in the database of DATABASE_URL, whoever works on them, or at the SyncFlow that
`--service` or KIKI_FLOW_URL names. The guard is the SyncShield of `--url`, or a ledger that no service has open:
`kiki.cli.place` decides.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.options import LEDGER
from kiki.cli.place import is_ledger
from kiki.clock import wall_micros
from kiki.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from kiki.flow.campaign_runner import CampaignRunner
    from kiki.flow.flow_client import FlowClient
    from kiki.flow.plan import Plan
    from kiki.flow.run_rows import RunRow
    from kiki.flow.sandbox.local import LocalSandbox
    from kiki.settings import FlowSettings
    from kiki.shield.budget_guard import BudgetGuard
    from kiki.shield.shield_client import AsyncShieldClient

FlowDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where the runs are kept. By default KIKI_DATA_DIR, then ./kiki-data."
    ),
]
SandboxUrl = Annotated[
    str | None,
    typer.Option(
        "--sandbox", metavar="URL", help="Sandbox for plans that ask for one, instead of KIKI_FLOW_SANDBOX or its own."
    ),
]
ServiceUrl = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="URL",
        help="A SyncFlow that runs, instead of KIKI_FLOW_URL or the runs in the data directory.",
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run, or the plan's name for its newest run.")]
CampaignName = Annotated[str | None, typer.Option("--campaign", metavar="NAME", help="Only this campaign of the run.")]


def flow_settings(data_dir: Path | None) -> FlowSettings:
    """The settings, with the option in place of its variable."""
    from kiki.settings import FlowSettings

    return FlowSettings.parse(os.environ if data_dir is None else {**os.environ, "KIKI_DATA_DIR": str(data_dir)})


@contextlib.contextmanager
def open_runs(data_dir: Path | None, service: str | None) -> Iterator[CampaignRunner | FlowClient]:
    """The runs, to look at and to send word to; no guard and no platform is asked."""
    found = _service(service, {"--data-dir": data_dir})
    if found is not None:
        with _client(found, None) as client:
            yield client
        return
    from kiki.flow.campaign_runner import CampaignRunner
    from kiki.shield.shield_client import AsyncShieldClient

    settings = flow_settings(data_dir)
    _require_store(settings)
    with CampaignRunner.open(settings.store, guard=AsyncShieldClient()) as runner:
        yield runner


@contextlib.contextmanager
def open_runner(
    data_dir: Path | None,
    *,
    service: str | None,
    url: str | None,
    token_file: Path | None,
    ledger: Path | None,
    sandbox: str | None,
    keep: bool,
) -> Iterator[CampaignRunner | FlowClient]:
    """A runner with its guard and its platforms, here or in a service that has its own.

    `keep` False: for a look only, and a sandbox of its own keeps nothing.
    """
    found = _service(service, {"--data-dir": data_dir, "--url": url, "--ledger": ledger, "--sandbox": sandbox})
    if found is not None:
        with _client(found, token_file) as client:
            yield client
        return
    from kiki.cli.wiring import customer_values
    from kiki.flow.campaign_runner import CampaignRunner

    settings = flow_settings(data_dir)
    with contextlib.ExitStack() as stack:
        guard = stack.enter_context(_guard(settings, url, token_file, ledger))
        store = settings.store if keep or _has_store(settings) else None
        own = OwnSandboxes(settings)
        stack.callback(own.close)
        runner = CampaignRunner.open(
            store,
            guard=guard,
            executor=settings.executor,
            sandbox=sandbox or settings.sandbox_url or own.chooser(keep=keep),
            values=customer_values(os.environ),
            lease_seconds=settings.lease_seconds,
            grace_seconds=settings.grace_seconds,
        )
        own.know(runner)
        yield stack.enter_context(runner)


def resolve(runner: CampaignRunner | FlowClient, name: str) -> RunRow:
    """The run of that name, or the newest of the plan of that name; raises `NotFound`."""
    rows = runner.runs()
    for row in rows:
        if row.run == name:
            return row
    for row in rows:
        if row.plan_name == name:
            return row
    raise NotFound(f"there is no run and no plan {name[:80]!r}", hint="list the runs: kiki campaign status")


def start_here(runner: CampaignRunner | FlowClient, file: Path, *, again: bool) -> str:
    """Write a run of the plan down for this process to execute, or find the one that there is; its id.

    A new run waits for no credentials: the environment of a command never changes. One that is open goes on with the platforms that it can use.
    """
    from kiki.flow.campaign_runner import CampaignRunner
    from kiki.flow.plan_file import read_plan
    from kiki.flow.run_rows import RUNNING

    plan = read_plan(file)
    mine = [row for row in runner.runs() if row.plan_name == plan.name]
    is_open = any(row.state == RUNNING for row in mine)
    has_ended = not is_open and any(row.version == plan.version for row in mine)
    if isinstance(runner, CampaignRunner) and not is_open and (again or not has_ended):
        runner.require_credentials(plan)
    run = runner.start(file, again=again)
    if has_ended and not again:
        show.talk(f"run {run} has ended; kiki campaign run --again starts the plan anew")
    return run


def _service(named: str | None, here: dict[str, object]) -> str | None:
    """The SyncFlow to ask; None: none. `here` are the options that say what a runner in this process works with."""
    from kiki.settings import flow_url, parse_url

    given = [name for name, value in here.items() if value is not None]
    if named is None:
        return None if given else flow_url(os.environ)
    if given:
        raise InvalidInput(f"--service names a SyncFlow with its own runs, guard and sandbox: leave {given[0]} away")
    return parse_url(named)


def _client(url: str, token_file: Path | None) -> FlowClient:
    from kiki.flow.flow_client import FlowClient
    from kiki.shield.client_settings import default_token, read_token

    return FlowClient(url, default_token() if token_file is None else read_token(token_file))


class OwnSandboxes:
    """For each plan that asks for a sandbox one of its own, whose days begin the day before the plan's first."""

    def __init__(self, settings: FlowSettings) -> None:
        self._settings = settings
        self._open: dict[str, LocalSandbox] = {}
        self._turn = threading.Lock()
        self.known: Callable[[Plan], bool] = lambda _: True
        """Whether a plan had a run before: then its sandbox goes on, whatever day it is there."""

    def chooser(self, *, keep: bool) -> Callable[[Plan], str]:
        """The address for a plan. `keep`: its books are in the data directory, and outlast the process."""

        def choose(plan: Plan) -> str:
            with self._turn:
                return self._of(plan, keep=keep).url

        return choose

    def know(self, runner: CampaignRunner) -> None:
        """Ask this runner's store which plans had a run before now."""
        began_at = wall_micros()
        self.known = lambda plan: any(row.version == plan.version and row.made_at < began_at for row in runner.runs())

    def _of(self, plan: Plan, *, keep: bool) -> LocalSandbox:
        from kiki.flow.sandbox.local import LocalSandbox

        found = self._open.get(plan.name)
        if found is None:
            books = self._settings.data_dir / "sandbox" / f"{plan.name}.db"
            if keep:
                books.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

            def begin() -> LocalSandbox:
                return LocalSandbox(
                    books if keep or books.exists() else ":memory:",
                    first_day=plan.starts - timedelta(days=1),
                    day_seconds=self._settings.sandbox_day_seconds,
                )

            found = begin()
            if keep and found.today > plan.starts and not self.known(plan):
                # An earlier plan of this name was played there, and its time has passed.
                found.close()
                books.replace(books.with_suffix(".old.db"))
                found = begin()
            self._open[plan.name] = found
        return found

    def close(self) -> None:
        """Stop them all."""
        for sandbox in self._open.values():
            sandbox.close()


@contextlib.contextmanager
def _guard(
    settings: FlowSettings, url: str | None, token_file: Path | None, ledger: Path | None
) -> Iterator[BudgetGuard | AsyncShieldClient]:
    from kiki.cli.wiring import embedded_guard
    from kiki.shield import shield_client as home

    if is_ledger(ledger, url):
        folder = settings.data_dir if ledger is None else ledger
        path = folder if folder.suffix == ".db" or folder.is_file() else folder / LEDGER
        with embedded_guard(os.environ, path) as guard:
            yield guard
        return
    token = None if token_file is None else home.read_token(token_file)
    yield home.AsyncShieldClient(url, token=token)


def _has_store(settings: FlowSettings) -> bool:
    return settings.database_url is not None or Path(settings.store).exists()


def _require_store(settings: FlowSettings) -> None:
    if not _has_store(settings):
        raise NotFound(
            f"there are no runs in {settings.data_dir}",
            hint="start one with kiki campaign run PLAN, or name --data-dir, or a SyncFlow that runs with --service",
        )
