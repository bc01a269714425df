{{- /* What all pods have, those of hooks too. */}}
{{- define "kyma-bindings.pod" -}}
{{- if not (hasKey .Values.podSpecExtra "enableServiceLinks") }}
enableServiceLinks: false
{{- end }}
{{- with concat .Values.imagePullSecrets .Values.global.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne .Values.hostUsers nil }}
hostUsers: {{ .Values.hostUsers }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $security := dict }}
{{- range $key, $value := .Values.podSecurityContext }}
{{- if not (has $value (list nil "")) }}
{{- $_ := set $security $key $value }}
{{- end }}
{{- end }}
{{- with $security }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSpecExtra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The pod of a hook, with the volumes of the Deployments. Takes root, component, the Deployment whose account it has (of), its
arguments, those that it may have besides, the resources, more of its metadata's annotations, and those that values give it (own). */}}
{{- define "kyma-bindings.hook-pod" -}}
{{- $root := .root }}
{{- $own := eq .of "controller" | ternary $root.Values.controller $root.Values.broker }}
metadata:
  {{- with .name }}
  name: {{ . }}
  namespace: {{ include "kyma-bindings.own-namespace" $root }}
  {{- end }}
  labels:
    {{- /* A sidecar would outlive it. */}}
    {{- $labels := merge (dict) $root.Values.podLabels (include "kyma-bindings.mesh.hook-labels" $root | fromYaml) }}
    {{- include "kyma-bindings.labels" (dict "root" $root "component" .component "labels" $labels) | nindent 4 }}
  {{- with merge (dict) (default (dict) .annotations) (default (dict) .own) $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "kyma-bindings.account" (dict "root" $root "component" .of) }}
  {{- with include "kyma-bindings.pod" $root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "kyma-bindings.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        {{- range concat .args $root.Values.extraArgs .extraArgs }}
        - {{ . | quote }}
        {{- end }}
      {{- with include "kyma-bindings.unique" (dict "key" "name" "lists" (list $root.Values.extraEnv $own.extraEnv)) }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      {{- with .resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with include "kyma-bindings.unique" (dict "key" "mountPath" "lists" (list $root.Values.extraVolumeMounts $own.extraVolumeMounts)) }}
      volumeMounts:
        {{- . | nindent 8 }}
      {{- end }}
  {{- with include "kyma-bindings.unique" (dict "key" "name" "lists" (list $root.Values.extraVolumes $own.extraVolumes)) }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* Takes what values say of a probe (own), and the path that is asked unless they ask otherwise: one probe asks in one way. */}}
{{- define "kyma-bindings.probe" -}}
{{- $asked := dict }}
{{- if not (or .own.exec .own.tcpSocket .own.grpc) }}
{{- $asked = dict "httpGet" (dict "path" .path "port" "admin") }}
{{- end }}
{{- merge (dict) .own $asked | toYaml }}
{{- end }}

{{- /* What --listen says, for a port. */}}
{{- define "kyma-bindings.listen" -}}
{{- $address := default "::" .root.Values.listen.address }}
{{- printf "%s:%v" (contains ":" $address | ternary (printf "[%s]" $address) $address) .port }}
{{- end }}

{{- define "kyma-bindings.args" -}}
{{- $values := .root.Values -}}
- run
- --role={{ .component }}
- --namespace={{ include "kyma-bindings.namespace" .root }}
{{- if ne .component "controller" }}
- --listen={{ include "kyma-bindings.listen" (dict "root" .root "port" $values.listen.port) }}
{{- end }}
- --admin-listen={{ include "kyma-bindings.listen" (dict "root" .root "port" $values.listen.adminPort) }}
{{- range $key, $value := omit $values.config "namespace" }}
- {{ printf "--%s=%v" (kebabcase $key) $value | quote }}
{{- end }}
{{- if ne .component "controller" }}
{{- with $values.auth }}
- --auth={{ join "," .methods }}
{{- if .allowAnonymous }}
- --allow-anonymous
{{- end }}
{{- if has "basic" .methods }}
- --htpasswd-file=/etc/kyma-bindings/htpasswd/{{ .basic.key }}
{{- if .basic.allowWithoutTls }}
- --allow-basic-without-tls
{{- end }}
{{- end }}
{{- if has "jwt" .methods }}
- --jwt-issuer={{ .jwt.issuer }}
- --jwt-audience={{ .jwt.audience }}
- --jwt-scope={{ .jwt.scope }}
{{- if .jwt.jwksExistingSecret }}
- --jwt-jwks-file=/etc/kyma-bindings/jwks/{{ .jwt.jwksKey }}
{{- end }}
{{- if .jwt.caExistingSecret }}
- --jwt-ca-file=/etc/kyma-bindings/jwt-ca/{{ .jwt.caKey }}
{{- end }}
{{- end }}
{{- end }}
{{- if include "kyma-bindings.tls" .root }}
- --tls-cert=/etc/kyma-bindings/tls/tls.crt
- --tls-key=/etc/kyma-bindings/tls/tls.key
{{- end }}
{{- if $values.catalog }}
- --catalog=/etc/kyma-bindings/catalog/catalog.yaml
{{- end }}
{{- end }}
{{- end }}

{{- /* Name and Secret of each directory that is mounted, as a map. */}}
{{- define "kyma-bindings.secrets" -}}
{{- $values := .root.Values -}}
{{- if ne .component "controller" }}
{{- if has "basic" $values.auth.methods }}
htpasswd: {{ $values.auth.basic.existingSecret }}
{{- end }}
{{- if has "jwt" $values.auth.methods }}
{{- with $values.auth.jwt.jwksExistingSecret }}
jwks: {{ . }}
{{- end }}
{{- with $values.auth.jwt.caExistingSecret }}
jwt-ca: {{ . }}
{{- end }}
{{- end }}
{{- with include "kyma-bindings.tls" .root }}
tls: {{ . }}
{{- end }}
{{- end }}
{{- end }}
