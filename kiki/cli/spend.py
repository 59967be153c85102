"""`kiki spend`, `check`, `reserve`, `commit`, `release`: one call on the service each."""

from __future__ import annotations

from typing import Annotated

import typer

from kiki.cli import show
from kiki.cli.options import Amount, Json, Key, Purpose, Scope, TokenFile, Url, open_client
from kiki.errors import InvalidInput, SpendDenied

Hold = Annotated[str, typer.Argument(metavar="RESERVATION", help="The id that `kiki reserve` printed.")]


def spend(
    amount: Amount,
    scope: Scope = None,
    key: Key = None,
    purpose: Purpose = None,
    record: Annotated[
        bool, typer.Option("--record", help="The money is spent already: count it, even over a limit.")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take money, or be refused (exit code 3).

    It is taken from every budget that it concerns, or from none.
    """
    if record and purpose:
        raise InvalidInput("--purpose is for a spend; --record counts money that is spent already, whatever it was for")
    with open_client(url, token_file) as client:
        try:
            outcome = client.record(amount, scope, key) if record else client.spend(amount, scope, key, purpose=purpose)
        except SpendDenied as error:
            show.refused(error, json_wanted=as_json)
    if as_json:
        show.as_json(outcome)
    else:
        done = "recorded" if record else "spent"
        show.line(f"{done}: {outcome.amount} {outcome.currency} (event {outcome.event_id})")


def check(
    amount: Annotated[
        str | None, typer.Option("--amount", metavar="MONEY", help="Would this much fit? Without: would anything?")
    ] = None,
    ltv: Annotated[
        str | None, typer.Option("--ltv", metavar="MONEY", help="The predicted lifetime value behind a bid.")
    ] = None,
    scope: Scope = None,
    purpose: Purpose = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Ask whether a spend or a bid would be allowed.

    Exit code 0 when it would, 3 when not. Nothing is taken, and the service writes the question down.
    """
    with open_client(url, token_file) as client:
        outcome = client.check(amount, scope, ltv=ltv, purpose=purpose)
    if as_json:
        show.as_json(outcome)
    elif outcome.allowed:
        show.line("allowed")
    else:
        show.line(f"refused: {outcome.explanation}")
    if not outcome.allowed:
        raise typer.Exit(show.EXIT_REFUSED)


def reserve(
    amount: Amount,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="After that long it turns into a spend. Without: it stays until resolved."),
    ] = None,
    scope: Scope = None,
    key: Key = None,
    purpose: Purpose = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Set money aside and print the reservation's id.

    Or be refused: exit code 3.
    """
    with open_client(url, token_file) as client:
        try:
            hold = client.reserve(amount, scope, key, seconds=seconds, purpose=purpose)
        except SpendDenied as error:
            show.refused(error, json_wanted=as_json)
    if as_json:
        show.as_json(hold.reply)
    else:
        show.line(hold.id)
        until = "" if hold.reply.deadline is None else f" until {hold.reply.deadline}"
        show.talk(f"reserved: {hold.amount} {hold.reply.currency}{until} (event {hold.event_id})", dim=True)


def commit(
    reservation: Hold,
    amount: Annotated[str, typer.Option("--amount", metavar="MONEY", help="What was really spent; 0 is allowed.")],
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Turn a reservation into a spend.

    Of at most what was reserved; the rest is free at once.
    """
    with open_client(url, token_file) as client:
        reply = client.commit(reservation, amount)
    if as_json:
        show.as_json(reply)
    else:
        late = "; its deadline had passed, so all of it was spent already" if reply.late else ""
        show.line(f"committed: {reply.actual} of {reply.reserved} (event {reply.event_id}){late}")


def release(reservation: Hold, url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """End a reservation of which nothing was spent.

    All of it is free at once.
    """
    with open_client(url, token_file) as client:
        reply = client.release(reservation)
    if as_json:
        show.as_json(reply)
    else:
        late = "; its deadline had passed, so all of it was spent already" if reply.late else ""
        show.line(f"released: {reply.reserved} (event {reply.event_id}){late}")
