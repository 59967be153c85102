"""`kiki engage learn`: what policies are worth on a randomised experiment from elsewhere."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kiki.cli import show
from kiki.cli.engage_access import one_thread_a_product
from kiki.cli.options import Json
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.engage.outside_log import OutsideLog
    from kiki.engage.policy_trial import PolicyTrial
    from kiki.engage.policy_value import Interval

BYTES_MAX = 2 * 2**30


def learn(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file with a line of names, or the same as .gz.")],
    arm_col: Annotated[str, typer.Option("--arm-col", metavar="COLUMN", help="What somebody was given by chance.")],
    outcome_col: Annotated[
        str, typer.Option("--outcome-col", metavar="COLUMN", help="What came of it: money, or whether they bought.")
    ],
    early_col: Annotated[
        str | None,
        typer.Option("--early-col", metavar="COLUMN", help="A denser outcome that comes before it: a visit, a click."),
    ] = None,
    feature_col: Annotated[
        list[str] | None,
        typer.Option("--feature-col", metavar="COLUMN", help="Learn from these columns only. Repeatable."),
    ] = None,
    ignore_col: Annotated[
        list[str] | None, typer.Option("--ignore-col", metavar="COLUMN", help="Not from this one. Repeatable.")
    ] = None,
    dormancy_col: Annotated[
        str | None,
        typer.Option("--dormancy-col", metavar="COLUMN", help="How long somebody has been away; else guessed by name."),
    ] = None,
    control: Annotated[
        str | None, typer.Option("--control", metavar="ARM", help="The arm that is no contact; else guessed by name.")
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option("--cost", metavar="ARM=NUMBER", help="What giving an arm costs, in units of the outcome."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31, metavar="N", help="Divides the people.")] = 0,
    as_json: Json = False,
) -> None:
    """Judge policies on a randomised experiment from elsewhere: constants, the most dormant first, and what is learned.

    What is learned is judged on people whom it was not learned from. Columns that came of the arm are found and left out.
    """
    one_thread_a_product()
    from kiki.engage.outside_log import Roles, read_outside_log
    from kiki.engage.policy_trial import try_policies

    roles = Roles(
        arm_col, outcome_col, early_col, tuple(feature_col or ()), tuple(ignore_col or ()), dormancy_col, control
    )
    log = read_outside_log(_lines(file), roles, _costs(cost or []))
    found = try_policies(log.outcomes, log.away, seed=seed)
    if as_json:
        show.as_json(_told(log, found))
        return
    for note in log.notes:
        show.talk(note)
    for name, why in log.left_out.items():
        show.talk(f"not learned from {name}: {why}")
    _show(log, found)


def _lines(file: Path) -> Iterator[str]:
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as source:
            data = source.read(BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > BYTES_MAX:
        raise InvalidInput(f"{file} is larger than {BYTES_MAX} bytes", hint="take a random part of its rows")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    yield from io.StringIO(text, newline="")


def _costs(given: list[str]) -> dict[str, float]:
    costs = {}
    for each in given:
        arm, equals, number = each.rpartition("=")
        try:
            costs[arm] = float(number)
        except ValueError:
            equals = ""
        if not equals or not 0 <= costs.get(arm, -1.0) < float("inf"):
            raise InvalidInput(f"--cost {each!r} cannot be used; write an arm and a number, such as email=0.10")
    return costs


def _show(log: OutsideLog, found: PolicyTrial) -> None:
    show.line(f"{len(log.outcomes)} people, {len(log.outcomes.features)} features; per person, after the cost, 95 %")
    width = max(map(len, found.constants))
    for arm, constant in found.constants.items():
        show.line(
            f"  everybody {arm:<{width}}  {_range(constant.value)}  ({constant.persons} people, {constant.active} with an outcome)"
        )
    if found.dormant is not None:
        name = f"{found.dormant_arm} to the half that {log.dormancy} tells away longest"
        show.line(f"  {name}  {_range(found.dormant)}")
    show.line(f"  what is learned, on people it was not learned from  {_range(found.learned)}")
    show.line(f"    over everybody {found.best}  {_range(found.gain, sign='+')}")
    if found.over_dormant is not None:
        show.line(f"    over the most dormant  {_range(found.over_dormant, sign='+')}")
    if found.takes_learned:
        shares = ", ".join(f"{arm} to {share:.1%}" for arm, share in found.shares.items())
        show.line(f"recommended: what is learned, {shares}")
    else:
        show.line(f"recommended: everybody {found.best}; {_why(found)}")


def _why(found: PolicyTrial) -> str:
    if found.policy.evidence is None:
        return "there are too few people to learn from"
    return "no policy that was learned is surely better"


def _range(each: Interval, sign: str = "") -> str:
    return f"{each.value:{sign}.5g} ({each.low:{sign}.5g} to {each.high:{sign}.5g})"


def _told(log: OutsideLog, found: PolicyTrial) -> dict[str, Any]:
    evidence = found.policy.evidence
    return {
        "people": len(log.outcomes),
        "features": sorted(log.outcomes.features),
        "early": log.early,
        "dormancy": log.dormancy,
        "control": log.outcomes.arms[0],
        "constants": {
            arm: {"people": each.persons, "active": each.active, **each.value._asdict()}
            for arm, each in found.constants.items()
        },
        "best_constant": found.best,
        "most_dormant": None if found.dormant is None else {"arm": found.dormant_arm, **found.dormant._asdict()},
        "learned": {
            **found.learned._asdict(),
            "over_best_constant": found.gain._asdict(),
            "over_most_dormant": None if found.over_dormant is None else found.over_dormant._asdict(),
            "shares": found.shares,
            "evidence": None if evidence is None else evidence._asdict(),
        },
        "recommended": {
            "policy": "learned" if found.takes_learned else "constant",
            "arm": None if found.takes_learned else found.best,
        },
        "left_out": log.left_out,
        "notes": log.notes,
    }
