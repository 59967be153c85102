"""A randomised experiment from elsewhere, read from CSV: who was given which arm by chance, and what came of it. Pure.

Files come as people make them: other delimiters, decimal commas, words for missing values, columns of words. What is left
out is told. A column that came of the arm must not be learned from; `consequences.py` finds those.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from difflib import get_close_matches
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kiki.engage.consequences import FORERUNNER, consequence
from kiki.engage.outcomes import Floats, Outcomes
from kiki.errors import InvalidInput
from kiki.yaml_document import shown

ROWS_MAX: Final = 1_000_000
COLUMNS_MAX: Final = 500
FEATURES_MAX: Final = 60
ARMS_MAX: Final = 20
_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "nil", "?", "-", ".", "#n/a", "unknown"})
_TRUTH: Final = {"true": 1.0, "yes": 1.0, "y": 1.0, "t": 1.0, "false": 0.0, "no": 0.0, "n": 0.0, "f": 0.0}
_CONTROLS: Final = ("control", "held_out", "holdout", "none", "nothing", "no", "0", "false", "placebo", "baseline")
_DELIMITERS: Final = ",;\t|"
_LOST_MOST: Final = 0.1
_WORDS_MOST: Final = 0.05
"""A column of numbers may hold so many words; they are missing values."""
_DORMANCY: Final = (
    "recency", "days_since_purchase", "days_since_last", "months_since_last", "days_since", "months_since",
    "since_last", "dormant", "dormancy", "inactive", "inactivity",
)  # fmt: skip


class Roles(NamedTuple):
    """What the columns are, as far as they were named."""

    arm: str
    outcome: str
    early: str | None = None
    features: Sequence[str] = ()
    """Only these; empty: all that are not a consequence of the arm."""
    ignored: Collection[str] = ()
    dormancy: str | None = None
    """How long somebody has been away."""
    control: str | None = None


class OutsideLog(NamedTuple):
    """The experiment, and what was made of its file."""

    outcomes: Outcomes
    early: str | None
    dormancy: str | None
    away: Floats | None
    """By person how long they have been away; NaN where that is not known."""
    left_out: dict[str, str]
    """By column why it is not learned from."""
    notes: list[str]


def read_outside_log(lines: Iterable[str], roles: Roles, costs: dict[str, float] | None = None) -> OutsideLog:
    """The experiment that these lines of CSV tell; raises `InvalidInput`."""
    notes: list[str] = []
    table = _table(lines, notes)
    arm_name, outcome_name = (_named(table, name) for name in (roles.arm, roles.outcome))
    if arm_name == outcome_name:
        raise InvalidInput(f"the column {shown(arm_name)} cannot be both the arm and the outcome")
    arms = [value.strip() for value in table[arm_name]]
    outcome = numbers(table[outcome_name], truth=True)
    if outcome is None:
        raise InvalidInput(f"the outcome {shown(outcome_name)} is not a column of numbers, or of yes and no")
    told = np.array([bool(arm) for arm in arms]) & np.isfinite(outcome)
    lost = int(told.size - np.count_nonzero(told))
    if lost > _LOST_MOST * told.size:
        raise InvalidInput(
            f"{lost} of {told.size} rows have no arm or no outcome, and what is left is no experiment",
            hint="write 0 as the outcome of who bought nothing",
        )
    if lost:
        notes.append(f"{lost} rows without an arm or an outcome are left out")
    rows = np.flatnonzero(told)
    arm = np.array(arms)[rows]
    control = _control(arm, roles.control, notes)
    columns = {name: _column(np.array(table[name], dtype=object)[rows]) for name in table}
    named = [_named(table, name) for name in roles.features]
    ignored = {_named(table, name) for name in roles.ignored}
    early = None if roles.early is None else _named(table, roles.early)
    left_out: dict[str, str] = {}
    features: dict[str, npt.NDArray[Any]] = {}
    forerunners: dict[str, float] = {}
    for name in named or [each for each in table if each not in {arm_name, outcome_name, early, *ignored}]:
        column = columns[name]
        why = "" if named else consequence(column, outcome[rows], arm)
        if why == FORERUNNER:
            told_early = numbers(table[name], truth=True)
            forerunners[name] = 0.0 if told_early is None else float(np.mean(np.nan_to_num(told_early) != 0))
        if not why and not named:
            why = _tells_nothing(column)
        if why:
            left_out[name] = why
        else:
            features[name] = column
    if len(features) > FEATURES_MAX:
        raise InvalidInput(
            f"{len(features)} columns could be learned from, and at most {FEATURES_MAX} are",
            hint="name those that matter with --feature-col",
        )
    if early is None and forerunners:
        early = max(sorted(forerunners), key=lambda name: forerunners[name])
        left_out[early] = "used as the early outcome: there is no outcome without it"
    seen = None
    if early is not None:
        seen = numbers(table[early], truth=True)
        if seen is None:
            raise InvalidInput(f"the early outcome {shown(early)} is not a column of numbers, or of yes and no")
        seen = np.where(np.isfinite(seen[rows]), seen[rows], 0.0)
    dormancy = _named(table, roles.dormancy) if roles.dormancy is not None else _guessed_dormancy(features)
    away = None
    if dormancy is not None:
        away = columns[dormancy] if columns[dormancy].dtype.kind == "f" else None
        if away is None:
            raise InvalidInput(f"{shown(dormancy)} does not tell in numbers how long somebody has been away")
    outcomes = Outcomes.of(features, arm, outcome[rows], control=control, costs=costs, early=seen)
    return OutsideLog(outcomes, early, dormancy, away, left_out, notes)


def _table(lines: Iterable[str], notes: list[str]) -> dict[str, list[str]]:
    """The columns by name."""
    source = iter(lines)
    first = next((line for line in source if line.strip()), "")
    if not first:
        raise InvalidInput("the file is empty: it begins with a line of column names")
    delimiter = max(_DELIMITERS, key=first.count)
    rows, ragged = [], 0
    try:
        reader = csv.reader(chain([first], source), delimiter=delimiter)
        header = [name.strip().lstrip("\ufeff") or f"column {at}" for at, name in enumerate(next(reader), start=1)]
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
            elif any(field.strip() for field in row):
                ragged += 1
            if len(rows) > ROWS_MAX:
                raise InvalidInput(f"there are more than {ROWS_MAX} rows", hint="take a random part of them")
    except csv.Error as error:
        raise InvalidInput(f"this is no CSV: {error}") from None
    if len(header) < 2 or len(header) > COLUMNS_MAX:
        raise InvalidInput(f"there are {len(header)} columns; a log has 2 to {COLUMNS_MAX}, with commas between them")
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise InvalidInput(f"the column {shown(twice[0])} is there twice")
    if ragged > 0.01 * len(rows) or not rows:
        raise InvalidInput(f"{ragged} rows have not as many fields as the first line has names, {len(rows)} have")
    if ragged:
        notes.append(f"{ragged} rows that have not as many fields as the first line has names are left out")
    columns = {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
    if delimiter == ";":  # where that stands between fields, a comma may stand in numbers
        columns = {name: _with_points(column) for name, column in columns.items()}
    return columns


def _with_points(column: list[str]) -> list[str]:
    changed = [value.replace(",", ".") if value.count(",") == 1 else value for value in column]
    return changed if changed != column and numbers(changed) is not None else column


def _named(table: Collection[str], name: str) -> str:
    """The column of a name, however its letters are written."""
    if name in table:
        return name
    same = [each for each in table if each.casefold() == name.strip().casefold()]
    if len(same) == 1:
        return same[0]
    near = get_close_matches(name, list(table), n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise InvalidInput(f"there is no column {shown(name)}; {meant}there is {', '.join(list(table)[:30])}")


def numbers(column: Sequence[str], *, truth: bool = False) -> Floats | None:
    """A column as numbers, NaN where nothing is said; None where it is words."""
    found = np.full(len(column), np.nan)
    words = known = 0
    for at, value in enumerate(column):
        text = value.strip()
        try:
            found[at] = float(text)
        except ValueError:
            word = text.lower()
            if truth and word in _TRUTH:
                found[at] = _TRUTH[word]
            elif word not in _MISSING:
                words += 1
                try:
                    found[at] = float(text.lstrip("$€£ ").replace(" ", ""))
                    words -= 1
                except ValueError:
                    continue
            else:
                continue
        known += 1
    found[~np.isfinite(found)] = np.nan
    return None if words > _WORDS_MOST * (known + words) or not known else found


def _column(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A feature: numbers, days, or words."""
    column = values.tolist()
    if (found := numbers(column)) is not None:
        return found
    words = [value.strip() for value in column]
    try:
        days = [date.fromisoformat(word[:10]).toordinal() if word else np.nan for word in words]
        return np.array(days, dtype=float)
    except ValueError:
        return np.array(words)


