{{/* Names, labels and images. `root` is the top context everywhere below, `name` the component. */}}

{{- define "kiki.namespace" -}}
{{- .Values.global.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* The selector label is `app` alone: selectors cannot be changed later, and earlier releases have this one. */}}
{{- define "kiki.labels" -}}
app: {{ .name }}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/part-of: kiki
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | quote }}
{{- end -}}

{{/* Labels of pods leave out what every release changes, so that a new chart version alone restarts nothing. */}}
{{- define "kiki.podLabels" -}}
app: {{ .name }}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/part-of: kiki
{{- end -}}

{{- define "kiki.meta" -}}
name: {{ .object | default .name }}
namespace: {{ include "kiki.namespace" .root | quote }}
labels:
  {{- include "kiki.labels" . | nindent 2 }}
{{- end -}}

{{/* The registry goes before a name unless its first part is a registry already: it has a dot or a port, or is localhost. */}}
{{- define "kiki.image" -}}
{{- $first := splitList "/" .image | first -}}
{{- $own := and (contains "/" .image) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
{{- if or $own (not .root.Values.global.imageRegistry) -}}
{{- .image -}}
{{- else -}}
{{- printf "%s/%s" (trimSuffix "/" .root.Values.global.imageRegistry) .image -}}
{{- end -}}
{{- end -}}

{{/* A number or a text as it was written: Helm reads every number as a float, which would print 1e+06. */}}
{{- define "kiki.text" -}}
{{- if kindIs "string" . -}}{{- . -}}{{- else -}}{{- toJson . -}}{{- end -}}
{{- end -}}

{{/* What the replicas of a component are at least. */}}
{{- define "kiki.replicasMin" -}}
{{- $own := index .root.Values .name -}}
{{- if and (hasKey $own "autoscaling") (dig "autoscaling" "enabled" false $own) -}}
{{- int $own.autoscaling.minReplicas -}}
{{- else -}}
{{- int $own.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* The longest a component can grow to. */}}
{{- define "kiki.replicasMax" -}}
{{- $own := index .root.Values .name -}}
{{- if dig "autoscaling" "enabled" false $own -}}
{{- int $own.autoscaling.maxReplicas -}}
{{- else -}}
{{- int $own.replicaCount -}}
{{- end -}}
{{- end -}}

{{- define "kiki.components" -}}
{{- $all := list -}}
{{- range list "syncshield" "syncvalue" "syncflow" "syncengage" -}}
{{- if (index $.Values .).enabled -}}{{- $all = append $all . -}}{{- end -}}
{{- end -}}
{{- join " " $all -}}
{{- end -}}

{{/* Not empty when there is a PostgreSQL. */}}
{{- define "kiki.postgresHost" -}}
{{- .Values.postgres.host | default (ternary "postgres" "" .Values.postgres.enabled) -}}
{{- end -}}

{{/* Not empty when there is a Redis. */}}
{{- define "kiki.redisAddress" -}}
{{- .Values.redis.address | default (ternary "redis:6379" "" .Values.redis.enabled) -}}
{{- end -}}

{{/* The port of that address: of its first host when it is a cluster's. */}}
{{- define "kiki.redisPort" -}}
{{- $host := regexReplaceAll "^[a-z+]+://" (include "kiki.redisAddress" .) "" | splitList "@" | last | splitList "," | first | splitList "/" | first -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default "6379" -}}
{{- end -}}

{{/* Where the services send OTLP, as host:port: to the collector of the release if there is one; empty without telemetry. */}}
{{- define "kiki.otlp" -}}
{{- if .Values.otel.enabled -}}
{{- ternary "otel-collector:4317" (include "kiki.otlpEndpoint" .) .Values.otel.collector.deploy -}}
{{- end -}}
{{- end -}}

{{/* The endpoint that the values name, as host:port: for the services, or for the collector of the release to pass on to. */}}
{{- define "kiki.otlpEndpoint" -}}
{{- regexReplaceAll "^https?://" .Values.otel.collector.endpoint "" | trimSuffix "/" -}}
{{- end -}}

{{- define "kiki.otlpUrl" -}}
{{- ternary "https" "http" (and (not .Values.otel.collector.deploy) (hasPrefix "https://" .Values.otel.collector.endpoint)) }}://{{ include "kiki.otlp" . -}}
{{- end -}}

{{/* Not empty when something outside the cluster is let in. */}}
{{- define "kiki.public" -}}
{{- if or .Values.ingress.enabled .Values.gateway.enabled .Values.networkPolicy.allowExternal -}}true{{- end -}}
{{- end -}}

{{- define "kiki.keysSecret" -}}
{{- .Values.keys.existingSecret | default "kiki-keys" -}}
{{- end -}}

{{- define "kiki.redisSecret" -}}
{{- .Values.redis.passwordSecret | default "kiki-runtime-secrets" -}}
{{- end -}}

{{- define "kiki.postgresSecret" -}}
{{- .Values.postgres.passwordSecret | default "kiki-runtime-secrets" -}}
{{- end -}}

{{/* Every public host with the service behind it, as a JSON list. */}}
{{- define "kiki.hosts" -}}
{{- $hosts := list -}}
{{- if .Values.syncshield.enabled -}}{{- $hosts = append $hosts (dict "host" .Values.global.domain.shield "service" "syncshield") -}}{{- end -}}
{{- if .Values.syncengage.enabled -}}{{- $hosts = append $hosts (dict "host" .Values.global.domain.engage "service" "syncengage") -}}{{- end -}}
{{- toJson (concat $hosts .Values.ingress.hosts) -}}
{{- end -}}
