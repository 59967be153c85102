"""Which budgets there are: the policy as values, as YAML that people write, and as JSON that the ledger keeps. Pure.

A policy is replaced whole or not at all; `parse_policy` reports every mistake with its line. A scalar counts as the
text that a person reads in the file: YAML's own idea of a number (binary floats, 0100 = 64, 1:30 = 90) is never asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kiki import money
from kiki.clock import SECOND
from kiki.errors import InvalidInput, InvalidMoney, InvalidScope, PolicyError
from kiki.shield.scope import PERSONAL_KINDS, Pattern
from kiki.yaml_document import PROBLEMS_MAX, Map, Node, Reader, Text, Unreadable, compose, shown

BUDGETS_MAX = 1000
WINDOWS_MAX = 16

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SPAN_MAX = 366 * DAY

SPAN_ACCEPTED = (
    "write a number with a unit, s, m, h or d (without one it counts seconds), such as 60s, 1.5h or 7d; "
    "more than 0, at most 366d, and whole microseconds"
)
NAME_ACCEPTED = "write 1 to 64 of a-z, 0-9, _ . - and begin with a letter or a digit, such as each-campaign"
SCOPE_ACCEPTED = "write \"*\" (every spend), 'platform:meta' (that one) or 'campaign:*' (each campaign on its own)"
CURRENCY_ACCEPTED = "write three capital letters, such as USD"
POLICY_ACCEPTED = "write a mapping with the list 'budgets' and, if need be, 'currency'"

_UNITS = {"": SECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_SPAN = re.compile(r"(0|[1-9][0-9]{0,17})(?:\.([0-9]{1,18}))?([smhd]?)")
NO_CONSENT = "none"
CONSENT_ACCEPTED = "write the purpose, such as marketing, or none when these spends need no consent"
_PURPOSE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_SEPARATED = re.compile(r"[0-9]+(?:[,_'\u2019\s][0-9]+)+(?:\.[0-9]*)?")

_T = TypeVar("_T")


# -- values ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `micros` of money in any `span` microseconds."""

    micros: int
    span: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A named budget: which spends it concerns, and how much of them fits in each of its windows."""

    name: str
    pattern: Pattern
    limits: tuple[Limit, ...]
    consent: str = ""
    """The purpose that a person named in such a spend must have consented to; `none`: no consent is asked for here."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Every budget in force, in one currency. A spend must fit in all that concern it."""

    budgets: tuple[Budget, ...]
    currency: str = "USD"

    @property
    def span_max(self) -> int:
        """The longest window, in microseconds (0 without budgets)."""
        return max((limit.span for budget in self.budgets for limit in budget.limits), default=0)

    @property
    def digest(self) -> str:
        """A short name for exactly this policy: the first 16 hex digits of SHA-256 over `dump()`."""
        return hashlib.sha256(self.dump()).hexdigest()[:16]

    @property
    def asks_consent(self) -> bool:
        """True when a budget has its own word about consent."""
        return any(budget.consent for budget in self.budgets)

    def purposes_for(self, scopes: Collection[str], purpose: str) -> set[str]:
        """What a person named in such a spend must have consented to, when the caller says it is for `purpose`.

        A budget that asks for a purpose adds it. One that says `none` takes back the caller's, never another budget's.
        """
        asked = {budget.consent for budget, _ in self.budgets_for(scopes)} - {""}
        needed = asked - {NO_CONSENT}
        if purpose and NO_CONSENT not in asked:
            needed.add(purpose)
        return needed

    def budgets_for(self, scopes: Collection[str]) -> list[tuple[Budget, str]]:
        """The budgets that concern a spend with these canonical scopes, each with the scope it meters the spend on."""
        found = ((budget, budget.pattern.instance(scopes)) for budget in self.budgets)
        return [(budget, instance) for budget, instance in found if instance is not None]

    def dump(self) -> bytes:
        """The policy as the ledger keeps it: compact JSON, one form for one policy; `load` and `parse_policy` read it."""
        plain = {
            "budgets": [
                {
                    "name": budget.name,
                    "scope": budget.pattern.text,
                    "windows": [
                        {"limit": money.format_micros(limit.micros), "window": format_span(limit.span)}
                        for limit in budget.limits
                    ],
                    **({"consent": budget.consent} if budget.consent else {}),
                }
                for budget in self.budgets
            ],
            "currency": self.currency,
        }
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def load(cls, data: bytes) -> Policy:
        """The policy that `dump` wrote; raises `PolicyError` for anything else.

        It asks for the form alone. What `parse_policy` may refuse one day, the ledger must still be able to say.
        """
        try:
            plain = _exactly(json.loads(data), {"budgets", "currency"})
            budgets = tuple(_load_budget(one) for one in _typed(plain["budgets"], list))
            return cls(budgets, _typed(plain["currency"], str))
        except (ValueError, RecursionError) as error:
            raise PolicyError([f"recorded policy: it is not what Policy.dump writes ({error})"]) from error


