"""SyncEngage's variables, and those of its providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kiki.settings.address import http_url, https_url
from kiki.settings.secret import Secret
from kiki.settings.values import (
    api_version,
    boolean,
    field_name,
    named_secrets,
    one_of,
    path,
    printable,
    seconds_float,
    share,
)
from kiki.settings.variable import Variable

ENGAGE_PORT: Final = 8083
ENGAGE_VARIABLES: Final = (
    Variable("KIKI_ENGAGE_PLAYBOOKS", "playbooks", path, None, "a playbook, or a directory of them; unset: nothing is sent by itself"),
    Variable(
        "KIKI_ENGAGE_RUN_SECONDS", "run_seconds", seconds_float(86400, zero=True), "60",
        "how often playbooks are run; 0: only when asked",
    ),
    Variable("KIKI_ENGAGE_HOLDOUT", "holdout", share, "5%", "share of all customers whom no playbook reaches; keep it as it is"),
    Variable("KIKI_ENGAGE_PUBLIC_URL", "public_url", http_url, None, "where mail programs and providers reach this service, https://…"),
    Variable(
        "KIKI_ENGAGE_OUTBOX", "outbox", path, None,
        "directory that takes the messages of channels without a provider; unset: outbox in KIKI_DATA_DIR",
    ),
    Variable("KIKI_ENGAGE_LINK_SECRET", "link_secret", Secret, None, "signs unsubscribe links, 16 bytes or more; unset: from the key store", None),
    Variable(
        "KIKI_ENGAGE_PRIVACY_SECRET", "privacy_secret", Secret, None,
        "the secret of KIKI_SUBJECT_SYSTEMS_FILE for this service; unset: no requests of persons by HTTP", None,
    ),
    Variable("AUDIT_LOG_PATH", "audit_path", path, "syncengage_audit.csv", "CSV of what /trigger answered"),
    Variable("SYNCENGAGE_CRM_PROVIDER", "crm", one_of("shopify", "hubspot", "salesforce", "postgres", "csv"), None, "where customers come from"),
    Variable("CRM_POLL_INTERVAL", "poll_seconds", seconds_float(86400), "300", "seconds between two looks at it"),
    Variable("SHOPIFY_SHOP_URL", "shopify_shop", https_url, None, "the shop, my-shop.myshopify.com"),
    Variable("SHOPIFY_STORE_URL", "shopify_store", https_url, None, "the same under its other name"),
    Variable("SHOPIFY_ACCESS_TOKEN", "shopify_token", Secret, None, "its Admin API token", None),
    Variable("SHOPIFY_API_SECRET", "shopify_secret", Secret, None, "the app's client secret, which proves webhooks", None),
    Variable("HUBSPOT_API_KEY", "hubspot_token", Secret, None, "a private app's token", None),
    Variable("HUBSPOT_CLIENT_SECRET", "hubspot_secret", Secret, None, "the app's client secret, which proves webhooks", None),
    Variable("SALESFORCE_INSTANCE_URL", "salesforce_url", https_url, None, "https://my-domain.my.salesforce.com"),
    Variable("SALESFORCE_INSTANCE", "salesforce_instance", https_url, None, "the same under its other name"),
    Variable("SALESFORCE_ACCESS_TOKEN", "salesforce_token", Secret, None, "its access token", None),
    Variable("SALESFORCE_API_TOKEN", "salesforce_api_token", Secret, None, "the same under its other name", None),
    Variable("POSTGRES_CONN_STRING", "crm_database", Secret, None, "the database of customers, where that is the source", None),
    Variable("KIKI_ENGAGE_CUSTOMERS", "customers", path, None, "a CSV of customers, or a file with the SELECT that gives them"),
    Variable("KIKI_ENGAGE_ORDERS", "orders", path, None, "the same for orders"),
    Variable("SENDGRID_API_KEY", "sendgrid_key", Secret, None, "sends mail; unset: mail goes to the outbox", None),
    Variable("SENDGRID_FROM_EMAIL", "sendgrid_from", printable, None, "a sender that SendGrid has verified"),
    Variable("SENDGRID_WEBHOOK_KEY", "sendgrid_webhook_key", printable, None, "the verification key of its event webhook"),
    Variable("TWILIO_ACCOUNT_SID", "twilio_sid", printable, None, "the account that sends SMS"),
    Variable("TWILIO_AUTH_TOKEN", "twilio_token", Secret, None, "its token, which proves webhooks, too", None),
    Variable("TWILIO_FROM_PHONE", "twilio_from", printable, None, "its number, or a messaging service (MG…)"),
    Variable("KIKI_ENGAGE_WEBHOOK_URL", "webhook_url", http_url, None, "a system of your own that takes messages of the channel webhook"),
    Variable("KIKI_ENGAGE_WEBHOOK_SECRET", "webhook_secret", Secret, None, "signs them", None),
    Variable("ENABLE_SMS", "enable_sms", boolean, "true", "false: no SMS, whatever playbooks say"),
    Variable("ENABLE_WEBHOOKS", "enable_webhooks", boolean, "true", "false: calls of providers are not taken"),
    Variable("ENABLE_AB_TESTING", "enable_ab_testing", boolean, "true", "false: nobody gets an offer by chance"),
    Variable(
        "ENABLE_PREDICTIVE_CHURN", "enable_churn", boolean, "true",
        "false: SyncValue is not asked about churn and value",
    ),
)  # fmt: skip


CONNECTOR_VARIABLES: Final = (
    Variable("SHOPIFY_API_VERSION", "shopify_version", api_version(r"20[0-9]{2}-[0-9]{2}", "2026-10"), "2026-10", "the version of its Admin API"),
    Variable("HUBSPOT_API_VERSION", "hubspot_version", api_version(r"v3|20[0-9]{2}-[0-9]{2}", "v3 or 2026-03"), "v3", "the version of its CRM API"),
    Variable("HUBSPOT_API_URL", "hubspot_url", https_url, "https://api.hubapi.com", "where its API is"),
    Variable("HUBSPOT_FIELDS", "hubspot_fields", printable, None, "contact properties that hold what we know otherwise: total_spend=ltv,last_purchase=last_order"),
    Variable("HUBSPOT_ID_PROPERTY", "hubspot_id", field_name, None, "a unique property that holds the customers' ids; unset: HubSpot's own"),
    Variable("SALESFORCE_API_VERSION", "salesforce_version", api_version(r"[0-9]{2}\.0", "66.0"), "66.0", "the version of its REST API"),
    Variable("SALESFORCE_FIELDS", "salesforce_fields", printable, None, "fields of Contact: total_spend=LTV__c,last_purchase=Last_Order__c"),
    Variable("SALESFORCE_EXTERNAL_ID", "salesforce_id", field_name, None, "the external id of Contact that holds the customers' ids; unset: Salesforce's own"),
    Variable("SALESFORCE_CLIENT_ID", "salesforce_client", printable, None, "a connected app that gets tokens by itself (client credentials)"),
    Variable("SALESFORCE_CLIENT_SECRET", "salesforce_client_secret", Secret, None, "its secret", None),
    Variable("KIKI_ENGAGE_DEALS", "deals", boolean, "true", "false: deals that HubSpot or Salesforce call won are no orders"),
    Variable("SENDGRID_API_URL", "sendgrid_url", https_url, "https://api.sendgrid.com", "where its API is; accounts in the EU: https://api.eu.sendgrid.com"),
    Variable("SENDGRID_FROM_NAME", "sendgrid_name", printable, None, "the sender's name in mail"),
    Variable("TWILIO_API_URL", "twilio_url", https_url, "https://api.twilio.com", "where its API is"),
    Variable("TWILIO_SHARED_KEYS", "twilio_shared_keys", named_secrets, None, "key=secret of shared keys that sign its webhooks", None),
)  # fmt: skip


SPELLINGS: Final = (
    ("SHOPIFY_SHOP_URL", "SHOPIFY_STORE_URL"),
    ("SALESFORCE_INSTANCE_URL", "SALESFORCE_INSTANCE"),
    ("SALESFORCE_ACCESS_TOKEN", "SALESFORCE_API_TOKEN"),
)
"""Two names of one thing."""


CRM_NEEDS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "shopify": (SPELLINGS[0], ("SHOPIFY_ACCESS_TOKEN",)),
    "hubspot": (("HUBSPOT_API_KEY",),),
    "salesforce": (SPELLINGS[1], (*SPELLINGS[2], "SALESFORCE_CLIENT_ID")),
    "postgres": (("POSTGRES_CONN_STRING",), ("KIKI_ENGAGE_CUSTOMERS",)),
    "csv": (("KIKI_ENGAGE_CUSTOMERS",),),
}
"""What each source of customers cannot do without: of each group, one."""
