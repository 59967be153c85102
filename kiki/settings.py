"""Settings come from the environment: read once, every mistake reported at once, frozen afterwards.

Each variable is one row of a table below: its name, the attribute it becomes, how it is read, its default as a
person would write it, and what it is for. Parsing, the documentation and the tests are all made from those rows.

What is read here is only text; nothing is opened and nothing is connected to. An empty text means "not set" where
there is a way to leave a variable unset, and is a mistake where there is not: an empty MAX_BURST_BUDGET must not
quietly become the default limit.
"""

from __future__ import annotations

import difflib
import hmac
import ipaddress
import re
import shlex
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Self
from urllib.parse import quote, unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kiki.clock import SECOND
from kiki.errors import InvalidMoney, SettingsError
from kiki.money import parse_micros

REDIS_PORT: Final = 6379
SHIELD_URL_DEFAULT: Final = "http://localhost:8081"
VALUE_PORT: Final = 50051
FLOW_PORT: Final = 8082
ENGAGE_PORT: Final = 8083
SECRET_BYTES_MIN: Final = 16
WINDOW_SECONDS_MAX: Final = 366 * 24 * 3600


class Secret:
    """A text that does not print: `str`, `repr` and formatting give `***`, only `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself; the call marks the places that handle it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # Lone surrogates (bytes of the environment that are no UTF-8) must not make a comparison fail.
        mine, theirs = (text.encode("utf-8", "surrogatepass") for text in (self._text, other._text))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied; pass it on as it is")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: how it is called, what it becomes, and how a text turns into it.

    `parse` raises ValueError with what is accepted. `default` is text as a person would write it, None for a
    variable that may stay unset. `shown` makes a wrong value fit to print; None never prints it.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    shown: Callable[[str], str] | None = repr

    @property
    def is_secret(self) -> bool:
        """True for a variable whose value is never printed."""
        return self.shown is None

    def read(self, environ: Mapping[str, str]) -> Any:
        """The value in this environment; raises ValueError with the whole problem as its text."""
        text = environ.get(self.name, self.default)
        if text is None or (not text and self.default is None):
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            given = self.name if self.shown is None else f"{self.name}={_cut(self.shown(text))}"
            raise ValueError(f"{given}: {error}") from None


def _cut(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


# Parsers: text in, value out, ValueError saying what is accepted. `[0-9]`, never `\d`, which takes other scripts'
# digits too; `fullmatch`, never `match` with `$`, which takes a trailing newline.


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A parser for integers from `low` to `high`, both included."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"expected a whole number from {low} to {high}")

    return parse


def seconds(high: int, *, zero: bool = False) -> Callable[[str], int]:
    """A parser for decimal seconds up to `high`, exact to the microsecond, into microseconds."""
    low = "0" if zero else "above 0"

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
            micros = int(Decimal(text) * SECOND)
            if micros <= high * SECOND and (zero or micros):
                return micros
        raise ValueError(
            f"expected seconds, {low} and at most {high}, as a decimal number with at most six decimals, for example 60 or 0.5"
        )

    return parse


def seconds_float(high: int, *, zero: bool = False) -> Callable[[str], float]:
    """A parser for a timeout: decimal seconds up to `high`, as the float that timers take."""
    exact = seconds(high, zero=zero)
    return lambda text: exact(text) / SECOND


def rate(text: str) -> float:
    """Requests per second, 0 for no limit."""
    if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) and float(text) <= 1_000_000:
        return float(text)
    raise ValueError("expected requests per second as a decimal number from 0 (no limit) to 1000000")


def money(text: str) -> int:
    """An amount in micros; zero is refused."""
    try:
        return parse_micros(text)
    except InvalidMoney as error:
        raise ValueError(str(error)) from None


def currency(text: str) -> str:
    """A currency's ISO 4217 code."""
    if re.fullmatch(r"[A-Z]{3}", text):
        return text
    raise ValueError("expected a currency code of three upper-case letters, for example USD")


def boolean(text: str) -> bool:
    """true, yes, on, 1 or false, no, off, 0, in any case."""
    lowered = text.lower()
    if lowered in {"true", "yes", "on", "1"}:
        return True
    if lowered in {"false", "no", "off", "0"}:
        return False
    raise ValueError("expected true or false (also yes/no, on/off, 1/0)")


def one_of(*words: str) -> Callable[[str], str]:
    """A parser for one word of a few."""

    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"expected {' or '.join(words)}")

    return parse


def path(text: str) -> Path:
    """A path as written; whether it exists is found out when it is used."""
    if text and "\0" not in text:
        return Path(text)
    raise ValueError("expected a path")


_BYTE_UNITS: Final = dict[str, int](
    zip(("", "B", "kB", "MB", "GB"), (1, 1, 10**3, 10**6, 10**9), strict=True),
    KiB=2**10,
    MiB=2**20,
    GiB=2**30,
    Ki=2**10,  # as Kubernetes writes them
    Mi=2**20,
    Gi=2**30,
)


def byte_size(low: int, high: int) -> Callable[[str], int]:
    """A parser for a number of bytes, plain or with a unit: 1048576, 256MiB, 10MB."""

    def parse(text: str) -> int:
        found = re.fullmatch(r"([0-9]{1,18})([A-Za-z]*)", text)
        if found and found[2] in _BYTE_UNITS:
            size = int(found[1]) * _BYTE_UNITS[found[2]]
            if low <= size <= high:
                return size
        raise ValueError(
            f"expected a size from {low} to {high} bytes, plain or with a unit: 1048576, 64KiB, 256MiB, 1GB"
        )

    return parse


_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)


