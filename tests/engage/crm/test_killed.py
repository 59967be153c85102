"""A reader that is killed at any moment goes on, and every customer is kept once."""

from __future__ import annotations

import pytest

from tests.engage.crm.killing import filled, read_under_fire, told


@pytest.mark.parametrize("kind", ["shopify", "shopify-bulk", "hubspot", "salesforce"])
def test_a_reader_that_is_killed_goes_on(kind, tmp_path):
    path = tmp_path / "kept.db"
    with filled(kind, 6_000) as fake:
        assert 0 < read_under_fire(kind, fake, path, 6_000, kills=2, seed=7) < 6_000
    kept = told(path)
    assert 6_000 == len(kept) == len(set(kept))
