"""What SyncEngage is told from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kiki.errors import SettingsError
from kiki.settings.client import VALUE_CLIENT_VARIABLES
from kiki.settings.engage_table import CONNECTOR_VARIABLES, CRM_NEEDS, ENGAGE_PORT, ENGAGE_VARIABLES, SPELLINGS
from kiki.settings.ledger import LedgerSettings, read_ledger
from kiki.settings.listen import ListenSettings, read_listen
from kiki.settings.listen_table import listen_variables
from kiki.settings.names import unknown_names
from kiki.settings.secret import SECRET_BYTES_MIN, Secret
from kiki.settings.shield_table import SHIELD_VARIABLES
from kiki.settings.variable import read_variables


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """What SyncEngage's providers may be told beside their credentials."""

    shopify_version: str
    hubspot_version: str
    hubspot_url: str
    hubspot_fields: str | None
    hubspot_id: str | None
    salesforce_version: str
    salesforce_fields: str | None
    salesforce_id: str | None
    salesforce_client: str | None
    salesforce_client_secret: Secret | None
    deals: bool
    sendgrid_url: str
    sendgrid_name: str | None
    twilio_url: str
    twilio_shared_keys: Mapping[str, Secret] | None


@dataclass(frozen=True, slots=True)
class EngageSettings:
    """Everything SyncEngage is told from outside."""

    listen: ListenSettings
    ledger: LedgerSettings
    data_dir: Path
    log_level: str
    ltv_address: str
    playbooks: Path | None
    run_seconds: float
    holdout: int
    """Parts of a million."""
    public_url: str | None
    outbox: Path | None
    link_secret: Secret | None
    privacy_secret: Secret | None
    audit_path: Path
    crm: str | None
    poll_seconds: float
    shopify_shop: str | None
    shopify_store: str | None
    shopify_token: Secret | None
    shopify_secret: Secret | None
    hubspot_token: Secret | None
    hubspot_secret: Secret | None
    salesforce_url: str | None
    salesforce_instance: str | None
    salesforce_token: Secret | None
    salesforce_api_token: Secret | None
    crm_database: Secret | None
    customers: Path | None
    orders: Path | None
    sendgrid_key: Secret | None
    sendgrid_from: str | None
    sendgrid_webhook_key: str | None
    twilio_sid: str | None
    twilio_token: Secret | None
    twilio_from: str | None
    webhook_url: str | None
    webhook_secret: Secret | None
    enable_sms: bool
    enable_webhooks: bool
    enable_ab_testing: bool
    enable_churn: bool
    connectors: ConnectorSettings

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings in this environment; raises `SettingsError` with every mistake that it holds."""
        problems = unknown_names(environ)
        shared = [variable for variable in SHIELD_VARIABLES if variable.field in {"data_dir", "log_level"}]
        address = [variable for variable in VALUE_CLIENT_VARIABLES if variable.field == "ltv_address"]
        listen = read_listen(environ, listen_variables(ENGAGE_PORT), problems)
        values = read_variables(environ, (*ENGAGE_VARIABLES, *shared, *address), problems)
        ledger = read_ledger(environ, problems)
        for name, needed in (
            ("SENDGRID_API_KEY", ("SENDGRID_FROM_EMAIL", "KIKI_ENGAGE_PUBLIC_URL")),
            ("KIKI_ENGAGE_WEBHOOK_URL", ("KIKI_ENGAGE_WEBHOOK_SECRET",)),
            ("TWILIO_ACCOUNT_SID", ("TWILIO_AUTH_TOKEN", "TWILIO_FROM_PHONE", "KIKI_ENGAGE_PUBLIC_URL")),
        ):
            missing = [each for each in needed if not environ.get(each)]
            if environ.get(name) and missing:
                problems.append(f"{name}: sending with it needs {' and '.join(missing)}, too")
        connectors = read_variables(environ, CONNECTOR_VARIABLES, problems)
        problems += _connector_problems(environ, values.get("crm"))
        for field in ("link_secret", "privacy_secret"):
            secret = values.get(field)
            if secret is not None and len(secret.reveal().encode()) < SECRET_BYTES_MIN:
                problems.append(f"KIKI_ENGAGE_{field.upper()}: expected {SECRET_BYTES_MIN} bytes or more")
        if problems or listen is None or ledger is None:
            raise SettingsError(dict.fromkeys(problems))
        return cls(listen=listen, ledger=LedgerSettings(**ledger), connectors=ConnectorSettings(**connectors), **values)

    @property
    def store(self) -> str:
        """Where customers are kept."""
        url = self.ledger.database_url
        return str(self.data_dir / "engage.db") if url is None else url.reveal()


def _connector_problems(environ: Mapping[str, str], crm: str | None) -> list[str]:
    """What the source of customers lacks, and what is said twice in two ways."""
    problems = [
        f"{' and '.join(names)} differ; set one of them"
        for names in SPELLINGS
        if len({environ[name] for name in names if environ.get(name)}) > 1
    ]
    problems += [
        f"{needed[0]} is missing: the source {crm} needs it{_or(needed[1:])}"
        for needed in CRM_NEEDS.get(crm or "", ())
        if not any(environ.get(name) for name in needed)
    ]
    if environ.get("SALESFORCE_CLIENT_ID") and not environ.get("SALESFORCE_CLIENT_SECRET"):
        problems.append("SALESFORCE_CLIENT_ID: SALESFORCE_CLIENT_SECRET must hold the app's secret")
    if environ.get("HUBSPOT_CLIENT_SECRET") and environ.get("HUBSPOT_ID_PROPERTY"):
        problems.append(
            "HUBSPOT_CLIENT_SECRET: webhooks name contacts by HubSpot's own ids, which HUBSPOT_ID_PROPERTY makes "
            "nobody's: an erasure would reach nobody; set one of them"
        )
    return problems


def _or(names: Iterable[str]) -> str:
    others = " or ".join(names)
    return f" (or {others})" if others else ""
