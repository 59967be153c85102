"""Probes: what the compliance report claims about this ledger, looked at just now. Reads, and changes nothing.

Each one is a function from `Surroundings` to a `Probe`. It passes only on what it has really seen, and says `skipped` where
what it looks at is not there: such a probe counts neither for nor against.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.errors import KikiError, Unreadable
from kiki.ledger.checkpoint import VerifierKey, log_origin, open_note
from kiki.ledger.entry import UNDECODABLE, Entry, decode_entry
from kiki.ledger.ledger import CHECKPOINTS
from kiki.ledger.merkle import Tree, peaks_of
from kiki.ledger.retention import SEVEN_YEARS_DAYS, kept_until
from kiki.ledger.shipper import Lag
from kiki.ledger.store import Reader
from kiki.ledger.subjects import Subjects
from kiki.ledger.tiling import TileReader
from kiki.shield.compliance_report import Probe, RequestLine, Verdict
from kiki.shield.evidence import chain_of
from kiki.shield.fact import Decided, Settled, decode_fact
from kiki.shield.scope import PERSONAL_PREFIXES, is_reference

CHECKPOINT_AGE_MAX: Final = 300 * SECOND
ARCHIVE_LAG_SECONDS_MAX: Final = 900.0
PRUNING_GRACE: Final = 31 * 86_400 * SECOND
CLOCK_AHEAD_MAX: Final = 60 * SECOND
_LATEST: Final = 500
_TEXT_LENGTH_MIN: Final = 4
"""Shorter values stand in random bytes by chance."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Surroundings(NamedTuple):
    """What the probes look at. None: there is none, or whoever asks cannot see it."""

    reader: Reader
    """Of the chain of whoever asks."""
    now: int
    """By the ledger's own clock, in microseconds since the epoch."""
    wall: int
    """By the wall clock."""
    retention_days: int
    requests: Sequence[RequestLine] = ()
    subjects: Subjects | None = None
    verifier_key: str | None = None
    failure: str | None = None
    """Why the ledger takes nothing any more."""
    on_hold: bool = False
    """A legal hold on everything stops pruning."""
    data_dir: Path | None = None
    master_key_file: Path | None = None
    lag: Lag | None = None
    has_archive: bool = False
    others: Sequence[Reader] = ()
    """Of the chains that other replicas write into the same store."""


def look_around(around: Surroundings) -> list[Probe]:
    """Every probe, in the order of the report; what is true of one chain only, for all of them together."""
    return [looked(probe, around) for probe in PROBES]


def looked(probe: Callable[[Surroundings], Probe], around: Surroundings) -> Probe:
    """One probe; what is true of one chain only, for all of them together.

    It failed where it failed for any chain, and is skipped where it could run for none; each chain is named.
    """
    if not around.others or probe not in _OF_A_CHAIN:
        return _tried(probe, around)
    found = [
        (chain_of(reader), _tried(probe, around._replace(reader=reader))) for reader in (around.reader, *around.others)
    ]
    verdicts = {each.verdict for _, each in found}
    verdict = next(each for each in (Verdict.FAILED, Verdict.PASSED, Verdict.SKIPPED) if each in verdicts)
    told = [(chain, each) for chain, each in found if each.verdict is verdict]
    said = "; ".join(f"chain {chain}: {each.said}" for chain, each in told)
    return _probe(probe, verdict, said, told[0][1].advice)


def _tried(probe: Callable[[Surroundings], Probe], around: Surroundings) -> Probe:
    """A probe that breaks is one that failed: what it looks at is not as it should be."""
    try:
        return probe(around)
    except (KikiError, OSError) as error:
        name = probe.__name__
        return Probe(
            name=name,
            controls=_CONTROLS[name],
            verdict=Verdict.FAILED,
            said=f"the probe {name} could not be completed: {error}",
            advice="look into this first; the log of the service has more",
        )


def accepting(around: Surroundings) -> Probe:
    """The ledger takes entries: every decision is durable before it is answered."""
    if around.failure is not None:
        return _failed(
            accepting, f"the ledger takes no entries: {around.failure}", "mend the disk and restart the service"
        )
    count = around.reader.next_seq()
    if not count:
        return _skipped(accepting, "the ledger holds no entry yet")
    return _passed(accepting, f"Every decision is a durable entry before it is answered; the ledger holds {count}")


def sealed(around: Surroundings) -> Probe:
    """What is personal is sealed: references where persons are named, and nothing of what was sealed in clear."""
    end = around.reader.next_seq()
    looked = opened = 0
    for _, body in around.reader.entries(max(around.reader.first_seq(), end - _LATEST)):
        entry = decode_entry(body)
        looked += 1
        named = [scope for scope in _scopes(entry) if not is_reference(scope.partition(":")[2])]
        if named:
            kind = named[0].partition(":")[0]
            return _failed(sealed, f"entry {entry.seq} names a {kind} in clear", "stop the service and report this")
        for text in _opened(entry, around.subjects):
            opened += 1
            if any(value in body for value in text):
                return _failed(
                    sealed, f"entry {entry.seq} holds what it seals in clear, too", "stop the service and report this"
                )
    if not looked:
        return _skipped(sealed, "the ledger holds no entry yet")
    seen = f"of the latest {looked} entries none names a person in clear"
    if opened:
        seen += f", and what is sealed in them ({opened} parts read) stands nowhere in clear"
    return _passed(sealed, f"Personal data is encrypted at rest: {seen}")


