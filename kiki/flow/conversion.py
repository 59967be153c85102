"""Conversions and what they turned out to be worth: a CSV file, read and checked as a whole before anything is sent. Pure.

order,click,at,value,customer
1001,Cj0KCQiA,2026-12-01T14:03:00-05:00,49.90,c-17
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from kiki.clock import to_iso
from kiki.errors import InvalidInput, UploadError
from kiki.flow.plan import Plan
from kiki.flow.words import parse_amount
from kiki.money import MICROS_MAX
from kiki.shield.consent_words import parse_customer_id
from kiki.shield.wire_moment import moment_micros

COLUMNS: Final = ("order", "click", "at", "value", "customer")
CONVERSIONS_MAX: Final = 5000
"""So many rows are read at once."""
ORDER_LENGTH_MAX: Final = 64
CLICK_LENGTH_MAX: Final = 512
PROBLEMS_MAX: Final = 100

_LOCAL: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(:\d\d)?", re.ASCII)
_AMBIGUOUS: Final = re.compile(r"[^.]*,\d{3}\D*", re.ASCII)
"""Where semicolons divide, a comma may stand before decimals."""
_FAR: Final = 253_402_300_799_000_000
"""The end of the year 9999."""
_TOO_MANY: Final = f"there are more than {CONVERSIONS_MAX} rows; divide them, for each order is sent once"
_COLUMNS_ACCEPTED: Final = f"write the columns {','.join(COLUMNS)}, divided by commas or semicolons"

Value = TypeVar("Value")
_Problem = tuple[int, str]
"""A row, and what is wrong with it."""


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    order: str
    """The order's id, by which platforms know it again; nothing personal."""
    click: str
    """The platform's click id."""
    at: int
    """When it happened, in microseconds since the epoch."""
    value: int
    """Micros of the plan's currency."""
    customer: str
    """Whose consent is asked for; it goes to no platform."""


def parse_conversions(text: str, plan: Plan, now: int) -> list[Conversion]:
    """What a file says, each order once; raises `UploadError` with every mistake and its row."""
    problems: list[_Problem] = []
    found = []
    for row, fields in _rows(text, problems):
        wrong: list[str] = []
        given = _read(fields, plan, wrong)
        problems += [(row, what) for what in wrong]
        if given is not None:
            found.append((row, given))
    return _checked(found, now, problems)


def check_conversions(given: Sequence[Conversion], now: int) -> list[Conversion]:
    """The same for conversions that a program made; the first is row 1."""
    problems = [(CONVERSIONS_MAX + 1, _TOO_MANY)] if len(given) > CONVERSIONS_MAX else []
    return _checked(enumerate(given[:CONVERSIONS_MAX], start=1), now, problems)


def parse_at(text: str, time_zone: str) -> int:
    """A moment in RFC 3339, or without an offset one of the plan's time zone; raises `InvalidInput`."""
    match = _LOCAL.fullmatch(text)
    try:
        if match is None:
            return moment_micros(text)
        local = datetime.fromisoformat(f"{match[1]}T{match[2]}{match[3] or ':00'}").replace(tzinfo=ZoneInfo(time_zone))
        offset = local.utcoffset()
    except (ValueError, OverflowError):
        accepted = f"write 2026-12-01T14:03:00-05:00, or 2026-12-01 14:03 in {time_zone}"
        raise InvalidInput(f"{text[:40]!r} is not a moment: {accepted}") from None
    if offset != local.replace(fold=1).utcoffset():
        raise InvalidInput(
            f"{text!r} is in an hour in which the clocks of {time_zone} change; write its offset, such as -05:00"
        )
    return moment_micros(local.isoformat())


