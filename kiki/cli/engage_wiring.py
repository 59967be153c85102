"""From settings to SyncEngage: its store and keys, channels, source, playbooks. The part of `wiring` that only engage needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

import kiki.engage
from kiki.cli.data_dir import make_data_dir
from kiki.cli.wiring import database, key_source
from kiki.engage.channel import Channel
from kiki.engage.channels.outbox import OutboxChannel
from kiki.engage.channels.sendgrid import SendGridChannel
from kiki.engage.channels.twilio import TwilioChannel
from kiki.engage.channels.webhook import WebhookChannel
from kiki.engage.crm.field_map import parse_field_map
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.keyring import Keyring
from kiki.engage.platform_requests import ClientRequests
from kiki.engage.playbook import Playbook
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.post_room import PostRoom
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.roster import Values
from kiki.engage.service import EngageService
from kiki.engage.shield_line import CLIENT_TIMEOUT, ClientLine, Shield
from kiki.engage.source import Source
from kiki.engage.trigger_audit import TriggerAudit
from kiki.engage.trigger_desk import TriggerDesk
from kiki.engage.unsubscribe import UnsubscribeLinks
from kiki.engage.webhook import WebhookReader
from kiki.engage.webhooks.hubspot import HubSpotReader
from kiki.engage.webhooks.sendgrid import SendGridReader
from kiki.engage.webhooks.shopify import ShopifyReader
from kiki.engage.webhooks.twilio import TwilioReader
from kiki.errors import ConfigurationError, InvalidInput, PlaybookError
from kiki.ledger.store import Store
from kiki.ledger.subjects import Subjects
from kiki.outbound.oauth import Authorization, FixedToken, OAuth2
from kiki.settings import EngageSettings, Secret, is_loopback, shield_url
from kiki.shield.shield_client import ShieldClient, default_token
from kiki.telemetry import configure_logging, log_event
from kiki.web import Prepared, load_tokens, run_all

if TYPE_CHECKING:
    from kiki.value.ltv_client import LtvClient

logger = logging.getLogger("kiki.engage")

KEYS_FILE = "engage-keys.db"
OUTBOX = "outbox"
SOURCES = ("shopify", "hubspot", "salesforce", "postgres", "csv")

_Value = TypeVar("_Value")


def run_engage(environ: Mapping[str, str]) -> None:
    """Run SyncEngage until it is told to stop; raises what is wrong with its settings, playbooks or store."""
    run_all([prepare_engage(environ)])


def prepare_engage(environ: Mapping[str, str]) -> Prepared:
    """SyncEngage, ready to listen."""
    settings = EngageSettings.parse(environ)
    configure_logging(settings.log_level)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # they would log addresses, which may name a customer
    if settings.privacy_secret is None and (settings.shopify_secret or settings.hubspot_secret):
        log_event(
            logger,
            logging.WARNING,
            "what platforms demand becomes requests at the shield, and none of them reaches the customers here: set "
            "KIKI_ENGAGE_PRIVACY_SECRET and name engage in the shield's KIKI_SUBJECT_SYSTEMS_FILE",
        )
    tokens = None if settings.listen.tokens_file is None else load_tokens(settings.listen.tokens_file)
    playbooks = read_playbooks(settings)
    origin = shield_url(environ)
    token = default_token()
    store = open_store(settings)
    try:
        client = ShieldClient(origin, token=token, timeout=CLIENT_TIMEOUT, retries=1)
        links = unsubscribe_links(settings, store)
        engine = open_engine(settings, store, ClientLine(client), links, value_client(settings))
        requests = ClientRequests(client.requests)
        service = EngageService(
            engine,
            TriggerDesk(origin, settings.ltv_address, token=token, value_token=environ.get("KIKI_VALUE_TOKEN")),
            TriggerAudit(settings.audit_path),
            PostRoom(engine, webhook_readers(settings), links, requests),
            playbooks=playbooks,
            read_playbooks=lambda: read_playbooks(settings),
            source=source_of(settings),
            run_seconds=settings.run_seconds,
            poll_seconds=settings.poll_seconds,
            outbox=outbox_of(settings),
            letters=settings.outbox or settings.data_dir / OUTBOX,
            privacy_secret=settings.privacy_secret,
            public_url=settings.public_url or "",
            take_webhooks=settings.enable_webhooks,
        )
        listen = settings.listen
        if "KIKI_BODY_BYTES_MAX" not in environ:
            listen = replace(listen, body_bytes_max=2 * 2**20)  # providers gather events into calls of this size
        return Prepared(service.service(), listen, tokens)
    except BaseException:
        store.close()
        raise


def open_store(settings: EngageSettings) -> CustomerStore:
    """Customers and the keys of engage's own key store; raises `LedgerLocked` when another process has it."""
    make_data_dir(settings.data_dir)
    subjects = Subjects(_key_store(settings), key_source(settings.ledger))
    try:
        return CustomerStore(open_database(settings.store), Keyring(subjects))
    except BaseException:
        subjects.close()
        raise


