{{/* What every pod of the chart is made of, ours and the optional ones. */}}

{{- define "kiki.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
automountServiceAccountToken: false
enableServiceLinks: false
{{- end -}}

{{- define "kiki.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* What checkov would object to on purpose-made choices, with the reason beside it. */}}
{{- define "kiki.checkovSkips" -}}
checkov.io/skip1: CKV_K8S_43=the deployment guide names images by tag; a digest is accepted in the same place
checkov.io/skip2: CKV_K8S_35=the libraries of channels and databases read their credentials from variables; keys and tokens are files
{{- if ne .Values.global.imagePullPolicy "Always" }}
checkov.io/skip3: CKV_K8S_15=a cluster on a laptop holds images that no registry has
{{- end }}
{{- end -}}

{{- define "kiki.scheduling" -}}
{{- $own := index .root.Values .name -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .root.Values.spread.enabled }}
topologySpreadConstraints:
  {{- range $key, $when := dict "topology.kubernetes.io/zone" .root.Values.spread.zone "kubernetes.io/hostname" .root.Values.spread.host }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        app: {{ $.name }}
    matchLabelKeys: [{{ $.revision | default "pod-template-hash" }}]
  {{- end }}
{{- end }}
{{- end -}}

{{/* The first and only container of one of the four services. `ports` are {name, number}, `mounts` a YAML list. */}}
{{- define "kiki.container" -}}
{{- $own := index .root.Values .name -}}
- name: {{ .name }}
  image: {{ include "kiki.image" (dict "root" .root "image" $own.image) | quote }}
  imagePullPolicy: {{ .root.Values.global.imagePullPolicy }}
  command: [kiki, serve, {{ trimPrefix "sync" .name }}]
  {{- with $own.extraArgs }}
  args:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  workingDir: {{ .workingDir | default "/tmp" }}
  envFrom:
    - configMapRef:
        name: {{ include "kiki.configName" . }}
    {{- range $own.extraSecrets }}
    - secretRef:
        name: {{ . | quote }}
    {{- end }}
  env:
    {{- include "kiki.env" . | nindent 4 }}
  ports:
    {{- range .ports }}
    - name: {{ .name }}
      containerPort: {{ .number }}
      protocol: TCP
    {{- end }}
  resources:
    {{- toYaml $own.resources | nindent 4 }}
  {{- include "kiki.containerSecurity" . | nindent 2 }}
  startupProbe:
    httpGet:
      path: /livez
      port: http
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 60
  livenessProbe:
    httpGet:
      path: /livez
      port: http
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  readinessProbe:
    {{- .readiness | nindent 4 }}
    periodSeconds: 5
    timeoutSeconds: 3
    failureThreshold: 2
  lifecycle:
    preStop:
      exec:
        command: ["sleep", {{ include "kiki.text" .root.Values.drain.preStopSeconds | quote }}]
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- .mounts | nindent 4 }}
{{- end -}}

{{- define "kiki.ready" -}}
httpGet:
  path: /readyz
  port: http
{{- end -}}

{{/* How long a pod may take to go: what it waits before, what it drains, and a margin to close its ledger. */}}
{{- define "kiki.grace" -}}
{{- add (int .Values.drain.preStopSeconds) (int .Values.drain.seconds) 15 -}}
{{- end -}}

{{- define "kiki.tmpVolume" -}}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- end -}}

{{/* The files of the keys Secret that a component needs, and no others. */}}
{{- define "kiki.keysVolume" -}}
- name: keys
  secret:
    secretName: {{ include "kiki.keysSecret" .root | quote }}
    defaultMode: 0440
    items:
      - key: kiki_master_key
        path: kiki_master_key
      - key: kiki_tokens
        path: kiki_tokens
      {{- if ne .name "syncshield" }}
      - key: kiki_shield_token
        path: kiki_shield_token
      {{- end }}
{{- end -}}

{{- define "kiki.podTop" -}}
metadata:
  labels:
    {{- include "kiki.podLabels" . | nindent 4 }}
    {{- with (index .root.Values .name).podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if and (eq .name "syncshield") (eq .root.Values.externalSecrets.provider "azure") (hasPrefix "az://" .root.Values.audit.shipTo) }}
    azure.workload.identity/use: "true"
    {{- end }}
  annotations:
    checksum/config: {{ include "kiki.configData" . | sha256sum }}
    {{- include "kiki.checkovSkips" .root | nindent 4 }}
    {{- with (index .root.Values .name).podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Replaces a pod only when its successor is ready; a claim that one pod holds makes that impossible. */}}
{{- define "kiki.rollout" -}}
revisionHistoryLimit: 5
{{- if not (include "kiki.replicasRuled" .) }}
replicas: {{ int (index .root.Values .name).replicaCount }}
{{- end }}
progressDeadlineSeconds: 300
minReadySeconds: 5
selector:
  matchLabels:
    app: {{ .name }}
strategy:
  {{- if .alone }}
  type: Recreate
  {{- else }}
  type: RollingUpdate
  rollingUpdate:
    maxUnavailable: 0
    maxSurge: 1
  {{- end }}
{{- end -}}

{{- define "kiki.replicasRuled" -}}
{{- if dig "autoscaling" "enabled" false (index .root.Values .name) -}}true{{- end -}}
{{- end -}}
