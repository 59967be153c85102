"""What clients are told: where services are, and with which token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kiki.errors import SettingsError
from kiki.settings.address import grpc_address, http_url
from kiki.settings.secret import Secret
from kiki.settings.value_table import VALUE_PORT
from kiki.settings.values import path
from kiki.settings.variable import Variable, cut

SHIELD_URL_DEFAULT: Final = "http://localhost:8081"
CLIENT_VARIABLES: Final = (
    Variable("KIKI_SHIELD_URL", "shield_url", http_url, None, "where clients find SyncShield"),
    Variable(
        "SHIELD_URL",
        "shield_url",
        http_url,
        SHIELD_URL_DEFAULT,
        "the same under the guide's name, with or without /check",
    ),
    Variable("KIKI_SHIELD_TOKEN", "shield_token", Secret, None, "bearer token of clients", None),
    Variable("KIKI_SHIELD_TOKEN_FILE", "shield_token_file", path, None, "file that holds the bearer token of clients"),
)


VALUE_CLIENT_VARIABLES: Final = (
    Variable("LTV_GRPC_ADDR", "ltv_address", grpc_address, "localhost:50051", "host:port where clients find SyncValue"),
    Variable("KIKI_VALUE_TOKEN", "value_token", Secret, None, "bearer token of its clients", None),
    Variable("KIKI_VALUE_TOKEN_FILE", "value_token_file", path, None, "file that holds the bearer token of its clients"),
    Variable("KIKI_VALUE_CA_FILE", "value_ca_file", path, None, "clients speak TLS and trust the certificates in this file, PEM"),
)  # fmt: skip


ENGAGE_CLIENT_VARIABLES: Final = (
    Variable("KIKI_ENGAGE_URL", "engage_url", http_url, None, "where `kiki engage` finds SyncEngage; unset: the store in KIKI_DATA_DIR"),
)  # fmt: skip


FLOW_CLIENT_VARIABLES: Final = (
    Variable("KIKI_FLOW_URL", "flow_url", http_url, None, "where `kiki campaign` finds SyncFlow; unset: the runs in KIKI_DATA_DIR or DATABASE_URL"),
)  # fmt: skip


def flow_url(environ: Mapping[str, str]) -> str | None:
    """Which SyncFlow `kiki campaign` asks: KIKI_FLOW_URL; None: none; raises `SettingsError`."""
    try:
        url: str | None = FLOW_CLIENT_VARIABLES[0].read(environ)
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    return url


def shield_url(environ: Mapping[str, str]) -> str:
    """Where a client finds SyncShield: KIKI_SHIELD_URL, then SHIELD_URL, then the default; raises `SettingsError`.

    Without a trailing slash and without the /check that the guide's SHIELD_URL ends with.
    """
    own, guide = CLIENT_VARIABLES[:2]
    try:
        url: str = own.read(environ) or guide.read(
            {**environ, guide.name: environ.get(guide.name) or SHIELD_URL_DEFAULT}
        )
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    return url


def ltv_address(environ: Mapping[str, str]) -> str:
    """Where a client finds SyncValue: LTV_GRPC_ADDR, or localhost:50051; raises `SettingsError`."""
    own = VALUE_CLIENT_VARIABLES[0]
    try:
        address: str = own.read({own.name: environ.get(own.name) or f"localhost:{VALUE_PORT}"})
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    return address


def parse_url(text: str) -> str:
    """A service's URL as `--url` takes it, in the form that `shield_url` gives; raises `SettingsError`."""
    try:
        return http_url(text)
    except ValueError as error:
        raise SettingsError([f"{cut(repr(text))}: {error}"]) from None


def checked_token(token: str, where: str) -> str:
    """The bearer token, if it can stand in a header; raises `SettingsError`, which never shows it."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError([f"{where} holds no bearer token: it must be one word of printable ASCII"])
    return token
