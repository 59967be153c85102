"""Who may call: bearer tokens, the names they stand for and their roles, read from a YAML file.

    tokens:
      - name: campaign-runner
        token: 4f0c…            # or token_sha256: the token's SHA-256 in hex, so that the file holds no secret
        roles: [read, spend]

Every mistake is reported with its line. Tokens are kept and compared as SHA-256 digests.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

import yaml

from kiki.errors import ConfigurationError
from kiki.telemetry import log_event

logger = logging.getLogger(__name__)

Role = Literal["read", "spend", "privacy", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

FILE_BYTES_MAX: Final = 1024 * 1024
TOKEN_LENGTH_MIN: Final = 16
TOKEN_LENGTH_MAX: Final = 4096

_FIELDS = ("name", "token", "token_sha256", "roles")
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
# RFC 6750's b64token: what can stand behind "Bearer " in a header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class TokensError(ConfigurationError):
    """The token file cannot be used; the tokens in force stay as they are."""

    code: ClassVar[str] = "tokens_invalid"
    subject: ClassVar[str] = "tokens"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that proved who it is, and what it may do."""

    name: str
    roles: frozenset[str]


class Tokens:
    """The callers of one token file. Immutable; a reload makes a new one."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[tuple[bytes, Principal]]) -> None:
        """`entries` are SHA-256 digests (32 bytes) with the principals they stand for."""
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Tokens({', '.join(principal.name for _, principal in self._entries)})"

    def find(self, bearer: str) -> Principal | None:
        """The caller whose token this is. Every entry is compared, so the time taken tells nothing."""
        digest = hashlib.sha256(bearer.encode("utf-8", "backslashreplace")).digest()
        found = None
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def load_tokens(path: Path) -> Tokens:
    """The tokens in this file; raises `TokensError` with every mistake and its line.

    A file that everybody on the machine may read is only warned about. Its group may: Kubernetes mounts secrets that way.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise TokensError([f"{path}: {error.strerror or error}"]) from error
    if len(content) > FILE_BYTES_MAX:
        raise TokensError([f"{path}: the file is larger than {FILE_BYTES_MAX} bytes"])
    if mode & stat.S_IROTH:
        log_event(logger, logging.WARNING, "the token file may be read by others", path=str(path), mode=f"{mode:04o}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TokensError([f"{path}:{line}: the file is not UTF-8"]) from None
    return parse_tokens(text, str(path))


def parse_tokens(text: str, source: str) -> Tokens:
    """The tokens in this text; `source` names it in problems. Raises `TokensError` with every mistake and its line."""
    problems: list[str] = []
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # Only the parser's own words: its full text would quote the file.
        raise TokensError([f"{source}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}"]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TokensError([f"{source}:1: not YAML: {type(error).__name__}"]) from None
    entries = list(_entries(root, source, problems))
    if not entries and not problems:
        problems.append(f"{source}:1: expected at least one entry under 'tokens:'")
    if problems:
        raise TokensError(problems)
    return Tokens(entries)


def _entries(root: yaml.Node | None, source: str, problems: list[str]) -> Iterator[tuple[bytes, Principal]]:
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{_place(source, root)}: expected a mapping with the key 'tokens'")
        return
    top = _fields(root, ("tokens",), source, problems, "at the top")
    listed = top.get("tokens")
    if listed is None:
        if not root.value:
            problems.append(f"{_place(source, root)}: expected a mapping with the key 'tokens'")
        return
    if not isinstance(listed, yaml.SequenceNode):
        problems.append(f"{_place(source, listed)}: expected a list of entries under 'tokens:'")
        return
    names: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    for node in listed.value:
        place = _place(source, node)
        if not isinstance(node, yaml.MappingNode):
            problems.append(f"{place}: expected an entry with the keys name, token (or token_sha256) and roles")
            continue
        before = len(problems)
        fields = _fields(node, _FIELDS, source, problems, "in an entry")
        name = _name(fields.get("name"), place, source, problems)
        if name is not None and names.setdefault(name, place) != place:
            problems.append(f"{_place(source, fields['name'])}: the name {name!r} was used before, at {names[name]}")
        digest = _digest(fields, place, source, problems)
        if digest is not None and digests.setdefault(digest, place) != place:
            problems.append(f"{place}: the same token was given before, at {digests[digest]}")
        roles = _roles(fields.get("roles"), place, source, problems)
        if name is not None and digest is not None and len(problems) == before:
            yield digest, Principal(name, roles)


def _place(source: str, node: yaml.Node | None) -> str:
    return f"{source}:{node.start_mark.line + 1 if node is not None else 1}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _fields(
    node: yaml.MappingNode, allowed: tuple[str, ...], source: str, problems: list[str], where: str
) -> dict[str, yaml.Node]:
    """The mapping's values by key; unknown and repeated keys are problems."""
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name is None or name not in allowed:
            # A key that is long may be a token with its name forgotten; it is not repeated.
            shown = _shown(name) if name is not None and len(name) < TOKEN_LENGTH_MIN else "this key"
            problems.append(f"{_place(source, key)}: {shown} is unknown {where}; accepted: {', '.join(allowed)}")
        elif name in found:
            problems.append(f"{_place(source, key)}: {name!r} is given twice")
        else:
            found[name] = value
    return found


def _text(node: yaml.Node | None) -> str | None:
    """The scalar's text when YAML reads it as text; an unquoted number or date is not text."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        return str(node.value)
    return None


def _name(node: yaml.Node | None, place: str, source: str, problems: list[str]) -> str | None:
    if node is None:
        problems.append(f"{place}: the entry has no name")
        return None
    text = _text(node)
    if text is None or not _NAME.fullmatch(text):
        problems.append(
            f"{_place(source, node)}: the name must be 1 to 64 letters, digits or _ . @ - (a number in quotes)"
        )
        return None
    return text


def _digest(fields: dict[str, yaml.Node], place: str, source: str, problems: list[str]) -> bytes | None:
    """The token's digest. No problem ever shows what stood there."""
    plain, hashed = fields.get("token"), fields.get("token_sha256")
    if plain is not None and hashed is not None:
        problems.append(f"{place}: give token or token_sha256, not both")
    elif plain is not None:
        text = _text(plain)
        if text is not None and TOKEN_LENGTH_MIN <= len(text) <= TOKEN_LENGTH_MAX and _TOKEN.fullmatch(text):
            return hashlib.sha256(text.encode()).digest()
        problems.append(
            f"{_place(source, plain)}: the token must be {TOKEN_LENGTH_MIN} to {TOKEN_LENGTH_MAX} letters, digits "
            "or - . _ ~ + / (then =), in quotes when it is all digits"
        )
    elif hashed is not None:
        text = _text(hashed)
        if text is not None and re.fullmatch(r"[0-9a-fA-F]{64}", text):
            return bytes.fromhex(text)
        problems.append(
            f"{_place(source, hashed)}: token_sha256 must be 64 hex digits, in quotes when it is all digits"
        )
    else:
        problems.append(f"{place}: the entry has neither token nor token_sha256")
    return None


def _roles(node: yaml.Node | None, place: str, source: str, problems: list[str]) -> frozenset[str]:
    accepted = f"accepted: {', '.join(ROLES)}"
    if node is None:
        problems.append(f"{place}: the entry has no roles; {accepted}")
        return frozenset()
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        problems.append(f"{_place(source, node)}: roles must be a list, such as [read, spend]; {accepted}")
        return frozenset()
    roles = set()
    for item in node.value:
        role = _text(item)
        if role not in ROLES:
            shown = _shown(role) if role is not None else "this"
            problems.append(f"{_place(source, item)}: {shown} is not a role; {accepted}")
        elif role in roles:
            problems.append(f"{_place(source, item)}: the role {role!r} is given twice")
        else:
            roles.add(role)
    return frozenset(roles)