def _key_store(settings: EngageSettings) -> Store:
    shared = database(settings.ledger)
    if shared is not None:
        from kiki.ledger.postgres import SCHEMA, PostgresStore

        return PostgresStore(shared.url.reveal(), shared.replica, schema=f"{SCHEMA}_engage_keys")
    from kiki.ledger.sqlite import SqliteStore

    return SqliteStore(settings.data_dir / KEYS_FILE)


def open_engine(
    settings: EngageSettings, store: CustomerStore, shield: Shield, links: UnsubscribeLinks, value: Values | None
) -> RetentionEngine:
    """The engine with every channel that is set up."""
    return RetentionEngine(
        store,
        shield,
        channels_of(settings),
        links.url,
        value=value,
        holdout=settings.holdout,
        worker=settings.ledger.replica,
    )


def value_client(settings: EngageSettings) -> LtvClient | None:
    """SyncValue, unless nobody wants its forecasts."""
    if not settings.enable_churn:
        return None
    from kiki.value.ltv_client import LtvClient

    return LtvClient(settings.ltv_address)


def unsubscribe_links(settings: EngageSettings, store: CustomerStore) -> UnsubscribeLinks:
    """The links in messages; without a public URL they lead to this machine."""
    secret = settings.link_secret or Secret(store.keys.secret("links").hex())
    return UnsubscribeLinks(settings.public_url or f"http://127.0.0.1:{settings.listen.port or 8083}", [secret])


def outbox_of(settings: EngageSettings) -> Path | None:
    """Where messages lie that no provider sends; None where a provider is set up and no outbox is asked for."""
    if settings.outbox is not None:
        return settings.outbox
    providers = (settings.sendgrid_key, settings.twilio_sid, settings.webhook_url)
    return settings.data_dir / OUTBOX if not any(providers) else None


def channels_of(settings: EngageSettings) -> dict[str, Channel]:
    """Every channel by its name. The outbox stands in only where nobody could take it for a provider."""
    outbox = outbox_of(settings)
    made: dict[str, Channel] = {}
    if outbox is not None:
        made = {name: OutboxChannel(outbox, name=name) for name in ("email", "sms", "webhook")}
    if settings.sendgrid_key is not None:
        made["email"] = SendGridChannel(
            settings.sendgrid_key,
            settings.sendgrid_from or "",
            from_name=settings.connectors.sendgrid_name or "",
            base_url=settings.connectors.sendgrid_url,
        )
    if settings.twilio_sid is not None and settings.twilio_token is not None:
        made["sms"] = TwilioChannel(
            settings.twilio_sid,
            settings.twilio_token,
            settings.twilio_from or "",
            public_url=settings.public_url or "",
            base_url=settings.connectors.twilio_url,
        )
    if settings.webhook_url is not None and settings.webhook_secret is not None:
        made["webhook"] = WebhookChannel(settings.webhook_url, settings.webhook_secret)
    if not settings.enable_sms:
        made.pop("sms", None)
    return made


def webhook_readers(settings: EngageSettings) -> list[WebhookReader]:
    """Of every provider whose calls can be proven."""
    made: list[WebhookReader] = []
    if settings.shopify_secret is not None:
        made.append(ShopifyReader(settings.shopify_secret, shop=_shop(settings)))
    if settings.hubspot_secret is not None:
        made.append(HubSpotReader(settings.hubspot_secret))
    if settings.sendgrid_webhook_key is not None:
        made.append(SendGridReader(settings.sendgrid_webhook_key))
    if settings.twilio_token is not None:
        made.append(TwilioReader(settings.twilio_token, settings.connectors.twilio_shared_keys))
    return made


