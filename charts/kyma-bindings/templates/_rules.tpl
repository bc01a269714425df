{{- define "kyma-bindings.rules.broker" -}}
- {apiGroups: [bindings.kyma-project.io], resources: [kymabindings], verbs: [get, list, watch, create, delete]}
- {apiGroups: [""], resources: [secrets], verbs: [get]}
{{- end }}

{{- define "kyma-bindings.rules.controller" -}}
- apiGroups: [bindings.kyma-project.io]
  resources: [kymabindings, kymabindings/status]
  verbs: [get, list, watch, create, update, patch, delete]
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch, create, delete]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
{{- end }}

{{- define "kyma-bindings.rules.instances" -}}
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch]}
- {apiGroups: [infrastructuremanager.kyma-project.io], resources: [runtimes], verbs: [get, list, watch]}
{{- end }}

{{- /* The UID of kube-system identifies the control plane; a Role of that namespace is enough to read it. */}}
{{- define "kyma-bindings.rules.cluster-id" -}}
- {apiGroups: [""], resources: [namespaces], resourceNames: [kube-system], verbs: [get]}
{{- end }}
