"""What SyncValue is told from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from kiki.errors import SettingsError
from kiki.settings.address import is_loopback
from kiki.settings.listen import ListenSettings, read_listen
from kiki.settings.listen_table import listen_variables
from kiki.settings.names import unknown_names
from kiki.settings.shield_table import SHIELD_VARIABLES
from kiki.settings.value_table import VALUE_PORT, VALUE_VARIABLES
from kiki.settings.variable import read_variables


@dataclass(frozen=True, slots=True)
class ValueSettings:
    """Everything SyncValue is told from outside. `listen` is its HTTP port, whose host, tokens and patience the gRPC port shares."""

    listen: ListenSettings
    port: int
    """The gRPC port."""
    model_file: Path
    customers_file: Path | None
    unknown: Literal["prior", "not-found"]
    batch_max: int
    reload_seconds: float
    tls_cert_file: Path | None
    tls_key_file: Path | None
    tls_client_ca_file: Path | None
    anonymous: bool
    log_level: str

    @property
    def variable(self) -> str:
        """The setting that names the gRPC port."""
        return "KIKI_VALUE_PORT"

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings in this environment; raises `SettingsError` with every mistake that it holds."""
        problems = unknown_names(environ)
        shared = [variable for variable in SHIELD_VARIABLES if variable.field in {"data_dir", "log_level"}]
        values = read_variables(environ, (*VALUE_VARIABLES, *shared), problems)
        # PORT and the public port are those of an HTTP service; this one's HTTP port has a name of its own.
        named = {"PORT", "KIKI_PUBLIC_PORT"}
        listen = read_listen(
            {name: text for name, text in environ.items() if name not in named},
            listen_variables(values.pop("http_port", None) or 0),
            problems,
        )
        values |= _value_port(environ, values.get("port"), problems)
        if listen is not None and 0 < listen.port == values.get("port"):
            problems.append(
                f"KIKI_VALUE_HTTP_PORT={listen.port}: expected another port than the gRPC port, which is the same"
            )
        cert, key, ca = (values.get(f"tls_{part}_file") for part in ("cert", "key", "client_ca"))
        if (cert is None) != (key is None):
            problems.append("KIKI_VALUE_TLS_CERT_FILE and KIKI_VALUE_TLS_KEY_FILE: TLS needs both of them")
        if ca is not None and cert is None:
            problems.append(
                "KIKI_VALUE_TLS_CLIENT_CA_FILE: callers' certificates need TLS: set KIKI_VALUE_TLS_CERT_FILE"
            )
        if listen is not None and not (is_loopback(listen.host) or listen.tokens_file or ca or values.get("anonymous")):
            problems.append(
                f"KIKI_HOST={listen.host}: anybody who reaches this port could ask for everybody's value. Set "
                "KIKI_TOKENS_FILE or KIKI_VALUE_TLS_CLIENT_CA_FILE, or KIKI_VALUE_ANONYMOUS=true behind a network policy"
            )
        if problems or listen is None:
            raise SettingsError(dict.fromkeys(problems))
        data_dir = values.pop("data_dir")
        values["model_file"] = values["model_file"] or data_dir / "value-model.json"
        return cls(listen=listen, **values)


def _value_port(environ: Mapping[str, str], own: int | None, problems: list[str]) -> dict[str, int]:
    if own is not None:
        return {"port": own}
    return read_variables(environ, listen_variables(VALUE_PORT)[:1], problems)