def _rows(text: str, problems: list[_Problem]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows below the header, which is row 1, by column; empty ones are passed over."""
    text = text.removeprefix("\ufeff")
    # Spreadsheets of half the world divide by semicolons.
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    row, names, count = 1, _header(rows), 0
    while True:
        row += 1
        try:
            fields = next(rows, None)
        except csv.Error as error:
            problems.append((row, f"this is not CSV, and what follows was not read: {error}"))
            return
        if fields is None:
            return
        if not any(fields):
            continue
        count += 1
        if count > CONVERSIONS_MAX:
            problems.append((row, _TOO_MANY))
            return
        if len(fields) == len(names):
            told = {name: field.strip() for name, field in zip(names, fields, strict=True)}
            if delimiter == ";" and _AMBIGUOUS.fullmatch(told["value"]):
                problems.append((row, f"value: {told['value'][:40]!r} may be two amounts; write 1249 or 1.249"))
                continue
            yield row, told
        else:
            problems.append((row, f"it has {len(fields)} fields, and the first row names {len(names)}"))


def _header(rows: Iterator[list[str]]) -> list[str]:
    try:
        fields = next(rows, [])
    except csv.Error as error:
        raise UploadError([f"row 1: this is not CSV: {error}"]) from None
    names = [field.strip().lower() for field in fields]
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in COLUMNS if name not in names]
    if unknown:
        raise UploadError([f"row 1: the column {unknown[0][:40]!r} is not known; {_COLUMNS_ACCEPTED}"])
    if missing or len(names) > len(COLUMNS):
        what = f"the column {missing[0]!r} is missing" if missing else "a column stands twice"
        raise UploadError([f"row 1: {what}; {_COLUMNS_ACCEPTED}"])
    return names


def _read(fields: Mapping[str, str], plan: Plan, wrong: list[str]) -> Conversion | None:
    """What a row says; None, and every mistake told, where a moment or an amount makes no sense."""

    def read(name: str, parse: Callable[[str], Value]) -> Value | None:
        try:
            return parse(fields[name])
        except InvalidInput as error:
            wrong.append(f"{name}: {error}")
            return None

    at = read("at", lambda text: parse_at(text, plan.time_zone))
    value = read("value", lambda text: parse_amount(text, plan.currency))
    if at is None or value is None:
        wrong += _texts(fields["order"], fields["click"], fields["customer"])
        return None
    return Conversion(order=fields["order"], click=fields["click"], at=at, value=value, customer=fields["customer"])


def _checked(given: Iterable[tuple[int, Conversion]], now: int, problems: list[_Problem]) -> list[Conversion]:
    """Each order once; raises `UploadError` when anything is wrong, here or before."""
    first: dict[str, tuple[int, Conversion]] = {}
    for row, each in given:
        problems += [(row, what) for what in _wrong(each, now)]
        known, same = first.setdefault(each.order, (row, each))
        if same != each:
            others = [name for name in COLUMNS if getattr(same, name) != getattr(each, name)]
            problems.append((row, f"the order of row {known} again, with another {' and '.join(others)}"))
    if problems:
        told = [f"row {row}: {what}" for row, what in sorted(problems, key=lambda each: each[0])]
        more = [f"and {len(told) - PROBLEMS_MAX} more"] if len(told) > PROBLEMS_MAX else []
        raise UploadError([*told[:PROBLEMS_MAX], *more])
    return [each for _, each in first.values()]


def _wrong(each: Conversion, now: int) -> Iterator[str]:
    yield from _texts(each.order, each.click, each.customer)
    if each.at > now:
        yield f"at: {to_iso(each.at)} is in the future" if each.at < _FAR else "at: it is in the future"
    elif each.at < 0:
        yield "at: it is before 1970"
    if not 0 < each.value <= MICROS_MAX:
        yield "value: it is not a positive amount"


def _texts(order: str, click: str, customer: str) -> Iterator[str]:
    # Never what stands there: whoever took one column for another may have put a person's name into it.
    for name, text, most in (("order", order, ORDER_LENGTH_MAX), ("click", click, CLICK_LENGTH_MAX)):
        if not text:
            yield f"{name}: it is empty"
        elif len(text) > most or not text.isprintable():
            yield f"{name}: write 1 to {most} printable characters"
    try:
        parse_customer_id(customer)
    except InvalidInput as error:
        yield f"customer: {error}"
