"""The chart with one line spoilt at a time: how many of these mutants the tests' own rules notice.

Each mutant is a text of one template and what stands there instead. Nothing of checkov or of a cluster is asked: what is
counted is whether tests/deploy/rules.py, the reachability of docs/deploy/network.md or the immutable names object.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import Row
from tests.deploy.reachability import table
from tests.deploy.renders import CHART, ROOT, Engine, layers
from tests.deploy.rules import objections

CASES = (
    ("prod", layers("prod")),
    ("staging", layers("staging", "gateway.enabled=true", "syncvalue.model.existingClaim=models")),
    ("dev", layers("dev")),
)

# Template, what stands in it, what stands there instead. Every text must be found, or the mutant is no mutant.
MUTANTS: tuple[tuple[str, str, str], ...] = (
    # who a pod runs as
    ("_pod.tpl", "  runAsNonRoot: true\n  runAsUser: 10001\n  runAsGroup: 10001\n  fsGroup: 10001", "  fsGroup: 10001"),
    ("_pod.tpl", "  readOnlyRootFilesystem: true\n  runAsNonRoot: true\n  runAsUser: 10001", "  readOnlyRootFilesystem: true\n  runAsNonRoot: false\n  runAsUser: 0"),
    ("_pod.tpl", "  readOnlyRootFilesystem: true\n  runAsNonRoot: true\n  runAsUser: 10001", "  readOnlyRootFilesystem: true\n  runAsNonRoot: true\n  runAsUser: 1000"),
    ("_pod.tpl", "  fsGroup: 10001\n", ""),
    ("_pod.tpl", "  allowPrivilegeEscalation: false\n", ""),
    ("_pod.tpl", "  allowPrivilegeEscalation: false", "  allowPrivilegeEscalation: true"),
    ("_pod.tpl", "  privileged: false", "  privileged: true"),
    ("_pod.tpl", "  readOnlyRootFilesystem: true\n", ""),
    ("_pod.tpl", "  readOnlyRootFilesystem: true", "  readOnlyRootFilesystem: false"),
    ("_pod.tpl", "    drop: [ALL]", "    drop: [NET_RAW]"),
    ("_pod.tpl", "    drop: [ALL]", "    drop: [ALL]\n    add: [NET_ADMIN]"),
    ("_pod.tpl", "RuntimeDefault", "Unconfined"),
    ("_pod.tpl", "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    ("_pod.tpl", "automountServiceAccountToken: false\n", ""),
    ("_pod.tpl", "enableServiceLinks: false", "enableServiceLinks: true"),
    ("_pod.tpl", "enableServiceLinks: false", "hostNetwork: true\nenableServiceLinks: false"),
    ("_pod.tpl", "enableServiceLinks: false", "hostPID: true\nenableServiceLinks: false"),
    ("serviceaccount.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    # its files
    ("_pod.tpl", "defaultMode: 0440", "defaultMode: 0644"),
    ("_pod.tpl", "    sizeLimit: 256Mi\n", "    medium: Memory\n    sizeLimit: 256Mi\n"),
    ("_pod.tpl", "  emptyDir:\n    sizeLimit: 256Mi", "  hostPath:\n    path: /tmp"),
    ("syncshield.yaml", "          emptyDir:\n            sizeLimit: {{ .Values.audit.storage.size }}", "          emptyDir:\n            medium: Memory\n            sizeLimit: 1Gi"),
    ("syncshield.yaml", '"workingDir" "/var/audit-logs"', '"workingDir" "/tmp"'),
    ("syncshield.yaml", "  mountPath: /var/audit-logs", "  mountPath: /var/audit"),
    ("syncshield.yaml", "  mountPath: /etc/kiki/keys\n  readOnly: true", "  mountPath: /etc/kiki/keys"),
    ("_pod.tpl", "    - name: tmp\n      mountPath: /tmp\n", ""),
    ("syncshield.yaml", "    helm.sh/resource-policy: keep", "    helm.sh/resource-policy: none"),
    ("syncflow.yaml", "    whenScaled: Retain", "    whenScaled: Delete"),
    # resources
    ("_pod.tpl", "  resources:\n    {{- toYaml $own.resources | nindent 4 }}", "  resources: {}"),
    ("redis.yaml", "            {{- toYaml .Values.redis.resources | nindent 12 }}", "            requests: {cpu: 50m, memory: 64Mi}"),
    ("tests/reachable.yaml", "        limits: {cpu: 200m, memory: 128Mi}", "        limits: {cpu: 200m, memory: 32Mi}"),
    # probes and going
    ("_pod.tpl", "  startupProbe:\n    httpGet:\n      path: /livez\n      port: http\n    periodSeconds: 2\n    timeoutSeconds: 2\n    failureThreshold: 60\n", ""),
    ("_pod.tpl", "    failureThreshold: 60", "    failureThreshold: 6"),
    ("_pod.tpl", "  livenessProbe:\n    httpGet:\n      path: /livez", "  livenessProbe:\n    httpGet:\n      path: /readyz"),
    ("_pod.tpl", "  path: /readyz", "  path: /health"),
    ("_pod.tpl", "  path: /readyz\n  port: http", "  path: /readyz\n  port: metrics"),
    ("_pod.tpl", "  path: /readyz\n  port: http", "  path: /readyz\n  port: http\n  host: example.com"),
    ("_pod.tpl", "(int .Values.drain.seconds) 15", "(int .Values.drain.seconds) -15"),
    ("_pod.tpl", '["sleep", {{ include "kiki.text" .root.Values.drain.preStopSeconds | quote }}]', '["sleep", "0"]'),
    ("_config.tpl", 'KIKI_DRAIN_SECONDS: {{ include "kiki.text" .Values.drain.seconds | quote }}', 'KIKI_DRAIN_SECONDS: "120"'),
    ("syncvalue.yaml", '"grpc:\\n  port: 50051"', '"grpc:\\n  port: 9051"'),
    ("_pod.tpl", "    maxUnavailable: 0", "    maxUnavailable: 1"),
    ("_pod.tpl", "    maxSurge: 1", "    maxSurge: 0"),
    ("_pod.tpl", "  type: Recreate", "  type: RollingUpdate"),
    ("_pod.tpl", "minReadySeconds: 5\n", ""),
    ("_pod.tpl", "progressDeadlineSeconds: 300", "progressDeadlineSeconds: 3600"),
    ("_pod.tpl", '    checksum/config: {{ include "kiki.configData" . | sha256sum }}\n', ""),
    # names, selectors, ports
    ("_pod.tpl", "  matchLabels:\n    app: {{ .name }}\nstrategy", "  matchLabels:\n    app.kubernetes.io/name: {{ .name }}\nstrategy"),
    ("_pod.tpl", "      matchLabels:\n        app: {{ $.name }}", "      matchLabels:\n        app: kiki"),
    ("_names.tpl", "app.kubernetes.io/instance: {{ .root.Release.Name | quote }}\napp.kubernetes.io/part-of: kiki\n{{- end", "app.kubernetes.io/instance: {{ .root.Release.Name | quote }}\n{{- end"),
    ("syncshield.yaml", '"name" "http" "number" 8081', '"name" "http" "number" 8080'),
    ("syncshield.yaml", "      port: 80\n", "      port: 8080\n"),
    ("syncshield.yaml", "    app: syncshield\n  ports:", "    app: syncflow\n  ports:"),
    ("syncvalue.yaml", "      targetPort: grpc", "      targetPort: http"),
    ("syncflow.yaml", "  serviceName: syncflow-runners", "  serviceName: syncflow-runners\n  hostNetwork: true"),
    ("_config.tpl", 'KIKI_HOST: "0.0.0.0"', 'KIKI_HOST: "127.0.0.1"'),
    ("_config.tpl", 'KIKI_TOKENS_FILE: "/etc/kiki/keys/kiki_tokens"\nKIKI_MASTER_KEY_FILE: "/etc/kiki/keys/kiki_master_key"\nMAX', 'KIKI_MASTER_KEY_FILE: "/etc/kiki/keys/kiki_master_key"\nMAX'),
    ("_config.tpl", "MAX_BURST_BUDGET: {{", "KIKI_MAX_BURST_BUDGET: {{"),
    ("_config.tpl", 'SHIELD_URL: "http://syncshield:80/check"', 'SHIELD_URL: "http://syncshield:8080/check"'),
    ("_config.tpl", 'LTV_GRPC_ADDR: "syncvalue:50051"', 'LTV_GRPC_ADDR: "localhost:50051"'),
    ("_config.tpl", 'OTEL_TRACES_SAMPLER: "parentbased_traceidratio"', 'OTEL_TRACES_SAMPLER: "always_on"'),
    ("_config.tpl", '  valueFrom:\n    secretKeyRef:\n      name: {{ include "kiki.postgresSecret" .root | quote }}\n      key: POSTGRES_PASSWORD', '  value: "kiki"'),
    ("_config.tpl", "DB_USER: {{ .Values.postgres.user | quote }}", 'DB_USER: {{ .Values.postgres.user | quote }}\nDB_PASSWORD: "kiki"'),
    ("configmaps.yaml", 'immutable: true\ndata:\n  {{- include "kiki.configData"', 'data:\n  {{- include "kiki.configData"'),
    ("configmaps.yaml", "    helm.sh/resource-policy: keep\nimmutable: true\ndata:\n  {{-", "    helm.sh/other: keep\nimmutable: true\ndata:\n  {{-"),
    # the network
    ("network-policies.yaml", "  podSelector: {}\n  policyTypes: [Ingress, Egress]", "  podSelector: {}\n  policyTypes: [Ingress]"),
    ("network-policies.yaml", "  podSelector: {}\n", "  podSelector:\n    matchLabels:\n      app: syncshield\n"),
    ("network-policies.yaml", "        - {protocol: UDP, port: 53}\n", ""),
    ("network-policies.yaml", "          podSelector:\n            matchLabels:\n              k8s-app: kube-dns\n", ""),
    ("network-policies.yaml", "        - {protocol: TCP, port: 9081}\n", "        - {protocol: TCP, port: 9081}\n        - {protocol: TCP, port: 8081}\n"),
    ("_network.tpl", "{{- range .Values.networkPolicy.ingressNamespaces }}\n- namespaceSelector:\n    matchLabels:\n      kubernetes.io/metadata.name: {{ . | quote }}\n{{- end }}", "- namespaceSelector: {}"),
    ("network-policies.yaml", "        - {protocol: TCP, port: 8089}\n", "        - {protocol: TCP, port: 8080}\n"),
    ("network-policies.yaml", '      acme.cert-manager.io/http01-solver: "true"\n', "      app: cert-manager\n"),
    ("_network.tpl", "{{- if and .Values.ingress.issuer (or .Values.ingress.enabled $gateway) -}}true", "{{- if false -}}true"),
    ("_network.tpl", "8081: [syncengage, syncflow, kiki-test]", "8081: [syncengage, syncflow, syncvalue, kiki-test]"),
    ("_network.tpl", "50051: [syncengage, syncflow]", "50051: [syncengage]"),
    ("_network.tpl", "        except: [{{ . }}]\n", ""),
    ("_network.tpl", "-}}169.254.0.0/16{{-", "-}}169.253.0.0/16{{-"),
    ("_network.tpl", "  ports:\n    - {protocol: TCP, port: 443}", "  ports:\n    - {protocol: TCP, port: 443}\n    - {protocol: TCP, port: 80}"),
    ("_network.tpl", "  ports:\n    - {protocol: TCP, port: 443}\n", ""),
    ("_network.tpl", "    - {protocol: TCP, port: {{ .port }}}", "    - {protocol: TCP}"),
    ("network-policies.yaml", "              app: syncshield\n      ports:\n        - {protocol: TCP, port: 6379}", "              app.kubernetes.io/part-of: kiki\n      ports:\n        - {protocol: TCP, port: 6379}"),
    # coming in, scaling, draining, secrets
    ("ingress.yaml", "                  name: public", "                  name: http"),
    ("ingress.yaml", "        {{- range $hosts }}\n        - {{ .host | quote }}\n        {{- end }}", "        - shield.kiki.io"),
    ("ingress.yaml", '    nginx.ingress.kubernetes.io/force-ssl-redirect: "true"\n', ""),
    ("ingress.yaml", "  ingressClassName: {{ .Values.global.ingressClass | quote }}\n  tls", "  tls"),
    ("ingress.yaml", "          port: {{ ternary 9081 9083", "          port: {{ ternary 8081 8083"),
    ("hpa.yaml", "      stabilizationWindowSeconds: 300", "      stabilizationWindowSeconds: 0"),
    ("hpa.yaml", "    kind: Deployment", "    kind: StatefulSet"),
    ("_pod.tpl", '{{- if not (include "kiki.replicasRuled" .) }}', "{{- if true }}"),
    ("pdb.yaml", "  maxUnavailable: 1", "  maxUnavailable: 0"),
    ("pdb.yaml", "(lt $least (int (include", "(le $least (int (include"),
    ("pdb.yaml", "  unhealthyPodEvictionPolicy: AlwaysAllow\n", ""),
    ("secrets.yaml", "external-secrets.io/v1\n", "external-secrets.io/v1beta1\n"),
    ("secrets.yaml", "    deletionPolicy: Retain", "    deletionPolicy: Delete"),
    ("secrets.yaml", "      service: SecretsManager", "      service: SecretManager"),
)  # fmt: skip


def noticed(engine: Engine, chart: Path, wanted: dict[str, list[str]]) -> str:
    """The first objection to a chart, or nothing."""
    for name, values in CASES:
        answer = engine.ask(chart=str(chart), values=values, namespace="kiki")
        if "refused" in answer:
            return f"{name}: the engine refuses it"
        try:
            found = engine.objects(values, chart=chart)
            wrong = objections(found)
            if not wrong and table(found) != wanted[name]:
                wrong = ["who reaches whom has changed"]
        except Exception as error:  # a render that the rules cannot even read is noticed
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong:
            return f"{name}: {wrong[0]}"
    return ""


def page() -> dict[str, list[str]]:
    """The committed tables of who reaches whom, and the computed one of dev, which the page leaves out."""
    text = (ROOT / "docs" / "deploy" / "network.md").read_text(encoding="utf-8")
    return {
        name: block.splitlines() for name, block in re.findall(r"```reachability (\w+)\n(.*?)\n```", text, re.DOTALL)
    }


def spoil(chart: Path, template: str, text: str, instead: str) -> None:
    """Put one text for another, everywhere in a template."""
    path = chart / "templates" / template
    before = path.read_text(encoding="utf-8")
    assert text in before, f"{template} does not hold {text!r}"
    path.write_text(before.replace(text, instead), encoding="utf-8")


def spoilt(engine: Engine | None = None, mutants: Any = MUTANTS) -> list[tuple[tuple[str, str, str], str]]:
    """Each mutant with what was noticed."""
    engine = engine or Engine()
    wanted = page() | {"dev": table(engine.objects(layers("dev")))}
    assert noticed(engine, CHART, wanted) == "", "the chart itself is objected to"
    results = []
    for mutant in mutants:
        with tempfile.TemporaryDirectory(prefix="kiki-mutant-") as directory:
            chart = Path(directory) / "kiki"
            shutil.copytree(CHART, chart)
            spoil(chart, *mutant)
            results.append((mutant, noticed(engine, chart, wanted)))
    return results


def run() -> list[Row]:
    """All rows of this part."""
    results = spoilt()
    for (template, text, instead), found in results:
        if not found:
            print(f"UNNOTICED {template}: {text.strip()!r} -> {instead.strip()!r}")
    share = sum(bool(found) for _, found in results) / len(results)
    return [
        Row(f"charts with one line spoilt, noticed of {len(results)}", f"{100 * share:.1f} %", ">= 95 %", share >= 0.95)
    ]


if __name__ == "__main__":
    rows = run()
    print(*(" | ".join(row.cells()) for row in rows), sep="\n")
    sys.exit(any(row.met is False for row in rows))
