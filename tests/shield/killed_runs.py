"""Runs a deletion in a process that is killed at one write after the other, and goes on with it in the next process.

`python killed_runs.py DIRECTORY`: prints a JSON line for each boundary at which it was killed. Started by
`test_request_run.py`; a process of its own, because it forks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kiki.ledger.ledger import read_entries
from kiki.ledger.sqlite import SqliteStore
from kiki.shield.fact import RequestChanged, decode_fact
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_proof import verify_request_proof
from kiki.shield.subject_data import Document, Erased, Found, Task, Verification


class Folder:
    """A system whose records are files, and whose erasures are lines of a log."""

    name = "folder"
    depends_on = ()

    def __init__(self, path: Path) -> None:
        self._path = path

    def _of(self, task: Task) -> list[Path]:
        return sorted(self._path.glob(f"{task.customer}.*"))

    def locate(self, task: Task) -> Found:
        return Found(len(self._of(task)))

    def restrict(self, task: Task) -> None:
        (self._path / f"restricted-{task.customer}").touch()

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        return 0

    def export(self, task: Task) -> Iterator[Document]:
        return iter(())

    def erase(self, task: Task) -> Erased:
        count = 0
        for path in self._of(task):
            boundary()
            path.unlink()
            count += 1
        boundary()
        return Erased(count)

    def verify(self, task: Task) -> Verification:
        return Verification(len(self._of(task)))


left = -1
"""How many boundaries may still be passed; negative: any number."""


def boundary() -> None:
    """A place where the process may die."""
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1


def dying(act: Any) -> Any:
    """Dies before or after a write."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        boundary()
        done = act(*arguments, **options)
        boundary()
        return done

    return wrapped


def opened(path: Path) -> RequestDesk:
    desk = RequestDesk(open_decider(path / "shield.db", None), [Folder(path / "folder")], packages=path / "requests")
    desk.consents.check("c-1", "marketing")
    return desk


def prepare(path: Path) -> str:
    (path / "folder").mkdir(parents=True)
    for name in ("c-1.a", "c-1.b", "c-2.a"):
        (path / "folder" / name).touch()
    desk = opened(path)
    desk.consents.grant("c-1", "marketing", note="private")
    desk.consents.grant("c-2", "marketing")
    record = desk.create("c-1", "DELETION")
    desk.verify_identity(record.id, method="operator", actor="anna")
    desk.decider.close()
    return record.id


def run(path: Path, request: str, boundaries: int) -> int:
    """Run in a child; its exit code, or the negative number of the signal that ended it."""
    child = os.fork()
    if child == 0:
        global left
        desk = opened(path)
        for name in ("commit", "add", "erase"):
            setattr(SqliteStore, name, dying(getattr(SqliteStore, name)))
        left = boundaries
        desk.run(request)
        left = -1
        desk.decider.close()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(path: Path, request: str) -> dict[str, Any]:
    desk = opened(path)
    record = desk.get(request)
    facts = [decode_fact(entry) for entry in read_entries(desk.decider.ledger.store)]
    subjects = desk.decider.subjects
    key = desk.decider.ledger.signer.verifier_key
    found = {
        "state": record.state.value,
        "folder": sorted(path.name for path in (path / "folder").iterdir()),
        "known": subjects.find("customer:c-1") is not None or subjects.person_of(record.request.subject) is not None,
        "other": desk.consents.check("c-2", "marketing"),
        "tombstone": subjects.erased_at("customer:c-1") is not None,
        "erasing": len(list(subjects.store.scan("shared/erasing"))),
        "traces": subjects.store.traces([subjects.keyed_hash("customer:c-1")]),
        "completed": sum(isinstance(fact, RequestChanged) and fact.step == "completed" for fact in facts),
        "proof": verify_request_proof(desk.proof(request), key).state,
    }
    desk.decider.close()
    return found


def main() -> None:
    base = Path(sys.argv[1])
    request = prepare(base / "template")
    boundaries = 0
    while True:
        path = base / "now"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base / "template", path)
        ended = run(path, request, boundaries)
        if ended < 0:
            again = run(path, request, -1)
            print(json.dumps({"at": boundaries, "ended": ended, "again": again, **outcome(path, request)}), flush=True)
        else:
            print(json.dumps({"at": boundaries, "ended": ended, **outcome(path, request)}), flush=True)
            return
        boundaries += 1


main()
