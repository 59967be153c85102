"""Where `kiki loyalty` finds the points: in the data directory, or in the PostgreSQL of DATABASE_URL."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from kiki.cli import show
from kiki.errors import CodeDenied, InvalidInput, PointsShort

if TYPE_CHECKING:
    from kiki.engage.loyalty_ledger import LoyaltyLedger

STORE = "loyalty.db"
PROGRAM = "loyalty.yaml"
PROGRAM_BYTES_MAX = 2**20

Customer = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
Entry = Annotated[int, typer.Argument(metavar="ENTRY", help="The number of the entry, as `history` shows it.")]
Order = Annotated[str, typer.Option("--order", metavar="TEXT", help="The order it is about.")]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="TEXT", help="Idempotency key: said again with it, it is not done again."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where loyalty.db lies. By default DATABASE_URL, then KIKI_DATA_DIR, then ./kiki-data.",
    ),
]
ProgramFile = Annotated[
    Path | None,
    typer.Option("--program", metavar="FILE", help="The program. By default loyalty.yaml in the data directory."),
]


@contextlib.contextmanager
def open_loyalty(data_dir: Path | None, program: Path | None = None) -> Iterator[LoyaltyLedger]:
    """The ledger of points that the options name, with its program."""
    from kiki.engage.loyalty_ledger import LoyaltyLedger
    from kiki.engage.loyalty_program import Program, read_program
    from kiki.settings import LedgerSettings

    settings = LedgerSettings.parse(os.environ)
    directory = data_dir or settings.data_dir
    file = program or directory / PROGRAM
    rules = read_program(_text(file)) if program is not None or file.exists() else Program()
    shared = settings.database_url if data_dir is None else None
    with LoyaltyLedger.open(directory / STORE if shared is None else shared.reveal(), rules) as ledger:
        yield ledger


def _text(file: Path) -> str:
    try:
        with file.open("rb") as source:
            data = source.read(PROGRAM_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > PROGRAM_BYTES_MAX:
        raise InvalidInput(f"{file} is larger than {PROGRAM_BYTES_MAX} bytes, and no loyalty program is")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not UTF-8") from None


def key_or_new(key: str | None) -> str:
    """The key that was given, or one that nobody used."""
    return secrets.token_hex(16) if key is None else key


def refused(error: PointsShort | CodeDenied, *, json_wanted: bool) -> NoReturn:
    """Show a refusal, which is a result, and end."""
    if json_wanted:
        told: dict[str, object] = {"done": False, "code": error.code, "explanation": str(error)}
        told |= {"available": error.available} if isinstance(error, PointsShort) else {"reason": error.reason}
        show.as_json(told)
    else:
        show.line(f"refused: {error}")
    raise typer.Exit(show.EXIT_REFUSED)
