"""What the chart may say to operators, field by field: closed schemas of the CRDs' parts that it uses.

Written from the operators' published API reference (External Secrets 0.16+, cert-manager 1.x, Gateway API v1, Prometheus
operator v1): a field that is not listed here is refused, as a strict API server would.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string", "minLength": 1}


def closed(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def many(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


ACCOUNT = closed(("name",), name=TEXT, namespace=TEXT, audiences=many(TEXT))
PROVIDERS = closed(
    aws=closed(
        ("service", "region"),
        service={"enum": ["SecretsManager", "ParameterStore"]},
        region=TEXT,
        role=TEXT,
        auth=closed(jwt=closed(serviceAccountRef=ACCOUNT)),
    ),
    azurekv=closed(
        ("vaultUrl",),
        authType={"enum": ["ServicePrincipal", "ManagedIdentity", "WorkloadIdentity"]},
        vaultUrl=TEXT,
        tenantId=TEXT,
        serviceAccountRef=ACCOUNT,
    ),
    gcpsm=closed(
        ("projectID",),
        projectID=TEXT,
        location=TEXT,
        auth=closed(
            workloadIdentity=closed(
                ("serviceAccountRef",),
                clusterLocation=TEXT,
                clusterName=TEXT,
                clusterProjectID=TEXT,
                serviceAccountRef=ACCOUNT,
            )
        ),
    ),
)
REMOTE = closed(("key",), key=TEXT, property=TEXT, version=TEXT)
SPECS: dict[tuple[str, str], dict[str, Any]] = {
    ("external-secrets.io/v1", "SecretStore"): closed(("provider",), provider={**PROVIDERS, "maxProperties": 1}),
    ("external-secrets.io/v1", "ExternalSecret"): closed(
        ("secretStoreRef", "target", "data"),
        refreshInterval=TEXT,
        refreshPolicy={"enum": ["Periodic", "OnChange", "CreatedOnce"]},
        secretStoreRef=closed(("name",), name=TEXT, kind={"enum": ["SecretStore", "ClusterSecretStore"]}),
        target=closed(
            name=TEXT,
            creationPolicy={"enum": ["Owner", "Orphan", "Merge", "None"]},
            deletionPolicy={"enum": ["Delete", "Merge", "Retain"]},
            immutable={"type": "boolean"},
        ),
        data=many(
            closed(
                ("secretKey", "remoteRef"),
                secretKey={"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"},
                remoteRef=REMOTE,
            )
        ),
    ),
    ("cert-manager.io/v1", "ClusterIssuer"): closed(
        acme=closed(
            ("server", "privateKeySecretRef", "solvers"),
            server=TEXT,
            email=TEXT,
            privateKeySecretRef=closed(("name",), name=TEXT),
            solvers=many(closed(http01=closed(ingress=closed(ingressClassName=TEXT)))),
        )
    ),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): closed(
        parentRefs=many(closed(("name",), name=TEXT, namespace=TEXT, sectionName=TEXT)),
        hostnames=many(TEXT),
        rules=many(
            closed(
                matches=many(closed(path=closed(type={"enum": ["Exact", "PathPrefix"]}, value=TEXT))),
                backendRefs=many(closed(("name", "port"), name=TEXT, port={"type": "integer"})),
            )
        ),
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        ("selector", "endpoints"),
        selector=closed(matchLabels={"type": "object", "additionalProperties": {"type": "string"}}),
        endpoints=many(closed(port=TEXT, path=TEXT, interval=TEXT, scrapeTimeout=TEXT)),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed(
        ("groups",),
        groups=many(
            closed(
                ("name", "rules"),
                name=TEXT,
                interval=TEXT,
                rules=many(
                    closed(
                        ("expr",),
                        alert=TEXT,
                        record=TEXT,
                        expr={"type": ["string", "integer"]},
                        labels={"type": "object", "additionalProperties": {"type": "string"}},
                        annotations={"type": "object", "additionalProperties": {"type": "string"}},
                        keep_firing_for=TEXT,
                        **{"for": TEXT},
                    )
                ),
            )
        ),
    ),
}
