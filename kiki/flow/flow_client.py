"""`FlowClient`: the runs of a SyncFlow that runs elsewhere, under the names that `CampaignRunner` has for them.

Every call may be made again without harm, `start`, `reconcile` and `upload_values` too: the same plan is the same run, what was
brought to an end is found at its end, and what a platform has is not sent to it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from kiki.clock import wall_micros
from kiki.errors import FlowUnreachable, KikiError
from kiki.flow import wire
from kiki.flow.plan import Plan
from kiki.flow.plan_file import conversions_text, read_conversions, read_plan, read_text
from kiki.flow.preview import Preview
from kiki.flow.reconcile import Reconciliation
from kiki.flow.run_rows import RunRow, Told
from kiki.flow.run_status import RunStatus
from kiki.flow.value_upload import Uploaded
from kiki.shield.wire_problem import error_of, parse_problem

SECONDS = 60.0
"""How long an answer may take: a preview asks every platform."""

UPLOAD_SECONDS = 600.0
"""The same for values, which may take many requests to a platform."""

Reply = TypeVar("Reply")


class FlowClient:
    """The SyncFlow at `url`; `token` where it asks for one."""

    def __init__(self, url: str, token: str | None = None, *, seconds: float = SECONDS) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(headers=headers, timeout=seconds, trust_env=False)

    def start(self, plan: str | Path, *, again: bool = False) -> str:
        """Run the plan in that file; the run's id. The same plan is the same run."""
        read_plan(plan)
        body = {"plan": read_text(plan), "again": again}
        return self._ask(wire.StartReply, "POST", "/v1/campaigns", body).run

    def preview(self, plan: str | Path) -> Preview:
        """What running the plan in that file would do; nothing is changed."""
        read_plan(plan)
        return self._ask(Preview, "POST", "/v1/campaigns:plan", {"plan": read_text(plan)})

    def runs(self) -> list[RunRow]:
        """All runs, newest first."""
        return [wire.run_row(each) for each in self._ask(wire.RunsReply, "GET", "/v1/runs").runs]

    def status(self, run: str) -> RunStatus:
        """How a run stands; raises `NotFound`."""
        return self._ask(RunStatus, "GET", f"/v1/runs/{_part(run)}")

    def plan(self, run: str) -> Plan:
        """The plan that a run was started with; raises `NotFound`."""
        return self._ask(Plan, "GET", f"/v1/runs/{_part(run)}/plan")

    def events(self, run: str, after: int = 0, most: int = wire.EVENTS_MAX) -> list[Told]:
        """What a run told after that number, oldest first; raises `NotFound`."""
        path = f"/v1/runs/{_part(run)}/events?after={after}&limit={most}"
        return [
            Told(each.number, each.at, f"{run}/{each.campaign}", each.event, each.detail)
            for each in self._ask(wire.EventsReply, "GET", path).events
        ]

    def pause(self, run: str, campaign: str | None = None, *, actor: str = "") -> int:
        """Let a run, or one campaign of it, spend nothing more until `resume`. The service knows who calls by the token."""
        return self._tell(run, "pause", campaign)

    def resume(self, run: str, campaign: str | None = None, *, actor: str = "") -> int:
        """Take a pause back."""
        return self._tell(run, "resume", campaign)

    def cancel(self, run: str, campaign: str | None = None, *, actor: str = "") -> int:
        """End a run, or one campaign of it, for good."""
        return self._tell(run, "cancel", campaign)

    def approve(self, run: str, *, actor: str = "") -> int:
        """Let a run begin that waits for a person's approval."""
        return self._ask(wire.ToldReply, "POST", f"/v1/runs/{_part(run)}/approvals").campaigns

    def adopt(self, executor: str) -> list[str]:
        """Free the runs of a runner that is gone for good; which they are."""
        return self._ask(wire.AdoptReply, "POST", f"/v1/executors/{_part(executor)}/adopt").runs

    def reconcile(self, run: str, *, act: bool = True) -> Reconciliation:
        """Lay the three books side by side; with `act` bring what an ended campaign left open to an end."""
        return self._ask(Reconciliation, "POST", f"/v1/runs/{_part(run)}/reconcile", {"act": act})

    def upload_values(
        self,
        plan: str | Path,
        campaign: str,
        values: str | Path,
        *,
        purpose: str | None = None,
        dry_run: bool = False,
    ) -> Uploaded:
        """Tell a campaign's platform what the conversions in that file were worth; each order is sent until it is there."""
        read_conversions(values, read_plan(plan), wall_micros())
        body = {
            "plan": read_text(plan),
            "campaign": campaign,
            "values": conversions_text(values),
            "purpose": purpose,
            "dry_run": dry_run,
        }
        return self._ask(Uploaded, "POST", "/v1/campaigns:upload", body, seconds=UPLOAD_SECONDS)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, run: str, verb: str, campaign: str | None) -> int:
        return self._ask(wire.ToldReply, "POST", f"/v1/runs/{_part(run)}/{verb}", {"campaign": campaign}).campaigns

    def _ask(
        self,
        kind: type[Reply],
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        seconds: float | None = None,
    ) -> Reply:
        timeout = self._http.timeout if seconds is None else seconds
        try:
            reply = self._http.request(method, self._url + path, json=body, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FlowUnreachable(
                f"SyncFlow at {self._url} does not answer: {type(error).__name__}",
                hint="start it with kiki serve flow, or leave --service and KIKI_FLOW_URL away for the runs in the data directory",
            ) from None
        if not reply.is_success:
            raise _refusal(self._url, reply)
        try:
            return msgspec.json.decode(reply.content, type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise FlowUnreachable(f"what answers at {self._url} is no SyncFlow of this version") from None


def _refusal(url: str, reply: httpx.Response) -> KikiError:
    problem = parse_problem(reply.content)
    error = None if problem is None else error_of(problem)
    if error is None and problem is not None and isinstance(problem.get("detail"), str):
        # What HTTP itself refuses has no error in the library: a body that is too large.
        error = KikiError(f"SyncFlow at {url}: {problem['detail']}")
    return error or FlowUnreachable(f"what answers at {url} is no SyncFlow of this version: status {reply.status_code}")


def _part(name: str) -> str:
    return quote(name, safe="")
