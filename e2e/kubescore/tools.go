//go:build tools

// Package tools pins the command that the tests build.
package tools

import _ "github.com/zegl/kube-score/cmd/kube-score"
