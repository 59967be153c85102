"""Microsoft's own package, imported in peace: it warns of pydantic's past while it loads, and warnings are errors here."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from bingads.authorization import AuthorizationData
    from bingads.service_client import ServiceClient

__all__ = ["AuthorizationData", "ServiceClient", "model"]


def model(service: str, name: str) -> Any:
    """A model of theirs: `model("campaign", "AddCampaignsRequest")`."""
    module = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
    return getattr(import_module(f"openapi_client.models.{service}.{module}"), name)
