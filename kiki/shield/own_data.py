"""What kiki itself holds about a person, store by store, as `SubjectData`.

| system | what it holds | what a deletion does |
|---|---|---|
| `consents` | what the person said, sealed under the person's key | takes back what is in force; unreadable with the key |
| `evidence` | decisions that name the person's reference; where calls came from, sealed | unreadable with the key |
| `audit_view` | rows of the CSV with that reference | nothing: the reference leads nowhere once the keys are gone |
| `window` | in Redis, counters under a keyed hash | nothing: they end with the window, at the moment named |
| `packages` | copies made for the person, sealed | destroys the files |
| `keys` | the person's key, name and directory row | destroys them, in the bytes of the files too |

What stays after that names nobody: ciphertext without a key, random references, and a tombstone under a keyed hash,
which keeps an import from bringing the person back (11 CCR 7022 allows such a record).
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from kiki.clock import to_iso
from kiki.errors import SystemUnavailable, Unreadable
from kiki.ledger.entry import Entry, Sealed, decode_entry
from kiki.ledger.retention import SEVEN_YEARS_DAYS, kept_until
from kiki.ledger.store import Reader
from kiki.shield.consent import State
from kiki.shield.consent_csv import COLUMNS as CONSENT_COLUMNS
from kiki.shield.consent_csv import row_of
from kiki.shield.consent_json import record_json
from kiki.shield.consent_record import ConsentRecord
from kiki.shield.consent_store import ConsentStore
from kiki.shield.decider import Decider
from kiki.shield.evidence import chain_of
from kiki.shield.evidence_csv import COLUMNS, csv_line
from kiki.shield.evidence_row import rows
from kiki.shield.fact import ConsentChanged, Decided, Halted, LegalHeld, Noted, RequestChanged, decode_fact
from kiki.shield.replay import reach
from kiki.shield.request_package import SUFFIX, discard_package
from kiki.shield.subject_data import Document, Erased, Found, Task, Verification
from kiki.shield.subject_request import REQUEST, Kept, read_request

EVIDENCE_ARTICLE: Final = "GDPR 17(3)(b)"
SUPPRESSION_ARTICLE: Final = "GDPR 17(3)(b); 11 CCR 7022"
_PERSON_COLUMNS: Final = ("user_id_hash", "customer_id_hash")
_READ_BYTES: Final = 1 << 20
_BREATH_ENTRIES: Final = 512


class _Own:
    """What most of our stores have in common: nothing to correct, nothing to hand over, nothing that depends on others."""

    name = ""
    depends_on: Collection[str] = ()

    def restrict(self, task: Task) -> None:
        """Nothing here is used for any purpose by itself."""

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        """Nothing here describes the person: records of what was said and decided are not corrected afterwards."""
        return 0

    def export(self, task: Task) -> Iterator[Document]:
        """Nothing that another system would not hand over."""
        return iter(())

    def verify(self, task: Task) -> Verification:
        """Nothing of its own to look into."""
        return Verification(0)


class ConsentData(_Own):
    """What the person consented to."""

    name = "consents"

    def __init__(self, store: ConsentStore, retention_days: int) -> None:
        self._store = store
        self._retention_days = retention_days

    def locate(self, task: Task) -> Found:
        """One record for each purpose that the person ever spoke about."""
        return Found(len(self._store.status(task.customer)), ("consents",))

    def restrict(self, task: Task) -> None:
        """Take back what is in force; returns once nobody acts on it any more."""
        for record in self._in_force(task):
            self._store.revoke(task.customer, record.purpose, method="request", note=f"request {task.request}")

    def export(self, task: Task) -> Iterator[Document]:
        """Everything that was said, as ISO/IEC TS 27560 records and as CSV."""
        histories = [self._store.past(record) for record in self._store.status(task.customer).values()]
        if not histories:
            return
        records = [msgspec.json.encode(record_json(history)) for history in histories]
        yield Document("consents.json", [b"[", b",\n".join(records), b"]\n"], len(histories))
        lines = (_csv_line(row_of(past)) for history in histories for past in history)
        yield Document("consents.csv", [_csv_line(CONSENT_COLUMNS), *lines], sum(map(len, histories)))

    def erase(self, task: Task) -> Erased:
        """Nothing goes before the key: then what was said cannot be read any more, and who said it neither.

        What was granted since the restriction is taken back, too.
        """
        self.restrict(task)
        return Erased(0, _unreadable(self._store.decider.clock(), self._retention_days))

    def verify(self, task: Task) -> Verification:
        """Nothing may be in force any more."""
        return Verification(len(self._in_force(task)), len(self._store.purposes))

    def _in_force(self, task: Task) -> list[ConsentRecord]:
        return [
            record
            for record in self._store.status(task.customer).values()
            if record.state is State.GRANTED and (not task.purposes or record.purpose in task.purposes)
        ]


class EvidenceData(_Own):
    """Decisions that concerned the person, and everything else in the ledger that names the reference."""

    name = "evidence"

    def __init__(self, decider: Decider, retention_days: int) -> None:
        self._decider = decider
        self._retention_days = retention_days

    def locate(self, task: Task) -> Found:
        """Entries that name the person's reference, in every chain."""
        classes: dict[str, None] = {}
        records = 0
        for _, entry in self._entries(task.subject):
            fact = decode_fact(entry)
            classes[_CLASSES.get(type(fact), "other")] = None
            records += 1
        return Found(records, tuple(classes))

    def export(self, task: Task) -> Iterator[Document]:
        """What was decided and written down, with where each call came from; as JSON lines and as CSV."""
        for name, head, lines in (
            ("evidence.jsonl", (), self._json_lines(task)),
            ("evidence.csv", (_csv_line(COLUMNS),), self._csv_lines(task)),
        ):
            told = _Told(lines)
            yield Document(name, chain(head, told), told.count)

    def erase(self, task: Task) -> Erased:
        """Nothing goes before the key. The entries stay, and so does every proof over them."""
        return Erased(0, _unreadable(self._decider.clock(), self._retention_days))

    def _entries(self, subject: str) -> Iterator[tuple[Reader, Entry]]:
        # Facts and sealed parts name the person in these bytes only: looking for them is ten times as fast as decoding.
        needles = subject.encode(), bytes.fromhex(subject)
        for reader in self._decider.all_chains():
            for seq, data in reader.entries():
                if seq % _BREATH_ENTRIES == 0:
                    time.sleep(0)  # whoever decides in the same process need not wait for the interpreter
                if needles[0] in data or needles[1] in data:
                    yield reader, decode_entry(data)

    def _json_lines(self, task: Task) -> Iterator[bytes]:
        for reader, entry in self._entries(task.subject):
            origins = [self._opened(sealed) for sealed in entry.sealed if sealed.key_id.hex() == task.subject]
            for row in rows(entry, chain_of(reader)):
                own = f"customer:{task.subject}"
                if task.subject not in {row.customer, *(scope.partition(":")[2] for scope in row.scopes)}:
                    continue  # of a batch, the amounts that concern others
                told = row.as_dict() | {"customer_id": task.customer, "sealed": [one for one in origins if one]}
                # The references of other people in the same decision are none of this person's business.
                told["scopes"] = [s for s in row.scopes if s == own or not s.startswith("customer:")]
                told.pop("actor", None)
                yield msgspec.json.encode(told) + b"\n"

    def _csv_lines(self, task: Task) -> Iterator[bytes]:
        for reader, entry in self._entries(task.subject):
            for row in rows(entry, chain_of(reader)):
                if row.customer == task.subject and row.is_decision:
                    row.actor = ""
                    yield csv_line(row, self._retention_days).encode()

    def _opened(self, sealed: Sealed) -> object:
        try:
            return _plain(msgspec.msgpack.decode(self._decider.subjects.open(sealed)))
        except Unreadable:
            return None


