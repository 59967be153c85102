"""The verifiers are tested by breaking them: each line that is changed must change what some attack meets.

A mutant is one of the three files with one small change: a comparison turned, a condition always or never true, a raise or
a call left out, a number one larger. All attacks are tried on it; if each gets the very answer that the real verifier gives,
the change was not noticed, and either an attack is missing or the line is not needed. What may survive stands below with
its reason.
"""

from __future__ import annotations

import ast
import copy
import signal
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import kiki
from kiki.errors import EvidenceInvalid
from kiki.ledger import proof_verifier
from tests.ledger.attacks import Attack, on_bundles, on_ledgers, on_proofs

FILES = ("chain_verifier", "bundle_verifier", "proof_verifier")
FOLDER = Path(kiki.__file__).parent / "ledger"

MEMORY, READING, SAME = "how much memory naming one entry may take", "how much is read at once", "the same in effect"
SURVIVORS: dict[str, str] = {
    "module: _RECENT: Final = 1 << 18  ->  2": MEMORY,
    "module: _RECENT: Final = 1 << 18  ->  19": MEMORY,
    "add: if self._leaf_of is not None and len(self._recent) < _RECENT:  ->  if True:": MEMORY,
    "add: if self._leaf_of is not None and len(self._recent) < _RECENT:  ->  self._leaf_of is not None": MEMORY,
    "add: if self._leaf_of is not None and len(self._recent) < _RECENT:  ->  len(self._recent) < _RECENT": MEMORY,
    "add: if self._leaf_of is not None and len(self._recent) < _RECENT:  ->  len(self._recent) <= _RECENT": MEMORY,
    "_culprit: if self._leaf_of is not None:  ->  if True:": SAME,  # nothing is remembered without it
    "module: _READ_BYTES: Final = 1 << 18  ->  2": READING,
    "module: _READ_BYTES: Final = 1 << 18  ->  19": READING,
    "_fill: part = self._file.read(max(_READ_BYTES, count - held))  ->  count + held": READING,
    "_fill: while held < count:  ->  held <= count": READING,
    "next: if len(self._buffer) - start < head_bytes:  ->  len(self._buffer) - start <= head_bytes": READING,
    "close: self._fill(1)  ->  2": READING,
    "__init__: self._start = 0  ->  1": SAME,  # nobody asks before the first record
    "_verify_chain: signed = -1  ->  2": SAME,  # every number below zero serves
}
"""Function, source line and its change: why it may go unnoticed."""

ATTACKS: dict[str, tuple[Callable[[], Iterable[Attack]], ...]] = {
    "chain_verifier": (on_ledgers, on_bundles, on_proofs),
    "bundle_verifier": (on_bundles,),
    "proof_verifier": (on_proofs,),
}
"""What a change of each file may show itself in."""

TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in TURNED:
        yield ast.Compare(node.left, [TURNED[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()
    elif isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            changed = copy.copy(node)
            changed.test = ast.Constant(value)
            yield changed


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """Every mutant of a file, with its function, the line that was changed and into what."""
    tree = ast.parse(source)
    lines = source.splitlines()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(part): function.name for function in functions for part in ast.walk(function)}
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            places = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            for index, child in places:
                if not isinstance(child, ast.AST):
                    continue
                for changed in changes(child):
                    ast.copy_location(changed, child)
                    if index is None:
                        setattr(node, field, changed)
                    else:
                        value[index] = changed
                    mutant = ast.fix_missing_locations(tree)
                    where = f"{inside.get(id(child), 'module')}: {lines[child.lineno - 1].strip()}"
                    yield f"{where}  ->  {ast.unparse(changed).splitlines()[0]}", mutant
                    if index is None:
                        setattr(node, field, child)
                    else:
                        value[index] = child


class Verifiers:
    """The three files, loaded apart from the real ones; `trees` takes the place of some."""

    def __init__(self, trees: dict[str, object]) -> None:
        names = [f"kiki.ledger.{name}" for name in FILES]
        real = {name: sys.modules.get(name) for name in names}
        modules = {}
        try:
            for short, name in zip(FILES, names, strict=True):
                module = types.ModuleType(name)
                module.__file__ = name
                sys.modules[name] = modules[short] = module
                exec(trees[short], module.__dict__)
        finally:
            for name, module in real.items():
                if module is None:
                    del sys.modules[name]
                else:
                    sys.modules[name] = module
        self.verify_bundle = modules["bundle_verifier"].verify_bundle
        self.verify_entries = modules["chain_verifier"].verify_entries
        self.verify_proof = modules["proof_verifier"].verify_proof


def answer(attack: Attack, verifiers: Verifiers) -> str:
    """What an attack meets."""
    try:
        return repr(attack(verifiers))
    except EvidenceInvalid as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}"


class Stuck(BaseException):
    """The mutant does not come to an end."""


def survives(attacks: list[tuple[Attack, str]], verifiers: Verifiers) -> bool:
    """Whether every attack meets the answer of the real verifiers."""
    for number, (attack, expected) in enumerate(attacks):
        if answer(attack, verifiers) != expected:
            # What found this one often finds the next.
            attacks.insert(0, attacks.pop(number))
            return False
    return True


def stuck(number, frame):
    raise Stuck


@pytest.mark.parametrize("name", FILES)
def test_every_change_of_a_verifier_is_noticed(name):
    assert proof_verifier.__name__ in sys.modules, "msgspec looks there for the types of the document"
    sources = {name: (FOLDER / f"{name}.py").read_text() for name in FILES}
    compiled = {name: compile(source, name, "exec") for name, source in sources.items()}
    real = Verifiers(compiled)
    attacks = [(attack, answer(attack, real)) for kind in ATTACKS[name] for attack in kind()]
    assert [] == [expected for _, expected in attacks if expected.isalpha()], "nothing worse than a refusal"
    assert survives(attacks, Verifiers(compiled)), "the same verifiers give the same answers"
    before = signal.signal(signal.SIGVTALRM, stuck)
    unnoticed, count = [], 0
    try:
        for label, tree in mutants(sources[name]):
            count += 1
            signal.setitimer(signal.ITIMER_VIRTUAL, 1)
            try:
                if survives(attacks, Verifiers(compiled | {name: compile(tree, name, "exec")})):
                    unnoticed.append(label)
            except (Exception, Stuck):
                continue
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)
    assert count > 50
    assert [] == [label for label in unnoticed if label not in SURVIVORS]
