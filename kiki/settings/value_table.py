"""SyncValue's variables."""

from __future__ import annotations

from typing import Final

from kiki.settings.values import boolean, one_of, path, seconds_float, whole_number
from kiki.settings.variable import Variable

VALUE_PORT: Final = 50051
VALUE_VARIABLES: Final = (
    Variable("KIKI_VALUE_PORT", "port", whole_number(0, 65535), None, "gRPC port of SyncValue; unset: PORT, and 50051 without it"),
    Variable("KIKI_VALUE_HTTP_PORT", "http_port", whole_number(0, 65535), "9051", "its HTTP port, for /health, /livez, /readyz and /metrics"),
    Variable(
        "KIKI_VALUE_MODEL", "model_file", path, None,
        "model file that `kiki ltv fit -o` wrote; unset: value-model.json in KIKI_DATA_DIR. A new one is taken over while serving",
    ),
    Variable(
        "KIKI_VALUE_CUSTOMERS", "customers_file", path, None,
        "customers who are known by id: an order log (.csv, .csv.gz, .parquet) or a summary of one (.parquet)",
    ),
    Variable(
        "KIKI_VALUE_UNKNOWN", "unknown", one_of("prior", "not-found"), "prior",
        "what an unknown id gets: what is expected of a new customer, said so, or NOT_FOUND",
    ),
    Variable("KIKI_VALUE_BATCH_MAX", "batch_max", whole_number(1, 100_000), "10000", "most customers in one request; a stream takes any number"),
    Variable(
        "KIKI_VALUE_RELOAD_SECONDS", "reload_seconds", seconds_float(3600, zero=True), "1",
        "how often the model and customer files are looked at; 0: on SIGHUP only",
    ),
    Variable("KIKI_VALUE_TLS_CERT_FILE", "tls_cert_file", path, None, "certificate chain of the gRPC port, PEM; needs KIKI_VALUE_TLS_KEY_FILE"),
    Variable("KIKI_VALUE_TLS_KEY_FILE", "tls_key_file", path, None, "its private key, PEM"),
    Variable("KIKI_VALUE_TLS_CLIENT_CA_FILE", "tls_client_ca_file", path, None, "callers must show a certificate that this one signed, PEM"),
    Variable(
        "KIKI_VALUE_ANONYMOUS", "anonymous", boolean, "false",
        "listen beyond this machine without tokens and client certificates; for a network that lets only your own services in",
    ),
)  # fmt: skip
