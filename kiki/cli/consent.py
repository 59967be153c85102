"""`kiki consent`: who consented to what; grant it, take it back, carry lists of it in and out."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.consent_access import open_consents
from kiki.cli.consent_ledger import LedgerPath
from kiki.cli.consent_lists import export, import_
from kiki.cli.options import Json, TokenFile, Url
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.cli.consent_access import Told
    from kiki.shield.consent_change import Given

app = typer.Typer(help="Who consented to what.", no_args_is_help=True, rich_markup_mode=None)

Customer = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
Purpose = Annotated[
    str,
    typer.Argument(
        metavar="PURPOSE", help="marketing, analytics, targeting, profiling, data_sharing, or one of KIKI_PURPOSES."
    ),
]
Version = Annotated[str, typer.Option("--version", metavar="TEXT", help="Of the notice that was shown.")]
Basis = Annotated[str | None, typer.Option("--basis", metavar="WORD", help="The legal basis, by default consent.")]
How = Annotated[str | None, typer.Option("--method", metavar="WORD", help="How it was said: form, email, phone, ...")]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it is sealed for this person.")]
Jurisdiction = Annotated[str, typer.Option("--jurisdiction", metavar="TEXT", help="Whose law, for example EU, US-CA.")]
SaidAt = Annotated[
    str | None, typer.Option("--said-at", metavar="WHEN", help="When it was said, in the past: a day or RFC 3339.")
]


@app.command()
def grant(
    customer: Customer,
    purpose: Purpose,
    version: Version = "",
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="WHEN", help="365d (from now), 2027-11-22 or RFC 3339.")
    ] = None,
    basis: Basis = None,
    method: How = None,
    notice: Annotated[
        Path | None, typer.Option("--notice", metavar="FILE", help="The text that was shown; its SHA-256 is the proof.")
    ] = None,
    jurisdiction: Jurisdiction = "",
    guardian: Annotated[str, typer.Option("--guardian", metavar="NAME", help="Who speaks for the person.")] = "",
    overrides: Annotated[
        bool, typer.Option("--overrides", help="The person was told that an opt-out signal (GPC) says otherwise.")
    ] = False,
    said_at: SaidAt = None,
    note: Note = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write down that a customer consents.

    What holds already is answered and not written again.
    """
    given = _given(version=version, basis=basis, method=method, jurisdiction=jurisdiction, said_at=said_at, note=note)
    if expires is not None:
        given["expires_at"] = _expiry(expires)
    if notice is not None:
        given["notice"] = _read(notice)
    given["guardian"] = guardian
    given["overrides"] = overrides
    with open_consents(ledger, url, token_file, may_make=True) as consents:
        _tell(consents.say(customer, purpose, "granted", given), "granted", as_json=as_json)


@app.command()
def revoke(
    customer: Customer,
    purpose: Purpose,
    method: How = None,
    said_at: SaidAt = None,
    note: Note = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write down that a customer takes consent back.

    Returns once nobody acts on it any more. What was never granted can be revoked, too.
    """
    given = _given(method=method, said_at=said_at, note=note)
    with open_consents(ledger, url, token_file, may_make=True) as consents:
        _tell(consents.say(customer, purpose, "revoked", given), "revoked", as_json=as_json)


@app.command()
def deny(
    customer: Customer,
    purpose: Purpose,
    version: Version = "",
    method: How = None,
    said_at: SaidAt = None,
    note: Note = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write down that a customer was asked and said no."""
    given = _given(version=version, method=method, said_at=said_at, note=note)
    with open_consents(ledger, url, token_file, may_make=True) as consents:
        _tell(consents.say(customer, purpose, "denied", given), "denied", as_json=as_json)


@app.command()
def status(
    customer: Customer,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what a customer consents to now."""
    with open_consents(ledger, url, token_file) as consents:
        records = consents.status(customer)
    if as_json:
        show.as_json({purpose: record.as_dict() for purpose, record in records.items()})
    elif not records:
        show.line("nothing is known of this customer")
    else:
        _table(records.values())


@app.command()
def history(
    customer: Customer,
    purpose: Annotated[str | None, typer.Option("--purpose", metavar="WORD", help="Only this purpose.")] = None,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show everything a customer ever said, oldest first."""
    with open_consents(ledger, url, token_file) as consents:
        records = consents.history(customer, purpose)
    if as_json:
        show.as_json([record.as_dict() for record in records])
    elif not records:
        show.line("nothing is known of this customer")
    else:
        _table(records)


@app.command()
def check(
    customer: Customer,
    purpose: Purpose,
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Ask whether a customer consents now.

    Exit code 0 when, 3 when not. Nothing is written down.
    """
    with open_consents(ledger, url, token_file) as consents:
        found = consents.check(customer, purpose)
    if as_json:
        told = {"allowed": found.allowed, "purpose": purpose, "state": found.state}
        rest = {"event_id": found.event_id} if found.allowed else {"explanation": found.explanation}
        show.as_json(told | rest)
    else:
        show.line(f"yes (event {found.event_id})" if found.allowed else f"no: {found.explanation}")
    if not found.allowed:
        raise typer.Exit(show.EXIT_REFUSED)


app.command("import")(import_)
app.command()(export)


# -- reading options ---------------------------------------------------------------------------------


def _given(
    *,
    version: str = "",
    basis: str | None = None,
    method: str | None = None,
    jurisdiction: str = "",
    said_at: str | None = None,
    note: str = "",
) -> Given:
    from kiki.shield.consent_csv import parse_when

    given: Given = {"version": version, "basis": basis, "jurisdiction": jurisdiction, "note": note}
    # Whoever types this enters what somebody said elsewhere.
    given["method"] = method or "operator"
    if said_at is not None:
        given["said_at"] = parse_when(said_at)
    return given


_SPAN = re.compile(r"([0-9]{1,6})(h|d|w)", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def _expiry(text: str) -> timedelta | int:
    from kiki.shield.consent_csv import parse_when

    span = _SPAN.fullmatch(text.strip())
    if span:
        return timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return parse_when(text.strip())
    except InvalidInput:
        raise InvalidInput(
            f"{text[:40]!r} is not when consent expires: write 12h, 365d or 52w (from now), 2027-11-22, or RFC 3339"
        ) from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as text: {error}") from None


# -- telling -----------------------------------------------------------------------------------------


def _tell(told: Told, said: str, *, as_json: bool) -> None:
    record, changed = told
    if record.state != said:
        show.talk(f"nothing was written: what the customer said at {_day(record.said_at)} is newer, and holds")
    if as_json:
        show.as_json(record.as_dict() | ({} if changed is None else {"changed": changed}))
        return
    until = "" if record.expires_at is None else f" until {_day(record.expires_at)}"
    already = ", as it was already" if changed is False else ""
    show.line(f"{record.state}: {record.purpose}{until}{already} (event {record.event_id})")


def _table(records: object) -> None:
    show.line(f"{'purpose':<16}{'state':<10}{'said':<22}{'until':<22}{'version':<10}{'how':<10}event")
    for record in records:  # type: ignore[attr-defined]  # an iterable of records
        show.line(
            f"{record.purpose:<16}{record.state:<10}{_day(record.said_at):<22}{_day(record.expires_at):<22}"
            f"{record.version or '-':<10}{record.method or '-':<10}{record.event_id}"
        )


def _day(moment: int | None) -> str:
    from kiki.clock import to_iso

    return "-" if moment is None else to_iso(moment)[:19] + "Z"