def host_name(text: str) -> str:
    """A host name or an IP address; an IPv6 one may stand in brackets, which are taken off."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        # All digits and dots, and no address: a typing mistake, not a name.
        if bare is text and _HOST_NAME.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
            return text
    else:
        if bare is text or address.version == 6:
            return str(address)
    raise ValueError("expected a host name or an IP address, for example 127.0.0.1, 0.0.0.0 or ::1")


def host_names(text: str) -> tuple[str, ...]:
    """Host names as a browser sends them, in lower case, without ports."""
    try:
        return tuple(dict.fromkeys(host_name(part.strip()).lower() for part in text.split(",")))
    except ValueError:
        raise ValueError(
            "expected host names divided by commas and without ports, for example shield.example.com,10.0.0.5"
        ) from None


def is_loopback(host: str) -> bool:
    """True for `localhost` and for every address that only this machine can reach."""
    lowered = host.lower().removesuffix(".")
    if lowered == "localhost" or lowered.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(lowered)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and how to speak to it. `hosts` has one entry unless `cluster`: then they are seeds."""

    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    cluster: bool = False
    username: str | None = None
    password: Secret | None = None
    db: int = 0

    @property
    def is_loopback(self) -> bool:
        """True when every host is on this machine: then a local window may stand in for a Redis that is absent."""
        return all(is_loopback(host) for host, _ in self.hosts)

    def shown(self) -> str:
        """The address for logs and people, without user and password."""
        scheme = "redis+cluster" if self.cluster else "rediss" if self.tls else "redis"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{hosts}{f'/{self.db}' if self.db else ''}"


_REDIS_FORMS: Final = (
    "expected host:port, redis://[user:password@]host:port[/db], rediss://… for TLS, "
    "or redis+cluster://host:port,host:port; an IPv6 address goes in brackets"
)


def redis_address(text: str) -> RedisAddress:
    """The address in any of the forms that `REDIS_ADDR` takes; raises ValueError without repeating the text."""
    scheme, divider, rest = text.partition("://")
    if not divider:
        scheme, rest = "", text
    elif scheme not in {"redis", "rediss", "redis+cluster"}:
        raise ValueError(_REDIS_FORMS)
    cluster = scheme == "redis+cluster"
    credentials, at, rest = rest.rpartition("@")
    if at and not scheme:
        raise ValueError(_REDIS_FORMS)
    authority, slash, path_text = rest.partition("/")
    if slash and not scheme:
        raise ValueError(_REDIS_FORMS)
    db = 0
    if path_text:
        if not re.fullmatch(r"[0-9]{1,4}", path_text):
            raise ValueError(f"the database after the / is not a number from 0 to 9999: {_REDIS_FORMS}")
        db = int(path_text)
    if cluster and db:
        raise ValueError("a Redis Cluster has database 0 only")
    parts = authority.split(",")
    if len(parts) > 1 and not cluster:
        raise ValueError(f"several hosts are for redis+cluster:// only: {_REDIS_FORMS}")
    username, password = _credentials(credentials) if at else (None, None)
    return RedisAddress(tuple(map(_host_and_port, parts)), scheme == "rediss", cluster, username, password, db)


def _credentials(text: str) -> tuple[str | None, Secret | None]:
    user, colon, word = text.partition(":")
    try:
        user, word = unquote(user, errors="strict"), unquote(word, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"user or password are not percent-encoded UTF-8: {_REDIS_FORMS}") from None
    return user or None, Secret(word) if colon and word else None


