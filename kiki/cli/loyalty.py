"""`kiki loyalty`: points of customers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import loyalty_codes, show
from kiki.cli.loyalty_access import (
    Customer,
    DataDir,
    Entry,
    Key,
    Order,
    ProgramFile,
    key_or_new,
    open_loyalty,
    refused,
)
from kiki.cli.options import Json
from kiki.clock import to_iso
from kiki.errors import InvalidInput, PointsShort

if TYPE_CHECKING:
    from kiki.engage.loyalty_account import Balance
    from kiki.engage.loyalty_account import Entry as LedgerEntry
    from kiki.engage.loyalty_ledger import LoyaltyLedger, Receipt

app = typer.Typer(help="Points, tiers and coupon codes of customers.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(loyalty_codes.app, name="codes")

Points = Annotated[int, typer.Argument(metavar="POINTS", help="How many points, a whole number.")]


@app.command()
def earn(
    customer: Customer,
    points: Annotated[int | None, typer.Argument(metavar="POINTS", help="How many points.")] = None,
    amount: Annotated[
        str | None, typer.Option("--amount", metavar="MONEY", help="What was paid; the program says what it earns.")
    ] = None,
    order: Order = "",
    key: Key = None,
    program: ProgramFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Give a customer points."""
    _change(
        lambda ledger: ledger.earn(customer, points, amount=amount, order=order, key=key_or_new(key)),
        data_dir,
        program,
        as_json=as_json,
    )


