"""Values from a file to the sandbox's own books: with consent only, each once, whatever the platform and the shield do."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kiki import BudgetGuard, CampaignRunner
from kiki.clock import SECOND, wall_micros
from kiki.errors import Conflict, Forbidden, InvalidInput, NotFound, PlatformUnreachable, ShieldUnreachable, UploadError
from kiki.flow.conversion import Conversion
from kiki.flow.plan import Plan
from kiki.flow.plan_text import parse_plan
from kiki.flow.platform import CampaignSpec, ValueUpload, campaign_name
from kiki.flow.platforms.sandbox import SandboxPlatform
from kiki.flow.sandbox.local import LocalSandbox
from kiki.flow.value_upload import UPLOADED, Uploaded
from kiki.outbound.outcome import Fate, Outcome, done
from kiki.shield.fact import Noted, decode_fact
from kiki.shield.shield_client import AsyncShieldClient
from tests.flow.killed_uploads import FUSES, ORDERS, Uploads
from tests.shield.served import Running

PURPOSE = "data_sharing"
PLAN = parse_plan(
    """\
plan: spring
currency: USD
starts: 2026-12-01
ends: 2026-12-02
platforms: sandbox
campaigns:
  - {name: search, platform: google_ads, budget: $100/day}
  - {name: social, platform: meta, budget: $200/day, audience: {list: vips, consent: targeting}}
"""
)
NOW = wall_micros()


def conversions(*orders: str, value: int = 10_000_000) -> list[Conversion]:
    return [
        Conversion(order=order, click=f"click-{order}", at=NOW - SECOND, value=value, customer=f"customer-{order}")
        for order in orders
    ]


@pytest.fixture
def sandbox() -> Iterator[LocalSandbox]:
    with LocalSandbox(first_day=date(2026, 11, 30), day_seconds=3600) as found:
        yield found


@pytest.fixture
def guard() -> Iterator[BudgetGuard]:
    with BudgetGuard.open(limit="10000", window="30d") as found:
        yield found


@pytest.fixture
def running_shield() -> Iterator[Running]:
    found = Running()
    yield found
    found.close()


@pytest.fixture
def runner(guard: BudgetGuard, sandbox: LocalSandbox) -> Iterator[CampaignRunner]:
    with CampaignRunner.open(guard=guard, sandbox=sandbox.url) as found:
        make_campaigns(found)
        yield found


def make_campaigns(runner: CampaignRunner, plan: Plan = PLAN) -> None:
    """The campaigns on their platforms, as a run would make them."""

    async def make(name: str) -> None:
        wanted = plan.campaign(name)
        platform = await runner.worlds.platform(plan, wanted.platform)
        spec = CampaignSpec(
            name=campaign_name(plan.name, name),
            objective="traffic",
            daily_budget=10**8,
            starts=plan.starts,
            ends=plan.ends,
        )
        assert (await platform.ensure_campaign(spec, name)).is_done

    for campaign in plan.campaigns:
        runner.call(make(campaign.name))


def consent(guard: BudgetGuard, *orders: str, purpose: str = PURPOSE) -> None:
    for order in orders:
        guard.consents.grant(f"customer-{order}", purpose)


def upload(runner: CampaignRunner, given: Sequence[Conversion], **more: Any) -> Uploaded:
    return runner.upload_values(PLAN, "search", given, **{"purpose": PURPOSE, **more})


def sums(found: Uploaded) -> dict[str, int]:
    """What is not nothing."""
    fields = ("done", "refused", "unknown", "waiting", "left_out", "already", "differing", "doubtful")
    assert found.orders == sum(getattr(found, name) for name in fields)
    return {name: getattr(found, name) for name in fields if getattr(found, name)}


def there(sandbox: LocalSandbox) -> dict[str, tuple[int, int]]:
    """By the sandbox's own books: what each order is worth, and how often it came."""
    return {each["order"]: (each["value"], each["times"]) for each in sandbox.books()["conversions"]}


def requests(sandbox: LocalSandbox) -> int:
    return sum(each["operation"] == "values" for each in sandbox.books()["effects"])


