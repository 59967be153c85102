"""`kiki campaign upload`: what conversions turned out to be worth, told to the platform that the clicks came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.campaign_access import FlowDir, SandboxUrl, ServiceUrl, open_runner
from kiki.cli.consent_ledger import LedgerPath
from kiki.cli.options import Json, TokenFile, Url

if TYPE_CHECKING:
    from kiki.flow.value_upload import Uploaded


def upload(
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, a YAML file.")],
    values: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV with the columns order, click, at, value and customer.")
    ],
    campaign: Annotated[
        str, typer.Option("--campaign", metavar="NAME", help="The campaign that the clicks came from.")
    ],
    purpose: Annotated[
        str | None,
        typer.Option(
            "--purpose",
            metavar="PURPOSE",
            help="What customers must consent to; without it, what the plan's audience says.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing, and say what would be sent.")] = False,
    service: ServiceUrl = None,
    url: Url = None,
    token_file: TokenFile = None,
    ledger: LedgerPath = None,
    data_dir: FlowDir = None,
    sandbox: SandboxUrl = None,
    as_json: Json = False,
) -> None:
    """Tell a campaign's platform what conversions were worth, to teach its bidding; each order is sent until it is there.

    Only customers who consent are told of. Exit code 3 when something was refused, is unknown or was not sent.
    """
    from kiki.clock import wall_micros
    from kiki.flow.plan_file import read_conversions, read_plan

    # Every mistake is named before a guard is looked for.
    read_conversions(values, read_plan(file), wall_micros())
    with open_runner(
        data_dir, service=service, url=url, token_file=token_file, ledger=ledger, sandbox=sandbox, keep=not dry_run
    ) as runner:
        found = runner.upload_values(file, campaign, values, purpose=purpose, dry_run=dry_run)
    if as_json:
        show.as_json(found)
    else:
        for line in in_words(found):
            show.line(line)
    if found.problem:
        show.talk(found.problem)
    if not found.recorded:
        show.talk("the next upload of this campaign tells it to the ledger, before it sends anything")
    if not found.is_whole:
        raise typer.Exit(show.EXIT_REFUSED)


def in_words(found: Uploaded) -> list[str]:
    """The sums that are not nothing, as people read them."""
    waiting = "would be sent" if found.dry_run else "not sent yet: the same command goes on"
    lines = [
        (found.done, f"{found.platform} has them"),
        (found.refused, "refused; the same command sends them again"),
        (
            found.unknown,
            "unknown: they may be there; the same command sends them again where the platform knows them again",
        ),
        (found.waiting, waiting),
        (found.left_out, f"left out: no consent to {found.purpose}"),
        (found.already, "there already"),
        (found.differing, "sent before with another click, moment or value, and not sent again"),
        (found.doubtful, f"may be there, and {found.platform} would count them twice: not sent again"),
    ]
    head = f"{found.campaign} on {found.platform}: {found.orders} {'order' if found.orders == 1 else 'orders'}"
    return [head, *(f"{count:>6}  {words}" for count, words in lines if count)]
