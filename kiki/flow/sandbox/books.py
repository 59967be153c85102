"""The sandbox's own books, in one SQLite file: accounts, campaigns, what was active when, and every write that arrived.

They know nothing of kiki's books, which is what makes them a judge. What was answered is in them before the answer, and
survives the death of the process. Nothing that is written here is ever taken back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from kiki.clock import Clock, wall_micros
from kiki.errors import Conflict, InvalidInput, NotFound
from kiki.flow.platform import CampaignState, SpendReport, Status
from kiki.flow.sandbox.market import Market, Span, highest_budget
from kiki.flow.sandbox.profile import Profile, profile_of
from kiki.flow.sandbox.quick_time import QuickTime, quick_time

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS world (one INTEGER PRIMARY KEY CHECK (one = 1), time TEXT NOT NULL, seed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    platform TEXT, account TEXT, profile TEXT NOT NULL,
    tokens INTEGER NOT NULL DEFAULT 1, refreshable INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (platform, account)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS campaigns (
    number INTEGER PRIMARY KEY, platform TEXT NOT NULL, account TEXT NOT NULL, name TEXT NOT NULL, spec TEXT NOT NULL,
    status TEXT NOT NULL, budget INTEGER NOT NULL, bid INTEGER, key TEXT NOT NULL, made_at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS campaigns_by_name ON campaigns (platform, account, name);
CREATE TABLE IF NOT EXISTS changes (
    number INTEGER PRIMARY KEY, campaign INTEGER NOT NULL, at INTEGER NOT NULL, active INTEGER NOT NULL, budget INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS changes_by_campaign ON changes (campaign);
CREATE TABLE IF NOT EXISTS effects (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, platform TEXT NOT NULL, account TEXT NOT NULL, key TEXT NOT NULL,
    operation TEXT NOT NULL, campaign INTEGER NOT NULL, value TEXT NOT NULL, changed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS conversions (
    platform TEXT, account TEXT, conversion TEXT, campaign INTEGER NOT NULL, value INTEGER NOT NULL, times INTEGER NOT NULL,
    PRIMARY KEY (platform, account, conversion)) WITHOUT ROWID;
"""

ID_PREFIX: Final = "sbx-"


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign as the books have it."""

    number: int
    platform: str
    account: str
    name: str
    status: Status
    budget: int
    bid: int | None
    key: str
    ends: date | None = None
    """Its last day: the platform bills nothing after it, whatever its status."""

    @property
    def id(self) -> str:
        """Its id for callers."""
        return f"{ID_PREFIX}{self.number}"


class _Schedule(msgspec.Struct, frozen=True):
    """What of a campaign's specification decides about its bills."""

    ends: date | None = None


