"""`kiki serve`: start a service and stay in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kiki.cli.up import serve_all

app = typer.Typer(help="Start a service and stay in the foreground.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def serve() -> None:
    """Start a service and stay in the foreground."""  # without a callback one command would swallow its group


@app.command()
def shield(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Instead of PORT (8081); 0 takes a free one.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Instead of KIKI_HOST (127.0.0.1).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Instead of KIKI_DATA_DIR (./kiki-data).")
    ] = None,
) -> None:
    """Start SyncShield, which decides about budgets.

    Settings come from the environment: see `kiki settings`.
    """
    from kiki.cli.wiring import run_shield

    environ = dict(os.environ)
    for name, value in (("PORT", port), ("KIKI_HOST", host), ("KIKI_DATA_DIR", data_dir)):
        if value is not None:
            environ[name] = str(value)
    run_shield(environ)


@app.command()
def value(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="gRPC port, instead of KIKI_VALUE_PORT (50051).")
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option("--http-port", min=0, max=65535, help="HTTP port, instead of KIKI_VALUE_HTTP_PORT (9051)."),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Instead of KIKI_HOST (127.0.0.1).")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="Model file, instead of KIKI_VALUE_MODEL.")
    ] = None,
    customers: Annotated[
        Path | None,
        typer.Option(
            "--customers",
            metavar="FILE",
            help="Order log or summary of those known by id, instead of KIKI_VALUE_CUSTOMERS.",
        ),
    ] = None,
) -> None:
    """Start SyncValue, which tells customers' lifetime value.

    Settings come from the environment: see `kiki settings`.
    """
    from kiki.cli.wiring import run_value

    environ = dict(os.environ)
    given = (
        ("KIKI_VALUE_PORT", port),
        ("KIKI_VALUE_HTTP_PORT", http_port),
        ("KIKI_HOST", host),
        ("KIKI_VALUE_MODEL", model),
        ("KIKI_VALUE_CUSTOMERS", customers),
    )
    environ |= {name: str(option) for name, option in given if option is not None}
    run_value(environ)


@app.command()
def flow(
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="HTTP port, instead of PORT (8082); 0 takes a free one."),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=0, max=65535, help="gRPC port, instead of KIKI_FLOW_GRPC_PORT (50052)."),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Instead of KIKI_HOST (127.0.0.1).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Instead of KIKI_DATA_DIR (./kiki-data).")
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor", metavar="NAME", help="Its stable name, instead of KIKI_FLOW_EXECUTOR (the host's name)."
        ),
    ] = None,
) -> None:
    """Start SyncFlow, which runs campaigns on ad platforms.

    Settings come from the environment: see `kiki settings`.
    """
    from kiki.cli.wiring import run_flow

    environ = dict(os.environ)
    given = (
        ("PORT", port),
        ("KIKI_FLOW_GRPC_PORT", grpc_port),
        ("KIKI_HOST", host),
        ("KIKI_DATA_DIR", data_dir),
        ("KIKI_FLOW_EXECUTOR", executor),
    )
    environ |= {name: str(option) for name, option in given if option is not None}
    run_flow(environ)


@app.command()
def engage(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Instead of PORT (8083); 0 takes a free one.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Instead of KIKI_HOST (127.0.0.1).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Instead of KIKI_DATA_DIR (./kiki-data).")
    ] = None,
    playbooks: Annotated[
        Path | None,
        typer.Option(
            "--playbooks", metavar="FILE", help="A playbook or a directory, instead of KIKI_ENGAGE_PLAYBOOKS."
        ),
    ] = None,
) -> None:
    """Start SyncEngage, which decides whom to write to, and writes.

    Settings come from the environment: see `kiki settings`.
    """
    from kiki.cli.engage_access import one_thread_a_product
    from kiki.errors import MissingExtra

    one_thread_a_product()
    try:
        from kiki.cli.engage_wiring import run_engage
    except ModuleNotFoundError as error:
        raise MissingExtra("engage", "SyncEngage") from error

    environ = dict(os.environ)
    given = (("PORT", port), ("KIKI_HOST", host), ("KIKI_DATA_DIR", data_dir), ("KIKI_ENGAGE_PLAYBOOKS", playbooks))
    environ |= {name: str(option) for name, option in given if option is not None}
    run_engage(environ)


app.command("all")(serve_all)
