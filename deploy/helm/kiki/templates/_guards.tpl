{{/* What no schema can say: values that contradict each other. All of them are told at once, each with its way out. */}}

{{- define "kiki.guards" -}}
{{- $wrong := list -}}
{{- $database := include "kiki.postgresHost" . -}}
{{- range (include "kiki.components" . | splitList " ") -}}
{{- $one := dict "root" $ "name" . -}}
{{- $most := int (include "kiki.replicasMax" $one) -}}
{{- if and (gt $most 1) (not $database) (ne . "syncvalue") -}}
{{- $wrong = append $wrong (printf "%s.replicaCount: %d replicas need a shared database; set postgres.host (or postgres.enabled), or one replica without autoscaling" . $most) -}}
{{- end -}}
{{- if and (gt $most 1) (eq . "syncshield") (not (include "kiki.redisAddress" $)) -}}
{{- $wrong = append $wrong (printf "%s.replicaCount: %d replicas need a shared window; set redis.address (or redis.enabled), or one replica without autoscaling" . $most) -}}
{{- end -}}
{{- $own := index $.Values . -}}
{{- $service := . -}}
{{- range $setting, $way := include "kiki.ownSettings" $ | fromYaml -}}
{{- if hasKey $own.extraEnv $setting -}}
{{- $wrong = append $wrong (printf "%s.extraEnv.%s: the chart sets it; %s" $service $setting $way) -}}
{{- end -}}
{{- end -}}
{{- if dig "autoscaling" "enabled" false $own -}}
{{- if gt (int $own.autoscaling.minReplicas) (int $own.autoscaling.maxReplicas) -}}
{{- $wrong = append $wrong (printf "%s.autoscaling.minReplicas: %d is more than maxReplicas, %d; lower the one or raise the other" . (int $own.autoscaling.minReplicas) (int $own.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $least := int $own.pdb.minAvailable -}}
{{- $replicas := int (include "kiki.replicasMin" $one) -}}
{{- if and $.Values.pdb.enabled $least (ge $least $replicas) -}}
{{- $wrong = append $wrong (printf "%s.pdb.minAvailable: %d of %d replicas would block every drain of a node for ever; set it below %d, or 0 for one pod at a time" . $least $replicas $replicas) -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.externalSecrets.enabled) (not .Values.keys.existingSecret) -}}
{{- $wrong = append $wrong "keys.existingSecret: name the Secret that holds kiki_master_key, kiki_tokens and kiki_shield_token (docs/deploy/secrets.md makes it), or set externalSecrets.enabled" -}}
{{- end -}}
{{- if .Values.externalSecrets.enabled -}}
{{- range $path, $value := include "kiki.providerNeeds" . | fromYaml -}}
{{- if not $value -}}
{{- $wrong = append $wrong (printf "externalSecrets.%s: the provider %s needs it; set it" $path $.Values.externalSecrets.provider) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.otel.enabled (not (include "kiki.otlp" .)) -}}
{{- $wrong = append $wrong "otel.collector.endpoint: telemetry has nowhere to go; set it to host:port, or set otel.collector.deploy" -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.ingress.tls -}}
{{- $covered := list -}}
{{- range .Values.ingress.tls -}}{{- $covered = concat $covered .hosts -}}{{- end -}}
{{- range (include "kiki.hosts" . | fromJsonArray) -}}
{{- if not (has .host $covered) -}}
{{- $wrong = append $wrong (printf "ingress.tls: no certificate for %s; list the host under one of them, or leave ingress.tls empty" .host) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.audit.shipTo (not (include "kiki.components" . | contains "syncshield")) -}}
{{- $wrong = append $wrong "audit.shipTo: SyncShield ships the ledger, and syncshield.enabled is false; enable it or leave audit.shipTo empty" -}}
{{- end -}}
{{- if and .Values.redis.enabled .Values.redis.address -}}
{{- $wrong = append $wrong "redis.enabled: the release's own Redis would stand unused beside redis.address; set one of the two" -}}
{{- end -}}
{{- if and .Values.postgres.enabled .Values.postgres.host -}}
{{- $wrong = append $wrong "postgres.enabled: the release's own PostgreSQL would stand unused beside postgres.host; set one of the two" -}}
{{- end -}}
{{- if and .Values.otel.collector.deploy (not .Values.otel.enabled) -}}
{{- $wrong = append $wrong "otel.collector.deploy: nothing sends to it; set otel.enabled" -}}
{{- end -}}
{{- if and .Values.otel.jaeger.deploy (not .Values.otel.collector.deploy) -}}
{{- $wrong = append $wrong "otel.jaeger.deploy: traces come to it through the collector; set otel.collector.deploy" -}}
{{- end -}}
{{- if and .Values.clusterIssuer.create (not .Values.ingress.issuer) -}}
{{- $wrong = append $wrong "clusterIssuer.create: ingress.issuer is its name; set it" -}}
{{- end -}}
{{- range list "mailFrom" "smsFrom" -}}
{{- if and $.Values.syncengage.enabled (index $.Values.syncengage .) (not (include "kiki.public" $)) -}}
{{- $wrong = append $wrong (printf "syncengage.%s: a message carries a link to unsubscribe, which must be reached; set ingress.enabled or gateway.enabled" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.syncengage.crm -}}
{{- if and (has .provider (list "shopify" "salesforce")) (not .url) -}}
{{- $wrong = append $wrong (printf "syncengage.crm.url: the source %s needs it; set it to the shop or the instance" .provider) -}}
{{- end -}}
{{- if and .url (not (has .provider (list "shopify" "salesforce"))) -}}
{{- $wrong = append $wrong "syncengage.crm.url: only shopify and salesforce have one; set syncengage.crm.provider, or leave it empty" -}}
{{- end -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\nvalues: %d wrong\n  - %s" (len $wrong) (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end -}}

{{- define "kiki.providerNeeds" -}}
{{- with .Values.externalSecrets -}}
{{- if eq .provider "aws" }}
region: {{ .region | quote }}
{{- else if eq .provider "azure" }}
azure.vaultUrl: {{ .azure.vaultUrl | quote }}
azure.tenantId: {{ .azure.tenantId | quote }}
{{- else }}
gcp.projectID: {{ .gcp.projectID | quote }}
gcp.clusterLocation: {{ .gcp.clusterLocation | quote }}
gcp.clusterName: {{ .gcp.clusterName | quote }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Settings that other parts of a release go by, and what to do instead of extraEnv. */}}
{{- define "kiki.ownSettings" -}}
PORT: "probes, Services and policies go by the chart's own; leave it out"
KIKI_HOST: "probes, Services and policies go by the chart's own; leave it out"
KIKI_VALUE_PORT: "probes, Services and policies go by the chart's own; leave it out"
KIKI_VALUE_HTTP_PORT: "probes, Services and policies go by the chart's own; leave it out"
KIKI_FLOW_GRPC_PORT: "probes, Services and policies go by the chart's own; leave it out"
KIKI_PUBLIC_PORT: "probes, Services and policies go by the chart's own; leave it out"
KIKI_PUBLIC_HOST: "probes, Services and policies go by the chart's own; leave it out"
KIKI_DATA_DIR: "the chart mounts what is there; leave it out"
KIKI_TOKENS_FILE: "the chart mounts what is there; leave it out"
KIKI_MASTER_KEY_FILE: "the chart mounts what is there; leave it out"
KIKI_SHIELD_TOKEN_FILE: "the chart mounts what is there; leave it out"
KIKI_FLOW_EXECUTOR: "each pod is told its own; leave it out"
KIKI_REPLICA: "each pod is told its own; leave it out"
OTEL_SERVICE_NAME: "each pod is told its own; leave it out"
OTEL_RESOURCE_ATTRIBUTES: "each pod is told its own; leave it out"
POD_NAME: "each pod is told its own; leave it out"
POD_NAMESPACE: "each pod is told its own; leave it out"
NODE_NAME: "each pod is told its own; leave it out"
KIKI_DRAIN_SECONDS: "set drain.seconds"
DB_HOST: "set postgres.host"
DB_PORT: "set postgres.port"
DB_NAME: "set postgres.database"
DB_USER: "set postgres.user"
REDIS_ADDR: "set redis.address"
REDIS_TLS: "set redis.tls"
KIKI_ARCHIVE: "set audit.shipTo"
{{- end -}}
