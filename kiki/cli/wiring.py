"""From settings to objects: the only place where the environment becomes a running service."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kiki.cli.data_dir import make_data_dir
from kiki.cli.loyalty_access import STORE as LOYALTY_STORE
from kiki.engage.loyalty_data import LoyaltyData
from kiki.errors import ConfigurationError, InvalidInput, LedgerLocked, MissingExtra, SettingsError
from kiki.ledger.archive import open_archive
from kiki.ledger.master_key import KeySource
from kiki.ledger.source import Database, is_pattern
from kiki.ledger.timestamp import TimestampService, read_roots
from kiki.ledger.witness import Witness
from kiki.settings import (
    FLOW_PORT,
    FlowSettings,
    LedgerSettings,
    RequestSettings,
    ShieldSettings,
    ValueSettings,
    ltv_address,
    parse_listen,
    shield_url,
)
from kiki.shield.audit_view_process import AuditViewProcess
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.consent_store import ConsentStore
from kiki.shield.deadline import Regime, WorkCalendar
from kiki.shield.decider import Decider
from kiki.shield.evidence_keeper import EvidenceKeeper
from kiki.shield.holiday_calendar import calendars_of
from kiki.shield.opening import MASTER_KEY_FILE, open_decider, read_policy
from kiki.shield.policy import Policy, single_budget
from kiki.shield.privacy_service import Deployment
from kiki.shield.remote_data import RemoteData
from kiki.shield.request_desk import RequestDesk
from kiki.shield.service import ShieldService, audit_view_path, ledger_path
from kiki.shield.subject_data import SubjectData
from kiki.shield.subject_systems import load_systems
from kiki.telemetry import configure_logging
from kiki.web import Prepared, Tokens, load_tokens, run_all

if TYPE_CHECKING:
    from kiki.value.ltv_client import AsyncLtvClient

logger = logging.getLogger("kiki")


def run_shield(environ: Mapping[str, str]) -> None:
    """Run SyncShield until it is told to stop; raises what is wrong with its settings, policy or ledger."""
    run_all([prepare_shield(environ)])


def prepare_shield(environ: Mapping[str, str]) -> Prepared:
    """SyncShield, ready to listen."""
    settings = ShieldSettings.parse(environ)
    configure_logging(settings.log_level)
    read = _policy_reader(settings, environ)
    tokens, policy = _files(settings.listen.tokens_file, read)
    make_data_dir(settings.data_dir)
    settings, decider = _claimed(settings, policy)
    audit_view = (
        AuditViewProcess(
            database(settings.ledger) or ledger_path(settings.data_dir),
            audit_view_path(settings.data_dir),
            bytes_max=settings.audit_csv_bytes_max,
            retention_days=settings.retention_days,
            say=lambda level, message: logger.log(logging.getLevelName(level.upper()), message),
        )
        if settings.audit_csv
        else None
    )
    keeper = EvidenceKeeper(
        decider,
        retention_days=settings.retention_days,
        archive=None if settings.ledger.archive is None else open_archive(settings.ledger.archive),
        segment_seconds=settings.ledger.segment_seconds,
        segment_entries=settings.ledger.segment_entries,
        witness=_witness(settings.ledger),
        timestamps=_timestamps(settings.ledger),
    )
    guard = BudgetGuard(decider, purposes=settings.purposes)
    service = ShieldService(
        guard,
        read_policy=read,
        audit_view=audit_view,
        redis_expected=settings.redis_mode == "auto",
        keeper=keeper,
        deployment=Deployment(
            data_dir=settings.data_dir,
            master_key_file=key_file(settings.ledger),
            retention_days=settings.retention_days,
        ),
        desk=request_desk(guard.consents, settings.data_dir, settings, environ),
    )
    return Prepared(service.service(), settings.listen, tokens)


def run_value(environ: Mapping[str, str]) -> None:
    """Run SyncValue until it is told to stop; raises what is wrong with its settings, tokens, model or customers."""
    run_all([prepare_value(environ)])


def prepare_value(environ: Mapping[str, str]) -> Prepared:
    """SyncValue, ready to listen."""
    settings = ValueSettings.parse(environ)
    configure_logging(settings.log_level)
    try:
        from kiki.value.service import ValueService
    except ModuleNotFoundError as error:
        raise MissingExtra("value", "SyncValue") from error
    tokens = None if settings.listen.tokens_file is None else load_tokens(settings.listen.tokens_file)
    return Prepared(ValueService(settings, tokens).service(), settings.listen, tokens)


def embedded_guard(environ: Mapping[str, str], ledger: Path) -> BudgetGuard:
    """A guard in this process over the ledger in a file, under the policy that SyncShield would have; its caller closes it."""
    settings = ShieldSettings.parse(environ)
    ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return BudgetGuard(_decider(settings, ledger, _policy_reader(settings, environ)()), purposes=settings.purposes)


def customer_values(environ: Mapping[str, str]) -> AsyncLtvClient:
    """Where campaigns learn what customers are worth."""
    from kiki.value.ltv_client import AsyncLtvClient  # brings gRPC, which the shield does without

    return AsyncLtvClient(ltv_address(environ))


def _claimed(settings: ShieldSettings, policy: Policy) -> tuple[ShieldSettings, Decider]:
    """The decider over a chain that is ours alone, and the settings with its name where they had a pattern."""
    path, shared, number = ledger_path(settings.data_dir), database(settings.ledger), 0
    if shared is None or not is_pattern(shared.replica):
        return settings, _decider(settings, path, policy)
    from kiki.ledger.chain_lease import free_chain

    while True:
        name, number = free_chain(shared.url.reveal(), shared.replica, number)
        named = replace(settings, ledger=replace(settings.ledger, replica=name))
        try:
            return named, _decider(named, path, policy, when_taken=_ending())
        except LedgerLocked:
            number += 1  # somebody was quicker


def _ending() -> Callable[[], None]:
    """Ends this process, once: whoever runs it starts it again, with a chain that is free. A second signal would be impatience."""
    ended = threading.Event()

    def end() -> None:
        if not ended.is_set():
            ended.set()
            logger.error(
                "another process owns our chain, which it took while the database was away: we end, to begin with another"
            )
            os.kill(os.getpid(), signal.SIGTERM)

    return end


def _decider(
    settings: ShieldSettings, ledger: Path, policy: Policy, when_taken: Callable[[], None] | None = None
) -> Decider:
    shared = database(settings.ledger)
    return open_decider(
        ledger,
        policy,
        database=None if shared is None else shared._replace(when_taken=when_taken),
        keys=key_source(settings.ledger),
        redis=settings.redis if settings.redis_mode == "auto" else None,
        redis_prefix=settings.redis_prefix,
        redis_timeout=settings.redis_timeout_seconds,
        scopes_max=settings.scopes_max,
        keys_max=settings.keys_max,
        ltv_min=settings.ltv_min_micros,
        ltv_max=settings.ltv_max_micros,
    )


def run_flow(environ: Mapping[str, str]) -> None:
    """Run SyncFlow until it is told to stop; raises what is wrong with its settings, tokens or store."""
    run_all([prepare_flow(environ)])


def prepare_flow(environ: Mapping[str, str]) -> Prepared:
    """SyncFlow, ready to listen."""
    settings, listen = FlowSettings.parse(environ), parse_listen(environ, port=FLOW_PORT)
    configure_logging(settings.log_level)
    if settings.log_level != "debug":
        # Every call to a platform is in the record; a line for each in the log would drown the rest.
        logging.getLogger("httpx").setLevel(logging.WARNING)
    tokens = None if listen.tokens_file is None else load_tokens(listen.tokens_file)
    try:
        from kiki.flow.bid_server import BidPort, BidServer
    except ModuleNotFoundError as error:
        raise MissingExtra("flow", "SyncFlow's gRPC port") from error
    from kiki.cli.campaign_access import OwnSandboxes
    from kiki.flow.campaign_runner import CampaignRunner
    from kiki.flow.customer_value import CustomerValue
    from kiki.flow.service import FlowService
    from kiki.shield.shield_client import AsyncShieldClient
    from kiki.value.call_metrics import CallMetrics

    make_data_dir(settings.data_dir)
    sandboxes = OwnSandboxes(settings)
    runner = CampaignRunner.open(
        settings.store,
        guard=AsyncShieldClient(shield_url(environ)),
        executor=settings.executor,
        sandbox=settings.sandbox_url or sandboxes.chooser(keep=True),
        values=customer_values(environ),
        environ=environ,
        lease_seconds=settings.lease_seconds,
        grace_seconds=settings.grace_seconds,
    )
    sandboxes.know(runner)
    calls = CallMetrics()
    values = CustomerValue(customer_values(environ))
    bids = BidServer(runner, values, BidPort(listen, settings.grpc_port), tokens, calls)
    return Prepared(FlowService(runner, bids, calls).service(), listen, tokens, sandboxes.close)


def request_desk(
    consents: ConsentStore, data_dir: Path, settings: RequestSettings | ShieldSettings, environ: Mapping[str, str]
) -> RequestDesk:
    """The requests of data subjects in the ledger of these consents; raises every mistake about your own systems."""
    named = settings.subject_systems_file
    own: list[SubjectData] = [] if named is None else [RemoteData(system) for system in load_systems(named, environ)]
    shared = LedgerSettings.parse(environ).database_url
    own.append(LoyaltyData(data_dir / LOYALTY_STORE if shared is None else shared.reveal()))
    return RequestDesk(
        consents.decider,
        own,
        consents=consents,
        packages=data_dir / "requests",
        audit_view=audit_view_path(data_dir),
        calendars=_calendars(settings),
        retention_days=settings.retention_days,
    )


def _calendars(settings: RequestSettings | ShieldSettings) -> Mapping[Regime, WorkCalendar]:
    try:
        return calendars_of(settings.holidays, settings.time_zone)
    except InvalidInput as error:
        # The zone was looked up when the settings were read; the countries are in a large package.
        raise SettingsError([f"KIKI_HOLIDAYS={settings.holidays!r}: {error}"]) from None


def key_source(settings: LedgerSettings) -> KeySource:
    """Where the master key comes from. It is never made beside a shared database: every replica needs the same one."""
    return KeySource(
        file=settings.master_key_file or settings.data_dir / MASTER_KEY_FILE,
        text=settings.master_key,
        command=settings.master_key_command,
        may_create=settings.database_url is None,
    )


def key_file(settings: LedgerSettings) -> Path | None:
    """The file of the master key, if it comes from one."""
    if settings.master_key is not None or settings.master_key_command is not None:
        return None
    return settings.master_key_file or settings.data_dir / MASTER_KEY_FILE


def database(settings: LedgerSettings) -> Database | None:
    """The shared database of the ledger, if there is one."""
    return None if settings.database_url is None else Database(settings.database_url, settings.replica)


def _witness(settings: LedgerSettings) -> Witness | None:
    if settings.witness_url is None:
        return None
    return Witness(settings.witness_url, settings.witness_key or "")


def _timestamps(settings: LedgerSettings) -> TimestampService | None:
    if settings.tsa_url is None:
        return None
    return TimestampService(settings.tsa_url, read_roots(settings.tsa_roots_file))


def _files(tokens_file: Path | None, read: Callable[[], Policy]) -> tuple[Tokens | None, Policy]:
    """What the token file and the policy file say; raises every mistake in both of them at once."""
    wrong: list[ConfigurationError] = []
    tokens: Tokens | None = None
    policy: Policy | None = None
    try:
        tokens = None if tokens_file is None else load_tokens(tokens_file)
    except ConfigurationError as error:
        wrong.append(error)
    try:
        policy = read()
    except ConfigurationError as error:
        wrong.append(error)
    if policy is not None and not wrong:
        return tokens, policy
    if len(wrong) == 1:
        raise wrong[0]
    raise ConfigurationError(problem for error in wrong for problem in error.problems)


def _policy_reader(settings: ShieldSettings, environ: Mapping[str, str]) -> Callable[[], Policy]:
    default = single_budget(settings.budget_micros, settings.window_micros, settings.currency)

    def read() -> Policy:
        if settings.policy_file is None:
            return default
        policy = read_policy(settings.policy_file, settings.currency)
        # Who sets the default budget's limit beside a policy file wants both to hold.
        named = {budget.name for budget in policy.budgets}
        if "MAX_BURST_BUDGET" in environ and "default" not in named:
            return Policy((*default.budgets, *policy.budgets), policy.currency)
        return policy

    return read
