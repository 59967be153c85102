"""SyncShield's variables, and those of Redis."""

from __future__ import annotations

from typing import Final

from kiki.settings.address import redis_address, redis_prefix, without_credentials
from kiki.settings.secret import Secret
from kiki.settings.values import (
    boolean,
    byte_size,
    country,
    currency,
    money,
    one_of,
    path,
    purposes,
    seconds,
    seconds_float,
    time_zone,
    user_name,
    whole_number,
)
from kiki.settings.variable import Variable

WINDOW_SECONDS_MAX: Final = 366 * 24 * 3600
REDIS_VARIABLES: Final = (
    Variable(
        "REDIS_ADDR", "redis_addr", redis_address, "localhost:6379",
        "host:port, redis://, rediss:// or redis+cluster:// address of the shared window", without_credentials,
    ),
    Variable("REDIS_USERNAME", "redis_username", user_name, None, "user for Redis, when the address names none"),
    Variable("REDIS_PASSWORD", "redis_password", Secret, None, "password for Redis, when the address names none", None),
    Variable("REDIS_TLS", "redis_tls", boolean, None, "speak TLS to Redis; unset: as the address says"),
    Variable("KIKI_REDIS", "redis_mode", one_of("auto", "off"), "auto", "off keeps the window in this process"),
    Variable("KIKI_REDIS_PREFIX", "redis_prefix", redis_prefix, "kiki", "first part of every key in Redis"),
    Variable(
        "KIKI_REDIS_TIMEOUT_SECONDS", "redis_timeout_seconds", seconds_float(60), "0.25",
        "how long one answer of Redis may take before the window counts as lost",
    ),
)  # fmt: skip


SHIELD_VARIABLES: Final = (
    Variable("KIKI_DATA_DIR", "data_dir", path, "./kiki-data", "directory that holds all that the service writes"),
    Variable("MAX_BURST_BUDGET", "budget_micros", money, "500.0", "money that the default budget admits in its window"),
    Variable("WINDOW_SECONDS", "window_micros", seconds(WINDOW_SECONDS_MAX), "60.0", "length of the default budget's sliding window"),
    Variable("MIN_LTV", "ltv_min_micros", money, "10", "smallest lifetime value that /check admits"),
    Variable("MAX_LTV", "ltv_max_micros", money, "10000", "largest lifetime value that /check admits"),
    Variable("KIKI_CURRENCY", "currency", currency, "USD", "the one currency of all amounts"),
    Variable("KIKI_POLICY_FILE", "policy_file", path, None, "YAML file of budgets; unset: the default budget alone"),
    Variable("RETENTION_DAYS", "retention_days", whole_number(1, 36500), "2555", "how long evidence is kept"),
    Variable("KIKI_SCOPES_MAX", "scopes_max", whole_number(1, 10**9), "1000000", "live scopes; beyond it new ones are refused"),
    Variable("KIKI_KEYS_MAX", "keys_max", whole_number(1, 10**10), "10000000", "remembered idempotency keys; beyond it new ones are refused"),
    Variable("KIKI_LOG_LEVEL", "log_level", one_of("debug", "info", "warning", "error"), "info", "least level that is logged"),
    Variable("KIKI_AUDIT_CSV", "audit_csv", boolean, "true", "keep shield_audit_gdpr.csv beside the ledger"),
    Variable("KIKI_AUDIT_CSV_BYTES_MAX", "audit_csv_bytes_max", byte_size(4096, 2**40), "256MiB", "size at which that file is rotated"),
    Variable("KIKI_PURPOSES", "purposes", purposes, None, "purposes of consent beside the usual ones, divided by commas"),
    Variable("KIKI_HOLIDAYS", "holidays", country, None, "country whose public holidays move a statutory deadline, for example DE or US-CA"),
    Variable("KIKI_TIME_ZONE", "time_zone", time_zone, "UTC", "time zone whose days statutory deadlines are counted in"),
    Variable("KIKI_SUBJECT_SYSTEMS_FILE", "subject_systems_file", path, None, "YAML file of your own systems that hold personal data"),
)  # fmt: skip
