"""What an adapter needs to be told: secrets from the environment, all else from the plan's `settings`. Pure.

A plan holds no secrets, and it does not say where to send them either: an address other than the platform's own comes from
the environment alone. Whatever is missing or wrong is said at once, as one `ConfigurationError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.settings import Secret

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Credentials:
    """Reads one account's; `require` raises with every problem that reading found."""

    def __init__(self, platform: str, account: Account, environ: Mapping[str, str]) -> None:
        self._platform = platform
        self._account = account
        self._environ = environ
        self._problems: list[str] = []

    def secret(self, name: str, what: str) -> Secret:
        """The secret in that variable."""
        return Secret(self.text(name, what))

    def text(self, name: str, what: str) -> str:
        """What that variable holds, which is no secret."""
        value = self._environ.get(name, "").strip()
        if not value:
            self.wrong(f"{name} is not set; it holds {what}")
        elif not value.isascii() or not value.isprintable():
            self.wrong(f"{name} holds characters that no header can carry; it holds {what}")
        return value

    def optional(self, name: str) -> str:
        """What that variable holds; empty when it is not set."""
        return self._environ.get(name, "").strip()

    def address(self, name: str, default: str) -> str:
        """Where the platform is: its own address unless that variable names another. Plain HTTP stays on this machine."""
        value = self.optional(name) or default
        parts = urlsplit(value)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            self.wrong(f"{name} is no https:// address")
        return value.rstrip("/")

    def setting(self, name: str, default: str, form: str, accepted: str, *, environ: str | None = None) -> str:
        """A setting of the account: as the plan says, else as the environment says, else the default."""
        given = self._account.settings.get(name)
        if given is None and environ is not None:
            given = self.optional(environ) or None
        value = default if given is None else str(given)
        if not re.fullmatch(form, value):
            self.wrong(f"{name} is {value[:60]!r}; {accepted}")
        return value

    def per_minute(self, default: int | None = None) -> int | None:
        """How many calls a minute the account may have; None: as many as the platform takes."""
        form = r"[1-9][0-9]{0,4}"
        value = self.setting(
            "per_minute", str(default or ""), form if default else f"({form})?", "write calls a minute"
        )
        return int(value) if re.fullmatch(form, value) else default

    def account(self, form: str, accepted: str) -> str:
        """The account's id, which is a part of paths and headers."""
        if not re.fullmatch(form, self._account.account):
            self.wrong(f"account is {self._account.account[:60]!r}; {accepted}")
        return self._account.account

    def settings_known(self, known: Collection[str]) -> None:
        """Say which settings the platform does not have."""
        for name in self._account.settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
                self.wrong(f"setting {name[:60]!r} is not known; {advice}")

    def wrong(self, problem: str) -> None:
        """Note what is wrong."""
        self._problems.append(f"platform {self._platform}: {problem}")

    def require(self) -> None:
        """Raise `ConfigurationError` with all that is wrong."""
        if self._problems:
            raise ConfigurationError(self._problems)
