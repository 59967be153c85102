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
from collections.abc import Iterator
from pathlib import Path

import kiki
from kiki.errors import EvidenceInvalid
from tests.ledger.attacks import Attack, all_attacks

FILES = ("chain_verifier", "bundle_verifier", "proof_verifier")
FOLDER = Path(kiki.__file__).parent / "ledger"

SURVIVORS: dict[str, str] = {}
"""Source line: why a change of it may go unnoticed."""

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
    """Every mutant of a file, with the line that was changed and into what."""
    tree = ast.parse(source)
    lines = source.splitlines()
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
                    yield f"{lines[child.lineno - 1].strip()}  ->  {ast.unparse(changed).splitlines()[0]}", mutant
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
    return all(answer(attack, verifiers) == expected for attack, expected in attacks)


def stuck(number, frame):
    raise Stuck


def test_every_change_of_the_verifiers_is_noticed():
    sources = {name: (FOLDER / f"{name}.py").read_text() for name in FILES}
    compiled = {name: compile(source, name, "exec") for name, source in sources.items()}
    real = Verifiers(compiled)
    attacks = [(attack, answer(attack, real)) for attack in all_attacks()]
    assert survives(attacks, Verifiers(compiled)), "the same verifiers give the same answers"
    before = signal.signal(signal.SIGVTALRM, stuck)
    unnoticed, count = [], 0
    try:
        for name, source in sources.items():
            for label, tree in mutants(source):
                count += 1
                code = compile(tree, name, "exec")
                signal.setitimer(signal.ITIMER_VIRTUAL, 2)
                try:
                    if survives(attacks, Verifiers(compiled | {name: code})):
                        unnoticed.append(label)
                except (Exception, Stuck):
                    continue
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)
    assert count > 200
    assert [] == [label for label in unnoticed if label not in SURVIVORS]