@app.command()
def spend(
    customer: Customer,
    points: Points,
    hold: Annotated[
        bool,
        typer.Option("--hold", help="Only set them aside, until `commit`, `release` or the program's time is over."),
    ] = False,
    order: Order = "",
    key: Key = None,
    program: ProgramFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Take points from a customer, those first that end first; exit code 3 when there are fewer."""

    def change(ledger: LoyaltyLedger) -> Receipt:
        call = ledger.hold if hold else ledger.spend
        return call(customer, points, order=order, key=key_or_new(key))

    _change(change, data_dir, program, as_json=as_json)


@app.command()
def commit(customer: Customer, entry: Entry, key: Key = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """The order of a hold was paid: its points are spent."""
    _change(lambda ledger: ledger.commit(customer, entry, key=key_or_new(key)), data_dir, as_json=as_json)


@app.command()
def release(customer: Customer, entry: Entry, key: Key = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """The order of a hold came to nothing: its points are there again."""
    _change(lambda ledger: ledger.release(customer, entry, key=key_or_new(key)), data_dir, as_json=as_json)


@app.command()
def refund(
    customer: Customer,
    entry: Annotated[
        int | None, typer.Argument(metavar="ENTRY", help="The number of the entry, as `history` shows it.")
    ] = None,
    order: Annotated[str, typer.Option("--order", metavar="TEXT", help="Everything for this order instead.")] = "",
    points: Annotated[
        int | None, typer.Option("--points", metavar="N", help="Only so many of the entry's points.")
    ] = None,
    key: Key = None,
    program: ProgramFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Reverse an earning or a spend once: what was earned is taken back, what was spent comes back."""
    if (entry is None) == (not order):
        raise InvalidInput("say which ENTRY is reversed, or --order for everything of an order")
    if entry is not None:
        place = entry
        _change(
            lambda ledger: ledger.refund(customer, place, points=points, key=key_or_new(key)),
            data_dir,
            program,
            as_json=as_json,
        )
        return
    if points is not None:
        raise InvalidInput("--points goes with an ENTRY; an order is reversed as a whole")
    with open_loyalty(data_dir, program) as ledger:
        receipts = ledger.refund_order(customer, order, key=key_or_new(key))
    if not receipts and not as_json:
        show.line(f"nothing of order {order} was left to reverse")
    for receipt in receipts:
        _tell(receipt, as_json=as_json)


@app.command()
def balance(customer: Customer, program: ProgramFile = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """What a customer has."""
    with open_loyalty(data_dir, program) as ledger:
        found = ledger.balance(customer)
    if as_json:
        show.as_json(_balance(found))
        return
    show.line(
        f"{found.available} points" + (" (a debt: a return came after they were spent)" if found.available < 0 else "")
    )
    if found.pending:
        show.line(f"  {found.pending} more are pending")
    if found.held:
        show.line(f"  {found.held} more are held for orders")
    if found.ends_next is not None:
        at, count = found.ends_next
        show.line(f"  {count} of them end on {to_iso(at)[:10]}")


@app.command()
def history(customer: Customer, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Every entry of a customer, the first one first."""
    with open_loyalty(data_dir) as ledger:
        entries = ledger.history(customer)
    for entry in entries:
        if as_json:
            show.as_json(_entry(entry))
        else:
            about = f" of {entry.about}" if entry.about else ""
            order = f" order {entry.order}" if entry.order else ""
            show.line(f"{entry.place:>5}  {to_iso(entry.at)[:19]}Z  {entry.points:>+8}  {entry.kind}{about}{order}")


@app.command()
def tier(customer: Customer, program: ProgramFile = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """A customer's tier, what it will be, and what is missing to the next."""
    with open_loyalty(data_dir, program) as ledger:
        if not ledger.program.tiers:
            raise InvalidInput("the program has no tiers", hint="write them into loyalty.yaml: docs/loyalty.md")
        found = ledger.standing(customer)
    if as_json:
        until = None if found.until is None else to_iso(found.until)
        show.as_json(found._asdict() | {"until": until})
        return
    show.line(f"{found.tier or 'no tier'}: {found.earned} points count")
    if found.until is not None:
        show.line(f"  until {to_iso(found.until)[:10]}, then {found.projected or 'no tier'} if nothing more is earned")
    if found.next_tier is not None:
        show.line(f"  {found.points_to_next} points to {found.next_tier}")


@app.command()
def expire(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Write down which points ended and which holds ran out, for all customers. Balances are right without it."""
    with open_loyalty(data_dir) as ledger:
        written = ledger.expire()
    if as_json:
        show.as_json({"entries": written})
    else:
        show.line(f"{written} entries written")


@app.command()
def check(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Add everything up: of each account, the entries, the lots and the balance must be one number. Exit code 3 if not."""
    with open_loyalty(data_dir) as ledger:
        totals, problems = ledger.totals(), list(ledger.problems())
    if as_json:
        show.as_json(totals | {"problems": problems})
    else:
        show.line(
            f"{totals['accounts']} accounts, {totals['entries']} entries, {totals['points']} points, "
            f"debts of {totals['debt']}: {'all sums hold' if not problems else 'SUMS DO NOT HOLD'}"
        )
        for problem in problems:
            show.line(f"  {problem}")
    if problems:
        raise typer.Exit(show.EXIT_REFUSED)


def _change(
    change: Callable[[LoyaltyLedger], Receipt], data_dir: Path | None, program: Path | None = None, *, as_json: bool
) -> None:
    try:
        with open_loyalty(data_dir, program) as ledger:
            receipt = change(ledger)
    except PointsShort as error:
        refused(error, json_wanted=as_json)
    _tell(receipt, as_json=as_json)


def _tell(receipt: Receipt, *, as_json: bool) -> None:
    if as_json:
        told = {"done": True, "repeated": receipt.repeated, "entry": _entry(receipt.entry)}
        show.as_json(told | {"balance": _balance(receipt.balance)})
        return
    again = " (done before: the same key)" if receipt.repeated else ""
    entry, now = receipt.entry, receipt.balance
    pending = f", {now.pending} pending" if now.pending else ""
    held = f", {now.held} held" if now.held else ""
    show.line(f"{entry.kind} {entry.points:+} (entry {entry.place}){again}: {now.available} points{pending}{held}")


def _entry(entry: LedgerEntry) -> dict[str, object]:
    return entry._asdict() | {
        "kind": entry.kind.value,
        "at": to_iso(entry.at),
        "about": entry.about or None,
        "order": entry.order or None,
    }


def _balance(found: Balance) -> dict[str, object]:
    ends = None if found.ends_next is None else {"at": to_iso(found.ends_next[0]), "points": found.ends_next[1]}
    return {"available": found.available, "pending": found.pending, "held": found.held, "ends_next": ends}
