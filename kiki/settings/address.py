"""Parsers of addresses: hosts, URLs, Redis, databases. Nothing is looked up and nothing is connected to."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from kiki.settings.secret import Secret

REDIS_PORT: Final = 6379
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


def without_credentials(text: str) -> str:
    """An address fit to be shown."""
    scheme, divider, rest = text.partition("://")
    if not divider:
        scheme, rest = "", text
    _, at, tail = rest.rpartition("@")
    return repr(f"{scheme}{divider}***@{tail}" if at else text)


def redis_prefix(text: str) -> str:
    """What the names of keys in Redis begin with."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        return text
    # Braces would be taken for a hash tag by Redis Cluster.
    raise ValueError("expected 1 to 64 letters, digits, dots, dashes or underscores")


def https_url(text: str) -> str:
    """An address, which may leave out its https://; plain HTTP stays on this machine."""
    url = http_url(text if "://" in text else f"https://{text}")
    parts = urlsplit(url)
    if parts.scheme == "https" or is_loopback(parts.hostname or ""):
        return url
    raise ValueError("expected a host, or an https:// URL")


def http_url(text: str) -> str:
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


def grpc_address(text: str) -> str:
    """A gRPC server's host:port; an IPv6 address goes in brackets."""
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]+):([0-9]{1,5})", text)
    try:
        if found and 1 <= int(found[2]) <= 65535 and host_name(found[1]):
            return text
    except ValueError:
        pass
    raise ValueError("expected host:port, for example localhost:50051; an IPv6 address goes in brackets")
