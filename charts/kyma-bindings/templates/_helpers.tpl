{{- define "kyma-bindings.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "kyma-bindings.fullname" -}}
{{- $name := include "kyma-bindings.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Of the software itself. */}}
{{- define "kyma-bindings.own-namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "kyma-bindings.namespace" -}}
{{- default (include "kyma-bindings.own-namespace" .) .Values.config.namespace }}
{{- end }}

{{- define "kyma-bindings.selector" -}}
app.kubernetes.io/name: {{ include "kyma-bindings.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The pods with probes and metrics: hooks have none. */}}
{{- define "kyma-bindings.serves-admin" -}}
bindings.kyma-project.io/serves: admin
{{- end }}

{{- /* Takes root, and if wished component and labels. Each key is there once: those that selectors ask for are the chart's,
of the others the nearest counts. */}}
{{- define "kyma-bindings.labels" -}}
{{- $root := .root }}
{{- $labels := include "kyma-bindings.selector" $root | fromYaml }}
{{- with .component }}
{{- $_ := set $labels "app.kubernetes.io/component" . }}
{{- end }}
{{- $release := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $release "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") }}
{{- merge $labels (default (dict) .labels) $root.Values.commonLabels $release | toYaml }}
{{- end }}

{{- /* Objects of which each has one of a kind of name: takes lists, of which the later ones count, and that key. */}}
{{- define "kyma-bindings.unique" -}}
{{- $key := .key }}
{{- $last := dict }}
{{- $order := list }}
{{- range .lists }}
{{- range . }}
{{- $order = append $order (get . $key) | uniq }}
{{- $_ := set $last (get . $key) . }}
{{- end }}
{{- end }}
{{- $unique := list }}
{{- range $order }}
{{- $unique = append $unique (get $last .) }}
{{- end }}
{{- with $unique }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- /* Takes root, name, and if wished component, namespace, labels, annotations. */}}
{{- define "kyma-bindings.metadata" -}}
{{- $root := .root -}}
metadata:
  name: {{ .name }}
  namespace: {{ default (include "kyma-bindings.own-namespace" $root) .namespace }}
  labels:
    {{- include "kyma-bindings.labels" . | nindent 4 }}
  {{- with merge (dict) (default (dict) .annotations) $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "kyma-bindings.image" -}}
{{- $images := .Values.global.images }}
{{- $repository := .Values.image.repository }}
{{- with $images.container_registry.path }}
{{- $repository = default (list . $images.kyma_bindings.dir "kyma-bindings" | compact | join "/" | replace "//" "/") $repository }}
{{- end }}
{{- $tag := coalesce .Values.image.tag $images.kyma_bindings.version .Chart.AppVersion -}}
{{ required "image.repository must be set, or global.images.container_registry.path: no image is published yet" $repository }}:{{ $tag }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "kyma-bindings.account" -}}
{{- $root := .root }}
{{- $name := printf "%s-%s" (include "kyma-bindings.fullname" $root) .component }}
{{- if $root.Values.serviceAccount.create }}
{{- $name }}
{{- else if eq .component "broker" }}
{{- required "serviceAccount.brokerName must be set when serviceAccount.create is false" $root.Values.serviceAccount.brokerName }}
{{- else }}
{{- required "serviceAccount.controllerName must be set when serviceAccount.create is false" $root.Values.serviceAccount.controllerName }}
{{- end }}
{{- end }}

{{- /* The Secret with the certificate of the API; empty when it is plain HTTP. */}}
{{- define "kyma-bindings.tls" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "kyma-bindings.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end }}
{{- end }}

{{- define "kyma-bindings.port" -}}
{{ default (include "kyma-bindings.tls" . | empty | ternary 80 443) .Values.service.port }}
{{- end }}

{{- define "kyma-bindings.components" -}}
{{- if .Values.single }}all{{ else }}broker,controller{{ end }}
{{- end }}

{{- define "kyma-bindings.check" -}}
{{- $auth := .Values.auth }}
{{- if not $auth.methods }}
{{- fail "auth.methods must be set: [basic], [jwt], both, or [none] with auth.allowAnonymous=true, which hands out clusters' keys to anybody who can connect" }}
{{- end }}
{{- if has "none" $auth.methods }}
{{- if gt (len $auth.methods) 1 }}{{ fail "auth.methods: none must be the only one" }}{{ end }}
{{- if not $auth.allowAnonymous }}
{{- fail "auth.methods=[none] hands out clusters' keys to anybody who can connect: set auth.allowAnonymous=true if that is meant" }}
{{- end }}
{{- else if $auth.allowAnonymous }}{{ fail "auth.allowAnonymous has a meaning only with auth.methods=[none]" }}
{{- end }}
{{- if has "basic" $auth.methods }}
{{- if not $auth.basic.existingSecret }}{{ fail "auth.basic.existingSecret must be set for basic: a Secret with users and bcrypt hashes, as `htpasswd -B` writes them" }}{{ end }}
{{- if not (or (include "kyma-bindings.tls" .) $auth.basic.allowWithoutTls) }}
{{- fail "basic takes passwords: set tls.existingSecret, or tls.certManager.enabled=true, or auth.basic.allowWithoutTls=true if something in front speaks TLS" }}
{{- end }}
{{- end }}
{{- if and (has "jwt" $auth.methods) (not (and $auth.jwt.issuer $auth.jwt.audience)) }}
{{- fail "auth.jwt.issuer and auth.jwt.audience must be set for jwt" }}
{{- end }}
{{- if and $auth.jwt.jwksExistingSecret $auth.jwt.caExistingSecret }}
{{- fail "auth.jwt.caExistingSecret has no meaning with auth.jwt.jwksExistingSecret: nothing is fetched then" }}
{{- end }}
{{- with .Values.tls }}
{{- if and .existingSecret .certManager.enabled }}
{{- fail "tls: set existingSecret or certManager.enabled, not both" }}
{{- end }}
{{- if and .certManager.enabled (not .certManager.issuerRef.name) }}
{{- fail "tls.certManager.issuerRef.name must be set: the Issuer or ClusterIssuer of the certificate" }}
{{- end }}
{{- end }}
{{- $reconciling := .Values.single | ternary .Values.broker .Values.controller }}
{{- /* Without a number, somebody else says how many. */}}
{{- if and (not .Values.config.leaderElect) (ne (toString $reconciling.replicas) "0") (ne (toString $reconciling.replicas) "1") }}
{{- fail (printf "config.leaderElect=false is for one process alone: set %s.replicas=1" (.Values.single | ternary "broker" "controller")) }}
{{- end }}
{{- if and .Values.listen.address (contains "]" .Values.listen.address) }}
{{- fail "listen.address is an IP address without brackets and port; the ports are listen.port and listen.adminPort" }}
{{- end }}
{{- if eq (int .Values.listen.port) (int .Values.listen.adminPort) }}
{{- fail "listen.port and listen.adminPort must be two" }}
{{- end }}
{{- with .Values.podDisruptionBudget }}
{{- if and (ne .minAvailable nil) (ne .maxUnavailable nil) }}
{{- fail "podDisruptionBudget: set minAvailable or maxUnavailable, and the other one to null" }}
{{- end }}
{{- end }}
{{- end }}
