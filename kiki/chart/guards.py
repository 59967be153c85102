"""What no schema can say about values: those that contradict each other. Pure.

The chart refuses the same in the same words (templates/_guards.tpl), for who installs it with Helm alone; a test holds
the two together. Here they are told without an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kiki.chart.values import at

COMPONENTS: Final = ("syncshield", "syncvalue", "syncflow", "syncengage")
_NEEDS: Final = {
    "aws": ("region",),
    "azure": ("azure.tenantId", "azure.vaultUrl"),
    "gcp": ("gcp.clusterLocation", "gcp.clusterName", "gcp.projectID"),
}

_PORT: Final = "probes, Services and policies go by the chart's own; leave it out"
_PLACE: Final = "the chart mounts what is there; leave it out"
_POD: Final = "each pod is told its own; leave it out"
OWN_SETTINGS: Final = {
    **dict.fromkeys(
        (
            *("PORT", "KIKI_HOST", "KIKI_VALUE_PORT", "KIKI_VALUE_HTTP_PORT", "KIKI_FLOW_GRPC_PORT"),
            *("KIKI_PUBLIC_PORT", "KIKI_PUBLIC_HOST"),
        ),
        _PORT,
    ),
    **dict.fromkeys(("KIKI_DATA_DIR", "KIKI_TOKENS_FILE", "KIKI_MASTER_KEY_FILE", "KIKI_SHIELD_TOKEN_FILE"), _PLACE),
    **dict.fromkeys(
        (
            *("KIKI_FLOW_EXECUTOR", "KIKI_REPLICA", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"),
            *("POD_NAME", "POD_NAMESPACE", "NODE_NAME"),
        ),
        _POD,
    ),
    "KIKI_DRAIN_SECONDS": "set drain.seconds",
    "DB_HOST": "set postgres.host",
    "DB_PORT": "set postgres.port",
    "DB_NAME": "set postgres.database",
    "DB_USER": "set postgres.user",
    "REDIS_ADDR": "set redis.address",
    "REDIS_TLS": "set redis.tls",
    "KIKI_ARCHIVE": "set audit.shipTo",
}
"""Settings that other parts of a release go by, and what to do instead of `extraEnv`."""


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each, with its way out; the values fit the schema."""
    enabled = [name for name in COMPONENTS if at(values, f"{name}.enabled")]
    return [*_services(values, enabled), *_secrets(values), *_rest(values, enabled)]


def has_postgres(values: Mapping[str, Any]) -> bool:
    """Whether the ledger is shared."""
    return bool(at(values, "postgres.host") or at(values, "postgres.enabled"))


def has_redis(values: Mapping[str, Any]) -> bool:
    """Whether the window is shared."""
    return bool(at(values, "redis.address") or at(values, "redis.enabled"))


def _services(values: Mapping[str, Any], enabled: list[str]) -> Iterator[str]:
    for name in enabled:
        own = values[name]
        for setting in own["extraEnv"].keys() & OWN_SETTINGS.keys():
            yield f"{name}.extraEnv.{setting}: the chart sets it; {OWN_SETTINGS[setting]}"
        scaled = at(own, "autoscaling.enabled", default=False)
        low, high = (
            (own["autoscaling"][f"{which}Replicas"] for which in ("min", "max"))
            if scaled
            else (own["replicaCount"],) * 2
        )
        if high > 1 and name != "syncvalue" and not has_postgres(values):
            yield (
                f"{name}.replicaCount: {high:d} replicas need a shared database; set postgres.host (or postgres.enabled), "
                "or one replica without autoscaling"
            )
        if high > 1 and name == "syncshield" and not has_redis(values):
            yield (
                f"{name}.replicaCount: {high:d} replicas need a shared window; set redis.address (or redis.enabled), "
                "or one replica without autoscaling"
            )
        if low > high:
            yield f"{name}.autoscaling.minReplicas: {low:d} is more than maxReplicas, {high:d}; lower the one or raise the other"
        least = at(own, "pdb.minAvailable", default=0)
        if at(values, "pdb.enabled") and least >= low > 0 and least:
            yield (
                f"{name}.pdb.minAvailable: {least:d} of {low:d} replicas would block every drain of a node for ever; "
                f"set it below {low:d}, or 0 for one pod at a time"
            )