def _host_and_port(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
    if not found:
        raise ValueError(_REDIS_FORMS)
    try:
        host = host_name(found[1])
    except ValueError:
        raise ValueError(_REDIS_FORMS) from None
    port = int(found[2]) if found[2] else REDIS_PORT
    if not 1 <= port <= 65535:
        raise ValueError(f"the port is not from 1 to 65535: {_REDIS_FORMS}")
    return host, port


def _without_credentials(text: str) -> str:
    scheme, divider, rest = text.partition("://")
    if not divider:
        scheme, rest = "", text
    _, at, tail = rest.rpartition("@")
    return repr(f"{scheme}{divider}***@{tail}" if at else text)


def _redis_prefix(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        return text
    # Braces would be taken for a hash tag by Redis Cluster.
    raise ValueError("expected 1 to 64 letters, digits, dots, dashes or underscores")


def _user_name(text: str) -> str:
    if text.isprintable():
        return text
    raise ValueError("expected printable characters")


def _word(text: str) -> str:
    if text and text.isprintable():
        return text
    raise ValueError("expected printable characters")


def _https(text: str) -> str:
    """An address, which may leave out its https://; plain HTTP stays on this machine."""
    url = _url(text if "://" in text else f"https://{text}")
    parts = urlsplit(url)
    if parts.scheme == "https" or is_loopback(parts.hostname or ""):
        return url
    raise ValueError("expected a host, or an https:// URL")


def _api_version(pattern: str, example: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise ValueError(f"expected a version, for example {example}")

    return parse


def _field_name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", text):
        return text
    raise ValueError("expected the name of a field: letters, digits and _")


def _named_secrets(text: str) -> dict[str, Secret]:
    """Secrets by their names: key=secret,key=secret."""
    found = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, separator, secret = part.partition("=")
        if not (name and separator and secret):
            raise ValueError("expected key=secret, with commas between several")
        found[name] = Secret(secret)
    return found


def _url(text: str) -> str:
    """An http(s) URL without a trailing slash and without the guide's trailing /check."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port = -1
        parts = urlsplit("")
    if (
        parts.scheme in {"http", "https"}
        and parts.hostname
        and port not in {-1, 0}
        and not (parts.query or parts.fragment or "?" in text or "#" in text or "@" in parts.netloc)
        and text.isascii()
        and text.isprintable()
        and " " not in text
    ):
        return text.rstrip("/").removesuffix("/check").rstrip("/")
    raise ValueError(
        "expected an http:// or https:// URL without user, query or fragment, for example http://localhost:8081"
    )


def purposes(text: str) -> tuple[str, ...]:
    """Names of purposes, divided by commas."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if all(re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) and name != "none" for name in names):
        return names
    raise ValueError("expected names of 1 to 32 of a-z, 0-9 and _, divided by commas, for example newsletter,research")


def country(text: str) -> str:
    """A country, and a part of it after a dash: DE, US-CA."""
    if re.fullmatch(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", text):
        return text
    raise ValueError("expected an ISO 3166 code, for example DE, or US-CA for a part of a country")


def time_zone(text: str) -> str:
    """A time zone by its name in the tz database: Europe/Berlin."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a name of the tz database, for example Europe/Berlin or UTC") from None
    return text


def command(text: str) -> str:
    """A command with its arguments, as a shell would divide them; it is not run by a shell."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"expected a command with its arguments ({error})") from None
    if not words:
        raise ValueError("expected a command with its arguments")
    return text


def database_url(text: str) -> Secret:
    """A PostgreSQL URL; kept as a secret, because it usually holds a password."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme in {"postgresql", "postgres"} and parts.path.strip("/"):
        return Secret(text)
    raise ValueError("expected postgresql://user:password@host:port/name")


def share(text: str) -> int:
    """A share in parts of a million: 5%, 0.05."""
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*(%?)", text)
    parts = Decimal(found[1]) * (10_000 if found[2] else 1_000_000) if found else Decimal(-1)
    if parts != int(parts) or not 0 <= parts <= 1_000_000:
        raise ValueError("expected a share such as 5% or 0.05, from 0 to 1")
    return int(parts)


def grpc_address(text: str) -> str:
    """A gRPC server's host:port; an IPv6 address goes in brackets."""
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]+):([0-9]{1,5})", text)
    try:
        if found and 1 <= int(found[2]) <= 65535 and host_name(found[1]):
            return text
    except ValueError:
        pass
    raise ValueError("expected host:port, for example localhost:50051; an IPv6 address goes in brackets")


def replica_name(text: str) -> str:
    """The name of a replica, as Kubernetes names pods."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?", text):
        return text
    raise ValueError("expected 1 to 128 letters, digits, dots, dashes or underscores, a letter or digit at both ends")


def executor_name(text: str) -> str:
    """The name of a runner of campaigns."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        return text
    raise ValueError("expected 1 to 64 of a-z, A-Z, 0-9, _ . and -, for example syncflow-0")


def archive_url(text: str) -> str:
    """A directory, or the URL of a bucket."""
    scheme, divider, rest = text.partition("://")
    if (not divider and text and "\0" not in text) or (scheme in {"s3", "gs", "az", "file"} and rest.strip("/")):
        return text
    raise ValueError("expected a directory, or s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")


# The tables.


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

REDIS_VARIABLES: Final = (
    Variable(
        "REDIS_ADDR", "redis_addr", redis_address, "localhost:6379",
        "host:port, redis://, rediss:// or redis+cluster:// address of the shared window", _without_credentials,
    ),
    Variable("REDIS_USERNAME", "redis_username", _user_name, None, "user for Redis, when the address names none"),
    Variable("REDIS_PASSWORD", "redis_password", Secret, None, "password for Redis, when the address names none", None),
    Variable("REDIS_TLS", "redis_tls", boolean, None, "speak TLS to Redis; unset: as the address says"),
    Variable("KIKI_REDIS", "redis_mode", one_of("auto", "off"), "auto", "off keeps the window in this process"),
    Variable("KIKI_REDIS_PREFIX", "redis_prefix", _redis_prefix, "kiki", "first part of every key in Redis"),
    Variable(
        "KIKI_REDIS_TIMEOUT_SECONDS", "redis_timeout_seconds", seconds_float(60), "0.25",
        "how long one answer of Redis may take before the window counts as lost",
    ),
)  # fmt: skip

SHIELD_VARIABLES: Final = (
    Variable("KIKI_DATA_DIR", "data_dir", path, "./kiki-data", "directory that holds all that the service writes"),
    Variable("MAX_BURST_BUDGET", "budget_micros", money, "500.0", "money that the default budget admits in its window"),
    Variable("WINDOW_SECONDS", "window_micros", seconds(WINDOW_SECONDS_MAX), "60.0", "length of the default budget's sliding window"),
    Variable("MIN_LTV", "ltv_min_micros", money, "10", "smallest lifetime value that /check admits"),
    Variable("MAX_LTV", "ltv_max_micros", money, "10000", "largest lifetime value that /check admits"),
    Variable("KIKI_CURRENCY", "currency", currency, "USD", "the one currency of all amounts"),
    Variable("KIKI_POLICY_FILE", "policy_file", path, None, "YAML file of budgets; unset: the default budget alone"),
    Variable("RETENTION_DAYS", "retention_days", whole_number(1, 36500), "2555", "how long evidence is kept"),
    Variable("KIKI_SCOPES_MAX", "scopes_max", whole_number(1, 10**9), "1000000", "live scopes; beyond it new ones are refused"),
    Variable("KIKI_KEYS_MAX", "keys_max", whole_number(1, 10**10), "10000000", "remembered idempotency keys; beyond it new ones are refused"),
    Variable("KIKI_LOG_LEVEL", "log_level", one_of("debug", "info", "warning", "error"), "info", "least level that is logged"),
    Variable("KIKI_AUDIT_CSV", "audit_csv", boolean, "true", "keep shield_audit_gdpr.csv beside the ledger"),
    Variable("KIKI_AUDIT_CSV_BYTES_MAX", "audit_csv_bytes_max", byte_size(4096, 2**40), "256MiB", "size at which that file is rotated"),
    Variable("KIKI_PURPOSES", "purposes", purposes, None, "purposes of consent beside the usual ones, divided by commas"),
    Variable("KIKI_HOLIDAYS", "holidays", country, None, "country whose public holidays move a statutory deadline, for example DE or US-CA"),
    Variable("KIKI_TIME_ZONE", "time_zone", time_zone, "UTC", "time zone whose days statutory deadlines are counted in"),
    Variable("KIKI_SUBJECT_SYSTEMS_FILE", "subject_systems_file", path, None, "YAML file of your own systems that hold personal data"),
)  # fmt: skip

KEY_VARIABLES: Final = (
    Variable(
        "KIKI_MASTER_KEY_FILE", "master_key_file", path, None,
        "file (mode 0600) of the key that opens everything personal; unset: master.key in KIKI_DATA_DIR, made at the first start",
    ),
    Variable("KIKI_MASTER_KEY", "master_key", Secret, None, "that key itself: 32 random bytes in base64 or hexadecimal", None),
    Variable("KIKI_MASTER_KEY_COMMAND", "master_key_command", command, None, "command that prints it, for a KMS or a vault", None),
)  # fmt: skip

DATABASE_VARIABLES: Final = (
    Variable(
        "DATABASE_URL", "database_url", database_url, None,
        "postgresql://user:password@host:port/name of the shared ledger; unset: SQLite in KIKI_DATA_DIR", _without_credentials,
    ),
    Variable("DB_HOST", "db_host", host_name, None, "the same in parts: host; DATABASE_URL goes first"),
    Variable("DB_PORT", "db_port", whole_number(1, 65535), "5432", "port of PostgreSQL"),
    Variable("DB_NAME", "db_name", _word, "kiki", "name of the database"),
    Variable("DB_USER", "db_user", _word, "kiki", "user of the database"),
    Variable("DB_PASSWORD", "db_password", Secret, None, "password of that user", None),
    Variable("POSTGRES_PASSWORD", "postgres_password", Secret, None, "the same under the guide's name", None),
    Variable("KIKI_REPLICA", "replica", replica_name, None, "stable name of this replica, which owns one chain; unset: the host's name"),
)  # fmt: skip

ARCHIVE_VARIABLES: Final = (
    Variable(
        "KIKI_ARCHIVE", "archive", archive_url, None,
        "where sealed segments of the ledger go: a directory, or s3://, gs:// or az://bucket/prefix", _without_credentials,
    ),
    Variable("KIKI_SEGMENT_SECONDS", "segment_seconds", seconds_float(24 * 3600), "60", "how long a segment gathers entries at most"),
    Variable("KIKI_SEGMENT_ENTRIES", "segment_entries", whole_number(256, 10**7), "65536", "how many entries a segment holds at most"),
    Variable("KIKI_WITNESS_URL", "witness_url", _url, None, "C2SP witness that cosigns checkpoints"),
    Variable("KIKI_WITNESS_KEY", "witness_key", _user_name, None, "verifier key of that witness"),
    Variable("KIKI_TSA_URL", "tsa_url", _url, None, "RFC 3161 service that stamps checkpoints"),
    Variable("KIKI_TSA_ROOTS_FILE", "tsa_roots_file", path, None, "certificates that it must lead to, PEM; unset: those of the system"),
)  # fmt: skip

CLIENT_VARIABLES: Final = (
    Variable("KIKI_SHIELD_URL", "shield_url", _url, None, "where clients find SyncShield"),
    Variable(
        "SHIELD_URL", "shield_url", _url, SHIELD_URL_DEFAULT, "the same under the guide's name, with or without /check"
    ),
    Variable("KIKI_SHIELD_TOKEN", "shield_token", Secret, None, "bearer token of clients", None),
    Variable("KIKI_SHIELD_TOKEN_FILE", "shield_token_file", path, None, "file that holds the bearer token of clients"),
)

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

VALUE_CLIENT_VARIABLES: Final = (
    Variable("LTV_GRPC_ADDR", "ltv_address", grpc_address, "localhost:50051", "host:port where clients find SyncValue"),
    Variable("KIKI_VALUE_TOKEN", "value_token", Secret, None, "bearer token of its clients", None),
    Variable("KIKI_VALUE_TOKEN_FILE", "value_token_file", path, None, "file that holds the bearer token of its clients"),
    Variable("KIKI_VALUE_CA_FILE", "value_ca_file", path, None, "clients speak TLS and trust the certificates in this file, PEM"),
)  # fmt: skip

FLOW_VARIABLES: Final = (
    Variable("KIKI_FLOW_GRPC_PORT", "grpc_port", whole_number(0, 65535), "50052", "gRPC port of SyncFlow, for bids; 0 takes any free one"),
    Variable(
        "KIKI_FLOW_EXECUTOR", "executor", executor_name, None,
        "stable name of this runner, never given to two; unset: the host's name",
    ),
    Variable("KIKI_FLOW_LEASE_SECONDS", "lease_seconds", seconds_float(3600), "15", "how long a run stays a runner's own that is not heard of"),
    Variable(
        "KIKI_FLOW_GRACE_SECONDS", "grace_seconds", seconds_float(24 * 3600), "930",
        "how much longer nobody takes it over: the longest time for which a call of that runner may still have an effect",
    ),
    Variable("KIKI_FLOW_SANDBOX", "sandbox_url", _url, None, "address of a sandbox for plans with `platforms: sandbox`; unset: one of its own"),
    Variable(
        "KIKI_FLOW_SANDBOX_DAY_SECONDS", "sandbox_day_seconds", seconds_float(24 * 3600), "5",
        "how long a day takes in a runner's own sandbox, when that begins",
    ),
)  # fmt: skip


ENGAGE_VARIABLES: Final = (
    Variable("KIKI_ENGAGE_PLAYBOOKS", "playbooks", path, None, "a playbook, or a directory of them; unset: nothing is sent by itself"),
    Variable(
        "KIKI_ENGAGE_RUN_SECONDS", "run_seconds", seconds_float(86400, zero=True), "60",
        "how often playbooks are run; 0: only when asked",
    ),
    Variable("KIKI_ENGAGE_HOLDOUT", "holdout", share, "5%", "share of all customers whom no playbook reaches; keep it as it is"),
    Variable("KIKI_ENGAGE_PUBLIC_URL", "public_url", _url, None, "where mail programs and providers reach this service, https://…"),
    Variable(
        "KIKI_ENGAGE_OUTBOX", "outbox", path, None,
        "directory that takes the messages of channels without a provider; unset: outbox in KIKI_DATA_DIR",
    ),
    Variable("KIKI_ENGAGE_LINK_SECRET", "link_secret", Secret, None, "signs unsubscribe links, 16 bytes or more; unset: from the key store", None),
    Variable(
        "KIKI_ENGAGE_PRIVACY_SECRET", "privacy_secret", Secret, None,
        "the secret of KIKI_SUBJECT_SYSTEMS_FILE for this service; unset: no requests of persons by HTTP", None,
    ),
    Variable("AUDIT_LOG_PATH", "audit_path", path, "syncengage_audit.csv", "CSV of what /trigger answered"),
    Variable("SYNCENGAGE_CRM_PROVIDER", "crm", one_of("shopify", "hubspot", "salesforce", "postgres", "csv"), None, "where customers come from"),
    Variable("CRM_POLL_INTERVAL", "poll_seconds", seconds_float(86400), "300", "seconds between two looks at it"),
    Variable("SHOPIFY_SHOP_URL", "shopify_shop", _https, None, "the shop, my-shop.myshopify.com"),
    Variable("SHOPIFY_STORE_URL", "shopify_store", _https, None, "the same under its other name"),
    Variable("SHOPIFY_ACCESS_TOKEN", "shopify_token", Secret, None, "its Admin API token", None),
    Variable("SHOPIFY_API_SECRET", "shopify_secret", Secret, None, "the app's client secret, which proves webhooks", None),
    Variable("HUBSPOT_API_KEY", "hubspot_token", Secret, None, "a private app's token", None),
    Variable("HUBSPOT_CLIENT_SECRET", "hubspot_secret", Secret, None, "the app's client secret, which proves webhooks", None),
    Variable("SALESFORCE_INSTANCE_URL", "salesforce_url", _https, None, "https://my-domain.my.salesforce.com"),
    Variable("SALESFORCE_INSTANCE", "salesforce_instance", _https, None, "the same under its other name"),
    Variable("SALESFORCE_ACCESS_TOKEN", "salesforce_token", Secret, None, "its access token", None),
    Variable("SALESFORCE_API_TOKEN", "salesforce_api_token", Secret, None, "the same under its other name", None),
    Variable("POSTGRES_CONN_STRING", "crm_database", Secret, None, "the database of customers, where that is the source", None),
    Variable("KIKI_ENGAGE_CUSTOMERS", "customers", path, None, "a CSV of customers, or a file with the SELECT that gives them"),
    Variable("KIKI_ENGAGE_ORDERS", "orders", path, None, "the same for orders"),
    Variable("SENDGRID_API_KEY", "sendgrid_key", Secret, None, "sends mail; unset: mail goes to the outbox", None),
    Variable("SENDGRID_FROM_EMAIL", "sendgrid_from", _word, None, "a sender that SendGrid has verified"),
    Variable("SENDGRID_WEBHOOK_KEY", "sendgrid_webhook_key", _word, None, "the verification key of its event webhook"),
    Variable("TWILIO_ACCOUNT_SID", "twilio_sid", _word, None, "the account that sends SMS"),
    Variable("TWILIO_AUTH_TOKEN", "twilio_token", Secret, None, "its token, which proves webhooks, too", None),
    Variable("TWILIO_FROM_PHONE", "twilio_from", _word, None, "its number, or a messaging service (MG…)"),
    Variable("KIKI_ENGAGE_WEBHOOK_URL", "webhook_url", _url, None, "a system of your own that takes messages of the channel webhook"),
    Variable("KIKI_ENGAGE_WEBHOOK_SECRET", "webhook_secret", Secret, None, "signs them", None),
    Variable("ENABLE_SMS", "enable_sms", boolean, "true", "false: no SMS, whatever playbooks say"),
    Variable("ENABLE_WEBHOOKS", "enable_webhooks", boolean, "true", "false: calls of providers are not taken"),
    Variable("ENABLE_AB_TESTING", "enable_ab_testing", boolean, "true", "false: nobody gets an offer by chance"),
    Variable(
        "ENABLE_PREDICTIVE_CHURN", "enable_churn", boolean, "true",
        "false: SyncValue is not asked about churn and value",
    ),
)  # fmt: skip

CONNECTOR_VARIABLES: Final = (
    Variable("SHOPIFY_API_VERSION", "shopify_version", _api_version(r"20[0-9]{2}-[0-9]{2}", "2026-10"), "2026-10", "the version of its Admin API"),
    Variable("HUBSPOT_API_VERSION", "hubspot_version", _api_version(r"v3|20[0-9]{2}-[0-9]{2}", "v3 or 2026-03"), "v3", "the version of its CRM API"),
    Variable("HUBSPOT_API_URL", "hubspot_url", _https, "https://api.hubapi.com", "where its API is"),
    Variable("HUBSPOT_FIELDS", "hubspot_fields", _word, None, "contact properties that hold what we know otherwise: total_spend=ltv,last_purchase=last_order"),
    Variable("HUBSPOT_ID_PROPERTY", "hubspot_id", _field_name, None, "a unique property that holds the customers' ids; unset: HubSpot's own"),
    Variable("SALESFORCE_API_VERSION", "salesforce_version", _api_version(r"[0-9]{2}\.0", "66.0"), "66.0", "the version of its REST API"),
    Variable("SALESFORCE_FIELDS", "salesforce_fields", _word, None, "fields of Contact: total_spend=LTV__c,last_purchase=Last_Order__c"),
    Variable("SALESFORCE_EXTERNAL_ID", "salesforce_id", _field_name, None, "the external id of Contact that holds the customers' ids; unset: Salesforce's own"),
    Variable("SALESFORCE_CLIENT_ID", "salesforce_client", _word, None, "a connected app that gets tokens by itself (client credentials)"),
    Variable("SALESFORCE_CLIENT_SECRET", "salesforce_client_secret", Secret, None, "its secret", None),
    Variable("SENDGRID_API_URL", "sendgrid_url", _https, "https://api.sendgrid.com", "where its API is; accounts in the EU: https://api.eu.sendgrid.com"),
    Variable("SENDGRID_FROM_NAME", "sendgrid_name", _word, None, "the sender's name in mail"),
    Variable("TWILIO_API_URL", "twilio_url", _https, "https://api.twilio.com", "where its API is"),
    Variable("TWILIO_SHARED_KEYS", "twilio_shared_keys", _named_secrets, None, "key=secret of shared keys that sign its webhooks", None),
)  # fmt: skip

SPELLINGS: Final = (
    ("SHOPIFY_SHOP_URL", "SHOPIFY_STORE_URL"),
    ("SALESFORCE_INSTANCE_URL", "SALESFORCE_INSTANCE"),
    ("SALESFORCE_ACCESS_TOKEN", "SALESFORCE_API_TOKEN"),
)
"""Two names of one thing."""
CRM_NEEDS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "shopify": (SPELLINGS[0], ("SHOPIFY_ACCESS_TOKEN",)),
    "hubspot": (("HUBSPOT_API_KEY",),),
    "salesforce": (SPELLINGS[1], (*SPELLINGS[2], "SALESFORCE_CLIENT_ID")),
    "postgres": (("POSTGRES_CONN_STRING",), ("KIKI_ENGAGE_CUSTOMERS",)),
    "csv": (("KIKI_ENGAGE_CUSTOMERS",),),
}
"""What each source of customers cannot do without: of each group, one."""

ENGAGE_CLIENT_VARIABLES: Final = (
    Variable("KIKI_ENGAGE_URL", "engage_url", _url, None, "where `kiki engage` finds SyncEngage; unset: the store in KIKI_DATA_DIR"),
)  # fmt: skip


def _otlp_endpoint(text: str) -> str:
    """`host:port` means a collector without TLS, as collectors inside a cluster are."""
    return _url(text if "://" in text else f"http://{text}")


def _share(text: str) -> float:
    if re.fullmatch(r"0(\.[0-9]{1,9})?|1(\.0{1,9})?", text):
        return float(text)
    raise ValueError("expected a share from 0 to 1")


OTEL_VARIABLES: Final = (
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "endpoint", _otlp_endpoint, None, "collector that takes OTLP over gRPC; unset: nothing is exported"),
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
    Variable("OTEL_SERVICE_NAME", "service_name", _word, None, "name of the service in traces; its own when unset"),
)  # fmt: skip

