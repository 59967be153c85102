"""SyncFlow's variables."""

from __future__ import annotations

from typing import Final

from kiki.settings.address import http_url
from kiki.settings.values import executor_name, seconds_float, whole_number
from kiki.settings.variable import Variable

FLOW_PORT: Final = 8082
FLOW_VARIABLES: Final = (
    Variable("KIKI_FLOW_GRPC_PORT", "grpc_port", whole_number(0, 65535), "50052", "gRPC port of SyncFlow, for bids; 0 takes any free one"),
    Variable(
        "KIKI_FLOW_EXECUTOR", "executor", executor_name, None,
        "stable name of this runner, never given to two; unset: the host's name",
    ),
    Variable("KIKI_FLOW_LEASE_SECONDS", "lease_seconds", seconds_float(3600), "15", "how long a run stays a runner's own that is not heard of"),
    Variable(
        "KIKI_FLOW_GRACE_SECONDS", "grace_seconds", seconds_float(24 * 3600), "930",
        "how much longer nobody takes it over: the longest time for which a call of that runner may still have an effect",
    ),
    Variable("KIKI_FLOW_SANDBOX", "sandbox_url", http_url, None, "address of a sandbox for plans with `platforms: sandbox`; unset: one of its own"),
    Variable(
        "KIKI_FLOW_SANDBOX_DAY_SECONDS", "sandbox_day_seconds", seconds_float(24 * 3600), "5",
        "how long a day takes in a runner's own sandbox, when that begins",
    ),
)  # fmt: skip
