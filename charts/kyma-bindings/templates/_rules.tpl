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
# In a Role, that is its own namespace alone, whose UID identifies the control plane.
- {apiGroups: [""], resources: [namespaces], verbs: [get]}
{{- end }}

{{- define "kyma-bindings.rules.instances" -}}
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch]}
- {apiGroups: [infrastructuremanager.kyma-project.io], resources: [runtimes], verbs: [get, list, watch]}
{{- end }}
