"""Where `kiki engage` finds its customers: in the store of the data directory, or in the service that has it open.

`--service` or KIKI_ENGAGE_URL name a service. Without either it is the store of KIKI_DATA_DIR or DATABASE_URL; where a
service has that open, and one answers at the usual address, it is asked. Consent and money are the shield's:
`kiki.cli.place` says where that is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from kiki.cli import show
from kiki.cli.place import is_ledger, listens, open_ledger_alone
from kiki.errors import InvalidInput, KikiError, LedgerLocked, MissingExtra, NotFound, Unavailable

if TYPE_CHECKING:
    import httpx

    from kiki.engage.assignment_export import Assignment
    from kiki.engage.customer_store import CustomerStore
    from kiki.engage.playbook import Playbook
    from kiki.engage.retention_engine import RetentionEngine
    from kiki.engage.source import Source
    from kiki.settings import EngageSettings

SERVICE = "http://localhost:8083"
SECONDS = 300.0

EngageDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where customers are kept. By default KIKI_DATA_DIR, then ./kiki-data."
    ),
]
ServiceUrl = Annotated[
    str | None,
    typer.Option(
        "--service", metavar="URL", help="A SyncEngage that runs, instead of the store in the data directory."
    ),
]
PlaybookFile = Annotated[
    Path,
    typer.Argument(
        metavar="PLAYBOOK", help="The playbook, a YAML file; of a service also the name of one that it has."
    ),
]


class Engage(Protocol):
    """What a command asks: the same JSON from both."""

    def sync(self, source: str | None) -> dict[str, Any]:
        """Take in what is new."""
        ...

    def write_back(self, source: str | None, playbook: Path) -> dict[str, Any]:
        """Tell the source what the playbook sees."""
        ...

    def add_tags(self, source: str | None, playbook: Path) -> dict[str, Any]:
        """Tag people at the source by the playbook's segments."""
        ...

    def plan(self, playbook: Path) -> dict[str, Any]:
        """What a run would do."""
        ...

    def run(self, playbook: Path) -> dict[str, Any]:
        """Do it."""
        ...

    def explain(self, customer: str, playbooks: list[Path]) -> dict[str, Any]:
        """Why a customer gets what they get."""
        ...

    def report(self, playbook: Path, *, together: bool = False) -> dict[str, Any]:
        """What it earned, or what all playbooks did together."""
        ...

    def export(self, playbook: Path, file: Path) -> int:
        """Every assignment with its outcome into a file; how many."""
        ...

    def preview(self, playbook: Path, offer: str, customer: str | None) -> dict[str, Any]:
        """What a customer would read, or somebody made up."""
        ...


