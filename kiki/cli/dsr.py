"""`kiki dsr`: requests of data subjects, from receipt to proof."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.consent_ledger import LedgerPath, actor
from kiki.cli.options import Json
from kiki.cli.request_ledger import open_desk
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.shield.request_intake import Given
    from kiki.shield.request_record import RequestRecord

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
        str | None, typer.Option("--received", metavar="WHEN", help="When it came in, in the past: a day or RFC 3339.")
    ] = None,
    key: Annotated[
        str, typer.Option("--key", metavar="TEXT", help="Idempotency key: the same key is the same request.")
    ] = "",
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Take in a request.

    While one of the same person and type is open, that one is answered.
    """
    given: Given = {
        "details": details,
        "requested_by": requested_by,
        "agent": agent,
        "actor": actor(),
        "key": key,
        "corrections": _corrections(correct or []),
        "purposes": purpose or [],
        "regimes": regime or [],
    }
    if received is not None:
        from kiki.shield.consent_csv import parse_when

        given["received_at"] = parse_when(received)
    with open_desk(ledger, may_make=True) as desk:
        record = desk.create(customer, kind, **given)
        if as_json:
            show.as_json({**record.as_dict(), "is_new": record.is_new})
            return
        _tell(record, "received" if record.is_new else "is open already")
        if record.kind.needs_identity and record.request.verified_at is None:
            show.talk(f"check who asks, then: kiki dsr verify {record.id}")


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option("--state", metavar="WORD", help="Only those in this state.")] = None,
    kind: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only those of this type.")] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="Only those of this customer.")
    ] = None,
    due_within: Annotated[
        int | None, typer.Option("--due-within", min=0, metavar="DAYS", help="Only those due within so many days.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The closed ones, too.")] = False,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """List requests, the most urgent first."""
    from kiki.cli import dsr_show

    with open_desk(ledger) as desk:
        now = desk.decider.clock()
        found = desk.list(
            state=state,
            kind=kind,
            customer=customer,
            due_before=None if due_within is None else dsr_show.within_micros(due_within, now),
            is_open=None if everything or state else True,
        )
    if as_json:
        show.as_json([record.as_dict() for record in found])
    elif not found:
        show.line("no requests")
    else:
        dsr_show.table(found, now)


@app.command("show")
def show_(number: Number, ledger: LedgerPath = None, as_json: Json = False) -> None:
    """Show one request: its clocks, and what became of every system."""
    from kiki.cli import dsr_show

    with open_desk(ledger) as desk:
        record, now = desk.get(number), desk.decider.clock()
    if as_json:
        show.as_json(record.as_dict())
    else:
        dsr_show.whole(record, now)


@app.command()
def verify(
    number: Number,
    agent_proof: Annotated[
        str, typer.Option("--agent-proof", metavar="TEXT", help="Where the agent's signed permission lies; sealed.")
    ] = "",
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="How the identity was checked; sealed.")] = "",
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Vouch that whoever asks is the person, or may act for them."""
    with open_desk(ledger) as desk:
        record = desk.verify_identity(
            number, method="operator", agent_proof=agent_proof, note=note, actor=actor() or "operator"
        )
    _answer(record, "verified", as_json=as_json)


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
    as_json: Json = False,
) -> None:
    """Run a request over every system that holds the person.

    Exit code 3 when it could not finish: it then waits, with the reason, and goes on where it stopped.
    """
    from kiki.cli import dsr_show
    from kiki.shield.dsr import State

    if number is None and output is not None:
        raise InvalidInput("name the request whose copy is to be written")
    with open_desk(ledger) as desk:
        with dsr_show.live() as progress:
            done = (
                [desk.run(number, progress, actor=actor())] if number else list(desk.run_due(progress, actor=actor()))
            )
        for record in done:
            if output is not None and record.request.package:
                _write(output, desk.package(record.id))
    if as_json:
        show.as_json([record.as_dict() for record in done] if number is None else done[0].as_dict())
    elif not done:
        show.line("no request is due to run")
    else:
        for record in done:
            dsr_show.ended(record)
    if any(record.state is State.WAITING for record in done):
        raise typer.Exit(show.EXIT_REFUSED)


@app.command()
def pause(
    number: Number,
    end: Annotated[bool, typer.Option("--end", help="The wait is over: the clock goes on.")] = False,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What was asked for; sealed.")] = "",
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Write down that the person was asked for proof of identity.

    The clock of GDPR stands still, if that was asked without delay; that of CCPA runs on.
    """
    with open_desk(ledger) as desk:
        take = desk.resume if end else desk.pause
        record = take(number, note=note, actor=actor())
    _answer(record, "resumed" if end else "paused", as_json=as_json)