def _tells_nothing(column: npt.NDArray[Any]) -> str:
    """Why a column cannot tell people apart in a way that others share; empty where it can."""
    different = np.unique(column[~np.isnan(column)] if column.dtype.kind == "f" else column)
    if different.size < 2:
        return "the same for everybody"
    if column.dtype.kind != "f" and different.size > column.size / 2:
        return "another word for nearly everybody"
    if column.dtype.kind == "f" and different.size == column.size > 2 and bool(np.all(np.diff(different) == 1)):
        return "numbers the rows"
    return ""


def _control(arm: npt.NDArray[Any], named: str | None, notes: list[str]) -> str:
    counts = Counter(arm.tolist())
    if len(counts) < 2 or len(counts) > ARMS_MAX:
        raise InvalidInput(f"the column of arms names {len(counts)}; an experiment has 2 to {ARMS_MAX}")
    if named is not None:
        if named in counts:
            return named
        raise InvalidInput(f"there is no arm {shown(named)}; there is {', '.join(sorted(counts))}")
    names = [str(name) for name in sorted(counts)]
    plain = [name.casefold().replace("-", "").replace(" ", "_") for name in names]
    for likely in (_CONTROLS.__contains__, lambda word: word.startswith("no_"), lambda word: "control" in word):
        if found := [name for name, word in zip(names, plain, strict=True) if likely(word)]:
            return found[0]
    largest = max(names, key=lambda name: counts[name])
    notes.append(f"no arm is called control: {largest} is taken for it; --control names another")
    return largest


def _guessed_dormancy(features: dict[str, npt.NDArray[Any]]) -> str | None:
    for word in _DORMANCY:
        for name, column in features.items():
            if word in name.casefold().replace(" ", "_") and column.dtype.kind == "f":
                return name
    return None
