"""One engine for all tests of the chart, and its renders of the three profiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.renders import PROFILES, Engine, layers


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    one = Engine.shared()
    yield one
    one.close()


@pytest.fixture(scope="session")
def renders(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """The objects of each profile as it ships."""
    return {name: engine.objects(layers(name)) for name in PROFILES}