def _secrets(values: Mapping[str, Any]) -> Iterator[str]:
    operator = values["externalSecrets"]
    if not operator["enabled"]:
        if not at(values, "keys.existingSecret"):
            yield (
                "keys.existingSecret: name the Secret that holds kiki_master_key, kiki_tokens and kiki_shield_token "
                "(docs/deploy/secrets.md makes it), or set externalSecrets.enabled"
            )
        return
    provider = operator["provider"]
    if provider not in _NEEDS:
        yield f"externalSecrets.provider: expected {' or '.join(_NEEDS)}, and null took it away"
        return
    for path in _NEEDS[provider]:
        if not at(operator, path):
            yield f"externalSecrets.{path}: the provider {provider} needs it; set it"


def _rest(values: Mapping[str, Any], enabled: list[str]) -> Iterator[str]:
    otel = values["otel"]
    if otel["enabled"] and not (at(otel, "collector.endpoint") or at(otel, "collector.deploy")):
        yield "otel.collector.endpoint: telemetry has nowhere to go; set it to host:port, or set otel.collector.deploy"
    ingress = values["ingress"]
    if ingress["enabled"] and ingress["tls"]:
        covered = {host for certificate in ingress["tls"] for host in certificate["hosts"]}
        named = [at(values, f"global.domain.{name[4:]}") for name in ("syncshield", "syncengage") if name in enabled]
        for host in [*named, *(one["host"] for one in ingress["hosts"])]:
            if host not in covered:
                yield f"ingress.tls: no certificate for {host}; list the host under one of them, or leave ingress.tls empty"
    yield from _unused(values)
    public = ingress["enabled"] or at(values, "gateway.enabled") or at(values, "networkPolicy.allowExternal")
    for key in ("mailFrom", "smsFrom"):
        if "syncengage" in enabled and values["syncengage"][key] and not public:
            yield (
                f"syncengage.{key}: a message carries a link to unsubscribe, which must be reached; set ingress.enabled or "
                "gateway.enabled"
            )
    crm = values["syncengage"]["crm"]
    if crm["provider"] in {"shopify", "salesforce"} and not crm["url"]:
        yield f"syncengage.crm.url: the source {crm['provider']} needs it; set it to the shop or the instance"
    if crm["url"] and crm["provider"] not in {"shopify", "salesforce"}:
        yield (
            "syncengage.crm.url: only shopify and salesforce have one; set syncengage.crm.provider, or leave it empty"
        )
    if at(values, "audit.shipTo") and "syncshield" not in enabled:
        yield (
            "audit.shipTo: SyncShield ships the ledger, and syncshield.enabled is false; enable it or leave "
            "audit.shipTo empty"
        )


def _unused(values: Mapping[str, Any]) -> Iterator[str]:
    """Parts of the release that nobody would use."""
    for key, name, other in (("redis", "Redis", "address"), ("postgres", "PostgreSQL", "host")):
        if values[key]["enabled"] and values[key][other]:
            yield (
                f"{key}.enabled: the release's own {name} would stand unused beside {key}.{other}; set one of the two"
            )
    otel = values["otel"]
    if at(otel, "collector.deploy") and not otel["enabled"]:
        yield "otel.collector.deploy: nothing sends to it; set otel.enabled"
    if at(otel, "jaeger.deploy") and not at(otel, "collector.deploy"):
        yield "otel.jaeger.deploy: traces come to it through the collector; set otel.collector.deploy"
    if at(values, "clusterIssuer.create") and not at(values, "ingress.issuer"):
        yield "clusterIssuer.create: ingress.issuer is its name; set it"
