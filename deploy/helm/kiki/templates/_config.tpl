{{/* What each service is told by its ConfigMap. No secret is ever in here. */}}

{{- define "kiki.config.listen" -}}
KIKI_HOST: "0.0.0.0"
KIKI_LOG_LEVEL: {{ .Values.global.logLevel | quote }}
KIKI_DRAIN_SECONDS: {{ include "kiki.text" .Values.drain.seconds | quote }}
KIKI_BODY_BYTES_MAX: {{ printf "%dMiB" (int .Values.ingress.bodyMegabytes) | quote }}
{{- if include "kiki.otlp" . }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ include "kiki.otlpUrl" . | quote }}
OTEL_EXPORTER_OTLP_PROTOCOL: "grpc"
OTEL_TRACES_SAMPLER: "parentbased_traceidratio"
OTEL_TRACES_SAMPLER_ARG: {{ include "kiki.text" .Values.otel.samplingRate | quote }}
{{- else }}
OTEL_SDK_DISABLED: "true"
{{- end }}
{{- end -}}

{{- define "kiki.config.public" -}}
{{- if include "kiki.public" .root }}
KIKI_PUBLIC_PORT: {{ .port | quote }}
KIKI_PUBLIC_RATE: {{ include "kiki.text" .root.Values.ingress.rateLimitRps | quote }}
{{- end }}
{{- end -}}

{{- define "kiki.config.database" -}}
{{- if include "kiki.postgresHost" . }}
DB_HOST: {{ include "kiki.postgresHost" . | quote }}
DB_PORT: {{ include "kiki.text" .Values.postgres.port | quote }}
DB_NAME: {{ .Values.postgres.database | quote }}
DB_USER: {{ .Values.postgres.user | quote }}
{{- end }}
{{- end -}}

{{- define "kiki.config.syncshield" -}}
PORT: "8081"
KIKI_DATA_DIR: "/var/audit-logs"
KIKI_TOKENS_FILE: "/etc/kiki/keys/kiki_tokens"
KIKI_MASTER_KEY_FILE: "/etc/kiki/keys/kiki_master_key"
MAX_BURST_BUDGET: {{ include "kiki.text" .Values.syncshield.maxBurstBudget | quote }}
WINDOW_SECONDS: {{ include "kiki.text" .Values.syncshield.windowSeconds | quote }}
RETENTION_DAYS: {{ include "kiki.text" .Values.audit.retentionDays | quote }}
{{- if include "kiki.redisAddress" . }}
REDIS_ADDR: {{ include "kiki.redisAddress" . | quote }}
{{- if .Values.redis.tls }}
REDIS_TLS: "true"
{{- end }}
{{- else }}
KIKI_REDIS: "off"
{{- end }}
{{- if .Values.audit.shipTo }}
KIKI_ARCHIVE: {{ .Values.audit.shipTo | trimSuffix "/" | quote }}
{{- if and (hasPrefix "s3://" .Values.audit.shipTo) .Values.externalSecrets.region }}
AWS_REGION: {{ .Values.externalSecrets.region | quote }}
{{- end }}
{{- end }}
{{- if .Values.syncshield.policy }}
KIKI_POLICY_FILE: "/etc/kiki/config/budgets.yaml"
{{- end }}
{{- include "kiki.config.public" (dict "root" . "port" "9081") }}
{{- include "kiki.config.database" . }}
{{ include "kiki.config.listen" . }}
{{- end -}}

{{- define "kiki.config.syncvalue" -}}
KIKI_VALUE_PORT: "50051"
KIKI_VALUE_HTTP_PORT: "9051"
KIKI_VALUE_MODEL: {{ printf "/var/model/%s" .Values.syncvalue.model.file | quote }}
KIKI_VALUE_ANONYMOUS: "true"
KIKI_DATA_DIR: "/tmp"
{{ include "kiki.config.listen" . }}
{{- end -}}

{{/* Where the callers of SyncShield and SyncValue find them; a port by its Service's name, as in the guide. */}}
{{- define "kiki.config.clients" -}}
SHIELD_URL: "http://syncshield:80/check"
KIKI_SHIELD_TOKEN_FILE: "/etc/kiki/keys/kiki_shield_token"
LTV_GRPC_ADDR: "syncvalue:50051"
KIKI_TOKENS_FILE: "/etc/kiki/keys/kiki_tokens"
KIKI_MASTER_KEY_FILE: "/etc/kiki/keys/kiki_master_key"
{{- include "kiki.config.database" . }}
{{ include "kiki.config.listen" . }}
{{- end -}}

{{- define "kiki.config.syncflow" -}}
PORT: "8082"
KIKI_FLOW_GRPC_PORT: "50052"
KIKI_DATA_DIR: "/var/lib/kiki"
{{ include "kiki.config.clients" . }}
{{- end -}}

