module kyma-bindings-e2e-node

go 1.26.0
