"""The file that names your own systems with personal data (`KIKI_SUBJECT_SYSTEMS_FILE`).

    systems:
      - name: crm
        url: https://crm.internal/privacy
        secret_env: CRM_PRIVACY_SECRET     # the variable that holds the shared secret; or secret_file
        depends_on: [orders]               # it needs them to find its data, so it is erased before them
        timeout_seconds: 30                # of one answer
        plaintext: true                    # accept http:// to another machine; without it https:// is demanded

Every mistake is reported with its line. No secret stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import yaml

from kiki.errors import SystemsError
from kiki.settings import Secret, is_loopback
from kiki.shield.dsr import parse_word
from kiki.shield.signed_call import SECRET_BYTES_MIN

FILE_BYTES_MAX: Final = 1 << 20
TIMEOUT_SECONDS: Final = 30
TIMEOUT_SECONDS_MAX: Final = 600
OWN_NAMES: Final = ("consents", "evidence", "packages", "audit_view", "window", "keys")
"""What kiki calls its own stores in a request."""

_FIELDS: Final = ("name", "url", "secret_env", "secret_file", "depends_on", "timeout_seconds", "plaintext")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_BOOLEANS: Final = {"true": True, "false": False}


class SystemConfig(NamedTuple):
    """One system, as the file describes it."""

    name: str
    url: str
    secret: Secret
    depends_on: tuple[str, ...] = ()
    timeout_seconds: int = TIMEOUT_SECONDS


def load_systems(path: Path, environ: Mapping[str, str]) -> list[SystemConfig]:
    """The systems in this file; raises `SystemsError` with every mistake and its line."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SystemsError([f"{path}: {error.strerror or error}"]) from error
    if len(content) > FILE_BYTES_MAX:
        raise SystemsError([f"{path}: the file is larger than {FILE_BYTES_MAX} bytes"])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SystemsError([f"{path}:{line}: the file is not UTF-8"]) from None
    return parse_systems(text, environ, str(path))


def parse_systems(text: str, environ: Mapping[str, str], source: str) -> list[SystemConfig]:
    """The systems in this text; `source` names it in problems. Raises `SystemsError` with every mistake and its line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SystemsError([f"{source}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}"]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SystemsError([f"{source}:1: not YAML: {type(error).__name__}"]) from None
    reader = _Reader(source, environ)
    found = list(reader.systems(root))
    if reader.problems:
        raise SystemsError(reader.problems)
    return found


class _Reader:
    """Walks the nodes and gathers what is wrong with them."""

    def __init__(self, source: str, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self.problems: list[str] = []

    def _wrong(self, node: yaml.Node | None, problem: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.problems.append(f"{self._source}:{line}: {problem}")

    def systems(self, root: yaml.Node | None) -> Iterator[SystemConfig]:
        members = self._members(root, ("systems",), "the file")
        if members is None:
            return
        listed = members.get("systems")
        if not isinstance(listed, yaml.SequenceNode):
            self._wrong(listed or root, "expected a list under 'systems:'")
            return
        names: dict[str, yaml.Node] = {}
        needed: list[tuple[yaml.Node, str]] = []
        made = [self._system(node, names, needed) for node in listed.value]
        for node, name in needed:
            if name not in names:
                self._wrong(node, f"depends_on names {name!r}, and there is no such system in this file")
        yield from (one for one in made if one is not None)

    def _system(
        self, node: yaml.Node, names: dict[str, yaml.Node], needed: list[tuple[yaml.Node, str]]
    ) -> SystemConfig | None:
        members = self._members(node, _FIELDS, "a system")
        if members is None:
            return None
        name = self._name(node, members.get("name"), names)
        url = self._url(node, members.get("url"), plaintext=self._boolean(members.get("plaintext")))
        secret = self._secret(node, members.get("secret_env"), members.get("secret_file"))
        depends_on = self._depends_on(members.get("depends_on"), needed)
        timeout = self._timeout(members.get("timeout_seconds"))
        if name is None or url is None or secret is None or timeout is None:
            return None
        return SystemConfig(name, url, secret, depends_on, timeout)

    def _members(self, node: yaml.Node | None, known: tuple[str, ...], what: str) -> dict[str, yaml.Node] | None:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, f"expected {what} with {', '.join(known)}")
            return None
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)[:40]
            if name not in known:
                self._wrong(key, f"{name!r} is not known here: write one of {', '.join(known)}")
            elif name in found:
                self._wrong(key, f"{name!r} stands twice")
            found[name] = value
        return found

    def _text(self, node: yaml.Node | None) -> str | None:
        return node.value if isinstance(node, yaml.ScalarNode) else None

    def _name(self, at: yaml.Node, node: yaml.Node | None, names: dict[str, yaml.Node]) -> str | None:
        try:
            name = parse_word(self._text(node), "name of a system")
        except ValueError as error:
            self._wrong(node or at, str(error))
            return None
        if name in names or name in OWN_NAMES:
            self._wrong(node, f"the name {name!r} is taken" + ("" if name in names else ": a store of kiki has it"))
            return None
        names[name] = at
        return name

    def _url(self, at: yaml.Node, node: yaml.Node | None, *, plaintext: bool) -> str | None:
        text = self._text(node) or ""
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError:
            parts = urlsplit("")
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
            self._wrong(node or at, "url: expected https://host/path without query and fragment")
        elif parts.username is not None or parts.password is not None:
            self._wrong(node, "url: no user and no password may stand in it; calls are signed with the secret")
        elif parts.scheme == "http" and not plaintext and not is_loopback(host):
            self._wrong(node, "url: http:// would show who is asked about; use https://, or say plaintext: true")
        else:
            return text.rstrip("/")
        return None

    def _secret(self, at: yaml.Node, variable: yaml.Node | None, file: yaml.Node | None) -> Secret | None:
        if (variable is None) == (file is None):
            self._wrong(at, "expected secret_env (a variable that holds the shared secret) or secret_file (a path)")
            return None
        node = variable or file
        text = self._text(node) or ""
        if variable is not None:
            if not _VARIABLE.fullmatch(text):
                self._wrong(node, "secret_env: expected the name of an environment variable")
                return None
            where, value = f"the variable {text}", self._environ.get(text, "")
        else:
            try:
                where, value = f"the file {text}", Path(text).read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                self._wrong(node, f"secret_file: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}")
                return None
        if len(value.encode()) < SECRET_BYTES_MIN:
            self._wrong(node, f"{where} holds no secret of at least {SECRET_BYTES_MIN} bytes")
            return None
        return Secret(value)

    def _depends_on(self, node: yaml.Node | None, needed: list[tuple[yaml.Node, str]]) -> tuple[str, ...]:
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode) or not all(isinstance(one, yaml.ScalarNode) for one in node.value):
            self._wrong(node, "depends_on: expected a list of names")
            return ()
        names = [str(one.value) for one in node.value]
        needed += zip(node.value, names, strict=True)
        return tuple(names)

    def _timeout(self, node: yaml.Node | None) -> int | None:
        if node is None:
            return TIMEOUT_SECONDS
        text = self._text(node) or ""
        if re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) and 1 <= int(text) <= TIMEOUT_SECONDS_MAX:
            return int(text)
        self._wrong(node, f"timeout_seconds: expected a whole number from 1 to {TIMEOUT_SECONDS_MAX}")
        return None

    def _boolean(self, node: yaml.Node | None) -> bool:
        if node is None:
            return False
        found = _BOOLEANS.get((self._text(node) or "").lower())
        if found is None:
            self._wrong(node, "plaintext: expected true or false")
        return bool(found)