class AuditViewData(_Own):
    """The CSV that people read: it may hold the person's reference, and never the person."""

    name = "audit_view"

    def __init__(self, path: Path, clock: Callable[[], int], retention_days: int) -> None:
        self._path = path
        self._clock = clock
        self._retention_days = retention_days

    def locate(self, task: Task) -> Found:
        """Rows that carry the reference."""
        needle = task.subject.encode()
        return Found(sum(needle in line for line in self._lines()), ("audit rows",))

    def erase(self, task: Task) -> Erased:
        """Nothing: the reference leads to nobody once the directory row is gone."""
        return Erased(
            0,
            [
                Kept(
                    "audit_reference",
                    EVIDENCE_ARTICLE,
                    _kept_until(self._clock(), self._retention_days),
                    readable=False,
                )
            ],
        )

    def verify(self, task: Task) -> Verification:
        """The id itself must stand in no row: neither in the columns about persons, nor as a scope."""
        found = checked = 0
        name, scope = task.customer.encode(), f"customer:{task.customer}"
        places = [COLUMNS.index(column) for column in _PERSON_COLUMNS]
        for line in self._lines():
            checked += 1
            if name in line:
                text = line.decode("utf-8", "replace")
                fields = next(csv.reader([text]), [])
                named = any(fields[place] == task.customer for place in places if place < len(fields))
                found += named or any(scope in field.split() for field in fields)
        return Verification(found, checked)

    def _lines(self) -> Iterator[bytes]:
        for path in sorted(self._path.parent.glob(f"{self._path.stem}*{self._path.suffix}")):
            try:
                with path.open("rb", buffering=_READ_BYTES) as source:
                    yield from source
            except FileNotFoundError:
                continue  # rotated away just now: its new name comes in this walk or the next
            except OSError as error:
                raise SystemUnavailable(f"{path.name} cannot be read: {error.strerror}") from error


