"""`kiki doctor`: looks at everything around the ledger, and says what to do about what is amiss."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import typer

from kiki.cli import show
from kiki.cli.data_dir import unwritable
from kiki.cli.doctor_engage import engage
from kiki.cli.doctor_services import services
from kiki.cli.options import DataDir, Json

if TYPE_CHECKING:
    from pathlib import Path

    from kiki.settings import ShieldSettings
    from kiki.shield.checkup import Check

Environ = Mapping[str, str]


def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Check the surroundings: settings, files, keys, archive, clock, Redis, disk, providers, services, model, collector.

    Each line is ok, warn, fail with what to do, or skip for what could not be looked at. Exit code 1 when something fails.
    """
    environ = dict(os.environ)
    if data_dir is not None:
        environ["KIKI_DATA_DIR"] = str(data_dir)
    found = [check for group in GROUPS for check in group(environ)]
    if as_json:
        show.as_json({"checks": [check.as_dict() for check in found]})
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            show.line(f"{check.state:<4}  {check.name:<{width}}  {check.said}")
            if check.advice:
                show.line(f"{'':<{width + 6}}  → {check.advice}")
    if any(check.state == "fail" for check in found):
        raise typer.Exit(show.EXIT_ERROR)


def shield(environ: Environ) -> Iterator[Check]:
    """The ledger of SyncShield and what it leans on."""
    from kiki.errors import SettingsError
    from kiki.settings import ShieldSettings
    from kiki.shield import checkup
    from kiki.shield.checkup import Check, State

    try:
        settings = ShieldSettings.parse(environ)
    except SettingsError as error:
        for problem in error.problems:
            yield Check("settings", State.FAIL, problem, "kiki settings lists them all")
        return
    yield Check("settings", State.OK, "every setting can be read")
    if settings.policy_file is not None:
        file = settings.policy_file
        yield checkup.tried("policy", lambda: checkup.policy(file, settings.currency, settings.purposes))
    yield from _of_ledger(settings)
    if settings.redis_mode == "auto":
        yield checkup.redis(settings.redis)


def _of_ledger(settings: ShieldSettings) -> Iterator[Check]:
    from kiki.cli.ledger_access import access
    from kiki.cli.wiring import key_file
    from kiki.clock import wall_micros
    from kiki.errors import KikiError
    from kiki.shield import checkup
    from kiki.shield.probe import Surroundings

    own = settings.ledger
    if (obstacle := _obstacle(settings.data_dir)) is not None:
        said = unwritable(settings.data_dir, obstacle)
        yield checkup.Check("data directory", checkup.State.FAIL, said, "no service starts without one")
    elif settings.data_dir.is_dir():
        yield checkup.tried("disk", lambda: checkup.disk(settings.data_dir))
    yield checkup.witnessed(own.witness_url, own.tsa_url)
    if own.database_url is None and not (settings.data_dir / "shield.db").exists():
        if obstacle is not None:
            return
        yield checkup.Check(
            "ledger", checkup.State.OK, f"there is none in {settings.data_dir} yet: a first start makes it"
        )
        return
    found = access(None, settings.data_dir if own.database_url is None else None)
    try:
        with found.readers() as readers:
            yield checkup.tried("key store", lambda: checkup.unlocked(found.seed, readers[0]))
            now = wall_micros()
            yield from checkup.ledger(
                Surroundings(
                    reader=readers[0],
                    others=readers[1:],
                    now=now,
                    wall=now,
                    retention_days=settings.retention_days,
                    data_dir=None if own.database_url is not None else settings.data_dir,
                    master_key_file=key_file(own),
                    verifier_key=found.verifier_key(readers[0]),
                )
            )
            yield from checkup.archive(own.archive, readers, settings.retention_days)
    except KikiError as error:
        yield checkup.Check("ledger", checkup.State.FAIL, str(error), error.hint or "")


def _obstacle(folder: Path) -> str | None:
    """What keeps a service from writing there; None when nothing does. A folder that is not there yet is made below one that is."""
    whole = folder.absolute()
    try:
        there = next(each for each in (whole, *whole.parents) if each.exists())
    except OSError as error:
        return str(error)
    if not there.is_dir():
        return f"{there} is no directory"
    return None if os.access(there, os.W_OK | os.X_OK) else f"nothing can be made in {there}"


GROUPS: Final[tuple[Callable[[Environ], Iterator[Check]], ...]] = (shield, engage, services)
"""What is looked at, service by service: each takes the environment and answers with checks."""
