{{- /* Labels of the pods of a component. Only who takes requests is in the mesh: the controller talks to API servers, by TLS. */}}
{{- define "kyma-bindings.mesh.pod-labels" -}}
{{- with .root.Values.istio }}
{{- if .enabled }}
sidecar.istio.io/inject: {{ and (eq .mode "sidecar") (ne $.component "controller") | quote }}
{{- if and (eq .mode "ambient") (ne $.component "controller") }}
istio.io/dataplane-mode: ambient
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A sidecar would outlive the pod of a hook. */}}
{{- define "kyma-bindings.mesh.hook-labels" -}}
{{- if .Values.istio.enabled }}
sidecar.istio.io/inject: "false"
{{- end }}
{{- end }}

{{- /* Probes and metrics come past the sidecar: from outside of the mesh, too. */}}
{{- define "kyma-bindings.mesh.pod-annotations" -}}
{{- with .root.Values.istio }}
{{- if and .enabled (eq .mode "sidecar") (ne $.component "controller") }}
traffic.sidecar.istio.io/excludeInboundPorts: {{ $.root.Values.listen.adminPort | quote }}
proxy.istio.io/config: '{"holdApplicationUntilProxyStarts": true}'
{{- end }}
{{- end }}
{{- end }}

{{- define "kyma-bindings.mesh.service-labels" -}}
{{- with .Values.istio }}
{{- if and .enabled (eq .mode "ambient") }}
istio.io/use-waypoint: {{ .waypoint }}
istio.io/ingress-use-waypoint: "true"
{{- end }}
{{- end }}
{{- end }}

{{- /* What a policy of the mesh is for: the broker's pods, or in ambient mode their Service, where the waypoint sees requests. */}}
{{- define "kyma-bindings.mesh.target" -}}
{{- if eq .Values.istio.mode "ambient" }}
targetRefs:
  - {group: "", kind: Service, name: {{ include "kyma-bindings.fullname" . }}}
{{- else }}
selector:
  matchLabels:
    {{- include "kyma-bindings.selector" . | nindent 4 }}
    app.kubernetes.io/component: {{ .Values.single | ternary "all" "broker" }}
{{- end }}
{{- end }}

{{- define "kyma-bindings.mesh.check" -}}
{{- if .Values.istio.enabled }}
{{- if include "kyma-bindings.tls" . }}
{{- fail "istio.enabled: leave TLS to the mesh, which must see paths and tokens: unset tls.existingSecret and tls.certManager.enabled" }}
{{- end }}
{{- with .Values.istio.virtualService }}
{{- if and .enabled (not (or .domain .hosts)) }}
{{- fail "istio.virtualService.domain must be set, for the host kyma-bindings.<domain>, or istio.virtualService.hosts, or istio.virtualService.enabled=false" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
