"""What a spend is for, and which budgets that concerns. Pure.

A scope is a kind and a value, `platform:meta`. A spend carries a few; a budget's pattern names one of
three things: `*` (every spend), `platform:meta` (spends with exactly that scope) or `campaign:*` (each
campaign on its own).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kiki.errors import InvalidScope

SCOPES_MAX = 8
VALUE_LENGTH_MAX = 128

PERSONAL_KINDS = frozenset({"customer"})
"""Kinds whose value names a person: they are replaced by a reference before anything is stored."""
PERSONAL_PREFIXES = tuple(f"{kind}:" for kind in PERSONAL_KINDS)
is_reference = re.compile("[0-9a-f]{32}").fullmatch
"""Whether the value of such a scope is a reference: it names nobody to who has no key store."""

ACCEPTED = (
    f"write kind:value, the kind in lower case (letters, digits, _; at most 32), the value printable and "
    f"1 to {VALUE_LENGTH_MAX} characters long, at most {SCOPES_MAX} kinds, for example platform:meta"
)

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")

Scopes = tuple[str, ...]
"""A spend's scopes as sorted, distinct `kind:value` texts, at most one of a kind."""


def parse_scopes(given: Mapping[str, str] | Iterable[str] | None) -> Scopes:
    """The scopes in canonical form, from {"platform": "meta"} or ["platform:meta"]; raises `InvalidScope`."""
    if given is None:
        return ()
    pairs: Iterable[tuple[object, object]]
    if isinstance(given, Mapping):
        pairs = given.items()
    elif isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidScope(f"scopes must be a mapping or a list, not {_shown(given)}: {ACCEPTED}")
    else:
        pairs = [_split(text) for text in given]
    found: dict[str, str] = {}
    for kind, value in pairs:
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            raise InvalidScope(f"{_shown(kind)} is not a scope kind: {ACCEPTED}")
        if (
            not isinstance(value, str)
            or not 1 <= len(value) <= VALUE_LENGTH_MAX
            or not value.isprintable()
            or value == "*"
        ):
            raise InvalidScope(f"{_shown(value)} is not a value for the scope {kind!r}: {ACCEPTED}")
        if found.setdefault(kind, value) != value:
            raise InvalidScope(f"the scope {kind!r} was given twice with different values: {ACCEPTED}")
    if len(found) > SCOPES_MAX:
        raise InvalidScope(f"{len(found)} scopes are too many: {ACCEPTED}")
    return tuple(sorted(f"{kind}:{value}" for kind, value in found.items()))


def _split(text: object) -> tuple[str, str]:
    if not isinstance(text, str):
        raise InvalidScope(f"{_shown(text)} is not a scope: {ACCEPTED}")
    kind, colon, value = text.partition(":")
    if not colon:
        raise InvalidScope(f"{_shown(text)} is not a scope: {ACCEPTED}")
    return kind, value


def _shown(value: object) -> str:
    # A number too long to print must not hide what is wrong with it.
    return repr(value[:40]) if isinstance(value, str) else f"a value of the type {type(value).__name__}"


def kind_of(scope: str) -> str:
    """The kind of a canonical scope: `platform` of `platform:meta`."""
    return scope.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which scopes a budget is about: `*`, `kind:value` or `kind:*`."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern; raises `InvalidScope` for anything but the three forms."""
        if text == "*":
            return cls(text)
        kind, colon, value = text.partition(":")
        if colon and value == "*":
            if not _KIND.fullmatch(kind):
                raise InvalidScope(f"{text[:60]!r} is not a scope pattern: write '*', 'kind:value' or 'kind:*'")
            return cls(text)
        try:
            (scope,) = parse_scopes([text])
        except InvalidScope as error:
            raise InvalidScope(f"{text[:60]!r} is not a scope pattern: write '*', 'kind:value' or 'kind:*'") from error
        return cls(scope)

    @property
    def is_everything(self) -> bool:
        """True for `*`: one meter for all spends."""
        return self.text == "*"

    @property
    def is_each(self) -> bool:
        """True for `kind:*`: a meter of its own for each value of that kind."""
        return self.text.partition(":")[2] == "*"

    @property
    def kind(self) -> str | None:
        """The kind it is about, None for `*`."""
        return None if self.is_everything else kind_of(self.text)

    def instance(self, scopes: Iterable[str]) -> str | None:
        """The scope on which a spend with these scopes is metered, None when it is not concerned."""
        if self.text == "*":
            return "*"
        if self.is_each:
            prefix = self.text[:-1]
            return next((scope for scope in scopes if scope.startswith(prefix)), None)
        return self.text if self.text in scopes else None
