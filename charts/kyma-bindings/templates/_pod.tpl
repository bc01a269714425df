{{- /* What all pods have, those of hooks too. */}}
{{- define "kyma-bindings.pod" -}}
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
{{- with .Values.podSpecExtra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kyma-bindings.args" -}}
{{- $values := .root.Values -}}
- run
- --role={{ .component }}
- --namespace={{ include "kyma-bindings.namespace" .root }}
- --listen=0.0.0.0:8080
- --admin-listen=0.0.0.0:9090
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
