"""What SyncShield is told from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from kiki.errors import SettingsError
from kiki.settings.address import RedisAddress
from kiki.settings.ledger import LedgerSettings, read_ledger
from kiki.settings.listen import ListenSettings, read_listen
from kiki.settings.listen_table import LISTEN_VARIABLES
from kiki.settings.names import unknown_names
from kiki.settings.shield_table import REDIS_VARIABLES, SHIELD_VARIABLES
from kiki.settings.variable import cut, read_variables


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """What requests of data subjects go by, for who opens a ledger without a service."""

    retention_days: int
    holidays: str | None
    time_zone: str
    subject_systems_file: Path | None

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """These settings alone; raises `SettingsError` with every mistake."""
        problems: list[str] = []
        names = {field.name for field in fields(cls)}
        values = read_variables(
            environ, (variable for variable in SHIELD_VARIABLES if variable.field in names), problems
        )
        if problems:
            raise SettingsError(problems)
        return cls(**values)


def shield_setting(environ: Mapping[str, str], name: str) -> Any:
    """One of SyncShield's settings, for who needs no other; raises `SettingsError`."""
    (variable,) = (variable for variable in SHIELD_VARIABLES if variable.name == name)
    try:
        return variable.read(environ)
    except ValueError as error:
        raise SettingsError([str(error)]) from None


@dataclass(frozen=True, slots=True)
class ShieldSettings:
    """Everything SyncShield is told from outside. Money and the window are in micros, other times in seconds."""

    listen: ListenSettings
    ledger: LedgerSettings
    data_dir: Path
    budget_micros: int
    window_micros: int
    ltv_min_micros: int
    ltv_max_micros: int
    currency: str
    policy_file: Path | None
    retention_days: int
    scopes_max: int
    keys_max: int
    log_level: str
    audit_csv: bool
    audit_csv_bytes_max: int
    purposes: tuple[str, ...]
    holidays: str | None
    time_zone: str
    subject_systems_file: Path | None
    redis: RedisAddress
    redis_mode: Literal["auto", "off"]
    redis_prefix: str
    redis_timeout_seconds: float

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings in this environment; raises `SettingsError` with every mistake that it holds."""
        problems = unknown_names(environ)
        listen = read_listen(environ, LISTEN_VARIABLES, problems)
        own = read_variables(environ, SHIELD_VARIABLES, problems)
        own["purposes"] = own.get("purposes") or ()
        ledger = read_ledger(environ, problems)
        redis = _redis(environ, problems)
        low, high = own.get("ltv_min_micros"), own.get("ltv_max_micros")
        if low is not None and high is not None and low > high:
            problems.append(
                f"MIN_LTV={cut(repr(environ.get('MIN_LTV', '10')))}: expected at most MAX_LTV, "
                f"which is {cut(environ.get('MAX_LTV', '10000'))}"
            )
        if problems or listen is None or ledger is None:
            raise SettingsError(dict.fromkeys(problems))
        return cls(listen=listen, ledger=LedgerSettings(**ledger), **own, **redis)


def _redis(environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    values = read_variables(environ, REDIS_VARIABLES, problems)
    address: RedisAddress | None = values.pop("redis_addr", None)
    username, password = values.pop("redis_username", None), values.pop("redis_password", None)
    tls = values.pop("redis_tls", None)
    if address is None:
        return values
    if address.username and username and address.username != username:
        problems.append("REDIS_USERNAME: REDIS_ADDR names another user; give the user in one of the two")
    if address.password and password and address.password != password:
        problems.append("REDIS_PASSWORD: REDIS_ADDR holds another password; give the password in one of the two")
    if address.tls and tls is False:
        problems.append(
            "REDIS_TLS=false: REDIS_ADDR begins with rediss://, which means TLS; write redis:// or leave REDIS_TLS out"
        )
    values["redis"] = RedisAddress(
        address.hosts,
        address.tls or bool(tls),
        address.cluster,
        address.username or username,
        address.password or password,
        address.db,
    )
    return values
