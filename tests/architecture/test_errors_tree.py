"""The tree of errors is as its file draws it, and every code stands for one error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import kiki.errors
from kiki.errors import KikiError


def drawn() -> dict[str, str | None]:
    """Each error of the drawing with its parent, None for the root."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (kiki.errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"(?P<branch>(?:│   |    )*(?:├── |└── )?)(?P<name>[A-Z]\w+)", line)
        if found:
            depth = len(found["branch"]) // 4
            assert depth <= len(path), f"{found['name']} hangs in the air"
            del path[depth:]
            assert found["name"] not in parents, f"{found['name']} is drawn twice"
            parents[found["name"]] = path[-1] if path else None
            path.append(found["name"])
    return parents


def real(error: type[KikiError] = KikiError, parent: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Each error of kiki.errors with its parent."""
    yield error.__name__, parent
    for child in error.__subclasses__():
        if child.__module__ == "kiki.errors":
            yield from real(child, error.__name__)


def all_errors(error: type[KikiError] = KikiError) -> Iterator[type[KikiError]]:
    yield error
    for child in error.__subclasses__():
        yield from all_errors(child)


def test_the_drawing_is_the_tree():
    assert drawn() == dict(real())


def test_every_error_has_a_code_of_its_own_unless_it_is_told_apart_only_inside_its_file():
    """An error outside of kiki.errors may pass for its parent: nobody else is meant to see the difference."""
    codes = Counter(error.code for error in set(all_errors()) if "code" in vars(error))
    assert [code for code, count in codes.items() if count > 1] == []
    assert [code for code in codes if not re.fullmatch(r"[a-z]+(_[a-z]+)*", code)] == []


def test_every_error_explains_itself():
    assert [error.__name__ for error in all_errors() if not (error.__doc__ or "").strip()] == []
