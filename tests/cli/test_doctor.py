"""The doctor: what is well is said, what is not comes with what to do, and nothing is changed by looking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from kiki.cli import doctor as home
from kiki.cli.main import app
from kiki.clock import SECOND, to_iso, wall_micros
from kiki.ledger.archive import DirectoryArchive, Lock
from kiki.ledger.segment import Segment, segment_write
from kiki.ledger.sqlite import SqliteStore
from kiki.settings import redis_address
from kiki.shield import checkup
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.checkup import Check, State

DAY = 86_400 * SECOND


def run(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments])


def states() -> dict[str, str]:
    return {each["name"]: each["state"] for each in json.loads(run("--json").stdout)["checks"]}


@pytest.fixture(autouse=True)
def _without_services(monkeypatch):
    """What listens on this machine by chance is none of these tests' business."""
    monkeypatch.setattr(home, "GROUPS", (home.shield, home.engage))


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "data"
    with BudgetGuard.open(folder / "shield.db", limit="100") as guard:
        guard.spend("30", ["customer:c-1"])
    monkeypatch.setenv("KIKI_DATA_DIR", str(folder))
    monkeypatch.setenv("KIKI_REDIS", "off")
    return folder


def test_a_ledger_in_good_order(data: Path):
    found = states()
    assert "fail" not in found.values()
    for name in ("settings", "disk", "key store", "data directory", "master key", "checkpoints", "tree", "clock"):
        assert "ok" == found[name]
    assert {"archive", "anchors", "master key's place"} == {name for name, state in found.items() if state == "warn"}
    result = run()
    assert (0, True) == (result.exit_code, "entries has the signed root" in result.stdout)
    assert "→ set KIKI_ARCHIVE to a bucket with object lock" in result.stdout


def test_what_could_not_be_looked_at_is_not_called_well(data: Path, monkeypatch):
    monkeypatch.setenv("KIKI_MASTER_KEY", (data / "master.key").read_text().strip())
    found, result = states(), run()
    assert ["skip"] * 2 == [found[name] for name in ("master key", "master key's place")]
    assert (0, True) == (result.exit_code, "\nskip  master key " in result.stdout)


def test_before_the_first_start_there_is_nothing_to_fail(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "none"))
    result = run()
    assert (0, True) == (result.exit_code, "a first start makes it" in result.stdout)
    assert [] == list(tmp_path.iterdir())


def test_a_place_that_nothing_can_be_made_in_fails_before_the_first_start(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "file" / "data"))
    result = run()
    assert (1, False) == (result.exit_code, "a first start makes it" in result.stdout)
    assert f"cannot be written to: {tmp_path / 'file'} is no directory; name another" in result.stdout


@pytest.mark.parametrize(
    ("break_it", "name"),
    [
        (lambda data: data.chmod(0o755), "data directory"),
        (lambda data: (data / "master.key").chmod(0o644), "master key"),
        (lambda data: (data / "master.key").unlink(), "key store"),
        (lambda data: (data / "master.key").write_text("ab" * 32), "key store"),
        (lambda data: (data / "shield.db").write_bytes(b"garbage" * 1000), "ledger"),
    ],
)
def test_what_is_broken_fails_with_1(data: Path, break_it, name: str):
    break_it(data)
    result = run("--json")
    (found,) = [each for each in json.loads(result.stdout)["checks"] if each["name"] == name]
    assert (1, "fail", True) == (result.exit_code, found["state"], bool(found["advice"]))


def test_every_wrong_setting_is_a_line(data: Path, monkeypatch):
    monkeypatch.setenv("MAX_BURST_BUDGET", "much")
    monkeypatch.setenv("KIKI_NONSENSE", "1")
    result = run("--json")
    assert (1, 2) == (result.exit_code, len(json.loads(result.stdout)["checks"]))


def test_a_clock_that_was_set_back(data: Path, monkeypatch):
    monkeypatch.setattr("kiki.clock.wall_micros", lambda: 0)
    assert "fail" == states()["clock"]


def test_a_disk_that_fills_up(monkeypatch, tmp_path: Path):
    class Usage(NamedTuple):
        free: int

    found = []
    for free in (10, 2**29, 2**40):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: Usage(free))
        found.append(checkup.disk(tmp_path).state)
    assert [State.FAIL, State.WARN, State.OK] == found


# -- the archive -------------------------------------------------------------------------------------


def test_an_archive_on_a_disk_has_no_lock(data: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "archive").mkdir()
    monkeypatch.setenv("KIKI_ARCHIVE", str(tmp_path / "archive"))
    found = states()
    assert ("ok", "warn") == (found["archive"], found["archive's lock"])


def test_an_archive_that_cannot_be_reached_fails(data: Path, monkeypatch):
    monkeypatch.setenv("KIKI_ARCHIVE", str(data / "shield.db"))
    assert "fail" in {states()["archive"], states().get("archive's lock")}


