module kyma-bindings-e2e-crds

go 1.26.0

// Only their files are used: CustomResourceDefinitions of what the chart has objects of.
require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
	istio.io/api v1.32.0
	sigs.k8s.io/gateway-api v1.6.3
)
