"""One connection to the Redis that holds the shared windows: no retries, no waiting beyond its timeout.

What matters about a failed call is whether it may have been carried out, so there are three kinds of failure
and every caller must tell them apart. Messages name the address and never a secret.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import RedisClusterException as ClusterError
from redis.retry import Retry

from kiki.errors import WindowUnavailable


class Secret(Protocol):
    """A text that does not print."""

    def reveal(self) -> str:
        """The text itself."""
        ...


class Address(Protocol):
    """Where Redis is, as `kiki.settings.RedisAddress` says it."""

    @property
    def hosts(self) -> tuple[tuple[str, int], ...]:
        """Host and port; several of a cluster, any of which will do to find the others."""
        ...

    @property
    def tls(self) -> bool:
        """Whether to encrypt, and to check the server's certificate against the system's authorities."""
        ...

    @property
    def cluster(self) -> bool:
        """Whether it is a Redis Cluster."""
        ...

    @property
    def username(self) -> str | None:
        """The user, None for the default one."""
        ...

    @property
    def password(self) -> Secret | None:
        """The password, None without one."""
        ...

    @property
    def db(self) -> int:
        """The number of the database; 0 in a cluster."""
        ...

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can use it."""
        ...


class NotReached(WindowUnavailable):
    """Redis could not be reached, so the call was certainly not carried out."""


class OutcomeUnknown(WindowUnavailable):
    """Redis did not answer in time, or the connection broke: the call may have been carried out."""


class Refused(WindowUnavailable):
    """Redis answered that it does not do this now; nothing was carried out."""


class ScriptMissing(Exception):
    """Redis does not have the script; nothing was carried out."""


# What Redis may answer instead of deciding: (what it means, what to do). Each is sent before a first write.
_REFUSALS = {
    "READONLY": ("is a replica and takes no writes", "point REDIS_ADDR at the primary; after a failover wait a moment"),
    "LOADING": ("is still loading its data", "wait until it has started"),
    "OOM": ("is out of memory", "raise maxmemory of the Redis server, with the policy noeviction"),
    "MOVED": ("moved the window's slot to another node", "use redis+cluster:// for a Redis Cluster"),
    "ASK": ("is moving the window's slot to another node", "wait until the cluster has finished resharding"),
    "TRYAGAIN": ("is moving the window's slot to another node", "wait until the cluster has finished resharding"),
    "CROSSSLOT": ("sees the window's keys in different slots", "use a prefix without braces"),
    "CLUSTERDOWN": ("belongs to a cluster that is down", "look at CLUSTER INFO on any of its nodes"),
    "MASTERDOWN": ("is a replica that lost its primary", "point REDIS_ADDR at the primary"),
    "NOREPLICAS": ("has too few replicas to take writes", "look at min-replicas-to-write and the replicas"),
    "MISCONF": ("cannot save to its disk and takes no writes", "look at the Redis server's log and its disk"),
    "BUSY": ("is busy with another script", "look for slow scripts on the same Redis"),
    "NOAUTH": ("wants a password", "set REDIS_PASSWORD"),
    "WRONGPASS": ("does not accept the user and password", "check REDIS_USERNAME and REDIS_PASSWORD"),
    "NOPERM": (
        "does not allow this user to do it",
        "allow EVALSHA, SCRIPT LOAD, INFO and the window's keys in its ACL",
    ),
}