def _scopes(entry: Entry) -> list[str]:
    fact = decode_fact(entry)
    given = fact.scopes if isinstance(fact, Decided | Settled) else []
    return [scope for scopes in given for scope in scopes if scope.startswith(PERSONAL_PREFIXES)]


def _opened(entry: Entry, subjects: Subjects | None) -> list[list[bytes]]:
    """The texts that are sealed in an entry, as far as their keys are there."""
    found: list[list[bytes]] = []
    for part in entry.sealed if subjects is not None else ():
        assert subjects is not None
        try:
            text = msgspec.msgpack.decode(subjects.open(part))
        except (Unreadable, *UNDECODABLE):
            continue
        values = text.values() if isinstance(text, dict) else ()
        found.append([each.encode() for each in values if isinstance(each, str) and len(each) >= _TEXT_LENGTH_MIN])
    return found


def master_key(around: Surroundings) -> Probe:
    """The file of the master key is there, and only its owner may read or change it."""
    from kiki.ledger.master_key import KeySource

    if around.master_key_file is None:
        return _skipped(master_key, "the master key does not come from a file")
    if KeySource(file=around.master_key_file).read() is None:
        return _failed(
            master_key, "the file of the master key is missing", "put it back from your secret store or backup"
        )
    return _passed(master_key, "The master key's file can be read by its owner only")


def key_apart(around: Surroundings) -> Probe:
    """The master key does not lie beside what it opens: a copy of the one is no copy of the other."""
    if around.master_key_file is None or around.data_dir is None:
        return _skipped(key_apart, "the master key does not come from a file, or the ledger lies in no directory")
    if around.master_key_file.resolve().parent == around.data_dir.resolve():
        return _failed(
            key_apart,
            "the master key lies beside the ledger, so whoever copies the directory has both",
            "move it to a secret store, or to another volume, and name it with KIKI_MASTER_KEY_FILE",
        )
    return _passed(key_apart, "The master key lies apart from the ledger")


def files(around: Surroundings) -> Probe:
    """Nobody but the service may look into the data directory."""
    if around.data_dir is None:
        return _skipped(files, "the ledger lies in no directory")
    mode = around.data_dir.stat().st_mode
    if mode & _OTHERS:
        return _failed(
            files,
            f"the data directory has mode {stat.S_IMODE(mode):04o}: others may look into it",
            f"close it with: chmod 700 {around.data_dir}",
        )
    return _passed(files, "The data directory is open to its owner only")


def checkpoints(around: Surroundings) -> Probe:
    """Entries are covered by a signed checkpoint soon after they were written."""
    reader, end = around.reader, around.reader.next_seq()
    if not end:
        return _skipped(checkpoints, "the ledger holds no entry yet")
    latest = reader.last(CHECKPOINTS)
    size = 0 if latest is None else int.from_bytes(latest[0], "big")
    if size < end:
        oldest = next((decode_entry(body).recorded_at for _, body in reader.entries(size, size)), around.now)
        if around.now - oldest > CHECKPOINT_AGE_MAX:
            return _failed(
                checkpoints,
                f"entries since {to_iso(oldest)} are covered by no signed checkpoint",
                "sign one with: kiki audit seal",
            )
    return _passed(checkpoints, f"Signed checkpoints cover the ledger: the latest covers {size} of {end} entries")


def tree(around: Surroundings) -> Probe:
    """The latest checkpoint is signed by this ledger's key, and the stored tree has the root that was signed."""
    latest = around.reader.last(CHECKPOINTS)
    if latest is None or around.verifier_key is None:
        return _skipped(tree, "there is no checkpoint yet, or no key to check it with")
    key = VerifierKey.parse(around.verifier_key)._replace(name=log_origin(chain_of(around.reader)))
    checkpoint, _ = open_note(latest[1], key)
    peaks = peaks_of(TileReader(around.reader, checkpoint.size).node, checkpoint.size)
    if Tree(checkpoint.size, peaks).root() != checkpoint.root:
        return _failed(
            tree, "the ledger's tree does not have the root that was signed", "find the place with: kiki audit verify"
        )
    return _passed(
        tree, f"The log is protected against alteration: the tree over {checkpoint.size} entries has the signed root"
    )


