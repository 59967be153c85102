"""From a plan's platforms to the adapters that reach them; an adapter's module is loaded when a plan names it.

An adapter is a class with `open(account, environ)`, which finds its credentials in the environment and raises
`ConfigurationError` naming what is missing. `platforms: sandbox` needs none: every platform is played by one server.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol, cast

from kiki.errors import ConfigurationError, InvalidInput
from kiki.flow.plan import PLATFORMS, Account, Plan
from kiki.flow.platform import Platform

ADAPTERS: Final[Mapping[str, str]] = {
    "google_ads": "kiki.flow.platforms.google_ads:GoogleAds",
    "meta": "kiki.flow.platforms.meta:Meta",
    "tiktok": "kiki.flow.platforms.tiktok:TikTok",
    "linkedin": "kiki.flow.platforms.linkedin:LinkedIn",
    "microsoft": "kiki.flow.platforms.microsoft:Microsoft",
    "amazon": "kiki.flow.platforms.amazon:Amazon",
    "x": "kiki.flow.platforms.x:X",
    "tradedesk": "kiki.flow.platforms.tradedesk:TradeDesk",
}
SMART: Final = "_smart"


class Adapter(Protocol):
    """How every adapter is made."""

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> Platform:
        """The adapter of one account; raises `ConfigurationError`. Nothing is connected to."""
        ...


def platform_name(name: str) -> str:
    """A platform's name as plans have it; `meta_smart`, as kiki's first version said, is `meta`. Raises `InvalidInput`."""
    plain = name.removesuffix(SMART)
    if plain not in PLATFORMS:
        raise InvalidInput(f"platform {name[:60]!r} is not known; the platforms are {', '.join(PLATFORMS)}")
    return plain


def adapter_of(name: str) -> type[Adapter]:
    """The class that speaks to a platform; raises `InvalidInput`."""
    module, _, found = ADAPTERS[platform_name(name)].partition(":")
    return cast("type[Adapter]", getattr(import_module(module), found))


async def open_platform(plan: Plan, name: str, environ: Mapping[str, str], *, sandbox: str | None = None) -> Platform:
    """The adapter of one of a plan's accounts; raises `ConfigurationError`, and `PlatformUnreachable` for the sandbox.

    `sandbox` is the address of the sandbox; a plan with `platforms: sandbox` needs one, another plan never goes there.
    """
    account = plan.platforms[name]
    if not plan.sandbox:
        return adapter_of(name).open(account, environ)
    from kiki.flow.platforms.sandbox import SandboxPlatform

    if sandbox is None:
        raise ConfigurationError(["the plan says 'platforms: sandbox', and there is no address of a sandbox"])
    return await SandboxPlatform.open(sandbox, name, account.account, currency=plan.currency, time_zone=plan.time_zone)
