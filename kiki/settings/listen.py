"""How an HTTP service listens, and where its traces and metrics go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kiki.errors import SettingsError
from kiki.settings.listen_table import OTEL_VARIABLES, listen_variables
from kiki.settings.variable import Variable, read_variables


@dataclass(frozen=True, slots=True)
class OtelSettings:
    """Where traces and metrics go, by OpenTelemetry's own variables."""

    endpoint: str
    """With its scheme."""
    insecure: bool
    share: float
    """Of the traces that begin here."""
    parent_based: bool
    traces: bool
    metrics: bool
    metric_seconds: float
    service_name: str | None


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where and how an HTTP service listens; what `kiki.web` needs. Sizes in bytes, times in seconds."""

    port: int
    host: str
    public_port: int | None
    public_host: str
    public_rate: float
    rate: float
    tokens_file: Path | None
    allowed_hosts: tuple[str, ...]
    body_bytes_max: int
    request_seconds_max: float
    drain_seconds: float
    access_log: bool
    otel: OtelSettings | None = None
    """None: nothing is exported."""


def read_listen(
    environ: Mapping[str, str], variables: Iterable[Variable], problems: list[str]
) -> ListenSettings | None:
    """How a service listens; None when `problems` grew."""
    before = len(problems)
    values = read_variables(environ, variables, problems)
    public_port = values.get("public_port")
    if public_port is not None:
        if "tokens_file" in values and values["tokens_file"] is None:
            problems.append(
                f"KIKI_PUBLIC_PORT={public_port}: the public port demands bearer tokens, so KIKI_TOKENS_FILE must name "
                "a file that holds some"
            )
        if (
            public_port
            and public_port == values.get("port")
            and values.get("public_host") in {None, values.get("host")}
        ):
            problems.append(f"KIKI_PUBLIC_PORT={public_port}: expected another port than PORT, which is the same")
    if len(problems) > before:
        return None
    values["public_host"] = values["public_host"] or values["host"]
    values["allowed_hosts"] = values["allowed_hosts"] or ()
    otel = _otel(environ, problems)
    return None if len(problems) > before else ListenSettings(**values, otel=otel)


def _otel(environ: Mapping[str, str], problems: list[str]) -> OtelSettings | None:
    before = len(problems)
    values = read_variables(environ, OTEL_VARIABLES, problems)
    if len(problems) > before or values["disabled"] or values["endpoint"] is None:
        return None
    sampler: str = values["sampler"]
    kind = sampler.removeprefix("parentbased_")
    return OtelSettings(
        endpoint=values["endpoint"],
        insecure=values["endpoint"].startswith("http://"),
        share={"always_on": 1.0, "always_off": 0.0}.get(kind, values["share"]),
        parent_based=sampler.startswith("parentbased_"),
        traces=values["traces"] == "otlp",
        metrics=values["metrics"] == "otlp",
        metric_seconds=values["metric_millis"] / 1000,
        service_name=values["service_name"],
    )


def parse_listen(environ: Mapping[str, str], *, port: int = 8081) -> ListenSettings:
    """The listening part alone, for a service whose own port is `port`; raises `SettingsError`."""
    problems: list[str] = []
    listen = read_listen(environ, listen_variables(port), problems)
    if listen is None:
        raise SettingsError(problems)
    return listen