def archive(around: Surroundings) -> Probe:
    """Sealed segments reach the archive."""
    lag = around.lag
    if lag is None:
        why = (
            "nobody who knows the archive was asked"
            if around.has_archive
            else "no archive is configured (KIKI_ARCHIVE)"
        )
        return _skipped(archive, why)
    if lag.set_aside:
        return _failed(archive, f"the archive refuses {lag.set_aside} segments", "look at them with: kiki doctor")
    if lag.oldest_seconds > ARCHIVE_LAG_SECONDS_MAX:
        return _failed(
            archive,
            f"the archive is {lag.oldest_seconds:.0f} seconds behind",
            "see whether it can be reached: kiki doctor",
        )
    return _passed(archive, "Sealed segments of the log reach the archive within 15 minutes")


def requests(around: Surroundings) -> Probe:
    """No request of a person is past its due date."""
    now = to_iso(around.now)
    waiting = [line for line in around.requests if line.is_open]
    late = [line for line in waiting if line.is_overdue(now)]
    if late:
        return _failed(
            requests,
            f"{len(late)} of {len(waiting)} open requests are past their due date, first of all {late[0].request}",
            "run them, or refuse them with reasons: kiki dsr list",
        )
    return _passed(requests, f"No request of a person is past its statutory due date; {len(waiting)} are open")


def retention(around: Surroundings) -> Probe:
    """Nothing is kept beyond its retention."""
    reader, days = around.reader, around.retention_days
    if not reader.next_seq():
        return _skipped(retention, "the ledger holds no entry yet")
    first = reader.first_seq()
    oldest = next(decode_entry(body).recorded_at for _, body in reader.entries(first, first))
    until = kept_until(oldest, days, seven_years=days >= SEVEN_YEARS_DAYS)
    if around.now > until + PRUNING_GRACE and not around.on_hold:
        return _failed(
            retention,
            f"the oldest entry is of {to_iso(oldest)}, beyond the retention of {days} days",
            "see in the log why it was not pruned",
        )
    held = "; a legal hold keeps everything" if around.on_hold else ""
    return _passed(retention, f"Nothing is kept beyond the retention of {days} days{held}")


def clock(around: Surroundings) -> Probe:
    """The clock stands at no moment before the last entry."""
    end = around.reader.next_seq()
    if not end:
        return _skipped(clock, "the ledger holds no entry yet")
    latest = next(decode_entry(body).recorded_at for _, body in around.reader.entries(end - 1, end - 1))
    if latest > around.wall + CLOCK_AHEAD_MAX:
        return _failed(
            clock,
            f"the last entry is of {to_iso(latest)}, and the clock says {to_iso(around.wall)}",
            "set the clock: use NTP",
        )
    return _passed(clock, "The clock agrees with the log")


_CONTROLS: Final = {
    "accepting": "ISO/IEC 27001 A.12.4.1 (2013), A.8.15 (2022); GDPR 5(2)",
    "sealed": "ISO/IEC 27001 A.10.1.1, A.18.1.4 (2013), A.8.24, A.5.34 (2022); GDPR 32(1)(a)",
    "master_key": "ISO/IEC 27001 A.10.1.2 (2013), A.8.24 (2022)",
    "key_apart": "ISO/IEC 27001 A.10.1.2 (2013), A.8.24 (2022)",
    "files": "ISO/IEC 27001 A.9.4.1 (2013), A.8.3 (2022); GDPR 32(1)(b)",
    "checkpoints": "ISO/IEC 27001 A.12.4.2 (2013), A.8.15 (2022)",
    "tree": "ISO/IEC 27001 A.12.4.2 (2013), A.8.15 (2022)",
    "archive": "ISO/IEC 27001 A.12.3.1 (2013), A.8.13 (2022)",
    "requests": "ISO/IEC 27001 A.18.1.4 (2013), A.5.34 (2022); GDPR 12(3); CCPA 7021",
    "retention": "ISO/IEC 27001 A.18.1.3 (2013), A.5.33 (2022); GDPR 5(1)(e)",
    "clock": "ISO/IEC 27001 A.12.4.4 (2013), A.8.17 (2022)",
}
PROBES: Final[Sequence[Callable[[Surroundings], Probe]]] = (
    accepting, sealed, master_key, key_apart, files, checkpoints, tree, archive, requests, retention, clock,
)  # fmt: skip
_OF_A_CHAIN: Final = frozenset({sealed, checkpoints, tree, retention, clock})


def _passed(probe: Callable[[Surroundings], Probe], said: str) -> Probe:
    return _probe(probe, Verdict.PASSED, said)


def _failed(probe: Callable[[Surroundings], Probe], said: str, advice: str) -> Probe:
    return _probe(probe, Verdict.FAILED, said, advice)


def _skipped(probe: Callable[[Surroundings], Probe], said: str) -> Probe:
    return _probe(probe, Verdict.SKIPPED, said)


def _probe(probe: Callable[[Surroundings], Probe], verdict: Verdict, said: str, advice: str = "") -> Probe:
    name = probe.__name__
    return Probe(name=name, controls=_CONTROLS[name], verdict=verdict, said=said, advice=advice)