class WindowData(_Own):
    """Counters of budgets per customer in a Redis that many share, under a keyed hash of the customer."""

    name = "window"

    def __init__(self, decider: Decider) -> None:
        self._decider = decider

    def locate(self, task: Task) -> Found:
        """Nothing that could be found: the hash is keyed with a secret of the window's own life."""
        return Found(0)

    def erase(self, task: Task) -> Erased:
        """Nothing: taking a counter away would admit spends over its limit. It ends with the window."""
        until = self._decider.clock() + reach(self._decider.books.policy)
        return Erased(0, [Kept("window_hash", EVIDENCE_ARTICLE, until, readable=False)])


class PackageData(_Own):
    """Copies that were made for the person and wait to be taken, sealed under the person's key."""

    name = "packages"

    def __init__(self, decider: Decider, folder: Path) -> None:
        self._decider = decider
        self._folder = folder

    def locate(self, task: Task) -> Found:
        """The copies that lie there."""
        return Found(len(self._of(task)), ("copies",))

    def erase(self, task: Task) -> Erased:
        """Destroy them."""
        return Erased(sum(discard_package(path) for path in self._of(task)))

    def verify(self, task: Task) -> Verification:
        """None may be left."""
        return Verification(len(self._of(task)), 1)

    def _of(self, task: Task) -> list[Path]:
        store, found = self._decider.ledger.store, []
        for path in self._folder.glob(f"DSR-*{SUFFIX}"):
            request = read_request(store.get(REQUEST, path.stem.encode()))
            if request is not None and request.subject == task.subject:
                found.append(path)
        return found


class KeyData(_Own):
    """The person's key and name: what makes everything else of ours readable."""

    name = "keys"

    def __init__(self, decider: Decider, permit: Callable[[Task], None]) -> None:
        """`permit` is asked at the last moment, while nothing else changes; it raises when nothing may be erased."""
        self._decider = decider
        self._permit = permit

    def locate(self, task: Task) -> Found:
        """The person's row in the key store, if there is one."""
        known = self._decider.subjects.person_of(task.subject) is not None
        return Found(int(known), ("name",) if known else ())

    def export(self, task: Task) -> Iterator[Document]:
        """Who the person is here."""
        told = {"customer_id": task.customer, "reference": task.subject, "request": task.request}
        told["exported_at"] = to_iso(self._decider.clock())
        yield Document("person.json", [msgspec.json.format(msgspec.json.encode(told)) + b"\n"], 1)

    def erase(self, task: Task) -> Erased:
        """Destroy the key, the name and the directory row. Nothing that was sealed for the person opens any more."""
        there = self._decider.subjects.person_of(task.subject) is not None
        self._decider.forget(task.person, lambda: self._permit(task))
        return Erased(int(there), [Kept("suppression", SUPPRESSION_ARTICLE, readable=False)])

    def verify(self, task: Task) -> Verification:
        """Neither the rows nor the bytes they stood in may be found; only the tombstone is."""
        subjects = self._decider.subjects
        left = int(subjects.person_of(task.subject) is not None)
        found = subjects.find(task.person)
        # Somebody who came back meanwhile has another reference: that is a new person, by whoever named the id.
        left += found is not None and found.reference == task.subject
        if found is None:
            left += len(subjects.store.traces([subjects.keyed_hash(task.person)]))
        left += subjects.erased_at(task.person) is None
        return Verification(left, 4)


_CLASSES: Final = {
    Decided: "decisions",
    Halted: "decisions",
    ConsentChanged: "consents",
    RequestChanged: "requests",
    LegalHeld: "legal holds",
    Noted: "notes",
}


class _Told:
    """Lines, and how many of them went by."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._count = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self._count += 1
            yield line

    def count(self) -> int:
        """So far."""
        return self._count


def _kept_until(now: int, retention_days: int) -> int:
    """When the last entry that there can be about somebody leaves."""
    return kept_until(now, retention_days, seven_years=retention_days >= SEVEN_YEARS_DAYS)


def _unreadable(now: int, retention_days: int) -> list[Kept]:
    return [Kept("evidence_unreadable", EVIDENCE_ARTICLE, _kept_until(now, retention_days), readable=False)]


def _csv_line(fields: Iterable[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue().encode()


def _plain(value: object) -> object:
    """What was sealed, without the names of whoever worked on it."""
    if isinstance(value, dict):
        return {str(name): one for name, one in value.items() if one and name != "actor"}
    return None
