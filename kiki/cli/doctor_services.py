"""What `kiki doctor` says about the services themselves: whether they can be run here, and whether those that run are well."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from kiki.shield.checkup import Check

_TIMEOUT: Final = 2.0
_NAMES: Final = {"shield": "syncshield", "value": "syncvalue", "flow": "syncflow", "engage": "syncengage"}


def services(environ: Mapping[str, str]) -> Iterator[Check]:
    """Extras, ports, and what each running service says of itself; then SyncValue's model and the collector."""
    from kiki.cli.fleet import SERVICES, Ports, missing_extras
    from kiki.errors import SettingsError
    from kiki.shield.checkup import Check, State

    try:
        ports = Ports.read(environ)
    except SettingsError as error:
        for problem in error.problems:
            yield Check("ports", State.FAIL, problem, "kiki settings lists them all")
        return
    missing = missing_extras()
    for service in SERVICES:
        name = _NAMES[service]
        if service in missing:
            yield Check(name, State.WARN, "this installation lacks what it needs", missing[service])
        else:
            yield _running(name, ports.main(service), ports.beside(service))
    if "value" not in missing:
        yield from _model(environ)
    yield from _collector(environ)


def _running(name: str, port: int, beside: int | None) -> Check:
    """Whether the port is free, ours and ready, or somebody else's; where it is free, the gRPC port `beside` it has to be too."""
    import httpx

    from kiki.shield.checkup import Check, State

    where = f"http://127.0.0.1:{port}"
    try:
        reply = httpx.get(f"{where}/readyz", timeout=_TIMEOUT, trust_env=False)
        told = reply.json()
        checks = {str(each["name"]): each for each in told["checks"]}
    except (httpx.ConnectError, httpx.ConnectTimeout):
        if beside is not None and _listens(beside):
            said = f"nothing listens on {port}, but something on {beside}, its port for gRPC"
            return Check(name, State.WARN, said, f"stop it, or give {name} another port")
        return Check(
            name, State.OK, f"nothing listens on {port}: it is free for kiki serve {name.removeprefix('sync')}"
        )
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        said = f"what listens on {port} is none of kiki's services, or does not answer"
        return Check(name, State.WARN, said, f"stop it, or give {name} another port")
    if told.get("ready"):
        return Check(name, State.OK, f"ready at {where}")
    wrong = "; ".join(f"{part}: {each.get('detail', '')}" for part, each in checks.items() if not each.get("ok"))
    return Check(
        name,
        State.FAIL,
        f"at {where} not ready: {wrong[:300]}",
        f"its log has more; {where}/readyz says when it is over",
    )


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT):
            return True
    except OSError:
        return False


def _model(environ: Mapping[str, str]) -> Iterator[Check]:
    """The model file that SyncValue would serve."""
    from kiki.errors import KikiError, SettingsError
    from kiki.settings import ValueSettings
    from kiki.shield.checkup import Check, State
    from kiki.value.fitted_model import FittedModel

    if not environ.get("KIKI_VALUE_MODEL"):
        return
    try:
        settings = ValueSettings.parse(environ)
    except SettingsError as error:
        for problem in error.problems:
            yield Check("syncvalue settings", State.FAIL, problem, "kiki settings lists them all")
        return
    try:
        model = FittedModel.load(settings.model_file)
    except (KikiError, OSError) as error:
        yield Check("model", State.FAIL, str(error), "kiki ltv fit FILE makes one")
        return
    yield Check(
        "model", State.OK, f"{settings.model_file}: version {model.model_version}, fitted to {model.calibration_end}"
    )


def _collector(environ: Mapping[str, str]) -> Iterator[Check]:
    """The collector that traces and metrics go to."""
    from kiki.errors import SettingsError
    from kiki.settings import parse_listen
    from kiki.shield.checkup import Check, State

    try:
        otel = parse_listen(environ).otel
    except SettingsError:
        return  # said where settings are
    if otel is None:
        return
    parts = urlsplit(otel.endpoint)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 4317), _TIMEOUT):
            yield Check("collector", State.OK, f"{otel.endpoint} takes connections")
    except OSError as error:
        said = (
            f"{otel.endpoint} cannot be reached ({error.strerror or error}): spans are dropped, requests are not slowed"
        )
        yield Check(
            "collector", State.WARN, said, "see OTEL_EXPORTER_OTLP_ENDPOINT, host:port of a collector that takes gRPC"
        )
