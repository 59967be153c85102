"""The command `kiki`. A command parses, makes one call, and shows what it got; nothing else lives here.

Exit codes: 0 yes, 1 error, 2 usage, 3 refused, 130 Ctrl-C (services, which run until then, end with 0), 141 somebody closed the pipe.
Every import in these files is light; what a command needs, it imports when it runs.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kiki import __version__
from kiki.cli import (
    audit,
    budget,
    campaign,
    compliance,
    consent,
    dsr,
    engage,
    helm,
    ledger,
    loyalty,
    ltv,
    services,
    show,
    spend,
    up,
)
from kiki.cli.doctor import doctor
from kiki.cli.options import JSON_META
from kiki.cli.settings import settings
from kiki.errors import InvalidInput, KikiError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class KikiGroup(TyperGroup):
    """The one place where errors become words and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KikiError as error:
            raise typer.Exit(show.fail(error, json_wanted=ctx.meta.get(JSON_META, False))) from None
        except KeyboardInterrupt:
            raise typer.Exit(show.EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(show.EXIT_PIPE) from None
        except OSError as error:
            if error.errno in _DISK_FULL and error.filename is None:
                _forget_stdout()
                lost = KikiError(f"the output cannot be written: {error.strerror}")
                raise typer.Exit(show.fail(lost, json_wanted=ctx.meta.get(JSON_META, False))) from None
            if error.filename is None:
                raise
            # A file that cannot be read or made is its owner's matter: they want its name, not the way that led to it.
            told = InvalidInput(f"{error.filename}: {error.strerror}")
            raise typer.Exit(show.fail(told, json_wanted=ctx.meta.get(JSON_META, False))) from None
        return result


app = typer.Typer(
    cls=KikiGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kiki {__version__}")
        raise typer.Exit


@app.callback()
def kiki(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Decide whether money may be spent, and prove it afterwards.

    Exit codes: 0 yes, 1 error, 2 usage, 3 refused.
    """


app.command()(up.up)
app.add_typer(services.app, name="serve")
app.command()(spend.spend)
app.command()(spend.check)
app.command()(spend.reserve)
app.command()(spend.commit)
app.command()(spend.release)
app.add_typer(budget.app, name="budget")
app.add_typer(consent.app, name="consent")
app.add_typer(dsr.app, name="dsr")
app.add_typer(compliance.app, name="compliance")
app.add_typer(audit.app, name="audit")
app.add_typer(ledger.app, name="ledger")
app.add_typer(ltv.app, name="ltv")
app.add_typer(engage.app, name="engage")
app.add_typer(loyalty.app, name="loyalty")
app.add_typer(campaign.app, name="campaign")
app.add_typer(helm.app, name="helm")
app.command()(doctor)
app.command()(settings)


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush has nobody to complain to."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)


def _have_streams() -> None:
    """Put nothing in the place of a stream that the caller closed: else the first file that is opened becomes it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the process
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the process


def main() -> None:
    """Run the command line and end the process."""
    code: Any = 0
    _have_streams()
    try:
        app(prog_name="kiki")
    except SystemExit as end:
        # A table's writer ends by itself, with 1, when nobody reads any more.
        code = show.EXIT_PIPE if isinstance(end.__context__, BrokenPipeError) else end.code
    except KeyboardInterrupt:
        code = show.EXIT_INTERRUPTED
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        code = show.EXIT_PIPE
    sys.exit(code)


if __name__ == "__main__":
    main()
