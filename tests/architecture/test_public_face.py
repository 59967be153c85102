"""`import kiki` is light, and its public names are a short list that holds."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import kiki

HEAVY = {"aiohttp", "apsw", "grpc", "httpx", "numpy", "pandas", "redis", "rich", "typer", "uvloop", "yaml"}
NOW = {
    *("AsyncLtvClient", "AsyncShieldClient", "BudgetGuard", "CampaignRunner", "ConsentDenied", "ConsentStore"),
    *("KikiError", "LoyaltyLedger", "LtvClient", "Policy", "ShieldClient", "SpendDenied", "__version__"),
}


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running the code."""
    report = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    return set(json.loads(answer.stdout))


def test_importing_kiki_loads_nothing_heavy():
    assert loaded_after("import kiki; dir(kiki); kiki.__version__") & HEAVY == set()


def test_an_error_can_be_named_without_loading_anything_heavy():
    assert loaded_after("from kiki import KikiError, SpendDenied") & HEAVY == set()


def test_the_public_names_are_these():
    assert set(kiki.__all__) == NOW
    assert sorted(kiki.__all__) == list(kiki.__all__)
    assert set(kiki.__all__) <= set(dir(kiki))


@pytest.mark.parametrize("name", sorted(NOW))
def test_each_public_name_is_importable(name: str):
    assert getattr(importlib.import_module("kiki"), name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kiki' has no attribute 'Nothing'"):
        kiki.Nothing  # noqa: B018
