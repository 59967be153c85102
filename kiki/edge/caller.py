"""Who may call: bearer tokens with roles, hosts, origins, and how often."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import yaml

from kiki.errors import SettingsError
from kiki.settings import is_loopback

ROLES = ("read", "spend", "privacy", "admin")
TOKEN_LENGTH_MIN = 16
TEXT_BYTES_MAX = 1 << 20
_REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token was recognised."""

    name: str
    roles: frozenset[str]

    def may(self, role: str) -> bool:
        """Whether the caller has a role; `admin` has them all."""
        return role in self.roles or "admin" in self.roles


class Tokens:
    """The tokens that are accepted, as their SHA-256 digests; the tokens themselves are not kept."""

    def __init__(self, entries: Iterable[tuple[bytes, Principal]]) -> None:
        self._entries = list(entries)

    def find(self, bearer: str) -> Principal | None:
        """Who holds this token. Takes the same time whichever token it is, or none."""
        digest = sha256(bearer.encode("utf-8", "surrogateescape")).digest()
        found: Principal | None = None
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Tokens({len(self._entries)})"


def parse_tokens(text: str, source: str = "tokens") -> Tokens:
    """The tokens of a YAML file; raises `SettingsError` that lists every mistake as `source:line: …`.

    The file holds a list under `tokens`, each with `name`, `roles`, and `token` or `token_sha256`.
    """
    problems: list[str] = []

    def problem(node: yaml.Node | None, what: str) -> None:
        problems.append(f"{source}:{1 if node is None else node.start_mark.line + 1}: {what}")

    if len(text.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
        raise SettingsError([f"{source}:1: larger than {TEXT_BYTES_MAX} bytes"])
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        # The message of a syntax error quotes nothing of the file, which holds secrets.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError([f"{source}:{line}: not YAML"]) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SettingsError([f"{source}:1: not YAML"]) from None
    entries: list[tuple[bytes, Principal]] = []
    items = _members(root, ("tokens",), problem).get("tokens") if root else None
    if not isinstance(items, yaml.SequenceNode) or not items.value:
        problem(root, "write a list under the key 'tokens'")
        raise SettingsError(problems)
    names: set[str] = set()
    digests: set[bytes] = set()
    for item in items.value:
        entry = _entry(item, problem)
        if entry is None:
            continue
        digest, principal = entry
        if principal.name in names:
            problem(item, f"there is another token named {principal.name!r}")
        if digest in digests:
            problem(item, f"the token of {principal.name!r} is the same as another one")
        names.add(principal.name)
        digests.add(digest)
        entries.append(entry)
    if problems:
        raise SettingsError(problems)
    return Tokens(entries)


def _members(node: yaml.Node, known: tuple[str, ...], problem) -> dict[str, yaml.Node]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    members: dict[str, yaml.Node] = {}
    if not isinstance(node, yaml.MappingNode):
        problem(node, f"write a mapping with the keys {', '.join(known)}")
        return members
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "a complex key"
        if name not in known:
            problem(key, f"unknown key; known are {', '.join(known)}")
        elif name in members:
            problem(key, f"the key {name!r} stands twice")
        else:
            members[name] = value
    return members


def _entry(node: yaml.Node, problem) -> tuple[bytes, Principal] | None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    members = _members(node, ("name", "token", "token_sha256", "roles"), problem)

    def text(key: str) -> str:
        found = members.get(key)
        return str(found.value) if isinstance(found, yaml.ScalarNode) else ""

    name, token, digest = text("name"), text("token"), text("token_sha256").lower()
    fine = True
    if not (1 <= len(name) <= 64 and name.isprintable()):
        problem(node, "a token needs a name of 1 to 64 printable characters")
        fine = False
    if ("token" in members) == ("token_sha256" in members):
        problem(node, "write either token or token_sha256")
        return None
    if "token" in members and (len(token) < TOKEN_LENGTH_MIN or not token.isascii() or not token.isprintable()):
        problem(members["token"], f"a token is at least {TOKEN_LENGTH_MIN} printable ASCII characters")
        fine = False
    if "token_sha256" in members and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        problem(members["token_sha256"], "token_sha256 is 64 hexadecimal digits")
        fine = False
    roles = members.get("roles")
    given = [item.value for item in roles.value] if isinstance(roles, yaml.SequenceNode) else []
    if not given or any(role not in ROLES for role in given):
        problem(roles or node, f"roles is a list out of {', '.join(ROLES)}")
        fine = False
    if not fine:
        return None
    hashed = sha256(token.encode()).digest() if token else bytes.fromhex(digest)
    return hashed, Principal(name, frozenset(given))


class HostRule:
    """Which Host headers are answered: a browser must not be led here under a foreign name."""

    def __init__(self, allowed: Iterable[str], *, loopback_only: bool) -> None:
        self._allowed = frozenset(host.lower() for host in allowed)
        self._loopback_only = loopback_only
        self._known: dict[str, bool] = {}

    def admits(self, host: str | None) -> bool:
        """Whether a request with this Host header is answered."""
        if not self._allowed and not self._loopback_only:
            return True
        if host is None:
            return not self._allowed
        known = self._known.get(host)
        if known is None:
            if len(self._known) > _REMEMBERED_MAX:
                self._known.clear()
            known = self._known[host] = self._judge(host.lower())
        return known

    def _judge(self, host: str) -> bool:
        name = host.rpartition(":")[0] if _has_port(host) else host
        if self._loopback_only and is_loopback(name.strip("[]")):
            return True
        return name.strip("[]") in self._allowed or host in self._allowed


def _has_port(host: str) -> bool:
    before, colon, port = host.rpartition(":")
    return bool(colon) and port.isdigit() and (":" not in before or before.endswith("]"))


def is_cross_site(sec_fetch_site: str | None, origin: str | None, host: str | None) -> bool:
    """Whether a browser sent this on behalf of another site."""
    if sec_fetch_site is not None and sec_fetch_site.lower() not in ("same-origin", "none"):
        return True
    return origin is not None and origin.partition("://")[2].lower() != (host or "").lower()


class Rate:
    """A token bucket for each caller, one second deep; callers not seen for long are forgotten first."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._burst = max(1.0, per_second)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str, now: float | None = None) -> float:
        """Zero when the caller may go on, else the seconds until it may."""
        now = time.monotonic() if now is None else now
        level, seen = self._buckets.get(caller, (self._burst, now))
        level = min(self._burst, level + (now - seen) * self._rate)
        wait = 0.0 if level >= 1 else (1 - level) / self._rate
        self._buckets[caller] = (level - 1 if not wait else level, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _REMEMBERED_MAX:
            self._buckets.popitem(last=False)
        return wait
