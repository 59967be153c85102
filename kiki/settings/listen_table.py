"""The variables by which every HTTP service listens and tells what it does."""

from __future__ import annotations

import re
from typing import Final

from kiki.settings.address import host_name, host_names, http_url, without_credentials
from kiki.settings.values import boolean, byte_size, one_of, path, printable, rate, seconds_float, whole_number
from kiki.settings.variable import Variable


def listen_variables(port: int) -> tuple[Variable, ...]:
    """The rows of `ListenSettings` for a service whose own port is `port`."""
    port_number = whole_number(0, 65535)
    return (
        Variable("PORT", "port", port_number, str(port), "internal HTTP port; 0 takes any free one"),
        Variable("KIKI_HOST", "host", host_name, "127.0.0.1", "address that the internal port binds"),
        Variable(
            "KIKI_PUBLIC_PORT", "public_port", port_number, None,
            "second port, which always demands a bearer token; needs KIKI_TOKENS_FILE",
        ),
        Variable("KIKI_PUBLIC_HOST", "public_host", host_name, None, "address that the public port binds; KIKI_HOST when unset"),
        Variable("KIKI_PUBLIC_RATE", "public_rate", rate, "200", "requests per second and caller on the public port; 0 = no limit"),
        Variable("KIKI_RATE", "rate", rate, "0", "requests per second and caller on the internal port; 0 = no limit"),
        Variable("KIKI_TOKENS_FILE", "tokens_file", path, None, "YAML file of bearer tokens and their roles"),
        Variable(
            "KIKI_ALLOWED_HOSTS", "allowed_hosts", host_names, None,
            "Host names that are answered, divided by commas; unset: localhost on a loopback bind, any elsewhere",
        ),
        Variable("KIKI_BODY_BYTES_MAX", "body_bytes_max", byte_size(1024, 2**30), "1MiB", "largest request body"),
        Variable(
            "KIKI_REQUEST_SECONDS_MAX", "request_seconds_max", seconds_float(3600), "10",
            "how long a request's body may take to arrive; a decision under way is never cut off",
        ),
        Variable(
            "KIKI_DRAIN_SECONDS", "drain_seconds", seconds_float(3600, zero=True), "10",
            "how long a stopping service waits for requests in flight",
        ),
        Variable("KIKI_ACCESS_LOG", "access_log", boolean, "false", "log one line per request (no query, no body)"),
    )  # fmt: skip


LISTEN_VARIABLES: Final = listen_variables(8081)


def _otlp_endpoint(text: str) -> str:
    """`host:port` means a collector without TLS, as collectors inside a cluster are."""
    try:
        return http_url(text if "://" in text else f"http://{text}")
    except ValueError:
        raise ValueError(
            "expected a collector's host:port, or its http:// or https:// URL without user, query or fragment, "
            "for example localhost:4317"
        ) from None


def _share(text: str) -> float:
    if re.fullmatch(r"0(\.[0-9]{1,9})?|1(\.0{1,9})?", text):
        return float(text)
    raise ValueError("expected a share from 0 to 1")


OTEL_VARIABLES: Final = (
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT", "endpoint", _otlp_endpoint, None,
        "collector that takes OTLP over gRPC; unset: nothing is exported", without_credentials,
    ),
    Variable("OTEL_EXPORTER_OTLP_PROTOCOL", "protocol", one_of("grpc"), "grpc", "how it is spoken to"),
    Variable("OTEL_SDK_DISABLED", "disabled", boolean, "false", "export nothing, whatever else is set"),
    Variable("OTEL_TRACES_EXPORTER", "traces", one_of("otlp", "none"), "otlp", "where traces go"),
    Variable("OTEL_METRICS_EXPORTER", "metrics", one_of("otlp", "none"), "otlp", "where metrics go, beside /metrics"),
    Variable(
        "OTEL_TRACES_SAMPLER", "sampler",
        one_of(
            "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
            "always_on", "always_off", "traceidratio",
        ),
        "parentbased_always_on", "which traces are kept",
    ),
    Variable("OTEL_TRACES_SAMPLER_ARG", "share", _share, "1.0", "the share of traces that a ratio sampler keeps"),
    Variable("OTEL_METRIC_EXPORT_INTERVAL", "metric_millis", whole_number(100, 3_600_000), "60000", "milliseconds between two exports of metrics"),
    Variable("OTEL_SERVICE_NAME", "service_name", printable, None, "name of the service in traces; its own when unset"),
)  # fmt: skip


UP_VARIABLES: Final = (
    Variable("KIKI_SHIELD_PORT", "shield_port", whole_number(0, 65535), "8081", "SyncShield's port under `kiki up`, which ignores PORT"),
    Variable("KIKI_FLOW_PORT", "flow_port", whole_number(0, 65535), "8082", "SyncFlow's port under `kiki up`"),
    Variable("KIKI_ENGAGE_PORT", "engage_port", whole_number(0, 65535), "8083", "SyncEngage's port under `kiki up`"),
)  # fmt: skip
"""What `kiki up` reads by itself, beside KIKI_VALUE_PORT, KIKI_VALUE_HTTP_PORT and KIKI_FLOW_GRPC_PORT."""
