"""`kiki loyalty codes`: coupon codes that are good once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.loyalty_access import Customer, DataDir, Order, open_loyalty, refused
from kiki.cli.options import Json, parse_when
from kiki.errors import CodeDenied, InvalidInput

if TYPE_CHECKING:
    from kiki.engage.coupon_book import Code, CouponBook

app = typer.Typer(help="Coupon codes that are good once.", no_args_is_help=True, rich_markup_mode=None)

Pool = Annotated[str, typer.Argument(metavar="POOL", help="What the codes are for: a name of your choice.")]
CodeText = Annotated[str, typer.Argument(metavar="CODE", help="The code; spaces, dashes and small letters do no harm.")]
LockKey = Annotated[
    str, typer.Option("--key", metavar="TEXT", help="Whose lock or redemption it is: the order's number, for example.")
]
OfCustomer = Annotated[
    str, typer.Option("--customer", metavar="ID", help="Who wants to use it; needed for a code that was given.")
]


@app.command()
def issue(
    pool: Pool,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many.")],
    ends: Annotated[
        str | None,
        typer.Option("--ends", metavar="WHEN", help="Until when they are good: 30d, 2027-01-31 or RFC 3339."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make new codes, and print them one a line."""
    from kiki.engage.coupon_book import CouponBook

    until = _until(ends)
    with open_loyalty(data_dir) as ledger:
        codes = CouponBook(ledger).issue(pool, count, ends_at=until)
    for code in codes:
        if as_json:
            show.as_json({"code": code, "pool": pool})
        else:
            show.line(code)


def _until(text: str | None) -> int | None:
    """The moment in `30d` (from now), a day (its end is the next midnight, UTC) or RFC 3339."""
    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        past = parse_when(text, now)
        assert past is not None
        moment = now + (now - past) if text.strip()[-1:] in "smhdw" else past
        if len(text) == len("2027-01-31"):
            moment += timedelta(days=1)
    except (InvalidInput, OverflowError):
        accepted = "write 12h, 30d or 52w (from now), 2027-01-31, or RFC 3339, up to the year 9999"
        raise InvalidInput(f"{text[:40]!r} is not when codes end: {accepted}; leave it out where they do not") from None
    return round(moment.timestamp() * 1_000_000)


@app.command()
def give(pool: Pool, customer: Customer, data_dir: DataDir = None, as_json: Json = False) -> None:
    """A customer's own code of a pool: the same one whenever it is asked for, and nobody else's."""
    from kiki.engage.coupon_book import CouponBook

    with open_loyalty(data_dir) as ledger:
        code = CouponBook(ledger).give(pool, customer)
    if as_json:
        show.as_json({"code": code, "pool": pool, "customer": customer})
    else:
        show.line(code)


@app.command()
def validate(code: CodeText, customer: OfCustomer = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Whether a code is good now; exit code 3 when not."""
    _step(lambda book: book.validate(code, customer), data_dir, as_json=as_json)


@app.command()
def lock(
    code: CodeText,
    key: LockKey,
    customer: OfCustomer = "",
    minutes: Annotated[int, typer.Option("--minutes", min=1, metavar="N", help="How long, in minutes.")] = 30,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Keep a code for one order; the lock ends by itself. Exit code 3 when the code is not good."""
    lasts = minutes * 60_000_000
    _step(lambda book: book.lock(code, key=key, customer=customer, lasts=lasts), data_dir, as_json=as_json)


@app.command()
def redeem(
    code: CodeText,
    key: LockKey,
    customer: OfCustomer = "",
    order: Order = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Use a code up, from its lock or at once. Exit code 3 when the code is not good."""
    _step(lambda book: book.redeem(code, key=key, customer=customer, order=order), data_dir, as_json=as_json)


@app.command()
def unlock(code: CodeText, key: LockKey, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Give a lock up."""
    _switch(lambda book: book.unlock(code, key=key), "unlocked", data_dir, as_json=as_json)


@app.command()
def rollback(code: CodeText, key: LockKey, data_dir: DataDir = None, as_json: Json = False) -> None:
    """The order was cancelled: the code that this key redeemed is good again."""
    _switch(lambda book: book.roll_back(code, key=key), "rolled back", data_dir, as_json=as_json)


@app.command()
def void(code: CodeText, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Make a code that is not redeemed good for nobody."""
    _switch(lambda book: book.void(code), "void", data_dir, as_json=as_json)


@app.command(name="list")
def list_(data_dir: DataDir = None, as_json: Json = False) -> None:
    """By pool how many codes there are in each state."""
    from kiki.engage.coupon_book import CouponBook

    with open_loyalty(data_dir) as ledger:
        counts = CouponBook(ledger).counts()
    if as_json:
        show.as_json(counts)
        return
    for pool, states in counts.items():
        show.line(f"{pool}: {', '.join(f'{count} {state}' for state, count in states.items())}")


def _step(call: Callable[[CouponBook], Code], data_dir: Path | None, *, as_json: bool) -> None:
    from kiki.engage.coupon_book import CouponBook, shown

    try:
        with open_loyalty(data_dir) as ledger:
            found = call(CouponBook(ledger))
    except CodeDenied as error:
        refused(error, json_wanted=as_json)
    if as_json:
        show.as_json({"done": True} | shown(found))
    else:
        show.line(f"{found.code}: {found.state} ({found.pool})")


def _switch(call: Callable[[CouponBook], bool], what: str, data_dir: Path | None, *, as_json: bool) -> None:
    from kiki.engage.coupon_book import CouponBook

    try:
        with open_loyalty(data_dir) as ledger:
            changed = call(CouponBook(ledger))
    except CodeDenied as error:
        refused(error, json_wanted=as_json)
    if as_json:
        show.as_json({"changed": changed})
    else:
        show.line(what if changed else f"nothing to change: it was not in a state to be {what}")