{{- define "kiki.config.syncengage" -}}
PORT: "8083"
KIKI_DATA_DIR: "/var/lib/kiki"
{{- if include "kiki.public" . }}
KIKI_ENGAGE_PUBLIC_URL: {{ printf "https://%s" .Values.global.domain.engage | quote }}
{{- end }}
{{- with .Values.syncengage.mailFrom }}
SENDGRID_FROM_EMAIL: {{ . | quote }}
{{- end }}
{{- with .Values.syncengage.smsFrom }}
TWILIO_FROM_PHONE: {{ . | quote }}
{{- end }}
{{- with .Values.syncengage.crm.provider }}
SYNCENGAGE_CRM_PROVIDER: {{ . | quote }}
{{- end }}
{{- with .Values.syncengage.crm.url }}
{{ ternary "SHOPIFY_SHOP_URL" "SALESFORCE_INSTANCE_URL" (eq $.Values.syncengage.crm.provider "shopify") }}: {{ . | quote }}
{{- end }}
{{- if .Values.syncengage.playbooks }}
KIKI_ENGAGE_PLAYBOOKS: "/etc/kiki/playbooks"
{{- end }}
{{- include "kiki.config.public" (dict "root" . "port" "9083") }}
{{ include "kiki.config.clients" . }}
{{- end -}}

{{/* The data of a component's ConfigMap: its settings, the user's own among them, and its files. */}}
{{- define "kiki.configData" -}}
{{- $data := include (printf "kiki.config.%s" .name) .root | fromYaml -}}
{{- range $name, $value := (index .root.Values .name).extraEnv -}}
{{- $_ := set $data $name (include "kiki.text" $value) -}}
{{- end -}}
{{- toYaml $data -}}
{{- end -}}

{{/* A ConfigMap that changes gets another name, so its pods are replaced, and a rollback finds the old one. */}}
{{- define "kiki.configName" -}}
{{- printf "kiki-config-%s-%s" .name (include "kiki.configData" . | sha256sum | trunc 10) -}}
{{- end -}}

{{- define "kiki.policyName" -}}
{{- printf "kiki-policy-syncshield-%s" (.Values.syncshield.policy | sha256sum | trunc 10) -}}
{{- end -}}

{{- define "kiki.playbooksName" -}}
{{- printf "kiki-playbooks-syncengage-%s" (toYaml .Values.syncengage.playbooks | sha256sum | trunc 10) -}}
{{- end -}}

{{/* What comes from Secrets and from the pod itself. */}}
{{- define "kiki.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: OTEL_SERVICE_NAME
  value: {{ .name }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "service.namespace=kiki,k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)"
{{- if ne .name "syncvalue" }}
- name: {{ ternary "KIKI_FLOW_EXECUTOR" "KIKI_REPLICA" (eq .name "syncflow") }}
  {{- /* A Deployment's pods have another name each time: SyncShield leases its chain, so that somebody goes on with what a pod left. */}}
  value: {{ ternary "syncshield-*" "$(POD_NAME)" (eq .name "syncshield") | quote }}
{{- if include "kiki.postgresHost" .root }}
- name: POSTGRES_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "kiki.postgresSecret" .root | quote }}
      key: POSTGRES_PASSWORD
{{- end }}
{{- end }}
{{- if and (eq .name "syncshield") (include "kiki.redisAddress" .root) }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "kiki.redisSecret" .root | quote }}
      key: REDIS_PASSWORD
      {{- if not (or .root.Values.redis.passwordSecret .root.Values.redis.enabled) }}
      optional: true
      {{- end }}
{{- end }}
{{- if eq .name "syncengage" }}
{{- range $variable, $key := include "kiki.channelKeys" .root | fromYaml }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef:
      name: kiki-runtime-secrets
      key: {{ $key }}
      optional: true
{{- end }}
{{- end }}
{{- end -}}

{{/* Variables of SyncEngage by the guide's names of the keys. One is read when its provider is chosen: a service refuses half of a configuration. */}}
{{- define "kiki.channelKeys" -}}
{{- if eq .Values.syncengage.crm.provider "shopify" }}
SHOPIFY_ACCESS_TOKEN: SHOPIFY_API_KEY
SHOPIFY_API_SECRET: SHOPIFY_API_SECRET
{{- else if eq .Values.syncengage.crm.provider "hubspot" }}
HUBSPOT_API_KEY: HUBSPOT_PRIVATE_APP_TOKEN
{{- else if eq .Values.syncengage.crm.provider "salesforce" }}
SALESFORCE_CLIENT_ID: SALESFORCE_CLIENT_ID
SALESFORCE_CLIENT_SECRET: SALESFORCE_CLIENT_SECRET
{{- end }}
{{- if .Values.syncengage.mailFrom }}
SENDGRID_API_KEY: SENDGRID_API_KEY
{{- end }}
{{- if .Values.syncengage.smsFrom }}
TWILIO_ACCOUNT_SID: TWILIO_ACCOUNT_SID
TWILIO_AUTH_TOKEN: TWILIO_AUTH_TOKEN
{{- end }}
{{- end -}}
