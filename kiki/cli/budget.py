"""`kiki budget`: look at budgets, stop and resume spending, try another policy on what really happened."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.options import Json, Since, TokenFile, Url, open_client, parse_when
from kiki.cli.place import is_offline

if TYPE_CHECKING:
    from datetime import datetime

    from kiki.shield.simulation import Simulation

app = typer.Typer(help="Look at budgets, stop spending, try a policy.", no_args_is_help=True, rich_markup_mode=None)

Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="'*' (all spends), platform:meta, or 'campaign:*' (each campaign).")
]


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking, twice a second, until Ctrl-C.")] = False,
    budget: Annotated[str | None, typer.Option("--budget", metavar="NAME", help="Only this budget.")] = None,
    scope: Annotated[
        str | None, typer.Option("--scope", metavar="KIND:VALUE", help="Only windows of this scope.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what is spent, held and left."""
    if watch and not as_json and sys.stdout.isatty():
        from kiki.cli import budget_watch

        with open_client(url, token_file, retries=0, timeout=2.0) as client:
            budget_watch.watch(lambda: client.budgets(budget, scope), client.url)
        return
    with open_client(url, token_file) as client:
        reply = client.budgets(budget, scope)
    if as_json:
        show.as_json(reply)
        return
    from kiki.cli.budget_watch import print_once

    print_once(reply)


@app.command()
def halt(
    pattern: Pattern,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it stays in the audit.")] = "",
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Refuse what a pattern concerns, from now on.

    Every new spend and reservation; open reservations can still be committed.
    """
    with open_client(url, token_file) as client:
        reply = client.halt(pattern, note=note)
    if as_json:
        show.as_json(reply)
    else:
        show.line(f"halted: {reply.pattern} (event {reply.event_id})")


@app.command()
def resume(pattern: Pattern, url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Take a halt back."""
    with open_client(url, token_file) as client:
        reply = client.resume(pattern)
    if as_json:
        show.as_json(reply)
    else:
        show.line(f"resumed: {reply.pattern} (event {reply.event_id})")


@app.command()
def simulate(
    policy: Annotated[Path, typer.Argument(metavar="POLICY_FILE", help="The policy to try, a YAML file.")],
    since: Since = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="Read the ledger in this directory instead of asking a service."
        ),
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Try another policy on what really happened.

    Tells what it would have refused of everything that was asked. Changes nothing. Where nothing listens, it reads
    the ledger.
    """
    moment = parse_when(since)
    if is_offline(data_dir, url):
        found = _offline(policy, moment, data_dir)
    else:
        with open_client(url, token_file) as client:
            found = client.simulate(policy, moment)
    if as_json:
        show.as_json(found.as_dict())
    else:
        _print_simulation(found)


def _offline(policy: Path, since: datetime | None, data_dir: Path | None) -> Simulation:
    from kiki.cli.ledger_access import access
    from kiki.shield.opening import read_policy
    from kiki.shield.simulation import simulate as simulated

    chosen = read_policy(policy, _currency())
    with access(None, data_dir).readers() as readers:
        return simulated(readers, chosen, since)


def _currency() -> str:
    import os

    return os.environ.get("KIKI_CURRENCY") or "USD"


def _print_simulation(found: Simulation) -> None:
    figures = found.as_dict()
    for label, count, amount in (
        ("would admit", "admitted", "admitted_amount"),
        ("would refuse", "refused", "refused_amount"),
        ("newly refused", "newly_refused", "newly_refused_amount"),
        ("newly admitted", "newly_admitted", "newly_admitted_amount"),
    ):
        show.line(f"{label:<15}{figures[count]!s:>10}  {figures[amount]!s:>20}")
    for name, times in found.refused_by_budget.most_common():
        show.line(f"  by {name or 'no budget'}: {times}")
    show.talk(f"{found.decisions} amounts were asked for", dim=True)