def _load_budget(given: Any) -> Budget:
    keys = {"name", "scope", "windows"}
    plain = _exactly(given, {*keys, "consent"} if isinstance(given, dict) and "consent" in given else keys)
    limits = []
    for one in _typed(plain["windows"], list):
        window = _exactly(one, {"limit", "window"})
        micros = money.parse_micros(_typed(window["limit"], str), zero=True)
        limits.append(Limit(micros, _span(_typed(window["window"], str))))
    pattern = Pattern.parse(_typed(plain["scope"], str))
    return Budget(_typed(plain["name"], str), pattern, tuple(limits), _typed(plain.get("consent", ""), str))


def _exactly(given: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(given, dict) or set(given) != keys:
        raise ValueError(f"a mapping with the keys {', '.join(sorted(keys))} is missing")
    return given


def _typed(given: Any, wanted: type[_T]) -> _T:
    if not isinstance(given, wanted):
        raise ValueError(f"a {wanted.__name__} is missing")  # noqa: TRY004 - `load` answers for all of them alike
    return given


def single_budget(limit_micros: int, span: int = 60 * SECOND, currency: str = "USD") -> Policy:
    """The default policy: one budget over all spends."""
    return Policy((Budget("default", Pattern("*"), (Limit(limit_micros, span),)),), currency)


# -- spans -----------------------------------------------------------------------------------------------


def parse_span(text: str) -> int:
    """A window's length in microseconds, from '60', '60.0', '60s', '1.5h' or '7d'; raises `InvalidInput`."""
    if not isinstance(text, str):
        raise InvalidInput(f"the window is a {type(text).__name__}, not text; {SPAN_ACCEPTED}")
    span = _span(text)
    if span == 0:
        raise InvalidInput(f"the window {shown(text)} is empty; {SPAN_ACCEPTED}")
    if span > SPAN_MAX:
        raise InvalidInput(f"the window {shown(text)} is too long; {SPAN_ACCEPTED}")
    return span


def parse_currency(text: str) -> str:
    """A currency's code; raises `InvalidInput`."""
    if not isinstance(text, str):
        raise InvalidInput(f"the currency is a {type(text).__name__}, not text; {CURRENCY_ACCEPTED}")
    if not _CURRENCY.fullmatch(text):
        raise InvalidInput(f"the currency {shown(text)} is not a currency code; {CURRENCY_ACCEPTED}")
    return text


def _span(text: str) -> int:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise InvalidInput(f"the window {shown(text)} is not a length of time; {SPAN_ACCEPTED}")
    whole, fraction, unit = match[1], match[2] or "", match[3]
    span, rest = divmod(int(whole + fraction) * _UNITS[unit], int("1" + "0" * len(fraction)))
    if rest:
        raise InvalidInput(f"the window {shown(text)} is not a whole number of microseconds; {SPAN_ACCEPTED}")
    return span


def format_wait(micros: int) -> str:
    """A time to wait as a person reads it: 57.5 s, 12.0 min, 3.5 h, 30.0 d. Not for reading back."""
    for unit, size, least in (("d", 24 * 3600, 48 * 3600), ("h", 3600, 2 * 3600), ("min", 60, 10 * 60)):
        if micros >= least * SECOND:
            return f"{micros / SECOND / size:.1f} {unit}"
    return f"{micros / SECOND:.1f} s"


def format_span(micros: int) -> str:
    """The length of a window as text that `parse_span` reads: 60s, 1.5s, 90m, 1h, 7d."""
    for unit, size, least in (("d", DAY, DAY), ("h", HOUR, HOUR), ("m", MINUTE, 2 * MINUTE)):
        if micros >= least and micros % size == 0:
            return f"{micros // size}{unit}"
    whole, fraction = divmod(micros, SECOND)
    return f"{whole}.{fraction:06d}".rstrip("0").rstrip(".") + "s"


# -- the YAML form ---------------------------------------------------------------------------------------


def parse_policy(text: str, source: str = "policy", currency: str = "USD") -> Policy:
    """The policy in a YAML text; `currency` is the one it has when it names none.

    Raises `PolicyError`, whose `problems` are every mistake as `source:line: what is wrong; what is accepted`.
    """
    reader = _Reader()
    try:
        policy = reader.policy(compose(text, "policy", POLICY_ACCEPTED), currency)
    except Unreadable as error:
        raise PolicyError([f"{source}:{error.line}: {error.problem}"]) from error.__cause__
    if reader.problems or policy is None:
        problems = [f"{source}:{line}: {problem}" for line, problem in sorted(reader.problems, key=lambda one: one[0])]
        hidden = len(problems) - PROBLEMS_MAX
        raise PolicyError(problems[:PROBLEMS_MAX] + ([f"{source}: and {hidden} more"] if hidden > 0 else []))
    return policy


class _Reader(Reader):
    """Turns nodes into values and notes every mistake, so that one reading reports them all."""

    def policy(self, node: Node | None, currency: str) -> Policy | None:
        if node is None or (isinstance(node, Text) and node.is_null):
            self.wrong(node or Text(1, "", plain=True), f"the policy is empty; {POLICY_ACCEPTED}")
            return None
        if not isinstance(node, Map):
            self.wrong(node, f"the policy is {node.kind}; {POLICY_ACCEPTED}")
            return None
        fields = self.fields(node, "the policy", ("currency", "budgets"))
        if "currency" in fields:
            currency = self.currency(fields["currency"])
        if "budgets" not in fields:
            self.wrong(node, f"the policy has no 'budgets'; {POLICY_ACCEPTED}")
            return None
        return Policy(self.budgets(fields["budgets"]), currency)

    def currency(self, node: Node) -> str:
        text = self.text(node, "currency", CURRENCY_ACCEPTED)
        if text is not None and not _CURRENCY.fullmatch(text):
            self.wrong(node, f"currency {shown(text)} is not a currency code; {CURRENCY_ACCEPTED}")
        return text or ""

    def budgets(self, node: Node) -> tuple[Budget, ...]:
        budgets: list[Budget] = []
        lines: dict[str, int] = {}
        for one in self.items(node, "budgets", BUDGETS_MAX, "write a list of at least one budget"):
            budget = self.budget(one)
            if budget is None:
                continue
            if budget.name in lines:
                self.wrong(
                    one,
                    f"the budget on line {lines[budget.name]} already has the name '{budget.name}'; "
                    "give each its own 'name', or put both limits under one budget's 'windows'",
                )
            lines.setdefault(budget.name, one.line)
            budgets.append(budget)
        return tuple(budgets)

    def budget(self, node: Node) -> Budget | None:
        known = ("name", "scope", "limit", "window", "windows", "consent")
        if not isinstance(node, Map):
            accepted = "write a mapping with 'scope' and either 'limit' and 'window' or 'windows'"
            none = isinstance(node, Text) and node.is_null
            self.wrong(node, f"a budget {'has no value' if none else f'is {node.kind}'}; {accepted}")
            return None
        fields = self.fields(node, "the budget", known)
        pattern = self.pattern(fields["scope"]) if "scope" in fields else None
        if "scope" not in fields:
            self.wrong(node, f"the budget has no 'scope'; {SCOPE_ACCEPTED}")
        name = self.name(fields["name"]) if "name" in fields else pattern and pattern.text
        limits = self.limits(node, fields)
        consent = self.purpose(fields["consent"]) if "consent" in fields else ""
        return Budget(name, pattern or Pattern("*"), limits, consent) if name else None

    def purpose(self, node: Node) -> str:
        text = self.text(node, "consent", CONSENT_ACCEPTED)
        if text is not None and not _PURPOSE.fullmatch(text):
            self.wrong(node, f"consent {shown(text)} is not a purpose; {CONSENT_ACCEPTED}")
        return text or ""

    def name(self, node: Node) -> str | None:
        text = self.text(node, "name", NAME_ACCEPTED)
        if text is not None and not _NAME.fullmatch(text):
            self.wrong(node, f"name {shown(text)} is not a budget's name; {NAME_ACCEPTED}")
            return None
        return text

    def pattern(self, node: Node) -> Pattern | None:
        text = self.text(node, "scope", SCOPE_ACCEPTED)
        if text is None:
            return None
        try:
            pattern = Pattern.parse(text)
        except InvalidScope:
            self.wrong(node, f"scope {shown(text)} is not a scope pattern; {SCOPE_ACCEPTED}")
            return None
        value = text.partition(":")[2]
        if pattern.kind in PERSONAL_KINDS and not pattern.is_each:
            # The ledger keeps policies for ever and in clear, and a person must stay erasable from it.
            self.wrong(node, f"scope '{pattern.kind}:…' names one person; write '{pattern.kind}:*', each on its own")
            return None
        if value != value.strip():
            self.wrong(node, f"scope {shown(text)} has a space around its value; {SCOPE_ACCEPTED}")
        elif "*" in value and value != "*":
            self.wrong(node, f"scope {shown(text)} has a * inside its value, where it means nothing; {SCOPE_ACCEPTED}")
        return pattern

    def limits(self, node: Map, fields: Mapping[str, Node]) -> tuple[Limit, ...]:
        accepted = "write either 'limit' and 'window', or 'windows', a list of such pairs"
        if "windows" not in fields:
            limit = self.limit(node, "the budget", fields, accepted)
            return (limit,) if limit else ()
        if "limit" in fields or "window" in fields:
            self.wrong(node, f"the budget has 'windows' beside 'limit' or 'window'; {accepted}")
        limits: list[Limit] = []
        lines: dict[int, int] = {}
        for one in self.items(fields["windows"], "windows", WINDOWS_MAX, accepted):
            if not isinstance(one, Map):
                self.wrong(one, f"a window is {one.kind}; write a mapping with 'limit' and 'window'")
                continue
            given = self.fields(one, "the window", ("limit", "window"))
            limit = self.limit(one, "the window", given, "write both 'limit' and 'window'")
            if limit is None:
                continue
            if limit.span in lines:
                self.wrong(
                    one,
                    f"another window of this budget (line {lines[limit.span]}) is also {format_span(limit.span)} long; "
                    "write each length once, with the lower limit",
                )
            lines.setdefault(limit.span, one.line)
            limits.append(limit)
        return tuple(limits)

    def limit(self, node: Map, owner: str, fields: Mapping[str, Node], accepted: str) -> Limit | None:
        micros = span = None
        if "limit" in fields:
            micros = self.amount(fields["limit"])
        if "window" in fields:
            span = self.span(fields["window"])
        missing = [f"'{key}'" for key in ("limit", "window") if key not in fields]
        if missing:
            self.wrong(node, f"{owner} has no {' and no '.join(missing)}; {accepted}")
        return Limit(micros, span) if micros is not None and span is not None else None

    def amount(self, node: Node) -> int | None:
        text = self.text(node, "limit", money.ACCEPTED)
        if text is None:
            return None
        if _SEPARATED.fullmatch(text):
            problem = "has something between its digits; write 1000 without a separator, and a point before decimals"
        elif re.match(r"0[0-9]", text):
            problem = "begins with a zero, which some read as octal; write it without"
        else:
            try:
                return money.parse_micros(text)
            except InvalidMoney as error:
                self.wrong(node, f"limit {str(error).removesuffix(f': {money.ACCEPTED}')}; {money.ACCEPTED}")
                return None
        self.wrong(node, f"limit {shown(text)} {problem}")
        return None

    def span(self, node: Node) -> int | None:
        text = self.text(node, "window", SPAN_ACCEPTED)
        try:
            return None if text is None else parse_span(text)
        except InvalidInput as error:
            self.wrong(node, str(error).removeprefix("the "))
            return None
