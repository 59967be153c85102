"""An upload of values over every adapter and its fake: what is lost is sent again only where the platform knows it again."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest

from kiki.clock import SECOND, wall_micros
from kiki.flow.conversion import Conversion
from kiki.flow.lane_world import Worlds
from kiki.flow.platform import Platform
from kiki.flow.platforms.registry import ADAPTERS
from kiki.flow.run_store import RunStore
from kiki.flow.value_upload import Upload, Uploaded
from tests.flow.fakes import fake as faults
from tests.flow.fakes.fake import Fake
from tests.flow.model import ModelGuard
from tests.flow.test_lane_on_platforms import NAME, plan_for, spec_of
from tests.flow.test_platform_contract import CASES

NEVER_AGAIN = {"linkedin", "x"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_sent_at_once_is_one_request(name: str) -> None:
    """An answer is about one request: were there two, what the first one came to would be lost with the second."""
    module = import_module(ADAPTERS[name].partition(":")[0])
    assert module.LIMITS.values_at_once <= getattr(module, "UPLOAD_MAX", module.LIMITS.values_at_once)


class Uploader:
    """Uploads to one campaign on a fake."""

    def __init__(self, fake: Fake, platform: Platform, store: RunStore) -> None:
        self.plan, self.guard = plan_for(fake), ModelGuard(10**13, itertools.repeat("ok"))
        self._platform, self._store = platform, store
        self._at = wall_micros() - 3600 * SECOND

    async def platform(self, *_: object) -> Platform:
        return self._platform

    async def __call__(self, *orders: str) -> Uploaded:
        given = [
            Conversion(order=each, click=f"click-{each}", at=self._at, value=49_990_000, customer="c")
            for each in orders
        ]
        upload = Upload(self.plan, NAME, "data_sharing", guard=self.guard, log=self._store.values, clock=wall_micros)
        with self._store.values.alone(upload.place):
            return await upload.run(given, cast("Worlds", self), dry_run=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with closing(RunStore.open(tmp_path / "flow.db")) as found:
        yield found


@pytest.fixture(params=[name for name in CASES if name != "sandbox"])
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[Fake]:
    async with CASES[request.param]() as played:
        yield played


async def test_each_value_is_there_once_whatever_was_lost(fake: Fake, store: RunStore) -> None:
    platform: Any = fake.open()
    upload = Uploader(fake, platform, store)
    made = await platform.ensure_campaign(spec_of(upload.plan), "0" * 32)
    assert made.is_done, made
    try:
        if not fake.VALUES:
            found = await upload("o-1")
            assert (1, False) == (found.refused, found.is_whole)
            assert "takes no values by click id" in found.problem
            return
        assert 2 == (await upload("o-1", "o-2")).done
        await fake.fail(faults.LOST_AFTER)
        lost = await upload("o-1", "o-3")
        assert (1, 1) == (lost.already, lost.unknown)
        again = await upload("o-1", "o-2", "o-3")
        assert (2, 1) == (again.already, again.doubtful if fake.NAME in NEVER_AGAIN else again.done)
        assert dict.fromkeys(("o-1", "o-2", "o-3"), 49_990_000) == await fake.uploaded()
        assert [{"done": 2}, {"unknown": 1}, {"done": 1}][: 2 if fake.NAME in NEVER_AGAIN else 3] == [
            {name: count for name, count in note.detail.items() if name in {"done", "unknown", "refused"} and count}
            for note in upload.guard.notes.values()
        ]
    finally:
        await platform.close()
