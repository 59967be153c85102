"""SyncFlow's JSON: what callers send and what they get, as structs that the OpenAPI document is made from too. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from kiki.errors import InvalidInput
from kiki.flow.plan_file import PLAN_BYTES_MAX
from kiki.flow.run_rows import RunRow, Told
from kiki.members import Query, limit_of, number_of, read_query

Body = TypeVar("Body", bound=msgspec.Struct)

EVENTS_MAX: Final = 1000


class PlanBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan to look at."""

    plan: str
    """A plan file, YAML."""


class StartBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan to run."""

    plan: str
    """A plan file, YAML."""
    again: bool = False
    """Start a plan anew whose run has ended."""


class TellBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to tell; without `campaign` the whole run."""

    campaign: str | None = None


class ReconcileBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether to bring what is left open to an end, or only to compare."""

    act: bool = True


class UploadBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What conversions of a campaign turned out to be worth."""

    plan: str
    """A plan file, YAML."""
    campaign: str
    values: str
    """CSV with the columns order, click, at, value and customer."""
    purpose: str | None = None
    """What their customers must have consented to; without it, what the plan's audience says."""
    dry_run: bool = False
    """Send nothing, and say what would be sent."""


class EmptyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing needs to be said."""


class StartReply(msgspec.Struct, frozen=True, kw_only=True):
    """The run of the plan."""

    run: str
    plan: str
    version: str
    state: str


class ToldReply(msgspec.Struct, frozen=True, kw_only=True):
    """How many campaigns were told."""

    run: str
    told: str
    campaigns: int


class RunReply(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list."""

    run: str
    plan: str
    version: str
    state: str
    made_at: int
    ended_at: int | None
    owner: str
    """The executor that has it; empty when none does."""
    epoch: int
    """How often it has changed hands."""
    leased_until: int


class RunsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first."""

    runs: list[RunReply]


class CampaignsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Plans, each with its newest run."""

    campaigns: list[RunReply]


class EventReply(msgspec.Struct, frozen=True, kw_only=True):
    """One word of a run's story."""

    number: int
    at: int
    campaign: str
    event: str
    detail: dict[str, str | int | bool]


class EventsReply(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the story; ask with `after` = `next` for what follows."""

    events: list[EventReply]
    next: int


class StepReply(msgspec.Struct, frozen=True, kw_only=True):
    """One journaled answer: what a run never does twice."""

    number: int
    at: int
    campaign: str
    step: str
    result: dict[str, Any]


class StepsReply(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the journal; ask with `after` = `next` for what follows."""

    steps: list[StepReply]
    next: int


class AdoptReply(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that are free now."""

    executor: str
    runs: list[str]


REPLIES: Final = (StartReply, ToldReply, RunsReply, CampaignsReply, EventsReply, StepsReply, AdoptReply)
BODIES: Final = (PlanBody, StartBody, TellBody, ReconcileBody, UploadBody, EmptyBody)


def read(kind: type[Body], body: Mapping[str, Any]) -> Body:
    """The body as that struct; raises `InvalidInput`."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the body cannot be read: {error}") from None


def plan_text(text: str) -> str:
    """The text of a plan, not too long; raises `InvalidInput`."""
    if len(text) > PLAN_BYTES_MAX:
        raise InvalidInput(f"a plan has at most {PLAN_BYTES_MAX} characters")
    return text


def run_reply(row: RunRow) -> RunReply:
    """A row as it is told."""
    return RunReply(
        run=row.run,
        plan=row.plan_name,
        version=row.version,
        state=row.state,
        made_at=row.made_at,
        ended_at=row.ended_at,
        owner=row.owner,
        epoch=row.epoch,
        leased_until=row.leased_until,
    )


def run_row(reply: RunReply) -> RunRow:
    """The row that was told."""
    return RunRow(
        run=reply.run,
        plan_name=reply.plan,
        version=reply.version,
        state=reply.state,
        made_at=reply.made_at,
        ended_at=reply.ended_at,
        owner=reply.owner,
        epoch=reply.epoch,
        leased_until=reply.leased_until,
    )


def campaigns_reply(rows: Sequence[RunRow]) -> CampaignsReply:
    """The newest run of each plan."""
    newest: dict[str, RunRow] = {}
    for row in rows:
        newest.setdefault(row.plan_name, row)
    return CampaignsReply(campaigns=[run_reply(newest[name]) for name in sorted(newest)])


def event_reply(run: str, told: Told) -> EventReply:
    """A word as it is told."""
    campaign = told.lane.removeprefix(f"{run}/")
    return EventReply(number=told.number, at=told.at, campaign=campaign, event=told.event, detail=told.detail)


def steps_reply(run: str, rows: Sequence[tuple[int, int, str, str, dict[str, Any]]], after: int) -> StepsReply:
    """A part of the journal as it is told."""
    steps = [
        StepReply(number=number, at=at, campaign=lane.removeprefix(f"{run}/"), step=key, result=value)
        for number, at, lane, key, value in rows
    ]
    return StepsReply(steps=steps, next=steps[-1].number if steps else after)


def server_sent(run: str, told: Told) -> bytes:
    """A word as a server-sent event."""
    data = msgspec.json.encode(event_reply(run, told))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (told.number, told.event.encode(), data)


def cursor(query: Query, *, most: int = EVENTS_MAX) -> tuple[int, int]:
    """`after` and `limit` of a query; raises `InvalidInput`."""
    given, _ = read_query(query, ("after", "limit"))
    return number_of(given, "after", default=0, least=0, most=2**53), limit_of(given, default=most, most=most)
