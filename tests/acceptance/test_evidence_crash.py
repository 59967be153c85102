"""A hundred times kill -9 at random moments: nothing acknowledged is lost, and every ledger verifies."""

from __future__ import annotations

import pytest

from bench.killing import rounds


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing():
    """Consents, spends about persons and others, and checkpoints are written by four threads when the process dies."""
    acknowledged, lost, entries, failed = rounds(100, seed=5)
    assert acknowledged > 1000
    assert entries >= acknowledged
    assert (lost, failed) == (0, 0)