class Locked(DirectoryArchive):
    def __init__(self, root: Path, lock: Lock) -> None:
        super().__init__(root)
        self.lock = lock

    def lock_status(self, name: str | None = None) -> Lock:
        return self.lock


def archived(data: Path, monkeypatch, lock: Lock, *, at: int | None = None, shipped_at: int = 1) -> dict[str, Check]:
    """What the doctor says about an archive with this lock and one segment."""
    monkeypatch.setattr(checkup, "open_archive", lambda _: Locked(data, lock))
    store = SqliteStore(data / "shield.db")
    moment = wall_micros() if at is None else at
    store.commit([], [segment_write(Segment(chain="c", first=0, last=1, at=moment, note=b"", shipped_at=shipped_at))])
    found = {check.name: check for check in checkup.archive("x", [store], 10)}
    store.close()
    return found


@pytest.mark.parametrize(
    ("state", "days", "expected", "lasting"),
    [
        ("locked", 10.5, State.OK, State.OK),
        ("locked", 9, State.OK, State.WARN),
        ("locked", 100, State.OK, State.WARN),
        ("bypassable", 10.5, State.WARN, State.OK),
    ],
)
def test_the_lock_lasts_as_long_as_the_retention(data: Path, monkeypatch, state, days, expected, lasting):
    until = to_iso(wall_micros() + round(days * DAY))
    found = archived(data, monkeypatch, Lock(state, "it says so", until))
    assert (expected, lasting) == (found["archive's lock"].state, found["lock and retention"].state)


def test_a_lock_whose_end_has_lost_its_fraction_of_a_second_is_long_enough(data: Path, monkeypatch):
    """Object stores write whole seconds: one of 2557 days would seem to end just before the retention does."""
    at = 1_796_000_000_900_000
    until = to_iso(at + 10 * DAY)[:19] + "Z"
    assert State.OK == archived(data, monkeypatch, Lock("locked", "", until), at=at)["lock and retention"].state
    earlier = to_iso(at + 10 * DAY - 1_000_000)[:19] + "Z"
    assert State.WARN == archived(data, monkeypatch, Lock("locked", "", earlier), at=at)["lock and retention"].state


def test_an_end_of_the_lock_as_other_stores_write_it(data: Path, monkeypatch):
    for until, expected in (("Fri, 01 Jan 2100 00:00:00 GMT", State.WARN), ("some day", State.WARN)):
        found = archived(data, monkeypatch, Lock("locked", "", until))
        assert expected == found["lock and retention"].state
    assert "lock and retention" not in archived(data, monkeypatch, Lock("unknown", "", ""))


def test_segments_that_wait_too_long(data: Path, monkeypatch):
    waiting = archived(data, monkeypatch, Lock("none", ""), at=wall_micros() - 3600 * SECOND, shipped_at=0)
    assert State.WARN == waiting["archive's lag"].state
    assert State.OK == archived(data, monkeypatch, Lock("none", ""), shipped_at=0)["archive's lag"].state


# -- Redis -------------------------------------------------------------------------------------------


def test_a_redis_that_never_drops_budgets(redis):
    address = redis_address(f"127.0.0.1:{redis.port}")
    assert State.OK == checkup.redis(address).state
    for policy, state in (("allkeys-lru", State.FAIL), ("volatile-lru", State.WARN)):
        redis.command(f"CONFIG SET maxmemory-policy {policy}")
        try:
            assert state == checkup.redis(address).state
        finally:
            redis.command("CONFIG SET maxmemory-policy noeviction")


def test_no_redis_on_this_machine_is_fine_and_elsewhere_is_not():
    assert State.OK == checkup.redis(redis_address("127.0.0.1:1")).state
    assert State.FAIL == checkup.redis(redis_address("redis.invalid:6379")).state


# -- later services ----------------------------------------------------------------------------------


def test_other_services_add_groups_of_their_own(data: Path, monkeypatch):
    monkeypatch.setattr(home, "GROUPS", (lambda _: iter([Check("model", State.FAIL, "none", "fit one")]),))
    result = run()
    assert (1, "fail  model  none\n             → fit one\n") == (result.exit_code, result.stdout)


def test_a_policy_that_asks_for_consent_to_a_mistyped_purpose_is_warned_of(data: Path, tmp_path: Path, monkeypatch):
    """Each of its spends would be refused, and nobody could ever consent."""
    file = tmp_path / "budgets.yaml"
    monkeypatch.setenv("KIKI_POLICY_FILE", str(file))
    text = "budgets:\n  - {{name: mail, scope: 'channel:mail', limit: 5, window: 60s, consent: {}}}\n"
    for purpose, expected in (("marketing", "ok"), ("none", "ok"), ("markting", "warn"), ("news", "warn")):
        file.write_text(text.format(purpose))
        assert expected == states()["policy"], purpose
    assert "asks for consent to 'news'" in run().stdout
    monkeypatch.setenv("KIKI_PURPOSES", "news")
    assert "ok" == states()["policy"]
    file.write_text("budgets: 7\n")
    assert "fail" == states()["policy"]
