"""From scopes to the names of windows in Redis: by the policy in force, and with persons under names that say nothing of them.

Every process that shares the windows gives the same names, because the secret that persons are hashed with is shared too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

from kiki.errors import PolicyError
from kiki.money import format_micros
from kiki.shield.budget import SLOTS, MeterRule
from kiki.shield.policy import Policy
from kiki.shield.redis_script import SUM_MAX, Lane
from kiki.shield.scope import PERSONAL_PREFIXES, Scopes, kind_of
from kiki.shield.window_rebuild import Past

# Shows in a key that the value of a scope stands for a person.
_HASHED = "~"
_LANES_KNOWN_MAX = 10_000
_REFERENCES_KNOWN_MAX = 100_000


class RedisLanes:
    """Which windows count what, under one policy and one shared secret."""

    def __init__(self, policy: Policy, secret: str) -> None:
        """Raises `PolicyError` for limits that cannot be counted."""
        self._lanes: dict[Scopes, Lane] = {}
        self._references: dict[str, str] = {}
        self.share(secret)
        self.use(policy)

    def share(self, secret: str) -> None:
        """Names are given by this secret (hexadecimal) from now on."""
        self.secret = secret
        self._secret = bytes.fromhex(secret)
        self._lanes.clear()
        self._references.clear()

    def use(self, policy: Policy) -> None:
        """Name windows by this policy from now on. Raises `PolicyError`, and goes on by the one before."""
        problems = [
            f"budget {budget.name!r}: the limit {format_micros(limit.micros)} is more than "
            f"{format_micros(SUM_MAX)}, the most that a shared window counts"
            for budget in policy.budgets
            for limit in budget.limits
            if limit.micros > SUM_MAX
        ]
        problems += [
            f"budget {budget.name!r}: its name must be printable and have no tabs"
            for budget in policy.budgets
            if not budget.name.isprintable()
        ]
        if problems:
            raise PolicyError(problems)
        self.policy = policy
        self._everything: list[MeterRule] = []
        self._exact: dict[str, list[MeterRule]] = {}
        self._each: dict[str, list[MeterRule]] = {}
        for budget in policy.budgets:
            rules = [MeterRule.of(budget.name, limit) for limit in budget.limits]
            if budget.pattern.is_everything:
                self._everything += rules
            elif budget.pattern.is_each:
                self._each.setdefault(budget.pattern.kind or "", []).extend(rules)
            else:
                self._exact.setdefault(budget.pattern.text, []).extend(rules)
        self._lanes.clear()

    def lane(self, scopes: Scopes, persons: Mapping[str, str]) -> Lane:
        """Where a spend with these scopes is counted; `persons` gives who their references stand for."""
        lane = self._lanes.get(scopes)
        if lane is None:
            personal = False
            limits: dict[str, int] = {}
            shared = []
            for rule in self._everything:
                _count(limits, window_name(rule, "*"), rule.limit)
            for scope in scopes:
                name = scope
                if scope.startswith(PERSONAL_PREFIXES):
                    personal = True
                    name = self.hashed(scope, persons.get(scope, scope))
                shared.append(name)
                # An exact budget of one person is found by the scope as it was given: a policy names people so.
                rules = self._exact.get(persons.get(scope, scope), []) + self._each.get(kind_of(scope), [])
                for rule in rules:
                    _count(limits, window_name(rule, name), rule.limit)
            lane = Lane(tuple(limits.items()), tuple(shared))
            if not personal:
                if len(self._lanes) >= _LANES_KNOWN_MAX:
                    self._lanes.clear()
                self._lanes[scopes] = lane
        return lane

    def shared_pattern(self, pattern: str, person: str) -> str:
        """A pattern of a halt as every process writes it."""
        return self.hashed(pattern, person) if is_personal(pattern) and not pattern.endswith(":*") else pattern

    def hashed(self, reference: str, person: str) -> str:
        """A person's scope under a name that is the same in every process and says nothing about the person."""
        name = self._hashed_name(person)
        self._references[name] = reference
        return name

    def digest(self, given: bytes) -> str:
        """In the place of a key or a request: the same in every process, and says nothing of it."""
        return blake2b(given, key=self._secret, digest_size=16).hexdigest()

    def _hashed_name(self, person: str) -> str:
        return f"{kind_of(person)}:{_HASHED}{self.digest(person.encode())}"

    def referenced(self, scope: str) -> str:
        """The reference again, of a name that was given here; any other as it is."""
        return self._references.get(scope, scope) if scope.startswith(PERSONAL_PREFIXES) else scope

    def forget_many(self) -> None:
        """Keep the memory of references bounded; called where none is needed any more."""
        if len(self._references) >= _REFERENCES_KNOWN_MAX:
            self._references.clear()

    def counted(self, past: Past) -> list[tuple[str, list[tuple[int, int]]]]:
        """The slots that the spends of the past fill, for each window that counts them."""
        slots: dict[str, dict[int, int]] = {}
        for at, amount, scopes in past.spends:
            for name, _ in self.lane(scopes, past.persons).windows:
                span = int(name.partition(":")[0])
                width = -(-span // SLOTS)
                ends = slots.setdefault(name, {})
                end = at - at % width + width
                ends[end] = min(ends.get(end, 0) + amount, SUM_MAX)
        return [(name, sorted(ends.items())) for name, ends in slots.items()]

    # -- what there is to be looked at ---------------------------------------------------------------

    def over_everything(self) -> Iterator[tuple[MeterRule, str]]:
        """The meters over everything, each with the name of what it counts."""
        yield from ((rule, "*") for rule in self._everything)

    def of_scope(self, scope: str) -> Iterator[tuple[MeterRule, str]]:
        """The meters of one scope."""
        names = [name for name, reference in self._references.items() if reference == scope] or [scope]
        rules = self._exact.get(scope, []) + self._each.get(kind_of(scope), [])
        yield from ((rule, name) for name in names for rule in rules)

    def of_named_scopes(self) -> Iterator[tuple[MeterRule, str]]:
        """The meters of scopes that the policy names."""
        for text, rules in self._exact.items():
            name = self._hashed_name(text) if is_personal(text) else text
            yield from ((rule, name) for rule in rules)

    @property
    def has_each(self) -> bool:
        """Whether the policy has budgets for each scope of a kind, which are as many as there are scopes."""
        return bool(self._each)

    def of_windows(self, names: Iterable[str]) -> Iterator[tuple[MeterRule, str]]:
        """The meters, among those for each scope of a kind, that windows of these names belong to."""
        by_name = {(rule.budget, rule.span): rule for rules in self._each.values() for rule in rules}
        for window in names:
            span, _, rest = window.partition(":")
            budget, _, name = rest.partition("\t")
            rule = by_name.get((budget, int(span)))
            if rule is not None and rule in self._each.get(kind_of(name), []):
                yield rule, name


def is_personal(scope: str) -> bool:
    """Whether a scope or pattern is of a kind that names persons."""
    return scope.startswith(PERSONAL_PREFIXES)


def window_name(rule: MeterRule, scope: str) -> str:
    """The name of one window."""
    return f"{rule.span}:{rule.budget}\t{scope}"


def _count(limits: dict[str, int], name: str, limit: int) -> None:
    # Two limits over the same span count the same spends; the smaller one decides.
    limits[name] = min(limit, limits.get(name, limit))