def one_thread_a_product() -> None:
    """Let numpy work on one core; to be asked before it is loaded.

    Learning makes thousands of small products: on a busy machine threads that wait for each other take ten times as long.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@contextlib.contextmanager
def open_engage(
    data_dir: Path | None,
    service: str | None,
    *,
    url: str | None = None,
    token_file: Path | None = None,
    ledger: Path | None = None,
    given: dict[str, str] | None = None,
) -> Iterator[Engage]:
    """The engine as the options ask for it; `given` are settings from other options."""
    one_thread_a_product()
    named = service or os.environ.get("KIKI_ENGAGE_URL")
    if named:
        yield ServiceEngage(named, given)
        return
    settings = engage_settings(data_dir, given)
    # A name of its own beside the services that share a database: what they are sending is theirs.
    ledger_settings = replace(settings.ledger, replica=f"{settings.ledger.replica[:100]}-cli")
    settings = replace(settings, ledger=ledger_settings)
    wiring = _wiring()
    try:
        store = wiring.open_store(settings)
    except LedgerLocked as error:
        if not listens(SERVICE):
            raise LedgerLocked(str(error), hint="a service has it open: name that with --service, or stop it") from None
        yield ServiceEngage(SERVICE, given)
        return
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        yield LocalEngage(settings, _engine(stack, settings, store, url, token_file, ledger))


def engage_settings(data_dir: Path | None, given: dict[str, str] | None = None) -> EngageSettings:
    """The settings, with the options in place of their variables."""
    from kiki.settings import EngageSettings

    environ = {**os.environ, **(given or {})}
    return EngageSettings.parse(environ if data_dir is None else {**environ, "KIKI_DATA_DIR": str(data_dir)})


def read_file(file: Path) -> Playbook:
    """The playbook in a file, templates checked."""
    playbook: Playbook = _wiring().read_playbook(file)
    return playbook


def name_alone(playbook: Path) -> str | None:
    """The name that somebody wrote in place of a file; None where there is such a file, or kiki brings that playbook along."""
    is_name = playbook.name == str(playbook) and not playbook.suffix and not playbook.exists()
    return str(playbook) if is_name and not _wiring().is_ours(playbook) else None


def _wiring() -> Any:
    try:
        from kiki.cli import engage_wiring
    except ModuleNotFoundError as error:
        raise MissingExtra("engage", "kiki engage") from error
    return engage_wiring


def _engine(
    stack: contextlib.ExitStack,
    settings: EngageSettings,
    store: CustomerStore,
    url: str | None,
    token_file: Path | None,
    ledger: Path | None,
) -> RetentionEngine:
    from kiki.cli.options import open_client
    from kiki.engage.shield_line import ClientLine, GuardLine, Shield
    from kiki.shield.budget_guard import BudgetGuard

    shield: Shield
    if is_ledger(ledger, url):
        consents = stack.enter_context(open_ledger_alone(ledger))
        shield = GuardLine(BudgetGuard(consents.decider))
    else:
        shield = ClientLine(stack.enter_context(open_client(url, token_file)))
    wiring = _wiring()
    value = wiring.value_client(settings)
    if value is not None:
        stack.callback(value.close)
    engine: RetentionEngine = wiring.open_engine(
        settings, store, shield, wiring.unsubscribe_links(settings, store), value
    )
    engine.sender.recover()
    return engine


class LocalEngage:
    """The store in the data directory, for this process."""

    def __init__(self, settings: EngageSettings, engine: RetentionEngine) -> None:
        self.settings = settings
        self.engine = engine

    def sync(self, source: str | None) -> dict[str, Any]:
        """Take in what is new."""
        from kiki.engage.sync import sync

        return sync(self._source(source), self.engine.store)._asdict()

    def write_back(self, source: str | None, playbook: Path) -> dict[str, Any]:
        """Tell the source what the playbook sees."""
        from kiki.engage.write_back import write_back

        return write_back(self.engine, self._source(source), read_file(playbook))._asdict()

    def add_tags(self, source: str | None, playbook: Path) -> dict[str, Any]:
        """Tag people at the source by the playbook's segments."""
        from kiki.engage.write_back import add_tags

        return add_tags(self.engine, self._source(source), read_file(playbook))._asdict()

    def _source(self, name: str | None) -> Source:
        found: Source | None = _wiring().source_of(self.settings, name)
        if found is None:
            raise InvalidInput("no source is named", hint="give --source, or set SYNCENGAGE_CRM_PROVIDER")
        return found

    def plan(self, playbook: Path) -> dict[str, Any]:
        """What a run would do."""
        from kiki.engage.plan import as_json

        return as_json(self.engine.plan(read_file(playbook)))

    def run(self, playbook: Path) -> dict[str, Any]:
        """Do it."""
        from kiki.engage.plan import run_json

        return run_json(self.engine.run(read_file(playbook)))

    def explain(self, customer: str, playbooks: list[Path]) -> dict[str, Any]:
        """Why a customer gets what they get."""
        from kiki.engage.explanation import explain

        return explain(self.engine, customer, [read_file(file) for file in playbooks])

    def report(self, playbook: Path, *, together: bool = False) -> dict[str, Any]:
        """What it earned, or what all playbooks did together."""
        from kiki.engage.playbook_report import report, report_json
        from kiki.engage.program_report import program_report

        read = read_file(playbook)
        if together:
            return report_json(program_report(read, self.engine.store, self.engine.sides.everywhere))
        return report_json(report(read, self.engine.store, self.engine.held_out_share(read)))

    def export(self, playbook: Path, file: Path) -> int:
        """Every assignment with its outcome into a file; how many."""
        from kiki.engage.playbook_report import export_rows

        return _write_assignments(file, export_rows(read_file(playbook), self.engine.store))

    def preview(self, playbook: Path, offer: str, customer: str | None) -> dict[str, Any]:
        """What a customer would read, or somebody made up."""
        from kiki.engage.message_maker import MessageMaker
        from kiki.engage.preview import preview

        maker = MessageMaker(read_file(playbook))
        if customer is None:
            return preview(maker, offer)
        person = self.engine.store.profile(customer)
        if person is None:
            raise NotFound(f"there is no customer {customer[:40]!r}")
        return preview(maker, offer, person)


def _write_assignments(file: Path, rows: Iterable[Assignment]) -> int:
    import secrets

    from kiki.engage.assignment_export import write_csv, write_parquet

    key = secrets.token_bytes(32)
    if file.suffix.lower() == ".parquet":
        return write_parquet(file, rows, key)
    with file.open("w", encoding="utf-8", newline="") as out:
        return write_csv(out, rows, key)


