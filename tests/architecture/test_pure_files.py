"""Pure files stay pure: no input, no output, no clock, no chance.

import-linter forbids the modules; this finds what an import list cannot show, and needs no tool.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAYS_SO = re.compile(r"\bpure\b", re.IGNORECASE)
PURE = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "kiki").rglob("*.py")
    if SAYS_SO.search(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
)
"""Whatever says of itself that it is."""
FORBIDDEN_MODULES = {
    *("aiohttp", "apsw", "asyncio", "concurrent", "grpc", "httpx", "logging", "multiprocessing", "os"),
    *("pathlib", "random", "redis", "secrets", "select", "shutil", "signal", "socket", "sqlalchemy", "sqlite3"),
    *("subprocess", "tempfile", "threading", "time", "urllib.request", "uuid"),
}
FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
FORBIDDEN_METHODS = {"now", "today", "utcnow", "read_text", "write_text", "read_bytes", "write_bytes"}


def impurities(source: str) -> list[str]:
    """What the source does that a pure file must not, as `line: what`."""
    found = []
    tree = ast.parse(source)
    # What a protocol asks of others is no work of its own.
    asked = {id(each) for node in ast.walk(tree) if _is_protocol(node) for each in ast.walk(node)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(f"{node.lineno}: calls {node.func.id}()")
            elif isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS:
                found.append(f"{node.lineno}: calls .{node.func.attr}()")
        elif (
            isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor) and id(node) not in asked
        ):
            found.append(f"{node.lineno}: is asynchronous")
        bad = [name for name in names if not FORBIDDEN_MODULES.isdisjoint({name, name.partition(".")[0]})]
        found += [f"{node.lineno}: imports {name}" for name in bad[:1]]
    return found


def _is_protocol(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases
    )


def test_whatever_is_held_by_the_import_list_says_so():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    held = next(each["source_modules"] for each in contracts if each["name"].startswith("Pure files"))
    assert {name.replace(".", "/") + ".py" for name in held} <= set(PURE)
    assert len(PURE) > 200, "hardly anything says so any more"


@pytest.mark.parametrize("path", PURE)
def test_a_pure_file_does_no_input_or_output(path: str):
    assert impurities((ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path", "1: imports os"),
        ("from time import time_ns", "1: imports time"),
        ("def f():\n    import random", "2: imports random"),
        ("x = open('y')", "1: calls open()"),
        ("from datetime import datetime\nx = datetime.now()", "2: calls .now()"),
        ("from urllib import request", "1: imports urllib"),
        ("import urllib.request", "1: imports urllib"),
        ("async def f(): ...", "1: is asynchronous"),
        ("class P:\n    async def f(self): ...", "2: is asynchronous"),
    ],
)
def test_the_check_finds_what_it_is_for(source: str, expected: str):
    assert [found[: len(expected)] for found in impurities(source)] == [expected]
