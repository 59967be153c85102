"""Uploads of values that are killed (-9) around each of their steps, and gone on with by another process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import msgspec

from kiki.clock import SECOND, wall_micros
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.conversion import Conversion
from kiki.flow.guard_line import EmbeddedGuard
from kiki.flow.plan_text import parse_plan
from kiki.flow.platform import CampaignSpec, campaign_name
from kiki.flow.platforms.sandbox import SandboxPlatform
from kiki.flow.sandbox.local import LocalSandbox
from kiki.flow.value_log import ValueLog
from kiki.shield.budget_guard import BudgetGuard

ORDERS, AT_ONCE = 6, 2
FUSES = (*range(7, 13), *range(19, 23))
"""Two for each step, before and after it: those of the second request (kept as on its way, sent, kept as done), the note,
and that it stands. The first and the third request have the same ones."""
PURPOSE = "data_sharing"
LOADED = (
    *("anyio._backends._asyncio", "httpcore", "sqlalchemy.dialects.sqlite", "yaml"),
    *("kiki.ledger.sqlite", "kiki.shield.consent_store", "kiki.shield.shield_client"),
)
"""What a child would otherwise load at its own time."""
PLAN = "plan: spring\ncurrency: USD\nstarts: 2026-12-01\nends: 2026-12-02\nplatforms: sandbox\ncampaigns:\n" + "".join(
    f"  - {{name: c{fuse}, platform: google_ads, budget: $10/day}}\n" for fuse in FUSES
)


class Uploads:
    """A sandbox with a campaign for each fuse, and a nursery that forks whoever uploads."""

    def __init__(self, folder: Path) -> None:
        self.stack = ExitStack()
        self.sandbox = self.stack.enter_context(LocalSandbox(first_day=date(2026, 11, 30), day_seconds=3600))
        where = [str(folder / "flow.db"), str(folder / "shield.db")]
        self._prepare(*where)
        command = [sys.executable, "-m", "tests.flow.killed_uploads", self.sandbox.url, *where]
        root, environ = str(Path(__file__).parents[2]), {**os.environ, "KIKI_REDIS": "off"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.nursery = self.stack.enter_context(subprocess.Popen(command, cwd=root, env=environ, **pipes))
        self.stack.callback(self.nursery.kill)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @staticmethod
    def campaign(fuse: int) -> str:
        return f"c{fuse}"

    @staticmethod
    def worth(order: str) -> int:
        fuse, number = order.split("-")
        return int(fuse) * 1_000_000 + int(number) * 10_000 + 10_000

    def kill_and_go_on(self, fuse: int) -> bool:
        """Whether the first one was killed; the second one must come to its end."""
        killed = self._upload(fuse, fuse) == -signal.SIGKILL
        assert self._upload(fuse, 0) == 0
        return killed

    def _upload(self, campaign: int, fuse: int) -> int:
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        print(campaign, fuse, file=self.nursery.stdin, flush=True)
        return int(self.nursery.stdout.readline())

    def _prepare(self, store: str, ledger: str) -> None:
        with BudgetGuard.open(ledger, limit="10000", window="30d") as guard:
            for number in range(ORDERS):
                guard.consents.grant(f"customer-{number}", PURPOSE)
            with CampaignRunner.open(store, guard=guard, sandbox=self.sandbox.url) as runner:
                plan = parse_plan(PLAN)

                async def make() -> None:
                    platform = await runner.worlds.platform(plan, "google_ads")
                    for each in plan.campaigns:
                        name = campaign_name(plan.name, each.name)
                        given: dict[str, Any] = {"objective": "traffic", "starts": plan.starts, "ends": plan.ends}
                        await platform.ensure_campaign(CampaignSpec(name=name, daily_budget=10**7, **given), name)

                runner.call(make())


def _given(campaign: int) -> list[Conversion]:
    return [
        Conversion(
            order=(order := f"{campaign}-{number}"),
            click=f"click-{order}",
            at=1_700_000_000 * SECOND,
            value=Uploads.worth(order),
            customer=f"customer-{number}",
        )
        for number in range(ORDERS)
    ]


def _light(fuse: int) -> None:
    """Die before a step, or, where the number is even, after the same one."""
    left = [(fuse + 1) // 2]

    def step(work: Callable[..., Any]) -> Callable[..., Any]:
        def burn() -> bool:
            left[0] -= 1
            if left[0] == 0 and fuse % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return left[0] == 0

        def dying(*given: Any) -> Any:
            last = burn()
            found = work(*given)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        async def dying_later(*given: Any) -> Any:
            last = burn()
            found = await work(*given)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return dying_later if asyncio.iscoroutinefunction(work) else dying

    for owner, name in (
        (ValueLog, "send"),
        (SandboxPlatform, "upload_values"),
        (ValueLog, "settle"),
        (EmbeddedGuard, "note"),
        (ValueLog, "told"),
    ):
        setattr(owner, name, step(getattr(owner, name)))


def nursery(sandbox: str, store: str, ledger: str) -> None:
    """Fork for every line of stdin, and say how the child ended. Nothing is open here that it could inherit."""
    for name in LOADED:
        import_module(name)
    limits = SandboxPlatform.limits.fget
    assert limits is not None
    SandboxPlatform.limits = property(lambda self: msgspec.structs.replace(limits(self), values_at_once=AT_ONCE))  # type: ignore[method-assign]
    for line in sys.stdin:
        campaign, fuse = map(int, line.split())
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        try:
            if fuse:
                _light(fuse)
            with (
                BudgetGuard.open(ledger, limit="10000", window="30d") as guard,
                CampaignRunner.open(store, guard=guard, sandbox=sandbox, clock=wall_micros) as runner,
            ):
                name = Uploads.campaign(campaign)
                found = runner.upload_values(parse_plan(PLAN), name, _given(campaign), purpose=PURPOSE)
                os._exit(0 if found.is_whole else 3)
        except BaseException as error:
            print(f"upload {campaign}: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)


if __name__ == "__main__":
    nursery(*sys.argv[1:])
