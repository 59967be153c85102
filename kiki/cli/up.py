"""`kiki up`: all four services on this machine, with a picture of what they do."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.data_dir import held, make_data_dir
from kiki.cli.options import Json

if TYPE_CHECKING:
    from kiki.cli.fleet import Fleet, Member, Ports
    from kiki.cli.fleet_look import Looker

LOOK_SECONDS = 0.5
LINE_SECONDS = 1.0

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Instead of KIKI_DATA_DIR (./kiki-data).")
]
Single = Annotated[bool, typer.Option("--single", help="All in one process instead of one each; without the picture.")]


def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Made-up customers, campaigns and spends to watch; below DIR/demo.")
    ] = False,
    single: Single = False,
    data_dir: DataDir = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Write the last frame as SVG when it ends.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.1, help="End by itself after so long; without it, Ctrl-C ends it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run all four services, with embedded stores and the guide's ports, and show what they do until Ctrl-C.

    Each port has a variable: KIKI_SHIELD_PORT 8081, KIKI_VALUE_PORT 50051, KIKI_VALUE_HTTP_PORT 9051, KIKI_FLOW_PORT 8082,
    KIKI_FLOW_GRPC_PORT 50052, KIKI_ENGAGE_PORT 8083. PORT is ignored. Without a terminal: one line a second; with --json as JSON.
    Logs are in DIR/logs.
    """
    if single:
        if demo or picture is not None:
            raise typer.BadParameter("--single shows no picture and has no demonstration", param_hint="--single")
        _serve_single(_folder(data_dir))
        return
    if picture is not None and not picture.parent.is_dir():
        raise typer.BadParameter(f"{picture.parent} is no directory that there is", param_hint="--picture")
    root = _folder(data_dir)
    # A demonstration must not write into books that somebody keeps.
    root = root / "demo" if demo else root
    _supervise(root, demo=demo, as_json=as_json, picture=picture, seconds=seconds)


def serve_all(single: Single = False, data_dir: DataDir = None) -> None:
    """Start all four services and stay in the foreground; their logs go to stdout.

    Ports as for `kiki up`, which shows a picture instead.
    """
    root = _folder(data_dir)
    if single:
        _serve_single(root)
        return
    from kiki.cli import fleet

    ports = fleet.Ports.read(os.environ)
    with (
        _members(root, ports, os.environ, logs=False) as members,
        fleet.running(members, show.talk) as found,
        _told_to_end() as over,
    ):
        while not over():
            found.watch()
            time.sleep(LOOK_SECONDS)


def _folder(data_dir: Path | None) -> Path:
    return (data_dir or Path(os.environ.get("KIKI_DATA_DIR") or "kiki-data")).absolute()


@contextmanager
def _members(root: Path, ports: Ports, environ: Mapping[str, str], *, logs: bool) -> Iterator[list[Member]]:
    """What can run here, and the folder for it alone; what cannot run is said, with what to do about it."""
    from kiki.cli import fleet

    missing = fleet.missing_extras()
    for service, advice in missing.items():
        show.talk(f"{service} is left out: this installation lacks what it needs; {advice}")
    services = tuple(service for service in fleet.SERVICES if service not in missing)
    fleet.require_apart(ports, services)
    told = {service: fleet.environment(service, ports, root, environ) for service in services}
    fleet.require_settings(told)
    folder = root / "logs"
    make_data_dir(folder if logs else root)
    with held(root, show.talk, fleet.STOP_SECONDS) as kept:
        # Only now: those that are waited for may have had the ports.
        fleet.require_free(ports, services)
        yield [
            fleet.Member(service, told[service], folder / f"{service}.log" if logs else None, kept)
            for service in services
        ]


def _serve_single(root: Path) -> None:
    """The four services in this process."""
    from kiki.cli import fleet
    from kiki.cli.engage_wiring import prepare_engage
    from kiki.cli.wiring import prepare_flow, prepare_shield, prepare_value
    from kiki.web import run_all

    ports = fleet.Ports.read(os.environ)
    fleet.require_apart(ports, fleet.SERVICES)
    makers = {
        fleet.SHIELD: prepare_shield,
        fleet.VALUE: prepare_value,
        fleet.FLOW: prepare_flow,
        fleet.ENGAGE: prepare_engage,
    }
    make_data_dir(root)
    missing = fleet.missing_extras()
    for service, advice in missing.items():
        show.talk(f"{service} is left out: this installation lacks what it needs; {advice}")
    prepared = []
    with held(root, show.talk, fleet.STOP_SECONDS):
        fleet.require_free(ports, fleet.SERVICES)
        for service, prepare in makers.items():
            if service in missing:
                continue
            environ = fleet.environment(service, ports, root, os.environ)
            # Clients that are made on the way look at the process's own environment.
            os.environ |= {name: environ[name] for name in ("SHIELD_URL", "LTV_GRPC_ADDR")}
            prepared.append(prepare(environ))
        run_all(prepared)


def _supervise(root: Path, *, demo: bool, as_json: bool, picture: Path | None, seconds: float | None) -> None:
    from kiki.cli import fleet, fleet_demo
    from kiki.cli.fleet_look import Looker
    from kiki.cli.fleet_view import FleetView

    environ = dict(os.environ)
    ports = fleet.Ports.read(environ)
    if demo:
        make_data_dir(root)
        environ |= fleet_demo.prepare(root / "given")
    view = FleetView(f"kiki up{' --demo' if demo else ''}   Ctrl-C ends it   logs: {root / 'logs'}")

    def say(text: str) -> None:
        view.notes.append(text)
        if not sys.stderr.isatty():
            show.talk(text)

    with ExitStack() as stack:
        members = stack.enter_context(_members(root, ports, environ, logs=True))
        value = next((member for member in members if member.service == fleet.VALUE), None)
        if value is not None and demo:
            stack.enter_context(fleet_demo.fitting(root / "given", value.environ))
        found = stack.enter_context(fleet.running(members, say))
        looker = Looker(found, ports, root)
        traffic = fleet_demo.Traffic(ports, say) if demo else None
        if traffic is not None:
            traffic.start()
        try:
            _look_on(found, looker, view, as_json=as_json, seconds=seconds)
        finally:
            if traffic is not None:
                traffic.stop()
            if picture is not None:
                from kiki.cli.fleet_view import picture as drawn

                picture.write_text(drawn(view, looker.look()))
            looker.close()
            show.talk("stopping: what was taken is answered first", dim=True)


def _look_on(found: Fleet, looker: Looker, view: object, *, as_json: bool, seconds: float | None) -> None:
    """Draw, or tell, until somebody ends it."""
    from kiki.cli.fleet_view import FleetView, line

    assert isinstance(view, FleetView)
    until = None if seconds is None else time.monotonic() + seconds
    with _told_to_end() as over:

        def done() -> bool:
            return over() or (until is not None and time.monotonic() >= until)

        if as_json or not sys.stdout.isatty():
            while not done():
                found.watch()
                now = looker.look()
                view.frame(now)
                if as_json:
                    show.as_json(now)
                else:
                    show.line(line(now))
                sys.stdout.flush()
                time.sleep(LINE_SECONDS)
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
            while not done():
                found.watch()
                live.update(view.frame(looker.look()), refresh=True)
                time.sleep(LOOK_SECONDS)


class _told_to_end:  # noqa: N801  # read as a word
    """Whether SIGTERM or Ctrl-C came; the services then get their own signal, in order."""

    def __enter__(self) -> Callable[[], bool]:
        self._told = False
        self._before = {number: signal.signal(number, self._tell) for number in (signal.SIGTERM, signal.SIGINT)}
        return lambda: self._told

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
