"""The options that many commands share, and what they are turned into. Heavy modules are imported on use only."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.shield.shield_client import ShieldClient

JSON_META = "kiki.json"
"""Where the context remembers that errors are wanted as JSON, too."""

LEDGER = "shield.db"
"""The ledger's file in the data directory."""


def _remember_json(context: typer.Context, value: bool) -> bool:
    context.meta[JSON_META] = value
    return value


Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where SyncShield is. By default KIKI_SHIELD_URL, then SHIELD_URL, then http://localhost:8081.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="A file with the bearer token. By default KIKI_SHIELD_TOKEN, then KIKI_SHIELD_TOKEN_FILE.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", callback=_remember_json, is_eager=True, help="Print JSON; errors too, to stderr.")
]
Amount = Annotated[str, typer.Option("--amount", metavar="MONEY", help="How much, for example 12.34.")]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="KIND:VALUE", help="What it is for, for example platform:meta. Repeatable."),
]
Purpose = Annotated[
    str | None,
    typer.Option("--purpose", metavar="NAME", help="What a customer named in a scope must have consented to."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="TEXT", help="Idempotency key: the same key is the same call, and counts once."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where the ledger lies. By default KIKI_DATA_DIR, then ./kiki-data."
    ),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="From then on: 2h, 7d, 2026-11-22 or RFC 3339.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help="Before that: 2h, 7d, 2026-11-22 or RFC 3339.")
]
OutcomeWord = Annotated[
    str | None, typer.Option("--outcome", metavar="WORD", help="Only APPROVED, DENIED or UNKNOWN ones.")
]
OneScope = Annotated[str | None, typer.Option("--scope", metavar="KIND:VALUE", help="Only what carries this scope.")]


def open_client(
    url: str | None, token_file: Path | None, *, retries: int | None = None, timeout: float | None = None
) -> ShieldClient:
    """The client that the options ask for."""
    from kiki.shield import shield_client as home

    return home.ShieldClient(
        url,
        token=None if token_file is None else home.read_token(token_file),
        retries=home.RETRIES if retries is None else retries,
        timeout=home.TIMEOUT if timeout is None else timeout,
    )


def data_directory(given: Path | None) -> Path:
    """Where the ledger lies."""
    return given or Path(os.environ.get("KIKI_DATA_DIR") or "kiki-data")


_RELATIVE = re.compile(r"([0-9]{1,6})(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_when(text: str | None, now: datetime | None = None) -> datetime | None:
    """The moment in `2h` (ago), `2026-11-22` (its midnight, UTC) or RFC 3339; None for None."""
    if text is None:
        return None
    relative = _RELATIVE.fullmatch(text.strip())
    try:
        if relative:
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[relative[2]]: int(relative[1])})
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{text!r} is no moment that there is") from None
    from kiki.shield.wire_moment import parse_moment

    try:
        return parse_moment(text)
    except InvalidInput:
        raise InvalidInput(
            f"{text[:40]!r} is not a moment: write 45s, 30m, 2h, 7d or 2w (ago), 2026-11-22, or RFC 3339"
        ) from None


def require_order(begin: int | None, end: int | None) -> None:
    """Refuse a time that ends before it begins; raises `InvalidInput`."""
    if begin is not None and end is not None and begin >= end:
        raise InvalidInput("the period's beginning must be before its end")


def when_micros(text: str | None) -> int | None:
    """The same in microseconds since the epoch."""
    moment = parse_when(text)
    return None if moment is None else round(moment.timestamp() * 1_000_000)
