"""`kiki campaign`: plan, run and watch campaigns on ad platforms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import campaign_simulate, campaign_upload, show
from kiki.cli.campaign_access import (
    CampaignName,
    FlowDir,
    RunName,
    SandboxUrl,
    ServiceUrl,
    open_runner,
    open_runs,
    resolve,
    start_here,
)
from kiki.cli.consent_ledger import LedgerPath, actor
from kiki.cli.options import Json, TokenFile, Url

if TYPE_CHECKING:
    from kiki.flow.campaign_report import CampaignReport
    from kiki.flow.campaign_runner import CampaignRunner
    from kiki.flow.flow_client import FlowClient
    from kiki.flow.run_status import RunStatus
    from kiki.flow.spend_forecast import SpendForecast

app = typer.Typer(help="Plan, run and watch campaigns on ad platforms.", no_args_is_help=True, rich_markup_mode=None)

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, a YAML file.")]
WATCH_SECONDS = 0.5
_LOOK_SECONDS = 0.2


@app.callback()
def campaign() -> None:
    """Plan, run and watch campaigns on ad platforms."""


@app.command()
def plan(
    file: PlanFile,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    data_dir: FlowDir = None,
    sandbox: SandboxUrl = None,
    as_json: Json = False,
) -> None:
    """Show what a plan would do on its platforms, and whether the guard would let it; nothing is changed.

    Exit code 3 when something keeps it from running as written.
    """
    from kiki.cli import campaign_show
    from kiki.flow.plan_file import read_plan

    read_plan(file)
    with open_runner(
        data_dir, service=service, url=url, token_file=token_file, ledger=ledger, sandbox=sandbox, keep=False
    ) as runner:
        found = runner.preview(file)
    if as_json:
        show.as_json(found)
    else:
        campaign_show.preview(found)
    if found.problems:
        raise typer.Exit(show.EXIT_REFUSED)


@app.command()
def run(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[PLAN]", help="The plan; without it, what is open already is gone on with."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Only write the run down, for a runner that works on the same store.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Start a plan anew whose run has ended.")] = False,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    data_dir: FlowDir = None,
    sandbox: SandboxUrl = None,
    as_json: Json = False,
) -> None:
    """Run a plan, or go on with it where it was, until it has ended.

    Stopped with Ctrl-C or killed, the same command goes on: every step happens once. Exit code 1 when a campaign failed.
    """
    from kiki.flow.plan_file import read_plan

    if file is not None:
        read_plan(file)
    with open_runner(
        data_dir, service=service, url=url, token_file=token_file, ledger=ledger, sandbox=sandbox, keep=True
    ) as runner:
        if detach and file is not None:
            started = runner.start(file, again=again)
            if as_json:
                show.as_json({"run": started})
            else:
                show.line(started)
            return
        names = (
            [start_here(runner, file, again=again)]
            if file
            else [row.run for row in runner.runs() if row.state == "running"]
        )
        if not names:
            show.talk("no run is open")
        _work(runner, names, quiet=as_json)
        found = [runner.status(name) for name in names]
    _show_ended(found, as_json=as_json)


def _work(runner: CampaignRunner | FlowClient, names: list[str], *, quiet: bool) -> None:
    """Execute what is open and tell the story of these runs, until they have ended; a service executes by itself."""
    import time

    from kiki.cli.campaign_tale import Tale
    from kiki.errors import RunTaken
    from kiki.flow.campaign_runner import CampaignRunner

    tale = Tale(runner, names)
    for name in names:
        show.talk(f"run {name}", dim=True)
    try:
        if isinstance(runner, CampaignRunner):
            runner.work()
    except RunTaken as error:
        show.talk(f"{error}: it works on the runs, and this command watches")
    while tale.goes_on():
        if not quiet:
            tale.tell()
        time.sleep(_LOOK_SECONDS)
    if not quiet:
        tale.tell()


def _show_ended(found: list[RunStatus], *, as_json: bool) -> None:
    from kiki.cli import campaign_show

    if as_json:
        show.as_json({"runs": [status_json(each) for each in found]})
    else:
        for each in found:
            campaign_show.status(each)
    if any(each.state == "failed" for each in found):
        raise typer.Exit(show.EXIT_ERROR)


@app.command()
def status(
    run_name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run, or a plan's name; without it all runs are listed.")
    ] = None,
    service: ServiceUrl = None,
    data_dir: FlowDir = None,
    as_json: Json = False,
) -> None:
    """List the runs, or show how one of them stands."""
    from kiki.cli import campaign_show

    with open_runs(data_dir, service) as runner:
        if run_name is None:
            rows = runner.runs()
            if as_json:
                show.as_json({"runs": [row._asdict() for row in rows]})
            else:
                campaign_show.runs(rows)
            return
        found = runner.status(resolve(runner, run_name).run)
    if as_json:
        show.as_json(status_json(found))
    else:
        campaign_show.status(found)


@app.command()
def watch(
    run_name: RunName,
    service: ServiceUrl = None,
    data_dir: FlowDir = None,
    as_json: Json = False,
) -> None:
    """Show a run as a live table until it has ended. With --json: its story, one word a line."""
    from kiki.cli import campaign_show

    with open_runs(data_dir, service) as runner:
        name = resolve(runner, run_name).run
        if as_json:
            from kiki.cli.campaign_tale import Tale

            Tale(runner, [name]).print_json(WATCH_SECONDS)
        else:
            campaign_show.watch(lambda: runner.status(name), WATCH_SECONDS)


@app.command()
def pause(
    run_name: RunName,
    campaign_name: CampaignName = None,
    service: ServiceUrl = None,
    data_dir: FlowDir = None,
    as_json: Json = False,
) -> None:
    """Let a run spend nothing more until it is resumed."""
    _tell("pause", run_name, campaign_name, service, data_dir, as_json=as_json)


@app.command()
def resume(
    run_name: RunName,
    campaign_name: CampaignName = None,
    service: ServiceUrl = None,
    data_dir: FlowDir = None,
    as_json: Json = False,
) -> None:
    """Take a pause back."""
    _tell("resume", run_name, campaign_name, service, data_dir, as_json=as_json)


@app.command()
def cancel(
    run_name: RunName,
    campaign_name: CampaignName = None,
    service: ServiceUrl = None,
    data_dir: FlowDir = None,
    as_json: Json = False,
) -> None:
    """End a run for good: its campaigns are paused at once, and its books are settled."""
    _tell("cancel", run_name, campaign_name, service, data_dir, as_json=as_json)


@app.command()
def approve(run_name: RunName, service: ServiceUrl = None, data_dir: FlowDir = None, as_json: Json = False) -> None:
    """Let a run begin that waits for approval."""
    _tell("approve", run_name, None, service, data_dir, as_json=as_json)


def _tell(
    verb: str, run_name: str, campaign_name: str | None, service: str | None, data_dir: Path | None, *, as_json: bool
) -> None:
    with open_runs(data_dir, service) as runner:
        name = resolve(runner, run_name).run
        if verb == "approve":
            told = runner.approve(name, actor=actor())
        else:
            told = getattr(runner, verb)(name, campaign_name, actor=actor())
    if as_json:
        show.as_json({"run": name, "told": verb, "campaigns": told})
    else:
        show.line(f"{name}: {told} {'campaign' if told == 1 else 'campaigns'} told to {verb}")


@app.command()
def adopt(
    executor: Annotated[str, typer.Argument(metavar="EXECUTOR", help="The runner that is gone for good.")],
    service: ServiceUrl = None,
    data_dir: FlowDir = None,
    as_json: Json = False,
) -> None:
    """Free the runs of a runner that is gone for good, so that others take them at once.

    Without this word they are taken once its lease is over and no call of its can have an effect any more. Only say it of
    a runner whose machine is off.
    """
    with open_runs(data_dir, service) as runner:
        freed = runner.adopt(executor)
    if as_json:
        show.as_json({"executor": executor, "runs": freed})
    else:
        show.line(f"{len(freed)} runs of {executor} are free" + "".join(f"\n  {name}" for name in freed))


@app.command()
def reconcile(
    run_name: RunName,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare.")] = False,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    data_dir: FlowDir = None,
    sandbox: SandboxUrl = None,
    as_json: Json = False,
) -> None:
    """Compare our books with the platforms' and the guard's, and bring what ended campaigns left open to an end.

    Exit code 3 when something is left that a person must decide.
    """
    from kiki.cli import campaign_show

    with open_runner(
        data_dir, service=service, url=url, token_file=token_file, ledger=ledger, sandbox=sandbox, keep=True
    ) as runner:
        found = runner.reconcile(resolve(runner, run_name).run, act=not dry_run)
    if as_json:
        show.as_json(found)
    else:
        campaign_show.reconciliation(found)
    if not found.is_clean:
        raise typer.Exit(show.EXIT_REFUSED)


@app.command()
def report(
    run_name: RunName,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots there, too.")
    ] = None,
    service: ServiceUrl = None,
    data_dir: FlowDir = None,
    as_json: Json = False,
) -> None:
    """Show what a run came to so far: spend, value and pacing of each platform."""
    from kiki.cli import campaign_show
    from kiki.flow.campaign_report import report_of

    with open_runs(data_dir, service) as runner:
        name = resolve(runner, run_name).run
        stands = runner.status(name)
        found = report_of(stands, runner.plan(name))
    forecast = _forecast(found, stands)
    if html is not None:
        _write_page(found, html, forecast)
    if as_json:
        import msgspec

        show.as_json({**msgspec.to_builtins(found), "forecast": msgspec.to_builtins(forecast)})
    else:
        campaign_show.report(found)
        if forecast is not None:
            show.line(campaign_show.forecast_in_words(forecast, found.currency))


def _forecast(found: CampaignReport, stands: RunStatus) -> SpendForecast | None:
    """What a run that goes on will have cost; None where there is too little to tell it from, or no extra `flow`."""
    from kiki.errors import InvalidInput
    from kiki.flow.progress import Phase

    if all(lane.phase in {Phase.CANCELLED, Phase.ENDED} for lane in stands.lanes):
        return None
    try:
        from kiki.flow.spend_forecast import forecast_spend

        return forecast_spend(found.settled_days, found.ends, limit=found.budget)
    except (InvalidInput, ModuleNotFoundError):
        return None


def _write_page(found: CampaignReport, file: Path, forecast: SpendForecast | None) -> None:
    from kiki.cli.campaign_show import forecast_in_words
    from kiki.errors import InvalidInput, MissingExtra
    from kiki.flow.report_page import page

    notes = [] if forecast is None else [forecast_in_words(forecast, found.currency)]
    pictures: list[str] = []
    try:
        from kiki.flow import report_pictures

        pictures = [
            draw(found) for draw in (report_pictures.over_days, report_pictures.pacing, report_pictures.returns)
        ]
    except MissingExtra as error:
        notes.append(f"Without plots: {error}; {error.hint}.")
    try:
        file.write_text(page(found, pictures, notes), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from None
    show.talk(f"written: {file}", dim=True)


@app.command()
def schema(as_json: Json = False) -> None:
    """Print the JSON Schema of a plan, for editors."""
    import json

    from kiki.flow.plan_schema import plan_schema

    print(json.dumps(plan_schema(), ensure_ascii=False, indent=None if as_json else 2))


app.command()(campaign_simulate.simulate)
app.command()(campaign_upload.upload)


def status_json(found: RunStatus) -> dict[str, object]:
    """A status as JSON, with the sums that people read."""
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(found)
    return plain | {"spent": found.spent, "held": found.held}
