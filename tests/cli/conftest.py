"""What commands find on this machine is what a test has put there."""

from __future__ import annotations

import pytest

from kiki.cli import place
from kiki.settings import SHIELD_URL_DEFAULT


@pytest.fixture(autouse=True)
def nobody_at_the_usual_address(monkeypatch):
    """A service that happens to run at the usual address must not be asked in place of a test's ledger."""
    listens = place.listens
    monkeypatch.setattr(place, "listens", lambda url: url != SHIELD_URL_DEFAULT and listens(url))
