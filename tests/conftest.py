"""What every test stands on: a clean environment, real servers on demand, hypothesis without a stopwatch."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.servers import own_postgres, own_redis, postgres, postgres_server, redis, redis_cluster, redis_server

__all__ = ["own_postgres", "own_redis", "postgres", "postgres_server", "redis", "redis_cluster", "redis_server"]

# Settings of the shell that runs the tests must not reach what they test, nor the processes they start. Done
# on import, before any fixture can read them. Proxies go too: every address here is on the loopback.
_PREFIXES = (
    *("KIKI_", "REDIS_", "DB_", "POSTGRES_", "PG", "LTV_", "OTEL_", "SENDGRID_", "TWILIO_", "SHOPIFY_", "HUBSPOT_"),
    *("SALESFORCE_", "SYNCENGAGE_", "ENABLE_"),
)
_NAMES = {
    *("PORT", "MAX_BURST_BUDGET", "WINDOW_SECONDS", "RETENTION_DAYS", "MIN_LTV", "MAX_LTV", "SHIELD_URL"),
    *("DATABASE_URL", "LOG_LEVEL", "OUTPUT_DIR", "CACHE_DIR", "CRM_POLL_INTERVAL", "AUDIT_LOG_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "COLUMNS"),
}
for _name in list(os.environ):
    if _name.upper() in _NAMES or _name.startswith(_PREFIXES):
        del os.environ[_name]

# A deadline would fail a correct example on a busy machine. Everybody gets the same examples, so that a change is judged by what it
# changed and not by luck; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, print_blob=True
)
settings.register_profile(
    "explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=1000, print_blob=True
)
settings.load_profile("same")
