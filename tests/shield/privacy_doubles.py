"""Systems that hold personal data, as the tests of requests need them: in memory, and broken on demand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from kiki.errors import SystemUnavailable
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_record import RequestRecord
from kiki.shield.subject_data import Document, Erased, Found, Task, Verification
from kiki.shield.subject_request import Kept


class Shop:
    """A system with records of customers. `broken` names the methods that fail, `calls` has what was asked."""

    def __init__(self, name: str = "shop", *, depends_on: Collection[str] = (), calls: list | None = None) -> None:
        self.name = name
        self.depends_on = depends_on
        self.records: dict[str, list[str]] = {}
        self.restricted: set[str] = set()
        self.keep: list[Kept] = []
        self.broken: set[str] = set()
        self.leaves: int = 0
        """How many records an erasure forgets to erase."""
        self.calls = [] if calls is None else calls

    def _called(self, method: str, task: Task) -> None:
        self.calls.append((self.name, method))
        if method in self.broken:
            raise SystemUnavailable(f"{self.name} is down")

    def locate(self, task: Task) -> Found:
        self._called("locate", task)
        return Found(len(self.records.get(task.customer, [])), ("orders",))

    def restrict(self, task: Task) -> None:
        self._called("restrict", task)
        self.restricted.add(task.customer)

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        self._called("rectify", task)
        self.records[task.customer] = [f"{name}={value}" for name, value in values.items()]
        return len(values)

    def export(self, task: Task) -> Iterator[Document]:
        self._called("export", task)
        records = self.records.get(task.customer, [])
        if records:
            yield Document("orders.txt", [f"{record}\n".encode() for record in records], len(records))

    def erase(self, task: Task) -> Erased:
        self._called("erase", task)
        records = self.records.get(task.customer, [])
        left, self.leaves = records[: self.leaves], 0
        self.records[task.customer] = left
        return Erased(len(records) - len(left), self.keep)

    def verify(self, task: Task) -> Verification:
        self._called("verify", task)
        return Verification(len(self.records.get(task.customer, [])), 1)


class Channel:
    """Remembers the codes that it was to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []

    def send(self, customer: str, code: str, request: str) -> None:
        self.sent.append((customer, code, request))


def verified(desk: RequestDesk, customer: str, kind: str, **given: object) -> RequestRecord:
    """A request whose identity an operator has checked."""
    record = desk.create(customer, kind, **given)
    return desk.verify_identity(record.id, method="operator", actor="anna")
