"""Settings come from the environment: read once, every mistake reported at once, frozen afterwards.

Each variable is one row of a table in one of the files `*_table.py` (those of clients stand in `client.py`): its name, the attribute it
becomes, how it is read, its default as a person would write it, and what it is for. Parsing, the documentation and the tests
are all made from those rows. `values.py` and `address.py` have the parsers, and a service's own file what it is told in the end.

What is read here is only text; nothing is opened and nothing is connected to. An empty text means "not set" where
there is a way to leave a variable unset, and is a mistake where there is not: an empty MAX_BURST_BUDGET must not
quietly become the default limit.
"""

from __future__ import annotations

from kiki.settings.address import (
    REDIS_PORT,
    RedisAddress,
    database_url,
    grpc_address,
    host_name,
    host_names,
    is_loopback,
    redis_address,
)
from kiki.settings.client import (
    CLIENT_VARIABLES,
    ENGAGE_CLIENT_VARIABLES,
    FLOW_CLIENT_VARIABLES,
    SHIELD_URL_DEFAULT,
    VALUE_CLIENT_VARIABLES,
    checked_token,
    flow_url,
    ltv_address,
    parse_url,
    shield_url,
)
from kiki.settings.engage import ConnectorSettings, EngageSettings
from kiki.settings.engage_table import CONNECTOR_VARIABLES, CRM_NEEDS, ENGAGE_PORT, ENGAGE_VARIABLES, SPELLINGS
from kiki.settings.flow import FlowSettings
from kiki.settings.flow_table import FLOW_PORT, FLOW_VARIABLES
from kiki.settings.ledger import LedgerSettings
from kiki.settings.ledger_table import ARCHIVE_VARIABLES, DATABASE_VARIABLES, KEY_VARIABLES
from kiki.settings.listen import ListenSettings, OtelSettings, parse_listen
from kiki.settings.listen_table import LISTEN_VARIABLES, OTEL_VARIABLES, UP_VARIABLES, listen_variables
from kiki.settings.names import VARIABLES, unknown_names
from kiki.settings.secret import SECRET_BYTES_MIN, Secret
from kiki.settings.shield import RequestSettings, ShieldSettings, shield_setting
from kiki.settings.shield_table import REDIS_VARIABLES, SHIELD_VARIABLES, WINDOW_SECONDS_MAX
from kiki.settings.value import ValueSettings
from kiki.settings.value_table import VALUE_PORT, VALUE_VARIABLES
from kiki.settings.values import (
    archive_url,
    boolean,
    byte_size,
    command,
    country,
    currency,
    executor_name,
    money,
    one_of,
    path,
    purposes,
    rate,
    replica_name,
    seconds,
    seconds_float,
    share,
    time_zone,
    whole_number,
)
from kiki.settings.variable import Variable, printable, without_user

__all__ = [
    "ARCHIVE_VARIABLES",
    "CLIENT_VARIABLES",
    "CONNECTOR_VARIABLES",
    "CRM_NEEDS",
    "DATABASE_VARIABLES",
    "ENGAGE_CLIENT_VARIABLES",
    "ENGAGE_PORT",
    "ENGAGE_VARIABLES",
    "FLOW_CLIENT_VARIABLES",
    "FLOW_PORT",
    "FLOW_VARIABLES",
    "KEY_VARIABLES",
    "LISTEN_VARIABLES",
    "OTEL_VARIABLES",
    "REDIS_PORT",
    "REDIS_VARIABLES",
    "SECRET_BYTES_MIN",
    "SHIELD_URL_DEFAULT",
    "SHIELD_VARIABLES",
    "SPELLINGS",
    "UP_VARIABLES",
    "VALUE_CLIENT_VARIABLES",
    "VALUE_PORT",
    "VALUE_VARIABLES",
    "VARIABLES",
    "WINDOW_SECONDS_MAX",
    "ConnectorSettings",
    "EngageSettings",
    "FlowSettings",
    "LedgerSettings",
    "ListenSettings",
    "OtelSettings",
    "RedisAddress",
    "RequestSettings",
    "Secret",
    "ShieldSettings",
    "ValueSettings",
    "Variable",
    "archive_url",
    "boolean",
    "byte_size",
    "checked_token",
    "command",
    "country",
    "currency",
    "database_url",
    "executor_name",
    "flow_url",
    "grpc_address",
    "host_name",
    "host_names",
    "is_loopback",
    "listen_variables",
    "ltv_address",
    "money",
    "one_of",
    "parse_listen",
    "parse_url",
    "path",
    "printable",
    "purposes",
    "rate",
    "redis_address",
    "replica_name",
    "seconds",
    "seconds_float",
    "share",
    "shield_setting",
    "shield_url",
    "time_zone",
    "unknown_names",
    "whole_number",
    "without_user",
]