UP_VARIABLES: Final = (
    Variable("KIKI_SHIELD_PORT", "shield_port", whole_number(0, 65535), "8081", "SyncShield's port under `kiki up`, which ignores PORT"),
    Variable("KIKI_FLOW_PORT", "flow_port", whole_number(0, 65535), "8082", "SyncFlow's port under `kiki up`"),
    Variable("KIKI_ENGAGE_PORT", "engage_port", whole_number(0, 65535), "8083", "SyncEngage's port under `kiki up`"),
)  # fmt: skip
"""What `kiki up` reads by itself, beside KIKI_VALUE_PORT, KIKI_VALUE_HTTP_PORT and KIKI_FLOW_GRPC_PORT."""

VARIABLES: Final = (
    *LISTEN_VARIABLES,
    *UP_VARIABLES,
    *OTEL_VARIABLES,
    *SHIELD_VARIABLES,
    *KEY_VARIABLES,
    *DATABASE_VARIABLES,
    *ARCHIVE_VARIABLES,
    *REDIS_VARIABLES,
    *CLIENT_VARIABLES,
    *VALUE_VARIABLES,
    *VALUE_CLIENT_VARIABLES,
    *ENGAGE_VARIABLES,
    *CONNECTOR_VARIABLES,
    *ENGAGE_CLIENT_VARIABLES,
    *FLOW_VARIABLES,
)
"""Every variable that some part of kiki reads: what is documented, and what a `KIKI_…` name is checked against."""


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


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Where the ledger lies and what opens it: what `kiki.cli.wiring` needs to open it, to read it or to move it."""

    data_dir: Path
    master_key_file: Path | None
    master_key: Secret | None
    master_key_command: str | None
    database_url: Secret | None
    """None: SQLite files in `data_dir`."""
    replica: str
    archive: str | None
    segment_seconds: float
    segment_entries: int
    witness_url: str | None
    witness_key: str | None
    tsa_url: str | None
    tsa_roots_file: Path | None

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings of the ledger alone; raises `SettingsError` with every mistake."""
        problems: list[str] = []
        settings = _ledger(environ, problems)
        if problems or settings is None:
            raise SettingsError(problems)
        return cls(**settings)


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
        values = _read(environ, (variable for variable in SHIELD_VARIABLES if variable.field in names), problems)
        if problems:
            raise SettingsError(problems)
        return cls(**values)


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
        listen = _listen(environ, LISTEN_VARIABLES, problems)
        own = _read(environ, SHIELD_VARIABLES, problems)
        own["purposes"] = own.get("purposes") or ()
        ledger = _ledger(environ, problems)
        redis = _redis(environ, problems)
        low, high = own.get("ltv_min_micros"), own.get("ltv_max_micros")
        if low is not None and high is not None and low > high:
            problems.append(
                f"MIN_LTV={_cut(repr(environ.get('MIN_LTV', '10')))}: expected at most MAX_LTV, "
                f"which is {_cut(environ.get('MAX_LTV', '10000'))}"
            )
        if problems or listen is None or ledger is None:
            raise SettingsError(dict.fromkeys(problems))
        return cls(listen=listen, ledger=LedgerSettings(**ledger), **own, **redis)


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
        values = _read(environ, (*VALUE_VARIABLES, *shared), problems)
        # PORT and the public port are those of an HTTP service; this one's HTTP port has a name of its own.
        named = {"PORT", "KIKI_PUBLIC_PORT"}
        listen = _listen(
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


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """What SyncFlow and `kiki campaign` are told from outside, without the HTTP port."""

    data_dir: Path
    database_url: Secret | None
    """None: a SQLite file in `data_dir`."""
    executor: str
    grpc_port: int
    lease_seconds: float
    grace_seconds: float
    sandbox_url: str | None
    sandbox_day_seconds: float
    log_level: str

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings in this environment; raises `SettingsError` with every mistake that it holds."""
        problems = unknown_names(environ)
        shared = [variable for variable in SHIELD_VARIABLES if variable.field in {"data_dir", "log_level"}]
        values = _read(environ, (*FLOW_VARIABLES, *shared), problems)
        ledger = _ledger(environ, problems)
        if problems or ledger is None:
            raise SettingsError(dict.fromkeys(problems))
        values["executor"] = (
            values["executor"] or re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64] or "runner"
        )
        return cls(database_url=ledger["database_url"], **values)

    @property
    def store(self) -> str:
        """Where the runs are kept."""
        return str(self.data_dir / "flow.db") if self.database_url is None else self.database_url.reveal()


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """What SyncEngage's providers may be told beside their credentials."""

    shopify_version: str
    hubspot_version: str
    hubspot_url: str
    hubspot_fields: str | None
    hubspot_id: str | None
    salesforce_version: str
    salesforce_fields: str | None
    salesforce_id: str | None
    salesforce_client: str | None
    salesforce_client_secret: Secret | None
    sendgrid_url: str
    sendgrid_name: str | None
    twilio_url: str
    twilio_shared_keys: Mapping[str, Secret] | None


@dataclass(frozen=True, slots=True)
class EngageSettings:
    """Everything SyncEngage is told from outside."""

    listen: ListenSettings
    ledger: LedgerSettings
    data_dir: Path
    log_level: str
    ltv_address: str
    playbooks: Path | None
    run_seconds: float
    holdout: int
    """Parts of a million."""
    public_url: str | None
    outbox: Path | None
    link_secret: Secret | None
    privacy_secret: Secret | None
    audit_path: Path
    crm: str | None
    poll_seconds: float
    shopify_shop: str | None
    shopify_store: str | None
    shopify_token: Secret | None
    shopify_secret: Secret | None
    hubspot_token: Secret | None
    hubspot_secret: Secret | None
    salesforce_url: str | None
    salesforce_instance: str | None
    salesforce_token: Secret | None
    salesforce_api_token: Secret | None
    crm_database: Secret | None
    customers: Path | None
    orders: Path | None
    sendgrid_key: Secret | None
    sendgrid_from: str | None
    sendgrid_webhook_key: str | None
    twilio_sid: str | None
    twilio_token: Secret | None
    twilio_from: str | None
    webhook_url: str | None
    webhook_secret: Secret | None
    enable_sms: bool
    enable_webhooks: bool
    enable_ab_testing: bool
    enable_churn: bool
    connectors: ConnectorSettings

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings in this environment; raises `SettingsError` with every mistake that it holds."""
        problems = unknown_names(environ)
        shared = [variable for variable in SHIELD_VARIABLES if variable.field in {"data_dir", "log_level"}]
        address = [variable for variable in VALUE_CLIENT_VARIABLES if variable.field == "ltv_address"]
        listen = _listen(environ, listen_variables(ENGAGE_PORT), problems)
        values = _read(environ, (*ENGAGE_VARIABLES, *shared, *address), problems)
        ledger = _ledger(environ, problems)
        for name, needed in (
            ("SENDGRID_API_KEY", ("SENDGRID_FROM_EMAIL", "KIKI_ENGAGE_PUBLIC_URL")),
            ("KIKI_ENGAGE_WEBHOOK_URL", ("KIKI_ENGAGE_WEBHOOK_SECRET",)),
            ("TWILIO_ACCOUNT_SID", ("TWILIO_AUTH_TOKEN", "TWILIO_FROM_PHONE", "KIKI_ENGAGE_PUBLIC_URL")),
        ):
            missing = [each for each in needed if not environ.get(each)]
            if environ.get(name) and missing:
                problems.append(f"{name}: sending with it needs {' and '.join(missing)}, too")
        connectors = _read(environ, CONNECTOR_VARIABLES, problems)
        problems += _connector_problems(environ, values.get("crm"))
        for field in ("link_secret", "privacy_secret"):
            secret = values.get(field)
            if secret is not None and len(secret.reveal().encode()) < SECRET_BYTES_MIN:
                problems.append(f"KIKI_ENGAGE_{field.upper()}: expected {SECRET_BYTES_MIN} bytes or more")
        if problems or listen is None or ledger is None:
            raise SettingsError(dict.fromkeys(problems))
        return cls(listen=listen, ledger=LedgerSettings(**ledger), connectors=ConnectorSettings(**connectors), **values)

    @property
    def store(self) -> str:
        """Where customers are kept."""
        url = self.ledger.database_url
        return str(self.data_dir / "engage.db") if url is None else url.reveal()


def _connector_problems(environ: Mapping[str, str], crm: str | None) -> list[str]:
    """What the source of customers lacks, and what is said twice in two ways."""
    problems = [
        f"{' and '.join(names)} differ; set one of them"
        for names in SPELLINGS
        if len({environ[name] for name in names if environ.get(name)}) > 1
    ]
    problems += [
        f"{needed[0]} is missing: the source {crm} needs it{_or(needed[1:])}"
        for needed in CRM_NEEDS.get(crm or "", ())
        if not any(environ.get(name) for name in needed)
    ]
    if environ.get("SALESFORCE_CLIENT_ID") and not environ.get("SALESFORCE_CLIENT_SECRET"):
        problems.append("SALESFORCE_CLIENT_ID: SALESFORCE_CLIENT_SECRET must hold the app's secret")
    return problems


def _or(names: Iterable[str]) -> str:
    others = " or ".join(names)
    return f" (or {others})" if others else ""


def _value_port(environ: Mapping[str, str], own: int | None, problems: list[str]) -> dict[str, int]:
    if own is not None:
        return {"port": own}
    return _read(environ, listen_variables(VALUE_PORT)[:1], problems)


def _read(environ: Mapping[str, str], variables: Iterable[Variable], problems: list[str]) -> dict[str, Any]:
    """The value of each variable by its field; mistakes go to `problems` and leave their field out."""
    values = {}
    for variable in variables:
        try:
            values[variable.field] = variable.read(environ)
        except ValueError as error:
            problems.append(str(error))
    return values


def _ledger(environ: Mapping[str, str], problems: list[str]) -> dict[str, Any] | None:
    before = len(problems)
    data_dir = next(variable for variable in SHIELD_VARIABLES if variable.field == "data_dir")
    values = _read(environ, (data_dir, *KEY_VARIABLES, *DATABASE_VARIABLES, *ARCHIVE_VARIABLES), problems)
    given = [
        name for name in ("KIKI_MASTER_KEY_FILE", "KIKI_MASTER_KEY", "KIKI_MASTER_KEY_COMMAND") if environ.get(name)
    ]
    if len(given) > 1:
        problems.append(f"{' and '.join(given)}: the master key comes from one place; set one of them")
    host, port, name, user = (values.pop(field, None) for field in ("db_host", "db_port", "db_name", "db_user"))
    passwords = [values.pop(field, None) for field in ("db_password", "postgres_password")]
    if values.get("witness_url") and not values.get("witness_key"):
        problems.append("KIKI_WITNESS_URL: KIKI_WITNESS_KEY must hold the witness's verifier key, name+id+key")
    if all(passwords) and passwords[0] != passwords[1]:
        problems.append("DB_PASSWORD and POSTGRES_PASSWORD differ; set one of them")
    if len(problems) > before:
        return None
    if values["database_url"] is None and host is not None:
        values["database_url"] = _database_url(host, port, name, user, passwords[0] or passwords[1])
    values["replica"] = values["replica"] or socket.gethostname()
    return values


def _database_url(host: str, port: int, name: str, user: str, password: Secret | None) -> Secret:
    shown = f"[{host}]" if ":" in host else host
    secret = f":{quote(password.reveal(), safe='')}" if password else ""
    return Secret(f"postgresql://{quote(user, safe='')}{secret}@{shown}:{port}/{quote(name, safe='')}")


def _listen(environ: Mapping[str, str], variables: Iterable[Variable], problems: list[str]) -> ListenSettings | None:
    before = len(problems)
    values = _read(environ, variables, problems)
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
    values = _read(environ, OTEL_VARIABLES, problems)
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
    listen = _listen(environ, listen_variables(port), problems)
    if listen is None:
        raise SettingsError(problems)
    return listen


def _redis(environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    values = _read(environ, REDIS_VARIABLES, problems)
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


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A problem for each `KIKI_…` name that no part of kiki reads: a typo in a limit costs money."""
    known = [variable.name for variable in VARIABLES]
    ours = [name for name in known if name.startswith("KIKI_")]
    problems = []
    for name in sorted(environ):
        if name.upper().startswith("KIKI_") and name not in known:
            near = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.6)
            advice = f"did you mean {near[0]}?" if near else "no setting has a name like it; remove it"
            problems.append(f"{_cut(name)}: unknown; {advice}")
    return problems


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
        return _url(text)
    except ValueError as error:
        raise SettingsError([f"{_cut(repr(text))}: {error}"]) from None


def checked_token(token: str, where: str) -> str:
    """The bearer token, if it can stand in a header; raises `SettingsError`, which never shows it."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError([f"{where} holds no bearer token: it must be one word of printable ASCII"])
    return token