class ServiceEngage:
    """A service that has the store open. It has a source and playbooks of its own."""

    def __init__(self, url: str, given: Mapping[str, str] | None = None) -> None:
        """`given` are settings that options named, which a service does not take."""
        self._url = url.rstrip("/")
        self._given = given or {}

    def sync(self, source: str | None) -> dict[str, Any]:
        """Take in what is new."""
        return self._sync(source)

    def write_back(self, source: str | None, playbook: Path) -> dict[str, Any]:
        """Tell the source what the playbook sees."""
        told: dict[str, Any] = self._sync(source, write_back=_name_of(playbook))["written_back"]
        return told

    def add_tags(self, source: str | None, playbook: Path) -> dict[str, Any]:
        """Tag people at the source by the playbook's segments."""
        told: dict[str, Any] = self._sync(source, tag=_name_of(playbook))["tagged"]
        return told

    def _sync(self, source: str | None, **params: str) -> dict[str, Any]:
        if self._given:
            names = ", ".join(sorted(self._given))
            raise InvalidInput(
                f"SyncEngage at {self._url} has the customers open and takes them from its own source",
                hint=f"start it with {names} and SYNCENGAGE_CRM_PROVIDER: it then reads a file again when it changes; or stop it first",
            )
        done = self._ask("POST", "/v1/syncs", params=params)
        if source not in {None, done["source"]}:
            raise InvalidInput(
                f"SyncEngage at {self._url} takes customers from {done['source']}, not from {source}: that was looked at",
                hint="start it with another SYNCENGAGE_CRM_PROVIDER, or stop it first",
            )
        return done

    def plan(self, playbook: Path) -> dict[str, Any]:
        """What a run would do."""
        return self._ask("POST", "/v1/plans", json={"playbook": _name_or_text(playbook)})

    def run(self, playbook: Path) -> dict[str, Any]:
        """Do it."""
        return self._ask("POST", "/v1/runs", json={"playbook": _name_of(playbook)})

    def explain(self, customer: str, playbooks: list[Path]) -> dict[str, Any]:
        """Why a customer gets what they get."""
        from urllib.parse import quote

        if playbooks:
            show.talk("the service tells the gates of its own playbooks")
        return self._ask("GET", f"/v1/profiles/{quote(customer, safe='')}/explanation")

    def report(self, playbook: Path, *, together: bool = False) -> dict[str, Any]:
        """What it earned, or what all playbooks did together."""
        params = {"playbook": _name_of(playbook)} | ({"together": "true"} if together else {})
        return self._ask("GET", "/v1/outcomes", params=params)

    def export(self, playbook: Path, file: Path) -> int:
        """Every assignment with its outcome into a file; how many."""
        from kiki.engage.assignment_export import csv_rows

        text = self._reply("GET", "/v1/outcomes/export", params={"playbook": _name_of(playbook)}).text
        return _write_assignments(file, csv_rows(text))

    def preview(self, playbook: Path, offer: str, customer: str | None) -> dict[str, Any]:
        """What a customer would read, or somebody made up."""
        body = {"playbook": _name_or_text(playbook), "offer": offer}
        body |= {} if customer is None else {"customer_id": customer}
        return self._ask("POST", "/v1/previews", json=body)

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._reply(method, path, **more).json()
        return found

    def _reply(self, method: str, path: str, **more: Any) -> httpx.Response:
        import httpx

        from kiki.shield.client_settings import default_token

        token = default_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            reply = httpx.request(
                method, f"{self._url}{path}", headers=headers, timeout=SECONDS, trust_env=False, **more
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"SyncEngage at {self._url} does not answer: {type(error).__name__}") from None
        if reply.is_success:
            return reply
        raise _refusal(reply)


def _name_of(playbook: Path) -> str:
    return name_alone(playbook) or read_file(playbook).name


def _name_or_text(playbook: Path) -> str:
    """What a service takes: the name of a playbook that it has, or the text of a file without a mistake."""
    name = name_alone(playbook)
    if name is not None:
        return name
    read_file(playbook)
    text: str = _wiring().playbook_text(playbook)
    return text


def _refusal(reply: httpx.Response) -> KikiError:
    try:
        told = reply.json()
        message, hint = str(told["detail"]), told.get("hint")
    except (ValueError, KeyError, TypeError):
        message, hint = f"SyncEngage answers {reply.status_code}", None
    kind = {400: InvalidInput, 404: NotFound}.get(reply.status_code, KikiError)
    return kind(message, hint=hint)
