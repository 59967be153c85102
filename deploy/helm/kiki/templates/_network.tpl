{{/* Who may call whom. docs/deploy/network.md shows the same as a table, and a test computes it from the rendered policies. */}}

{{- define "kiki.policy" }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "kiki.meta" (dict "root" .root "name" "kiki" "object" .object) | nindent 2 }}
{{- end -}}

{{/* The port that answers /livez, /readyz, /health and /metrics. */}}
{{- define "kiki.metricsPort" -}}
{{- get (dict "syncshield" "8081" "syncvalue" "9051" "syncflow" "8082" "syncengage" "8083") . -}}
{{- end -}}

{{/* Port: the pods that may call it. */}}
{{- define "kiki.callers" -}}
{{- if eq .name "syncshield" }}
8081: [syncengage, syncflow, kiki-test]
{{- else if eq .name "syncvalue" }}
50051: [syncengage, syncflow]
9051: [kiki-test]
{{- else if eq .name "syncflow" }}
8082: [kiki-test]
{{- else }}
8083: [kiki-test]
{{- end }}
{{- end -}}

{{/* A database inside the release, in a namespace of the cluster, or at an address outside. `inside` is a label of ours. */}}
{{- define "kiki.databasePeer" -}}
{{- $parts := regexFindAll "^[a-z0-9-]+[.]([a-z0-9-]+)[.]svc([.].*)?$" .host -1 -}}
- to:
    {{- if .inside }}
    - podSelector:
        matchLabels:
          app: {{ .inside }}
    {{- else if $parts }}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ index (splitList "." .host) 1 | quote }}
    {{- else }}
    {{- range .root.Values.networkPolicy.databaseCIDRs }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ .port }}}
{{- end -}}

{{- define "kiki.egress" -}}
{{- $v := .root.Values -}}
{{- if ne .name "syncvalue" }}
{{- if include "kiki.postgresHost" .root }}
{{ include "kiki.databasePeer" (dict "root" .root "host" (include "kiki.postgresHost" .root) "inside" (ternary "" "postgres" (ne $v.postgres.host "")) "port" (include "kiki.text" $v.postgres.port)) | trim }}
{{- end }}
{{- end }}
{{- if and (eq .name "syncshield") (include "kiki.redisAddress" .root) }}
{{ include "kiki.databasePeer" (dict "root" .root "host" (include "kiki.redisHost" .root) "inside" (ternary "" "redis" (ne $v.redis.address "")) "port" (include "kiki.redisPort" .root)) | trim }}
{{- end }}
{{- if or (eq .name "syncflow") (eq .name "syncengage") }}
- to:
    - podSelector:
        matchLabels:
          app: syncshield
  ports:
    - {protocol: TCP, port: 8081}
- to:
    - podSelector:
        matchLabels:
          app: syncvalue
  ports:
    - {protocol: TCP, port: 50051}
{{- end }}
{{- if or (eq .name "syncflow") (eq .name "syncengage") (and (eq .name "syncshield") $v.audit.shipTo) }}
- to:
    {{- range $v.networkPolicy.httpsCIDRs }}
    - ipBlock:
        cidr: {{ . | quote }}
        {{- with include "kiki.linkLocal" . }}
        except: [{{ . }}]
        {{- end }}
    {{- end }}
  ports:
    - {protocol: TCP, port: 443}
{{- end }}
{{- if and (eq .name "syncshield") (hasPrefix "gs://" $v.audit.shipTo) }}
# GKE gives pods their identity through the metadata server, and through nothing else.
- to:
    - ipBlock:
        cidr: 169.254.169.254/32
    - ipBlock:
        cidr: 169.254.169.252/32
  ports:
    - {protocol: TCP, port: 80}
    - {protocol: TCP, port: 988}
{{- end }}
{{- if and (eq .name "syncshield") (hasPrefix "s3://" $v.audit.shipTo) $v.externalSecrets.aws.podIdentity }}
# EKS Pod Identity gives pods their identity through an agent on the node.
- to:
    - ipBlock:
        cidr: 169.254.170.23/32
  ports:
    - {protocol: TCP, port: 80}
{{- end }}
{{- if include "kiki.otlp" .root }}
{{ include "kiki.otlpPeer" (dict "root" .root "to" (include "kiki.otlp" .root) "inside" (ternary "otel-collector" "" $v.otel.collector.deploy)) | trim }}
{{- end }}
{{- end -}}

{{- define "kiki.otlpPeer" -}}
{{ include "kiki.databasePeer" (dict "root" .root "host" (regexReplaceAll ":[0-9]+$" .to "") "inside" .inside "port" (regexFind "[0-9]+$" .to)) }}
{{- end -}}

{{- define "kiki.redisHost" -}}
{{- regexReplaceAll "^[a-z+]+://" (include "kiki.redisAddress" .) "" | splitList "@" | last | splitList "," | first | splitList "/" | first | splitList ":" | first -}}
{{- end -}}

{{/* Whoever brings requests from outside: the named ingress controllers, or anybody. */}}
{{- define "kiki.outsidePeers" -}}
{{- if .Values.networkPolicy.allowExternal }}
- ipBlock:
    cidr: 0.0.0.0/0
- ipBlock:
    cidr: ::/0
{{- else }}
{{- range .Values.networkPolicy.ingressNamespaces }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Not empty when cert-manager fetches a certificate for this namespace; a Gateway's belongs to the namespace of the Gateway. */}}
{{- define "kiki.solverHere" -}}
{{- $gateway := and .Values.gateway.enabled (eq (.Values.gateway.namespace | default (include "kiki.namespace" .)) (include "kiki.namespace" .)) -}}
{{- if and .Values.ingress.issuer (or .Values.ingress.enabled $gateway) -}}true{{- end -}}
{{- end -}}

{{/* The link-local part of a range of addresses, which nobody may call by it; empty where it holds none. The schema refuses ranges inside it. */}}
{{- define "kiki.linkLocal" -}}
{{- $length := splitList "/" . | last | int -}}
{{- if contains ":" . -}}
{{- if eq $length 0 -}}"fe80::/10"{{- end -}}
{{- else if le $length 16 -}}
{{- $size := 1 -}}
{{- range until (int (sub 32 $length)) -}}{{- $size = mul $size 2 -}}{{- end -}}
{{- $address := 0 -}}
{{- range (splitList "/" . | first | splitList ".") -}}{{- $address = add (mul $address 256) (int .) -}}{{- end -}}
{{- /* 2851995648 is 169.254.0.0. */ -}}
{{- if eq (div $address $size) (div 2851995648 $size) -}}169.254.0.0/16{{- end -}}
{{- end -}}
{{- end -}}