@app.command()
def extend(
    number: Number,
    reason: Reason,
    regime: Annotated[
        list[str] | None, typer.Option("--regime", metavar="LAW", help="Only under this law; repeatable.")
    ] = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Take more time, after the person was told so with the reasons.

    Two months more under GDPR, 45 days under CCPA; refused when the time to tell is over.
    """
    with open_desk(ledger) as desk:
        record = desk.extend(number, reason, regimes=regime or None, actor=actor())
    _answer(record, "extended", as_json=as_json)


@app.command()
def assign(
    number: Number,
    to: Annotated[str, typer.Argument(metavar="NAME", help="Who takes care of it.")],
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Name who takes care of a request."""
    with open_desk(ledger) as desk:
        record = desk.assign(number, to, actor=actor())
    _answer(record, f"assigned to {to}", as_json=as_json)


@app.command()
def acknowledge(number: Number, ledger: LedgerPath = None, as_json: Json = False) -> None:
    """Write down that the person was told that the request was received (CCPA)."""
    with open_desk(ledger) as desk:
        record = desk.acknowledge(number, actor=actor())
    _answer(record, "acknowledged", as_json=as_json)


@app.command()
def close(
    number: Number,
    refuse: Annotated[
        str | None, typer.Option("--refuse", metavar="PROVISION", help="Refuse it under this provision: 'GDPR 12(5)'.")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="The person took it back.")] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What the person was told; sealed.")] = "",
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Close a request without running it: refused under a provision, or taken back."""
    if (refuse is None) is not cancel:
        raise InvalidInput("say why: --refuse PROVISION with --reason, or --cancel")
    with open_desk(ledger) as desk:
        if refuse is not None:
            record = desk.refuse(number, refuse, reason, actor=actor())
        else:
            record = desk.cancel(number, reason, actor=actor())
    _answer(record, "refused" if refuse is not None else "cancelled", as_json=as_json)


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
    as_json: Json = False,
) -> None:
    """Put a legal hold on a customer or on everybody, lift it, or list the holds.

    Under a hold nothing is erased, and no evidence is pruned.
    """
    from kiki.clock import to_iso

    with open_desk(ledger, may_make=matter is not None) as desk:
        if matter is not None and lift:
            reopened = desk.lift(matter, customer, actor=actor())
            if as_json:
                show.as_json({"lifted": matter, "reopened": [record.id for record in reopened]})
            else:
                show.line(f"lifted: {matter}")
                for record in reopened:
                    show.line(f"  can be run now: {record.id}")
            return
        if matter is not None:
            desk.hold(matter, customer, actor=actor())
        told = [
            {
                "matter": one.reference,
                "customer_id": desk.holds.customer_of(one),
                "everybody": not one.subject,
                "since": to_iso(one.at),
                "actor": one.actor,
            }
            for one in desk.holds.all()
        ]
    if as_json:
        show.as_json(told)
        return
    for each in told:
        whom = "everybody" if each["everybody"] else each["customer_id"]
        show.line(f"{each['matter']:<24}{each['since']}  {whom}")
    if not told:
        show.line("no legal holds")


@app.command()
def proof(
    number: Annotated[str | None, typer.Argument(metavar="[REQUEST]", help="The request's id.")] = None,
    check: Annotated[Path | None, typer.Option("--check", metavar="FILE", help="Check this proof instead.")] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="VKEY", help="The ledger's verifier key, for --check: kiki audit key."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Print the signed proof of what became of a request, or check one.

    It names nobody. Exit code 3 when a proof that is checked does not hold.
    """
    if check is not None:
        _check_proof(check, key, as_json=as_json)
        return
    if number is None:
        raise InvalidInput("name the request, or a proof with --check FILE --key VKEY")
    with open_desk(ledger) as desk:
        text = desk.proof(number)
    if output is not None:
        _write(output, iter([text.encode()]))
    elif as_json:
        show.as_json({"request_id": number, "proof": text})
    else:
        print(text, end="")


def _check_proof(file: Path, key: str | None, *, as_json: bool) -> None:
    from kiki.errors import EvidenceInvalid
    from kiki.shield.request_proof import verify_request_proof

    if key is None:
        raise InvalidInput("a proof is checked with the ledger's verifier key: --key VKEY")
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


# -- telling and writing -----------------------------------------------------------------------------


def _answer(record: RequestRecord, done: str, *, as_json: bool) -> None:
    if as_json:
        show.as_json(record.as_dict())
    else:
        _tell(record, done)


def _tell(record: RequestRecord, done: str) -> None:
    from kiki.clock import to_iso

    due = "" if record.due_at is None or not record.state.is_open else f", due {to_iso(record.due_at)[:10]}"
    show.line(f"{record.id}: {done} ({record.state}{due})")


def _corrections(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, divider, value = text.partition("=")
        if not divider or not name:
            raise InvalidInput(f"{text[:40]!r} says nothing: write --set field=value")
        found[name] = value
    return found


def _write(file: Path, parts: Iterable[bytes]) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
            os.fchmod(out.fileno(), 0o600)
            for each in parts:
                out.write(each)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    show.talk(f"written: {file}", dim=True)
