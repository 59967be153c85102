"""The public face of kiki: a short list of names, each loaded on first use, so that importing kiki stays light."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiki.engage.loyalty_ledger import LoyaltyLedger
    from kiki.errors import ConsentDenied, KikiError, SpendDenied
    from kiki.flow.campaign_runner import CampaignRunner
    from kiki.shield.budget_guard import BudgetGuard
    from kiki.shield.consent_store import ConsentStore
    from kiki.shield.policy import Policy
    from kiki.shield.shield_client import AsyncShieldClient, ShieldClient
    from kiki.value.ltv_client import AsyncLtvClient, LtvClient

__version__ = "0.1.0"

_HOME = {
    "AsyncLtvClient": "kiki.value.ltv_client",
    "AsyncShieldClient": "kiki.shield.shield_client",
    "BudgetGuard": "kiki.shield.budget_guard",
    "CampaignRunner": "kiki.flow.campaign_runner",
    "ConsentDenied": "kiki.errors",
    "ConsentStore": "kiki.shield.consent_store",
    "KikiError": "kiki.errors",
    "LoyaltyLedger": "kiki.engage.loyalty_ledger",
    "LtvClient": "kiki.value.ltv_client",
    "Policy": "kiki.shield.policy",
    "ShieldClient": "kiki.shield.shield_client",
    "SpendDenied": "kiki.errors",
}

__all__ = [
    "AsyncLtvClient",
    "AsyncShieldClient",
    "BudgetGuard",
    "CampaignRunner",
    "ConsentDenied",
    "ConsentStore",
    "KikiError",
    "LoyaltyLedger",
    "LtvClient",
    "Policy",
    "ShieldClient",
    "SpendDenied",
    "__version__",
]


def __getattr__(name: str) -> object:
    """The public name, imported now; later uses find it in the module itself."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'kiki' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What a person may use, and what a module has anyway."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