def told(guard: BudgetGuard) -> list[Noted]:
    facts = [decode_fact(entry) for entry in guard.decider.ledger.read()]
    return [fact for fact in facts if isinstance(fact, Noted) and fact.event == UPLOADED]


def fault(sandbox: LocalSandbox, *kinds: str, operation: str = "values") -> None:
    body = {"script": [{"kind": kind, "operation": operation} for kind in kinds]}
    asked = urllib.request.Request(f"{sandbox.url}/sandbox/faults", json.dumps(body).encode(), method="PUT")
    urllib.request.urlopen(asked).close()


def at_once(monkeypatch: pytest.MonkeyPatch, most: int, **more: Any) -> None:
    """Requests of so many values."""
    found = SandboxPlatform.limits.fget
    assert found is not None
    changed = property(lambda self: msgspec.structs.replace(found(self), values_at_once=most, **more))
    monkeypatch.setattr(SandboxPlatform, "limits", changed)


def test_values_of_who_consents_are_on_the_platform_once(
    runner: CampaignRunner, guard: BudgetGuard, sandbox: LocalSandbox
) -> None:
    consent(guard, "1", "2")
    assert {"waiting": 2, "left_out": 1} == sums(upload(runner, conversions("1", "2", "3"), dry_run=True))
    assert {} == there(sandbox)
    found = upload(runner, conversions("1", "2", "3"))
    assert ({"done": 2, "left_out": 1}, True) == (sums(found), found.is_whole)
    assert {"already": 2, "left_out": 1} == sums(upload(runner, conversions("1", "2", "3")))
    consent(guard, "3")
    assert {"already": 2, "done": 1} == sums(upload(runner, conversions("3", "1", "2")))
    assert dict.fromkeys("123", (10000000, 1)) == there(sandbox)

    notes = told(guard)
    assert [
        {"plan": "spring", "purpose": PURPOSE, "done": 2, "refused": 0, "unknown": 0},
        {"plan": "spring", "purpose": PURPOSE, "done": 1, "refused": 0, "unknown": 0},
    ] == [note.detail for note in notes]
    assert ["campaign:search", "platform:google_ads"] == sorted(notes[0].scopes)


def test_consent_that_is_taken_back_between_two_uploads_counts(
    runner: CampaignRunner, guard: BudgetGuard, sandbox: LocalSandbox
) -> None:
    consent(guard, "1", "2")
    fault(sandbox, "lost_before")
    assert {"unknown": 2} == sums(upload(runner, conversions("1", "2")))
    guard.consents.revoke("customer-2", PURPOSE)
    assert {"done": 1, "left_out": 1} == sums(upload(runner, conversions("1", "2")))
    assert {"1": (10_000_000, 1)} == there(sandbox)


