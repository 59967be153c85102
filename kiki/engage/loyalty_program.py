"""How points are earned, how long they live, and what tiers there are: a program in YAML, and the rules that follow. Pure.

Tiers follow from the entries alone, so nobody has to keep them: what counts is what was earned within the last `period`,
less what was taken back. A tier is reached at once and kept for `keep` from the last day on which it was earned; then it
falls to what was earned by then, by one step at a time or all the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from kiki.clock import SECOND
from kiki.engage.loyalty_account import POINTS_MAX, Entry, Kind
from kiki.errors import ConfigurationError
from kiki.money import MICROS
from kiki.yaml_document import List, Map, Node, Reader, Text, Unreadable, compose

DAY: Final = 86_400 * SECOND
_ACCEPTED: Final = "write the keys of a loyalty program, each with a value"
_FIELDS: Final = ("points_per_unit", "pending_days", "expiry_days", "grace_days", "hold_minutes", "tiers", "tier_rules")
_RULES: Final = ("period_days", "keep_days", "downgrade")


class ProgramError(ConfigurationError):
    """The loyalty program cannot be used; the one in force stays as it is."""

    code = "program_invalid"
    subject = "loyalty program"


class Tier(NamedTuple):
    """A rank of customers."""

    name: str
    points: int
    """What must be earned within the period."""
    multiplier: Fraction = Fraction(1)
    """By what an earning is multiplied."""


class Program(NamedTuple):
    """The rules."""

    points_per_unit: Fraction = Fraction(1)
    """Points for one unit of money; what is left of an amount earns nothing."""
    pending: int = 0
    """How long until points can be spent, in microseconds: the time in which goods may be sent back."""
    expiry: int | None = 365 * DAY
    """How long they can be spent after that; None: for ever."""
    grace: int = 30 * DAY
    """How long points live that come back after they would have ended."""
    hold: int = 30 * 60 * SECOND
    """How long a hold lasts."""
    tiers: tuple[Tier, ...] = ()
    """Rising."""
    period: int = 365 * DAY
    keep: int = 365 * DAY
    steps: bool = False
    """Whether a fall is by one tier at a time."""

    def points_for(self, micros: int, tier: str | None = None) -> int:
        """What an amount of money earns, rounded down."""
        multiplier = next((each.multiplier for each in self.tiers if each.name == tier), Fraction(1))
        return int(self.points_per_unit * multiplier * micros / MICROS)


class Standing(NamedTuple):
    """Where a person stands among the tiers."""

    tier: str | None
    """None: below the lowest."""
    earned: int
    """What counts now, over the last period."""
    until: int | None
    """When the tier is looked at again; None below the lowest."""
    projected: str | None
    """The tier then, if nothing more is earned."""
    next_tier: str | None
    """None at the top."""
    points_to_next: int | None


def standing(program: Program, entries: Iterable[Entry], now: int) -> Standing:
    """Where these entries put a person now. Holds, spends and endings of points say nothing about tiers."""
    moves = _moves(entries, now)
    tier, until = _replay(program, moves, now)
    earned = _counted(moves, now, program.period)
    at = until if tier >= 0 and until is not None else now
    projected = tier
    if tier >= 0:
        projected = _after_review(program, tier, _reached(program, _counted(moves, at, program.period)))
    above = tier + 1 if tier + 1 < len(program.tiers) else None
    return Standing(
        tier=_name(program, tier),
        earned=earned,
        until=until if tier >= 0 else None,
        projected=_name(program, projected),
        next_tier=None if above is None else program.tiers[above].name,
        points_to_next=None if above is None else max(0, program.tiers[above].points - earned),
    )


def _moves(entries: Iterable[Entry], now: int) -> list[tuple[int, int]]:
    """What counts for tiers: earnings, and at the moment of the earning what was taken back of it since."""
    earned: dict[int, tuple[int, int]] = {}
    for entry in entries:
        if entry.at > now:
            continue
        if entry.kind is Kind.EARN:
            earned[entry.place] = (entry.at, entry.points)
        elif entry.kind is Kind.REFUND and entry.about in earned:
            at, points = earned[entry.about]
            earned[entry.about] = (at, points + entry.points)
    return sorted(earned.values())


def _counted(moves: Sequence[tuple[int, int]], now: int, period: int) -> int:
    return sum(points for at, points in moves if now - period < at <= now)


def _reached(program: Program, earned: int) -> int:
    return max((place for place, tier in enumerate(program.tiers) if earned >= tier.points), default=-1)


def _after_review(program: Program, tier: int, reached: int) -> int:
    return max(reached, tier - 1) if program.steps else reached


def _name(program: Program, tier: int) -> str | None:
    return program.tiers[tier].name if tier >= 0 else None


def _replay(program: Program, moves: Sequence[tuple[int, int]], now: int) -> tuple[int, int | None]:
    """The place of the tier and when it is looked at again."""
    tier, until = -1, None
    waiting = list(moves)
    while True:
        at = waiting[0][0] if waiting else None
        if until is not None and until <= now and (at is None or until < at):
            tier = _after_review(program, tier, _reached(program, _counted(moves, until, program.period)))
            until = until + program.keep if tier >= 0 else None
            continue
        if at is None:
            return tier, until
        waiting.pop(0)
        reached = _reached(program, _counted(moves, at, program.period))
        if reached >= 0 and reached >= tier:
            tier, until = reached, at + program.keep


def read_program(text: str) -> Program:
    """The program in a YAML text; raises `ProgramError` with every mistake and its line."""
    try:
        node = compose(text, "the loyalty program", _ACCEPTED)
    except Unreadable as error:
        raise ProgramError([f"line {error.line}: {error}"]) from None
    reader = _ProgramReader()
    made = reader.program(node) if node is not None else Program()
    if reader.problems:
        raise ProgramError([f"line {line}: {problem}" for line, problem in reader.problems])
    return made


class _ProgramReader(Reader):
    def program(self, node: Node) -> Program:
        if not isinstance(node, Map):
            self.wrong(node, f"the loyalty program is {node.kind}; {_ACCEPTED}")
            return Program()
        fields = self.fields(node, "the loyalty program", _FIELDS)
        rules: dict[str, Node] = {}
        if "tier_rules" in fields:
            given = fields["tier_rules"]
            if isinstance(given, Map):
                rules = self.fields(given, "'tier_rules'", _RULES)
            else:
                self.wrong(given, f"'tier_rules' is {given.kind}; write the keys {', '.join(_RULES)}")
        plain = Program()
        expiry = fields.get("expiry_days")
        never = isinstance(expiry, Text) and expiry.text == "never"
        return plain._replace(
            points_per_unit=self._rate(fields.get("points_per_unit"), "'points_per_unit'", plain.points_per_unit),
            pending=self._span(fields, "pending_days", DAY, plain.pending, 0),
            expiry=None if never else self._span(fields, "expiry_days", DAY, plain.expiry or 0, 1, "or never"),
            grace=self._span(fields, "grace_days", DAY, plain.grace, 0),
            hold=self._span(fields, "hold_minutes", 60 * SECOND, plain.hold, 1),
            tiers=self._tiers(fields.get("tiers")),
            period=self._span(rules, "period_days", DAY, plain.period, 1),
            keep=self._span(rules, "keep_days", DAY, plain.keep, 1),
            steps=self._downgrade(rules.get("downgrade")),
        )

    def _span(self, fields: dict[str, Node], key: str, unit: int, without: int, least: int, more: str = "") -> int:
        if key not in fields:
            return without
        found = self._whole(fields[key], f"'{key}'", least, 36_500, more)
        return without if found is None else found * unit

    def _whole(self, node: Node, what: str, least: int, most: int, more: str = "") -> int | None:
        accepted = f"write a whole number from {least} to {most} {more}".strip()
        text = self.text(node, what, accepted)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= most:
            return int(text)
        self.wrong(node, f"{what} is {text[:40]!r}; {accepted}")
        return None

    def _rate(self, node: Node | None, what: str, without: Fraction) -> Fraction:
        accepted = "write a number above 0 such as 1, 0.5 or 2.5"
        text = None if node is None else self.text(node, what, accepted)
        if node is None or text is None:
            return without
        whole, _, decimals = text.partition(".")
        if text.isascii() and (whole + decimals).isdigit() and len(text) <= 12 and Fraction(text) > 0:
            return Fraction(text)
        self.wrong(node, f"{what} is {text[:40]!r}; {accepted}")
        return without

    def _downgrade(self, node: Node | None) -> bool:
        accepted = "write drop (to what was earned) or step (by one tier at a time)"
        text = None if node is None else self.text(node, "'downgrade'", accepted)
        if node is not None and text not in {None, "drop", "step"}:
            self.wrong(node, f"'downgrade' is {str(text)[:40]!r}; {accepted}")
        return text == "step"

    def _tiers(self, node: Node | None) -> tuple[Tier, ...]:
        if node is None:
            return ()
        accepted = "write a list of tiers, the lowest first, each with name and points"
        found: list[Tier] = []
        for each in self.items(node, "'tiers'", 20, accepted) if isinstance(node, List) else [node]:
            if not isinstance(each, Map):
                self.wrong(each, f"a tier is {each.kind}; {accepted}")
                continue
            fields = self.fields(each, "a tier", Tier._fields)
            if missing := [key for key in ("name", "points") if key not in fields]:
                self.wrong(each, f"a tier has no {' and no '.join(missing)}; {accepted}")
                continue
            name = self.text(fields["name"], "'name'", "write a name")
            points = self._whole(fields["points"], "'points'", 1, POINTS_MAX)
            multiplier = self._rate(fields.get("multiplier"), "'multiplier'", Fraction(1))
            if name is None or points is None:
                continue
            if found and points <= found[-1].points:
                self.wrong(each, f"the tier {name!r} needs no more points than {found[-1].name!r} before it")
            if any(tier.name == name for tier in found):
                self.wrong(each, f"there are two tiers {name!r}")
            found.append(Tier(name, points, multiplier))
        return tuple(found)
