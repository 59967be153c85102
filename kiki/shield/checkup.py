"""Whether the surroundings of a ledger are as they should be: what `kiki doctor` looks at. Reads, and changes nothing.

Each check answers in a line, with what to do when something is amiss. What the compliance report claims is looked at by the
same probes as there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from kiki.clock import SECOND, to_iso, wall_micros
from kiki.errors import KikiError
from kiki.ledger.archive import Lock, open_archive
from kiki.ledger.exhibit import chain_id, verifier_key
from kiki.ledger.retention import SEVEN_YEARS_DAYS, kept_until
from kiki.ledger.segment import SEGMENTS, Segment, read_segment
from kiki.ledger.store import Reader
from kiki.settings import RedisAddress
from kiki.shield import probe
from kiki.shield.compliance_report import Probe, Verdict
from kiki.shield.consent_words import parse_purposes
from kiki.shield.opening import read_policy
from kiki.shield.policy import NO_CONSENT
from kiki.shield.probe import Surroundings

DISK_LOW_BYTES: Final = 1 << 30
DISK_FULL_BYTES: Final = 100 << 20
LAG_SECONDS: Final = 900
LOCK_SPARE_DAYS: Final = 31
"""A bucket may hold segments so much longer than their retention before that is worth a word."""
_DAY: Final = 86_400 * SECOND
_REDIS_SECONDS: Final = 2.0


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works; somebody should know about it."""
    FAIL = "fail"
    SKIP = "skip"
    """It could not be looked at, so it says nothing."""


class Check(msgspec.Struct, frozen=True):
    """What one check found, and what to do about it."""

    name: str
    state: State
    said: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """For machines."""
        return {"name": self.name, "state": self.state, "said": self.said, "advice": self.advice}


def tried(name: str, look: Callable[[], Check]) -> Check:
    """What a check says; one that breaks has failed."""
    try:
        return look()
    except (KikiError, OSError) as error:
        return Check(name, State.FAIL, str(error), getattr(error, "hint", None) or "")


# -- the policy --------------------------------------------------------------------------------------------


def policy(file: Path, currency: str, purposes: Iterable[str]) -> Check:
    """The policy can be read, and asks for consent to what somebody can consent to."""
    found = read_policy(file, currency)
    known = {*parse_purposes(purposes), NO_CONSENT, ""}
    for budget in found.budgets:
        if budget.consent not in known:
            said = f"budget {budget.name!r} asks for consent to {budget.consent!r}, to which nobody can consent"
            return Check("policy", State.WARN, said, "correct it, or name the purpose in KIKI_PURPOSES")
    return Check("policy", State.OK, f"{file} has {len(found.budgets)} budgets")


# -- the disk and the key --------------------------------------------------------------------------------


def disk(data_dir: Path) -> Check:
    """There is room to write: a full disk stops every decision."""
    usage = shutil.disk_usage(data_dir)
    said = f"{usage.free / 2**30:.1f} GiB free where {data_dir} lies"
    if usage.free < DISK_FULL_BYTES:
        return Check("disk", State.FAIL, said, "free some space: a ledger that cannot write stops every decision")
    if usage.free < DISK_LOW_BYTES:
        return Check("disk", State.WARN, said, "free some space before it is full: then every decision stops")
    return Check("disk", State.OK, said)


def unlocked(seed: Callable[[], bytes], reader: Reader) -> Check:
    """The master key opens the key store, so the service will start."""
    key = verifier_key(reader, seed())
    return Check("key store", State.OK, f"the master key opens it; checkpoints are signed with {key.split('+')[1]}")


# -- the ledger ------------------------------------------------------------------------------------------

_PROBES: Final = (
    (probe.files, "data directory", State.FAIL),
    (probe.master_key, "master key", State.FAIL),
    (probe.key_apart, "master key's place", State.WARN),
    (probe.checkpoints, "checkpoints", State.WARN),
    (probe.tree, "tree", State.FAIL),
    (probe.sealed, "encryption", State.FAIL),
    (probe.retention, "retention", State.WARN),
    (probe.clock, "clock", State.FAIL),
)


def ledger(around: Surroundings) -> Iterator[Check]:
    """What the probes say that do not need the service itself."""
    for look, name, state in _PROBES:
        yield tried(name, lambda look=look, name=name, state=state: _probed(probe.looked(look, around), name, state))  # type: ignore[misc]  # those of this turn


def _probed(found: Probe, name: str, state: State) -> Check:
    if found.verdict is Verdict.FAILED:
        return Check(name, state, found.said, found.advice)
    return Check(name, State.SKIP if found.verdict is Verdict.SKIPPED else State.OK, found.said)


def witnessed(witness_url: str | None, tsa_url: str | None) -> Check:
    """Somebody outside saw the checkpoints."""
    if witness_url is None and tsa_url is None:
        return Check(
            "anchors",
            State.WARN,
            "no witness and no timestamp service see the checkpoints",
            "set KIKI_WITNESS_URL or KIKI_TSA_URL: without them, whoever holds all keys could write another history, and "
            "only those who kept an older checkpoint would notice",
        )
    seen = [name for name, url in (("a witness", witness_url), ("a timestamp service", tsa_url)) if url is not None]
    return Check(
        "anchors", State.OK, f"{' and '.join(seen)} should see the checkpoints; kiki audit verify says which did"
    )