def test_consent_that_is_taken_back_during_an_upload_counts(
    runner: CampaignRunner, guard: BudgetGuard, sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, 1)
    consent(guard, "1", "2", "3")
    send = SandboxPlatform.upload_values

    async def revoking(self: SandboxPlatform, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        answer = await send(self, campaign, values, key)
        if values[0].order == "1":
            guard.consents.revoke("customer-2", PURPOSE)
        return answer

    monkeypatch.setattr(SandboxPlatform, "upload_values", revoking)
    assert {"done": 2, "left_out": 1} == sums(upload(runner, conversions("1", "2", "3")))
    assert {"1", "3"} == there(sandbox).keys()


def test_the_plan_s_audience_names_the_purpose(runner: CampaignRunner, guard: BudgetGuard) -> None:
    consent(guard, "1", purpose="targeting")
    found = runner.upload_values(PLAN, "social", conversions("1"))
    assert ("targeting", {"done": 1}) == (found.purpose, sums(found))
    with pytest.raises(InvalidInput, match="no audience that names a purpose"):
        runner.upload_values(PLAN, "search", conversions("1"))
    with pytest.raises(InvalidInput, match="'nonsense' is not a purpose"):
        upload(runner, conversions("1"), purpose="nonsense")
    with pytest.raises(InvalidInput, match="has no campaign 'nobody'"):
        runner.upload_values(PLAN, "nobody", conversions("1"))


@pytest.mark.parametrize("kind", ["lost_before", "lost_after", "error_after", "garbled"])
def test_what_nobody_knows_is_sent_again_as_what_it_was(
    runner: CampaignRunner, guard: BudgetGuard, sandbox: LocalSandbox, kind: str
) -> None:
    consent(guard, "1", "2")
    fault(sandbox, kind)
    found = upload(runner, conversions("1", "2"))
    assert ({"unknown": 2}, False) == (sums(found), found.is_whole)
    assert found.problem.startswith("google_ads: ")
    # Another value under the same order could be a second one: it is not sent.
    assert {"unknown": 2} != sums(changed := upload(runner, conversions("1", "2", value=99_000_000)))
    assert {"differing": 2} == sums(changed)
    assert {"done": 2} == sums(upload(runner, conversions("1", "2")))
    assert {"1": 10_000_000, "2": 10_000_000} == {order: value for order, (value, _) in there(sandbox).items()}
    assert [("unknown", 2), ("done", 2)] == [
        next((name, note.detail[name]) for name in ("unknown", "done") if note.detail[name]) for note in told(guard)
    ]


@pytest.mark.parametrize("kind", ["throttled", "error_inside"])
def test_what_is_refused_may_be_corrected_and_sent_again(
    runner: CampaignRunner, guard: BudgetGuard, sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    at_once(monkeypatch, 2)
    consent(guard, "1", "2", "3")
    fault(sandbox, kind)
    found = upload(runner, conversions("1", "2", "3"))
    assert {"refused": 2, "waiting": 1} == sums(found)
    assert ("it listens again at" in found.problem) == (kind == "throttled")
    if kind == "error_inside":
        assert {"done": 3} == sums(upload(runner, conversions("1", "2", "3", value=7_000_000)))
        assert dict.fromkeys("123", (7000000, 1)) == there(sandbox)


def test_a_refusal_says_nothing_of_the_time_before(
    runner: CampaignRunner, guard: BudgetGuard, sandbox: LocalSandbox
) -> None:
    consent(guard, "1", "2")
    fault(sandbox, "lost_after", "error_inside")
    assert {"unknown": 1} == sums(upload(runner, conversions("1")))
    assert {"unknown": 1, "refused": 1} == sums(upload(runner, conversions("1", "2")))
    # The one may be corrected; the other may be there.
    assert {"differing": 1, "done": 1} == sums(upload(runner, conversions("1", "2", value=7_000_000)))
    assert {"1": (10_000_000, 1), "2": (7_000_000, 1)} == there(sandbox)
    assert {"done": 1, "differing": 1} == sums(upload(runner, conversions("1", "2")))


@pytest.mark.parametrize("hours", [0, 48])
def test_a_platform_that_would_count_it_twice_is_not_sent_it_again(
    guard: BudgetGuard, sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    late = [0]
    at_once(monkeypatch, 500, values_again_hours=hours)
    with CampaignRunner.open(guard=guard, sandbox=sandbox.url, clock=lambda: wall_micros() + late[0]) as runner:
        make_campaigns(runner)
        consent(guard, "1")
        fault(sandbox, "lost_after")
        assert {"unknown": 1} == sums(upload(runner, conversions("1")))
        late[0] = hours * 3600 * SECOND
        found = upload(runner, conversions("1"))
        assert ({"doubtful": 1}, False) == (sums(found), found.is_whole)
        assert {"1": (10_000_000, 1)} == there(sandbox)
        if hours:
            late[0] -= 60 * SECOND
            assert {"done": 1} == sums(upload(runner, conversions("1")))


def test_a_platform_tells_of_each_what_became_of_it(
    runner: CampaignRunner, guard: BudgetGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def partly(*_: Any) -> Outcome:
        return done(accepted=1, rejected=2, orders={"1": Fate.DONE.value, "2": Fate.REFUSED.value})

    monkeypatch.setattr(SandboxPlatform, "upload_values", partly)
    consent(guard, "1", "2", "3")
    found = upload(runner, conversions("1", "2", "3"))
    assert ({"done": 1, "refused": 1, "unknown": 1}, "") == (sums(found), found.problem)


def test_it_begins_only_where_it_can(guard: BudgetGuard, sandbox: LocalSandbox) -> None:
    consent(guard, "1")
    with CampaignRunner.open(guard=guard, sandbox=sandbox.url) as runner:
        with pytest.raises(NotFound, match="has no campaign 'search' of this plan"):
            upload(runner, conversions("1"))
        make_campaigns(runner)
        euros = msgspec.structs.replace(PLAN, currency="EUR")
        fault(sandbox, "error_before", operation="lookup")
        with pytest.raises(PlatformUnreachable, match="cannot be asked, so nothing is sent"):
            upload(runner, conversions("1"))
        with pytest.raises(UploadError, match="row 1: click: it is empty"):
            upload(runner, [msgspec.structs.replace(conversions("1")[0], click="")])
        with pytest.raises(InvalidInput, match="is in USD, and the plan in EUR"):
            runner.upload_values(euros, "search", conversions("1"), purpose=PURPOSE)
    real = msgspec.structs.replace(PLAN, sandbox=False)
    with CampaignRunner.open(guard=guard, environ={}) as runner, pytest.raises(PlatformUnreachable, match="GOOGLE_ADS"):
        runner.upload_values(real, "search", conversions("1"), purpose=PURPOSE)
    assert {} == there(sandbox)


def test_two_uploads_of_a_campaign_are_one_after_the_other(
    runner: CampaignRunner, guard: BudgetGuard, sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(guard, "1")
    begun, go_on = threading.Event(), threading.Event()
    send = SandboxPlatform.upload_values

    async def slow(self: SandboxPlatform, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        begun.set()
        await asyncio.to_thread(go_on.wait, 60)
        return await send(self, campaign, values, key)

    monkeypatch.setattr(SandboxPlatform, "upload_values", slow)
    first = threading.Thread(target=lambda: upload(runner, conversions("1")))
    first.start()
    assert begun.wait(60)
    with pytest.raises(Conflict, match="are being uploaded just now"):
        upload(runner, conversions("1"))
    go_on.set()
    first.join(60)
    assert {"1": (10_000_000, 1)} == there(sandbox)


def test_the_shield_over_http_and_away(
    running_shield: Running, sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, 400)
    orders = [str(each) for each in range(1100)]
    shield = running_shield.shield
    consent(shield.guard, *orders[:1050])
    client = AsyncShieldClient(shield.url, retries=0, timeout=20)
    with CampaignRunner.open(guard=client, sandbox=sandbox.url) as runner:
        make_campaigns(runner)
        with pytest.raises(InvalidInput, match="not a purpose"):
            upload(runner, conversions("1"), purpose="nonsense")
        assert {"done": 1050, "left_out": 50} == sums(upload(runner, conversions(*orders)))
        assert (1050, 3) == (len(there(sandbox)), requests(sandbox))
        assert [1050] == [note.detail["done"] for note in told(shield.guard)]
    away = AsyncShieldClient("http://127.0.0.1:9", retries=0)
    with CampaignRunner.open(guard=away, sandbox=sandbox.url) as runner:
        make_campaigns(runner)
        with pytest.raises(ShieldUnreachable, match="nobody can be asked for consent, and nothing is sent without"):
            upload(runner, conversions("new"))
    assert 3 == requests(sandbox)


def test_runners_that_share_a_database_share_what_they_know(
    guard: BudgetGuard, sandbox: LocalSandbox, postgres: str
) -> None:
    consent(guard, "1", "2")
    with CampaignRunner.open(postgres, guard=guard, sandbox=sandbox.url, executor="a") as runner:
        make_campaigns(runner)
        assert {"done": 1} == sums(upload(runner, conversions("1")))
    with CampaignRunner.open(postgres, guard=guard, sandbox=sandbox.url, executor="b") as runner:
        assert {"already": 1, "done": 1} == sums(upload(runner, conversions("1", "2")))
    assert {"1": (10_000_000, 1), "2": (10_000_000, 1)} == there(sandbox)


@pytest.mark.parametrize("trouble", [OSError("no space left on device"), Forbidden("a lacks the role 'spend'")])
def test_a_ledger_that_does_not_take_it_is_told_by_the_next_upload(
    runner: CampaignRunner, guard: BudgetGuard, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    consent(guard, "1", "2")

    def no(*_: Any) -> None:
        raise trouble

    with monkeypatch.context() as patched:
        patched.setattr(BudgetGuard, "note_many", no)
        found = upload(runner, conversions("1"))
        assert (False, False, {"done": 1}) == (found.recorded, found.is_whole, sums(found))
        assert "the ledger does not have it yet: " in found.problem
        with pytest.raises(ShieldUnreachable, match="nothing more is sent"):
            upload(runner, conversions("2"))
    assert upload(runner, conversions("2")).recorded
    assert [1, 1] == [note.detail["done"] for note in told(guard)]


def test_a_note_whose_answer_is_lost_is_the_same_note_again(
    runner: CampaignRunner, guard: BudgetGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(guard, "1", "2")
    write = BudgetGuard.note_many

    def lost(self: BudgetGuard, notes: Any) -> Any:
        write(self, notes)
        raise OSError("connection reset")

    with monkeypatch.context() as patched:
        patched.setattr(BudgetGuard, "note_many", lost)
        assert not upload(runner, conversions("1")).recorded
    # Also when the plan names another team by now: what is in the ledger stays as it was told.
    moved = msgspec.structs.replace(PLAN, scopes={"team": "growth"})
    assert runner.upload_values(moved, "search", conversions("2"), purpose=PURPOSE).recorded
    assert [1, 1] == [note.detail["done"] for note in told(guard)]


def test_nothing_personal_is_kept_in_clear(
    guard: BudgetGuard, sandbox: LocalSandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = Conversion(
        order="order-77", click="clickety", at=NOW - SECOND, value=1_230_000, customer="ada@example.org"
    )
    guard.consents.grant(secret.customer, PURPOSE)
    with CampaignRunner.open(tmp_path / "flow.db", guard=guard, sandbox=sandbox.url) as runner:
        make_campaigns(runner)
        assert {"done": 1} == sums(upload(runner, [secret]))
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for word in (secret.order, secret.click, secret.customer):
        assert word.encode() not in kept
        assert word not in "".join(capfd.readouterr())
        assert not any(word in str(note) for note in told(guard))


def test_killed_anywhere_and_started_again_nothing_is_lost_and_nothing_double(tmp_path: Path) -> None:
    """A process that is killed around each of its steps, and one that goes on: by the sandbox's books and the ledger's."""
    with Uploads(tmp_path) as uploads:
        killed = [uploads.kill_and_go_on(fuse) for fuse in FUSES]
        books = uploads.sandbox.books()
    assert all(killed), "a fuse was too long: the number of steps has changed"
    with BudgetGuard.open(tmp_path / "shield.db", limit="10000", window="30d") as guard:
        notes = told(guard)
    by_campaign = Counter[str]()
    for note in notes:
        (campaign,) = (scope for scope in note.scopes if scope.startswith("campaign:"))
        by_campaign[campaign] += int(note.detail["done"])
    assert {f"campaign:{uploads.campaign(fuse)}": ORDERS for fuse in FUSES} == by_campaign
    conversions = {each["order"]: each for each in books["conversions"]}
    assert {f"{fuse}-{number}" for fuse in FUSES for number in range(ORDERS)} == conversions.keys()
    assert all(each["value"] == uploads.worth(order) for order, each in conversions.items())
    # What was on its way when it was killed was sent again, under its own order: two of six at most.
    for fuse in FUSES:
        times = [conversions[f"{fuse}-{number}"]["times"] for number in range(ORDERS)]
        assert {*times} <= {1, 2}
        assert times.count(2) <= 2