class RedisConnection:
    """A connection that knows where the window's keys are. One caller at a time; it is not opened again by itself."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self.name = ",".join(f"{host}:{port}" for host, port in address.hosts)
        self._connection: Any = None

    def open(self, key: str) -> None:
        """Connect to the node that holds `key`; raises `NotReached` or `Refused`."""
        failure: Exception | None = None
        try:
            hosts: Sequence[tuple[str, int]] = self._node_of(key) if self.address.cluster else self.address.hosts
        except (RedisError, ClusterError, OSError) as error:
            raise self._translated(error, sent=False) from error
        for host, port in hosts:
            connection = self._connection_to(host, port)
            try:
                connection.connect()
            except (RedisError, OSError) as error:
                connection.disconnect()
                failure = error
            else:
                self._connection = connection
                return
        raise self._translated(failure or OSError("no address"), sent=False) from failure

    def _options(self) -> dict[str, Any]:
        password = self.address.password
        encrypted = {"ssl_cert_reqs": "required", "ssl_check_hostname": True} if self.address.tls else {}
        return encrypted | {
            "username": self.address.username,
            "password": password.reveal() if password is not None else None,
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }

    def _connection_to(self, host: str, port: int) -> Any:
        kind: Callable[..., Any] = SSLConnection if self.address.tls else Connection
        return kind(host=host, port=port, db=0 if self.address.cluster else self.address.db, **self._options())

    def _node_of(self, key: str) -> list[tuple[str, int]]:
        node_at: Callable[..., Any] = ClusterNode
        nodes = [node_at(host, port) for host, port in self.address.hosts]
        with RedisCluster(startup_nodes=nodes, ssl=self.address.tls, **self._options()) as cluster:
            node = cluster.get_node_from_key(key)
        if node is None:
            raise OSError(f"no node of the cluster has the slot of {key}")
        return [(str(node.host), int(node.port))]

    def is_stale(self) -> bool:
        """True when the other side hung up meanwhile: what is sent now would certainly be lost."""
        if self._connection is None:
            return True
        try:
            return bool(self._connection.can_read(0))
        except (RedisError, OSError):
            return True

    def call(self, *arguments: Any) -> Any:
        """The answer to one command; raises one of this module's errors, after which only `Refused` leaves it usable."""
        connection = self._connection
        if connection is None:
            raise NotReached(f"there is no connection to Redis at {self.name}")
        try:
            connection.send_command(*arguments, check_health=False)
            return connection.read_response()
        except (RedisError, OSError) as error:
            raise self._translated(error, sent=True) from error

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _translated(self, error: Exception, *, sent: bool) -> Exception:
        text = str(error)
        code = str(getattr(error, "status_code", None) or text.partition(" ")[0]).lstrip("-")
        if isinstance(error, BusyLoadingError):
            code = "LOADING"
        elif isinstance(error, AuthenticationError) and code not in _REFUSALS:
            code = "NOAUTH" if "required" in text.lower() else "WRONGPASS"
        if isinstance(error, ResponseError) and (code == "NOSCRIPT" or type(error).__name__ == "NoScriptError"):
            return ScriptMissing()
        if code not in _REFUSALS and isinstance(error, ResponseError):
            # Within a script, older servers put the code somewhere into the sentence; redis-py may drop it.
            names = {f"{name}Error".lower(): name for name in _REFUSALS}
            names |= {"outofmemoryerror": "OOM", "nopermissionerror": "NOPERM", "clustercrossslotterror": "CROSSSLOT"}
            inside = (name for name in _REFUSALS if f"-{name} " in text)
            code = names.get(type(error).__name__.lower()) or next(inside, code)
        if code in _REFUSALS:
            what, hint = _REFUSALS[code]
            return Refused(f"Redis at {self.name} {what} ({code})", hint=hint, retry_after=1.0)
        if not sent and ("SSL" in text or isinstance(error, ssl.SSLError)):
            # Something is there, and it is not what was asked for: no reason to do without it.
            return Refused(
                f"Redis at {self.name} cannot be trusted or speaks no TLS",
                hint="check REDIS_TLS, the name in the server's certificate, and the authorities in SSL_CERT_FILE",
                retry_after=1.0,
            )
        if not sent:
            return NotReached(
                f"Redis at {self.name} does not answer", hint="check REDIS_ADDR and the network", retry_after=1.0
            )
        if isinstance(error, ResponseError):
            return OutcomeUnknown(f"Redis at {self.name} failed in the middle: {text[:200]}", retry_after=1.0)
        return OutcomeUnknown(
            f"Redis at {self.name} did not answer; whether it did what was asked is unknown", retry_after=1.0
        )