class Books:
    """One file; used from one thread."""

    def __init__(
        self, path: Path | str, *, first_day: date, day_seconds: float, seed: int = 0, clock: Clock = wall_micros
    ) -> None:
        """Opens or begins the books; time and seed of books that exist stay as they are. `:memory:` keeps nothing."""
        self._clock = clock
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(5000)
        # NORMAL in WAL mode loses nothing when the process is killed, only when the machine is.
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"):
            self._db.execute(statement)
        self._db.execute(_SCHEMA)
        begun = quick_time(first_day, day_seconds, clock())
        self._db.execute("INSERT OR IGNORE INTO world VALUES (1, ?, ?)", (_text(begun), seed))
        time, self._seed = self._ask("SELECT time, seed FROM world")[0]
        self._time = msgspec.json.decode(time, type=QuickTime)
        self._latest = 0

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # -- time ----------------------------------------------------------------------------------------

    @property
    def time(self) -> QuickTime:
        """How time passes here."""
        return self._time

    def now(self) -> int:
        """The sandbox's moment; it never runs backwards while the sandbox runs."""
        self._latest = max(self._latest, self._clock() + self._time.skipped)
        return self._latest

    def skip(self, micros: int) -> None:
        """Let time pass at once; raises `InvalidInput`."""
        if not 0 <= micros <= 366 * self._time.day_micros:
            raise InvalidInput("time can be skipped forwards only, and by 366 days at most")
        self._keep(msgspec.structs.replace(self._time, skipped=self._time.skipped + micros))

    def begin_time(self, first_day: date, day_seconds: float) -> None:
        """Let time begin anew; raises `Conflict` once there are campaigns."""
        begun = quick_time(first_day, day_seconds, self._clock())
        if self._ask("SELECT 1 FROM campaigns LIMIT 1"):
            raise Conflict("the sandbox has campaigns already; its time cannot begin anew")
        self._keep(begun)
        self._latest = 0

    def _keep(self, time: QuickTime) -> None:
        self._db.execute("UPDATE world SET time = ?", (_text(time),))
        self._time = time

    # -- accounts ------------------------------------------------------------------------------------

    def open_account(self, platform: str, account: str, changes: dict[str, Any], *, replace: bool = False) -> Profile:
        """The account's profile, which is made if there is none; raises `InvalidInput`."""
        made = profile_of(platform, changes)
        verb = "ON CONFLICT DO UPDATE SET profile = excluded.profile" if replace else "ON CONFLICT DO NOTHING"
        self._db.execute(
            f"INSERT INTO accounts (platform, account, profile) VALUES (?, ?, ?) {verb}",  # noqa: S608  # one of two texts above
            (platform, account, _text(made)),
        )
        return self.profile(platform, account)

    def profile(self, platform: str, account: str) -> Profile:
        """How an account behaves; raises `NotFound`."""
        return msgspec.json.decode(self._account(platform, account)[0], type=Profile)

    def access(self, platform: str, account: str) -> tuple[int, bool]:
        """The number of the access token in force, and whether the refresh token still gives new ones."""
        _, tokens, refreshable = self._account(platform, account)
        return tokens, bool(refreshable)

    def revoke(self, platform: str, account: str, *, refreshable: bool) -> None:
        """Make the access token in force void; `refreshable` says whether there is a way to another."""
        self._account(platform, account)
        self._db.execute(
            "UPDATE accounts SET tokens = tokens + 1, refreshable = ? WHERE platform = ? AND account = ?",
            (refreshable, platform, account),
        )

    def _account(self, platform: str, account: str) -> tuple[Any, ...]:
        found = self._ask(
            "SELECT profile, tokens, refreshable FROM accounts WHERE platform = ? AND account = ?", platform, account
        )
        if not found:
            raise NotFound(f"{platform[:60]} has no account {account[:60]!r}")
        return found[0]

    # -- writes --------------------------------------------------------------------------------------

    def create(self, platform: str, account: str, spec: dict[str, Any], key: str) -> Campaign:
        """Make a campaign, paused. Raises `Conflict` when the platform has unique names and this one is taken."""
        profile = self.profile(platform, account)
        made = self._by("key = ? AND key != ''", platform, account, key) if profile.honours_keys else []
        with self._db:
            if made:
                campaign = made[0]
            elif profile.unique_names and self._by("name = ? AND status != 'ended'", platform, account, spec["name"]):
                raise Conflict(f"there is a campaign {spec['name'][:80]!r} already")
            else:
                self._db.execute(
                    "INSERT INTO campaigns (platform, account, name, spec, status, budget, bid, key, made_at)"
                    " VALUES (?, ?, ?, ?, 'paused', ?, ?, ?, ?)",
                    (
                        *(platform, account, spec["name"], json.dumps(spec)),
                        *(spec["daily_budget"], spec.get("bid"), key, self.now()),
                    ),
                )
                campaign = self._numbered(self._db.last_insert_rowid())
                self._change(campaign)
            self._effect(campaign, "create", campaign.name, key, changed=not made)
        return campaign

    def change(self, campaign: Campaign, field: str, value: str | int, key: str) -> Campaign:
        """Set a campaign's `status`, `budget` or `bid`; raises `Conflict` when it has ended."""
        with self._db:
            before = self._numbered(campaign.number)
            if before.status is Status.ENDED and value != Status.ENDED:
                raise Conflict("the campaign has ended")
            column = {"status": "status", "budget": "budget", "bid": "bid"}[field]
            self._db.execute(
                f"UPDATE campaigns SET {column} = ? WHERE number = ?",  # noqa: S608  # one of three names above
                (value, campaign.number),
            )
            after = self._numbered(campaign.number)
            if (before.status, before.budget) != (after.status, after.budget):
                self._change(after)
            self._effect(after, f"set_{field}", value, key, changed=before != after)
        return after

    def convert(self, campaign: Campaign, conversions: Sequence[tuple[str, int]], key: str) -> None:
        """Take what conversions, by order, were worth; a repeat of an order sets its worth again."""
        with self._db:
            for conversion, value in conversions:
                self._db.execute(
                    "INSERT INTO conversions VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE"
                    " SET value = excluded.value, times = times + 1",
                    (campaign.platform, campaign.account, conversion, campaign.number, value),
                )
            self._effect(campaign, "values", len(conversions), key, changed=bool(conversions))

    def _change(self, campaign: Campaign) -> None:
        self._db.execute(
            "INSERT INTO changes (campaign, at, active, budget) VALUES (?, ?, ?, ?)",
            (campaign.number, self.now(), campaign.status is Status.ACTIVE, campaign.budget),
        )

    def _effect(self, campaign: Campaign, operation: str, value: str | int, key: str, *, changed: bool) -> None:
        self._db.execute(
            "INSERT INTO effects (at, platform, account, key, operation, campaign, value, changed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(self.now(), campaign.platform, campaign.account, key),
                *(operation, campaign.number, json.dumps(value), changed),
            ),
        )

    # -- reads ---------------------------------------------------------------------------------------

    def campaign(self, platform: str, account: str, given: str) -> Campaign:
        """The campaign with that id; raises `NotFound`."""
        number = given.removeprefix(ID_PREFIX)
        if number.isascii() and number.isdigit() and len(number) < 16:
            found = self._by("number = ?", platform, account, int(number))
            if found:
                return found[0]
        raise NotFound(f"the account has no campaign {given[:60]!r}")

    def named(self, platform: str, account: str, name: str) -> list[Campaign]:
        """All campaigns of that name, the oldest first."""
        return self._by("name = ?", platform, account, name)

    def state(self, campaign: Campaign) -> CampaignState:
        """A campaign as callers see it."""
        return CampaignState(
            id=campaign.id,
            name=campaign.name,
            status=campaign.status,
            daily_budget=campaign.budget,
            bid=campaign.bid,
            currency=self.profile(campaign.platform, campaign.account).currency,
            account=campaign.account,
        )

    def report(self, campaign: Campaign, day: date) -> SpendReport:
        """What the platform says by now that a day has cost."""
        profile = self.profile(campaign.platform, campaign.account)
        market, spans, (begins, ends) = self._market(campaign, profile), self._spans(campaign), self._day(profile, day)
        now = self.now()
        final = now >= ends + self._time.span(profile.report_hours)
        spent = market.billed(spans, day, begins, ends, now - self._time.span(profile.report_lag_hours))
        if now >= ends + self._time.span(profile.revision_hours):
            spent = market.corrected(spent, highest_budget(spans, begins, ends), profile.revision, day)
        impressions, clicks, conversions, value = market.response(spent)
        return SpendReport(
            day=day,
            spent=spent,
            impressions=impressions,
            clicks=clicks,
            conversions=conversions,
            value=value,
            final=final,
        )

    # -- the truth -----------------------------------------------------------------------------------

    def truth(self) -> dict[str, Any]:
        """Everything, for whoever judges: campaigns with their bills a day, and what arrived under every key."""
        every = self._rows("SELECT * FROM campaigns ORDER BY number")
        return {
            "now": self.now(),
            "campaigns": [self._whole_truth(campaign) for campaign in every],
            "duplicates": self._duplicates(),
            "effects": self._effects(),
            "conversions": [
                dict(zip(("platform", "account", "order", "value", "times"), row, strict=True))
                for row in self._ask(
                    "SELECT platform, account, conversion, value, times FROM conversions ORDER BY 1, 2, 3"
                )
            ],
        }

    def _whole_truth(self, campaign: Campaign) -> dict[str, Any]:
        profile = self.profile(campaign.platform, campaign.account)
        market, spans = self._market(campaign, profile), self._spans(campaign)
        bills = {str(day): self._bill(market, spans, profile, day) for day in self._days(profile, spans)}
        return {
            "platform": campaign.platform,
            **msgspec.to_builtins(self.state(campaign)),
            "bills": bills,
            "billed": sum(bill["billed"] for bill in bills.values()),
        }

    def _bill(self, market: Market, spans: Sequence[Span], profile: Profile, day: date) -> dict[str, int]:
        begins, ends = self._day(profile, day)
        highest = highest_budget(spans, begins, min(ends, self.now()))
        billed = market.billed(spans, day, begins, ends, self.now())
        if self.now() >= ends + self._time.span(profile.revision_hours):
            billed = market.corrected(billed, highest, profile.revision, day)
        return {"billed": billed, "budget": highest, "most": market.most(highest)}

    def _days(self, profile: Profile, spans: Sequence[Span]) -> Iterator[date]:
        """The days on which a campaign was active."""
        seen: set[date] = set()
        for span in spans:
            day = self._time.day_at(profile.time_zone, span.since)
            while self._day(profile, day)[0] < min(span.until, self.now()):
                if day not in seen:
                    yield day
                seen.add(day)
                day += timedelta(days=1)

    def _duplicates(self) -> list[dict[str, Any]]:
        """Names that more than one campaign bears."""
        rows = self._ask(
            "SELECT platform, account, name, count(*) FROM campaigns WHERE status != 'ended'"
            " GROUP BY platform, account, name HAVING count(*) > 1 ORDER BY 1, 2, 3"
        )
        return [dict(zip(("platform", "account", "name", "times"), row, strict=True)) for row in rows]

    def _effects(self) -> list[dict[str, Any]]:
        """By key: what it did, how often it arrived, and how often that changed anything."""
        rows = self._ask(
            "SELECT platform, account, key, group_concat(DISTINCT operation), group_concat(DISTINCT campaign),"
            " json_group_array(DISTINCT json(value)), count(*), sum(changed)"
            " FROM effects GROUP BY platform, account, key ORDER BY min(number)"
        )
        names = ("platform", "account", "key", "operation", "campaign", "values", "deliveries", "changes")
        effects = [dict(zip(names, row, strict=True)) for row in rows]
        for effect in effects:
            effect["values"] = json.loads(effect["values"])
            effect["campaign"] = ",".join(ID_PREFIX + number for number in str(effect["campaign"]).split(","))
        return effects

    # -- below ---------------------------------------------------------------------------------------

    def _market(self, campaign: Campaign, profile: Profile) -> Market:
        whose = f"{campaign.platform}/{campaign.account}/{campaign.name}"
        return Market(self._seed, whose, profile.demand, profile.overdelivery, profile.unit)

    def _day(self, profile: Profile, day: date) -> tuple[int, int]:
        calendar = self._time.calendar(profile.time_zone)
        return calendar.start_of(day), calendar.start_of(day + timedelta(days=1))

    def _spans(self, campaign: Campaign) -> list[Span]:
        rows = self._ask("SELECT at, active, budget FROM changes WHERE campaign = ? ORDER BY number", campaign.number)
        over = self._over(campaign)
        ends = [min(row[0], over) for row in rows[1:]] + [over]
        return [
            Span(at, until, budget)
            for (at, active, budget), until in zip(rows, ends, strict=True)
            if active and at < until
        ]

    def _over(self, campaign: Campaign) -> int:
        if campaign.ends is None:
            return 2**62
        return self._day(self.profile(campaign.platform, campaign.account), campaign.ends)[1]

    def _numbered(self, number: int) -> Campaign:
        return self._rows("SELECT * FROM campaigns WHERE number = ?", number)[0]

    def _by(self, condition: str, platform: str, account: str, value: str | int) -> list[Campaign]:
        return self._rows(
            f"SELECT * FROM campaigns WHERE platform = ? AND account = ? AND {condition} ORDER BY number",  # noqa: S608  # a text of ours
            *(platform, account, value),
        )

    def _rows(self, statement: str, *values: Any) -> list[Campaign]:
        return [
            Campaign(
                number=number,
                platform=platform,
                account=account,
                name=name,
                status=Status(status),
                budget=budget,
                bid=bid,
                key=key,
                ends=msgspec.json.decode(spec, type=_Schedule).ends,
            )
            for number, platform, account, name, spec, status, budget, bid, key, _ in self._ask(statement, *values)
        ]

    def _ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(statement, values).fetchall()


def _text(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