def source_of(settings: EngageSettings, kind: str | None = None) -> Source | None:
    """Where customers come from; raises `ConfigurationError` naming what is missing for it."""
    kind, connectors = kind or settings.crm, settings.connectors
    if kind is None:
        return None
    if kind not in SOURCES:
        raise InvalidInput(f"there is no source {kind[:40]!r}", hint=f"there is: {', '.join(SOURCES)}")
    if kind == "shopify":
        from kiki.engage.crm.shopify import ShopifySource

        token = _needed(settings.shopify_token, kind, "SHOPIFY_ACCESS_TOKEN")
        url = settings.shopify_shop or settings.shopify_store or ""
        base = url if _is_stand_in(url) else None
        return ShopifySource(
            _shop(settings),
            token,
            version=connectors.shopify_version,
            base_url=base,
            webhooks=settings.shopify_secret is not None,
        )
    if kind == "hubspot":
        from kiki.engage.crm.hubspot import HubSpotSource

        return HubSpotSource(
            _needed(settings.hubspot_token, kind, "HUBSPOT_API_KEY"),
            fields=_field_map("HUBSPOT_FIELDS", connectors.hubspot_fields),
            id_property=connectors.hubspot_id or "",
            deals=connectors.deals,
            version=connectors.hubspot_version,
            base_url=connectors.hubspot_url,
        )
    if kind == "salesforce":
        from kiki.engage.crm.salesforce import SalesforceSource

        url = _needed(settings.salesforce_url or settings.salesforce_instance, kind, "SALESFORCE_INSTANCE_URL")
        return SalesforceSource(
            url,
            _salesforce_authorization(settings, url),
            fields=_field_map("SALESFORCE_FIELDS", connectors.salesforce_fields),
            external_id=connectors.salesforce_id or "",
            deals=connectors.deals,
            version=connectors.salesforce_version,
        )
    customers = _needed(settings.customers, kind, "KIKI_ENGAGE_CUSTOMERS")
    if kind == "csv":
        from kiki.engage.crm.csv_file import CsvSource

        return CsvSource(customers, settings.orders)
    from kiki.engage.crm.postgres import PostgresSource

    orders = "" if settings.orders is None else _text(settings.orders)
    return PostgresSource(_needed(settings.crm_database, kind, "POSTGRES_CONN_STRING"), _text(customers), orders)


def read_playbooks(settings: EngageSettings) -> dict[str, Playbook]:
    """The playbooks of this service by name, templates checked; raises `PlaybookError` with every mistake."""
    where = settings.playbooks
    if where is None:
        return {}
    files = sorted([*where.glob("*.yaml"), *where.glob("*.yml")]) if where.is_dir() else [where]
    if not files:
        raise PlaybookError([f"{where}: there is no .yaml file in it"])
    found: dict[str, Playbook] = {}
    problems: list[str] = []
    for file in files:
        try:
            playbook = read_playbook(file)
        except PlaybookError as error:
            problems += error.problems
            continue
        if playbook.name in found:
            problems.append(f"{file}: another file has a playbook of the name {playbook.name!r} already")
        if not settings.enable_ab_testing:
            playbook = msgspec.structs.replace(playbook, explore=0)
        found[playbook.name] = playbook
    if problems:
        raise PlaybookError(problems)
    return found


def read_playbook(file: Path) -> Playbook:
    """One playbook, templates checked; raises `PlaybookError`."""
    return parse_playbook(playbook_text(file), str(file))


def playbook_text(file: Path) -> str:
    """The text of a playbook's file; a bare name that is no file here is one of those that come with kiki: `legacy`."""
    return _text(_ours(file) if is_ours(file) else file)


def is_ours(file: Path) -> bool:
    """Whether that is no file here, but the name of a playbook that comes with kiki."""
    return file.name == str(file) and not file.suffix and not file.exists() and _ours(file).is_file()


def _ours(file: Path) -> Path:
    return Path(kiki.engage.__file__).parent / "playbooks" / f"{file}.yaml"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlaybookError([f"{file}: cannot be read: {error}"]) from error


def _salesforce_authorization(settings: EngageSettings, url: str) -> Authorization:
    """A token as it is, or tokens that a connected app gets by itself."""
    app, secret = settings.connectors.salesforce_client, settings.connectors.salesforce_client_secret
    if app is not None and secret is not None:
        return OAuth2(f"{url}/services/oauth2/token", app, secret, None)
    token = settings.salesforce_token or settings.salesforce_api_token
    return FixedToken(_needed(token, "salesforce", "SALESFORCE_ACCESS_TOKEN"))


def _field_map(name: str, text: str | None) -> dict[str, str]:
    try:
        return parse_field_map(text or "")
    except ValueError as error:
        raise ConfigurationError([f"{name}: {error}"]) from None


def _shop(settings: EngageSettings) -> str:
    url = settings.shopify_shop or settings.shopify_store
    if not url:
        raise ConfigurationError(["SHOPIFY_SHOP_URL is missing: write the shop, my-shop.myshopify.com"])
    return url.partition("://")[2].strip("/") if "://" in url else url.strip("/")


def _is_stand_in(url: str) -> bool:
    return url.startswith("http://") and is_loopback(url.partition("://")[2].partition(":")[0].strip("/"))


def _needed(value: _Value | None, kind: str, name: str) -> _Value:
    if value is None:
        raise ConfigurationError([f"{name} is missing: the source {kind} needs it"])
    return value