# -- the archive -----------------------------------------------------------------------------------------


def archive(location: str | None, readers: list[Reader], retention_days: int) -> Iterator[Check]:
    """It can be reached, has what it should have, and its lock lasts as long as the retention."""
    if location is None:
        yield Check(
            "archive",
            State.WARN,
            "sealed segments are archived nowhere",
            "set KIKI_ARCHIVE to a bucket with object lock: without it, whoever may write to this disk can remove evidence",
        )
        return
    try:
        place = open_archive(location)
        held = next(iter(place.list()), None)
    except KikiError as error:
        yield Check("archive", State.FAIL, str(error), error.hint or "")
        return
    shipped = [found for reader in readers if (found := _last_shipped(reader)) is not None]
    yield Check("archive", State.OK, "it can be reached" if held else "it can be reached, and holds nothing yet")
    yield from (tried("archive's lag", lambda reader=reader: _lag(reader)) for reader in readers)  # type: ignore[misc]  # the one of this turn
    newest = max(shipped, key=lambda segment: segment.at, default=None)
    try:
        lock = place.lock_status(None if newest is None else newest.name)
    except KikiError as error:
        yield Check("archive's lock", State.FAIL, str(error), error.hint or "")
        return
    yield _locked(lock)
    if newest is not None and lock.until:
        yield tried("lock and retention", lambda: _lasting(lock, newest, retention_days))


def _segments(reader: Reader) -> Iterator[Segment]:
    chain = chain_id(reader)
    for key, value in reader.scan(SEGMENTS):
        yield read_segment(chain, key, value)


def _last_shipped(reader: Reader) -> Segment | None:
    found = None
    for segment in _segments(reader):
        found = segment if segment.is_shipped else found
    return found


def _lag(reader: Reader) -> Check:
    waiting = [segment for segment in _segments(reader) if not segment.is_shipped]
    if not waiting:
        return Check("archive's lag", State.OK, f"every segment of chain {chain_id(reader)} was confirmed")
    age = (wall_micros() - waiting[0].at) // SECOND
    said = f"{len(waiting)} segments of chain {chain_id(reader)} wait, the oldest for {age} s"
    if age > LAG_SECONDS:
        return Check("archive's lag", State.WARN, said, "see in the service's log why they are not taken")
    return Check("archive's lag", State.OK, said)


def _locked(lock: Lock) -> Check:
    if lock.state == "locked":
        return Check("archive's lock", State.OK, f"{lock.detail}, until {lock.until}")
    advice = {
        "bypassable": "use COMPLIANCE (S3) or lock the policy (Azure, Google) once you are sure of the retention",
        "none": "give the bucket a default retention, in a mode that nobody can shorten",
        "unknown": "look at it by hand",
    }
    return Check("archive's lock", State.WARN, f"{lock.state}: {lock.detail}", advice[lock.state])


def _lasting(lock: Lock, segment: Segment, retention_days: int) -> Check:
    name = "lock and retention"
    until = _moment(lock.until)
    if until is None:
        return Check(name, State.WARN, f"the lock's end, {lock.until!r}, cannot be read", "compare it by hand")
    wanted = kept_until(segment.at, retention_days, seven_years=retention_days >= SEVEN_YEARS_DAYS)
    said = f"the lock on {segment.name} ends {to_iso(until)[:10]}, the retention {to_iso(wanted)[:10]}"
    if until + SECOND <= wanted:  # stores write whole seconds
        return Check(name, State.WARN, said, "lengthen the bucket's default retention")
    if until > wanted + LOCK_SPARE_DAYS * _DAY:
        return Check(name, State.WARN, said, "what is locked longer than its retention cannot be removed in time")
    return Check(name, State.OK, said)


def _moment(text: str) -> int | None:
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return round(parse(text).timestamp() * SECOND)
        except ValueError:
            continue
    return None


# -- the shared window -----------------------------------------------------------------------------------


def redis(address: RedisAddress) -> Check:
    """The Redis that holds the budgets answers, and never drops them for want of memory."""
    from kiki.shield.redis_connection import RedisConnection

    name = "redis"
    connection = RedisConnection(address, _REDIS_SECONDS)
    try:
        with closing(connection):
            connection.open("kiki")
            info: bytes = connection.call("INFO", "memory")
    except KikiError as error:
        if address.is_loopback:
            return Check(
                name, State.OK, f"there is none at {address.shown()}: budgets are counted in the process alone"
            )
        return Check(name, State.FAIL, str(error), error.hint or "start it, or set KIKI_REDIS=off for a single process")
    lines = dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)
    policy = lines.get("maxmemory_policy", "unknown").strip()
    if policy.startswith("allkeys-"):
        return Check(
            name, State.FAIL, f"{address.shown()} may drop budgets: its eviction policy is {policy}",
            "set maxmemory-policy noeviction",
        )  # fmt: skip
    if policy != "noeviction":
        return Check(
            name, State.WARN, f"{address.shown()} has the eviction policy {policy}",
            "noeviction is what it is made for; volatile-* does no harm",
        )  # fmt: skip
    return Check(name, State.OK, f"{address.shown()} answers, eviction policy {policy}")
