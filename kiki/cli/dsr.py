"""`kiki dsr`: requests of data subjects, from receipt to proof."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kiki.cli import show
from kiki.cli.consent_ledger import LedgerPath
from kiki.cli.options import Json, TokenFile, Url, parse_when
from kiki.cli.request_access import open_requests
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.shield.request_intake import Given
    from kiki.shield.wire_request_answer import RequestReply

app = typer.Typer(help="Requests of data subjects.", no_args_is_help=True, rich_markup_mode=None)

Number = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id: DSR-1795409064-5f0c2a9b.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="What the person was told; sealed.")]


@app.command()
def create(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")],
    kind: Annotated[
        str,
        typer.Argument(metavar="TYPE", help="ACCESS, DELETION, PORTABILITY, RECTIFICATION, OBJECTION or OPT_OUT."),
    ],
    regime: Annotated[
        list[str] | None,
        typer.Option("--regime", metavar="LAW", help="gdpr or ccpa; repeatable. By default both: the earliest counts."),
    ] = None,
    purpose: Annotated[
        list[str] | None,
        typer.Option("--purpose", metavar="WORD", help="Of an objection or opt-out: what must stop; repeatable."),
    ] = None,
    correct: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Of a rectification: what is right; repeatable."),
    ] = None,
    details: Annotated[str, typer.Option("--details", metavar="TEXT", help="What the person wrote; sealed.")] = "",
    requested_by: Annotated[str, typer.Option("--requested-by", metavar="NAME", help="Who sent it; sealed.")] = "",
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="Who acts for the person; sealed.")] = "",
    received: Annotated[
        str | None,
        typer.Option("--received", metavar="WHEN", help="When it came in, in the past: 3d, a day or RFC 3339."),
    ] = None,
    key: Annotated[
        str, typer.Option("--key", metavar="TEXT", help="Idempotency key: the same key is the same request.")
    ] = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take in a request.

    While one of the same person and type is open, that one is answered.
    """
    given: Given = {}
    if received is not None:
        given["received_at"] = parse_when(received)
    if regime:
        given["regimes"] = regime
    if purpose:
        given["purposes"] = purpose
    if correct:
        given["corrections"] = _corrections(correct)
    for name, text in (("details", details), ("requested_by", requested_by), ("agent", agent), ("key", key)):
        if text:
            given[name] = text  # type: ignore[literal-required]  # each is a member, and a text
    with open_requests(ledger, url, token_file, may_make=True) as requests:
        reply = requests.create(customer, kind, **given)
    _answer(reply, as_json=as_json)
    if not as_json and reply.state in {"received", "identity_pending"}:
        show.talk(f"check who asks, then: kiki dsr verify {reply.request_id}")


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option("--state", metavar="WORD", help="Only those in this state.")] = None,
    kind: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only those of this type.")] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="Only those of this customer.")
    ] = None,
    due_within: Annotated[
        int | None,
        typer.Option("--due-within", min=0, max=36_600, metavar="DAYS", help="Only those due within so many days."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The closed ones, too.")] = False,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List requests, the most urgent first."""
    from kiki.cli import dsr_show

    wanted: dict[str, Any] = {"state": state, "kind": kind, "customer": customer}
    if due_within is not None:
        wanted["due_before"] = datetime.now(UTC) + timedelta(days=due_within)
    with open_requests(ledger, url, token_file) as requests:
        found = requests.list(**wanted, is_open=None if everything or state else True)
    if as_json:
        show.as_json(dsr_show.plain(found))
    elif not found:
        show.line("no requests")
    else:
        dsr_show.table(found)


@app.command("show")
def show_(
    number: Number,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one request: its clocks, and what became of every system."""
    from kiki.cli import dsr_show

    with open_requests(ledger, url, token_file) as requests:
        reply = requests.get(number)
    if as_json:
        show.as_json(reply)
    else:
        dsr_show.whole(reply)


@app.command()
def verify(
    number: Number,
    agent_proof: Annotated[
        str, typer.Option("--agent-proof", metavar="TEXT", help="Where the agent's signed permission lies; sealed.")
    ] = "",
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="How the identity was checked; sealed.")] = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Vouch that whoever asks is the person, or may act for them."""
    with open_requests(ledger, url, token_file) as requests:
        reply = requests.vouch(number, agent_proof, note)
    _answer(reply, as_json=as_json)


@app.command()
def run(
    number: Annotated[
        str | None,
        typer.Argument(metavar="[REQUEST]", help="The request's id; without it, every one that is due to run."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the person's copy there: a zip, mode 0600."),
    ] = None,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Run a request over every system that holds the person.

    Exit code 3 when it could not finish: it then waits, with the reason, and goes on where it stopped.
    """
    from kiki.cli import dsr_show

    if number is None and output is not None:
        raise InvalidInput("name the request whose copy is to be written")
    with open_requests(ledger, url, token_file) as requests:
        with dsr_show.live() as progress:
            done = [requests.run(number, progress)] if number else list(requests.run_due(progress))
        if output is not None and number is not None:
            if done[0].package_sha256:
                requests.write_package(number, output)
                show.talk(f"written: {output}", dim=True)
            else:
                show.talk(f"not written: {output}, because this request has no copy of the data")
    if as_json:
        show.as_json(dsr_show.plain(done) if number is None else done[0])
    elif not done:
        show.line("no request is due to run")
    else:
        for reply in done:
            dsr_show.ended(reply)
    if any(dsr_show.is_open(reply) for reply in done):
        raise typer.Exit(show.EXIT_REFUSED)


@app.command()
def pause(
    number: Number,
    end: Annotated[bool, typer.Option("--end", help="The wait is over: the clock goes on.")] = False,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What was asked for; sealed.")] = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write down that the person was asked for proof of identity.

    The clock of GDPR stands still, if that was asked without delay; that of CCPA runs on.
    """
    with open_requests(ledger, url, token_file) as requests:
        reply = requests.step("resume" if end else "pause", number, note=note)
    _answer(reply, as_json=as_json)


@app.command()
def extend(
    number: Number,
    reason: Reason,
    regime: Annotated[
        list[str] | None, typer.Option("--regime", metavar="LAW", help="Only under this law; repeatable.")
    ] = None,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take more time, after the person was told so with the reasons.

    Two months more under GDPR, 45 days under CCPA; refused when the time to tell is over.
    """
    with open_requests(ledger, url, token_file) as requests:
        reply = requests.step("extend", number, reason=reason, regimes=regime or None)
    _answer(reply, as_json=as_json)


@app.command()
def assign(
    number: Number,
    to: Annotated[str, typer.Argument(metavar="NAME", help="Who takes care of it.")],
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Name who takes care of a request."""
    with open_requests(ledger, url, token_file) as requests:
        reply = requests.step("assign", number, to=to)
    _answer(reply, as_json=as_json)


@app.command()
def acknowledge(
    number: Number,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write down that the person was told that the request was received (CCPA)."""
    with open_requests(ledger, url, token_file) as requests:
        reply = requests.step("acknowledge", number)
    _answer(reply, as_json=as_json)


@app.command()
def close(
    number: Number,
    refuse: Annotated[
        str | None, typer.Option("--refuse", metavar="PROVISION", help="Refuse it under this provision: 'GDPR 12(5)'.")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="The person took it back.")] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What the person was told; sealed.")] = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Close a request without running it: refused under a provision, or taken back."""
    if (refuse is None) is not cancel or (refuse is not None and not reason):
        raise InvalidInput("say why: --refuse PROVISION with --reason, or --cancel")
    with open_requests(ledger, url, token_file) as requests:
        if refuse is not None:
            reply = requests.step("refuse", number, article=refuse, reason=reason)
        else:
            reply = requests.step("cancel", number, reason=reason)
    _answer(reply, as_json=as_json)


@app.command()
def hold(
    matter: Annotated[
        str | None,
        typer.Argument(metavar="[MATTER]", help="The matter's reference, without personal data; without it, list."),
    ] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="Only this customer; without it, everybody.")
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift it; deletions that it stopped can be run then.")] = False,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Put a legal hold on a customer or on everybody, lift it, or list the holds.

    Under a hold nothing is erased, and no evidence is pruned.
    """
    from kiki.cli import dsr_show

    if lift and matter is None:
        raise InvalidInput("name the matter whose hold is lifted")
    with open_requests(ledger, url, token_file, may_make=matter is not None) as requests:
        if matter is not None and lift:
            reopened = requests.lift(matter, customer)
            if as_json:
                show.as_json({"lifted": matter, "reopened": [reply.request_id for reply in reopened]})
            else:
                show.line(f"lifted: {matter}")
                for reply in reopened:
                    show.line(f"  can be run now: {reply.request_id}")
            return
        if matter is not None:
            requests.hold(matter, customer)
        told = requests.holds()
    if as_json:
        show.as_json(dsr_show.plain(told))
        return
    for each in told:
        whom = "everybody" if each.everybody else each.customer_id or "(erased)"
        show.line(f"{each.reference:<24}{each.at[:19]}Z  {whom}")
    if not told:
        show.line("no legal holds")


@app.command()
def proof(
    number: Annotated[str | None, typer.Argument(metavar="[REQUEST]", help="The request's id.")] = None,
    check: Annotated[Path | None, typer.Option("--check", metavar="FILE", help="Check this proof instead.")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY|FILE", help="The ledger's verifier key, for --check, or its file: kiki audit key."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Print the signed proof of what became of a request, or check one.

    It names nobody. Exit code 3 when a proof that is checked does not hold.
    """
    if check is not None:
        _check_proof(check, key, as_json=as_json)
        return
    if number is None:
        raise InvalidInput("name the request, or a proof with --check FILE --key KEY")
    with open_requests(ledger, url, token_file) as requests:
        text = requests.proof(number)
    if output is not None:
        from kiki.shield.new_file import new_file

        with new_file(output) as file:
            file.write(text.encode())
        show.talk(f"written: {output}", dim=True)
    elif as_json:
        show.as_json({"request_id": number, "proof": text})
    else:
        print(text, end="")


def _check_proof(file: Path, key: str | None, *, as_json: bool) -> None:
    from kiki.cli.ledger_access import key_text
    from kiki.errors import EvidenceInvalid
    from kiki.shield.request_proof import verify_request_proof

    key = key_text(key)
    if key is None:
        raise InvalidInput("a proof is checked with the ledger's verifier key: --key KEY, or the file that holds it")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None
    try:
        found = verify_request_proof(data, key)
    except EvidenceInvalid as error:
        if as_json:
            show.as_json({"holds": False, "explanation": str(error)})
        else:
            show.line(f"does not hold: {error}")
        raise typer.Exit(show.EXIT_REFUSED) from None
    if as_json:
        show.as_json({"holds": True, **found.document})
    else:
        show.line(f"holds: {found.request}, {found.kind}, {found.state} at {found.closed_at}")


# -- telling -----------------------------------------------------------------------------


def _answer(reply: RequestReply, *, as_json: bool) -> None:
    from kiki.cli import dsr_show

    if as_json:
        show.as_json(reply)
        return
    due = f", due {reply.due_at[:10]}" if reply.due_at and dsr_show.is_open(reply) else ""
    assigned = f", assigned to {reply.assignee}" if reply.assignee else ""
    show.line(f"{reply.request_id}: {reply.type}, {reply.state}{due}{assigned}")


def _corrections(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, divider, value = text.partition("=")
        if not divider or not name:
            raise InvalidInput(f"{text[:40]!r} says nothing: write --set field=value")
        found[name] = value
    return found
